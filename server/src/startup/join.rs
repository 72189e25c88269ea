//! Joining a cluster: asking a node of it who they are, and then to be added.
//!
//! A new directory never votes. It takes the cluster's ids, draws a raft id of its own, and is added as a learner; the
//! leader promotes it. A node of the same name that does not answer any more is replaced by it; one that answers
//! keeps its name, and the new one is refused.

use std::time::Duration;

use calamus_proto::v1::{AddRequest, NodeStatus};
use tokio::time::Instant;
use tonic::Code;
use tracing::{info, warn};

use crate::failure::Failure;
use crate::peer;

const PAUSE: Duration = Duration::from_millis(250);
/// A change of the membership waits for a quorum; it is asked for again after this time.
const ADD_TIMEOUT: Duration = Duration::from_secs(30);
/// So often a failure is told.
const COMPLAIN_EVERY: u32 = 40;

/// What the node that is joined says about the cluster.
#[derive(Clone, Debug)]
pub struct Joined {
    /// 32 hex digits.
    pub cluster_id: u128,
    /// 32 hex digits.
    pub database_id: u128,
    /// Every member.
    pub members: Vec<NodeStatus>,
}

/// Asks the node at `host` which cluster it is in, and tries again as long as `patience` while nobody answers.
pub async fn ask(host: &str, patience: Duration) -> Result<Joined, Failure> {
    let until = Instant::now() + patience;
    let status = loop {
        match peer::status(host, true, Duration::from_secs(3)).await {
            Ok(status) => break status,
            Err(error) if peer::may_pass(&error) && Instant::now() < until => {
                info!(host, why = error.message(), "the node to join does not answer yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                return Err(Failure::new(
                    format!("cannot join the cluster of {host}"),
                    error.message(),
                    "check the address after --join, and that a node of the cluster runs there",
                ));
            }
        }
    };
    let node = status.node.unwrap_or_default();
    let parse = |what: &str, text: &str| {
        u128::from_str_radix(text, 16).map_err(|_| {
            Failure::new(
                format!("cannot join the cluster of {host}"),
                format!("its {what} `{text}` is not a number of 32 hex digits"),
                "check that the same version of Calamus runs there",
            )
        })
    };
    Ok(Joined {
        cluster_id: parse("cluster id", &node.cluster_id)?,
        database_id: parse("database id", &node.database_id)?,
        members: if status.members.is_empty() { vec![node] } else { status.members },
    })
}

/// Refuses a name that a living member has.
pub fn check_name(joined: &Joined, name: &str, raft_id: Option<u64>) -> Result<(), Failure> {
    match joined.members.iter().find(|member| member.name == name) {
        Some(other) if !other.unreachable && Some(other.raft_id) != raft_id => Err(Failure::new(
            format!("the name {name} is taken"),
            format!("a node of this name runs at {} in the cluster that is to be joined", other.address),
            "choose another --name; to replace that node, stop it first",
        )),
        _ => Ok(()),
    }
}

/// Asks the node at `host` until this node is known to the cluster. The leader seeds and promotes it by itself then.
///
/// Ends with an error only when the cluster refuses for good.
pub async fn become_member(host: &str, request: AddRequest) -> Result<(), Failure> {
    let mut failures = 0;
    loop {
        match peer::add(host, request.clone(), ADD_TIMEOUT).await {
            Ok(answer) => {
                info!(members = answer.members.len(), "this node is a member of the cluster");
                return Ok(());
            }
            Err(error) if refused_for_good(error.code()) => {
                return Err(Failure::new(
                    format!("the cluster of {host} does not take this node"),
                    error.message(),
                    "check --join, --name and --dir; `calamus cluster status` shows the members",
                ));
            }
            Err(error) => {
                if failures % COMPLAIN_EVERY == 0 {
                    warn!(host, why = error.message(), "not a member yet; trying on");
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What the leader refuses by the request or by who is a member (FAILED_PRECONDITION) it refuses again; that another change
/// is under way is not among that, see `status`.
fn refused_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unimplemented
    )
}
