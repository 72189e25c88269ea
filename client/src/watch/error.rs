//! Why a watch ends.

use super::Position;
use crate::outcome::Failure;

/// Why a watch cannot go on. After [`WatchError::Unavailable`] it may be asked again, and goes on where it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// No journal that could be asked holds what follows the position.
    #[error(
        "what follows {position} is no longer held by {}; the oldest that is held follows txn {}{}; begin from a scan, and \
         watch on from its read point",
        asked.join(", "),
        oldest.txn_id,
        unasked_text(unasked)
    )]
    NotHeld {
        /// Where the watch stands.
        position: Position,
        /// What can be gone on from, at the node that reaches back farthest.
        oldest: Box<Position>,
        /// Addresses of the nodes that said so.
        asked: Vec<String>,
        /// Members that could not be asked, and may still hold it: names and addresses.
        unasked: Vec<(String, String)>,
    },
    /// The cluster has another timeline, or another database, than the position is of.
    #[error(
        "the position {position} is of another timeline than the cluster's, which has {database_id}/{timeline}{}",
        forked_text(position, *forked_at_txn)
    )]
    OtherTimeline {
        /// Where the watch stands.
        position: Position,
        /// What the cluster has.
        database_id: String,
        /// What the cluster has.
        timeline: u64,
        /// The last transaction that both timelines have; `None` if the cluster's does not come from the other one.
        forked_at_txn: Option<u64>,
    },
    /// A node told a transaction twice, too late, or not at all.
    #[error("node {node} broke the order of the watch at {position}: {what}; this is a defect: report it")]
    OutOfOrder {
        /// Where the watch stands.
        position: Position,
        /// The node's address.
        node: String,
        /// What it said.
        what: String,
    },
    /// The request is refused for good.
    #[error("{0}")]
    Refused(Failure),
    /// No node could be watched within the deadline.
    #[error("no node can be watched now: {0}")]
    Unavailable(Failure),
}

fn unasked_text(unasked: &[(String, String)]) -> String {
    if unasked.is_empty() {
        return String::new();
    }
    let names: Vec<String> = unasked.iter().map(|(name, address)| format!("{name} ({address})")).collect();
    format!("; not asked, and perhaps holding it: {}", names.join(", "))
}

fn forked_text(position: &Position, forked: Option<u64>) -> String {
    match forked {
        Some(txn_id) if position.txn_id <= txn_id => {
            format!(
                "; it was forked at txn {txn_id}, so all that was seen is in it: go on behind txn {txn_id} of it, after a \
                 look at what lies between"
            )
        }
        Some(txn_id) => {
            format!("; it was forked at txn {txn_id}: what was seen behind that is not in it; begin from a scan")
        }
        None => "; begin from a scan".to_owned(),
    }
}
