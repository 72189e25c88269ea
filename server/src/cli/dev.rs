//! `calamus dev`: a cluster on this machine.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Failure};
use crate::config::DEFAULT_LOG;
use crate::dev::{DEFAULT_FIRST_PORT, DevOptions};

/// Starts a cluster of child processes on this machine, and shows what happens to it. Ctrl-C ends it; the same command
/// goes on where it was.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes: 3, or as many as DIR has.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9), value_name = "N")]
    nodes: Option<u8>,
    /// Where the nodes keep their directories.
    #[arg(long, default_value = "calamus-dev", value_name = "DIR")]
    dir: PathBuf,
    /// The port of the first node of a new DIR, if it and the next ones are free; 0 takes any free ports.
    #[arg(long, default_value_t = DEFAULT_FIRST_PORT, value_name = "PORT")]
    first_port: u16,
    /// What the nodes log, into DIR/nK.log.
    #[arg(long, env = "CALAMUS_LOG", default_value = DEFAULT_LOG, value_name = "FILTER")]
    log: String,
    /// Print events as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: DevArgs) -> Result<Exit, Failure> {
    let DevArgs { nodes, dir, first_port, log, json } = args;
    crate::dev::run(&DevOptions { nodes, dir, first_port, log, json })?;
    Ok(Exit::Done)
}
