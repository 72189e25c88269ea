//! `calamus backup`: looking after backups in a place, which needs no node, and making them, which one does.
//!
//! | file | what |
//! | --- | --- |
//! | `list`, `verify`, `expire` | what needs no node |
//! | `run`, `node` | asking a node for a backup |
//! | `bar`, `words` | progress, tables and JSON that these and `calamus restore` share |
//!
//! Exit codes are those of `calamus check`: 4 when something is there and cannot be relied on.

pub mod bar;
mod expire;
mod list;
mod node;
mod run;
mod verify;
pub mod words;

use calamus_engine::backup::{BackupOptions, Backups};
use clap::{Args, Subcommand};

use super::{Exit, Failure};
use crate::backup::place::PlaceUrl;

/// Makes backups and looks after them. `calamus restore` makes a new cluster from one.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Makes a full backup of a running node: pages, and the frames that belong to them. Goes on with one that was interrupted.
    Full(run::RunArgs),
    /// Archives what was committed since the newest backup. Where no increment can follow it, makes a full one and says why.
    Incremental(run::RunArgs),
    /// Archives what is committed as it is committed, until it is interrupted; makes full backups where they are due.
    Follow(run::FollowArgs),
    /// Shows what a node does about backups: what runs, how the last run ended, how old the newest backup of each target is.
    Status(run::StatusArgs),
    /// Shows the backups in a place. Reads manifests only. Exit code 4: something there cannot be relied on.
    List(list::ListArgs),
    /// Reads every byte of the backups in a place. Exit code 0: sound; 4: something cannot be relied on; 1: it cannot be read.
    Verify(verify::VerifyArgs),
    /// Removes backups that are not to be kept: whole chains, oldest first, never the newest.
    Expire(expire::ExpireArgs),
}

/// Runs one of them.
pub fn run(args: BackupArgs) -> Result<Exit, Failure> {
    match args.command {
        BackupCommand::Full(args) => run::full(&args),
        BackupCommand::Incremental(args) => run::incremental(&args),
        BackupCommand::Follow(args) => run::follow(&args),
        BackupCommand::Status(args) => run::status(&args),
        BackupCommand::List(args) => list::run(&args),
        BackupCommand::Verify(args) => verify::run(&args),
        BackupCommand::Expire(args) => expire::run(&args),
    }
}

/// The backups in a place.
///
/// # Errors
/// When the environment does not say how to reach it.
pub fn open(place: &PlaceUrl) -> Result<Backups, Failure> {
    Ok(Backups::new(place.open()?, BackupOptions::default()))
}

/// What to do about a place that cannot be read.
pub const CHECK_PLACE: &str =
    "check the URL, the permissions there, and for a bucket the AWS_ variables in the environment";
