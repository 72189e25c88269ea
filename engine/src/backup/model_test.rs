//! Random lives, random chains, restored: the state is the map's at that moment.

use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig_test::{
    Life, Moment, TestSurroundings, backups, engine_options, from_environment, go_on, new_engine, node,
    restore_options, trees_of,
};
use super::{BackupKind, BackupReport, Backups, RestoreOptions, RestorePoint, RestoreReport, WhyFull};
use crate::engine::rig_test::{append, check, frame_of};
use crate::engine::{Engine, Vote};
use crate::env::{Disk, SimDisk};
use crate::ids::{DatabaseId, LogId, TxnId};
use crate::journal::frame::Frame;

/// Restores into a directory, and holds the result against the moment it should be of.
fn restore_to(
    places: &Backups,
    disk: &Arc<dyn Disk>,
    directory: &Path,
    options: &RestoreOptions,
    expected: &Moment,
) -> RestoreReport {
    let report = places.restore(disk, directory, node(), options, &mut go_on).expect("restored");
    assert_eq!(report.restored.txn_id, expected.txn_id.0);
    assert_eq!(report.restored.digest, expected.digest.0);
    let (engine, _) = Engine::open(disk.clone(), directory, engine_options()).expect("opens");
    assert_eq!(engine.applied(), report.applied);
    assert!(trees_of(&engine) == expected.trees, "other trees than those of txn {}", expected.txn_id);
    check(&engine);
    assert_eq!(engine.identity(), report.identity);
    assert_eq!((engine.timeline(), engine.database_id()), (report.timeline, DatabaseId(9)));
    assert_ne!(report.timeline, report.forked_from);
    // A consensus finds a log that begins behind what was purged, with itself as the only member.
    let (log, last) = (engine.log_state(), report.applied.log_id.expect("the first record"));
    assert_eq!(log.last_purged.map(|log_id| log_id.index.next()), Some(last.index));
    assert_eq!(log.last, Some(last));
    assert_eq!(report.applied.membership.as_ref().expect("given").1, format!("only {}", report.identity.raft_id));
    let vote = Vote { term: last.term, node: Some(report.identity.raft_id), committed: false };
    assert_eq!(engine.vote(), Some(vote));
    // It goes on.
    let staged = {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.create_tree("later").expect("works");
        batch.commit_txn();
        batch.seal(1).expect("fits").expect("changed")
    };
    let frame = frame_of(&engine, &staged);
    let (next, payload) = (LogId { term: last.term, index: last.index.next() }, frame.payload().clone());
    let frame = Frame::encode(frame.kind(), next, frame.commit(), engine.last_chain(), payload);
    append(&engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
    engine.checkpoint().expect("works");
    check(&engine);
    drop(engine);
    let found = crate::offline::check_directory(disk, directory, &mut |_| {}).expect("readable");
    assert!(found.is_clean(), "{:?}", found.findings);
    report
}

#[test]
fn a_full_backup_restores_to_what_was_applied_when_it_ended() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&disk, 9), 3);
    let places = backups(&disk, "/backups", &time);
    for _ in 0..60 {
        life.step(&time);
    }
    let report = places.full(&life.engine, &mut go_on).expect("made").backup.expect("a full one");
    assert!(report.parts.len() > 1, "{report:?}");
    restore_to(&places, &disk, Path::new("/new"), &restore_options(), life.now());
}

#[test]
fn an_empty_database_is_restored_too() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let time = TestSurroundings::default();
    let life = Life::new(new_engine(&disk, 9), 3);
    let places = backups(&disk, "/backups", &time);
    places.full(&life.engine, &mut go_on).expect("made");
    let report = restore_to(&places, &disk, Path::new("/new"), &restore_options(), life.now());
    assert_eq!(report.restored.log_id(), None);
}

/// A random life, a random chain of backups taken during it with checkpoints under way, and restores to random points.
fn case(seed: u64) -> Tally {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&disk, 9), seed);
    let mut tally = Tally::default();
    let rounds = life.random.random_range(1..7);
    // As of which moment a chain could first be restored.
    let mut first = None;
    let mut places = backups(&disk, "/backups", &time);
    for _ in 0..rounds {
        places.options.compress = life.random.random();
        for _ in 0..life.random.random_range(0..40) {
            life.step(&time);
        }
        let full = life.random.random_ratio(1, 4);
        let (engine, mut pieces) = (life.engine.clone(), 0);
        let mut live_on = |_| {
            // Writes and checkpoints between the pieces, not so many that it never ends.
            if pieces < 25 && life.random.random() {
                life.step(&time);
            }
            pieces += 1;
            std::ops::ControlFlow::Continue(())
        };
        let made = if full { places.full(&engine, &mut live_on) } else { places.incremental(&engine, &mut live_on) };
        let report = made.unwrap_or_else(|error| panic!("a backup of the node itself: {error}"));
        tally.note(&report);
        if let Some(manifest) = report.backup.filter(|manifest| manifest.kind == BackupKind::Full) {
            first = Some(manifest.end.txn_id);
        }
    }
    let catalog = places.list().expect("readable");
    assert!(catalog.problems.is_empty() && catalog.leftovers.is_empty(), "{catalog:?}");
    let chain = catalog.chains.last().expect("the first was a full one");
    assert_eq!(first, Some(chain.full().end.txn_id));
    let last = chain.newest().manifest.end;
    // Of several moments without a transaction between them only one is in the list.
    let at = |txn_id: u64| {
        let reached = life.moments.iter().rev().find(|moment| moment.txn_id.0 <= txn_id);
        reached.expect("the first moment is before all").clone()
    };
    let mut restore = |point: RestorePoint, expected: &Moment, name: &str| {
        let options = RestoreOptions { point, ..restore_options() };
        restore_to(&places, &disk, Path::new(name), &options, expected);
        tally.restores += 1;
    };
    restore(RestorePoint::End, &at(last.txn_id), "/end");
    let mut random = StdRng::seed_from_u64(!seed);
    let txn_id = random.random_range(first.expect("asserted")..=last.txn_id);
    restore(RestorePoint::Txn(TxnId(txn_id)), &at(txn_id), "/txn");
    let begin = at(first.expect("asserted")).wall_micros;
    let micros = random.random_range(begin..=chain.newest().manifest.as_of_micros.max(begin));
    let reached = |moment: &&Moment| moment.wall_micros <= micros && moment.txn_id.0 <= last.txn_id;
    let expected = life.moments.iter().rev().find(reached).expect("the first moment is before all").clone();
    restore(RestorePoint::Time(micros), &expected, "/time");
    tally.moments = life.moments.len();
    tally
}

/// What was met.
#[derive(Default, Debug)]
struct Tally {
    moments: usize,
    full: usize,
    increments: usize,
    nothing_new: usize,
    purged: usize,
    long: usize,
    restores: usize,
}

impl Tally {
    fn note(&mut self, report: &BackupReport) {
        match (&report.backup, &report.full_because) {
            (None, _) => self.nothing_new += 1,
            (Some(_), None) => self.increments += 1,
            (Some(_), Some(why)) => {
                self.full += 1;
                self.purged += usize::from(matches!(why, WhyFull::JournalPurged { .. }));
                self.long += usize::from(matches!(why, WhyFull::ChainIsLong { .. }));
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.moments += other.moments;
        self.full += other.full;
        self.increments += other.increments;
        self.nothing_new += other.nothing_new;
        self.purged += other.purged;
        self.long += other.long;
        self.restores += other.restores;
    }
}

#[test]
fn restored_states_are_the_models() {
    let cases = from_environment("CALAMUS_CASES", 12);
    let first = from_environment("CALAMUS_SEED", 1);
    let mut tally = Tally::default();
    for seed in first..first + cases {
        let ended = std::panic::catch_unwind(|| case(seed));
        match ended {
            Ok(met) => tally.add(&met),
            Err(what) => {
                println!(
                    "seed {seed}: CALAMUS_SEED={seed} CALAMUS_CASES=1 cargo test -p calamus-engine --lib \
                     restored_states_are_the_models -- --nocapture"
                );
                std::panic::resume_unwind(what);
            }
        }
    }
    println!("backup: {cases} cases from seed {first} agree: {tally:?}");
    assert!(cases < 12 || (tally.increments > 0 && tally.full > 0 && tally.restores > 0), "{tally:?}");
}
