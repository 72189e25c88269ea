//! Why a node did not do what it was asked about backups.

use calamus_engine::backup::{BackupError, ChainError};

use crate::failure::Failure;

/// Why a run did not begin, or ended early; why a target could not be looked at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The configuration of this node names no such target.
    #[error("this node has no backup target `{name}`, it has {}; name one in its configuration: [backup.targets.{name}]", names(.known))]
    NoTarget {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Something runs already.
    #[error("this node makes a backup already, to `{target}`; one runs at a time: wait for it, or end it")]
    Busy {
        /// To which target.
        target: String,
    },
    /// The place cannot be reached.
    #[error("{0}")]
    Place(Failure),
    /// The node ends.
    #[error("this node is ending; ask another node")]
    Ending,
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The place, or what is there.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It broke off inside the node.
    #[error("the work broke off inside the node; see its log")]
    Broken,
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
