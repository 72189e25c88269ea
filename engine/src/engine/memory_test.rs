//! Who gives way when page versions take too much memory: see [`crate::store`]'s `memory`.

use std::path::Path;
use std::sync::{Arc, mpsc};

use super::rig_test::{append, check, commit, contents, create, identity, options};
use super::{Engine, EngineOptions};
use crate::btree::ReadError;
use crate::env::{Disk, RealDisk};
use crate::ids::DatabaseId;
use crate::journal::frame::Frame;
use crate::journal::{JournalMode, JournalOptions};
use crate::txn::BatchError;

const LIMIT: usize = 128 << 10;

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

fn small(directory: &Path, options: EngineOptions) -> Engine {
    let options = EngineOptions { version_bytes_limit: LIMIT, ..options };
    Engine::create(disk(), directory, &identity(2), DatabaseId(9), options).expect("new")
}

/// Changes a few pages, and adds two.
fn put(engine: &Engine, round: u32) -> Frame {
    commit(engine, |batch| {
        batch.create_tree("t").expect("works");
        batch.put("t", &round.to_be_bytes(), &[7; 12_000]).expect("fits");
    })
    .expect("changed something")
}

fn follow(follower: &Engine, frame: Frame) {
    append(follower, vec![frame.clone()]);
    follower.apply(&frame).expect("applies");
}

/// Whether the reader finds what that round put; `None` if it is expired.
fn reads(reader: &crate::txn::ReadTxn, round: u32) -> Option<bool> {
    match reader.get("t", &round.to_be_bytes()) {
        Ok(found) => Some(found.is_some()),
        Err(ReadError::Expired) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_reader_that_a_checkpoint_can_catch_up_with_is_never_expired() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let leader = create(&disk(), &home.path().join("leader"), 1);
    let follower = small(&home.path().join("follower"), options());
    follow(&follower, put(&leader, 0));
    let early = follower.read();
    let mut behind = follower.read();
    for round in 1..40 {
        follow(&follower, put(&leader, round));
        assert_eq!(reads(&behind, round - 1), Some(true), "one transaction behind, in round {round}");
        behind = follower.read();
    }
    assert!(follower.status().version_bytes > 2 * LIMIT, "{}", follower.status().version_bytes);
    assert_eq!(reads(&early, 0), Some(true));
    assert_eq!(reads(&early, 1), Some(false));
    // A checkpoint goes to the snapshot of the early one, which is in the way from now on; the other is not.
    follower.checkpoint().expect("works");
    assert_eq!(reads(&early, 0), None);
    assert_eq!(reads(&behind, 39), Some(true));
    drop(early);
    follower.checkpoint().expect("works");
    assert_eq!(follower.status().version_bytes, 0, "what nobody holds back is in the file");
    assert_eq!(reads(&behind, 39), Some(true));
    check(&follower);
}

#[test]
fn a_reader_that_holds_checkpoints_back_is_expired_and_memory_comes_back() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let leader = create(&disk(), &home.path().join("leader"), 1);
    let follower = small(&home.path().join("follower"), options());
    follow(&follower, put(&leader, 0));
    let reader = follower.read();
    let place = follower.status().oldest_reader.expect("the reader").place;
    assert_eq!(place.file(), file!(), "who forgets a reader is told where it was opened");
    follower.checkpoint().expect("works");
    let mut round = 1;
    while reader.get("t", &0_u32.to_be_bytes()).is_ok() {
        assert!(follower.status().version_bytes <= LIMIT * 3 / 2, "the reader lives on, far above the bound");
        follow(&follower, put(&leader, round));
        round += 1;
    }
    assert!(follower.status().version_bytes > LIMIT * 3 / 2, "it was expired too early");
    drop(reader);
    follower.checkpoint().expect("works");
    assert_eq!(follower.status().version_bytes, 0);
    check(&follower);
}

#[test]
fn writers_wait_for_checkpoints_and_not_for_readers() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let engine = small(home.path(), options());
    let mut round = 0;
    while engine.status().version_bytes <= LIMIT {
        put(&engine, round);
        round += 1;
    }
    // Nobody takes checkpoints here, so the wait is an error at once.
    assert!(matches!(engine.begin_batch(), Err(BatchError::NoMemory { .. })));
    let reader = engine.read();
    engine.checkpoint().expect("works");
    while engine.status().version_bytes <= LIMIT * 3 / 2 {
        // A reader is in the way: it does not hold up writers, and is expired when it has held back too much.
        assert!(!reader.is_expired());
        put(&engine, round);
        round += 1;
        assert!(!engine.core.checkpoint_due(&engine.core.store()), "a checkpoint would be in vain");
    }
    assert!(reader.is_expired());
    let Err(BatchError::ForgottenReader { place, .. }) = engine.begin_batch() else { panic!("it is still held") };
    assert!(place.starts_with(file!()), "{place}");
    assert!(!engine.core.checkpoint_due(&engine.core.store()), "a checkpoint would be in vain");
    drop(reader);
    assert!(engine.core.checkpoint_due(&engine.core.store()));
    engine.checkpoint().expect("works");
    drop(engine.begin_batch().expect("memory"));
    assert_eq!(contents(&engine, "t").len(), round as usize);
}

#[test]
fn writers_that_are_faster_than_checkpoints_are_slowed_and_never_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let journal = JournalOptions { mode: JournalMode::Threaded, ..options().journal };
    let engine = small(home.path(), EngineOptions { background: true, journal, ..options() });
    let (finished, heard) = mpsc::channel();
    engine.on_checkpoint(Box::new(move || {
        // Nobody listens any more once the test has ended.
        let _ = finished.send(());
    }));
    let mut most = 0;
    for round in 0..300 {
        put(&engine, round);
        most = most.max(engine.status().version_bytes);
    }
    assert!(most <= LIMIT + (128 << 10), "{most} bytes: the bound and one batch");
    assert!(heard.try_iter().count() > 10, "checkpoints made room");
    // One batch may be larger than the bound.
    commit(&engine, |batch| {
        batch.put("t", b"large", &vec![1; 4 * LIMIT]).expect("fits");
    });
    put(&engine, 300);
    check(&engine);
}

#[test]
fn the_gauges_say_who_holds_checkpoints_back_and_by_how_much() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let engine = small(home.path(), options());
    put(&engine, 0);
    engine.checkpoint().expect("works");
    let status = engine.status();
    assert_eq!((status.checkpoint_lag_txns, status.checkpoint_lag_bytes, status.version_bytes), (0, 0, 0));
    let reader = engine.read();
    for round in 1..4 {
        put(&engine, round);
    }
    engine.checkpoint().expect("works");
    let status = engine.status();
    assert_eq!(status.checkpoint_lag_txns, 3, "the reader's snapshot is as far as it goes");
    assert!(status.checkpoint_lag_bytes > 0 && status.version_bytes > 0);
    let oldest = status.oldest_reader.expect("one is open");
    assert_eq!((oldest.txn_id, oldest.place.file(), status.readers), (reader.txn_id(), file!(), 1));
    drop(reader);
    engine.checkpoint().expect("works");
    let status = engine.status();
    assert_eq!((status.checkpoint_lag_txns, status.checkpoint_lag_bytes, status.version_bytes), (0, 0, 0));
    assert!(status.oldest_reader.is_none());
}
