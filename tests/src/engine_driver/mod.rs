//! Drives engines as a consensus would, beside the plain model of [`crate::oracle`], through power cuts.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`promise`] | what a node has acknowledged, and so what a power cut may leave; recovery held against it |
//! | [`node`] | one engine on a simulated disk: stage, append, cut, apply, checkpoint, power cut |
//! | [`pair`] | a leader and a follower: terms, replication, commits, change of leader, seeding |
//! | [`feed`] | the operations of a record, read as a change feed would |
//! | [`changes`] | random transactions, executed and modelled side by side |
//!
//! The journal runs inline and nothing runs in the background, so a life is a function of its seed.

pub mod changes;
pub mod feed;
pub mod many;
pub mod node;
pub mod pair;
pub mod promise;

use std::fmt::Display;

use calamus_engine::ids::{ClusterId, RaftId};
use calamus_engine::journal::JournalMode;
use calamus_engine::{EngineOptions, NodeIdentity};

/// Why a life ended: a failed call, or a difference from the model. Both are failures, unless the power is gone.
#[derive(Clone, Debug)]
pub struct Stop(pub String);

impl Stop {
    /// Says where it was.
    #[must_use]
    pub fn context(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A difference from the model.
pub fn wrong(what: impl Display) -> Stop {
    Stop(what.to_string())
}

/// A call that failed.
pub fn disk<E: Display>(operation: &str) -> impl FnOnce(E) -> Stop {
    let operation = operation.to_owned();
    move |error| Stop(format!("{operation}: {error}"))
}

/// Options under which a life is deterministic; small, so that segments, bounds and splits are met often.
#[must_use]
pub fn small_options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.journal.segment_bytes = 512 << 10;
    options.journal.max_group_bytes = 128 << 10;
    options.journal.cache_bytes = 64 << 10;
    options.journal.mode = JournalMode::Inline;
    options.retention_bytes = 0;
    options.version_bytes_limit = 16 << 20;
    options.background = false;
    options
}

/// Who a node is.
#[must_use]
pub fn identity(raft_id: u64) -> NodeIdentity {
    NodeIdentity {
        cluster_id: ClusterId(7),
        raft_id: RaftId(raft_id),
        name: format!("n{raft_id}"),
        listen: "127.0.0.1:0".into(),
        advertise: "127.0.0.1:0".into(),
    }
}
