//! What several commands share: where the cluster is, how to print, and a runtime.

use std::future::Future;
use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::failure::{Exit, Failure};

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

impl ClientArgs {
    /// With `--json`, also a failure is a document on stdout.
    pub fn tell(&self, document: &Value) {
        if self.json {
            // What cannot be told here, the exit code and stderr still say.
            let _ = write(format!("{document}\n").as_bytes());
        }
    }
}

/// Writes what was found to stdout; the exit code is then `exit`. A reader that is gone (`| head`) changes nothing about it.
///
/// # Errors
/// When stdout takes it not, for any other reason.
pub fn print(text: impl AsRef<[u8]>, exit: Exit) -> Result<Exit, Failure> {
    write(text.as_ref()).map(|()| exit).map_err(|error| stdout_failed(&error))
}

/// Writes to stdout.
///
/// # Errors
/// When stdout takes it not; not when its reader is gone.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    unless_gone(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Nobody reads any more: that is theirs to decide, and no failure of ours.
///
/// # Errors
/// Any other one.
pub fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// stdout took something not.
pub fn stdout_failed(error: &io::Error) -> Failure {
    Failure::new("cannot write to stdout", error, "check where stdout goes")
}
