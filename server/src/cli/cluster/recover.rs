//! `calamus cluster recover`: a new cluster from what a lost majority has left, offline.
//!
//! Guided: without `--i-accept-loss` it only reads, and says what there is, what may be missing and what to type. All
//! directories of survivors that can be reached from this machine are given at once; the one that has the most is taken.
//! Those on other machines are looked at there, by the same command, and compared by their last log ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::EngineOptions;
use calamus_engine::backup::{RealSurroundings, RecoverReport, RestoreError, SurvivorReport, examine, recover};
use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::ids::LogId;
use calamus_replication::membership;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::backup::bar::Bar;
use crate::cli::backup::words::moment;
use crate::cli::common::print;
use crate::cli::{Exit, Failure, table};
use crate::startup::first_start::FirstStart;

/// Makes a new cluster of one node from the directory of one whose majority is lost for good. Its node must be stopped. Without
/// --i-accept-loss it only says what there is, and what may be missing.
///
/// Others join the new cluster with new directories. No node of the old one may be started on its old directory again: it would
/// not be let into the new cluster, but enough of them could go on as the old one, beside it.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// The directory of a node that is left. Several times for several: the one with the most is taken.
    #[arg(long, required = true, value_name = "DIR")]
    dir: Vec<PathBuf>,
    /// Do it, by the id of the cluster that is given up: what nodes that are lost have acknowledged, and this directory does not
    /// have, is lost.
    #[arg(long, value_name = "CLUSTER_ID")]
    i_accept_loss: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A directory, and what it holds.
struct Found<'a> {
    directory: &'a Path,
    report: SurvivorReport,
}

/// Runs it.
pub(super) fn run(args: &RecoverArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let mut found = Vec::new();
    for directory in &args.dir {
        let report = examine(&disk, directory).map_err(|error| explain("cannot look at", directory, &error))?;
        found.push(Found { directory, report });
    }
    let chosen = choose(&found)?;
    let cluster = chosen.report.identity.cluster_id.to_string();
    match &args.i_accept_loss {
        None => show(args, &found, chosen),
        Some(typed) if *typed == cluster => go_on(args, &disk, chosen),
        Some(typed) => Err(Failure::new(
            "nothing was done",
            format!("--i-accept-loss says `{typed}`, and {} is of cluster {cluster}", chosen.directory.display()),
            "run it without --i-accept-loss, and read what it says",
        )),
    }
}

/// The directory that has the most; all must be of one cluster.
fn choose<'f>(found: &'f [Found<'_>]) -> Result<&'f Found<'f>, Failure> {
    let first = found.first().expect("the flag is required");
    for other in found {
        let (one, two) = (&first.report.identity, &other.report.identity);
        if one.cluster_id != two.cluster_id {
            return Err(Failure::new(
                "cannot choose between directories of two clusters",
                format!(
                    "{} is of cluster {}, and {} of cluster {}",
                    first.directory.display(),
                    one.cluster_id,
                    other.directory.display(),
                    two.cluster_id
                ),
                "name the directories of one cluster; one that was recovered already is of another than the rest",
            ));
        }
    }
    Ok(found.iter().rev().max_by_key(|found| found.report.rank()).expect("there is one"))
}

fn explain(what: &str, directory: &Path, error: &RestoreError) -> Failure {
    let next = match error {
        RestoreError::Locked(_) => "stop the node that runs there first",
        RestoreError::Differs(_) => "look again without --i-accept-loss; `calamus check DIR` says what is damaged",
        RestoreError::Open(_) => "check the path given to --dir; `calamus check DIR` says what is damaged",
        _ => "look at the disk and the space of the directory; it is what it was before",
    };
    Failure::new(format!("{what} {}", directory.display()), error, next)
}

fn at(log_id: Option<LogId>) -> String {
    log_id.map_or_else(|| "-".to_owned(), |at| format!("{}.{}", at.term, at.index))
}

fn members(report: &SurvivorReport) -> Vec<String> {
    let membership = report.membership.as_ref().and_then(|bytes| membership::codec::decode(bytes).ok());
    membership.map_or_else(Vec::new, |found| {
        membership::members(&found).into_iter().filter(|member| member.voter).map(|member| member.name).collect()
    })
}

/// What would be done, and what it would cost.
fn show(args: &RecoverArgs, found: &[Found<'_>], chosen: &Found<'_>) -> Result<Exit, Failure> {
    let report = &chosen.report;
    let cluster = report.identity.cluster_id;
    if args.json {
        let all = json!({ "cluster_id": cluster.to_string(), "chosen": chosen.directory.display().to_string(),
            "voters": members(report), "directories": found.iter().map(json).collect::<Vec<_>>(), "recovered": Value::Null });
        return print(format!("{all}\n"), Exit::No);
    }
    let mut rows = table::new(&["directory", "node", "last log", "committed", "checkpoint", "txn", "newest txn of"]);
    for Found { directory, report } in found {
        rows.add_row([
            directory.display().to_string(),
            report.identity.name.clone(),
            at(report.last),
            report.committed.map_or_else(|| "-".to_owned(), |index| index.to_string()),
            at(report.checkpointed),
            report.last_txn.to_string(),
            moment(report.wall_time_micros),
        ]);
    }
    let undecided = report.undecided_txns.map_or_else(
        || "All transactions in it are known to be committed.".to_owned(),
        |(first, last)| {
            format!(
                "Transactions {first} to {last} are in it, and not known to be committed: they become so, also where a client \
                 was told that the outcome is unknown."
            )
        },
    );
    let text = format!(
        "cluster {cluster}, voters {}\n{rows}\n\n\
         {} has the most, and would be the new cluster, under another id, on a new timeline.\n\
         What may be missing: every transaction above {} that other nodes have acknowledged without this one, after about {}.\n\
         {undecided}\n\
         Compare with the nodes that are left on other machines: the highest last log id (term first) has the most.\n\
         Nothing was changed. If the others are lost for good, and never will be started on their old directories:\n\n  \
         calamus cluster recover --dir {} --i-accept-loss {cluster}\n",
        members(report).join(", "),
        chosen.directory.display(),
        report.last_txn,
        moment(report.wall_time_micros),
        chosen.directory.display(),
    );
    print(text, Exit::No)
}

fn json(found: &Found<'_>) -> Value {
    let report = &found.report;
    let position = |at: Option<LogId>| at.map(|at| json!({ "term": at.term.0, "index": at.index.0 }));
    json!({
        "directory": found.directory.display().to_string(), "name": report.identity.name,
        "raft_id": format!("{:016x}", report.identity.raft_id.0), "last_log": position(report.last),
        "committed_index": report.committed.map(|index| index.0), "checkpointed": position(report.checkpointed),
        "last_txn": report.last_txn.0, "time": moment(report.wall_time_micros),
        "undecided_txns": report.undecided_txns.map(|(first, last)| json!([first.0, last.0])),
    })
}

fn go_on(args: &RecoverArgs, disk: &Arc<dyn Disk>, chosen: &Found<'_>) -> Result<Exit, Failure> {
    let Found { directory, report } = chosen;
    let bar = Bar::new(!args.json);
    let recovered = recover(
        disk,
        directory,
        report,
        Some(&membership::of_node_alone),
        &EngineOptions::default(),
        &RealSurroundings::default(),
        &mut |at| bar.show(at),
    );
    drop(bar);
    let done = recovered.map_err(|error| explain("cannot make a new cluster of", directory, &error))?;
    FirstStart::remove(&**disk, directory).map_err(|error| {
        let what = format!("{} is a new cluster, and its file `first-start` is still there", directory.display());
        Failure::new(what, error, "remove that file before the node is started").with_exit(Exit::Unknown)
    })?;
    // It is done, whether that can be told on stdout or not.
    let text = if args.json { done_json(chosen, &done) } else { done_text(directory, &done) };
    print(text, Exit::Done).map_err(|failure| failure.with_exit(Exit::Unknown))
}

fn done_json(chosen: &Found<'_>, done: &RecoverReport) -> String {
    let all = json!({
        "chosen": chosen.directory.display().to_string(), "directories": [json(chosen)],
        "recovered": { "name": done.identity.name, "cluster_id": done.identity.cluster_id.to_string(),
            "raft_id": format!("{:016x}", done.identity.raft_id.0), "timeline": done.timeline.0,
            "forked_from": done.forked_from.0, "last_txn": done.before.last_txn.0 },
    });
    format!("{all}\n")
}

fn done_text(directory: &Path, done: &RecoverReport) -> String {
    let identity = &done.identity;
    format!(
        "{} is cluster {} now, with {} alone; timeline {} (forked from {}, behind txn {})\n\
         start it:          calamus serve --dir {}\n\
         let others join:   remove their old directories, then calamus serve --dir DIR --name NAME --listen HOST:PORT --join {}\n",
        directory.display(),
        identity.cluster_id,
        identity.name,
        done.timeline,
        done.forked_from,
        done.before.last_txn,
        directory.display(),
        identity.advertise,
    )
}
