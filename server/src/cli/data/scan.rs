//! `calamus scan TREE`

use std::io::{self, BufWriter, Write};

use calamus_client::{Client, Entry, Range, ScanOptions};
use clap::Args;
use futures::StreamExt;
use serde_json::{Map, Value};

use super::del::RangeArgs;
use super::read::ReadArgs;
use super::{DataArgs, bytes};
use crate::cli::common::{stdout_failed, unless_gone};
use crate::cli::{Exit, Failure};

/// Options of `scan`.
#[derive(Clone, Debug, Args)]
pub struct ScanArgs {
    /// The tree.
    tree: String,
    #[command(flatten)]
    range: RangeArgs,
    /// The most entries; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    limit: u64,
    /// From the last key to the first.
    #[arg(long)]
    reverse: bool,
    /// Print keys only.
    #[arg(long)]
    keys: bool,
    /// Keys and values are hex digits.
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) async fn run(args: ScanArgs) -> Result<Exit, Failure> {
    let range = args.range.range(args.hex)?;
    let client = args.data.connect().await?;
    // A lock is held across awaits: this is the only task that prints.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    scan(&client, &args, range, &mut out).await?;
    unless_gone(out.flush()).map_err(|e| stdout_failed(&e))?;
    Ok(Exit::Done)
}

pub(super) async fn scan(client: &Client, args: &ScanArgs, range: Range, out: &mut impl Write) -> Result<u64, Failure> {
    let ScanArgs { limit, reverse, keys: keys_only, .. } = *args;
    let options = ScanOptions { range, limit, reverse, keys_only, read: args.read.read_as() };
    let failed = |error| args.data.read_failed("scan", &error);
    let mut entries = client.scan(&args.tree, options).await.map_err(failed)?;
    let mut count = 0;
    while let Some(entry) = entries.next().await {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // What came before it is shown; it is not all.
                unless_gone(out.flush()).map_err(|e| stdout_failed(&e))?;
                return Err(failed(error));
            }
        };
        match out.write_all(line(args, &entry).as_bytes()) {
            Ok(()) => {}
            // Nobody reads on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(count),
            Err(error) => return Err(stdout_failed(&error)),
        }
        count += 1;
    }
    Ok(count)
}

fn line(args: &ScanArgs, entry: &Entry) -> String {
    if args.data.json() {
        let mut object = Map::new();
        bytes::set_json(&mut object, "key", &entry.key, args.hex);
        if !args.keys {
            bytes::set_json(&mut object, "value", &entry.value, args.hex);
        }
        object.insert("version".to_owned(), entry.version.into());
        return format!("{}\n", Value::Object(object));
    }
    let show = if args.hex { bytes::to_hex } else { bytes::escape };
    match args.keys {
        true => format!("{}\n", show(&entry.key)),
        false => format!("{}\t{}\n", show(&entry.key), show(&entry.value)),
    }
}
