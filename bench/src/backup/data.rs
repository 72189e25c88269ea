//! The database that is backed up.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use calamus_engine::env::RealDisk;
use calamus_engine::{Database, EngineOptions};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

pub const TREE: &str = "t";
/// Values of one transaction, in bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of which values are slices.
const POOL_BYTES: usize = 8 << 20;
/// What a copy reads and writes at a time.
const COPY_BYTES: usize = 1 << 20;

pub struct Data {
    pub database: Database,
    pub entries: u64,
    dir: PathBuf,
    pool: Vec<u8>,
    value_bytes: usize,
    random: SmallRng,
}

impl Data {
    /// Opens the database, or makes it, with nothing in it. It has about so many bytes once it is filled.
    pub fn open(dir: &Path, bytes: u64, value_bytes: usize) -> Result<Self> {
        let database = Database::open_with(Arc::new(RealDisk::new()), dir, EngineOptions::default())?;
        database.write(|txn| txn.create_tree(TREE))?;
        let mut random = SmallRng::seed_from_u64(1);
        let mut pool = vec![0; POOL_BYTES + value_bytes];
        random.fill_bytes(&mut pool);
        let entries = (bytes / value_bytes as u64).max(100);
        Ok(Self { database, entries, dir: dir.to_path_buf(), pool, value_bytes, random })
    }

    /// Puts all entries, and brings them into the data file.
    pub fn fill(&mut self) -> Result<()> {
        self.put_all((0..self.entries).collect())?;
        self.database.engine().checkpoint()?;
        Ok(())
    }

    fn put_all(&mut self, keys: Vec<u64>) -> Result<()> {
        for some in keys.chunks((BATCH_BYTES / self.value_bytes).max(1)) {
            let values: Vec<usize> = some.iter().map(|_| self.random.random_range(0..POOL_BYTES)).collect();
            self.database.write(|txn| {
                for (key, start) in some.iter().zip(&values) {
                    txn.put(TREE, &key.to_be_bytes(), &self.pool[*start..start + self.value_bytes])?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives one of so many entries another value, spread over all keys.
    pub fn change_one_in(&mut self, share: u64) -> Result<()> {
        self.put_all((0..self.entries).step_by(usize::try_from(share)?).collect())
    }

    /// A value of the size of all others.
    pub fn value(&self, random: &mut SmallRng) -> &[u8] {
        let start = random.random_range(0..POOL_BYTES);
        &self.pool[start..start + self.value_bytes]
    }

    /// The length of the data file, in bytes.
    pub fn file_bytes(&self) -> Result<u64> {
        file_bytes(&self.dir)
    }

    /// Copies the data file, as `cp` and `sync` do, and removes the copy. Returns its length, in bytes.
    pub fn copy(&self, to: &Path) -> Result<u64> {
        let (mut from, mut copy) = (File::open(data_file(&self.dir)?)?, File::create(to)?);
        let mut buffer = vec![0; COPY_BYTES];
        let mut bytes = 0;
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            copy.write_all(&buffer[..read])?;
            bytes += read as u64;
        }
        copy.sync_all()?;
        std::fs::remove_file(to)?;
        Ok(bytes)
    }
}

/// The data file of the newest generation.
pub fn data_file(dir: &Path) -> Result<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix('g')).and_then(|number| number.parse::<u64>().ok());
        newest = newest.max(number);
    }
    Ok(dir.join(format!("g{}", newest.context("there is a generation")?)).join("data"))
}

/// The length of the data file in a node's directory, in bytes.
pub fn file_bytes(dir: &Path) -> Result<u64> {
    Ok(data_file(dir)?.metadata()?.size())
}
