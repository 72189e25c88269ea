//! What threads that commit at the same time are told, with the journal held up where it matters.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{Database, Durability, WriteError};
use crate::btree::MAX_VALUE_BYTES;
use crate::engine::EngineOptions;
use crate::engine::rig_test::check;
use crate::env::{CrashChoice, SimDisk};
use crate::error::StorageError;
use crate::ids::TxnId;
use crate::journal::JournalOptions;
use crate::txn::BatchError;

const DIRECTORY: &str = "/db";

fn options() -> EngineOptions {
    EngineOptions {
        journal: JournalOptions { segment_bytes: 64 << 20, ..JournalOptions::default() },
        ..EngineOptions::default()
    }
}

fn open(disk: &SimDisk) -> Database {
    Database::open_with(Arc::new(disk.clone()), Path::new(DIRECTORY), options()).expect("opens")
}

fn new(disk: &SimDisk) -> Database {
    let database = open(disk);
    database.write(|txn| txn.create_tree("t")).expect("written");
    database
}

fn put(database: &Database, key: &[u8]) -> Result<Option<TxnId>, WriteError> {
    database.write(|txn| txn.put("t", key, key)).map(|committed| committed.txn_id)
}

fn has(database: &Database, key: &[u8]) -> bool {
    database.read().get("t", key).expect("readable").is_some()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
    }
}

/// Holds the journal up until it is dropped.
struct HeldUp(Option<mpsc::Sender<Result<(), StorageError>>>);

impl HeldUp {
    fn new(database: &Database) -> Self {
        let (release, released) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let job = move || {
            begun.send(()).expect("it is waited for");
            released.recv().unwrap_or(Ok(()))
        };
        database.engine().core.store().journal.run_in_order(Box::new(job), Box::new(drop)).expect("open");
        begins.recv().expect("the journal's thread is at it");
        Self(Some(release))
    }

    /// Lets it go on, by failing.
    fn fail(mut self) {
        let error = StorageError::Poisoned("planted".into());
        self.0.take().expect("it ends once").send(Err(error)).expect("it waits");
    }
}

fn last_index(database: &Database) -> u64 {
    database.engine().log_state().last.expect("something was written").index.0
}

/// Begins a commit of `key` on another thread, which leads and waits for the journal.
fn lead<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    database: &'scope Database,
    key: &'static [u8],
) -> std::thread::ScopedJoinHandle<'scope, Result<Option<TxnId>, WriteError>> {
    let before = last_index(database);
    let leader = scope.spawn(move || put(database, key));
    until("the leader's frame is queued", || last_index(database) > before);
    leader
}

#[test]
fn threads_share_a_frame_and_a_failing_or_panicking_one_undoes_only_its_own() {
    let disk = SimDisk::new(1);
    let database = new(&disk);
    let ran = AtomicUsize::new(0);
    let before = last_index(&database);
    std::thread::scope(|scope| {
        let held = HeldUp::new(&database);
        let leader = lead(scope, &database, b"leader");
        let commits: Vec<_> = (0..8_u8)
            .map(|n| {
                let (database, ran) = (&database, &ran);
                scope.spawn(move || {
                    database.write(|txn| {
                        txn.put("t", &[n], b"mine")?;
                        ran.fetch_add(1, Ordering::SeqCst);
                        match n {
                            3 => Err(BatchError::NoSuchTree("planted".into())),
                            4 => panic!("planted"),
                            _ => Ok(n),
                        }
                    })
                })
            })
            .collect();
        until("all have run", || ran.load(Ordering::SeqCst) == 8);
        assert!(!commits[0].is_finished() && !has(&database, b"leader"), "nobody is told before the sync");
        drop(held);
        let first = leader.join().expect("no panic").expect("committed").expect("changed");
        let mut txn_ids = Vec::new();
        for (n, commit) in commits.into_iter().enumerate() {
            match (n, commit.join()) {
                (3, Ok(Err(WriteError::Batch(BatchError::NoSuchTree(_))))) | (4, Err(_)) => {}
                (_, Ok(Ok(committed))) => {
                    assert_eq!(usize::from(committed.value), n);
                    txn_ids.push(committed.txn_id.expect("it changed something").0);
                }
                (_, other) => panic!("{n}: {other:?}"),
            }
        }
        txn_ids.sort_unstable();
        assert_eq!(txn_ids, (first.0 + 1..first.0 + 7).collect::<Vec<_>>(), "consecutive, and six");
    });
    assert_eq!(last_index(&database), before + 2, "two frames: the leader's, and one for all that waited");
    let there: Vec<u8> = (0..8).filter(|n| has(&database, &[*n])).collect();
    assert_eq!(there, [0, 1, 2, 5, 6, 7]);
    check(database.engine());
    drop(database);
    let after = open(&disk.crash(CrashChoice::LoseAll));
    assert_eq!((0..8).filter(|n| has(&after, &[*n])).collect::<Vec<u8>>(), there);
}

#[test]
fn what_was_being_written_when_the_journal_failed_is_unknown_and_what_waited_is_not_committed() {
    let disk = SimDisk::new(1);
    let database = new(&disk);
    put(&database, b"before").expect("committed");
    let ran = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let held = HeldUp::new(&database);
        let leader = lead(scope, &database, b"leader");
        let (shared, counted) = (&database, &ran);
        let waiting = scope.spawn(move || {
            shared.write(|txn| {
                counted.fetch_add(1, Ordering::SeqCst);
                txn.put("t", b"waiting", b"")
            })
        });
        until("the other has run", || ran.load(Ordering::SeqCst) == 1);
        held.fail();
        assert!(matches!(leader.join().expect("no panic"), Err(WriteError::Unknown(_))));
        assert!(matches!(waiting.join().expect("no panic"), Err(WriteError::NotCommitted(_))));
    });
    assert!(matches!(put(&database, b"later"), Err(WriteError::NotCommitted(_))));
    assert!(matches!(database.sync(), Err(WriteError::NotCommitted(_))));
    assert!(database.begin_write().is_err());
    assert!(has(&database, b"before") && !has(&database, b"leader") && !has(&database, b"waiting"));
    assert_eq!(database.engine().staged().batches, 0);
    drop(database);
    let after = open(&disk.crash(CrashChoice::LoseAll));
    assert!(has(&after, b"before") && !has(&after, b"waiting") && !has(&after, b"later"));
}

#[test]
fn one_held_open_begins_when_what_it_may_read_is_committed() {
    for fails in [false, true] {
        let disk = SimDisk::new(1);
        let database = new(&disk);
        std::thread::scope(|scope| {
            let held = HeldUp::new(&database);
            let leader = lead(scope, &database, b"leader");
            let shared = &database;
            let other = scope.spawn(move || {
                let txn = shared.begin_write()?;
                assert_eq!(shared.engine().log_state().durable, shared.engine().log_state().last);
                assert!(has(shared, b"leader"), "what it sees is committed");
                assert!(txn.get("t", b"leader").expect("readable").is_some());
                Ok::<_, WriteError>(())
            });
            until("the other one is beginning", || database.committer.open.is_locked());
            if fails {
                held.fail();
                assert!(matches!(leader.join().expect("no panic"), Err(WriteError::Unknown(_))));
                assert!(matches!(other.join().expect("no panic"), Err(WriteError::NotCommitted(_))));
            } else {
                drop(held);
                leader.join().expect("no panic").expect("committed");
                other.join().expect("no panic").expect("begun");
                put(&database, b"later").expect("it goes on");
            }
        });
        assert_eq!(database.engine().staged().batches, 0);
    }
}

#[test]
fn a_sync_that_fails_ends_nobodys_wait_and_stops_what_is_open() {
    let disk = SimDisk::new(1);
    let database = new(&disk);
    let deferred = database.with_durability(Durability::Deferred);
    let held = HeldUp::new(&database);
    put(&deferred, b"deferred").expect("committed, not durable");
    let mut txn = database.begin_write().expect("begins");
    txn.put("t", b"open", b"").expect("works");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&database, b"waiting"));
        held.fail();
        // On the thread that has a transaction open: it must wait for nobody who waits for that one.
        assert!(matches!(database.sync(), Err(WriteError::Unknown(_) | WriteError::NotCommitted(_))));
        assert!(matches!(txn.commit(), Err(WriteError::NotCommitted(_))));
        assert!(matches!(waiting.join().expect("no panic"), Err(WriteError::NotCommitted(_))));
    });
    assert_eq!(database.engine().staged().batches, 0);
    drop((deferred, database));
    let after = open(&disk.crash(CrashChoice::LoseAll));
    assert!(!has(&after, b"open") && !has(&after, b"waiting"));
}

#[test]
fn a_closure_that_ends_the_transaction_itself_takes_the_group_with_it() {
    let disk = SimDisk::new(1);
    let database = new(&disk);
    let ran = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let held = HeldUp::new(&database);
        let leader = lead(scope, &database, b"leader");
        let waiting = scope.spawn(|| {
            database.write(|txn| {
                ran.fetch_add(1, Ordering::SeqCst);
                txn.put("t", b"waiting", b"")
            })
        });
        until("the other has run", || ran.load(Ordering::SeqCst) == 1);
        let misuse = scope.spawn(|| {
            database.write(|txn| {
                txn.put("t", b"misuse", b"")?;
                txn.commit_txn();
                Ok(())
            })
        });
        assert!(misuse.join().is_err(), "it panics");
        assert!(matches!(waiting.join().expect("no panic"), Err(WriteError::NotCommitted(_))));
        drop(held);
        leader.join().expect("no panic").expect("it was on its way");
    });
    assert!(matches!(put(&database, b"later"), Err(WriteError::NotCommitted(_))));
    drop(database);
    let after = open(&disk.crash(CrashChoice::LoseAll));
    assert!(has(&after, b"leader") && !has(&after, b"waiting") && !has(&after, b"misuse"));
}

#[test]
fn a_thread_that_unwinds_may_commit_and_nothing_stops() {
    struct CommitsWhenDropped<'a>(&'a Database);
    impl Drop for CommitsWhenDropped<'_> {
        fn drop(&mut self) {
            put(self.0, b"unwinding").expect("committed");
        }
    }
    let disk = SimDisk::new(1);
    let database = new(&disk);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _commits = CommitsWhenDropped(&database);
        panic!("planted");
    }));
    assert!(panicked.is_err() && has(&database, b"unwinding"));
    put(&database, b"later").expect("it goes on");
}

#[test]
fn one_that_finds_too_little_room_beside_others_runs_again_alone() {
    let disk = SimDisk::new(1);
    let database = new(&disk);
    let (small, large) = (vec![1; 6 << 20], vec![2; MAX_VALUE_BYTES - (1 << 20)]);
    let (ran_small, ran_large) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let before = last_index(&database);
    std::thread::scope(|scope| {
        let held = HeldUp::new(&database);
        let leader = lead(scope, &database, b"leader");
        let first = scope.spawn(|| {
            database.write(|txn| {
                ran_small.fetch_add(1, Ordering::SeqCst);
                txn.put("t", b"small", &small)
            })
        });
        until("the small one has run", || ran_small.load(Ordering::SeqCst) == 1);
        let second = scope.spawn(|| {
            database.write(|txn| {
                ran_large.fetch_add(1, Ordering::SeqCst);
                txn.put("t", b"large 1", &large)?;
                txn.put("t", b"large 2", &large)
            })
        });
        until("the large one has tried", || ran_large.load(Ordering::SeqCst) == 1);
        drop(held);
        leader.join().expect("no panic").expect("committed");
        first.join().expect("no panic").expect("committed");
        second.join().expect("no panic").expect("committed");
    });
    assert_eq!((ran_small.into_inner(), ran_large.into_inner()), (1, 2));
    assert_eq!(last_index(&database), before + 3, "a frame each");
    assert!(has(&database, b"small") && has(&database, b"large 1") && has(&database, b"large 2"));
}

#[test]
fn many_threads_count_together() {
    const THREADS: u64 = 8;
    const EACH: u64 = 40;
    let disk = SimDisk::new(1);
    let database = new(&disk);
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let database =
                database.with_durability(if n % 2 == 0 { Durability::EachCommit } else { Durability::Deferred });
            scope.spawn(move || {
                for _ in 0..EACH {
                    let work = |txn: &mut crate::Batch| {
                        let old = txn.get("t", b"count")?.map_or(Ok(0), |entry| {
                            entry.value.to_vec().map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
                        })?;
                        txn.put("t", b"count", &(old + 1).to_le_bytes())?;
                        Ok(old)
                    };
                    let committed = database.write(work).expect("committed");
                    let snapshot = database.read();
                    let read = snapshot.get("t", b"count").expect("readable").expect("there");
                    let read = u64::from_le_bytes(read.value.to_vec().expect("readable").try_into().expect("8 bytes"));
                    assert!(read > committed.value, "what is committed can be read");
                }
            });
        }
    });
    let snapshot = database.read();
    let count = snapshot.get("t", b"count").expect("readable").expect("there").value.to_vec().expect("readable");
    assert_eq!(count, (THREADS * EACH).to_le_bytes());
    check(database.engine());
}
