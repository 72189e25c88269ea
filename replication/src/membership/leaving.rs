//! Nodes that go, and voters that stop to vote.

use std::collections::{BTreeMap, BTreeSet};

use calamus_engine::ids::{ClusterId, RaftId};
use calamus_proto::v1::{ObserveRequest, RemoveRequest};
use futures::future::join_all;

use super::change::{Change, Former, change_alone, ensure_leader};
use super::quorum::{Verdict, decide};
use super::{Progress, ids_called, removal};
use crate::core::Core;
use crate::node_error::NodeError;
use crate::types::{Aim, Membership, NodeInfo};

/// Takes a node out.
pub(crate) async fn remove(core: &Core, cluster: ClusterId, request: &RemoveRequest) -> Result<(), NodeError> {
    ensure_leader(core)?;
    let forced = is_forced(cluster, &request.force_cluster_id)?;
    let _one = core.changing.lock().await;
    let membership = core.membership();
    let membership = membership.membership();
    let ids = ids_called(membership, &request.name)?;
    let mut out = ids.clone();
    out.extend(also_out(core, membership, &request.name, &ids, forced).await?);
    tracing::info!(name = %request.name, ?out, "nodes are removed");
    change_alone(core, removal_of(membership, &out), Former::Leave).await
}

/// The change that takes members out, whatever they are.
pub(super) fn removal_of(membership: &Membership, out: &BTreeSet<u64>) -> Change {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let removed_voters: BTreeSet<u64> = out.intersection(&voters).copied().collect();
    let learners: BTreeSet<u64> = out.difference(&voters).copied().collect();
    let mut changes = Vec::new();
    if !removed_voters.is_empty() {
        changes.push(Change::RemoveVoters(removed_voters));
    }
    if !learners.is_empty() {
        changes.push(Change::RemoveNodes(learners));
    }
    Change::Batch(changes)
}

/// Makes an observer of a member. Not of the leader, which has to hand over before.
pub(crate) async fn observe(core: &Core, cluster: ClusterId, request: &ObserveRequest) -> Result<Progress, NodeError> {
    ensure_leader(core)?;
    let forced = is_forced(cluster, &request.force_cluster_id)?;
    let _one = core.changing.lock().await;
    let membership = core.membership();
    let membership = membership.membership();
    let ids = ids_called(membership, &request.name)?;
    let done = Ok(Progress { done: true, behind: 0 });
    let observed =
        |(id, node): (&u64, &NodeInfo)| (*id, NodeInfo { aim: Aim::Observer, replaces: None, ..node.clone() });
    let set: BTreeMap<u64, NodeInfo> = membership.nodes().filter(|(id, _)| ids.contains(id)).map(observed).collect();
    let voters: BTreeSet<u64> = membership.voter_ids().filter(|id| ids.contains(id)).collect();
    if voters.is_empty() {
        if set.iter().all(|(id, node)| membership.get_node(id) == Some(node)) {
            return done;
        }
        change_alone(core, Change::SetNodes(set), Former::Stay).await?;
        return done;
    }
    // Members that leave and members that stay cannot be in one change: a leader that finishes it could not tell them apart.
    let dead = also_out(core, membership, &request.name, &voters, forced).await?;
    if !dead.is_empty() {
        tracing::warn!(?dead, "voters that do not answer are taken out, as was forced");
        change_alone(core, Change::RemoveVoters(dead.clone()), Former::Leave).await?;
    }
    tracing::info!(name = %request.name, "a voter becomes an observer");
    let changes = vec![Change::SetNodes(set), Change::RemoveVoters(voters)];
    let out = dead.len();
    change_alone(core, Change::Batch(changes), Former::Stay).await.map_err(|error| match out {
        0 => error,
        // Nobody is to think that nothing was changed.
        _ => NodeError::Unknown(format!(
            "{out} voters that do not answer were taken out, and must be wiped to come back; {} votes on: {error}",
            request.name
        )),
    })?;
    done
}

/// Whether a request is forced.
fn is_forced(cluster: ClusterId, typed: &str) -> Result<bool, NodeError> {
    if typed.is_empty() {
        return Ok(false);
    }
    if typed == cluster.to_string() {
        return Ok(true);
    }
    Err(NodeError::Invalid(format!(
        "this is cluster {cluster}, and what was typed out to force the change is {typed:?}: nothing is forced"
    )))
}

/// The voters that have to go beside `out`, so that a quorum of those that are left answers. None, unless it is forced.
///
/// They are asked now: a change that is begun and cannot be committed holds up everything behind it, and a node that died
/// a moment ago has answered lately.
pub(super) async fn also_out(
    core: &Core,
    membership: &Membership,
    name: &str,
    out: &BTreeSet<u64>,
    forced: bool,
) -> Result<BTreeSet<u64>, NodeError> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let asked = voters.iter().map(|id| async { answers(core, *id) && answers_now(core, membership, *id).await });
    let asked = join_all(asked).await;
    let live: BTreeSet<u64> = voters.iter().zip(asked).filter(|(_, live)| *live).map(|(id, _)| *id).collect();
    let named = |ids: &BTreeSet<u64>| {
        let name = |id: &u64| membership.get_node(id).map_or_else(|| format!("{id:016x}"), |node| node.name.clone());
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let left = voters.difference(out).count();
    let why = match decide(&voters, &live, out) {
        Verdict::Good => return Ok(BTreeSet::new()),
        Verdict::WithoutTheDead(dead) if forced => return Ok(dead),
        Verdict::WithoutTheDead(dead) => format!(
            "without {name} only {} of the {left} voters that are left answer, which is no quorum: bring back {} first; or \
             force it with the id of the cluster, then {} are taken out too, and have to be wiped before they come back",
            left - dead.len(),
            named(&dead),
            named(&dead),
        ),
        Verdict::NobodyLeft => format!("{name} is the last voter: there would be nobody to lead"),
        Verdict::NoneAnswers => format!(
            "without {name} none of the {left} voters that are left answers: {name} may be the only one with all that was \
             acknowledged; bring another back first; this cannot be forced"
        ),
        Verdict::NoQuorum => format!(
            "only {} of {} voters answer, which is no quorum: no change can be committed, so that nothing can be forced; \
             bring nodes back; if they are lost for good, `calamus cluster recover` makes a new cluster of what is left",
            live.len(),
            voters.len()
        ),
    };
    Err(NodeError::Refused(why))
}

async fn answers_now(core: &Core, membership: &Membership, id: u64) -> bool {
    let node = membership.get_node(&id).expect("a voter is a member");
    removal::answers_at(&core.peers, RaftId(id), node).await
}

/// Whether a voter is this node, or has answered lately.
pub(super) fn answers(core: &Core, id: u64) -> bool {
    let limit = core.config.election_timeout.end * 2;
    id == core.metrics().id || core.progress(id).last_answer.is_some_and(|age| age <= limit)
}
