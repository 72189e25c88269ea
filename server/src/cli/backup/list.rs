//! `calamus backup list`: of a place, or of a node's target, for whoever may not speak with the place himself.

use calamus_engine::backup::ChainError;
use calamus_proto::v1::{ListBackupsRequest, ListBackupsResponse};
use clap::Args;

use super::{CHECK_PLACE, node, open, words};
use crate::backup::describe;
use crate::backup::place::PlaceUrl;
use crate::cli::common::print;
use crate::cli::{Endpoint, Exit, Failure, block_on};

/// Options of `backup list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where the backups are: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL", required_unless_present = "node", conflicts_with = "node")]
    at: Option<PlaceUrl>,
    /// Ask this node, HOST:PORT, for the backups in its target --target.
    #[arg(long, value_name = "HOST:PORT", requires = "target")]
    node: Option<Endpoint>,
    /// The target, by its name in the node's configuration.
    #[arg(long, value_name = "NAME", requires = "node")]
    target: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &ListArgs) -> Result<Exit, Failure> {
    let found = match (&args.at, &args.node, &args.target) {
        (Some(at), ..) => describe::catalog(&open(at)?.list().map_err(|error| unreadable(at, &error))?),
        (None, Some(node), Some(target)) => of_target(node, target)?,
        _ => unreachable!("clap asks for a place, or for a node and its target"),
    };
    let text = if args.json { words::document(&words::list_json(&found)) } else { words::list(&found) };
    print(text, if found.problems.is_empty() { Exit::Done } else { Exit::No })
}

fn of_target(address: &Endpoint, target: &str) -> Result<ListBackupsResponse, Failure> {
    let request = ListBackupsRequest { target: target.to_owned() };
    let found = block_on(async { node::connect(address).await?.list(request).await });
    found.map(tonic::Response::into_inner).map_err(|error| {
        let what = format!("cannot list the backups of {address} in `{target}`");
        Failure::new(what, error.message(), node::NEXT)
    })
}

/// The place cannot be read.
pub fn unreadable(at: &PlaceUrl, error: &ChainError) -> Failure {
    Failure::new(format!("cannot read the backups at {at}"), error, CHECK_PLACE)
}
