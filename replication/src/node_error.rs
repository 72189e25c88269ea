//! What an operator learns when a change to the cluster, or the start of a node, did not succeed.

use std::time::Duration;

use calamus_engine::error::StorageError;

use crate::seam::LeaderInfo;

/// Why an operation on the node or the cluster failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Only the leader can do it.
    #[error("this node does not lead; {}", match leader { Some(leader) => format!("{} at {} does", leader.name, leader.address), None => "nobody is known to".to_owned() })]
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<LeaderInfo>,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It would do harm, or contradicts what is there. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Another change of the membership is under way. Nothing was changed; it passes.
    #[error("another change of the membership is under way: {0}")]
    Busy(String),
    /// It may or may not take effect yet.
    #[error("no answer within {} ms: {what}", waited.as_millis())]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// For what.
        what: String,
    },
    /// It was begun, and may or may not take effect yet.
    #[error("not known whether it took effect: {0}")]
    Unknown(String),
    /// The directory was put back to an earlier state than this node has promised others to have.
    #[error("the directory was put back to an earlier state: {0}")]
    RolledBack(String),
    /// The consensus of this node has stopped.
    #[error("the consensus of this node has stopped: {0}")]
    Stopped(String),
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
