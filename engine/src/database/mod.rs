//! The engine as an embedded database, with no consensus: a transaction is committed when it is durable here.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use calamus_engine::Database;
//!
//! let directory = tempfile::tempdir()?;
//! let database = Database::open(directory.path())?;
//!
//! // Write: all of it or nothing.
//! database.write(|txn| {
//!     txn.create_tree("birds")?;
//!     txn.put("birds", b"heron", b"grey")?;
//!     txn.put("birds", b"swift", b"black")?;
//!     Ok(())
//! })?;
//!
//! // Or hold it open. Dropped, it leaves nothing.
//! let mut txn = database.begin_write()?;
//! txn.put("birds", b"robin", b"red")?;
//! drop(txn);
//! assert!(database.read().get("birds", b"robin")?.is_none());
//!
//! // Back out: an error undoes the transaction.
//! let refused = database.write(|txn| {
//!     txn.delete("birds", b"heron")?;
//!     txn.put("fish", b"perch", b"green") // there is no such tree
//! });
//! assert!(refused.is_err());
//!
//! // Read a snapshot, and iterate.
//! let snapshot = database.read();
//! assert_eq!(snapshot.get("birds", b"heron")?.expect("still there").value.to_vec()?, b"grey");
//! let mut cursor = snapshot.cursor("birds")?.expect("the tree is there");
//! let mut there = cursor.first()?;
//! let mut names = Vec::new();
//! while there {
//!     names.push(cursor.key().to_vec());
//!     there = cursor.next()?;
//! }
//! assert_eq!(names, [b"heron", b"swift"]);
//!
//! // Close, and open again: everything committed is there.
//! drop(cursor);
//! drop(snapshot);
//! drop(database);
//! assert!(Database::open(directory.path())?.read().get("birds", b"swift")?.is_some());
//! # Ok(())
//! # }
//! ```

mod commit;
mod committer;
#[cfg(test)]
mod database_test;
#[cfg(test)]
mod merge_test;
mod write_txn;

use std::path::Path;
use std::sync::Arc;

pub use write_txn::WriteTxn;

use crate::checkpoint::meta::NodeIdentity;
use crate::engine::{Engine, EngineOptions, OpenError};
use crate::env::{Disk, RealDisk};
use crate::error::StorageError;
use crate::ids::{ClusterId, DatabaseId, LogIndex, RaftId, TxnId};
use crate::store::ApplyError;
use crate::txn::{Batch, BatchError, ReadTxn};
use committer::Committer;

/// An embedded database. Handles are cheap to clone, and may be used by many threads.
#[derive(Clone)]
pub struct Database {
    engine: Engine,
    committer: Arc<Committer>,
    durability: Durability,
}

/// When a commit returns. See [`Database::with_durability`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When others can read it. It reaches the disk soon, in the background. A power cut, or the end of the process,
    /// takes the last commits before it, as many as had not reached the disk, and never one without all after it.
    /// [`Database::sync`] says up to where nothing can be lost.
    Deferred,
    /// When it is durable.
    #[default]
    EachCommit,
}

/// A transaction that was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Committed<T> {
    /// Its number; `None` if it changed nothing.
    pub txn_id: Option<TxnId>,
    /// What its closure returned.
    pub value: T,
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An operation failed; nothing of the transaction is left.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The journal has stopped after a failure, or is closed. Nothing of the transaction is left.
    #[error("the transaction was not committed, and none will be until the database is opened again: {0}")]
    NotCommitted(StorageError),
    /// The journal could not be written. Whether the transaction survives is known when the database is opened again.
    #[error("the transaction's outcome is unknown until the database is opened again: {0}")]
    Unknown(StorageError),
    /// The database is damaged.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Database {
    /// Opens the database in `directory`, or makes one, with default options on the real disk.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(Arc::new(RealDisk::new()), directory, EngineOptions::default())
    }

    /// As [`Self::open`], on any disk and with any options.
    pub fn open_with(disk: Arc<dyn Disk>, directory: &Path, options: EngineOptions) -> Result<Self, OpenError> {
        let engine = if Engine::exists(&*disk, directory)? {
            Engine::open(disk, directory, options)?.0
        } else {
            let identity = NodeIdentity {
                cluster_id: ClusterId(0),
                raft_id: RaftId(0),
                name: "standalone".into(),
                listen: String::new(),
                advertise: String::new(),
            };
            Engine::create(disk, directory, &identity, random_database_id(), options)?
        };
        engine.purge_unasked();
        let committer = Arc::new(Committer::new(engine.clone()));
        let database = Self { engine, committer, durability: Durability::EachCommit };
        database.apply_the_rest()?;
        Ok(database)
    }

    /// Alone, what is durable is committed: applies what the journal holds behind the last frame known committed.
    fn apply_the_rest(&self) -> Result<(), OpenError> {
        let end = self.engine.log_state().last.map_or(0, |last| last.index.0 + 1);
        loop {
            let next = self.engine.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
            if next >= end {
                return Ok(());
            }
            for frame in self.engine.read_frames(LogIndex(next), LogIndex(end), 4 << 20)? {
                self.engine.apply(&frame)?;
            }
        }
    }

    /// A handle of the same database whose commits return as `durability` says. Both kinds may be used side by side:
    /// commits are in one order, so one that is durable makes all before it durable.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { durability, ..self.clone() }
    }

    /// Runs `work` as a transaction, and returns when it is committed. An error from `work`, or a panic in it, undoes it.
    ///
    /// Transactions of several threads that wait for the disk at the same time share one write and one sync. They run one
    /// after the other, and each sees those before it. Should one be so large that what is left of the journal's frame
    /// is too small for it, it is undone and `work` is called once more, with a frame of its own.
    ///
    /// `work` must not write to the database but by its argument: it would wait for itself. Nor may it end the transaction
    /// itself, which is open when it is called. What it reads may still be on its way to the disk; when this returns, it
    /// is there.
    pub fn write<T>(&self, work: impl FnMut(&mut Batch) -> Result<T, BatchError>) -> Result<Committed<T>, WriteError> {
        let (txn_id, value) = self.committer.write(self.durability, work)?;
        Ok(Committed { txn_id, value })
    }

    /// Opens a transaction. Others wait until it has ended, and it begins when those before it are committed: where
    /// many threads write, [`Self::write`] commits more of them with one sync.
    pub fn begin_write(&self) -> Result<WriteTxn<'_>, WriteError> {
        WriteTxn::begin(&self.committer, self.durability)
    }

    /// Makes every commit so far durable. Returns the last of them, by its txn id.
    pub fn sync(&self) -> Result<TxnId, WriteError> {
        self.committer.sync()
    }

    /// Opens a snapshot of what is committed.
    #[track_caller]
    #[must_use]
    pub fn read(&self) -> ReadTxn {
        self.engine.read()
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Drawn from the standard library's source of random hash keys, which the operating system seeds.
fn random_database_id() -> DatabaseId {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(commit::now_micros()));
    DatabaseId(half() << 64 | half())
}
