//! Readers that are cut and go on: nothing is missed, nothing comes twice, and what is gone is named.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{ChangeKind, FeedError, FeedPlace, FrameChanges};
use crate::Batch;
use crate::engine::rig_test::{append, commit, contents, frame_of, identity, options};
use crate::engine::{Engine, EngineOptions};
use crate::env::{Disk, SimDisk};
use crate::ids::{DatabaseId, LogIndex, TxnId};
use crate::journal::JournalOptions;

/// Segments of so many bytes: a record must fit into one, and they are recycled whole.
fn with_segments(segment_bytes: u64) -> EngineOptions {
    let journal = JournalOptions { segment_bytes, ..options().journal };
    EngineOptions { retention_bytes: 0, journal, ..options() }
}

fn new(disk: &Arc<dyn Disk>, segment_bytes: u64) -> Engine {
    let options = with_segments(segment_bytes);
    Engine::create(disk.clone(), Path::new("/node"), &identity(1), DatabaseId(9), options).expect("a new directory")
}

fn reopened(disk: &Arc<dyn Disk>, engine: Engine) -> Engine {
    drop(engine);
    let engine = Engine::open(disk.clone(), Path::new("/node"), with_segments(1 << 20)).expect("it opens").0;
    crate::engine::rig_test::catch_up(&engine);
    engine
}

fn put(engine: &Engine, key: u8, length: usize) {
    let work = |batch: &mut Batch| {
        batch.create_tree("t").expect("works");
        batch.put("t", &[key], &vec![key; length]).expect("fits");
    };
    commit(engine, work).expect("changed something");
}

fn purge(engine: &Engine) {
    engine.purge(engine.applied().log_id.expect("not empty")).expect("only noted");
    engine.checkpoint().expect("works");
}

/// The txn ids of everything that a place has ahead of it.
fn txns(engine: &Engine, mut place: FeedPlace) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let frames = engine.committed_frames(&place, 1).expect("readable");
        if frames.is_empty() {
            return found;
        }
        for frame in frames {
            let changes = FrameChanges::decode(frame).expect("a record");
            found.extend(place.take(&changes).expect("the next one").iter().map(|change| change.txn.0));
            found.dedup();
        }
    }
}

#[test]
fn whoever_knows_a_txn_gets_what_follows_it_also_after_a_restart() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut engine = new(&disk, 1 << 20);
    for key in 0..40 {
        put(&engine, key, 60_000);
    }
    for _ in 0..2 {
        for after in 0..=40 {
            let expected: Vec<u64> = (after + 1..=40).collect();
            assert_eq!(txns(&engine, engine.feed_after(TxnId(after)).expect("all is held")), expected);
        }
        assert_eq!(engine.feed_oldest().expect("all is held").through(), TxnId(0));
        // A place that this node does not have yet.
        let ahead = engine.feed_after(TxnId(44)).expect("to come");
        assert_eq!((ahead.through(), txns(&engine, ahead)), (TxnId(44), vec![]));
        engine = reopened(&disk, engine);
    }
    let ahead = engine.feed_after(TxnId(42)).expect("to come");
    for key in 40..44 {
        put(&engine, key, 10);
    }
    assert_eq!(txns(&engine, ahead), [43, 44]);
}

#[test]
fn what_is_purged_is_named_with_the_first_that_is_held() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut engine = new(&disk, 64 << 10);
    for key in 0..20 {
        put(&engine, key, 20_000);
    }
    let slow = engine.feed_after(TxnId(1)).expect("held");
    let pin = engine.pin("half", LogIndex(9), u64::MAX).expect("held");
    purge(&engine);
    for _ in 0..2 {
        let first = engine.core.store().journal.first_kept().next_index();
        assert!(first > LogIndex(0) && first <= LogIndex(9), "{first}");
        // The rig's frames are one transaction each, from the log's first on.
        let refused = engine.feed_after(TxnId(first.0 - 1)).expect_err("purged");
        assert!(matches!(refused, FeedError::NotHeld { oldest, .. } if oldest == TxnId(first.0)), "{refused}");
        let oldest = engine.feed_oldest().expect("held");
        assert_eq!(oldest.through(), TxnId(first.0));
        assert_eq!(txns(&engine, oldest), (first.0 + 1..=20).collect::<Vec<_>>());
        let refused = engine.committed_frames(&slow, 1).expect_err("purged");
        assert!(matches!(refused, FeedError::NotHeld { after: TxnId(1), oldest } if oldest == TxnId(first.0)));
        engine = reopened(&disk, engine);
    }
    drop(pin);
}

#[test]
fn a_void_record_yields_nothing_wherever_the_reader_begins() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut engine = new(&disk, 1 << 20);
    put(&engine, 1, 100);
    let stage = |value: &'static [u8], wall| {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.put("t", b"v", value).expect("fits");
        batch.commit_txn();
        batch.seal(wall).expect("fits").expect("it changes something")
    };
    // The first of two batches is lost: the second one builds on nothing that is there.
    let (_lost, void) = (stage(b"lost", 2), stage(b"void", 3));
    let frame = frame_of(&engine, &void);
    append(&engine, vec![frame.clone()]);
    engine.drop_staged();
    assert_eq!(engine.apply(&frame).expect("applies"), crate::Applied::Void);
    put(&engine, 2, 100);
    put(&engine, 3, 100);
    for _ in 0..2 {
        for after in 0..=3 {
            let place = engine.feed_after(TxnId(after)).expect("all is held");
            assert_eq!(txns(&engine, place), (after + 1..=3).collect::<Vec<_>>());
        }
        engine = reopened(&disk, engine);
    }
    let mut place = engine.feed_after(TxnId(0)).expect("held");
    let frames = engine.committed_frames(&place, 1 << 20).expect("readable");
    let skipped = FrameChanges::decode(frames[1].clone()).expect("a record");
    assert!(matches!(place.take(&skipped), Err(FeedError::OtherHistory { next: LogIndex(0) })), "not the next one");
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Does what changes say, to a map that holds the tree `t`.
fn replay(model: &mut Model, kind: &ChangeKind) {
    match kind {
        ChangeKind::Put { key, value } => drop(model.insert(key.to_vec(), value.to_bytes().to_vec())),
        ChangeKind::Delete { key } => assert!(model.remove(&key[..]).is_some(), "it was there"),
        ChangeKind::DeleteRange { range } => {
            let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
                (range.start.as_ref().map(|key| &key[..]), range.end.as_ref().map(|key| &key[..]));
            model.retain(|key, _| !RangeBounds::<[u8]>::contains(&bounds, &key[..]));
        }
        ChangeKind::CreateTree { .. } | ChangeKind::DropTree => model.clear(),
        other => panic!("the workload does no {other:?}"),
    }
}

/// A batch of up to four transactions.
fn write(engine: &Engine, random: &mut StdRng) {
    let mut batch = engine.begin_batch().expect("memory");
    for _ in 0..random.random_range(1..=4) {
        batch.begin_txn();
        batch.create_tree("t").expect("works");
        for _ in 0..random.random_range(1..6) {
            let key = format!("k{}", random.random_range(0..60)).into_bytes();
            match random.random_range(0..12) {
                0 => assert!(batch.delete_range("t", Bound::Included(&key), Bound::Unbounded).is_ok()),
                1..4 => assert!(batch.delete("t", &key).is_ok()),
                4 if random.random_ratio(1, 10) => {
                    batch.drop_tree("t").expect("works");
                    batch.create_tree("t").expect("works");
                }
                _ => {
                    let length = [0, 30, 900, 9_000, 30_000][random.random_range(0..5)];
                    batch.put("t", &key, &vec![random.random(); length]).expect("fits");
                }
            }
        }
        batch.commit_txn();
    }
    let Some(staged) = batch.seal(1).expect("it fits") else { return };
    let frame = frame_of(engine, &staged);
    append(engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
}

/// Reads up to `most` frames that are new, and forgets all but its txn id and the map.
fn read_on(engine: &Engine, through: &mut TxnId, model: &mut Model, most: usize) {
    let mut place = engine.feed_after(*through).expect("the pin holds it");
    let frames = engine.committed_frames(&place, usize::MAX).expect("readable");
    let mut taken = 0;
    for frame in frames {
        let changes = FrameChanges::decode(frame).expect("a record");
        for change in place.take(&changes).expect("the next one") {
            assert!(change.txn > *through, "txn {} again", change.txn);
            replay(model, &change.kind);
        }
        taken += usize::from(place.through() > *through);
        *through = place.through();
        if taken == most {
            return;
        }
    }
}

#[test]
fn a_reader_that_is_cut_at_random_ends_with_what_a_scan_shows() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        println!("seed {seed}; run it again: cargo test -p calamus-engine --lib a_reader_that_is_cut");
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
        let mut engine = new(&disk, 1 << 20);
        let (mut through, mut model) = (TxnId(0), Model::new());
        for _ in 0..120 {
            match random.random_range(0..10) {
                0..6 => write(&engine, &mut random),
                6..8 => read_on(&engine, &mut through, &mut model, random.random_range(1..8)),
                8 => {
                    // Everything that the reader has not seen stays.
                    let next = engine.feed_after(through).expect("held").next();
                    let pin = engine.pin("reader", next, u64::MAX).expect("held");
                    if engine.applied().log_id.is_some() {
                        purge(&engine);
                    }
                    drop(pin);
                }
                _ if random.random_ratio(1, 3) => engine = reopened(&disk, engine),
                _ => {}
            }
        }
        read_on(&engine, &mut through, &mut model, usize::MAX);
        assert_eq!(through, engine.applied().txn_id, "seed {seed}");
        assert!(model == contents(&engine, "t"), "seed {seed}: another map than the tree");
        assert!(engine.applied().txn_id > TxnId(50), "seed {seed}: too few transactions to show anything");
    }
}
