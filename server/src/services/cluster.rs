//! `calamus.v1.Cluster`: status and membership.
//!
//! What only the leader can do is sent on to it once, by the node that was asked; a node that gets a call sent on
//! and does not lead refuses, so no call goes round in circles.

use std::time::Duration;

use calamus_proto::ERROR_DETAIL_METADATA;
use calamus_proto::v1::cluster_server::Cluster;
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_proto::v1::{
    AddRequest, AddResponse, ChangeResponse, ErrorDetail, FreezeRequest, FreezeResponse, Member, NodeStatus,
    ObserveRequest, PromoteRequest, Quorum, RemoveRequest, RemoveResponse, ReplaceRequest, SeedFromRequest,
    SeedFromResponse, StatusRequest, StatusResponse, TransferRequest, TransferResponse,
};
use calamus_replication::error::reason;
use calamus_replication::{Node, NodeError};
use tonic::{Code, Request, Response, Status};

use crate::backup::schedule;
use crate::peer::{self, FORWARDED_METADATA, mark_forwarded};
use crate::seeding::{SeedWish, Wishes};
use crate::status::{of_node_error, with_detail};

/// How long another node may take to say how it is: a hung one must not hang the table of all.
const STATUS_LIMIT: Duration = Duration::from_millis(700);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long the leader may take over what was sent on to it: a little more than a change of the membership may take there.
const FORWARD_LIMIT: Duration = Duration::from_secs(15);

/// The service of one node.
pub struct ClusterService {
    node: Node,
    wishes: Wishes,
}

/// Runs a call here if this node leads, else on the leader.
macro_rules! on_leader {
    ($self:ident, $request:ident, $call:ident) => {{
        let forwarded = $request.metadata().contains_key(FORWARDED_METADATA);
        let message = $request.into_inner();
        match $self.node.$call(message.clone()).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(NodeError::NotLeader { leader: Some(leader) }) if !forwarded => {
                let address = $self.node.address_of(&leader.name, &leader.address);
                let connecting = peer::connect(address, CONNECT_LIMIT).await;
                let mut client = connecting.map_err(|error| not_sent_on(&leader.address, &error))?;
                let call = client.$call(mark_forwarded(message));
                match tokio::time::timeout(FORWARD_LIMIT, call).await {
                    Ok(answer) => answer.map_err(|error| sent_on(&leader.address, error)),
                    Err(_) => {
                        let silent = Status::deadline_exceeded(format!("no answer in {} s", FORWARD_LIMIT.as_secs()));
                        Err(sent_on(&leader.address, silent))
                    }
                }
            }
            Err(error) => Err(of_node_error(&error)),
        }
    }};
}

/// The leader cannot be connected to: it was asked nothing.
fn not_sent_on(leader: &str, error: &Status) -> Status {
    let message = format!("the leader at {leader} cannot be reached: {}", error.message());
    with_detail(
        Code::Unavailable,
        ErrorDetail {
            outcome: OutcomeClass::NotCommitted.into(),
            reason: reason::UNREACHABLE.to_owned(),
            message,
            retryable: true,
            leader: String::new(),
        },
    )
}

/// What the leader said of a call that was sent on to it, or that it said nothing: then nobody knows what it did.
fn sent_on(leader: &str, error: Status) -> Status {
    if error.metadata().get_bin(ERROR_DETAIL_METADATA).is_some() {
        return error;
    }
    let message = format!("the leader at {leader} was asked, and its answer was lost: {}", error.message());
    with_detail(
        Code::Unknown,
        ErrorDetail {
            outcome: OutcomeClass::Unknown.into(),
            reason: reason::LEADER_LOST.to_owned(),
            message,
            retryable: false,
            leader: String::new(),
        },
    )
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let node = self.node.status();
        let members = if request.into_inner().all_nodes { self.all(&node).await } else { Vec::new() };
        let backups = schedule::record::all(&self.node).await;
        let quorum = quorum_of(&members);
        Ok(Response::new(StatusResponse { node: Some(node), members, backups, quorum }))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        on_leader!(self, request, add)
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        on_leader!(self, request, remove)
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<ChangeResponse>, Status> {
        on_leader!(self, request, promote)
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ChangeResponse>, Status> {
        on_leader!(self, request, observe)
    }

    async fn replace(&self, request: Request<ReplaceRequest>) -> Result<Response<ChangeResponse>, Status> {
        on_leader!(self, request, replace)
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        on_leader!(self, request, transfer)
    }

    async fn freeze(&self, request: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        Ok(Response::new(self.node.freeze(request.into_inner().frozen).await))
    }

    async fn seed_from(&self, request: Request<SeedFromRequest>) -> Result<Response<SeedFromResponse>, Status> {
        let wish: SeedWish = request.into_inner().from.parse().map_err(Status::invalid_argument)?;
        if let SeedWish::Place(place) = &wish {
            return Err(Status::invalid_argument(format!(
                "{place} is a place: name a target of this node's configuration, as in backup:TARGET; a place is given to \
                 `calamus serve --seed-from`"
            )));
        }
        let (node, wishes) = (self.node.clone(), self.wishes.clone());
        // It writes a file.
        let taken = tokio::task::spawn_blocking(move || wishes.take(&node, &wish)).await;
        taken.map_err(|panic| Status::internal(panic.to_string()))?.map_err(Status::failed_precondition)?;
        Ok(Response::new(SeedFromResponse {}))
    }
}

impl ClusterService {
    /// Serves `node`, whose operator's wishes are kept by `wishes`.
    pub fn new(node: Node, wishes: Wishes) -> ClusterService {
        ClusterService { node, wishes }
    }

    /// The status of every member, in order of name; this node's own is `own`.
    async fn all(&self, own: &NodeStatus) -> Vec<NodeStatus> {
        let asked = self.node.members().into_iter().map(|member| async {
            if member.raft_id == own.raft_id { own.clone() } else { ask(&self.node, member).await }
        });
        let mut all = futures::future::join_all(asked).await;
        all.sort_by(|a, b| (&a.name, a.raft_id).cmp(&(&b.name, b.raft_id)));
        all
    }
}

/// How far the members are from losing their quorum; `None` if they were not asked.
fn quorum_of(members: &[NodeStatus]) -> Option<Quorum> {
    let voters: Vec<_> = members.iter().filter(|node| node.voter).collect();
    let count = |voters: usize| i32::try_from(voters).unwrap_or(i32::MAX);
    let answer = voters.iter().filter(|node| !node.unreachable).count();
    (!voters.is_empty()).then(|| Quorum {
        voters: voters.len() as u32,
        answer: answer as u32,
        tolerates: count(answer) - count(voters.len() / 2 + 1),
    })
}

/// What a member says; if it says nothing, or another node answers at its address, it is unreachable.
async fn ask(node: &Node, member: Member) -> NodeStatus {
    let answer = peer::status(node.address_of(&member.name, &member.address), false, STATUS_LIMIT).await;
    let state = match answer {
        Ok(StatusResponse { node: Some(node), .. }) if node.raft_id == member.raft_id => {
            return NodeStatus { voter: member.voter, aim: member.aim, ..node };
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
        aim: member.aim,
        unreachable: true,
        state,
        ..NodeStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn detail(status: &Status) -> ErrorDetail {
        let bytes = status.metadata().get_bin(ERROR_DETAIL_METADATA).expect("a detail").to_bytes().expect("base64");
        ErrorDetail::decode(bytes).expect("a detail")
    }

    #[test]
    fn the_quorum_is_counted_in_voters_that_answer() {
        let node = |voter, unreachable| NodeStatus { voter, unreachable, ..NodeStatus::default() };
        let tolerates = |nodes: &[NodeStatus]| quorum_of(nodes).map(|quorum| quorum.tolerates);
        let (up, down, observer) = (node(true, false), node(true, true), node(false, false));
        assert_eq!(tolerates(&[]), None);
        assert_eq!(tolerates(&[up.clone(), up.clone(), up.clone(), observer.clone()]), Some(1));
        assert_eq!(tolerates(&[up.clone(), up.clone(), down.clone(), observer]), Some(0));
        assert_eq!(tolerates(&[up.clone(), down.clone(), down]), Some(-1));
        assert_eq!(tolerates(&[up]), Some(0));
    }

    #[test]
    fn what_was_sent_on_without_an_answer_is_unknown_and_what_was_not_sent_is_not_committed() {
        let lost = sent_on("n1:1", Status::unavailable("broken pipe"));
        assert_eq!((detail(&lost).outcome(), detail(&lost).retryable), (OutcomeClass::Unknown, false));
        let unreachable = not_sent_on("n1:1", &Status::unavailable("refused"));
        let said = detail(&unreachable);
        assert_eq!((said.outcome(), said.retryable), (OutcomeClass::NotCommitted, true));
        let refused = of_node_error(&NodeError::Refused("no".to_owned()));
        assert_eq!(detail(&sent_on("n1:1", refused)).reason, reason::REFUSED, "the leader's word stands");
    }
}
