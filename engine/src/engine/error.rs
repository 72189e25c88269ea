//! Why a directory cannot be opened.

use std::path::PathBuf;

use crate::error::StorageError;
use crate::recovery::Damage;
use crate::store::ApplyError;

/// Why a directory could not be created or opened. Nothing in it was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is a database already.
    #[error("{} holds a database already; start it without flags for a new one, or choose another directory", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} holds no database; create one, or check the path", .0.display())]
    Missing(PathBuf),
    /// Another process has it.
    #[error("{} is in use by another process; stop that one first", .0.display())]
    Locked(PathBuf),
    /// `node.meta` or `vote` cannot be read from either of its slots.
    #[error("{} cannot be read: {what}. What this node has promised is not known any more. If it is part of a cluster, remove its directory and let it join again, under a new raft id", file.display())]
    Meta {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Damage that must not be served.
    #[error("{} is damaged: {damage}. If this node is part of a cluster, remove its directory and let it join again", directory.display())]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What was found.
        damage: Damage,
    },
    /// Bytes of the journal that were durable once and are not what was written.
    #[error("the journal in {} is damaged: {what}. If this node is part of a cluster, remove its directory and let it join again", directory.display())]
    JournalDamaged {
        /// The directory.
        directory: PathBuf,
        /// What, and where.
        what: String,
    },
    /// Replaying found that this replica differs.
    #[error(transparent)]
    Replay(#[from] ApplyError),
    /// An option out of range.
    #[error("bad option: {0}")]
    Options(String),
}
