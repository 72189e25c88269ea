//! What every engine is asked to do. Only what is behind this trait differs between them.

use std::path::Path;

use anyhow::Result;

/// The name of the one tree, table or keyspace that all use.
pub const TREE: &str = "bench";

/// An entry to write.
pub type Entry<'a> = ([u8; 16], &'a [u8]);

/// An open engine.
pub trait Store: Send + Sync {
    /// Writes all entries as one commit, which is on the disk when this returns.
    fn put(&self, entries: &[Entry<'_>]) -> Result<()>;

    /// Writes entries whose keys are above all that are there, ascending, as one commit. Engines with a way of their own
    /// for that take it.
    fn append(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.put(entries)
    }

    /// Calls `work` with a snapshot, opened once.
    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()>;

    /// Does whatever the engine puts off: what was written is in its final place after it, as far as the engine has one.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Finished checkpoints since it was opened; `None` where there is no such thing.
    fn checkpoints(&self) -> Option<u64> {
        None
    }
}

/// A snapshot that is read.
pub trait Snapshot {
    /// Reads a key; the length of its value and a sum that needs the value's first and last byte.
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>>;

    /// Reads every entry in key order: how many there are, and a sum over all their bytes' ends.
    fn scan(&mut self) -> Result<(u64, u64)>;
}

/// What reading a value comes to: of a short one both ends, of a long one all of it, a byte of every cache line.
pub fn touch(value: &[u8]) -> u64 {
    const SHORT_BYTES: usize = 1024;
    let ends = value.first().zip(value.last()).map_or(0, |(first, last)| u64::from(*first) + u64::from(*last));
    let within = if value.len() > SHORT_BYTES { value } else { &[] };
    within.iter().step_by(64).fold(ends, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// The memory that each engine may use for pages or blocks where it has a bound, in bytes.
pub const CACHE_BYTES: usize = 1 << 30;

/// How to open Calamus.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// A checkpoint after so many bytes of journal; `None` for the default.
    pub checkpoint_bytes: Option<u64>,
}

/// An engine that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Rival {
    Calamus,
    /// On a file without a past, as its tool for copying makes it.
    Lmdb,
    /// On a file whose every entry was written over at random since: its free list is in use.
    LmdbAged,
    Redb,
    Fjall,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

impl Rival {
    pub fn name(self) -> &'static str {
        match self {
            Self::Calamus => "calamus",
            Self::Lmdb => "lmdb",
            Self::LmdbAged => "lmdb-aged",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "rocksdb",
        }
    }

    /// Opens, or makes, its database in a folder of its own.
    pub fn open(self, dir: &Path, options: OpenOptions) -> Result<Box<dyn Store>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Calamus => Box::new(super::calamus::Calamus::open(dir, options)?),
            Self::Lmdb | Self::LmdbAged => Box::new(super::lmdb::Lmdb::open(dir)?),
            Self::Redb => Box::new(super::redb::Redb::open(dir)?),
            Self::Fjall => Box::new(super::fjall::Fjall::open(dir)?),
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => Box::new(super::rocksdb::Rocks::open(dir)?),
        })
    }

    /// Its data without its journal or log, in bytes on the disk: what grows with the entries.
    pub fn data_bytes(self, dir: &Path) -> u64 {
        use crate::process::disk_usage;
        match self {
            Self::Calamus => {
                let kind = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                disk_usage(dir, kind).get("data").copied().unwrap_or(0)
            }
            _ => disk_usage(dir, |_| String::new()).values().sum(),
        }
    }
}
