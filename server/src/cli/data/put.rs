//! `calamus put TREE KEY VALUE`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use calamus_client::{Client, Txn};
use calamus_proto::MAX_MESSAGE_BYTES;
use clap::Args;
use serde_json::json;

use super::session::{self, SessionArgs};
use super::{DataArgs, bytes};
use crate::cli::{Exit, Failure};

/// Options of `put`.
#[derive(Clone, Debug, Args)]
pub struct PutArgs {
    /// The tree. It is made if it is not there.
    tree: String,
    /// The key.
    key: String,
    /// The value; `-` reads it from stdin, byte for byte.
    #[arg(required_unless_present = "value_file", conflicts_with = "value_file", allow_hyphen_values = true)]
    value: Option<String>,
    /// Take the value from this file, byte for byte.
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// KEY and VALUE are hex digits.
    #[arg(long)]
    hex: bool,
    /// Refuse if the tree is not there.
    #[arg(long)]
    tree_must_exist: bool,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) async fn run(args: PutArgs) -> Result<Exit, Failure> {
    let key = bytes::parse(&args.key, args.hex, "key")?;
    let value = match (&args.value_file, args.value.as_deref()) {
        (Some(path), _) => read_file(path)?,
        (None, Some("-")) => read_all(&mut io::stdin().lock(), "stdin")?,
        (None, text) => bytes::parse(text.expect("required by clap"), args.hex, "value")?,
    };
    put(&args.data.connect().await?, &args, key, value).await
}

pub(super) async fn put(client: &Client, args: &PutArgs, key: Vec<u8>, value: Vec<u8>) -> Result<Exit, Failure> {
    let txn = if args.tree_must_exist {
        Txn::new().put_existing_tree(&args.tree, key, value)
    } else {
        Txn::new().put(&args.tree, key, value)
    };
    session::run(&args.data, &args.session, client, ("put", txn), |done| {
        let line = if args.data.json() {
            let (attempts, unknown_attempts) = (done.attempts, done.unknown_attempts);
            json!({
                "outcome": "committed", "txn_id": done.txn_id, "attempts": attempts, "unknown_attempts": unknown_attempts,
            })
            .to_string()
        } else {
            format!("committed as txn {}", done.txn_id)
        };
        (format!("{line}\n"), Exit::Done)
    })
    .await
}

/// A whole file, if it can be a value at all.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|e| Failure::new(format!("cannot open {name}"), e, "check the path"))?;
    read_all(&mut file, &name)
}

/// All bytes of a source, as long as they could be a value or a transaction.
pub(super) fn read_all(source: &mut impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = MAX_MESSAGE_BYTES as u64;
    let read = source.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::new(format!("cannot read {name}"), e, ""))?;
    if bytes.len() as u64 > most {
        let next = "a transaction takes at most 16 MiB, a value 8 MiB; split it";
        return Err(Failure::new(format!("{name} is too large"), format!("it has more than {most} bytes"), next));
    }
    Ok(bytes)
}
