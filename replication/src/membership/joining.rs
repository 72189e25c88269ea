//! Nodes that come, and what is known of members.

use std::collections::BTreeMap;

use calamus_engine::ids::{ClusterId, RaftId};
use calamus_proto::v1::AddRequest;

use super::change::{Change, Former, change_alone, ensure_leader};
use super::{aim_from_wire, check_cluster, removal, request};
use crate::core::Core;
use crate::node_error::NodeError;
use crate::types::{Aim, Membership, NodeInfo};

/// Makes a node known: as a learner, to be promoted if that is its aim. The same request again changes nothing.
pub(crate) async fn add(core: &Core, cluster: ClusterId, request: &AddRequest) -> Result<(), NodeError> {
    ensure_leader(core)?;
    request::check(request)?;
    check_cluster(cluster, request)?;
    let aim = aim_from_wire(request.aim)?;
    // Two that come at one moment under one name must not both find it free.
    let _one = core.changing.lock().await;
    let membership = core.membership();
    let membership = membership.membership();
    if let Some(known) = membership.get_node(&request.raft_id) {
        return set_node(core, membership, request, known, aim).await;
    }
    let mut inherited = None;
    for (id, node) in membership.nodes().filter(|(_, node)| node.name == request.name) {
        if !request.replace {
            return Err(NodeError::Refused(format!(
                "{} is a member already, as raft id {id:016x}: choose another name, or say that this node replaces it",
                request.name
            )));
        }
        if removal::answers_at(&core.peers, RaftId(*id), node).await {
            return Err(NodeError::Refused(format!(
                "{} still answers at {}, as raft id {id:016x}: stop it before another node replaces it",
                request.name, node.address
            )));
        }
        inherited = Some(node.aim);
    }
    let info = NodeInfo {
        name: request.name.clone(),
        address: request.address.clone(),
        aim: aim.or(inherited).unwrap_or_default(),
        replaces: None,
    };
    tracing::info!(name = %info.name, raft_id = request.raft_id, address = %info.address, aim = ?info.aim, "a node joins");
    change_alone(core, Change::AddNodes(BTreeMap::from([(request.raft_id, info)])), Former::Leave).await
}

/// For who holds the lock: changes what is known of a member, its address, or what it is to be. A node that tells its new address does not know
/// what it is to be; one that joins and asks once more may have been told otherwise since.
async fn set_node(
    core: &Core,
    membership: &Membership,
    request: &AddRequest,
    known: &NodeInfo,
    aim: Option<Aim>,
) -> Result<(), NodeError> {
    let id = request.raft_id;
    if known.name != request.name {
        return Err(NodeError::Refused(format!("raft id {id:016x} is {} already", known.name)));
    }
    let moved = known.address != request.address;
    let aim = aim.filter(|_| !moved && !request.replace).unwrap_or(known.aim);
    if moved {
        // This node answers at its own address, of which nobody else but itself may know.
        let moved_itself = id == core.peers.this().0 && request.address == *core.own_address;
        if !moved_itself && removal::answers_at(&core.peers, RaftId(id), known).await {
            return Err(NodeError::Refused(format!(
                "{} still answers at {}, as raft id {id:016x}: two nodes of one directory must not run",
                known.name, known.address
            )));
        }
    }
    if aim != Aim::Voter && membership.voter_ids().any(|voter| voter == id) {
        return Err(NodeError::Refused(format!(
            "{} votes already: `calamus cluster observe {}` makes an observer of it",
            known.name, known.name
        )));
    }
    let wanted = NodeInfo { address: request.address.clone(), aim, ..known.clone() };
    if *known == wanted {
        return Ok(());
    }
    change_alone(core, Change::SetNodes(BTreeMap::from([(id, wanted)])), Former::Leave).await
}
