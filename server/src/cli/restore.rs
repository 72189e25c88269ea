//! `calamus restore`: a new cluster of one node from a backup.
//!
//! The engine makes the directory; what a server's directory has beside it is little. `home` is written by the first start,
//! as for a directory of an earlier version. `first-start`, which a replaced directory may have, is removed once the new
//! state is in place: it would let the node join a cluster that it does not belong to. A crash between the two leaves
//! a directory that says so when it is started, and can be restored once more.

use std::path::PathBuf;
use std::sync::Arc;

use calamus_engine::backup::{
    BackupId, ChainError, NewNode, RestoreError, RestoreOptions, RestorePoint, RestoreReport, StoreError,
};
use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::ids::TxnId;
use calamus_replication::membership;
use clap::Args;
use serde_json::json;

use super::backup::bar::Bar;
use super::backup::words::{self, moment, parse_moment};
use super::common::print;
use super::{Endpoint, Exit, Failure, backup};
use crate::backup::place::PlaceUrl;
use crate::config::node_name;
use crate::startup::first_start::FirstStart;

/// Restores a backup into a directory, as the first node of a new cluster: `calamus serve --dir DIR` starts it, and others
/// join it. The directory is what it was before until the restored state has been verified. Exit code 4: the backups cannot
/// be relied on.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Where the backups are: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    from: PlaceUrl,
    /// The new node's directory: empty, or not there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Up to this transaction, where the backups have more.
    #[arg(long, value_name = "N", conflicts_with = "to_time")]
    to_txn: Option<u64>,
    /// Up to this moment: what was committed at it or before, by the leaders' clocks. As in 2026-11-26T22:22:54Z.
    #[arg(long, value_name = "RFC3339", value_parser = parse_moment)]
    to_time: Option<u64>,
    /// From this backup and those that it needs, whatever else there is. By default from the newest chain that has the point.
    #[arg(long, value_name = "BACKUP", value_parser = backup_id)]
    backup: Option<BackupId>,
    /// Replace the database that is in the directory, once the restored one has been verified. It cannot be had back.
    #[arg(long)]
    replace: bool,
    /// What to call the new node.
    #[arg(long, default_value = "n1", value_parser = node_name, value_name = "NAME")]
    name: String,
    /// Where it will listen; port 0 takes a free port at the first start and keeps it. `calamus serve --listen` moves it.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: Endpoint,
    /// Where the other nodes and the clients will reach it, if that is not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Endpoint>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn backup_id(text: &str) -> Result<BackupId, String> {
    BackupId::parse(text).ok_or_else(|| {
        "a backup's name is like 20261126t222254.123456z-1a2b3c4d; `calamus backup list` shows them".to_owned()
    })
}

/// Runs it.
pub fn run(args: &RestoreArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let backups = backup::open(&args.from)?;
    let mut options = RestoreOptions::default();
    options.point = match (args.to_txn, args.to_time) {
        (Some(txn_id), _) => RestorePoint::Txn(TxnId(txn_id)),
        (None, Some(micros)) => RestorePoint::Time(micros),
        (None, None) => RestorePoint::End,
    };
    options.upto.clone_from(&args.backup);
    options.replace = args.replace;
    let node = NewNode {
        name: &args.name,
        listen: args.listen.as_str(),
        advertise: args.advertise.as_ref().unwrap_or(&args.listen).as_str(),
        membership: Some(&membership::of_node_alone),
    };
    let bar = Bar::new(!args.json);
    let restored = backups.restore(&disk, &args.to, node, &options, &mut |at| bar.show(at));
    drop(bar);
    let report = restored.map_err(|error| explain(args, &error))?;
    FirstStart::remove(&*disk, &args.to).map_err(|error| {
        let what = format!("{} is restored, and its file `first-start` is still there", args.to.display());
        Failure::new(what, error, "remove that file before the node is started").with_exit(Exit::Unknown)
    })?;
    // It is restored, whether that can be told on stdout or not.
    let text = if args.json { json(args, &report) } else { text(args, &report) };
    print(text, Exit::Done).map_err(|failure| failure.with_exit(Exit::Unknown))
}

fn explain(args: &RestoreArgs, error: &RestoreError) -> Failure {
    let what = format!("cannot restore the backups at {} to {}", args.from, args.to.display());
    let (next, exit) = match error {
        RestoreError::NoBackup | RestoreError::Chain(ChainError::Store(StoreError::NotFound { .. })) => {
            ("check the URL; `calamus backup list --at URL` shows what is there", Exit::Failed)
        }
        RestoreError::Chain(ChainError::Store(_)) => (backup::CHECK_PLACE, Exit::Failed),
        RestoreError::Chain(_) | RestoreError::Differs(_) => (
            "`calamus backup verify --at URL` says what is damaged; --backup names an earlier one to end with",
            Exit::No,
        ),
        RestoreError::Point(_) => ("`calamus backup list --at URL` shows what there is", Exit::Failed),
        RestoreError::NotEmpty { .. } => ("name an empty directory, or say --replace", Exit::Failed),
        RestoreError::Locked(_) => ("stop the node that runs there first", Exit::Failed),
        _ => ("look at the disk and the space of the directory; it is what it was before", Exit::Failed),
    };
    Failure::new(what, error, next).with_exit(exit)
}

fn text(args: &RestoreArgs, report: &RestoreReport) -> String {
    let identity = &report.identity;
    let at = report.restored.log_id().map_or_else(|| "-".to_owned(), |at| at.to_string());
    format!(
        "restored {} backups: txn {} at {at}, of {}, digest {:032x}\nnode {}, cluster {}, timeline {} (forked from {})\n\
         start it: calamus serve --dir {}\n",
        report.backups.len(),
        report.restored.txn_id,
        moment(report.restored.wall_time_micros),
        report.restored.digest,
        identity.name,
        identity.cluster_id,
        report.timeline,
        report.forked_from,
        args.to.display()
    )
}

fn json(args: &RestoreArgs, report: &RestoreReport) -> String {
    let (identity, restored) = (&report.identity, &report.restored);
    words::document(&json!({
        "directory": args.to.display().to_string(), "name": identity.name, "cluster_id": identity.cluster_id.to_string(),
        "raft_id": format!("{:016x}", identity.raft_id.0), "timeline": report.timeline.0,
        "forked_from": report.forked_from.0, "backups": report.backups.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "txn_id": restored.txn_id, "time": moment(restored.wall_time_micros), "digest": format!("{:032x}", restored.digest),
        "log_id": restored.log_id().map(|at| json!({ "term": at.term.0, "index": at.index.0 })),
    }))
}
