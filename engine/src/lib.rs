//! Calamus' storage engine: B+trees over memory-mapped pages, many versions of a page at a time, and one sequential
//! journal, which can be the log of a consensus. It knows nothing of Raft, tokio or gRPC, and is a database alone.
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`ids`], [`error`] | the words, and what the disk can do to us |
//! | [`env`] | the one door to the disk: the real one, one that forgets what was not synced, a simulated one |
//! | [`page`] | a page, its checksum, the digest, the superblock |
//! | [`btree`] | trees over pages, wherever those come from |
//! | [`alloc`] | which pages are free |
//! | [`journal`] | frames on disk, in order |
//! | [`slots`] | a small value in two alternating slots |
//! | [`versions`] | which content of a page a reader sees |
//! | [`store`] | one generation: data file, versions, journal; applied and staged |
//! | [`txn`] | batches that write, snapshots that read, records |
//! | [`checkpoint`] | copying applied pages into the data file; `node.meta` |
//! | [`recovery`] | from what a crash left to a state that may be served |
//! | [`seed`] | a whole database as a stream |
//! | [`engine`] | a directory, open: what a consensus drives |
//! | [`offline`] | a directory that no node has open, checked without a change |
//! | [`database`] | the engine alone, as an embedded database |
//! | [`verify`] | the whole-file check |
//!
//! Dependencies go from the bottom of that table to the top.
//!
//! To use it alone, start at [`Database`].
//!
//! # The write path
//!
//! 1. [`Engine::begin_batch`] opens a [`Batch`] on the newest staged state; transactions run in it, one after the other.
//! 2. [`Batch::seal`] makes a record of the changed pages and stages their versions.
//! 3. The record becomes a [`Frame`](journal::frame::Frame) as soon as its log id is known, and
//!    [`Engine::append`] queues it: one write and one sync for all that wait.
//! 4. When the frame is committed (for a database alone: when it is durable), [`Engine::apply`] publishes the staged
//!    versions, or, on a follower, puts the frame's page bytes in place.
//! 5. The checkpointer copies applied versions into the data file, in the background.

pub mod alloc;
pub mod btree;
pub mod checkpoint;
pub mod database;
pub mod engine;
pub mod env;
pub mod error;
pub mod ids;
pub mod journal;
pub mod offline;
pub mod page;
mod raw;
pub mod recovery;
pub mod seed;
pub mod slots;
#[cfg(test)]
mod slots_test;
pub mod store;
pub mod txn;
pub mod verify;
#[cfg(test)]
mod verify_test;
pub mod versions;

pub use checkpoint::meta::NodeIdentity;
pub use database::{Database, WriteError};
pub use engine::{CheckpointReport, Engine, EngineOptions, EngineStatus, LogState, OpenError, RecoveryReport, Vote};
pub use store::{Applied, AppliedState, ApplyError, BatchId, Published, StagedState};
pub use txn::{Batch, BatchError, DropProgress, ReadTxn, Reserved, Staged, TreeView};
