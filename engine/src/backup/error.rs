//! What goes wrong with backups, by operation.

use std::path::PathBuf;

use super::store::StoreError;
use crate::engine::{OpenError, PinError, TailError};
use crate::error::StorageError;
use crate::ids::{ClusterId, DatabaseId};
use crate::seed::SeedError;
use crate::store::ApplyError;
use crate::txn::BatchError;

/// Why backups cannot be read. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The place where they are.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what was written, or not where it was put.
    #[error(
        "the backup object {object:?} cannot be relied on: {what}. Nothing was restored from it; use an earlier backup, \
         or one from another place"
    )]
    Damaged {
        /// Its name.
        object: String,
        /// What was found, and what should be there.
        what: String,
    },
}

impl ChainError {
    pub(super) fn damaged(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.into(), what: what.into() }
    }
}

/// Why a backup was not made. What was there before is untouched.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The node's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The backups that are there already, or the place for them.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The pages could not be streamed.
    #[error("the pages could not be read to their end: {0}")]
    Seed(#[from] SeedError),
    /// The journal was not kept long enough.
    #[error("the frames could not be read to their end: {0}")]
    Pin(#[from] PinError),
    /// The journal could not be followed.
    #[error("the journal could not be followed: {0}")]
    Tail(#[from] TailError),
    /// The backups there are of another database.
    #[error(
        "the backups there are of database {found}, and this one is {expected}: give each database a folder, or a prefix, \
         of its own"
    )]
    OtherDatabase {
        /// This node's.
        expected: DatabaseId,
        /// That of the backups.
        found: DatabaseId,
    },
    /// The backups there are of another cluster of this database: one of the two was restored.
    #[error(
        "the backups there are of cluster {found}, and this one is {expected}, restored from such a backup or the other way \
         round: give it a folder, or a prefix, of its own, so that the two never mix"
    )]
    OtherCluster {
        /// This node's.
        expected: ClusterId,
        /// That of the backups.
        found: ClusterId,
    },
    /// Whoever is told of the progress wanted it to end.
    #[error("the backup was stopped; it goes on where it was when it is asked for again")]
    Stopped,
    /// Somebody else has gone on with the backup that was being written.
    #[error("backup {0} was changed by somebody else meanwhile: only one node at a time may write to a place")]
    Taken(String),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Chain(error.into())
    }
}

/// Why nothing was restored. The directory is as it was, but for what is removed by the next attempt.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backups.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There is none.
    #[error("there is no complete backup there")]
    NoBackup,
    /// What was asked for is in no backup.
    #[error("{0}")]
    Point(String),
    /// They are of another cluster than the node that is to be seeded from them.
    #[error(
        "the newest backup there is of cluster {cluster}, database {database}, and this node is of cluster {wanted}: name the \
         place where its own cluster puts its backups"
    )]
    Foreign {
        /// The database of the backups.
        database: DatabaseId,
        /// Their cluster.
        cluster: ClusterId,
        /// The node's cluster.
        wanted: ClusterId,
    },
    /// The new directory's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something stands in the directory.
    #[error("{} is not empty: it has {found:?}. Name an empty directory, or ask to replace what is there", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// Some name in it.
        found: String,
    },
    /// A node has it open.
    #[error("{} is in use by another process; stop that first", .0.display())]
    Locked(PathBuf),
    /// The frames do not lead to what the backups say.
    #[error("the restored state is not the one that was backed up: {0}. The directory is as it was before")]
    Differs(String),
    /// The restored state did not open.
    #[error("the restored state cannot be opened: {0}")]
    Open(Box<OpenError>),
    /// The first record of the new timeline could not be made.
    #[error("the new timeline could not be begun: {0}")]
    Batch(#[from] BatchError),
    /// It could not be applied.
    #[error("the new timeline could not be begun: {0}")]
    Apply(#[from] ApplyError),
    /// Whoever is told of the progress wanted it to end.
    #[error("the restore was stopped; the directory is as it was before")]
    Stopped,
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Chain(error.into())
    }
}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        Self::Open(Box::new(error))
    }
}
