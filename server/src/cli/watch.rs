//! `calamus watch TREE`

mod lines;
mod saved;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use calamus_client::{Client, Options, Position, ReadFrom, WatchError, WatchEvent, WatchFrom, WatchOptions};
use clap::Args;

use super::common::stdout_failed;
use super::data::bytes;
use super::{ClientArgs, Exit, Failure, block_on};

/// Print committed changes of a tree as they come.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The tree, by name.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tree: Option<String>,
    /// All trees.
    #[arg(long)]
    all: bool,
    /// With --all, also the system's trees ($...).
    #[arg(long, requires = "all")]
    system: bool,
    /// Only keys that begin with this.
    #[arg(long, allow_hyphen_values = true)]
    prefix: Option<String>,
    /// What follows this txn id. Without a start: what is committed from now on.
    #[arg(long, value_name = "N", conflicts_with = "from_oldest")]
    from_txn: Option<u64>,
    /// Everything that the node's journal still holds.
    #[arg(long)]
    from_oldest: bool,
    /// Keep the position in this file: where the watch begins, and after each printed transaction. Go on there when the file is there.
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
    /// End after so many transactions.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Keys and values, and the prefix, are hex digits.
    #[arg(long)]
    hex: bool,
    /// How long nodes may be unreachable, in seconds, before the command gives up.
    #[arg(long, default_value_t = 60.0, value_parser = super::data::seconds, value_name = "SECONDS")]
    timeout: f64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// With the exit code to end with.
pub fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    block_on(watch(args))
}

async fn watch(args: &WatchArgs) -> Result<Exit, Failure> {
    let saved = args.position.as_deref().map(saved::load).transpose()?.flatten();
    let from = match (saved, args.from_txn) {
        (Some(position), _) => WatchFrom::After(position),
        (None, Some(txn_id)) => WatchFrom::After(Position::after_txn(txn_id)),
        (None, None) if args.from_oldest => WatchFrom::Oldest,
        (None, None) => WatchFrom::Now,
    };
    let prefix = bytes::parse(args.prefix.as_deref().unwrap_or(""), args.hex, "--prefix")?;
    let options = WatchOptions {
        from,
        range: calamus_client::range::prefix(prefix),
        keys_only: args.keys_only,
        include_system: args.system,
        ..WatchOptions::default()
    };
    let client = connect(args).await?;
    let mut watch = client.watch(args.tree.clone().unwrap_or_default(), options);
    let mut saved = None;
    let mut left = args.count;
    while left != Some(0) {
        if let WatchEvent::Txn(txn) = watch.next_event().await.map_err(|error| failed(&error))? {
            let text = match args.client.json {
                true => lines::json(&txn, args.hex),
                false => lines::text(&txn, args.hex, args.keys_only),
            };
            match print(&text) {
                Ok(()) => {}
                // Nobody reads on. What was not read is not saved.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
                Err(error) => return Err(stdout_failed(&error)),
            }
            left = left.map(|left| left - 1);
        }
        // Also where the watch begins, before anything comes, and what was passed over since: else a run that is ended before
        // its first line would begin anew at a later place.
        if let (Some(path), Some(position)) = (&args.position, watch.position())
            && saved.as_ref() != Some(position)
        {
            saved::save(path, position)?;
            saved = Some(position.clone());
        }
    }
    Ok(Exit::Done)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

async fn connect(args: &WatchArgs) -> Result<Client, Failure> {
    let deadline = Duration::from_secs_f64(args.timeout);
    let options = Options { deadline, read_from: ReadFrom::Endpoints, ..Options::default() };
    let endpoints = args.client.endpoints.iter().map(|endpoint| endpoint.as_str());
    Client::connect(endpoints, options).await.map_err(|error| {
        let next = "start a node (`calamus dev`), or name one that runs with --endpoints HOST:PORT";
        Failure::new("the cluster is not reachable", error, next)
    })
}

fn failed(error: &WatchError) -> Failure {
    let (exit, next) = match error {
        WatchError::NotHeld { .. } => {
            (Exit::No, "scan the tree, and watch with --from-txn from its read point; or --from-oldest")
        }
        WatchError::OtherTimeline { .. } => (Exit::No, "the database was restored: see docs/operations/watch.md"),
        WatchError::Unavailable(_) => {
            (Exit::Failed, "look at `calamus cluster status`; run it again with --position to go on")
        }
        _ => (Exit::Failed, ""),
    };
    Failure::new("the watch ended", error, next).with_exit(exit)
}
