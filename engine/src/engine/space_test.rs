//! How much larger than what is in it the data file gets, and that space comes back.
//!
//! Live bytes are those of keys and values. A test is a life of a database: filled in random order, then changed at random
//! until ten times as much (three times, where it only shrinks) has been written and deleted, then checkpointed. Nothing is compacted in between but by the
//! batches themselves.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::EngineOptions;
use crate::Database;
use crate::env::{Disk, RealDisk};

const TREE: &str = "t";

/// How a life changes entries: the chances, in percent, that an operation deletes and that it puts a new key; else it
/// replaces a value.
#[derive(Clone, Copy)]
struct Habits {
    name: &'static str,
    entries: usize,
    /// From and below.
    value_bytes: (usize, usize),
    delete: u32,
    put: u32,
    seed: u64,
}

struct Life {
    database: Database,
    directory: tempfile::TempDir,
    random: StdRng,
    keys: Vec<[u8; 16]>,
    values: BTreeMap<[u8; 16], (u8, usize)>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EngineOptions { background: false, ..EngineOptions::default() };
        let database = Database::open_with(Arc::new(RealDisk::new()), directory.path(), options).unwrap();
        database.write(|batch| batch.create_tree(TREE)).unwrap();
        Self { database, directory, random: StdRng::seed_from_u64(seed), keys: Vec::new(), values: BTreeMap::new() }
    }

    fn live_bytes(&self) -> u64 {
        self.values.values().map(|(_, bytes)| 16 + *bytes as u64).sum()
    }

    /// Length and space on the disk of the data file after a checkpoint, in bytes.
    fn file_bytes(&self) -> (u64, u64) {
        self.database.engine().checkpoint().unwrap();
        let generation = self.database.engine().status().generation;
        let path = self.directory.path().join(format!("g{generation}")).join("data");
        let metadata = path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (metadata.len(), metadata.blocks() * 512)
    }

    /// Runs operations, 100 a transaction. Returns the bytes that were written and deleted.
    fn change(&mut self, habits: &Habits, operations: usize) -> u64 {
        let (mut bytes, mut left) = (0, operations);
        while left > 0 {
            let Self { database, random, keys, values, .. } = self;
            let now = left.min(100);
            left -= now;
            database
                .write(|batch| {
                    for _ in 0..now {
                        let dice = if keys.is_empty() { habits.delete } else { random.random_range(0..100) };
                        let at = random.random_range(0..keys.len().max(1));
                        if dice < habits.delete {
                            let key = keys.swap_remove(at);
                            batch.delete(TREE, &key)?;
                            bytes += values.remove(&key).unwrap().1 as u64 + 16;
                            continue;
                        }
                        let key = if dice < habits.delete + habits.put {
                            keys.push(random.random());
                            *keys.last().unwrap()
                        } else {
                            keys[at]
                        };
                        let (byte, length) =
                            (random.random(), random.random_range(habits.value_bytes.0..habits.value_bytes.1));
                        batch.put(TREE, &key, &vec![byte; length])?;
                        values.insert(key, (byte, length));
                        bytes += length as u64 + 16;
                    }
                    Ok(())
                })
                .unwrap();
        }
        bytes
    }

    /// Every entry is there as it was put, and nothing else; and the file is sound.
    fn check(self) {
        {
            let snapshot = self.database.read();
            let mut cursor = snapshot.cursor(TREE).unwrap().unwrap();
            let mut there = cursor.first().unwrap();
            for (key, (byte, length)) in &self.values {
                assert!(there && cursor.key() == key, "key {key:02x?} is missing");
                assert_eq!(cursor.value().to_vec().unwrap(), vec![*byte; *length], "the value of {key:02x?}");
                there = cursor.next().unwrap();
            }
            assert!(!there);
        }
        let Self { database, directory, .. } = self;
        drop(database);
        assert_sound(directory.path());
    }
}

fn assert_sound(directory: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let report = crate::offline::check_directory(&disk, directory, &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

fn live(habits: &Habits) {
    let mut life = Life::new(habits.seed);
    life.change(&Habits { delete: 0, put: 100, ..*habits }, habits.entries);
    let loaded = life.file_bytes().0 as f64 / life.live_bytes() as f64;
    let mut written = 0;
    let times = if habits.delete == 100 { 3 } else { 10 };
    while written < times * life.live_bytes() {
        written += life.change(habits, 1000);
    }
    let (length, blocks) = life.file_bytes();
    let live = life.live_bytes();
    let ratio = length as f64 / live as f64;
    println!("{}: {loaded:.2} when loaded, {ratio:.2} of {live} live bytes at last", habits.name);
    assert!(ratio <= 1.6, "{}: {length} bytes for {live} live ones: {ratio:.2}", habits.name);
    assert!(blocks <= length + (64 << 10), "{}: {blocks} bytes of the disk for {length}", habits.name);
    life.check();
}

const HABITS: Habits = Habits { name: "", entries: 10_000, value_bytes: (256, 257), delete: 25, put: 25, seed: 1 };

#[test]
fn puts_deletes_and_updates() {
    live(&Habits { name: "a quarter deletes, a quarter puts", ..HABITS });
}

#[test]
fn values_that_change_their_length() {
    live(&Habits { name: "updates of any length", value_bytes: (0, 512), delete: 0, put: 0, seed: 2, ..HABITS });
    live(&Habits { name: "everything, of any length", value_bytes: (0, 512), seed: 3, ..HABITS });
}

#[test]
fn deletes_alone_give_space_back() {
    live(&Habits { name: "deletes alone", entries: 20_000, delete: 100, put: 0, seed: 4, ..HABITS });
    live(&Habits {
        name: "more deletes than puts",
        entries: 15_000,
        value_bytes: (0, 512),
        delete: 40,
        put: 20,
        seed: 5,
    });
}

/// Values of one to four pages, in runs that fit only where there is room for all of it.
#[test]
fn long_values() {
    let habits = Habits { entries: 300, value_bytes: (8_000, 32_000), seed: 6, ..HABITS };
    live(&Habits { name: "long values", ..habits });
    live(&Habits { name: "deletes of long values", entries: 600, delete: 25, put: 20, seed: 7, ..habits });
}
