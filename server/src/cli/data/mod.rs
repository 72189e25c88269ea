//! The commands that read and write data, through the client crate.
//!
//! Contract: keys and values are bytes. On the command line they are text, or hex digits with `--hex`. `get` prints a value's
//! bytes as they are; in lines (`scan`) what is not printable is escaped; in JSON a byte string is `"key": "text"` if it is
//! UTF-8 and `"key_hex": "..."` if it is not (or with `--hex`), and input takes both.

pub(super) mod bytes;
mod del;
mod get;
mod load;
mod put;
mod read;
mod scan;
mod session;
mod txn;
mod txn_json;

#[cfg(test)]
mod data_test;
#[cfg(test)]
mod fake_test;
#[cfg(test)]
mod session_test;

use std::time::Duration;

use calamus_client::{Client, Options, Outcome, ReadError, ReadFrom, TxnError};
use clap::{Args, Subcommand};
use serde_json::json;

use super::common::write;
use super::{ClientArgs, Exit, Failure, block_on};

/// One variant a command; each command's options and code are in the file of its name.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print the value of one key, byte for byte.
    Get(get::GetArgs),
    /// Write one value.
    Put(put::PutArgs),
    /// Delete one key, or a range of keys.
    Del(del::DelArgs),
    /// Print a range of keys and values in order.
    Scan(scan::ScanArgs),
    /// Run a transaction described in JSON.
    #[command(after_long_help = txn_json::HELP)]
    Txn(txn::TxnArgs),
    /// Load documents from a file of JSON lines.
    Load(load::LoadArgs),
    /// End a session that --session has begun.
    Session(session::close::SessionCommandArgs),
}

/// The options of every data command.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// How long the command may take, in seconds, with all its attempts.
    #[arg(long, default_value_t = 15.0, value_parser = seconds, value_name = "SECONDS")]
    timeout: f64,
    /// Keep the last known addresses of the cluster in this file, and find the cluster by it.
    #[arg(long, env = "CALAMUS_TOPOLOGY", value_name = "FILE")]
    topology: Option<std::path::PathBuf>,
}

/// A length of time that makes sense to wait.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(seconds),
        _ => Err("a number of seconds above 0 and at most 1000000".to_owned()),
    }
}

impl DataArgs {
    fn json(&self) -> bool {
        self.client.json
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }

    /// Finds the cluster. Reads go to the addresses named, in that order: who names one node wants its answer.
    async fn connect(&self) -> Result<Client, Failure> {
        let (deadline, topology_file) = (self.timeout(), self.topology.clone());
        let options = Options { deadline, topology_file, read_from: ReadFrom::Endpoints, ..Options::default() };
        let endpoints = self.client.endpoints.iter().map(|endpoint| endpoint.as_str());
        Client::connect(endpoints, options).await.map_err(|error| {
            let next = "start a node (`calamus dev`), or name one that runs with --endpoints HOST:PORT";
            Failure::new("the cluster is not reachable", error, next)
        })
    }

    /// A read that failed.
    fn read_failed(&self, what: &str, error: &ReadError) -> Failure {
        self.client.tell(&json!({ "error": error.0.reason, "message": error.0.message }));
        let failure = Failure::new(format!("{what} failed"), error, next_step(&error.0.reason));
        if error.0.reason == "no_such_tree" { failure.with_exit(Exit::No) } else { failure }
    }

    /// A transaction that is not known to be committed.
    fn txn_failed(&self, what: &str, error: &TxnError) -> Failure {
        let unknown = error.outcome() == Outcome::Unknown;
        let word = if unknown { "unknown" } else { "not_committed" };
        let failure = error.failure();
        let attempts = failure.attempts;
        let (error, message) = (&failure.reason, &failure.message);
        self.client.tell(&json!({ "outcome": word, "error": error, "message": message, "attempts": attempts }));
        if unknown {
            let next = "it may have been committed: read before you try again";
            return Failure::new(format!("{what}: the outcome is unknown"), failure, next).with_exit(Exit::Unknown);
        }
        Failure::new(format!("{what}: not committed, nothing was changed"), failure, next_step(&failure.reason))
    }
}

fn next_step(reason: &str) -> &'static str {
    match reason {
        "no_such_tree" => "`calamus put` makes a tree with its first value",
        "unreachable" | "connection_lost" | "timeout" | "no_leader" => {
            "look at `calamus cluster status`; more nodes to ask are named with --endpoints A,B,C"
        }
        _ => "",
    }
}

/// Tells of a transaction: it is committed, whether that can be told on stdout or not.
fn print_done(text: &str, txn_id: u64, exit: Exit) -> Result<Exit, Failure> {
    write(text.as_bytes()).map(|()| exit).map_err(|error| {
        let what = match txn_id {
            0 => "done, nothing had to be changed; but the answer cannot be written to stdout".to_owned(),
            txn_id => format!("committed as txn {txn_id}; but the answer cannot be written to stdout"),
        };
        Failure::new(what, error, "do not run it again only because of this").with_exit(Exit::Unknown)
    })
}

/// Runs one of them.
///
/// # Errors
/// With the exit code to end with.
pub fn run(command: DataCommand) -> Result<Exit, Failure> {
    block_on(async {
        match command {
            DataCommand::Get(args) => get::run(args).await,
            DataCommand::Put(args) => put::run(args).await,
            DataCommand::Del(args) => del::run(args).await,
            DataCommand::Scan(args) => scan::run(args).await,
            DataCommand::Txn(args) => txn::run(args).await,
            DataCommand::Load(args) => load::run(args).await,
            DataCommand::Session(args) => session::close::run(args).await,
        }
    })
}
