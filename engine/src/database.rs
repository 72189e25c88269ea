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

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::checkpoint::meta::NodeIdentity;
use crate::engine::{Engine, EngineOptions, OpenError};
use crate::env::{Disk, RealDisk};
use crate::error::StorageError;
use crate::ids::{ClusterId, DatabaseId, LogId, LogIndex, RaftId, TxnId};
use crate::journal::frame::{Frame, FrameKind};
use crate::store::ApplyError;
use crate::txn::{Batch, BatchError, ReadTxn};

/// An embedded database. Handles are cheap to clone.
#[derive(Clone)]
pub struct Database {
    engine: Engine,
    /// From staging to applying: frames must be applied in the order in which they were staged.
    writing: Arc<Mutex<()>>,
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An operation failed; nothing of the transaction is left.
    #[error(transparent)]
    Batch(#[from] BatchError),
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
        let database = Self { engine, writing: Arc::default() };
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

    /// Runs `work` as a transaction, and returns its txn id when it is durable; `None` if it changed nothing. An error
    /// from `work` undoes it.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&mut Batch) -> Result<T, BatchError>,
    ) -> Result<Option<TxnId>, WriteError> {
        let _one = self.writing.lock();
        let mut batch = self.engine.begin_batch()?;
        batch.begin_txn();
        if let Err(error) = work(&mut batch) {
            batch.rollback_txn();
            return Err(error.into());
        }
        let txn_id = batch.commit_txn();
        let Some(staged) = batch.seal(now_micros())? else { return Ok(None) };
        let index = self.engine.log_state().last.map_or(0, |last| last.index.0 + 1);
        let commit = self.engine.applied().log_id.map(|log_id| log_id.index);
        let log_id = LogId::new(1, index);
        let frame = Frame::encode(FrameKind::Record, log_id, commit, self.engine.last_chain(), staged.payload);
        let (done, synced) = mpsc::channel();
        let queued = self.engine.append(
            vec![frame.clone()],
            Box::new(move |result| {
                // The receiver waits just below.
                let _ = done.send(result);
            }),
        );
        let durable = queued.and_then(|()| {
            synced.recv().unwrap_or_else(|_| Err(StorageError::Poisoned("the journal was closed".into())))
        });
        if let Err(error) = durable {
            self.engine.drop_staged();
            return Err(WriteError::Unknown(error));
        }
        self.engine.apply(&frame)?;
        Ok(txn_id)
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

fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Drawn from the standard library's source of random hash keys, which the operating system seeds.
fn random_database_id() -> DatabaseId {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(now_micros()));
    DatabaseId(half() << 64 | half())
}
