//! `calamus.v1.Cluster`: status and membership.
//!
//! What only the leader can do is sent on to it once, by the node that was asked; a node that gets a call sent on
//! and does not lead refuses, so no call goes round in circles.

use std::time::Duration;

use calamus_proto::v1::cluster_server::Cluster;
use calamus_proto::v1::{
    AddRequest, AddResponse, FreezeRequest, FreezeResponse, Member, NodeStatus, RemoveRequest, RemoveResponse,
    StatusRequest, StatusResponse, TransferRequest, TransferResponse,
};
use calamus_replication::{Node, NodeError};
use tonic::{Request, Response, Status};

use crate::peer::{self, FORWARDED_METADATA, mark_forwarded};
use crate::status::of_node_error;

/// How long another node may take to say how it is: a hung one must not hang the table of all.
const STATUS_LIMIT: Duration = Duration::from_millis(700);

/// The service of one node.
pub struct ClusterService {
    node: Node,
}

/// Runs a call here if this node leads, else on the leader.
macro_rules! on_leader {
    ($self:ident, $request:ident, $call:ident) => {{
        let forwarded = $request.metadata().contains_key(FORWARDED_METADATA);
        let message = $request.into_inner();
        match $self.node.$call(message.clone()).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(NodeError::NotLeader { leader: Some(leader) }) if !forwarded => {
                let mut client = peer::connect(&leader.address, Duration::from_secs(2)).await?;
                client.$call(mark_forwarded(message)).await
            }
            Err(error) => Err(of_node_error(&error)),
        }
    }};
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let node = self.node.status();
        let members = if request.into_inner().all_nodes { self.all(&node).await } else { Vec::new() };
        Ok(Response::new(StatusResponse { node: Some(node), members }))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        on_leader!(self, request, add)
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        on_leader!(self, request, remove)
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        on_leader!(self, request, transfer)
    }

    async fn freeze(&self, request: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        Ok(Response::new(self.node.freeze(request.into_inner().frozen).await))
    }
}

impl ClusterService {
    /// Serves `node`.
    pub fn new(node: Node) -> ClusterService {
        ClusterService { node }
    }

    /// The status of every member, in order of name; this node's own is `own`.
    async fn all(&self, own: &NodeStatus) -> Vec<NodeStatus> {
        let asked = self
            .node
            .members()
            .into_iter()
            .map(|member| async { if member.raft_id == own.raft_id { own.clone() } else { ask(member).await } });
        let mut all = futures::future::join_all(asked).await;
        all.sort_by(|a, b| (&a.name, a.raft_id).cmp(&(&b.name, b.raft_id)));
        all
    }
}

/// What a member says; if it says nothing, or another node answers at its address, it is unreachable.
async fn ask(member: Member) -> NodeStatus {
    let answer = peer::status(&member.address, false, STATUS_LIMIT).await;
    let state = match answer {
        Ok(StatusResponse { node: Some(node), .. }) if node.raft_id == member.raft_id => {
            return NodeStatus { voter: member.voter, ..node };
        }
        Ok(StatusResponse { node: Some(node), .. }) => format!("another node answers there: {}", node.name),
        Ok(_) => "an answer without content".to_owned(),
        Err(error) => error.message().to_owned(),
    };
    NodeStatus {
        name: member.name,
        raft_id: member.raft_id,
        address: member.address,
        voter: member.voter,
        unreachable: true,
        state,
        ..NodeStatus::default()
    }
}
