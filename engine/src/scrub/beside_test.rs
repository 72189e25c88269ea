//! The scrub beside checkpoints and writers: no alarm.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use super::scrub_test::{place, put};
use crate::engine::rig_test::{check, commit, contents, create, options};
use crate::engine::{Engine, EngineOptions, Speed};
use crate::env::{Disk, DiskFile, DiskInFront, FileInFront, OpenMode, RealDisk, SimDisk};
use crate::error::StorageError;
use crate::journal::JournalOptions;

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// A disk that does something before and after each reading past the cache.
struct Hooked {
    inner: SimDisk,
    hook: Hook,
}

struct HookedFile {
    inner: Arc<dyn DiskFile>,
    hook: Hook,
}

fn strike(hook: &Hook) {
    // Out of its place while it runs: what it does may read, too.
    let taken = hook.lock().take();
    if let Some(mut taken) = taken {
        taken();
        hook.lock().get_or_insert(taken);
    }
}

impl HookedFile {
    fn strike(&self) {
        if self.inner.path().ends_with("data") {
            strike(&self.hook);
        }
    }
}

impl FileInFront for HookedFile {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn read_past_cache(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.strike();
        let got = self.inner.read_past_cache(buffer, offset);
        self.strike();
        got
    }
}

impl DiskInFront for Hooked {
    fn behind(&self) -> &dyn Disk {
        &self.inner
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(Arc::new(HookedFile { inner: self.inner.open(path, mode)?, hook: self.hook.clone() }))
    }
}

/// Checkpoints, changes and cuts of the file come right before and right behind each reading of the disk: no alarm.
#[test]
fn a_checkpoint_before_or_behind_any_read_is_no_damage() {
    let hook = Hook::default();
    let disk: Arc<dyn Disk> = Arc::new(Hooked { inner: SimDisk::new(1), hook: hook.clone() });
    let engine = create(&disk, place(), 1);
    put(&engine, 0, 2_000);
    engine.checkpoint().expect("works");
    let (worker, mut round) = (engine.clone(), 0_u8);
    let work = move || {
        // At the end of a pass no checkpoint runs.
        if worker.core.maintenance.is_locked() {
            return;
        }
        round = round.wrapping_add(1);
        // As the background's, which does not wait for the scrub.
        worker.core.checkpoint_at(Speed::Full).expect("works");
        if round % 3 == 0 {
            let (from, to) = (u16::from(round) * 7, u16::from(round) * 7 + 300);
            commit(&worker, |batch| {
                let bound = |key: u16| std::ops::Bound::Included(key.to_be_bytes());
                let (from, to) = (bound(from), bound(to));
                batch
                    .delete_range("t", from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]))
                    .expect("works");
            });
        } else {
            put(&worker, round, 1_000 + 17 * u16::from(round));
        }
    };
    for pass in 0..12 {
        put(&engine, pass, 1_500);
        *hook.lock() = Some(Box::new(work.clone()));
        let report = engine.scrub_now().expect("works");
        *hook.lock() = None;
        assert_eq!(engine.damaged(), [], "pass {pass}: {report:?}");
    }
    engine.checkpoint().expect("works");
    assert!(engine.scrub_now().expect("works").proven);
    check(&engine);
}

/// A checkpoint that is asked for goes all the way, although the scrub is at a piece with an old reader.
#[test]
fn who_asks_for_a_checkpoint_is_not_stopped_by_the_scrub() {
    let hook = Hook::default();
    let disk: Arc<dyn Disk> = Arc::new(Hooked { inner: SimDisk::new(1), hook: hook.clone() });
    let engine = create(&disk, place(), 1);
    put(&engine, 0, 100);
    engine.checkpoint().expect("works");
    let (reading, is_reading) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    *hook.lock() = Some(Box::new(move || {
        if reading.send(()).is_ok() {
            // Once: later readings find nobody who would say so.
            let _ = may_go_on.recv();
        }
    }));
    std::thread::scope(|scope| {
        scope.spawn(|| engine.scrub_now().expect("works"));
        is_reading.recv().expect("it reads");
        drop(is_reading);
        put(&engine, 1, 100);
        let (done, is_done) = mpsc::channel();
        let asked = engine.clone();
        scope.spawn(move || done.send(asked.checkpoint().expect("works")));
        // It waits for the piece, or it has returned already.
        let early = is_done.recv_timeout(Duration::from_millis(50));
        drop(go_on);
        let report = early.or_else(|_| is_done.recv()).expect("it returns");
        assert_eq!(report.at, engine.applied().log_id);
    });
}

/// Writers, checkpoints and passes on threads of their own, on files that have maps.
#[test]
fn scrubbing_beside_writers_and_checkpoints_finds_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let paced = EngineOptions {
        background: true,
        checkpoint_journal_bytes: 1 << 20,
        scrub_pass: std::time::Duration::from_millis(100),
        scrub_bytes_per_second: 1 << 40,
        journal: JournalOptions { segment_bytes: 4 << 20, ..options().journal },
        ..options()
    };
    let identity = crate::engine::rig_test::identity(1);
    let engine = Engine::create(disk, home.path(), &identity, crate::ids::DatabaseId(9), paced).expect("new");
    put(&engine, 0, 3_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..25_u8 {
                put(&engine, round, 1_000 + 50 * u16::from(round));
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            engine.scrub_now().expect("works");
        }
    });
    assert_eq!(engine.damaged(), []);
    engine.checkpoint().expect("works");
    assert!(engine.scrub_now().expect("works").proven);
    assert_eq!(contents(&engine, "t").len(), 3_000);
    // The thread's own passes go on.
    let passes = engine.scrub_status().passes;
    assert!(engine.scrub_status().expected_pass.is_some());
    crate::scrub::background::wait_for_pass(&engine, passes);
}
