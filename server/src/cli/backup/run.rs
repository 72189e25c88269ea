//! `calamus backup full|incremental|follow|status`: asking a node.
//!
//! The node does the work, in the target that its configuration names. It ends when this process does: what an interrupted
//! full backup has written is gone on with by the next, and one that follows saves what it has read.

use std::time::Duration;

use calamus_proto::v1::backup_event::Event;
use calamus_proto::v1::{
    BackupDone, BackupEvent, BackupRun, BackupStatusRequest, BackupStatusResponse, RunBackupRequest, RunKind,
};
use clap::Args;
use serde_json::{Value, json};
use tonic::{Status, Streaming};

use super::bar::Bar;
use super::{node, words};
use crate::cli::common::{print, stdout_failed, write};
use crate::cli::{Endpoint, Exit, Failure, block_on, table};

/// How long a status may take: the node looks at every target, and a bucket that does not answer is asked again for a while.
const STATUS_LIMIT: Duration = Duration::from_secs(60);

/// Which node, and which of its targets.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node that makes the backup, HOST:PORT. A follower is as good as the leader.
    #[arg(long, value_name = "HOST:PORT")]
    node: Endpoint,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `backup full` and `backup incremental`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The target, by its name in the node's configuration.
    #[arg(long, value_name = "NAME")]
    target: String,
    /// Copy at most so many MiB a second.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    limit_mib_s: Option<u32>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Options of `backup follow`.
#[derive(Debug, Args)]
pub struct FollowArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Archive what is committed at most so many seconds later.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    every: u32,
}

/// Options of `backup status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// `backup full`
pub fn full(args: &RunArgs) -> Result<Exit, Failure> {
    run(args, RunKind::Full, 0)
}

/// `backup incremental`
pub fn incremental(args: &RunArgs) -> Result<Exit, Failure> {
    run(args, RunKind::Incremental, 0)
}

/// `backup follow`
pub fn follow(args: &FollowArgs) -> Result<Exit, Failure> {
    run(&args.run, RunKind::Follow, args.every * 1000)
}

/// `backup status`
pub fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let what = format!("cannot get the backup status of {}", args.node.node);
    let found = block_on(async {
        let mut client = node::connect(&args.node.node).await?;
        let limited = tokio::time::timeout(STATUS_LIMIT, client.status(BackupStatusRequest {})).await;
        limited
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")))
            .map(tonic::Response::into_inner)
    });
    let found = found.map_err(|error| Failure::new(what, error.message(), ""))?;
    print(if args.node.json { words::document(&status_json(&found)) } else { status_text(&found) }, Exit::Done)
}

fn run(args: &RunArgs, kind: RunKind, every_ms: u32) -> Result<Exit, Failure> {
    let what = format!("cannot make a backup of {} in `{}`", args.node.node, args.target);
    let request = RunBackupRequest {
        target: args.target.clone(),
        kind: kind.into(),
        bytes_per_second: args.limit_mib_s.map_or(0, |mib| u64::from(mib) << 20),
        every_ms,
    };
    block_on(async {
        let failed = |error: Status| {
            if args.node.json {
                let _ = write(format!("{}\n", json!({ "error": error.message() })).as_bytes());
            }
            Failure::new(what.clone(), error.message(), node::NEXT)
        };
        let mut client = node::connect(&args.node.node).await.map_err(failed)?;
        let events = client.run(request).await.map_err(failed)?.into_inner();
        show(args, events).await?.map_err(failed)?;
        Ok(Exit::Done)
    })
}

/// Shows events until they end. A failure of the outer kind is one of stdout.
async fn show(args: &RunArgs, mut events: Streaming<BackupEvent>) -> Result<Result<(), Status>, Failure> {
    let bar = Bar::new(!args.node.json);
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event.event,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        match event {
            Some(Event::Progress(at)) => bar.told(&at),
            Some(Event::Done(done)) => say(if args.node.json { done_json(&done) } else { done_text(&done) })?,
            Some(Event::Saved(saved)) if args.node.json => say(format!("{}\n", json!({ "saved_txn": saved.txn_id })))?,
            Some(Event::Saved(saved)) => bar.say(format!("archived up to txn {}", saved.txn_id)),
            Some(Event::Trouble(trouble)) => bar.line(&format!("calamus: trying on: {}", trouble.message)),
            None => {}
        }
    }
}

fn say(text: String) -> Result<(), Failure> {
    write(text.as_bytes()).map_err(|error| stdout_failed(&error).with_exit(Exit::Unknown))
}

fn done_text(done: &BackupDone) -> String {
    let mut text = match &done.backup {
        None => "nothing was committed since the newest backup\n".to_owned(),
        Some(backup) => format!("{}\n", words::line(backup)),
    };
    if !done.full_because.is_empty() {
        text += &format!("it is a full one: {}\n", done.full_because);
    }
    if done.resumed {
        text += "it went on where an interrupted one was\n";
    }
    if !done.begun_anew_because.is_empty() {
        text += &format!("an interrupted one was not gone on with: {}\n", done.begun_anew_because);
    }
    text
}

fn done_value(done: &BackupDone) -> Value {
    let word = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    json!({
        "backup": done.backup.as_ref().map(words::backup_json), "full_because": word(&done.full_because),
        "resumed": done.resumed, "begun_anew_because": word(&done.begun_anew_because),
    })
}

fn done_json(done: &BackupDone) -> String {
    format!("{}\n", done_value(done))
}

fn kind_word(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Full => "full",
        RunKind::Incremental => "incremental",
        RunKind::Follow => "follow",
        RunKind::Unspecified => "unknown",
    }
}

fn status_text(found: &BackupStatusResponse) -> String {
    let mut rows = table::new(&["target", "url", "newest", "kind", "txn", "age", "problems"]);
    for target in &found.targets {
        let newest = target.newest.as_ref();
        rows.add_row([
            target.name.clone(),
            target.url.clone(),
            newest.map_or_else(|| "-".to_owned(), |newest| newest.id.clone()),
            newest.map_or_else(|| "-".to_owned(), |newest| words::kind(newest).to_owned()),
            newest.map_or_else(|| "-".to_owned(), |newest| newest.end_txn.to_string()),
            target.age_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age} s")),
            target.problems.to_string(),
        ]);
    }
    let mut text = format!("backups of {}\n", found.node);
    text += &match found.targets.is_empty() {
        true => "its configuration names no target\n".to_owned(),
        false => format!("{rows}\n"),
    };
    for target in found.targets.iter().filter(|target| !target.error.is_empty()) {
        text += &format!("{} cannot be read: {}\n", target.name, target.error);
    }
    text += &found.running.as_ref().map_or_else(|| "nothing runs\n".to_owned(), running_text);
    if let Some(last) = &found.last {
        let how = if last.error.is_empty() { "done" } else { &last.error };
        let (at, kind) = (words::moment(last.ended_at * 1_000_000), kind_word(last.kind()));
        text += &format!("the last run, {kind} to {}, ended at {at}: {how}\n", last.target);
    }
    text
}

fn running_text(run: &BackupRun) -> String {
    let at = match (&run.saved, &run.progress) {
        (_, Some(at)) => format!("{} of {}", table::bytes(at.done_bytes), table::bytes(at.total_bytes)),
        (Some(saved), None) => format!("archived up to txn {}", saved.txn_id),
        (None, None) => "it begins".to_owned(),
    };
    let trouble = if run.trouble.is_empty() { String::new() } else { format!("; trying on: {}", run.trouble) };
    let since = words::moment(run.since * 1_000_000);
    format!("{} to {} runs since {since}: {at}{trouble}\n", kind_word(run.kind()), run.target)
}

fn status_json(found: &BackupStatusResponse) -> Value {
    let targets = found.targets.iter().map(|target| {
        json!({
            "name": target.name, "url": target.url, "newest": target.newest.as_ref().map(words::backup_json),
            "age_seconds": target.age_seconds, "problems": target.problems,
            "error": Some(&target.error).filter(|error| !error.is_empty()),
        })
    });
    let running = found.running.as_ref().map(|run| {
        json!({
            "target": run.target, "kind": kind_word(run.kind()), "since": words::moment(run.since * 1_000_000),
            "done_bytes": run.progress.as_ref().map(|at| at.done_bytes),
            "total_bytes": run.progress.as_ref().map(|at| at.total_bytes),
            "saved_txn": run.saved.as_ref().map(|saved| saved.txn_id),
            "trouble": Some(&run.trouble).filter(|trouble| !trouble.is_empty()),
        })
    });
    let last = found.last.as_ref().map(|last| {
        json!({
            "target": last.target, "kind": kind_word(last.kind()), "ended_at": words::moment(last.ended_at * 1_000_000),
            "error": Some(&last.error).filter(|error| !error.is_empty()), "done": last.done.as_ref().map(done_value),
        })
    });
    json!({ "node": found.node, "targets": targets.collect::<Vec<_>>(), "running": running, "last": last })
}
