//! `calamus serve`: one node.

use std::io::IsTerminal;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Exit, Failure};
use crate::config::NodeConfig;
use crate::disk::Door;

/// Runs one node until SIGTERM or SIGINT (hands leadership over, checkpoints, exits 0); SIGUSR1 ends it without
/// handing over.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: NodeConfig,
}

/// Runs it.
pub fn run(args: &ServeArgs, door: Door) -> Result<Exit, Failure> {
    let filter = EnvFilter::try_new(&args.config.log).map_err(|error| {
        Failure::new(
            format!("--log `{}` is not a filter", args.config.log),
            error,
            "examples: `info`, `debug`, `warn,calamus_replication=debug`",
        )
        .with_exit(Exit::Usage)
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    crate::serve::run(&args.config, door)?;
    Ok(Exit::Done)
}
