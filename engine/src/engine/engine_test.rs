use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::rig_test::{append, check, commit, contents, create, data_bytes, frame_of, identity, options};
use super::{Engine, EngineOptions};
use crate::btree::ReadError;
use crate::env::{Disk, RealDisk};
use crate::ids::{DatabaseId, LogId, TxnId};
use crate::journal::frame::{Frame, FrameKind};
use crate::journal::{JournalMode, JournalOptions};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};
use crate::store::{Applied, Published};
use crate::txn::ops::ValueAt;
use crate::verify::check_pages;

#[test]
fn what_is_committed_is_there_after_reopening() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    commit(&engine, |batch| {
        batch.create_tree("t").expect("a new tree");
        batch.put("t", b"k", b"v").expect("fits");
    });
    assert_eq!(engine.applied().txn_id, TxnId(1));
    check(&engine);
    drop(engine);
    for checkpoint in [false, true, false] {
        let (engine, report) = Engine::open(disk.clone(), home.path(), options()).expect("opens");
        // Nothing behind it in the journal says that the last frame is committed; the consensus does.
        if engine.applied().txn_id == TxnId(0) {
            let frame =
                engine.read_frames(crate::ids::LogIndex(0), crate::ids::LogIndex(1), 1).expect("kept").remove(0);
            assert!(matches!(engine.apply(&frame), Ok(Applied::Record { how: Published::Decoded, .. })));
        }
        assert_eq!(contents(&engine, "t"), BTreeMap::from([(b"k".to_vec(), b"v".to_vec())]), "{report:?}");
        check(&engine);
        if checkpoint {
            engine.checkpoint().expect("works");
        }
    }
    let (engine, _) = Engine::open(disk, home.path(), options()).expect("opens");
    assert_eq!(engine.applied().txn_id, TxnId(1), "the checkpoint holds it");
}

#[test]
fn a_rolled_back_transaction_leaves_the_rest_of_its_batch() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    batch.put("t", b"a", b"1").expect("fits");
    assert_eq!(batch.commit_txn(), Some(TxnId(1)));
    batch.begin_txn();
    batch.put("t", b"a", &[7; 100_000]).expect("fits");
    batch.put("t", b"b", &[8; 3_000]).expect("fits");
    batch.delete_range("t", Bound::Unbounded, Bound::Unbounded).expect("works");
    batch.create_tree("u").expect("new");
    batch.rollback_txn();
    batch.begin_txn();
    batch.put("t", b"c", b"3").expect("fits");
    assert_eq!(batch.commit_txn(), Some(TxnId(2)));
    let staged = batch.seal(1).expect("fits").expect("changed something");
    let frame = frame_of(&engine, &staged);
    append(&engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
    let expected = BTreeMap::from([(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    assert_eq!(contents(&engine, "t"), expected);
    assert!(!engine.read().trees().expect("readable").iter().any(|(name, _)| name == "u"));
    check(&engine);
}

#[test]
fn dropping_staged_batches_goes_back_to_the_applied_state() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    commit(&engine, |batch| {
        batch.create_tree("t").expect("new");
        batch.put("t", b"kept", b"1").expect("fits");
    });
    for round in 0..3_u8 {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.put("t", &[b'x', round], &[round; 9_000]).expect("fits");
        batch.commit_txn();
        batch.seal(1).expect("fits").expect("changed something");
    }
    assert_eq!(engine.staged().batches, 3);
    engine.drop_staged();
    assert_eq!((engine.staged().batches, engine.staged().newest_txn), (0, TxnId(1)));
    commit(&engine, |batch| {
        batch.put("t", b"next", b"2").expect("fits");
    });
    assert_eq!(contents(&engine, "t").len(), 2);
    check(&engine);
}

#[test]
fn a_large_value_written_over_one_that_is_equal_or_nearly_so_is_whole_in_the_record() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let leader = create(&disk, &home.path().join("leader"), 1);
    let follower = create(&disk, &home.path().join("follower"), 2);
    let mut value = vec![7; 30_000];
    for change in [None, None, Some(9_000), Some(29_999)] {
        if let Some(place) = change {
            value[place] += 1;
        }
        let frame = commit(&leader, |batch| {
            batch.create_tree("t").expect("works");
            batch.put("t", b"k", &value).expect("fits");
        })
        .expect("a new version");
        let bytes = frame.payload().bytes();
        let record = crate::txn::record::Record::decode(bytes).expect("a record");
        let put = record.operations.iter().find(|operation| operation.key == b"k").expect("the put");
        let ValueAt::Run(start, length) = put.value else { panic!("{:?}", put.value) };
        let pages =
            bytes[start as usize..].chunks(PAGE_BYTES).take(value.len().div_ceil(PAGE_BYTES - PAGE_HEADER_BYTES));
        let mut found: Vec<u8> = pages.flat_map(|page| &page[PAGE_HEADER_BYTES..]).copied().collect();
        found.truncate(length as usize);
        assert!(found == value, "the value stands whole in the record");
        append(&follower, vec![frame.clone()]);
        follower.apply(&frame).expect("applies");
        assert_eq!(contents(&follower, "t"), BTreeMap::from([(b"k".to_vec(), value.clone())]));
    }
    check(&follower);
}

#[test]
fn a_checkpoint_waits_for_an_expired_reader_that_is_still_held() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let small = EngineOptions { version_bytes_limit: 128 << 10, ..options() };
    let engine = Engine::create(disk.clone(), home.path(), &identity(1), DatabaseId(9), small).expect("new");
    let put = |round: u8| {
        commit(&engine, |batch| {
            batch.create_tree("t").expect("works");
            batch.put("t", &[round], &[round; 12_000]).expect("fits");
        });
    };
    put(1);
    let reader = engine.read();
    let at = engine.checkpoint().expect("works").at;
    for round in 2..=11 {
        put(round);
    }
    assert!(matches!(reader.get("t", &[1]), Err(ReadError::Expired)), "versions take far more than their bound");
    assert_eq!(engine.checkpoint().expect("works").at, at, "the reader may still hold slices");
    drop(engine);
    drop(reader);
    let (engine, _) = Engine::open(disk, home.path(), small).expect("opens");
    let rest = engine.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
    for index in (rest..11).map(crate::ids::LogIndex) {
        engine.apply(&engine.read_frames(index, index.next(), 1).expect("kept")[0]).expect("applies");
    }
    assert_eq!(contents(&engine, "t").len(), 11);
    engine.checkpoint().expect("works");
    assert_eq!(engine.checkpointed(), engine.applied(), "no reader is in the way any more");
    check(&engine);
}

#[test]
fn a_record_that_does_not_build_on_the_state_is_void() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    let frame = commit(&engine, |batch| {
        batch.create_tree("t").expect("new");
    })
    .expect("changed something");
    // The same record again, under the next index: it builds on txn 0, and the state is txn 1.
    let again = Frame::encode(FrameKind::Record, LogId::new(2, 1), None, engine.last_chain(), frame.payload().clone());
    append(&engine, vec![again.clone()]);
    let before = engine.applied();
    assert_eq!(engine.apply(&again).expect("a defined case"), Applied::Void);
    let after = engine.applied();
    assert_eq!((after.txn_id, after.digest), (before.txn_id, before.digest));
    assert_eq!(after.log_id, Some(LogId::new(2, 1)));
    assert_eq!(engine.status().void_records, 1);
}

#[test]
fn a_flipped_byte_in_a_page_version_stops_the_follower_at_the_next_change() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let leader = create(&disk, &home.path().join("leader"), 1);
    let follower = create(&disk, &home.path().join("follower"), 2);
    for value in [b"1", b"2"] {
        let frame = commit(&leader, |batch| {
            batch.create_tree("t").expect("works");
            batch.put("t", b"k", value).expect("fits");
        })
        .expect("changed something");
        append(&follower, vec![frame.clone()]);
        if value == b"1" {
            follower.apply(&frame).expect("applies");
            flip_a_leaf(&follower);
        } else {
            let error = follower.apply(&frame).expect_err("the page differs").to_string();
            assert!(error.contains("differs from the leader's"), "{error}");
        }
    }
    assert_eq!(follower.status().tree_mutations, 0);
}

/// Flips a byte of a leaf's version, in memory.
fn flip_a_leaf(engine: &Engine) {
    let store = engine.core.store();
    let read = engine.read();
    let root = read.tree("t").expect("readable").expect("there").root.expect("not empty");
    let txn = read.txn_id();
    drop(read);
    let Some(crate::versions::Image::Page(page)) = store.versions.newest_at(root, txn) else { panic!("a version") };
    let mut page = (*page).clone();
    page.bytes_mut()[4_000] ^= 1;
    store.versions.drop_version(root, txn);
    store.versions.push(root, txn, crate::versions::Image::Page(Arc::new(page)));
}

#[test]
fn a_batch_staged_on_another_batch_of_the_same_txn_id_is_void() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    let stage = |value: &[u8]| {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.create_tree("t").expect("works");
        batch.put("t", b"k", value).expect("fits");
        batch.commit_txn();
        batch.seal(1).expect("fits").expect("changed something")
    };
    let first = stage(b"first");
    // Its outcome is not known; it is dropped here, and two batches are staged in its place.
    engine.drop_staged();
    let (second, third) = (stage(b"second"), stage(b"third"));
    assert_eq!((second.first_txn, third.first_txn), (TxnId(1), TxnId(2)));
    // The log has all three. The third builds on txn 1, and txn 1 is applied: but it is another txn 1.
    let mut applied = Vec::new();
    for staged in [first, second, third] {
        let frame = frame_of(&engine, &staged);
        append(&engine, vec![frame.clone()]);
        applied.push(engine.apply(&frame).expect("a defined case"));
    }
    assert!(matches!(applied[0], Applied::Record { .. }));
    assert_eq!(applied[1..], [Applied::Void, Applied::Void]);
    assert_eq!(contents(&engine, "t"), BTreeMap::from([(b"k".to_vec(), b"first".to_vec())]));
    check(&engine);
}

#[test]
fn the_fixed_part_of_a_record_is_what_it_was() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    let base = engine.applied().digest;
    let frame = commit(&engine, |batch| {
        batch.create_tree("t").expect("works");
        batch.put("t", b"k", b"v").expect("fits");
    })
    .expect("changed something");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected = [
        "43524543",
        "0200",
        "0000",
        "0000000000000000",
        "0100000000000000",
        "0100000000000000",
        "0100000000000000",
        "0100000000000000",
        &hex(&engine.applied().digest.0.to_le_bytes()),
        &hex(&base.0.to_le_bytes()),
        "00000000", // freed runs
        "02000000", // full images: a leaf of "t", and one of the tree of trees
        "02000000", // diffs: the superblock and the bitmap
        "01000000", // names
        "02000000", // operations: create tree, put
        "00000000",
    ];
    assert_eq!(hex(&frame.payload().bytes()[..104]), expected.concat());
}

/// Fills more than one group of pages and empties it again: the second group's bitmap page is free then too, and the
/// digest, the file and a follower know it.
#[test]
fn a_group_that_comes_and_goes_takes_its_bitmap_with_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let large = EngineOptions {
        journal: JournalOptions { segment_bytes: 32 << 20, mode: JournalMode::Inline, ..JournalOptions::default() },
        ..options()
    };
    let engine = Engine::create(disk, home.path(), &identity(1), DatabaseId(9), large).expect("new");
    let value = vec![5; 8 << 20];
    let mut number = 0_u8;
    while u64::from(crate::alloc::PAGES_PER_GROUP) >= engine.status().page_count {
        commit(&engine, |batch| {
            batch.create_tree("t").expect("works");
            batch.put("t", &[number], &value).expect("fits");
        });
        number += 1;
        engine.purge(engine.applied().log_id.expect("not empty")).expect("only noted");
        engine.checkpoint().expect("works");
    }
    commit(&engine, |batch| {
        batch.drop_tree("t").expect("works");
    });
    assert!(engine.status().page_count < 100);
    let read = engine.read();
    let report = check_pages(&read, &mut |_| {}).expect("readable");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.digest, engine.applied().digest, "the digest forgets the bitmap");
    drop(read);
    engine.checkpoint().expect("works");
    assert_eq!(data_bytes(home.path()).len() as u64, engine.status().page_count * 8192);
}
