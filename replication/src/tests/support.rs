//! Engines on real files in temporary directories.

use std::path::Path;
use std::sync::Arc;

use calamus_engine::env::Disk;
use calamus_engine::ids::{ClusterId, DatabaseId, RaftId};
use calamus_engine::{Engine, EngineOptions, NodeIdentity};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xca1a);
pub(crate) const DATABASE: DatabaseId = DatabaseId(0xdb);

/// Small segments and little retention, so that a test's worth of data purges something.
pub(crate) fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.journal.segment_bytes = 256 << 10;
    options.retention_bytes = 0;
    options.space.reserve_bytes = 4 << 20;
    options.space.low_bytes = 1 << 20;
    options.space.high_bytes = 2 << 20;
    options.map_bytes = 1 << 32;
    options
}

pub(crate) fn identity(raft_id: u64, name: &str, address: &str) -> NodeIdentity {
    NodeIdentity {
        cluster_id: CLUSTER,
        raft_id: RaftId(raft_id),
        name: name.to_owned(),
        listen: address.to_owned(),
        advertise: address.to_owned(),
    }
}

pub(crate) fn create(disk: Arc<dyn Disk>, directory: &Path, identity: &NodeIdentity) -> Engine {
    Engine::create(disk, directory, identity, DATABASE, options()).expect("a new directory")
}
