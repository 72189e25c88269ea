//! The wire: messages and services of Calamus, generated from `proto/calamus/`.

/// What clients speak: `Kv`, `Watch`, `Cluster` and `Backup`.
#[allow(clippy::all, clippy::pedantic, missing_docs, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("calamus.v1");
}

impl From<&v1::ReadPoint> for v1::SeenTxn {
    /// The newest transaction that a read has shown.
    fn from(point: &v1::ReadPoint) -> Self {
        Self { txn_id: point.txn_id, timeline: point.timeline }
    }
}

/// What the nodes of a cluster speak among each other.
pub mod raft {
    /// Version 1 of the Raft traffic.
    #[allow(clippy::all, clippy::pedantic, missing_docs, rust_2018_idioms)]
    pub mod v1 {
        tonic::include_proto!("calamus.raft.v1");
    }
}

/// The encoded descriptors of all files, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The name of the binary metadata entry in which an [`v1::ErrorDetail`] travels with an error status.
pub const ERROR_DETAIL_METADATA: &str = "calamus-error-bin";

/// The largest message that nodes and clients send and accept, in bytes: a transaction of 16 MiB, and what wraps it.
pub const MAX_MESSAGE_BYTES: usize = (16 << 20) + (1 << 20);
