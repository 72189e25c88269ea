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
//! - A node is replaced, or moves to another address, only when it does not answer any more under its raft id. A leader
//!   that was moved itself, as the only node of a cluster is, knows where it is.
//! - What would leave fewer live voters than a quorum is refused. Nothing can force it: the change itself is an entry that
//!   a quorum of the old voters and one of the new must have, and would wait for those that are gone, as all behind it.
//! - Once openraft has a change, only a refusal that left the membership as it was is *nothing was changed*. The two steps
//!   of a change answer with the same errors; after the first, the change is on its way and the next leader finishes it.
//! - A leader that stopped in the middle of a change left a joint membership; the next leader finishes it.

pub mod codec;
pub(crate) mod removal;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use calamus_engine::NodeIdentity;
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
pub(crate) const PROMOTION_TICK: Duration = Duration::from_millis(50);

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

/// Runs one change at a time: between the two steps of one, another must not take its joint membership for one that
/// was left behind.
async fn change(core: &Core, change: Change) -> Result<(), NodeError> {
    let _one = core.changing.lock().await;
    change_alone(core, change).await
}

async fn change_alone(core: &Core, change: Change) -> Result<(), NodeError> {
    let before = core.effective_membership().await.map_err(NodeError::Stopped)?;
    let changing = core.raft.change_membership(change, false);
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

/// Makes a node known: as a learner, to be promoted. The same request again changes nothing.
pub(crate) async fn add(core: &Core, cluster: ClusterId, request: &AddRequest) -> Result<(), NodeError> {
    ensure_leader(core)?;
    request::check(request)?;
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
        return set_node(core, membership, request.raft_id, known, info).await;
    }
    for (id, node) in membership.nodes().filter(|(_, node)| node.name == info.name) {
        if !request.replace {
            return Err(NodeError::Refused(format!(
                "{} is a member already, as raft id {id:016x}: choose another name, or say that this node replaces it",
                info.name
            )));
        }
        if removal::answers_at(&core.peers, RaftId(*id), node).await {
            return Err(NodeError::Refused(format!(
                "{} still answers at {}, as raft id {id:016x}: stop it before another node replaces it",
                info.name, node.address
            )));
        }
    }
    tracing::info!(name = %info.name, raft_id = request.raft_id, address = %info.address, "a node joins");
    change(core, Change::AddNodes(BTreeMap::from([(request.raft_id, info)]))).await
}

/// Changes what is known of a member: its address, or whether it is an observer. A node that tells its new address does
/// not know whether it is one.
async fn set_node(
    core: &Core,
    membership: &Membership,
    id: u64,
    known: &NodeInfo,
    mut wanted: NodeInfo,
) -> Result<(), NodeError> {
    if known.name != wanted.name {
        return Err(NodeError::Refused(format!("raft id {id:016x} is {} already", known.name)));
    }
    if known.address != wanted.address {
        wanted.observer = known.observer;
        // This node answers at its own address, of which nobody else but itself may know.
        let moved_itself = id == core.peers.this().0 && wanted.address == *core.own_address;
        if !moved_itself && removal::answers_at(&core.peers, RaftId(id), known).await {
            return Err(NodeError::Refused(format!(
                "{} still answers at {}, as raft id {id:016x}: two nodes of one directory must not run",
                known.name, known.address
            )));
        }
    }
    if wanted.observer && membership.voter_ids().any(|voter| voter == id) {
        return Err(NodeError::Refused(format!("{} votes already: an observer is added as one", known.name)));
    }
    if *known == wanted {
        return Ok(());
    }
    change(core, Change::SetNodes(BTreeMap::from([(id, wanted)]))).await
}

/// Takes a node out.
pub(crate) async fn remove(core: &Core, request: &RemoveRequest) -> Result<(), NodeError> {
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
    let live = left.iter().filter(|id| answers(core, **id)).count();
    if live <= left.len() / 2 {
        return Err(NodeError::Refused(format!(
            "without {} only {live} of {} voters answer, which is no quorum: bring a node back first; this cannot be \
             forced, since the change itself must be committed by a quorum of those that are left",
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
        let next = next_change(&core, metrics.membership_config.membership()).await;
        if let Some(next) = next
            && let Err(error) = change_alone(&core, next).await
        {
            tracing::warn!(%error, "a learner is not promoted yet");
        }
    }
}

async fn next_change(core: &Core, membership: &Membership) -> Option<Change> {
    if membership.get_joint_config().len() > 1 {
        return Some(Change::AddVoterIds(BTreeSet::new()));
    }
    let last = core.last_log_index()?.0;
    let caught_up = |id: &u64| {
        let matched = core.progress(*id).matched;
        matched.is_some_and(|matched| matched.0 + core.config.promotion_lag_entries >= last)
    };
    let ready = membership
        .learner_ids()
        .filter(|id| membership.get_node(id).is_some_and(|node| !node.observer) && caught_up(id) && answers(core, *id));
    for learner in ready {
        if replaces_a_living_node(core, membership, learner).await {
            tracing::debug!(raft_id = learner, "a learner waits until the node that it replaces is gone");
        } else {
            return Some(promotion(membership, learner));
        }
    }
    None
}

async fn replaces_a_living_node(core: &Core, membership: &Membership, learner: u64) -> bool {
    let name = membership.get_node(&learner).map(|node| node.name.as_str());
    for (id, node) in membership.nodes().filter(|(id, node)| Some(node.name.as_str()) == name && **id != learner) {
        if removal::answers_at(&core.peers, RaftId(*id), node).await {
            return true;
        }
    }
    false
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

/// The membership of a new cluster that is this node alone, as a membership frame holds it: what the restore of a backup
/// writes where a first start would bootstrap.
#[must_use]
pub fn of_node_alone(identity: &NodeIdentity) -> Bytes {
    let info = NodeInfo { name: identity.name.clone(), address: identity.advertise.clone(), observer: false };
    codec::encode(&of_one(identity.raft_id, info))
}
