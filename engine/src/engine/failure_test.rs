//! Checkpoints that fail: for good, or for want of space.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::rig_test::{catch_up, check, commit, contents, identity, options};
use super::{Engine, EngineOptions};
use crate::env::{Disk, LosingDisk, RealDisk, SimDisk};
use crate::ids::DatabaseId;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn make(disk: Arc<dyn Disk>, directory: &Path, options: EngineOptions) -> Engine {
    Engine::create(disk, directory, &identity(1), DatabaseId(9), options).expect("new")
}

fn put(engine: &Engine, key: u8) {
    commit(engine, |batch| {
        batch.create_tree("t").expect("works");
        batch.put("t", &[key], &[key; 20_000]).expect("fits");
    });
}

fn expected(keys: std::ops::Range<u8>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    keys.map(|key| (vec![key], vec![key; 20_000])).collect()
}

/// Options under which every second commit makes a checkpoint due.
fn eager() -> EngineOptions {
    EngineOptions { background: true, checkpoint_journal_bytes: 1, ..options() }
}

#[test]
fn a_checkpoint_without_space_is_tried_again_and_loses_nothing() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let engine = make(disk.clone(), Path::new("/db"), options());
    put(&engine, 0);
    engine.checkpoint().expect("there is space");
    let used = (1 << 50) - disk.free_bytes(Path::new("/db")).expect("known");
    // Room for a part of the pages.
    for room in [0, 30_000] {
        sim.set_space_limit(None);
        let used = used.max((1 << 50) - disk.free_bytes(Path::new("/db")).expect("known"));
        sim.set_space_limit(Some(used + room));
        let before = engine.checkpointed();
        put(&engine, 1);
        put(&engine, 2);
        let error = engine.checkpoint().expect_err("no space");
        assert!(error.is_no_space(), "{error}");
        assert_eq!((engine.status().failed, engine.checkpointed()), (None, before));
        put(&engine, 3);
        check(&engine);
        assert_eq!(contents(&engine, "t"), expected(0..4));
        // What a kill leaves here is recovered.
        let left: Arc<dyn Disk> = Arc::new(sim.crash(crate::env::CrashChoice::KeepAll));
        let (recovered, _) = Engine::open(left, Path::new("/db"), options()).expect("opens");
        catch_up(&recovered);
        assert_eq!(recovered.applied(), engine.applied());
        check(&recovered);
    }
    sim.set_space_limit(None);
    engine.checkpoint().expect("there is space again");
    assert_eq!(engine.checkpointed(), engine.applied());
    assert_eq!(contents(&engine, "t"), expected(0..4));
    drop(engine);
    check(&Engine::open(disk, Path::new("/db"), options()).expect("opens").0);
}

#[test]
fn checkpoints_go_on_by_themselves_when_space_returns() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk = LosingDisk::new();
    let engine = make(Arc::new(disk.clone()), home.path(), eager());
    let (finished, heard) = mpsc::channel();
    engine.on_checkpoint(Box::new(move || {
        // Nobody listens any more once the test has ended.
        let _ = finished.send(());
    }));
    disk.set_space_limit(Some(0));
    put(&engine, 1);
    put(&engine, 2);
    assert!(engine.checkpoint().expect_err("no space").is_no_space());
    assert_eq!(engine.status().failed, None);
    disk.set_space_limit(None);
    heard.recv_timeout(PATIENCE).expect("a checkpoint finishes");
    put(&engine, 3);
    put(&engine, 4);
    heard.recv_timeout(PATIENCE).expect("the next one, too");
    assert_eq!(engine.status().failed, None);
}

#[test]
fn a_failed_sync_of_the_data_file_is_never_tried_again_and_writers_are_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk = LosingDisk::new();
    let engine = make(Arc::new(disk.clone()), home.path(), options());
    put(&engine, 1);
    disk.fail_data_syncs(true);
    engine.checkpoint().expect_err("no sync");
    disk.fail_data_syncs(false);
    engine.checkpoint().expect_err("what the failed sync did is not known");
    assert!(engine.begin_batch().is_err());
    assert!(engine.status().failed.is_some_and(|why| why.contains("told to fail")));
    assert_eq!(contents(&engine, "t"), expected(1..2), "reads go on");
}

#[test]
fn a_checkpoint_that_a_reader_held_back_begins_when_the_reader_has_gone_and_nothing_more_is_written() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let engine = make(Arc::new(RealDisk::new()), home.path(), eager());
    // The thread looks while the reader is there, in one of these at least.
    for round in 0..20 {
        let reader = engine.read();
        put(&engine, 2 * round);
        put(&engine, 2 * round + 1);
        std::thread::yield_now();
        drop(reader);
        let started = Instant::now();
        while engine.checkpointed().log_id < engine.applied().log_id {
            assert!(started.elapsed() < PATIENCE, "in round {round} no checkpoint begins");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_panic_of_the_checkpoint_thread_is_a_failure() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let engine = make(Arc::new(RealDisk::new()), home.path(), eager());
    engine.on_checkpoint(Box::new(|| panic!("an observer of a test panics")));
    put(&engine, 1);
    put(&engine, 2);
    let started = Instant::now();
    let why = loop {
        if let Some(why) = engine.status().failed {
            break why;
        }
        assert!(started.elapsed() < PATIENCE, "the panic is never noted");
        std::thread::yield_now();
    };
    assert!(why.contains("an observer of a test panics"), "{why}");
    assert!(engine.begin_batch().is_err());
}
