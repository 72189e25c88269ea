//! What several commands share: where the cluster is, how to print, and a runtime.

use std::future::Future;

use clap::Args;

use crate::endpoint::Endpoint;

/// Where `calamus dev` listens by default, when those ports are free.
pub const DEFAULT_ENDPOINTS: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";

/// The options of every command that talks to a cluster.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// Addresses of some nodes of the cluster, HOST:PORT, separated by commas; any one that answers is enough.
    #[arg(long, env = "CALAMUS_ENDPOINTS", value_delimiter = ',', default_value = DEFAULT_ENDPOINTS, value_name = "A,B,C")]
    pub endpoints: Vec<Endpoint>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs a command's future on a runtime of its own (two workers: `load` has many clients).
///
/// # Panics
/// If the process cannot start threads.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started")
        .block_on(future)
}
