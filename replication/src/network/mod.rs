//! How the nodes of a cluster speak with each other about the log.
//!
//! Rules kept here:
//! - Two connections per peer. *Control* carries heartbeats, votes, pre-votes, read indexes and hand-overs, *data*
//!   the append stream and seeding: a vote never queues behind megabytes.
//! - Every message says which cluster, who sends and to whom. A mismatch is refused and changes nothing. A log that
//!   was wiped, or a node of another cluster on a re-used address, is found out before the consensus hears of it.
//! - Frames are checked before the consensus has them: header, payload and chain value. What is refused here costs the
//!   peer a retry; what the core would find out later costs this node its life.
//! - Everything in flight is bounded in bytes, and every opening and every answer in time.

pub(crate) mod budget;
pub mod client;
pub(crate) mod commit_notes;
pub mod convert;
pub(crate) mod credit;
pub(crate) mod ends;
pub mod frames;
pub(crate) mod heard;
pub(crate) mod install;
pub(crate) mod introduce;
pub mod peers;
pub mod reach;
pub mod service;
