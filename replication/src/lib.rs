//! Calamus' replication: the engine's journal as a Raft log.

mod core;
pub mod error;
pub mod execute;
pub mod failover;
pub mod forward;
pub(crate) mod freshness;
mod handover;
pub(crate) mod leadership;
pub(crate) mod log_reader;
pub(crate) mod log_store;
pub mod membership;
pub mod merger;
pub mod network;
pub mod node;
pub mod node_error;
pub mod options;
pub(crate) mod quorum;
pub mod reads;
mod repair;
pub mod replica;
pub mod seam;
pub mod seeding;
pub mod sessions;
pub(crate) mod silence;
pub mod space;
pub(crate) mod state_machine;
pub(crate) mod status;
pub(crate) mod succession;
pub(crate) mod trimming;
pub mod types;
pub(crate) mod vote_saves;
pub(crate) mod watchdog;

pub use node::Node;
pub use node_error::NodeError;
pub use options::NodeConfig;
pub use seam::{LeaderInfo, Leadership};

#[cfg(test)]
mod reads_test;
#[cfg(test)]
mod test_requests;
#[cfg(test)]
mod tests;
