use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, mpsc};

use proptest::prelude::*;

use super::{Engine, EngineOptions};
use crate::btree::ReadError;
use crate::checkpoint::meta::NodeIdentity;
use crate::env::{Disk, RealDisk};
use crate::ids::{ClusterId, DatabaseId, LogId, RaftId, TxnId};
use crate::journal::frame::{Frame, FrameKind};
use crate::journal::{JournalMode, JournalOptions};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};
use crate::store::{Applied, Published};
use crate::txn::ops::ValueAt;
use crate::txn::{Batch, Staged};
use crate::verify::check_pages;

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        journal: JournalOptions { segment_bytes: 1 << 20, mode: JournalMode::Inline, ..JournalOptions::default() },
        background: false,
        retention_bytes: 1 << 20,
        ..EngineOptions::default()
    }
}

pub(crate) fn identity(raft_id: u64) -> NodeIdentity {
    NodeIdentity {
        cluster_id: ClusterId(7),
        raft_id: RaftId(raft_id),
        name: format!("n{raft_id}"),
        listen: "127.0.0.1:0".into(),
        advertise: "127.0.0.1:0".into(),
    }
}

pub(crate) fn create(disk: &Arc<dyn Disk>, directory: &Path, raft_id: u64) -> Engine {
    Engine::create(disk.clone(), directory, &identity(raft_id), DatabaseId(9), options()).expect("a new directory")
}

/// Appends frames and waits until they are durable.
pub(crate) fn append(engine: &Engine, frames: Vec<Frame>) {
    let (done, synced) = mpsc::channel();
    engine.append(frames, Box::new(move |result| done.send(result).expect("waited for"))).expect("not poisoned");
    synced.recv().expect("called").expect("synced");
}

/// Encodes a staged batch as the next frame of the log.
pub(crate) fn frame_of(engine: &Engine, staged: &Staged) -> Frame {
    let index = engine.log_state().last.map_or(0, |last| last.index.0 + 1);
    let commit = engine.applied().log_id.map(|log_id| log_id.index);
    Frame::encode(FrameKind::Record, LogId::new(1, index), commit, engine.last_chain(), staged.payload.clone())
}

/// Runs `work` as one transaction of one batch and commits it.
pub(crate) fn commit(engine: &Engine, work: impl FnOnce(&mut Batch)) -> Option<Frame> {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    work(&mut batch);
    batch.commit_txn();
    let staged = batch.seal(1).expect("it fits")?;
    let frame = frame_of(engine, &staged);
    append(engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
    Some(frame)
}

pub(crate) fn check(engine: &Engine) {
    let read = engine.read();
    let report = check_pages(&read, &mut |_| {}).expect("readable");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.digest, engine.applied().digest, "the digest is the pages'");
}

pub(crate) fn contents(engine: &Engine, tree: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let read = engine.read();
    let mut found = BTreeMap::new();
    let Some(mut cursor) = read.cursor(tree).expect("readable") else { return found };
    let mut there = cursor.first().expect("readable");
    while there {
        found.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("readable"));
        there = cursor.next().expect("readable");
    }
    found
}

fn data_bytes(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("g1/data")).expect("a data file")
}

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

#[derive(Clone, Debug)]
enum Step {
    /// Transactions of one batch: key, value length (`None` deletes), whether the transaction is rolled back.
    Batch(Vec<Vec<(u8, Option<usize>, bool)>>),
    DeleteRange(u8, u8),
    DropTree,
    Stage,
    DropStaged,
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![6 => 0..300_usize, 2 => 1_900..2_200_usize, 1 => 8_000..60_000_usize];
    let change = (any::<u8>(), prop::option::weighted(0.8, length), prop::bool::weighted(0.1));
    prop_oneof![
        12 => prop::collection::vec(prop::collection::vec(change, 1..6), 1..5).prop_map(Step::Batch),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::DeleteRange(a.min(b), a.max(b))),
        1 => Just(Step::DropTree),
        2 => Just(Step::Stage),
        1 => Just(Step::DropStaged),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> Vec<u8> {
    let mut key = vec![number; 1 + usize::from(number) * 3];
    key[0] = number;
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A leader that executes and a follower that decodes, against a plain map: contents, digests and files agree.
    #[test]
    fn leader_and_follower_agree_with_a_map(steps in prop::collection::vec(step(), 1..40), split in 20..80_u8) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let (leader_home, follower_home) = (home.path().join("leader"), home.path().join("follower"));
        let planted = EngineOptions { split_percent: split, ..options() };
        drop(create(&disk, &leader_home, 1));
        let (mut leader, _) = Engine::open(disk.clone(), &leader_home, planted).expect("opens");
        let mut follower = create(&disk, &follower_home, 2);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut pin = None;
        for (number, step) in steps.into_iter().enumerate() {
            let before = model.clone();
            let mut frame = None;
            match step {
                Step::Batch(txns) => {
                    let mut batch = leader.begin_batch().expect("memory");
                    for txn in txns {
                        run_txn(&mut batch, &mut model, txn, number);
                    }
                    if let Some(staged) = batch.seal(number as u64).expect("fits") {
                        frame = Some(frame_of(&leader, &staged));
                    }
                }
                Step::DeleteRange(from, to) => frame = commit_later(&leader, |batch| {
                    batch.create_tree("t").expect("works");
                    let (from, to) = (key(from), key(to));
                    let deleted = batch.delete_range("t", Bound::Included(&from), Bound::Excluded(&to)).expect("works");
                    let size = model.len();
                    model.retain(|k, _| !(from <= *k && *k < to));
                    assert_eq!(deleted, (size - model.len()) as u64);
                }),
                Step::DropTree => frame = commit_later(&leader, |batch| {
                    batch.drop_tree("t").expect("works");
                    model.clear();
                }),
                Step::Stage => {
                    let mut batch = leader.begin_batch().expect("memory");
                    run_txn(&mut batch, &mut before.clone(), vec![(1, Some(20_000), false)], number);
                    batch.seal(0).expect("fits");
                    leader.drop_staged();
                }
                Step::DropStaged => leader.drop_staged(),
                Step::Checkpoint => {
                    leader.checkpoint().expect("works");
                    follower.checkpoint().expect("works");
                }
                Step::Reopen => {
                    drop(pin.take());
                    drop(leader);
                    drop(follower);
                    leader = Engine::open(disk.clone(), &leader_home, planted).expect("opens").0;
                    follower = Engine::open(disk.clone(), &follower_home, options()).expect("opens").0;
                    catch_up(&leader);
                    catch_up(&follower);
                }
            }
            if let Some(frame) = frame {
                append(&leader, vec![frame.clone()]);
                append(&follower, vec![frame.clone()]);
                leader.apply(&frame).expect("applies");
                let how = follower.apply(&frame).expect("applies");
                let decoded = matches!(how, Applied::Record { how: Published::Decoded, .. });
                prop_assert!(decoded, "{:?}", how);
            }
            if number % 5 == 0 {
                pin = Some((follower.read(), model.clone()));
            }
            if let Some((read, then)) = &pin {
                prop_assert_eq!(snapshot(read), then.clone());
            }
        }
        prop_assert_eq!(contents(&leader, "t"), model.clone());
        prop_assert_eq!(contents(&follower, "t"), model);
        prop_assert_eq!(leader.applied().digest, follower.applied().digest);
        prop_assert_eq!(follower.status().tree_mutations, 0);
        check(&leader);
        check(&follower);
        drop(pin);
        leader.checkpoint().expect("works");
        follower.checkpoint().expect("works");
        prop_assert!(data_bytes(&leader_home) == data_bytes(&follower_home), "the data files differ");
    }
}

fn snapshot(read: &crate::txn::ReadTxn) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Some(mut cursor) = read.cursor("t").expect("readable") else { return found };
    let mut there = cursor.last().expect("readable");
    while there {
        found.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("readable"));
        there = cursor.previous().expect("readable");
    }
    found
}

fn run_txn(
    batch: &mut Batch,
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    changes: Vec<(u8, Option<usize>, bool)>,
    mark: usize,
) {
    let version = batch.begin_txn();
    let mut after = model.clone();
    let roll_back = changes[0].2;
    batch.create_tree("t").expect("works");
    for (number, length, _) in changes {
        let key = key(number);
        match length {
            Some(length) => {
                let value = vec![u8::try_from(mark % 251).expect("small"); length];
                let previous = batch.put("t", &key, &value).expect("fits");
                assert_eq!(previous.is_some(), after.insert(key.clone(), value).is_some());
                assert_eq!(batch.get("t", &key).expect("readable").expect("just put").version, version);
            }
            None => {
                let previous = batch.delete("t", &key).expect("works");
                assert_eq!(previous.is_some(), after.remove(&key).is_some());
            }
        }
    }
    if roll_back {
        batch.rollback_txn();
    } else {
        batch.commit_txn();
        *model = after;
    }
}

fn commit_later(engine: &Engine, work: impl FnOnce(&mut Batch)) -> Option<Frame> {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    work(&mut batch);
    batch.commit_txn();
    let staged = batch.seal(1).expect("fits")?;
    Some(frame_of(engine, &staged))
}

/// Applies what recovery left to the consensus.
pub(crate) fn catch_up(engine: &Engine) {
    let state = engine.log_state();
    let from = engine.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
    let until = state.last.map_or(0, |log_id| log_id.index.0 + 1);
    for index in from..until {
        let frames =
            engine.read_frames(crate::ids::LogIndex(index), crate::ids::LogIndex(index + 1), 1).expect("readable");
        engine.apply(&frames[0]).expect("applies");
    }
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
        "0100",
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
