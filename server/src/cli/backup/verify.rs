//! `calamus backup verify`

use std::path::PathBuf;
use std::sync::Arc;

use calamus_engine::backup::{RestoreOptions, VerifyReport};
use calamus_engine::env::{Disk, RealDisk};
use clap::Args;
use serde_json::json;

use super::bar::Bar;
use super::{CHECK_PLACE, open, words};
use crate::backup::place::PlaceUrl;
use crate::cli::common::print;
use crate::cli::{Exit, Failure, table};

/// Options of `backup verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Where the backups are: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    at: PlaceUrl,
    /// Restore the end of each chain as well, and check the whole file there. Needs the room of one restored database.
    #[arg(long)]
    deep: bool,
    /// Where --deep restores to, in a directory of its own that is removed again. By default the temporary directory.
    #[arg(long, requires = "deep", value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let backups = open(&args.at)?;
    let bar = Bar::new(!args.json);
    let failed = |error: calamus_engine::backup::RestoreError| {
        Failure::new(format!("cannot verify the backups at {}", args.at), error, CHECK_PLACE)
    };
    let report = if args.deep {
        let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new().prefix("calamus-verify-").tempdir_in(&parent).map_err(|error| {
            Failure::new(
                format!("cannot make a directory in {}", parent.display()),
                error,
                "name another one with --scratch",
            )
        })?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let directory = scratch.path().join("restored");
        backups.verify_deep(&disk, &directory, &RestoreOptions::default(), &mut |at| bar.show(at)).map_err(failed)?
    } else {
        backups.verify(&mut |at| bar.show(at)).map_err(failed)?
    };
    drop(bar);
    let text = if args.json { json(args, &report) } else { text(args, &report) };
    print(text, if report.is_sound() { Exit::Done } else { Exit::No })
}

fn text(args: &VerifyArgs, report: &VerifyReport) -> String {
    let mut lines: Vec<_> =
        report.problems.iter().map(|problem| format!("PROBLEM {}: {}", problem.object, problem.what)).collect();
    let how = if args.deep { "read, restored and checked" } else { "read" };
    lines.push(format!("{} backups of {} {how}", report.backups, table::bytes(report.stored_bytes)));
    lines.push(if report.is_sound() { "sound" } else { "NOT sound" }.to_owned());
    lines.join("\n") + "\n"
}

fn json(args: &VerifyArgs, report: &VerifyReport) -> String {
    let problems = report.problems.iter();
    let problems = problems.map(|problem| words::problem_json(problem.id.as_str(), &problem.object, &problem.what));
    words::document(&json!({
        "sound": report.is_sound(), "deep": args.deep, "backups": report.backups, "stored_bytes": report.stored_bytes,
        "problems": problems.collect::<Vec<_>>(),
    }))
}
