//! Between openraft's types, the engine's and the wire's. The wire is read as whatever bytes came: nothing here
//! panics on them.

use calamus_engine::Vote;
use calamus_engine::ids::{ClusterId, LogId, LogIndex, RaftId, Term};
use calamus_engine::journal::frame::{Frame, FrameError, FrameHeader};
use calamus_proto::raft::v1 as wire;
use openraft::vote::RaftVote as _;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::types::{CommittedLeaderId, LeaderId, RaftLogId, RaftVote};

/// The engine's log id for openraft.
#[must_use]
pub fn to_raft_log_id(log_id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(log_id.term.0), log_id.index.0)
}

/// openraft's log id for the engine.
#[must_use]
pub fn to_log_id(log_id: &RaftLogId) -> LogId {
    LogId { term: Term(log_id.committed_leader_id().term), index: LogIndex(log_id.index()) }
}

/// The engine's vote for openraft.
#[must_use]
pub fn to_raft_vote(vote: Vote) -> RaftVote {
    let node = vote.node.map_or(0, |id| id.0);
    RaftVote::from_leader_id(LeaderId { term: vote.term.0, voted_for: node }, vote.committed)
}

/// openraft's vote for the engine.
#[must_use]
pub fn to_vote(vote: &RaftVote) -> Vote {
    Vote { term: Term(vote.leader_id.term), node: Some(RaftId(vote.leader_id.voted_for)), committed: vote.committed }
}

/// A log id for the wire.
#[must_use]
pub fn log_id_to_wire(log_id: &RaftLogId) -> wire::LogId {
    wire::LogId { term: log_id.committed_leader_id().term, index: log_id.index() }
}

/// A log id from the wire.
#[must_use]
pub fn log_id_from_wire(log_id: wire::LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(log_id.term), log_id.index)
}

/// The engine's log id for the wire.
#[must_use]
pub fn plain_log_id_to_wire(log_id: LogId) -> wire::LogId {
    wire::LogId { term: log_id.term.0, index: log_id.index.0 }
}

/// A log id from the wire for the engine.
#[must_use]
pub fn plain_log_id_from_wire(log_id: wire::LogId) -> LogId {
    LogId::new(log_id.term, log_id.index)
}

/// A vote for the wire.
#[must_use]
pub fn vote_to_wire(vote: &RaftVote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote from the wire; it must be there.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not.
#[allow(clippy::result_large_err)] // a Status is what gRPC answers with
pub fn vote_from_wire(vote: Option<wire::Vote>) -> Result<RaftVote, Status> {
    let vote = vote.ok_or_else(|| Status::invalid_argument("the message has no vote"))?;
    Ok(RaftVote::from_leader_id(LeaderId { term: vote.term, voted_for: vote.node_id }, vote.committed))
}

/// A frame for the wire; the payload is shared, not copied.
#[must_use]
pub fn frame_to_wire(frame: &Frame) -> wire::RawFrame {
    wire::RawFrame { header: bytes::Bytes::copy_from_slice(frame.header()), payload: frame.payload().bytes().clone() }
}

/// A frame from the wire, with all its checksums compared.
///
/// # Errors
/// When it is not one.
pub fn frame_from_wire(raw: wire::RawFrame) -> Result<Frame, FrameError> {
    FrameHeader::parse(&raw.header)?.with_payload(raw.payload)
}

/// Who sends a message, and to whom.
#[must_use]
pub fn envelope(cluster: ClusterId, from: RaftId, to: RaftId) -> wire::Envelope {
    wire::Envelope { cluster_id: bytes::Bytes::copy_from_slice(&cluster.0.to_be_bytes()), from: from.0, to: to.0 }
}

/// Checks that a message is of this cluster and for this node; returns who sends it.
///
/// # Errors
/// `INVALID_ARGUMENT` for no envelope, `FAILED_PRECONDITION` naming both sides for any other mismatch.
#[allow(clippy::result_large_err)]
pub fn check_envelope(envelope: Option<&wire::Envelope>, cluster: ClusterId, this: RaftId) -> Result<RaftId, Status> {
    let envelope = envelope.ok_or_else(|| Status::invalid_argument("the message has no envelope"))?;
    let sent: [u8; 16] =
        envelope.cluster_id.as_ref().try_into().map_err(|_| Status::invalid_argument("a cluster id has 16 bytes"))?;
    let sent = ClusterId(u128::from_be_bytes(sent));
    if sent != cluster {
        return Err(Status::failed_precondition(format!(
            "this node belongs to cluster {cluster}, the sender to cluster {sent}"
        )));
    }
    if envelope.to != this.0 {
        return Err(Status::failed_precondition(format!(
            "the message is for raft id {:016x}, this node is {:016x}: another node has this address now",
            envelope.to, this.0
        )));
    }
    if envelope.from == this.0 {
        return Err(Status::failed_precondition(format!("the sender claims this node's raft id {:016x}", this.0)));
    }
    Ok(RaftId(envelope.from))
}

/// Where a refusal says as of which log id its addressee is not a member any more.
const REMOVED_AS_OF: &str = "calamus-removed-as-of-bin";

/// Says that the addressee is not a member any more, as of the membership at `as_of`.
#[must_use]
pub fn removed_status(text: String, as_of: LogId) -> Status {
    let bytes = plain_log_id_to_wire(as_of).encode_to_vec();
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(REMOVED_AS_OF, MetadataValue::from_bytes(&bytes));
    Status::with_metadata(Code::FailedPrecondition, text, metadata)
}

/// As of which log id a status says that this node is not a member any more.
#[must_use]
pub fn removed_as_of(status: &Status) -> Option<LogId> {
    let bytes = status.metadata().get_bin(REMOVED_AS_OF)?.to_bytes().ok()?;
    wire::LogId::decode(bytes).ok().map(plain_log_id_from_wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    #[test]
    fn only_the_right_cluster_and_addressee_pass() {
        let (me, peer) = (RaftId(1), RaftId(2));
        assert_eq!(check_envelope(Some(&envelope(CLUSTER, peer, me)), CLUSTER, me).expect("right"), peer);
        for wrong in [envelope(ClusterId(8), peer, me), envelope(CLUSTER, peer, RaftId(3)), envelope(CLUSTER, me, me)] {
            let status = check_envelope(Some(&wrong), CLUSTER, me).expect_err("wrong");
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        }
        let mut short = envelope(CLUSTER, peer, me);
        short.cluster_id = bytes::Bytes::from_static(b"short");
        assert_eq!(check_envelope(Some(&short), CLUSTER, me).expect_err("bad").code(), tonic::Code::InvalidArgument);
        assert_eq!(check_envelope(None, CLUSTER, me).expect_err("none").code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn only_a_refusal_of_a_removed_node_says_so() {
        let as_of = LogId::new(3, 17);
        assert_eq!(removed_as_of(&removed_status("gone".to_owned(), as_of)), Some(as_of));
        assert_eq!(removed_as_of(&Status::failed_precondition("gone")), None);
    }

    #[test]
    fn votes_and_log_ids_go_there_and_back() {
        let vote = RaftVote::from_leader_id(LeaderId { term: 9, voted_for: 4 }, true);
        assert_eq!(to_raft_vote(to_vote(&vote)), vote);
        assert_eq!(vote_from_wire(Some(vote_to_wire(&vote))).expect("there"), vote);
        let log_id = LogId::new(3, 17);
        assert_eq!(to_log_id(&to_raft_log_id(log_id)), log_id);
        assert_eq!(log_id_from_wire(log_id_to_wire(&to_raft_log_id(log_id))), to_raft_log_id(log_id));
    }
}
