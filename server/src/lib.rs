//! The one binary `calamus` and what it is made of.
//!
//! ```text
//! cli/        the command line: one file a command; `cli/data/` are the commands that speak through the client crate
//! dev/        several nodes as child processes on one machine
//! serve       one node as a process: signals, readiness, end
//! moved       telling the cluster where this node is
//! startup/    opening or making a node's directory, its socket, joining a cluster
//! services/   the gRPC services, over `calamus_replication::Node`
//! watch/      committed changes as streams
//! backup/     places for backups, and what a node does about them
//! status      the one place where errors become gRPC codes
//! peer        one-shot calls to the Cluster service of other nodes
//! config      flags and environment of a node
//! settings    its configuration file
//! disk        the disk that a node is opened on; drills and tests may put another one under it
//! planted     what tests put into a node; in builds for tests only
//! ```
//!
//! Direction: `cli` uses everything else and nothing uses `cli`; `serve` uses `startup` and `services`, and `services` uses
//! `backup` and `watch`; `services` and `startup` do not know each other.

pub mod backup;
pub mod cli;
pub mod config;
pub mod dev;
pub mod disk;
pub mod endpoint;
pub mod failure;
pub mod moved;
pub mod parent;
pub mod peer;
pub mod planted;
pub mod seeding;
pub mod serve;
pub mod services;
pub mod settings;
pub mod small_file;
pub mod startup;
pub mod status;
pub mod watch;
