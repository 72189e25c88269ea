//! Readers on the real disk, whose map of the data file shows what the checkpointer writes: whatever a reader holds keeps
//! its bytes, while batches, checkpoints and the end of the file go on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use calamus_engine::btree::Value;
use calamus_engine::engine::Faults;
use calamus_engine::env::RealDisk;
use calamus_engine::{Database, EngineOptions, ReadTxn};

const TREE: &str = "steady";
/// Comes and goes, so that the file grows and is cut.
const PASSING: &str = "passing";
const KEYS: u32 = 2_000;
const ROUNDS: u32 = 120;

fn open(dir: &Path, faults: Faults) -> Result<Database> {
    let mut options = EngineOptions::default();
    options.background = false;
    options.faults = faults;
    Ok(Database::open_with(Arc::new(RealDisk::new()), dir, options)?)
}

/// A value of a round: every byte says which.
fn value_of(round: u32, key: u32) -> Vec<u8> {
    let bytes = if key.is_multiple_of(97) { 20_000 } else { 40 + key as usize % 200 };
    vec![round as u8; bytes]
}

fn write_round(database: &Database, round: u32) -> Result<()> {
    database.write(|txn| {
        txn.create_tree(TREE)?;
        // Every key has the value of one round, so that a snapshot shows one round throughout.
        (0..KEYS).try_for_each(|key| txn.put(TREE, &key.to_be_bytes(), &value_of(round, key)).map(drop))?;
        if round.is_multiple_of(2) {
            txn.create_tree(PASSING)?;
            (0..60_u32).try_for_each(|key| txn.put(PASSING, &key.to_be_bytes(), &[round as u8; 9_000]).map(drop))
        } else {
            txn.drop_tree(PASSING).map(drop)
        }
    })?;
    Ok(())
}

fn is_all(value: &Value<'_>, byte: u8) -> Result<bool> {
    for chunk in value.chunks() {
        if chunk?.iter().any(|found| *found != byte) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes hold of values of a snapshot, all of one round; which.
fn hold(snapshot: &ReadTxn) -> Result<(u8, Vec<Value<'_>>)> {
    let tree = snapshot.open_tree(TREE)?.context("written before anybody reads")?;
    let mut held = Vec::new();
    for key in (0..KEYS).step_by(7) {
        held.push(tree.get(&key.to_be_bytes())?.context("a key that was written")?.value.load()?);
    }
    let first = held[0].chunks().next().context("no value is empty")??[0];
    Ok((first, held))
}

fn read_until(database: &Database, ended: &AtomicBool) -> Result<u32> {
    let mut rounds = 0;
    while !ended.load(Ordering::SeqCst) {
        let snapshot = database.read();
        let (round, held) = hold(&snapshot)?;
        for _ in 0..3 {
            for value in &held {
                ensure!(is_all(value, round)?, "a value held by a reader of round {round} has changed");
            }
            std::thread::yield_now();
        }
        let mut cursor = snapshot.cursor(TREE)?.context("the tree is there")?;
        let mut keys = 0;
        while cursor.next()? {
            keys += 1;
            ensure!(is_all(&cursor.value(), round)?, "a snapshot of round {round} shows another");
        }
        ensure!(keys == KEYS, "a snapshot of round {round} has {keys} keys");
        rounds += 1;
    }
    Ok(rounds)
}

#[test]
fn what_readers_hold_never_changes() -> Result<()> {
    let home = tempfile::tempdir()?;
    let database = open(home.path(), Faults::default())?;
    write_round(&database, 1)?;
    database.engine().checkpoint()?;
    let ended = AtomicBool::new(false);
    let (read, lengths) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_until(&database, &ended))).collect();
        let write = || -> Result<Vec<u64>> {
            let mut lengths = Vec::new();
            for round in 2..ROUNDS {
                write_round(&database, round)?;
                database.engine().checkpoint()?;
                lengths.push(std::fs::metadata(home.path().join("g1/data"))?.len());
            }
            Ok(lengths)
        };
        let lengths = write();
        ended.store(true, Ordering::SeqCst);
        let read: Result<Vec<u32>> =
            readers.into_iter().map(|reader| reader.join().expect("a reader that panicked")).collect();
        (read, lengths)
    });
    ensure!(read?.iter().sum::<u32>() > 0, "nobody read anything");
    ensure!(lengths?.windows(2).any(|pair| pair[1] < pair[0]), "the file was never cut");
    Ok(())
}

/// A reader holds values in the map; what it holds is written over, and a checkpoint follows. Whether they stayed.
fn values_stay(faults: Faults) -> Result<bool> {
    let home = tempfile::tempdir()?;
    let database = open(home.path(), faults)?;
    write_round(&database, 1)?;
    database.engine().checkpoint()?;
    let snapshot = database.read();
    let (round, held) = hold(&snapshot)?;
    write_round(&database, 2)?;
    database.engine().checkpoint()?;
    held.iter().try_fold(true, |stayed, value| Ok(stayed && is_all(value, round)?))
}

#[test]
fn a_checkpoint_that_ignores_readers_is_found() -> Result<()> {
    ensure!(values_stay(Faults::default())?);
    ensure!(!values_stay(Faults { checkpoint_ignores_readers: true, ..Faults::default() })?, "nothing changed");
    Ok(())
}
