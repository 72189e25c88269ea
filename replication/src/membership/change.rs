//! One change of the membership at a time, and what is known of it afterwards.

use std::time::Duration;

use calamus_engine::ids::Term;
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use crate::core::{Core, Standing};
use crate::leadership::leader_info;
use crate::node_error::NodeError;
use crate::types::NodeInfo;

/// How long a change may take before it is reported as undecided.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

pub(super) type Change = ChangeMembers<u64, NodeInfo>;

/// What becomes of nodes that a change makes voters no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Former {
    /// They are members no more.
    Leave,
    /// They go on receiving everything.
    Stay,
}

/// The term that this node leads.
pub(super) fn ensure_leader(core: &Core) -> Result<Term, NodeError> {
    match core.standing() {
        Standing::Elected { term } => Ok(term),
        Standing::Following { term, leader } => {
            Err(NodeError::NotLeader { leader: leader.and_then(|id| leader_info(core, term, id)) })
        }
        Standing::Stopped { why } => Err(NodeError::Stopped(why)),
    }
}

/// Runs one change at a time: between the two steps of one, another must not take its joint membership for one that
/// was left behind.
pub(super) async fn change(core: &Core, change: Change, former: Former) -> Result<(), NodeError> {
    let _one = core.changing.lock().await;
    change_alone(core, change, former).await
}

/// For who holds the lock.
pub(super) async fn change_alone(core: &Core, change: Change, former: Former) -> Result<(), NodeError> {
    let before = core.effective_membership().await.map_err(NodeError::Stopped)?;
    let changing = core.raft.change_membership(change, former == Former::Stay);
    let result = tokio::time::timeout(CHANGE_LIMIT, changing).await.map_err(|_| NodeError::Timeout {
        waited: CHANGE_LIMIT,
        what: "the change of the membership is not committed; a quorum may be missing".to_owned(),
    })?;
    let Err(error) = result else { return Ok(()) };
    let unknown = |why: String| NodeError::Unknown(format!("{why}; `cluster status` shows what became of the change"));
    match error {
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Err(unknown("leadership was lost while the membership changed".to_owned()))
        }
        RaftError::Fatal(fatal) => Err(unknown(format!("the consensus ended while the membership changed: {fatal}"))),
        RaftError::APIError(refusal) => {
            let after = core.effective_membership().await.map_err(unknown)?;
            if after != before {
                return Err(unknown(format!("the membership changed in part: {refusal}")));
            }
            Err(match refusal {
                ClientWriteError::ForwardToLeader(_) => {
                    ensure_leader(core).err().unwrap_or(NodeError::NotLeader { leader: None })
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(busy)) => {
                    NodeError::Busy(busy.to_string())
                }
                other => NodeError::Refused(other.to_string()),
            })
        }
    }
}
