//! `calamus check DIR`: everything in a stopped node's directory, read and compared with what it should be.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::offline::{DirectoryReport, check_directory};
use calamus_engine::verify::Progress;
use calamus_engine::{Engine, OpenError};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::common::print;
use super::{Exit, Failure};

/// Checks a node's directory while the node is stopped: node.meta, every frame, every page, every tree, the digest.
/// Changes nothing.
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
    // Before anything else: taking the lock of a directory that is not ours would leave a file in it.
    match Engine::exists(&*disk, &args.dir) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::new(
                what,
                "it holds no node.meta",
                "give the directory of a node, for example calamus-dev/n1",
            ));
        }
        Err(error) => return Err(Failure::new(what, error, "check the path, and its permissions")),
    }
    let bar = progress_bar(!args.json);
    let checked = check_directory(&disk, &args.dir, &mut |progress| show_progress(&bar, progress));
    bar.finish_and_clear();
    let report = checked.map_err(|error| {
        let next = match error {
            OpenError::Locked(_) => "stop the node first: a running node changes what would be checked",
            _ => {
                "if the node is part of a cluster, keep a copy of the directory, remove it and let the node join again"
            }
        };
        let exit = if matches!(error, OpenError::Locked(_) | OpenError::Missing(_)) { Exit::Failed } else { Exit::No };
        Failure::new(what, error, next).with_exit(exit)
    })?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&to_json(&report)).expect("a value is always JSON"))
    } else {
        words(&report)
    };
    print(&text, if report.is_clean() { Exit::Done } else { Exit::No })
}

fn progress_bar(wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} pages").expect("the template is well formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

fn show_progress(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Trees(walked) => bar.set_message(format!("walking trees ({walked} done)")),
        Progress::Pages { done, total } => {
            bar.set_message("looking at pages");
            bar.set_length(u64::from(total));
            bar.set_position(u64::from(done));
        }
    }
}

/// What is wrong, a line each.
fn problems(report: &DirectoryReport) -> Vec<String> {
    let mut lines = Vec::new();
    let slots = report.slot_damage.iter();
    lines.extend(
        slots.map(|slot| {
            format!("{}, {} (the other slot has it, and a start mends it)", slot.file.display(), slot.what)
        }),
    );
    lines.extend(report.journal_damage.iter().map(|what| format!("journal: {what}")));
    lines.extend(report.state_damage.iter().map(|what| format!("state: {what}")));
    if let Some(pages) = &report.pages {
        lines.extend(pages.problems.iter().map(|problem| format!("page {}: {}", problem.page, problem.what)));
        if pages.unlisted_problems > 0 {
            lines.push(format!("and {} more problems of pages", pages.unlisted_problems));
        }
    }
    lines
}

fn words(report: &DirectoryReport) -> String {
    let identity = &report.meta.identity;
    let mut lines =
        vec![format!("node {}, raft id {:016x}, cluster {}", identity.name, identity.raft_id.0, identity.cluster_id)];
    let last = report.last_frame.map_or_else(|| "-".to_owned(), |log_id| log_id.to_string());
    lines.push(format!("journal: {} frames, the last is {last}", report.frames));
    if let Some(pages) = &report.pages {
        let at = report.checked_at.map_or_else(|| "-".to_owned(), |log_id| log_id.to_string());
        let txn = pages.superblock.as_ref().map_or(0, |superblock| superblock.txn_id.0);
        lines.push(format!(
            "state at {at}: txn {txn}, {} trees, {} entries, {} pages allocated, {} free, digest {}",
            pages.trees, pages.entries, pages.allocated_pages, pages.free_pages, pages.digest
        ));
    }
    let problems = problems(report);
    lines.extend(problems.iter().map(|line| format!("DAMAGE {line}")));
    lines.push(if problems.is_empty() { "clean" } else { "NOT clean" }.to_owned());
    lines.join("\n") + "\n"
}

fn to_json(report: &DirectoryReport) -> serde_json::Value {
    let identity = &report.meta.identity;
    let log_id =
        |at: Option<calamus_engine::ids::LogId>| at.map(|at| json!({ "term": at.term.0, "index": at.index.0 }));
    json!({
        "clean": report.is_clean(), "problems": problems(report),
        "name": identity.name, "raft_id": format!("{:016x}", identity.raft_id.0),
        "cluster_id": identity.cluster_id.to_string(), "generation": report.meta.generation.0,
        "frames": report.frames, "last_frame": log_id(report.last_frame), "checked_at": log_id(report.checked_at),
        "checkpoint": log_id(report.meta.checkpoint.log_id), "target": log_id(report.meta.target.log_id),
        "state": report.pages.as_ref().map(|pages| json!({
            "txn_id": pages.superblock.as_ref().map(|superblock| superblock.txn_id.0), "trees": pages.trees,
            "entries": pages.entries, "allocated_pages": pages.allocated_pages, "free_pages": pages.free_pages,
            "digest": pages.digest.to_string(),
        })),
    })
}
