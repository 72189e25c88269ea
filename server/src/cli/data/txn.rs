//! `calamus txn [FILE]`

use std::io;
use std::path::{Path, PathBuf};

use calamus_client::{Client, Txn};
use clap::Args;

use super::put::{read_all, read_file};
use super::session::{self, SessionArgs};
use super::{DataArgs, txn_json};
use crate::cli::{Exit, Failure};

/// Options of `txn`.
#[derive(Clone, Debug, Args)]
pub struct TxnArgs {
    /// The file with the transaction; `-` (or nothing) reads it from stdin.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Print bytes as hex digits.
    #[arg(long)]
    hex: bool,
    /// Running it twice does no harm: send it again after an unknown outcome.
    #[arg(long)]
    idempotent: bool,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) async fn run(args: TxnArgs) -> Result<Exit, Failure> {
    let (name, text) = match args.file == Path::new("-") {
        true => ("stdin".to_owned(), read_all(&mut io::stdin().lock(), "stdin")?),
        false => (args.file.display().to_string(), read_file(&args.file)?),
    };
    let txn = parse(&name, &text)?;
    txn_command(&args.data.connect().await?, &args, txn).await
}

/// The transaction that a text describes.
pub(super) fn parse(name: &str, text: &[u8]) -> Result<Txn, Failure> {
    let malformed = |why: String| {
        let next = "`calamus txn --help` shows the form";
        Failure::new(format!("{name} does not describe a transaction"), why, next).with_exit(Exit::Usage)
    };
    let description: txn_json::Description = serde_json::from_slice(text).map_err(|e| malformed(e.to_string()))?;
    description.into_txn().map_err(malformed)
}

pub(super) async fn txn_command(client: &Client, args: &TxnArgs, txn: Txn) -> Result<Exit, Failure> {
    let txn = if args.idempotent { txn.idempotent() } else { txn };
    session::run(&args.data, &args.session, client, ("txn", txn), |done| {
        let document = txn_json::answer(done, args.hex);
        // Answers nest; so people get JSON too, indented.
        let text = if args.data.json() { document.to_string() } else { format!("{document:#}") };
        (format!("{text}\n"), if done.guards_held { Exit::Done } else { Exit::No })
    })
    .await
}
