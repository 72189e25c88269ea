//! `calamus check DIR`: everything in a stopped node's directory, read and compared with what it should be.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::error::StorageError;
use calamus_engine::ids::LogId;
use calamus_engine::offline::{DirectoryReport, Finding, check_directory};
use calamus_engine::verify::Progress;
use calamus_engine::{Engine, OpenError};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::common::print;
use super::{Exit, Failure};

/// Checks a node's directory while the node is stopped: node.meta, vote, every frame, every page, every tree, the digest.
/// Goes on past what it finds, and changes nothing. Exit code 0: sound; 4: damage was found; 1: it cannot be checked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The directory of a node.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let what = format!("cannot check {}", args.dir.display());
    must_be_a_node(&*disk, &args.dir, &what)?;
    let bar = progress_bar(!args.json);
    let checked = check_directory(&disk, &args.dir, &mut |progress| show_progress(&bar, progress));
    bar.finish_and_clear();
    let report = checked.map_err(|error| Failure::new(what, &error, next_for(&error)))?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&to_json(&report)).expect("a value is always JSON"))
    } else {
        words(&report)
    };
    print(&text, if report.is_clean() { Exit::Done } else { Exit::No })
}

/// Refuses what is no node's directory. Before anything else: taking the lock of a directory that is not ours would leave
/// a file in it.
///
/// # Errors
/// With `what` could not be done.
pub fn must_be_a_node(disk: &dyn Disk, dir: &Path, what: &str) -> Result<(), Failure> {
    let there: Result<bool, StorageError> = Engine::exists(disk, dir);
    match there {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(Failure::new(what, "it holds no node.meta", "give the directory of a node, for example calamus-dev/n1"))
        }
        Err(error) => Err(Failure::new(what, error, "check the path, and its permissions")),
    }
}

/// What to do when a directory could not be looked at.
pub fn next_for(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked(_) => "stop the node first: a running node changes what would be looked at",
        _ => "check the path, the permissions and the disk",
    }
}

/// A bar on stderr, if somebody is there to see it.
pub fn progress_bar(wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} pages").expect("the template is well formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

fn show_progress(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Frames(read) => bar.set_message(format!("reading the journal ({read} frames)")),
        Progress::Trees(walked) => bar.set_message(format!("walking trees ({walked} done)")),
        Progress::Pages { done, total } => {
            bar.set_message("looking at pages");
            bar.set_length(u64::from(total));
            bar.set_position(u64::from(done));
        }
        _ => {}
    }
}

fn log_id(at: Option<LogId>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

fn words(report: &DirectoryReport) -> String {
    let mut lines = Vec::new();
    if let Some(meta) = &report.meta {
        let identity = &meta.identity;
        let (name, raft_id) = (&identity.name, identity.raft_id.0);
        lines.push(format!("node {name}, raft id {raft_id:016x}, cluster {}", identity.cluster_id));
    }
    if let Some(journal) = &report.journal {
        lines.push(format!("journal: {} frames, the last is {}", journal.frames, log_id(journal.last)));
    }
    if let Some(pages) = &report.pages {
        let txn = pages.superblock.as_ref().map_or(0, |superblock| superblock.txn_id.0);
        lines.push(format!(
            "state at {}: txn {txn}, {} trees, {} entries, {} pages allocated, {} free, digest {}",
            log_id(report.checked_at),
            pages.trees,
            pages.entries,
            pages.allocated_pages,
            pages.free_pages,
            pages.digest
        ));
    }
    lines.extend(report.findings.iter().map(|finding| format!("DAMAGE {finding}")));
    if report.unlisted > 0 {
        lines.push(format!("DAMAGE and {} more of pages", report.unlisted));
    }
    let mut told = Vec::new();
    for kind in report.findings.iter().map(|finding| finding.kind) {
        if !told.contains(&kind) {
            told.push(kind);
            let word = kind.word().replace('_', " ");
            lines.push(format!("{word}: {}\n  next: {}", kind.consequence(), kind.next()));
        }
    }
    lines.push(if report.is_clean() { "clean" } else { "NOT clean" }.to_owned());
    lines.join("\n") + "\n"
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({
        "kind": finding.kind.word(), "file": finding.file.display().to_string(), "offset": finding.offset,
        "page": finding.page.map(|page| page.0), "what": finding.what, "consequence": finding.kind.consequence(),
        "next": finding.kind.next(),
    })
}

fn to_json(report: &DirectoryReport) -> serde_json::Value {
    let log_id = |at: Option<LogId>| at.map(|at| json!({ "term": at.term.0, "index": at.index.0 }));
    let identity = report.meta.as_ref().map(|meta| &meta.identity);
    let findings: Vec<_> = report.findings.iter().map(finding_json).collect();
    json!({
        "clean": report.is_clean(), "findings": findings, "unlisted_findings": report.unlisted,
        "name": identity.map(|identity| identity.name.as_str()),
        "raft_id": identity.map(|identity| format!("{:016x}", identity.raft_id.0)),
        "cluster_id": identity.map(|identity| identity.cluster_id.to_string()),
        "generation": report.generation.map(|generation| generation.0),
        "frames": report.journal.as_ref().map(|journal| journal.frames),
        "last_frame": log_id(report.last_frame()), "checked_at": log_id(report.checked_at),
        "checkpoint": report.meta.as_ref().map(|meta| log_id(meta.checkpoint.log_id)),
        "target": report.meta.as_ref().map(|meta| log_id(meta.target.log_id)),
        "vote": report.vote.map(|vote| json!({ "term": vote.term.0, "committed": vote.committed })),
        "state": report.pages.as_ref().map(|pages| json!({
            "txn_id": pages.superblock.as_ref().map(|superblock| superblock.txn_id.0), "trees": pages.trees,
            "entries": pages.entries, "allocated_pages": pages.allocated_pages, "free_pages": pages.free_pages,
            "digest": pages.digest.to_string(),
        })),
    })
}
