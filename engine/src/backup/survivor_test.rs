//! A directory whose majority is lost becomes a cluster of its own with all that its journal has, or is what it was.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::crash_test::{as_disk, at_every_moment};
use super::rig_test::{Life, TestSurroundings, engine_options, go_on, new_engine, node, trees_of};
use super::{RestoreError, examine, recover};
use crate::engine::rig_test::{append, check};
use crate::engine::{Engine, OpenError};
use crate::env::{CrashChoice, Disk, SimDisk};
use crate::ids::LogId;
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::offline::check_directory;

const DIRECTORY: &str = "/db";

/// A directory that its node left in the middle of its work, with a transaction that it does not know to be committed, and
/// the trees with that one.
fn left_behind(time: &TestSurroundings) -> (SimDisk, super::rig_test::Trees) {
    let disk = SimDisk::new(1);
    let mut life = Life::new(new_engine(&as_disk(&disk), 9), 11);
    life.change(40, time);
    loop {
        life.change(1, time);
        let left = disk.crash(CrashChoice::KeepAll);
        let found = examine(&as_disk(&left), Path::new(DIRECTORY)).expect("readable");
        if found.undecided_txns.is_some() {
            assert!(found.last.map(|last| last.index) > found.committed, "{found:?}");
            let now = life.now();
            assert_eq!((found.last_txn, found.wall_time_micros), (now.txn_id, now.wall_micros));
            return (left, now.trees.clone());
        }
    }
}

#[test]
fn a_recovery_that_breaks_off_leaves_the_old_node_or_the_new_one() {
    let (time, place) = (TestSurroundings::default(), Path::new(DIRECTORY));
    let (left, new) = left_behind(&time);
    let found = examine(&as_disk(&left), place).expect("readable");
    let open = |disk: &Arc<dyn Disk>, what: &str| {
        let (engine, _) =
            Engine::open(disk.clone(), place, engine_options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&engine);
        engine
    };
    let old = trees_of(&open(&as_disk(&left.crash(CrashChoice::KeepAll)), "the old one"));
    assert!(old != new, "nothing was undecided");
    let act = |disk: SimDisk| {
        let disk = as_disk(&disk);
        recover(&disk, place, &found, node().membership, &engine_options(), &time, &mut go_on).is_ok()
    };
    let (mut before, mut behind) = (0, 0);
    let images = at_every_moment(&left, act, |image, what| {
        let disk = as_disk(&image);
        let report = check_directory(&disk, place, &mut |_| {}).expect("readable");
        assert!(report.is_clean(), "{what}: {:?}", report.findings);
        let engine = open(&disk, what);
        let identity = engine.identity();
        let is_new = identity.raft_id != found.identity.raft_id;
        assert_eq!(is_new, identity.cluster_id != found.identity.cluster_id, "{what}");
        assert_eq!(is_new, engine.timeline().0 != 1, "{what}");
        assert_eq!(identity.name, found.identity.name, "{what}");
        assert!(trees_of(&engine) == *if is_new { &new } else { &old }, "{what}: other trees (new: {is_new})");
        if is_new { behind += 1 } else { before += 1 }
    });
    assert!(before > 0 && behind > 0, "{before} images with the old, {behind} with the new");
    println!("recover: {images} images are sound");
}

#[test]
fn a_directory_that_runs_has_changed_or_is_damaged_is_not_touched() {
    let (time, place) = (TestSurroundings::default(), Path::new(DIRECTORY));
    let (left, _) = left_behind(&time);
    let found = examine(&as_disk(&left), place).expect("readable");
    let attempt = |disk: &Arc<dyn Disk>| {
        recover(disk, place, &found, node().membership, &engine_options(), &time, &mut go_on)
            .map(|report| report.identity)
    };
    let disk = as_disk(&left.crash(CrashChoice::KeepAll));
    let (engine, _) = Engine::open(disk.clone(), place, engine_options()).expect("opens");
    assert!(matches!(attempt(&disk), Err(RestoreError::Locked(_))));
    assert!(matches!(examine(&disk, place), Err(RestoreError::Locked(_))));
    let last = engine.log_state().last.expect("it has a log");
    let next = LogId { index: last.index.next(), ..last };
    append(&engine, vec![Frame::encode(FrameKind::Blank, next, None, engine.last_chain(), Payload::new(Bytes::new()))]);
    engine.close();
    drop(engine);
    assert!(matches!(attempt(&disk), Err(RestoreError::Differs(_))), "it went on since somebody looked");

    let disk = as_disk(&left.crash(CrashChoice::KeepAll));
    let meta = disk.open(&place.join("node.meta"), crate::env::OpenMode::Write).expect("there");
    meta.write_at(&[std::io::IoSlice::new(&vec![7; usize::try_from(meta.len().expect("known")).expect("small")])], 0)
        .expect("written");
    assert!(matches!(attempt(&disk), Err(RestoreError::Open(_))), "its node.meta is damaged");

    let nothing: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    match examine(&nothing, Path::new("/nowhere")) {
        Err(RestoreError::Open(error)) => assert!(matches!(*error, OpenError::Missing(_)), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!nothing.exists(Path::new("/nowhere")).expect("known"), "looking has made something");
}
