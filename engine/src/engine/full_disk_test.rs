//! A disk that is full: what is refused, what still goes, and that all of it goes on when there is space again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::rig_test::{catch_up, check, commit, contents, frame_of, options};
use super::{Engine, EngineOptions};
use crate::env::{CrashChoice, Disk, Fault, SimDisk, Trouble};
use crate::journal::{JournalMode, JournalOptions};
use crate::space::{SpaceLevel, SpaceOptions};
use crate::{BatchError, Database, WriteError};

const HOME: &str = "/db";
const SEGMENT_BYTES: u64 = 256 << 10;
const VALUE_BYTES: usize = 20_000;
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn small() -> EngineOptions {
    EngineOptions {
        journal: JournalOptions { segment_bytes: SEGMENT_BYTES, ..options().journal },
        space: SpaceOptions { reserve_bytes: 4 << 20, low_bytes: 1 << 20, high_bytes: 2 << 20 },
        retention_bytes: 0,
        ..options()
    }
}

fn open(disk: &SimDisk, options: EngineOptions) -> Database {
    Database::open_with(Arc::new(disk.clone()), Path::new(HOME), options).expect("opens")
}

fn used(disk: &SimDisk) -> u64 {
    disk.set_space_limit(Some(1 << 50));
    (1 << 50) - disk.free_bytes(Path::new(HOME)).expect("known")
}

/// What a thread of the engine does by itself where there is one.
fn tend(engine: &Engine) {
    engine.tend_space().expect("what is given back can be");
    if engine.space().level != SpaceLevel::Normal {
        match engine.checkpoint() {
            Ok(_) => {}
            Err(error) => assert!(error.is_no_space(), "{error}"),
        }
        engine.tend_space().expect("what is given back can be");
    }
    assert_eq!(engine.status().failed, None);
}

/// A database and what it must hold.
struct Life {
    database: Database,
    held: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Life {
    fn begin(disk: &SimDisk, options: EngineOptions) -> Self {
        let database = open(disk, options);
        database.write(|txn| txn.create_tree("t").map(drop)).expect("there is space");
        Self { database, held: BTreeMap::new() }
    }

    fn engine(&self) -> &Engine {
        self.database.engine()
    }

    /// Puts or deletes; whether it was taken. A refusal leaves nothing.
    fn change(&mut self, key: u16, fill: Option<u8>) -> bool {
        let name = key.to_be_bytes();
        let value = fill.map(|fill| vec![fill; VALUE_BYTES]);
        let done = self.database.write(|txn| match &value {
            Some(value) => txn.put("t", &name, value).map(drop),
            None => txn.delete("t", &name).map(drop),
        });
        match (done, value) {
            (Ok(_), Some(value)) => drop(self.held.insert(name.to_vec(), value)),
            (Ok(_), None) => drop(self.held.remove(&name[..])),
            (Err(WriteError::Batch(BatchError::DiskFull(full))), _) => {
                assert!(full.to_string().contains(HOME) && full.to_string().contains("Free space"), "{full}");
                return false;
            }
            (Err(other), _) => panic!("{other}"),
        }
        true
    }

    fn change_or_tend(&mut self, key: u16, fill: Option<u8>) -> bool {
        self.change(key, fill) || {
            tend(self.engine());
            self.change(key, fill)
        }
    }

    fn verify(&self) {
        assert_eq!(contents(self.engine(), "t"), self.held);
        check(self.engine());
    }

    /// The next process finds the same, killed or with the power gone.
    fn verify_left(&self, disk: &SimDisk, options: EngineOptions) {
        for left in [disk.kill(), disk.crash(CrashChoice::LoseAll), disk.crash(CrashChoice::Seeded(7))] {
            let database = open(&left, options);
            assert_eq!(contents(database.engine(), "t"), self.held);
            check(database.engine());
        }
    }
}

#[test]
fn what_is_refused_depends_on_the_level_and_deletes_make_room() {
    let disk = SimDisk::new(1);
    let mut life = Life::begin(&disk, small());
    assert_eq!(life.engine().space().reserve_bytes, 4 << 20, "taken before anything else");
    disk.set_space_limit(Some(used(&disk) + (6 << 20)));
    let mut key = 0;
    while life.change_or_tend(key, Some(1)) {
        key += 1;
    }
    assert!(key > 50, "{key} entries fit 6 MiB without the marks");
    assert_eq!(life.engine().space().level, SpaceLevel::NoGrowth);
    assert!(life.change_or_tend(0, Some(2)), "in place");
    life.verify();
    life.verify_left(&disk, small());

    // Somebody else takes all there is: the reserve is left.
    disk.set_space_limit(Some(used(&disk)));
    assert_eq!(life.engine().space().free_bytes, Some(0));
    tend(life.engine());
    assert_eq!(life.engine().space().level, SpaceLevel::DeletesOnly);
    assert!(!life.change_or_tend(0, Some(3)), "not even in place");
    assert!(
        life.database.write(|txn| txn.get("t", b"x").map(drop)).is_ok(),
        "what changes nothing is no matter of space"
    );
    for key in (10..key).rev() {
        assert!(life.change_or_tend(key, None), "{:?}", life.engine().space());
    }
    life.verify();
    life.verify_left(&disk, small());

    // The deleted ones have made room: nobody had to do anything else.
    tend(life.engine());
    tend(life.engine());
    assert_eq!(life.engine().space().level, SpaceLevel::Normal, "{:?}", life.engine().space());
    assert_eq!(life.engine().space().reserve_bytes, 4 << 20, "the reserve is whole");
    assert!(life.change(0, Some(4)));
    life.verify();
}

#[test]
fn nothing_is_taken_when_the_reserve_is_used_up_and_all_is_when_there_is_space() {
    let disk = SimDisk::new(2);
    let mut life = Life::begin(&disk, small());
    assert!(life.change(0, Some(1)));
    life.engine().core.reserve.give(u64::MAX);
    disk.set_space_limit(Some(used(&disk)));
    assert_eq!(life.engine().space().level, SpaceLevel::Full);
    assert!(!life.change(0, None));
    assert!(!life.engine().has_room_for(1));
    life.verify();
    life.verify_left(&disk, small());
    disk.set_space_limit(None);
    assert!(life.change(1, Some(1)), "it looks each time");
    tend(life.engine());
    assert_eq!(life.engine().space().reserve_bytes, 4 << 20, "the reserve is whole again");
    life.verify();
}

/// The disk is full after any number of bytes: so every call that takes space is once the first that finds none.
#[test]
fn wherever_the_disk_is_full_first_nothing_half_is_left_and_it_goes_on() {
    for turn in 0..16_u64 {
        let disk = SimDisk::new(turn);
        let mut life = Life::begin(&disk, small());
        disk.set_space_limit(Some(used(&disk) + turn * 251_003));
        let mut taken = 0;
        for step in 0..60_u16 {
            let fill = (step % 5 != 4).then_some(step as u8);
            taken += u32::from(life.change(step % 40, fill));
            if step % 7 == 3 {
                tend(life.engine());
            }
            if step % 20 == 13 {
                life.verify_left(&disk, small());
            }
        }
        life.verify();
        disk.set_space_limit(None);
        for key in 0..40 {
            assert!(life.change_or_tend(key, Some(9)), "limit {turn}: there is space again");
        }
        life.engine().checkpoint().expect("there is space again");
        life.verify();
        let held = std::mem::take(&mut life.held);
        drop(life);
        assert_eq!(contents(open(&disk, small()).engine(), "t"), held, "limit {turn}, {taken} taken");
    }
}

/// Somebody takes the space between the look and the use: the reserve makes up for it, call by call.
#[test]
fn a_segment_or_a_checkpoint_that_finds_no_space_takes_it_from_the_reserve() {
    let space = SpaceOptions { reserve_bytes: 32 * SEGMENT_BYTES, ..SpaceOptions::default() };
    let options = EngineOptions { space, ..small() };
    let mut struck = 0;
    for (turn, part) in ["spare-1", "spare-2", "spare-3", "data"].into_iter().enumerate() {
        for after in 0..3 {
            let disk = SimDisk::new(turn as u64);
            let mut life = Life::begin(&disk, options);
            disk.plan(Trouble::new(Fault::NoSpace).of(part).after(after));
            for step in 0..30 {
                assert!(life.change(step, Some(1)));
                if step % 8 == 7 {
                    life.engine().checkpoint().expect("the reserve has space");
                }
            }
            struck += disk.faults_happened();
            life.verify();
            life.verify_left(&disk, options);
        }
    }
    assert!(struck > 3, "{struck} calls found no space");
}

/// Without a reserve, and without having asked: what was appended waits, and is told nothing, until there is space.
#[test]
fn a_journal_that_finds_no_space_waits_for_it() {
    let disk = SimDisk::new(3);
    let journal = JournalOptions { mode: JournalMode::Threaded, ..small().journal };
    let options = EngineOptions { journal, space: SpaceOptions::default(), ..small() };
    let life = Life::begin(&disk, options);
    let engine = life.engine();
    disk.set_space_limit(Some(used(&disk) - SEGMENT_BYTES));
    let (done, heard) = mpsc::channel();
    for key in 0..40_u8 {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.put("t", &[key], &[key; VALUE_BYTES]).expect("fits");
        batch.commit_txn();
        let frame = frame_of(engine, &batch.seal(1).expect("fits").expect("changed"));
        let done = done.clone();
        engine.append(vec![frame], Box::new(move |outcome| done.send((key, outcome)).expect("heard"))).expect("taken");
    }
    let started = Instant::now();
    while !engine.status().starved {
        assert!(started.elapsed() < PATIENCE, "it never waits for space: {:?}", engine.space());
        std::thread::yield_now();
    }
    let before = heard.try_iter().count();
    assert!(before < 40 && engine.status().failed.is_none());
    assert!(!engine.has_room_for(1));
    disk.set_space_limit(None);
    for key in before..40 {
        let (told, outcome) = heard.recv_timeout(PATIENCE).expect("there is space again");
        assert_eq!(usize::from(told), key);
        outcome.expect("written");
    }
    assert!(!engine.status().starved);
    catch_up(engine);
    commit(engine, |batch| assert_eq!(batch.put("t", b"x", b"y").expect("fits"), None)).expect("a change");
    check(engine);
}

#[test]
fn a_closed_engine_waits_for_no_space() {
    let disk = SimDisk::new(4);
    let journal = JournalOptions { mode: JournalMode::Threaded, ..small().journal };
    let life = Life::begin(&disk, EngineOptions { journal, space: SpaceOptions::default(), ..small() });
    let engine = life.engine().clone();
    disk.set_space_limit(Some(1));
    let (done, heard) = mpsc::channel();
    for _ in 0..40 {
        let frame = {
            let mut batch = engine.begin_batch().expect("memory");
            batch.begin_txn();
            batch.put("t", b"k", &[1; VALUE_BYTES]).expect("fits");
            batch.commit_txn();
            frame_of(&engine, &batch.seal(1).expect("fits").expect("changed"))
        };
        let done = done.clone();
        engine.append(vec![frame], Box::new(move |outcome| done.send(outcome).expect("heard"))).expect("taken");
    }
    engine.close();
    drop(done);
    let outcomes: Vec<_> = heard.iter().collect();
    assert_eq!(outcomes.len(), 40, "each is told");
    let refused = outcomes.iter().skip_while(|outcome| outcome.is_ok());
    assert!(refused.clone().count() > 0 && refused.clone().all(Result::is_err));
}
