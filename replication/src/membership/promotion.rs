//! Learners that become voters, by themselves or because an operator says so.
//!
//! What a node is to be stands in the membership, so a leader that follows another goes on with what that one began.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calamus_engine::ids::{ClusterId, RaftId};
use calamus_proto::v1::{AddRequest, PromoteRequest, ReplaceRequest};

use super::change::{Change, Former, change, change_alone, ensure_leader};
use super::leaving::{also_out, answers, removal_of};
use super::{Progress, check_cluster, ids_called, removal, request};
use crate::core::Core;
use crate::node_error::NodeError;
use crate::types::{Aim, Membership, NodeInfo};

/// How often a leader looks for learners to promote.
pub(crate) const PROMOTION_TICK: Duration = Duration::from_millis(50);

/// Gives a member the aim to vote. It does so by itself once it has caught up.
pub(crate) async fn promote(core: &Core, request: &PromoteRequest) -> Result<Progress, NodeError> {
    ensure_leader(core)?;
    let membership = core.membership();
    let membership = membership.membership();
    let ids = ids_called(membership, &request.name)?;
    // While one of two of the same name replaces the other, it is the one that does not vote yet.
    let Some(id) = membership.learner_ids().find(|id| ids.contains(id)) else {
        return Ok(Progress { done: is_settled(core), behind: 0 });
    };
    aim_to_vote(core, membership, id, None).await?;
    Ok(Progress { done: false, behind: behind(core, id) })
}

async fn aim_to_vote(core: &Core, membership: &Membership, id: u64, replaces: Option<u64>) -> Result<(), NodeError> {
    let node = membership.get_node(&id).expect("it is a member");
    let wanted = NodeInfo { aim: Aim::Voter, replaces: replaces.or(node.replaces), ..node.clone() };
    if *node == wanted {
        return Ok(());
    }
    change(core, Change::SetNodes(BTreeMap::from([(id, wanted)])), Former::Leave).await
}

/// Whether the newest membership is committed, and no step of a change.
fn is_settled(core: &Core) -> bool {
    let metrics = core.metrics();
    let newest = &metrics.membership_config;
    newest == &metrics.committed_membership_config && newest.membership().get_joint_config().len() == 1
}

/// How many entries a member lacks, as far as this leader knows.
fn behind(core: &Core, id: u64) -> u64 {
    let last = core.last_log_index().map_or(0, |last| last.0);
    last - core.progress(id).matched.map_or(0, |matched| matched.0).min(last)
}

/// Puts a node in the place of a member of another name: it becomes a learner, and the change that makes a voter of it
/// takes the old one out. So the voters are never one more, of whom one is gone.
pub(crate) async fn replace(core: &Core, cluster: ClusterId, request: &ReplaceRequest) -> Result<Progress, NodeError> {
    ensure_leader(core)?;
    let new = request.new.as_ref().ok_or_else(|| NodeError::Invalid("replaced by which node?".to_owned()))?;
    request::check(new)?;
    check_cluster(cluster, new)?;
    if new.name == request.old {
        return Err(NodeError::Refused(format!(
            "a node that has the name {} takes its place by itself when it joins; start it with --join",
            new.name
        )));
    }
    let membership = core.membership();
    let membership = membership.membership();
    let votes = membership.voter_ids().any(|id| id == new.raft_id);
    let old: BTreeSet<u64> = match ids_called(membership, &request.old) {
        Ok(old) => old,
        // The same request once more.
        Err(_) if votes => return Ok(Progress { done: is_settled(core), behind: 0 }),
        Err(error) => return Err(error),
    };
    let (Some(old_id), 1) = (old.first().copied(), old.len()) else {
        return Err(NodeError::Busy(format!("{} is being replaced already", request.old)));
    };
    if membership.nodes().any(|(id, node)| node.replaces == Some(old_id) && *id != new.raft_id) {
        return Err(NodeError::Busy(format!("{} is being replaced by another node already", request.old)));
    }
    if !membership.voter_ids().any(|id| id == old_id) {
        return Err(NodeError::Refused(format!(
            "{} does not vote, and who takes its place would: remove it, and let the other join as what it was",
            request.old
        )));
    }
    check_old(core, membership, request, old_id).await?;
    if votes {
        let _one = core.changing.lock().await;
        also_out(core, membership, &request.old, &old, false).await?;
        change_alone(core, removal_of(membership, &old), Former::Leave).await?;
        return Ok(Progress { done: true, behind: 0 });
    }
    take_in(core, membership, new, old_id).await?;
    Ok(Progress { done: false, behind: behind(core, new.raft_id) })
}

/// Refuses to replace a node that answers, unless that may be.
async fn check_old(core: &Core, membership: &Membership, request: &ReplaceRequest, old: u64) -> Result<(), NodeError> {
    let node = membership.get_node(&old).expect("it is a member");
    let new = request.new.as_ref().and_then(|new| membership.get_node(&new.raft_id));
    let under_way = new.is_some_and(|new| new.replaces == Some(old));
    if request.old_may_be_alive || under_way || !removal::answers_at(&core.peers, RaftId(old), node).await {
        return Ok(());
    }
    Err(NodeError::Refused(format!(
        "{} answers at {}: stop it first, or say that it is to be replaced although it lives (--old-may-be-alive)",
        node.name, node.address
    )))
}

async fn take_in(core: &Core, membership: &Membership, new: &AddRequest, old: u64) -> Result<(), NodeError> {
    if let Some(known) = membership.get_node(&new.raft_id) {
        if known.name != new.name || known.address != new.address {
            return Err(NodeError::Refused(format!(
                "raft id {:016x} is {} at {} already",
                new.raft_id, known.name, known.address
            )));
        }
        return aim_to_vote(core, membership, new.raft_id, Some(old)).await;
    }
    if ids_called(membership, &new.name).is_ok() {
        return Err(NodeError::Refused(format!("another node is called {} already: choose another name", new.name)));
    }
    let (name, address) = (new.name.clone(), new.address.clone());
    let info = NodeInfo { name, address, aim: Aim::Voter, replaces: Some(old) };
    tracing::info!(name = %info.name, raft_id = new.raft_id, replaces = old, "a node comes to replace another");
    change(core, Change::AddNodes(BTreeMap::from([(new.raft_id, info)])), Former::Leave).await
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
        if let Some((next, former)) = next
            && let Err(error) = change_alone(&core, next, former).await
        {
            tracing::warn!(%error, "a learner is not promoted yet");
        }
    }
}

/// What becomes of those whom a joint membership, that another leader left behind, makes voters no more.
fn former(membership: &Membership) -> Former {
    let sets = membership.get_joint_config();
    let (Some(old), Some(new)) = (sets.first(), sets.last()) else { return Former::Leave };
    let stays = |id: &u64| membership.get_node(id).is_some_and(|node| node.aim != Aim::Voter);
    if old.difference(new).any(stays) { Former::Stay } else { Former::Leave }
}

async fn next_change(core: &Core, membership: &Membership) -> Option<(Change, Former)> {
    if membership.get_joint_config().len() > 1 {
        return Some((Change::AddVoterIds(BTreeSet::new()), former(membership)));
    }
    let last = core.last_log_index()?.0;
    let caught_up = |id: &u64| {
        let matched = core.progress(*id).matched;
        matched.is_some_and(|matched| matched.0 + core.config.promotion_lag_entries >= last)
    };
    let wants = |id: &u64| membership.get_node(id).is_some_and(|node| node.aim == Aim::Voter);
    let ready = membership.learner_ids().filter(|id| wants(id) && caught_up(id) && answers(core, *id));
    for learner in ready {
        if has_a_living_namesake(core, membership, learner).await {
            tracing::debug!(raft_id = learner, "a learner waits until the node that it replaces is gone");
        } else {
            return Some((promotion(membership, learner), Former::Leave));
        }
    }
    None
}

async fn has_a_living_namesake(core: &Core, membership: &Membership, learner: u64) -> bool {
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
    let node = membership.get_node(&learner).expect("it is a member");
    let goes =
        |(id, other): &(&u64, &NodeInfo)| **id != learner && (other.name == node.name || node.replaces == Some(**id));
    let old: BTreeSet<u64> = membership.nodes().filter(goes).map(|(id, _)| *id).collect();
    tracing::info!(raft_id = learner, name = %node.name, replaces = ?old, "a learner becomes a voter");
    let mut changes = vec![Change::AddVoterIds(BTreeSet::from([learner]))];
    if node.replaces.is_some() {
        let info = NodeInfo { replaces: None, ..node.clone() };
        changes.push(Change::SetNodes(BTreeMap::from([(learner, info)])));
    }
    if !old.is_empty() {
        changes.push(removal_of(membership, &old));
    }
    Change::Batch(changes)
}
