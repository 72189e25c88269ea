//! Who belongs to the cluster, and how that changes.
//!
//! Rules kept here:
//! - A node joins as a learner under the raft id of its directory and becomes a voter by itself once it has caught up,
//!   unless it is an observer. It never votes before: its log is part of what a quorum relies on.
//! - A name may stand under two raft ids only while one replaces the other. The change that promotes the new one
//!   removes the old one in the same step, so the quorum never grows by a node that is gone, and the old raft id,
//!   whose log is lost, never counts again.
//! - A raft id is never given to another log: it is drawn with the directory. Removing a node removes its raft id for
//!   good; the directory must be made anew to join again.
//! - What would leave fewer live voters than a quorum is refused, unless the operator names the cluster to force it.
//! - A leader that stopped in the middle of a change left a joint membership; the next leader finishes it.

pub mod codec;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calamus_engine::ids::{ClusterId, RaftId, Term};
use calamus_proto::v1::{AddRequest, Member, RemoveRequest};
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use crate::core::{Core, Standing};
use crate::leadership::leader_info;
use crate::node_error::NodeError;
use crate::types::{Membership, NodeInfo};

/// How long a change may take before it is reported as undecided.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How often a leader looks for learners to promote.
const PROMOTION_TICK: Duration = Duration::from_millis(50);

type Change = ChangeMembers<u64, NodeInfo>;

/// The members of a membership, in order of name. In a joint membership only who votes in both sets is a voter: who
/// joins does not count alone yet, and who leaves does not count for long.
#[must_use]
pub fn members(membership: &Membership) -> Vec<Member> {
    let mut sets = membership.get_joint_config().iter();
    let first = sets.next().cloned().unwrap_or_default();
    let voters: BTreeSet<u64> = sets.fold(first, |both, set| both.intersection(set).copied().collect());
    let mut members: Vec<Member> = membership
        .nodes()
        .map(|(id, node)| Member {
            name: node.name.clone(),
            raft_id: *id,
            address: node.address.clone(),
            voter: voters.contains(id),
        })
        .collect();
    members.sort_by(|a, b| (&a.name, a.raft_id).cmp(&(&b.name, b.raft_id)));
    members
}

fn ensure_leader(core: &Core) -> Result<Term, NodeError> {
    match core.standing() {
        Standing::Elected { term } => Ok(term),
        Standing::Following { term, leader } => {
            Err(NodeError::NotLeader { leader: leader.and_then(|id| leader_info(core, term, id)) })
        }
        Standing::Stopped { why } => Err(NodeError::Stopped(why)),
    }
}

fn check_text(what: &str, text: &str) -> Result<(), NodeError> {
    if text.is_empty() || text.len() > codec::MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(NodeError::Invalid(format!(
            "a {what} has 1 to {} bytes and no control characters",
            codec::MAX_TEXT_BYTES
        )));
    }
    Ok(())
}

/// Runs one change at a time: between the two steps of one, another must not take its joint membership for one that
/// was left behind.
async fn change(core: &Core, change: Change) -> Result<(), NodeError> {
    let _one = core.changing.lock().await;
    change_alone(core, change).await
}

async fn change_alone(core: &Core, change: Change) -> Result<(), NodeError> {
    let changing = core.raft.change_membership(change, false);
    let result = tokio::time::timeout(CHANGE_LIMIT, changing).await.map_err(|_| NodeError::Timeout {
        waited: CHANGE_LIMIT,
        what: "the change of the membership is not committed; a quorum may be missing".to_owned(),
    })?;
    result.map(|_| ()).map_err(|error| change_error(core, error))
}

fn change_error(
    core: &Core,
    error: RaftError<crate::types::TypeConfig, ClientWriteError<crate::types::TypeConfig>>,
) -> NodeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            ensure_leader(core).err().unwrap_or(NodeError::NotLeader { leader: None })
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => NodeError::Timeout {
            waited: Duration::ZERO,
            what: "leadership was lost while the membership changed".to_owned(),
        },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(busy))) => {
            NodeError::Busy(busy.to_string())
        }
        RaftError::APIError(other) => NodeError::Refused(other.to_string()),
        // The entry may have been sent to others before.
        RaftError::Fatal(fatal) => NodeError::Timeout {
            waited: Duration::ZERO,
            what: format!("the consensus of this node stopped while the membership changed: {fatal}"),
        },
    }
}

/// Makes a node known: as a learner, to be promoted. The same request again changes nothing.
pub(crate) async fn add(core: &Core, cluster: ClusterId, request: &AddRequest) -> Result<(), NodeError> {
    ensure_leader(core)?;
    check_text("name", &request.name)?;
    check_text("address", &request.address)?;
    if request.raft_id == 0 {
        return Err(NodeError::Invalid("a raft id is not 0".to_owned()));
    }
    if !request.cluster_id.is_empty() && request.cluster_id != cluster.to_string() {
        return Err(NodeError::Refused(format!(
            "this is cluster {cluster}, the node belongs to cluster {}: start it with a new directory",
            request.cluster_id
        )));
    }
    let info = NodeInfo { name: request.name.clone(), address: request.address.clone(), observer: request.observer };
    let membership = core.membership();
    let membership = membership.membership();
    if let Some(known) = membership.get_node(&request.raft_id) {
        return if *known == info {
            Ok(())
        } else if known.name != info.name {
            Err(NodeError::Refused(format!("raft id {:016x} is {} already", request.raft_id, known.name)))
        } else {
            change(core, Change::SetNodes(BTreeMap::from([(request.raft_id, info)]))).await
        };
    }
    if let Some((id, _)) = membership.nodes().find(|(_, node)| node.name == info.name)
        && !request.replace
    {
        return Err(NodeError::Refused(format!(
            "{} is a member already, as raft id {id:016x}: choose another name, or say that this node replaces it",
            info.name
        )));
    }
    tracing::info!(name = %info.name, raft_id = request.raft_id, address = %info.address, "a node joins");
    change(core, Change::AddNodes(BTreeMap::from([(request.raft_id, info)]))).await
}

/// Takes a node out.
pub(crate) async fn remove(core: &Core, cluster: ClusterId, request: &RemoveRequest) -> Result<(), NodeError> {
    ensure_leader(core)?;
    let membership = core.membership();
    let membership = membership.membership();
    let ids: BTreeSet<u64> =
        membership.nodes().filter(|(_, node)| node.name == request.name).map(|(id, _)| *id).collect();
    if ids.is_empty() {
        let names: Vec<String> = membership.nodes().map(|(_, node)| node.name.clone()).collect();
        return Err(NodeError::Refused(format!(
            "no member is called {:?}; there are {}",
            request.name,
            names.join(", ")
        )));
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let left: BTreeSet<u64> = voters.difference(&ids).copied().collect();
    if left.is_empty() {
        return Err(NodeError::Refused(format!("{} is the last voter", request.name)));
    }
    let forced = request.force_cluster_id == cluster.to_string();
    let live = left.iter().filter(|id| answers(core, **id)).count();
    if live <= left.len() / 2 && !forced {
        return Err(NodeError::Refused(format!(
            "without {} only {live} of {} voters answer, which is no quorum: bring a node back first, or force it with \
             this cluster's id",
            request.name,
            left.len()
        )));
    }
    tracing::info!(name = %request.name, ?ids, "a node is removed");
    let removed_voters: BTreeSet<u64> = ids.intersection(&voters).copied().collect();
    let learners: BTreeSet<u64> = ids.difference(&voters).copied().collect();
    let mut changes = Vec::new();
    if !removed_voters.is_empty() {
        changes.push(Change::RemoveVoters(removed_voters));
    }
    if !learners.is_empty() {
        changes.push(Change::RemoveNodes(learners));
    }
    change(core, Change::Batch(changes)).await
}

/// Whether a voter is this node, or has answered lately.
fn answers(core: &Core, id: u64) -> bool {
    let limit = core.config.election_timeout.end * 2;
    id == core.metrics().id || core.progress(id).last_answer.is_some_and(|age| age <= limit)
}

/// Promotes learners and finishes joint memberships, while this node leads. Runs until the core stops.
pub(crate) async fn promote_learners(core: Core) {
    let mut tick = tokio::time::interval(PROMOTION_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = core.stopped() => return,
        }
        if ensure_leader(&core).is_err() {
            continue;
        }
        let Ok(_one) = core.changing.try_lock() else {
            continue;
        };
        let metrics = core.metrics();
        if metrics.membership_config != metrics.committed_membership_config {
            continue;
        }
        let next = next_change(&core, metrics.membership_config.membership());
        if let Some(next) = next
            && let Err(error) = change_alone(&core, next).await
        {
            tracing::warn!(%error, "a learner is not promoted yet");
        }
    }
}

fn next_change(core: &Core, membership: &Membership) -> Option<Change> {
    if membership.get_joint_config().len() > 1 {
        return Some(Change::AddVoterIds(BTreeSet::new()));
    }
    let last = core.last_log_index()?.0;
    let caught_up = |id: &u64| {
        let matched = core.progress(*id).matched;
        matched.is_some_and(|matched| matched.0 + core.config.promotion_lag_entries >= last)
    };
    let learner = membership
        .learner_ids()
        .find(|id| membership.get_node(id).is_some_and(|node| !node.observer) && caught_up(id) && answers(core, *id))?;
    Some(promotion(membership, learner))
}

/// The one change that makes `learner` a voter and takes out whoever it replaces.
fn promotion(membership: &Membership, learner: u64) -> Change {
    let name = membership.get_node(&learner).map(|node| node.name.as_str());
    let same_name = |id: &u64| membership.get_node(id).map(|node| node.name.as_str()) == name && *id != learner;
    let old_voters: BTreeSet<u64> = membership.voter_ids().filter(same_name).collect();
    let old_learners: BTreeSet<u64> = membership.learner_ids().filter(same_name).collect();
    tracing::info!(raft_id = learner, name, replaces = ?old_voters, "a learner becomes a voter");
    let mut changes = vec![Change::AddVoterIds(BTreeSet::from([learner]))];
    if !old_voters.is_empty() {
        changes.push(Change::RemoveVoters(old_voters));
    }
    if !old_learners.is_empty() {
        changes.push(Change::RemoveNodes(old_learners));
    }
    Change::Batch(changes)
}

/// The membership of a new cluster of one.
#[must_use]
pub fn of_one(id: RaftId, info: NodeInfo) -> Membership {
    Membership::new(vec![BTreeSet::from([id.0])], BTreeMap::from([(id.0, info)])).expect("one voter, which is a node")
}
