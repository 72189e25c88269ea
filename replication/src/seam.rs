//! What the merger, the reads and the forwarding need from the consensus, and nothing else of it.
//!
//! The contract of [`Consensus`], on which no acknowledged write being lost rests:
//! - `propose` appends records in the order of the calls, or refuses single ones of them. Nothing is promised of the
//!   second of two proposals when the first is refused: it may be accepted. Whoever proposes a chain keeps that rule.
//! - `Refused` is said only of what was never appended anywhere and never will be. Everything else that is not
//!   `Applied` is `Unknown`, a dropped sender too.
//! - `Applied` is sent after the engine of this node has applied the entry.
//! - `Leading` is shown only after a read index of that term succeeded and this node's first entry of it is applied,
//!   so that the applied state is the newest that any earlier leader committed.

use std::time::Duration;

use calamus_engine::ids::{LogId, RaftId, Term};
use calamus_engine::journal::frame::Payload;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::space::QuorumSpace;

/// Who leads, as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderInfo {
    /// Its identity in the consensus.
    pub raft_id: RaftId,
    /// What the operator calls it.
    pub name: String,
    /// Where it can be reached, `host:port`.
    pub address: String,
    /// The term that it leads.
    pub term: Term,
}

/// A node's part in the consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It does not lead, or not yet: see [`Leadership::Leading`].
    Following {
        /// The newest term it has seen.
        term: Term,
        /// The leader of that term, if it is known.
        leader: Option<LeaderInfo>,
    },
    /// It leads: a read index of this term succeeded, and its first own entry is applied.
    Leading {
        /// The term that it leads.
        term: Term,
    },
    /// The consensus has stopped on this node and does not start again in this process.
    Stopped {
        /// Why.
        why: String,
    },
}

impl Leadership {
    /// The term that this node leads, if it leads.
    #[must_use]
    pub fn leading(&self) -> Option<Term> {
        match self {
            Self::Leading { term } => Some(*term),
            Self::Following { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The leader, if it is another node and known.
    #[must_use]
    pub fn leader(&self) -> Option<&LeaderInfo> {
        match self {
            Self::Following { leader, .. } => leader.as_ref(),
            Self::Leading { .. } | Self::Stopped { .. } => None,
        }
    }
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// Committed, and applied on this node.
    Applied {
        /// The entry's log id.
        log_id: LogId,
        /// It did not build on the applied transaction, and so changed nothing, on every node alike.
        void: bool,
    },
    /// Never appended, and never will be.
    Refused {
        /// Why.
        why: String,
    },
    /// It may be committed, or may still be.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Why there is no read point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This node does not lead the term that was named.
    #[error("this node does not lead the term")]
    NotLeading {
        /// The leader, if it is another node and known.
        leader: Option<LeaderInfo>,
    },
    /// Nobody is known to lead.
    #[error("no leader is known")]
    NoLeader,
    /// The leader could not be asked.
    #[error("the leader {} ({}) did not answer: {why}", leader.name, leader.address)]
    Unreachable {
        /// Who was asked.
        leader: LeaderInfo,
        /// What happened.
        why: String,
    },
    /// No quorum confirmed the leader, or the log was not applied, in the time given.
    #[error("no quorum confirmed it within {} ms", waited.as_millis())]
    Timeout {
        /// How long was waited.
        waited: Duration,
    },
    /// The consensus has stopped on this node.
    #[error("the consensus has stopped on this node: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// The consensus as the merger, the reads and the forwarding see it.
pub trait Consensus: Send + Sync + 'static {
    /// Queues a record in call order, for exactly this term. Only queues, never waits, and may be called from a
    /// thread outside the runtime: the merger bounds what is in flight, in bytes and in number. A dropped sender
    /// means [`Proposed::Unknown`].
    fn propose(&self, term: Term, payload: Payload) -> oneshot::Receiver<Proposed>;

    /// One quorum round begun after the call: the log id that must be applied before a read is served. With a term,
    /// only by this node as the leader of it. With `None`, by whoever leads: a follower asks the leader.
    fn read_index(&self, term: Option<Term>) -> BoxFuture<'static, Result<Option<LogId>, ReadIndexError>>;

    /// Waits until this node has applied the entry. `None` is there at once.
    fn wait_applied(&self, log_id: Option<LogId>) -> BoxFuture<'static, Result<(), ReadIndexError>>;

    /// This node's part in the consensus, as it changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Which transactions the disks of a quorum take now: this node's too, as far as it is known without a look.
    fn quorum_space(&self) -> QuorumSpace;
}
