//! `calamus salvage DIR TO`: what can still be read of a damaged directory, in a new database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::TreeKind;
use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::offline::{Lost, SalvageError, SalvageReport, salvage};
use calamus_engine::verify::Progress;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::check::{must_be_a_node, next_for, progress_bar};
use super::common::print;
use super::{Exit, Failure, table};

/// Copies what can still be read of a stopped node's directory into a new database that stands alone, and lists what
/// cannot. Only reads DIR. Exit code 0: everything was copied; 4: all but what is listed; 1: nothing.
#[derive(Debug, Args)]
pub struct SalvageArgs {
    /// The directory of a node.
    dir: PathBuf,
    /// Where to make the new database; it must not exist, or be empty.
    to: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &SalvageArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let what = format!("cannot salvage {}", args.dir.display());
    must_be_a_node(&*disk, &args.dir, &what)?;
    let bad_path = |error: std::io::Error| Failure::new(&what, error, "check the paths, and their permissions");
    let (from, to) = (args.dir.canonicalize().map_err(bad_path)?, absolute(&args.to).map_err(bad_path)?);
    let bar = progress_bar(!args.json);
    let made = salvage(&disk, &from, &to, &mut |progress| show_progress(&bar, progress));
    bar.finish_and_clear();
    let report = made.map_err(|error| Failure::new(what, &error, next(&error)))?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&to_json(&report)).expect("a value is always JSON"))
    } else {
        words(&report)
    };
    print(&text, if report.is_complete() { Exit::Done } else { Exit::No })
}

/// The path without links on the way to it, so that it can be seen whether it lies within another.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}

fn next(error: &SalvageError) -> &'static str {
    match error {
        SalvageError::Open(error) => next_for(error),
        SalvageError::NoData => "restore a backup: there is nothing in this directory to copy",
        SalvageError::Write(_) | SalvageError::Storage(_) => {
            "look at the disk and the space of the new directory; nothing of it was left"
        }
        SalvageError::NewIsDamaged(_) => "choose a directory on another disk",
        _ => "choose another directory for the result",
    }
}

fn show_progress(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Frames(_) => bar.set_message("reading the journal"),
        Progress::Trees(copied) => bar.set_message(format!("copying trees ({copied} done)")),
        Progress::Pages { done, total } => {
            bar.set_message("looking for what no tree has");
            bar.set_length(u64::from(total));
            bar.set_position(u64::from(done));
        }
        _ => {}
    }
}

fn words(report: &SalvageReport) -> String {
    let at = report.state_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let mut lines = vec![format!("copied as of {at}, txn {}", report.txn_id)];
    let mut trees = table::new(&["tree", "entries", "values", "bytes"]);
    for (name, tree) in &report.trees {
        let (entries, values) = (tree.entries.to_string(), tree.values.to_string());
        trees.add_row([name.as_str(), &entries, &values, &table::bytes(tree.bytes)]);
    }
    lines.push(trees.to_string());
    if report.is_mixture {
        lines.push("MIXTURE the pages are of more than one state: not all entries were there at the same time".into());
    }
    lines.extend(report.lost.iter().map(lost_words));
    if report.ownerless_value_pages > 0 {
        lines.push(format!("LOST {} pages of long values whose entries are lost", report.ownerless_value_pages));
    }
    lines.push(if report.is_complete() { "everything was copied" } else { "NOT everything was copied" }.to_owned());
    lines.join("\n") + "\n"
}

fn lost_words(lost: &Lost) -> String {
    let mut line = format!("LOST {}", lost.tree.as_deref().unwrap_or("-"));
    let key = |key: &[u8]| format!("\"{}\"", key.escape_ascii());
    line += &lost.key.as_ref().map_or(String::new(), |of| format!(" key {}, values", key(of)));
    match (&lost.from, &lost.to) {
        (Some(from), Some(to)) if from == to => {
            line += &format!(" {}{}", if lost.key.is_some() { "" } else { "key " }, key(from));
        }
        (from, to) => {
            line += &from.as_ref().map_or(String::new(), |from| format!(" from {}", key(from)));
            line += &to.as_ref().map_or(String::new(), |to| format!(" before {}", key(to)));
        }
    }
    if let Some(page) = lost.page {
        line += &format!(" (page {page})");
    }
    line + ": " + &lost.reason
}

fn to_json(report: &SalvageReport) -> Value {
    let hex = |key: &Option<Vec<u8>>| {
        key.as_ref().map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let lost = |lost: &Lost| {
        json!({
            "tree": lost.tree, "key": hex(&lost.key), "from": hex(&lost.from), "to": hex(&lost.to),
            "page": lost.page.map(|page| page.0), "reason": lost.reason,
        })
    };
    let trees = report.trees.iter().map(|(name, tree)| {
        let kind = if tree.kind == TreeKind::Multi { "multi" } else { "plain" };
        json!({ "tree": name, "kind": kind, "entries": tree.entries, "values": tree.values, "bytes": tree.bytes })
    });
    json!({
        "complete": report.is_complete(), "mixture": report.is_mixture, "txn_id": report.txn_id.0,
        "state_at": report.state_at.map(|at| json!({ "term": at.term.0, "index": at.index.0 })),
        "trees": trees.collect::<Vec<_>>(), "lost": report.lost.iter().map(lost).collect::<Vec<_>>(),
        "ownerless_value_pages": report.ownerless_value_pages,
    })
}
