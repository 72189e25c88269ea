//! The journal: one sequence of frames on disk, which is the Raft log.
//!
//! Order and durability promised here (the siblings keep it):
//! - frames stand in log order; a frame's chain value covers the whole history before it;
//! - `append` only queues: the frames can be read at once, from memory until they are written;
//! - what waits is written as one group, by one positioned write and one sync, and callbacks run in queue order, after
//!   the sync;
//! - a cut (`cut_after`) is durable before its callback runs, and no byte of what it cut ever comes back;
//! - segments below the purge point are recycled, never anything above it.

pub mod frame;
