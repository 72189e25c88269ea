//! What openraft is told our types are.
//!
//! The rules behind them:
//! - NodeId is the raft id of a directory. It is random and never used again, so an empty log can never speak under an
//!   id whose votes and acknowledgements somebody still counts.
//! - There is one leader per term (the standard leader id). A log id is therefore (term, index), exactly as it stands
//!   in a frame's header, and a term names one proposer.
//! - An entry carries its frame once it has one. A leader's own new entry has none until the log store seals it (only
//!   then are its log id, the chain value before it and the commit index known); entries read from the journal or
//!   received from a leader always have one, and those bytes are written as they are.

use std::fmt;

use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use openraft::entry::{EntryPayload, RaftEntry};
use openraft::impls::{BoxedErrorSource, InlineBatch, TokioRuntime, leader_id_std};
use openraft::raft::ClientWriteResult;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

use crate::membership::codec::{self, MembershipError};

/// openraft's log id: a term and an index.
pub type RaftLogId = openraft::LogId<CommittedLeaderId>;
/// openraft's vote.
pub type RaftVote = openraft::impls::Vote<LeaderId>;
/// A term and who stands in it.
pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
/// A term whose leader is known to be elected.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// A membership.
pub type Membership = openraft::Membership<u64, NodeInfo>;
/// A membership and the log id of the entry that holds it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, NodeInfo>;
/// What a snapshot stands for.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, NodeInfo>;
/// The payload of an entry.
pub type EntryBody = EntryPayload<Proposal, u64, NodeInfo>;

/// The type configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type AsyncRuntime = TokioRuntime;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type D = Proposal;
    type Entry = Entry;
    type ErrorSource = BoxedErrorSource;
    type LeaderId = LeaderId;
    type Node = NodeInfo;
    type NodeId = u64;
    type Payload = EntryBody;
    type R = Outcome;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Term = u64;
    type Vote = RaftVote;
}

/// What a member is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aim {
    /// A voter as soon as it has caught up, by itself.
    #[default]
    Voter,
    /// A learner until it is promoted.
    Learner,
    /// One that never votes.
    Observer,
}

/// What the cluster knows of a node besides its raft id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// What the operator calls it. Two raft ids have the same name only while one replaces the other.
    pub name: String,
    /// Where the others reach it, `host:port`.
    pub address: String,
    /// What it is to be. Who votes, and will go on to, has the aim to.
    pub aim: Aim,
    /// The raft id of the member that is taken out in the change that makes a voter of this one.
    pub replaces: Option<u64>,
}

/// A record on its way into the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Payload);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record of {} bytes", self.0.bytes().len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A blank or a membership: no page changed.
    NoPages,
    /// A record whose pages are applied.
    Applied,
    /// A record that did not build on the applied transaction: void on every node alike.
    Void,
}

/// A Raft entry.
#[derive(Clone)]
pub struct Entry {
    /// Its place.
    pub log_id: RaftLogId,
    /// What openraft must see of it.
    pub body: EntryBody,
    /// Its bytes, once they are fixed.
    pub frame: Option<Frame>,
}

impl Entry {
    /// An entry from its frame.
    ///
    /// # Errors
    /// When the payload of a membership frame is not a membership.
    pub fn from_frame(frame: Frame) -> Result<Self, MembershipError> {
        let body = match frame.kind() {
            FrameKind::Blank => EntryBody::Blank,
            FrameKind::Membership => EntryBody::Membership(codec::decode(frame.payload().bytes())?),
            FrameKind::Record => EntryBody::Normal(Proposal(frame.payload().clone())),
        };
        Ok(Self { log_id: crate::network::convert::to_raft_log_id(frame.log_id()), body, frame: Some(frame) })
    }

    /// Kind and payload of the frame that this entry becomes.
    #[must_use]
    pub fn frame_parts(&self) -> (FrameKind, Payload) {
        match &self.body {
            EntryBody::Blank => (FrameKind::Blank, Payload::new(bytes::Bytes::new())),
            EntryBody::Membership(membership) => (FrameKind::Membership, Payload::new(codec::encode(membership))),
            EntryBody::Normal(proposal) => (FrameKind::Record, proposal.0.clone()),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log_id, self.body)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = EntryBody;

    fn new(log_id: RaftLogId, payload: EntryBody) -> Self {
        Self { log_id, body: payload, frame: None }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (self.log_id.committed_leader_id(), self.log_id.index())
    }

    fn set_log_id(&mut self, new: RaftLogId) {
        assert!(self.frame.is_none(), "the log id of a sealed frame never changes");
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.body {
            EntryBody::Membership(membership) => Some(membership.clone()),
            EntryBody::Blank | EntryBody::Normal(_) => None,
        }
    }
}

/// Runs a closure with the result of a proposal, where openraft has it: no task stands between it and the merger.
/// Dropped without a call when the core stops; whoever waits behind it must take that as *unknown*.
pub struct Responder<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Responder<T> {
    /// A responder that runs `f`, which must not block.
    pub fn new(f: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(f))
    }
}

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Responder<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The result of a proposal as openraft gives it.
pub type WriteResult = ClientWriteResult<TypeConfig>;
