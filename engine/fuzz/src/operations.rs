//! What a program can do with a database, beside a map in memory.
//!
//! Transactions that commit, fail and are rolled back; readers that stay; checkpoints, clean reopenings, and power cuts
//! between transactions and in the middle of anything. What a transaction answers is what the map says; what was
//! acknowledged is there after a power cut, and what was under way is there whole or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::offline::check_directory;
use calamus_engine::txn::BatchError;
use calamus_engine::{Batch, Database, EngineOptions, ReadTxn, WriteError};

use crate::many::{self, ManyOperation};
use crate::sound::{Contents, DIRECTORY, Map, contents, door, options};

const TREES: [&str; 4] = ["a", "b", "birds", "$system"];
/// The size of a segment of the journal, in bytes: a transaction's values must fit.
const SEGMENT_BYTES: u64 = 128 << 10;
/// What a transaction writes at most, in bytes, so that its record fits a segment.
const TXN_BYTES: usize = 24 << 10;
/// How many readers stay open at most.
const MAX_READERS: usize = 4;

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Txn {
        operations: Vec<Operation>,
        commit: bool,
    },
    /// Opens a reader, or looks at one that is open and drops it.
    Reader(u8),
    Checkpoint,
    Reopen,
    PowerCut(u8),
    /// The power goes after this many more operations of the disk.
    PowerCutSoon {
        operations: u8,
        choice: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Operation {
    CreateTree(u8),
    DropTree(u8),
    RenameTree(u8, u8),
    Put {
        tree: u8,
        key: Key,
        value: Value,
    },
    /// Keys that follow each other.
    PutMany {
        tree: u8,
        key: Key,
        value: Value,
        count: u8,
    },
    Delete {
        tree: u8,
        key: Key,
    },
    DeleteRange {
        tree: u8,
        start: Limit,
        end: Limit,
    },
    Get {
        tree: u8,
        key: Key,
    },
    Walk {
        tree: u8,
        from: Key,
        back: bool,
        turns: u8,
    },
    Many(ManyOperation),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Key {
    number: u8,
    shape: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Limit {
    Included(Key),
    Excluded(Key),
    None,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Value {
    shape: u8,
    more: u8,
    fill: u8,
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        let length = [2, 2, 3, 20, 300, 2_048][usize::from(self.shape) % 6];
        let mut key = vec![self.number, self.shape % 6];
        key.resize(length, b'k');
        if self.shape == 255 {
            key.truncate(1);
        }
        key
    }

    fn after(self, steps: u8) -> Self {
        Self { number: self.number.wrapping_add(steps), ..self }
    }
}

impl Limit {
    fn bound(self) -> Bound<Vec<u8>> {
        match self {
            Self::Included(key) => Bound::Included(key.bytes()),
            Self::Excluded(key) => Bound::Excluded(key.bytes()),
            Self::None => Bound::Unbounded,
        }
    }
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        // Around the lengths at which a value changes its place, and larger ones.
        let base = [0, 1, 8, 100, 1_700, 2_020, 8_170, 16_300][usize::from(self.shape) % 8];
        vec![self.fill; base + usize::from(self.more) % 32]
    }
}

fn tree(number: u8) -> &'static str {
    TREES[usize::from(number) % TREES.len()]
}

fn choice(number: u8) -> CrashChoice {
    match number {
        0 => CrashChoice::LoseAll,
        1 => CrashChoice::KeepAll,
        seed => CrashChoice::Seeded(seed.into()),
    }
}

fn engine_options() -> EngineOptions {
    let mut options = options();
    options.journal.segment_bytes = SEGMENT_BYTES;
    options
}

struct Life {
    disk: SimDisk,
    /// `None` while the power is off.
    database: Option<Database>,
    map: Contents,
    readers: Vec<(ReadTxn, Contents)>,
    /// What a power cut leaves.
    choice: CrashChoice,
    /// Whether the power goes in the middle of something.
    armed: bool,
}

/// Runs an input.
pub fn run(input: &Input) {
    let mut life = Life::new();
    for step in &input.steps {
        life.step(step);
    }
    life.look();
    life.close();
    let report = check_directory(&door(&life.disk), Path::new(DIRECTORY), &mut |_| ()).expect("it was closed");
    assert!(report.is_clean(), "{report:?}");
}

impl Life {
    /// A life on an empty database, which is made once: a directory costs more than what most inputs do with it.
    fn new() -> Self {
        static EMPTY: OnceLock<SimDisk> = OnceLock::new();
        let empty = EMPTY.get_or_init(|| {
            let disk = SimDisk::new(1);
            drop(Database::open_with(door(&disk), Path::new(DIRECTORY), engine_options()).expect("a sound disk"));
            disk
        });
        let disk = empty.crash(CrashChoice::KeepAll);
        let database = Database::open_with(door(&disk), Path::new(DIRECTORY), engine_options()).expect("a sound disk");
        Self {
            database: Some(database),
            disk,
            map: Contents::default(),
            readers: Vec::new(),
            choice: CrashChoice::LoseAll,
            armed: false,
        }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("the power is on")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Txn { operations, commit } => self.txn(operations, *commit),
            Step::Reader(number) => self.reader(usize::from(*number)),
            Step::Checkpoint => {
                if let Err(error) = self.database().engine().checkpoint() {
                    assert!(self.armed, "{error}");
                    self.power_went(None);
                }
            }
            Step::Reopen => {
                self.close();
                self.open();
            }
            Step::PowerCut(number) => {
                self.choice = choice(*number);
                self.power_went(None);
            }
            Step::PowerCutSoon { operations, choice: number } => {
                (self.choice, self.armed) = (choice(*number), true);
                self.disk.crash_after(u64::from(*operations));
            }
        }
    }

    fn close(&mut self) {
        self.readers.clear();
        self.database = None;
    }

    /// Opens the directory. The power may go meanwhile, once.
    fn open(&mut self) {
        for _ in 0..2 {
            match Database::open_with(door(&self.disk), Path::new(DIRECTORY), engine_options()) {
                Ok(database) => {
                    self.database = Some(database);
                    return;
                }
                Err(error) => {
                    assert!(self.armed, "{error}");
                    self.disk = self.disk.crash(self.choice);
                    self.armed = false;
                }
            }
        }
        panic!("it does not open on a sound disk");
    }

    /// The disk after the power was cut, opened. What was under way has happened, or has not.
    fn power_went(&mut self, under_way: Option<Contents>) {
        self.close();
        self.disk = self.disk.crash(self.choice);
        self.armed = false;
        self.open();
        let found = contents(&self.database().read());
        match under_way {
            Some(after) if found == after => self.map = after,
            _ => assert!(found == self.map, "what was acknowledged is not there, or more than that"),
        }
    }

    /// Where the state is looked at as a whole, the power is on.
    fn power_on(&mut self) {
        if self.armed {
            self.power_went(None);
        }
    }

    fn look(&mut self) {
        self.power_on();
        assert!(contents(&self.database().read()) == self.map);
        for (reader, map) in self.readers.drain(..) {
            assert!(contents(&reader) == map, "a snapshot has changed");
        }
    }

    fn reader(&mut self, number: usize) {
        self.power_on();
        if number < MAX_READERS && number < self.readers.len() {
            let (reader, map) = self.readers.swap_remove(number);
            assert!(contents(&reader) == map, "a snapshot has changed");
        } else if self.readers.len() < MAX_READERS {
            self.readers.push((self.database().read(), self.map.clone()));
        }
    }

    fn txn(&mut self, operations: &[Operation], commit: bool) {
        let mut after = Contents::default();
        let mut finished = false;
        let outcome = self.database().write(|batch| {
            (after, finished) = (self.map.clone(), false);
            let mut room = TXN_BYTES;
            for operation in operations {
                apply(batch, &mut after, operation, &mut room)?;
            }
            finished = commit;
            if commit { Ok(()) } else { Err(BatchError::NoSuchTree("none: it is given up".into())) }
        });
        match outcome {
            Ok(_) => self.map = after,
            // It was given up, by the input or because an operation failed as it should; or many pages changed.
            Err(WriteError::Batch(BatchError::NoSuchTree(_) | BatchError::TreeExists(_))) => {}
            Err(WriteError::Batch(BatchError::TooLarge { bytes, limit })) => assert!(bytes > limit),
            Err(error) => {
                assert!(self.armed, "{error}");
                self.power_went(finished.then_some(after));
            }
        }
    }
}

type Maps = BTreeMap<String, Map>;

/// Runs an operation on both. An error that the map foretells gives the transaction up.
fn apply(
    batch: &mut Batch,
    contents: &mut Contents,
    operation: &Operation,
    room: &mut usize,
) -> Result<(), BatchError> {
    let map = &mut contents.plain;
    match operation {
        Operation::Many(operation) => many::apply(batch, contents, operation, room)?,
        Operation::CreateTree(number) => {
            let made = batch.create_tree(tree(*number))?;
            assert_eq!(made, !map.contains_key(tree(*number)));
            map.entry(tree(*number).to_owned()).or_default();
        }
        Operation::DropTree(number) => {
            assert_eq!(batch.drop_tree(tree(*number))?, map.remove(tree(*number)).is_some());
        }
        Operation::RenameTree(from, to) => rename(batch, map, tree(*from), tree(*to))?,
        Operation::Put { tree: number, key, value } => put(batch, map, tree(*number), *key, *value, room)?,
        Operation::PutMany { tree: number, key, value, count } => {
            for step in 0..*count {
                put(batch, map, tree(*number), key.after(step), *value, room)?;
            }
        }
        Operation::Delete { tree: number, key } => {
            let deleted = batch.delete(tree(*number), &key.bytes());
            let Some(entries) = in_both(map, tree(*number), &deleted) else { return deleted.map(drop) };
            assert_eq!(deleted?.is_some(), entries.remove(&key.bytes()).is_some());
        }
        Operation::DeleteRange { tree: number, start, end } => {
            let (start, end) = (start.bound(), end.bound());
            let deleted = batch.delete_range(tree(*number), as_slice(&start), as_slice(&end));
            let Some(entries) = in_both(map, tree(*number), &deleted) else { return deleted.map(drop) };
            let before = entries.len();
            entries.retain(|key, _| !is_within(key, &start, &end));
            assert_eq!(deleted?, (before - entries.len()) as u64);
        }
        Operation::Get { tree: number, key } => {
            let found = batch.get(tree(*number), &key.bytes())?.map(|entry| entry.value.to_vec()).transpose()?;
            assert_eq!(found.as_ref(), map.get(tree(*number)).and_then(|entries| entries.get(&key.bytes())));
        }
        Operation::Walk { tree: number, from, back, turns } => {
            walk(batch, map.get(tree(*number)), tree(*number), *from, *back, *turns)?;
        }
    }
    Ok(())
}

/// The map's tree, after an operation that needs it; `None` if the operation said rightly that there is none, or that
/// the disk is gone.
fn in_both<'m, T>(map: &'m mut Maps, tree: &str, outcome: &Result<T, BatchError>) -> Option<&'m mut Map> {
    let entries = map.get_mut(tree);
    match outcome {
        Ok(_) => entries,
        Err(BatchError::Read(_)) => None,
        Err(BatchError::NoSuchTree(_)) if entries.is_none() => None,
        Err(error) => panic!("refused in {tree}: {error}"),
    }
}

fn put(
    batch: &mut Batch,
    map: &mut Maps,
    tree: &str,
    key: Key,
    value: Value,
    room: &mut usize,
) -> Result<(), BatchError> {
    let (key, value) = (key.bytes(), value.bytes());
    let Some(left) = room.checked_sub(key.len() + value.len()) else { return Ok(()) };
    *room = left;
    let before = batch.put(tree, &key, &value);
    let Some(entries) = in_both(map, tree, &before) else { return before.map(drop) };
    assert_eq!(before?.is_some(), entries.insert(key, value).is_some());
    Ok(())
}

fn rename(batch: &mut Batch, map: &mut Maps, from: &str, to: &str) -> Result<(), BatchError> {
    match batch.rename_tree(from, to) {
        Ok(renamed) => {
            assert!(!map.contains_key(to));
            let entries = map.remove(from);
            assert_eq!(renamed, entries.is_some());
            map.extend(entries.map(|entries| (to.to_owned(), entries)));
            Ok(())
        }
        Err(error) => {
            let foretold = matches!(error, BatchError::TreeExists(_)) && map.contains_key(to);
            assert!(foretold || matches!(error, BatchError::Read(_)), "refused: {error}");
            Err(error)
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn is_within(key: &[u8], start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    let above = match start {
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
        Bound::Unbounded => true,
    };
    above
        && match end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        }
}

/// A cursor beside an index into the map's keys; each bit of `turns` is a step forward or back.
fn walk(batch: &Batch, map: Option<&Map>, tree: &str, from: Key, back: bool, turns: u8) -> Result<(), BatchError> {
    let cursor = batch.cursor(tree)?;
    assert_eq!(cursor.is_some(), map.is_some());
    let (Some(mut cursor), Some(map)) = (cursor, map) else { return Ok(()) };
    let from = from.bytes();
    let entries: Vec<(&Vec<u8>, &Vec<u8>)> = map.iter().collect();
    let mut there = if back { cursor.seek_back(&from)? } else { cursor.seek(&from)? };
    // One more than the entry's index; 0 and one more than there are stand before and behind all of them.
    let mut at = if back {
        entries.partition_point(|(key, _)| **key <= from)
    } else {
        entries.partition_point(|(key, _)| **key < from) + 1
    };
    for turn in 0..8 {
        assert_eq!(there, (1..=entries.len()).contains(&at), "step {turn} in {tree}");
        if !there {
            return Ok(());
        }
        let (key, value) = entries[at - 1];
        assert!(cursor.key() == key && cursor.value().to_vec()? == *value, "step {turn} in {tree}");
        if turns & (1 << turn) == 0 {
            (there, at) = (cursor.next()?, at + 1);
        } else {
            (there, at) = (cursor.previous()?, at - 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_step(number: u8) -> Step {
        let put =
            Operation::Put { tree: 0, key: Key { number, shape: 1 }, value: Value { shape: 3, more: 0, fill: number } };
        Step::Txn { operations: vec![Operation::CreateTree(0), put], commit: true }
    }

    /// A cut in the middle of anything: at every operation of a short life.
    #[test]
    fn a_life_with_power_cuts() {
        for operations in 0..40 {
            let soon = Step::PowerCutSoon { operations, choice: operations };
            let steps =
                vec![put_step(1), soon, put_step(2), Step::Checkpoint, put_step(3), Step::Reopen, Step::Reader(9)];
            run(&Input { steps });
        }
    }

    /// Values that become a page, and a list again, with a cut at every operation of the disk.
    #[test]
    fn many_values_with_power_cuts() {
        let many = |operation| Operation::Many(operation);
        let txn = |operations| Step::Txn { operations, commit: true };
        let place = || many::Place::example();
        for operations in 0..40 {
            let soon = Step::PowerCutSoon { operations, choice: operations };
            let grow = vec![
                many(ManyOperation::Create(0)),
                many(ManyOperation::Add(place(), 50)),
                many(ManyOperation::Look(place(), 0x55)),
            ];
            let shrink = vec![
                many(ManyOperation::Remove(place(), 48)),
                many(ManyOperation::Look(place(), 0)),
                many(ManyOperation::Other(place())),
            ];
            let gone = vec![
                many(ManyOperation::Rename(0)),
                many(ManyOperation::Delete(place())),
                many(ManyOperation::Drop(1)),
            ];
            run(&Input {
                steps: vec![txn(grow), Step::Reader(9), soon, txn(shrink), Step::Checkpoint, Step::Reopen, txn(gone)],
            });
        }
    }

    /// Would a difference be seen?
    #[test]
    #[should_panic(expected = "what was acknowledged")]
    fn a_lost_write_is_found() {
        let mut life = Life::new();
        life.step(&put_step(1));
        life.map.plain.get_mut("a").unwrap().insert(b"more".to_vec(), b"than there is".to_vec());
        life.step(&Step::PowerCut(0));
    }
}
