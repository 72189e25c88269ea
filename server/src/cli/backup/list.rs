//! `calamus backup list`

use calamus_engine::backup::ChainError;
use clap::Args;

use super::{CHECK_PLACE, open, words};
use crate::backup::describe;
use crate::backup::place::PlaceUrl;
use crate::cli::common::print;
use crate::cli::{Exit, Failure};

/// Options of `backup list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where the backups are: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    at: PlaceUrl,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &ListArgs) -> Result<Exit, Failure> {
    let catalog = open(&args.at)?.list().map_err(|error| unreadable(&args.at, &error))?;
    let found = describe::catalog(&catalog);
    let text = if args.json { words::document(&words::list_json(&found)) } else { words::list(&found) };
    print(text, if found.problems.is_empty() { Exit::Done } else { Exit::No })
}

/// The place cannot be read.
pub fn unreadable(at: &PlaceUrl, error: &ChainError) -> Failure {
    Failure::new(format!("cannot read the backups at {at}"), error, CHECK_PLACE)
}
