//! Filling a node that is new or too far behind: pages and frames, live, in bounded memory, from whoever has them.
//!
//! | file | what |
//! | --- | --- |
//! | `source` | a node as the source of another's seeding |
//! | `pace` | how fast a node is a source |
//! | `order` | whom a leader names as sources, and in which order they are asked |
//! | `archive` | backups as a source |
//! | `filling` | what is received: fed, left for another source, verified |
//! | `seat` | the one seeding of this node: that runs, or that waits to go on |
//! | `wire` | pieces of the stream as messages |
//!
//! A snapshot is an instruction. The leader tells the follower to seed itself to at least a log id and names sources
//! (`InstallSnapshot`); the follower asks one after the other (`Seed`) and feeds what comes to the engine, which fills a new
//! generation beside the current one. Nothing of the running generation changes meanwhile, and a crash at any point
//! leaves only a half-filled directory that the engine removes.
//!
//! Only when the source has said *done*, and the new generation is open, replayed and verified page by page, does
//! openraft hear of it, with the meta of what was really received: that is newer than what the leader declared, because
//! frames are streamed until the end. The leader goes on from the older one; the follower skips what it has. From the
//! moment when openraft hears of it, its core does nothing else until the switch is done: no vote is given and no
//! append acknowledged. So nothing that takes long, or can fail for what was received, comes behind it. The switch
//! itself, one slot write, is `state_machine`'s.
//!
//! # From anybody
//!
//! Any node of the cluster can be the source, because all of them have the same pages: a follower spares the leader. What
//! a source sends is applied and durable on it, so committed, whoever leads meanwhile. It waits for `at_least` before it
//! begins: it may not have heard yet that it is committed.
//!
//! # What is cut goes on
//!
//! What was received outlives its source, and the leader whose instruction it was. The next source, or the next
//! instruction, goes on from there: the argument is the engine's ([`calamus_engine::seed`]). A follower that is told to
//! reach further than what it has verified already goes on, too. Only when all sources say that they cannot go on from what was
//! received, or some do in a few instructions in a row and the others are silent, is it dropped, and a seeding begun anew. What
//! nobody asks for any more goes after [`NodeConfig::seed_keep`](crate::options::NodeConfig), for it takes disk space.
//!
//! # Sources that are no good
//!
//! One that hangs, breaks off, or sent a part of what was not right when it was verified is asked last from then on, until
//! the node was seeded: also where the next instruction names it first. So a source with a damaged page, or a disk that
//! hangs under a process that answers, is in nobody's way as long as there is another one.
//!
//! # An instruction is as good as its leader
//!
//! It ends when this node's vote is above the leader's: the leader may be gone without a word. And what came may be of a
//! later term than it: openraft takes that for a broken invariant, so it is not handed over under that leader's vote, and
//! waits for the next one.
//!
//! # The membership
//!
//! openraft must be told it before the switch, and the new generation has it: in the state of the checkpoint that it began
//! with, or in a later frame.

pub mod archive;
pub(crate) mod filling;
pub(crate) mod order;
pub mod pace;
pub(crate) mod seat;
pub(crate) mod source;
mod wire;

use std::time::Duration;

use calamus_engine::ids::LogId;
use calamus_engine::seed::VerifiedSeed;
use tonic::{Code, Status};

use crate::types::SnapshotMeta;

pub use order::SeedFrom;
pub(crate) use wire::{from_wire, resume_to_wire};

/// A generation that is filled and verified, but not switched in.
pub struct Seeded {
    /// The engine's half.
    pub verified: VerifiedSeed,
    /// What it will be once it is switched in.
    pub meta: SnapshotMeta,
    /// How much was received, in bytes.
    pub bytes: u64,
}

/// Why a seeding came to nothing, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SeedingError {
    /// The source broke off, said nonsense or could not be reached.
    #[error("the source failed: {0}")]
    Source(Box<Status>),
    /// The source does not have what was received so far, or what comes behind it.
    #[error("the source cannot go on: {0}")]
    CannotResume(String),
    /// The backups failed as a source.
    #[error("the backups failed: {0}")]
    Archive(String),
    /// This node is being seeded already, perhaps for a leader that gave up waiting.
    #[error("this node is being seeded already; try again")]
    Busy,
    /// No progress for too long.
    #[error("no chunk came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// What came is not usable here.
    #[error("what was received is not usable: {0}")]
    Unusable(String),
    /// The source does not reach what the leader asks for.
    #[error("the source ends at {got:?}, at least {wanted} is needed")]
    TooOld {
        /// Where the source ends.
        got: Option<LogId>,
        /// What the leader asks for.
        wanted: LogId,
    },
    /// The operator wishes another source.
    #[error("it is to come from elsewhere")]
    Rerouted,
    /// Whoever wanted it has gone, or this node ends.
    #[error("nobody waits for it any more")]
    Unwanted,
}

impl From<Status> for SeedingError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::OutOfRange => Self::CannotResume(status.message().to_owned()),
            _ => Self::Source(Box::new(status)),
        }
    }
}
