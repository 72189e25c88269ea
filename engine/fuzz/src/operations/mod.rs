//! What a program can do with a database, beside a map in memory.
//!
//! Transactions that commit, fail and are rolled back; readers that stay; checkpoints, clean reopenings, and power cuts
//! between transactions and in the middle of anything. What a transaction answers is what the map says; what was
//! acknowledged is there after a power cut, and what was under way is there whole or not at all.

mod compare;
mod input;

use std::path::Path;
use std::sync::OnceLock;

use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::offline::check_directory;
use calamus_engine::txn::BatchError;
use calamus_engine::{Database, EngineOptions, ReadTxn, WriteError};

use self::compare::apply;
pub use self::input::Input;
use self::input::{Operation, Step};
use crate::sound::{Contents, DIRECTORY, contents, door, options};

/// The size of a segment of the journal, in bytes: a transaction's values must fit.
const SEGMENT_BYTES: u64 = 128 << 10;
/// What a transaction writes at most, in bytes, so that its record fits a segment.
const TXN_BYTES: usize = 24 << 10;
/// How many readers stay open at most.
const MAX_READERS: usize = 4;

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

#[cfg(test)]
mod tests {
    use super::input::{Key, Value};
    use super::*;
    use crate::many::{self, ManyOperation};

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
