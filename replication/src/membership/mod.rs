//! Who belongs to the cluster, and how that changes.
//!
//! ```text
//! change      one change at a time, and what is known of it afterwards
//! joining     nodes that come
//! promotion   learners that become voters; a node in the place of another
//! leaving     nodes that go, and voters that stop to vote
//! quorum      whether they may, by who answers
//! removal     whether a node is there, and what one that was taken out is told
//! request     whether a request names a node in a way that can stand in a membership
//! codec       a membership as bytes
//! ```
//!
//! Rules kept here:
//! - A node joins as a learner under the raft id of its directory and becomes a voter by itself once it has caught up,
//!   if that is its aim. It never votes before: its log is part of what a quorum relies on. What a node is to be stands
//!   in the membership; who votes, and will go on to, has the aim to.
//! - A name may stand under two raft ids only while one replaces the other. The change that promotes the new one
//!   removes the old one in the same step, so the quorum never grows by a node that is gone, and the old raft id,
//!   whose log is lost, never counts again. A node of another name that takes a member's place does so in the same way.
//! - A raft id is never given to another log: it is drawn with the directory. Removing a node removes its raft id for
//!   good; the directory must be made anew to join again.
//! - A node is replaced under its name, or moves to another address, only when it does not answer any more under its raft
//!   id. A leader that was moved itself, as the only node of a cluster is, knows where it is. A node of another name may
//!   replace one that lives, if that is said: both can be told apart, and the old one is told.
//! - What would leave fewer live voters than a quorum is refused, or by force goes on without the dead: see `quorum`.
//! - Once openraft has a change, only a refusal that left the membership as it was is *nothing was changed*. The two steps
//!   of a change answer with the same errors; after the first, the change is on its way and the next leader finishes it.
//! - A leader that stopped in the middle of a change left a joint membership; the next leader finishes it. Those whom it
//!   makes voters no more stay members if their aim is another than to vote, else they leave: a change never has both.

mod change;
pub mod codec;
mod joining;
mod leaving;
mod promotion;
mod quorum;
pub(crate) mod removal;
mod request;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use calamus_engine::NodeIdentity;
use calamus_engine::ids::{ClusterId, RaftId};
use calamus_proto::v1::{self as proto, AddRequest, Member};

pub(crate) use self::joining::add;
pub(crate) use self::leaving::{observe, remove};
#[cfg(test)]
pub(crate) use self::promotion::PROMOTION_TICK;
pub(crate) use self::promotion::{promote, promote_learners, replace};
use crate::core::Core;
use crate::node_error::NodeError;
use crate::types::{Aim, Membership, NodeInfo};

/// How far a change is that was agreed on and happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// It has happened.
    pub(crate) done: bool,
    /// How many entries the node lacks that is to vote.
    pub(crate) behind: u64,
}

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
            aim: aim_to_wire(node.aim).into(),
        })
        .collect();
    members.sort_by(|a, b| (&a.name, a.raft_id).cmp(&(&b.name, b.raft_id)));
    members
}

/// An aim as a message has it.
pub(crate) fn aim_to_wire(aim: Aim) -> proto::Aim {
    match aim {
        Aim::Voter => proto::Aim::Voter,
        Aim::Learner => proto::Aim::Learner,
        Aim::Observer => proto::Aim::Observer,
    }
}

/// The aim that a request names; `None` for as it is.
fn aim_from_wire(number: i32) -> Result<Option<Aim>, NodeError> {
    match proto::Aim::try_from(number) {
        Ok(proto::Aim::Unspecified) => Ok(None),
        Ok(proto::Aim::Voter) => Ok(Some(Aim::Voter)),
        Ok(proto::Aim::Learner) => Ok(Some(Aim::Learner)),
        Ok(proto::Aim::Observer) => Ok(Some(Aim::Observer)),
        Err(_) => {
            Err(NodeError::Invalid(format!("there is no aim number {number}: 1 is voter, 2 learner, 3 observer")))
        }
    }
}

/// Refuses a node of another cluster.
fn check_cluster(cluster: ClusterId, request: &AddRequest) -> Result<(), NodeError> {
    if request.cluster_id.is_empty() || request.cluster_id == cluster.to_string() {
        return Ok(());
    }
    Err(NodeError::Refused(format!(
        "this is cluster {cluster}, the node belongs to cluster {}: start it with a new directory",
        request.cluster_id
    )))
}

/// The raft ids of the members of this name: one, or two while one replaces the other.
fn ids_called(membership: &Membership, name: &str) -> Result<BTreeSet<u64>, NodeError> {
    let ids: BTreeSet<u64> = membership.nodes().filter(|(_, node)| node.name == name).map(|(id, _)| *id).collect();
    if !ids.is_empty() {
        return Ok(ids);
    }
    let names: Vec<&str> = membership.nodes().map(|(_, node)| node.name.as_str()).collect();
    Err(NodeError::Refused(format!("no member is called {name:?}; there are {}", names.join(", "))))
}

/// Whether this node is called so, as a member.
pub(crate) fn is_called(core: &Core, name: &str) -> bool {
    let membership = core.membership();
    membership.get_node(&core.peers.this().0).is_some_and(|node| node.name == name)
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
    let info = NodeInfo { name: identity.name.clone(), address: identity.advertise.clone(), ..NodeInfo::default() };
    codec::encode(&of_one(identity.raft_id, info))
}
