//! `calamus journal DIR`: what a node's journal holds. Its segments and its end; with `--frames` the frames, one a line;
//! with `--operations` what their transactions did.
//!
//! The hash covers the whole frame, so two nodes that hold the same frame print the same hash for it. Positions are
//! those of this node: segments are recycled by each node at its own time.

mod frames;
mod overview;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::error::StorageError;
use calamus_engine::journal::{Survey, survey};
use clap::Args;

use super::common::{stdout_failed, unless_gone};
use super::{Exit, Failure};

/// Shows a node's journal: segments and end, or its frames, or their operations. Reads on behind damage. Exit code 4:
/// frames are damaged.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// The directory of a node. It is only read; the node may be running.
    dir: PathBuf,
    /// Leave out frames below this log index.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    from: u64,
    /// List the frames: log id, kind, position, length, transactions, and a hash that is equal on all nodes.
    #[arg(long, conflicts_with = "operations")]
    frames: bool,
    /// List the frames, and under each what its transactions did.
    #[arg(long)]
    operations: bool,
    /// Print JSON: one document a journal; with --frames or --operations one a line and frame.
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
    let mut exit = Exit::Done;
    for journal in journals {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut written = if args.json { Ok(()) } else { writeln!(out, "{}", journal.display()) };
        if args.frames || args.operations {
            let lines = frames::Lines { operations: args.operations, json: args.json };
            written = written.and_then(|()| lines.head(&mut out));
            let found = survey(&disk, &journal, &mut |frame, position, _| {
                if frame.log_id().index.0 >= args.from && written.is_ok() {
                    written = lines.frame(&mut out, frame, position);
                }
            });
            let found = found.map_err(|error| cannot(&error))?;
            unless_gone(written.and_then(|()| out.flush())).map_err(|error| stdout_failed(&error))?;
            for damage in &found.damage {
                eprintln!("calamus: {}", damage.error());
            }
            exit = worse(exit, &found);
        } else {
            let found = survey(&disk, &journal, &mut |_, _, _| {}).map_err(|error| cannot(&error))?;
            written = written.and_then(|()| overview::write(&mut out, &journal, &found, args.json));
            unless_gone(written.and_then(|()| out.flush())).map_err(|error| stdout_failed(&error))?;
            exit = worse(exit, &found);
        }
    }
    Ok(exit)
}

fn worse(exit: Exit, found: &Survey) -> Exit {
    if found.damage.is_empty() { exit } else { Exit::No }
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
