//! Checkpoints beside commits: they are spread, they stop no writes, and nobody waits for one that takes its time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::EngineOptions;
use super::pieces::Speed;
use crate::Database;
use crate::env::{CountingDisk, RealDisk};

const TREE: &str = "t";

fn open(directory: &Path, options: EngineOptions) -> (CountingDisk, Database) {
    let disk = CountingDisk::new(Arc::new(RealDisk::new()));
    let database = Database::open_with(Arc::new(disk.clone()), directory, options).unwrap();
    database.write(|txn| txn.create_tree(TREE)).unwrap();
    (disk, database)
}

/// Puts values of 1,000 bytes under keys that are spread over the tree.
fn put(database: &Database, from: u64, count: u64) {
    let put_all = |txn: &mut crate::Batch| {
        (from..from + count).try_for_each(|number| {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            txn.put(TREE, &key, &[number as u8; 1_000]).map(drop)
        })
    };
    database.write(put_all).unwrap();
}

#[test]
fn commits_go_on_beside_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let options = EngineOptions { checkpoint_journal_bytes: 2 << 20, ..EngineOptions::default() };
    let (_, database) = open(directory.path(), options);
    let (mut commits, mut beside) = (0_u64, 0_u64);
    let began = Instant::now();
    while database.engine().status().checkpoints < 3 {
        assert!(began.elapsed() < Duration::from_secs(120), "{commits} commits, {beside} of them beside a checkpoint");
        put(&database, commits * 4 % 4_000, 4);
        commits += 1;
        beside += u64::from(database.engine().is_checkpointing());
    }
    // Paced, a checkpoint takes three quarters of the time until the next one; at full speed it would be a few commits.
    assert!(beside > commits / 10, "{beside} of {commits} commits beside a checkpoint");
}

#[test]
fn who_needs_a_checkpoint_does_not_wait_for_one_that_is_spread() {
    let directory = tempfile::tempdir().unwrap();
    // A journal that will not grow so far while this runs: left alone, the checkpoint takes a minute.
    let options = EngineOptions { checkpoint_journal_bytes: 1 << 40, background: false, ..EngineOptions::default() };
    let (_, database) = open(directory.path(), options);
    for part in 0..20 {
        put(&database, part * 500, 500);
    }
    let stop = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                put(&database, number % 1_000, 1);
                number += 1;
            }
        });
        let spread = scope.spawn(|| database.engine().core.checkpoint_at(Speed::Spread).unwrap());
        while !database.engine().is_checkpointing() && !spread.is_finished() {
            std::thread::yield_now();
        }
        let began = Instant::now();
        database.engine().checkpoint().unwrap();
        let took = began.elapsed();
        assert!(spread.join().unwrap().pages > 500);
        stop.store(true, Ordering::Relaxed);
        took
    });
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// One sync of everything would keep the journal waiting for as long as the disk needs for all of it.
#[test]
fn the_disk_gets_pages_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let options = EngineOptions { background: false, ..EngineOptions::default() };
    let (disk, database) = open(directory.path(), options);
    for (speed, pages_per_sync) in [(Speed::Full, 512), (Speed::Spread, 128)] {
        for part in 0..20 {
            put(&database, part * 500, 500);
        }
        let before = disk.snapshot();
        let pages = database.engine().core.checkpoint_at(speed).unwrap().pages as u64;
        let data = (disk.snapshot() - before).data;
        assert!(pages > 1_024, "{pages} pages");
        assert_eq!(data.syncs, pages / pages_per_sync + 1, "{speed:?}, {pages} pages");
    }
}
