//! `calamus journal DIR`: the frames of a node's journal, one a line.
//!
//! The hash covers the whole frame, so two nodes that hold the same frame print the same hash for it. Positions are
//! those of this node: segments are recycled by each node at its own time.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::error::StorageError;
use calamus_engine::journal::frame::FrameKind;
use calamus_engine::journal::{FrameInfo, inspect};
use clap::Args;
use serde_json::json;

use super::{Exit, Failure};

/// Lists the frames of a node's journal: log id, kind, position, length, and a hash that is equal on all nodes.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// The directory of a node. It is only read; the node may be running.
    dir: PathBuf,
    /// Leave out frames below this log index.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    from: u64,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &JournalArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let what = format!("cannot list the journal of {}", args.dir.display());
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(&what, why, "give the directory of a node, the one with node.meta in it")
    };
    let journals = find(&*disk, &args.dir).map_err(|error| cannot(&error))?;
    if journals.is_empty() {
        return Err(cannot(&"it holds no journal"));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut exit = Exit::Done;
    for journal in journals {
        let frames = inspect(disk.clone(), &journal).map_err(|error| cannot(&error))?;
        match print(&mut out, args, frames) {
            Ok(None) => {}
            Ok(Some(damage)) => {
                eprintln!("calamus: {damage}");
                exit = Exit::No;
            }
            // The reader of a pipe has seen enough.
            Err(_) => return Ok(exit),
        }
    }
    Ok(exit)
}

/// The journals of all generations in a node's directory: one, but for the moment of a switch.
fn find(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    for name in disk.list_dir(dir)? {
        let generation = name.strip_prefix('g').is_some_and(|rest| rest.parse::<u64>().is_ok());
        let journal = dir.join(&name).join("journal");
        if generation && disk.exists(&journal)? {
            found.push(journal);
        }
    }
    Ok(found)
}

/// Prints the frames; returns the damage at which the list ends, if it ends so.
fn print(
    out: &mut impl Write,
    args: &JournalArgs,
    frames: impl Iterator<Item = Result<FrameInfo, StorageError>>,
) -> std::io::Result<Option<StorageError>> {
    if !args.json {
        writeln!(
            out,
            "{:>16} {:<10} {:>14} {:>10} {:>12}  {:<16}",
            "LOG ID", "KIND", "POSITION", "BYTES", "COMMITTED", "HASH"
        )?;
    }
    for frame in frames {
        let frame = match frame {
            Ok(frame) => frame,
            Err(damage) => {
                out.flush()?;
                return Ok(Some(damage));
            }
        };
        if frame.log_id.index.0 < args.from {
            continue;
        }
        let (kind, hash) = (kind_word(frame.kind), format!("{:016x}", frame.hash));
        if args.json {
            let line = json!({ "term": frame.log_id.term.0, "index": frame.log_id.index.0, "kind": kind,
                "position": frame.position.0, "bytes": frame.bytes, "committed": frame.commit.map(|index| index.0), "hash": hash });
            writeln!(out, "{line}")?;
        } else {
            let committed = frame.commit.map_or_else(|| "-".to_owned(), |index| index.to_string());
            let log_id = frame.log_id.to_string();
            writeln!(
                out,
                "{log_id:>16} {kind:<10} {:>14} {:>10} {committed:>12}  {hash}",
                frame.position.0, frame.bytes
            )?;
        }
    }
    out.flush()?;
    Ok(None)
}

fn kind_word(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Blank => "blank",
        FrameKind::Membership => "membership",
        FrameKind::Record => "record",
    }
}
