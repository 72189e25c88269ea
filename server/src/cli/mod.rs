//! The command line of `calamus`.
//!
//! Contract: what a command found goes to stdout (a table or text for people, one JSON document or JSON lines with
//! `--json`); progress, logs and errors go to stderr. An error says what happened, why, and what to do next. The exit
//! code is one of [`Exit`].

mod backup;
mod check;
mod cluster;
mod common;
pub mod data;
mod dev;
mod drill;
mod journal;
mod page;
mod restore;
mod salvage;
mod serve;
pub mod table;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::disk::Door;
pub use crate::endpoint::Endpoint;
pub use crate::failure::{Exit, Failure};
pub use common::{ClientArgs, DEFAULT_ENDPOINTS, block_on};

/// Calamus: a replicated transactional key/value database whose storage journal is its Raft log.
#[derive(Debug, Parser)]
#[command(name = "calamus", version, about, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, nothing was changed by it; 2 the command line is malformed; \
3 the outcome is unknown; 4 the answer is no (key not there, guards did not hold, damage found, \
a drill not good, not so yet).";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Dev(dev::DevArgs),
    Drill(Box<drill::DrillArgs>),
    /// One node of a drill: `serve`, on a disk that the drill may break.
    #[command(hide = true)]
    DrillNode(Box<serve::ServeArgs>),
    Cluster(cluster::ClusterArgs),
    Backup(backup::BackupArgs),
    Restore(Box<restore::RestoreArgs>),
    Check(check::CheckArgs),
    Journal(journal::JournalArgs),
    Page(page::PageArgs),
    Salvage(salvage::SalvageArgs),
    Watch(Box<watch::WatchArgs>),
    /// get, put, del, scan, txn, load, session.
    #[command(flatten)]
    Data(data::DataCommand),
}

/// Parses the arguments of the process, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    // clap ends the process itself for `--help` (0) and for a malformed line (2).
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => serve::run(&args, Door::Shut),
        Command::Dev(args) => dev::run(args),
        Command::Drill(args) => drill::run(&args),
        Command::DrillNode(args) => serve::run(&args, Door::Open),
        Command::Cluster(args) => cluster::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Journal(args) => journal::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Salvage(args) => salvage::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Data(command) => data::run(command),
    }
}
