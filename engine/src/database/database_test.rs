use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use super::{Database, Durability};
use crate::engine::EngineOptions;
use crate::env::{CrashChoice, SimDisk};
use crate::journal::{JournalMode, JournalOptions};

const DIRECTORY: &str = "/db";

fn open_with(disk: &SimDisk, options: EngineOptions) -> Database {
    Database::open_with(Arc::new(disk.clone()), Path::new(DIRECTORY), options).expect("opens")
}

fn open(disk: &SimDisk) -> Database {
    open_with(disk, EngineOptions::default())
}

fn put(database: &Database, key: u64) {
    database.write(|txn| txn.put("t", &key.to_be_bytes(), &[7; 100])).expect("committed");
}

fn keys(database: &Database) -> Vec<u64> {
    let snapshot = database.read();
    let Some(mut cursor) = snapshot.cursor("t").expect("readable") else { return Vec::new() };
    let mut found = Vec::new();
    let mut there = cursor.first().expect("readable");
    while there {
        found.push(u64::from_be_bytes(cursor.key().try_into().expect("8 bytes")));
        there = cursor.next().expect("readable");
    }
    found
}

#[test]
fn a_deferred_commit_waits_for_no_disk_and_sync_makes_it_durable() {
    let disk = SimDisk::new(1);
    let database = open(&disk);
    database.write(|txn| txn.create_tree("t")).expect("committed");
    let (release, released) = mpsc::channel::<()>();
    let job = move || released.recv().map_or(Ok(()), Ok);
    let journal = database.engine().core.store().journal.clone();
    journal.run_in_order(Box::new(job), Box::new(drop)).expect("open");
    let durable = database.engine().log_state().durable;
    let deferred = database.with_durability(Durability::Deferred);
    for key in 0..10 {
        put(&deferred, key);
    }
    assert_eq!(keys(&database), (0..10).collect::<Vec<_>>(), "read while the journal is held up");
    assert_eq!(database.engine().log_state().durable, durable, "nothing has become durable");
    let lost = open(&disk.crash(CrashChoice::LoseAll));
    assert_eq!(keys(&lost), [] as [u64; 0]);
    drop(lost);
    release.send(()).expect("it waits");
    let synced = database.sync().expect("durable");
    assert_eq!(synced, database.engine().applied().txn_id);
    let state = database.engine().log_state();
    assert_eq!(state.durable, state.last);
    assert_eq!(keys(&open(&disk.crash(CrashChoice::LoseAll))), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_power_cut_takes_a_suffix_of_deferred_commits_and_nothing_before_a_sync_or_a_durable_one() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let journal = JournalOptions { segment_bytes: 128 << 10, ..JournalOptions::default() };
        let options = EngineOptions { journal, checkpoint_journal_bytes: 20_000, ..EngineOptions::default() };
        let database = open_with(&disk, options);
        database.write(|txn| txn.create_tree("t")).expect("committed");
        let deferred = database.with_durability(Durability::Deferred);
        let mut safe = 0;
        for key in 0..100 {
            match (key + seed) % 23 {
                5 => {
                    put(&database, key);
                    safe = key + 1;
                }
                9 => {
                    put(&deferred, key);
                    database.sync().expect("durable");
                    safe = key + 1;
                }
                _ => put(&deferred, key),
            }
            if key % 10 == seed % 10 {
                let found = keys(&open(&disk.crash(CrashChoice::Seeded(seed * 100 + key))));
                assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "seed {seed}: a hole");
                assert!(found.len() as u64 >= safe, "seed {seed}: {safe} were durable, {} are there", found.len());
            }
        }
    }
}

#[test]
fn a_transaction_that_is_held_open_commits_or_leaves_nothing() {
    let disk = SimDisk::new(1);
    let database = open(&disk);
    let mut txn = database.begin_write().expect("begins");
    txn.create_tree("t").expect("works");
    txn.put("t", &1_u64.to_be_bytes(), b"").expect("works");
    assert!(txn.commit().expect("committed").is_some());
    for aborts in [true, false] {
        let mut txn = database.begin_write().expect("begins");
        txn.put("t", &2_u64.to_be_bytes(), b"").expect("works");
        if aborts {
            txn.abort();
        } else {
            drop(txn);
        }
    }
    assert_eq!(database.begin_write().expect("begins").commit().expect("nothing to commit"), None);
    assert_eq!(keys(&database), [1]);
    put(&database, 3);
    assert_eq!(keys(&database), [1, 3]);
    assert_eq!(keys(&open(&disk.crash(CrashChoice::LoseAll))), [1, 3]);
}

#[test]
fn alone_the_journal_is_purged_behind_the_checkpoint() {
    let disk = SimDisk::new(1);
    let journal = JournalOptions { segment_bytes: 64 << 10, mode: JournalMode::Inline, ..JournalOptions::default() };
    let options = EngineOptions { journal, background: false, retention_bytes: 100_000, ..EngineOptions::default() };
    let database = open_with(&disk, options);
    database.write(|txn| txn.create_tree("t")).expect("committed");
    for key in 0..2000 {
        put(&database, key);
        if key % 100 == 99 {
            database.engine().checkpoint().expect("works");
        }
    }
    let status = database.engine().status();
    assert!(status.journal_bytes_written > 1 << 20, "{status:?}");
    assert!(status.journal_bytes < 100_000 + 3 * (64 << 10), "{status:?}");
    drop(database);
    assert_eq!(keys(&open_with(&disk, options)).len(), 2000);
}
