//! Calamus' replication: the engine's journal as a Raft log.

pub mod error;
pub mod seam;
