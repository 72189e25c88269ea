//! A store of named counters: any number of threads count, and nothing that was counted is lost.
//!
//!     cargo run -p calamus-engine --example counters [DIRECTORY]
//!
//! Adding is reading and writing in one transaction. Transactions run one after the other, so none misses what another
//! one adds; those of several threads share a sync.

use std::error::Error;
use std::path::Path;

use calamus_engine::{BatchError, Database, OpenError, ReadError, WriteError};

const TREE: &str = "counters";

/// Counters in a directory.
struct Counters {
    database: Database,
}

/// Why a counter was not changed.
#[derive(Debug, thiserror::Error)]
enum AddError {
    /// It is what it was.
    #[error("a counter goes from 0 to {}", u64::MAX)]
    OutOfRange,
    /// It was not written, or it is not known whether it was.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Counters {
    fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(directory)? })
    }

    /// Adds to a counter, which begins at 0, and returns what it is then, durably.
    fn add(&self, name: &str, change: i64) -> Result<u64, AddError> {
        let mut sum = None;
        let written = self.database.write(|txn| {
            txn.create_tree(TREE)?;
            let before = match txn.get(TREE, name.as_bytes())? {
                Some(entry) => decode(&entry.value.to_vec()?),
                None => 0,
            };
            sum = before.checked_add_signed(change);
            match sum {
                Some(sum) => txn.put(TREE, name.as_bytes(), &sum.to_be_bytes()).map(drop),
                // Nothing changes, so nothing is written.
                None => Ok::<(), BatchError>(()),
            }
        });
        written?;
        sum.ok_or(AddError::OutOfRange)
    }

    /// All counters of a prefix, by name.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, ReadError> {
        let snapshot = self.database.read();
        let mut found = Vec::new();
        let Some(mut cursor) = snapshot.cursor(TREE)? else { return Ok(found) };
        let mut there = cursor.seek(prefix.as_bytes())?;
        while there && cursor.key().starts_with(prefix.as_bytes()) {
            let name = String::from_utf8_lossy(cursor.key()).into_owned();
            found.push((name, decode(&cursor.value().to_vec()?)));
            there = cursor.next()?;
        }
        Ok(found)
    }
}

fn decode(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("a counter has 8 bytes: only `add` writes them"))
}

fn run(directory: &Path) -> Result<(), Box<dyn Error>> {
    const THREADS: u64 = 4;
    const VISITS: u64 = 50;
    let counters = Counters::open(directory)?;
    let before = counters.list("visits/all")?.first().map_or(0, |(_, count)| *count);
    std::thread::scope(|scope| {
        let counters = &counters;
        let threads: Vec<_> = (0..THREADS)
            .map(|page| {
                scope.spawn(move || {
                    for _ in 0..VISITS {
                        counters.add("visits/all", 1)?;
                        counters.add(&format!("visits/page {page}"), 1)?;
                    }
                    Ok::<(), AddError>(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    assert!(matches!(counters.add("visits/all", i64::MIN), Err(AddError::OutOfRange)), "a counter is never below 0");

    drop(counters);
    let counters = Counters::open(directory)?;
    for (name, count) in counters.list("visits/")? {
        println!("{name}: {count}");
    }
    let all = counters.list("visits/all")?[0].1;
    assert_eq!(all, before + THREADS * VISITS, "every visit counts, after reopening too");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(directory) => run(directory.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}

#[test]
fn it_runs_twice_in_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path()).unwrap();
    run(directory.path()).unwrap();
}
