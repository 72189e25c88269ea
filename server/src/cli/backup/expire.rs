//! `calamus backup expire`

use std::time::Duration;

use calamus_engine::backup::{ExpireReport, Keep};
use clap::Args;
use serde_json::json;

use super::list::unreadable;
use super::{open, words};
use crate::backup::place::PlaceUrl;
use crate::cli::common::print;
use crate::cli::{Exit, Failure, table};

/// Options of `backup expire`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("keep").required(true).multiple(true).args(["keep_chains", "keep_days"]))]
pub struct ExpireArgs {
    /// Where the backups are: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    at: PlaceUrl,
    /// Keep the newest N chains. With --keep-days, what either bound does not keep goes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_chains: Option<u32>,
    /// Keep what is needed to restore any moment of the last N days.
    #[arg(long, value_name = "N")]
    keep_days: Option<u32>,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &ExpireArgs) -> Result<Exit, Failure> {
    let mut keep = Keep::default();
    keep.chains = args.keep_chains.map(|chains| chains as usize);
    keep.age = args.keep_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let report = open(&args.at)?.expire(keep, args.dry_run).map_err(|error| unreadable(&args.at, &error))?;
    print(if args.json { json(args, &report) } else { text(args, &report) }, Exit::Done)
}

fn text(args: &ExpireArgs, report: &ExpireReport) -> String {
    let verb = if args.dry_run { "would remove" } else { "removed" };
    let mut text: String = report.removed.iter().map(|id| format!("{verb} {id}\n")).collect();
    text += &format!(
        "{verb} {} backups of {}; {} chains stay\n",
        report.removed.len(),
        table::bytes(report.bytes),
        report.kept.len()
    );
    text
}

fn json(args: &ExpireArgs, report: &ExpireReport) -> String {
    let ids = |ids: &[calamus_engine::backup::BackupId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    words::document(&json!({
        "dry_run": args.dry_run, "removed": ids(&report.removed), "removed_bytes": report.bytes, "kept_chains": ids(&report.kept),
    }))
}
