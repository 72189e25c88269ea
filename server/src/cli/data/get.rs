//! `calamus get TREE KEY`

use std::io::IsTerminal;

use calamus_client::Client;
use clap::Args;
use serde_json::{Map, json};

use super::read::ReadArgs;
use super::{DataArgs, bytes};
use crate::cli::common::print;
use crate::cli::{Exit, Failure};

/// Options of `get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// The tree.
    tree: String,
    /// The key.
    key: String,
    /// Keys and values are hex digits.
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) async fn run(args: GetArgs) -> Result<Exit, Failure> {
    let key = bytes::parse(&args.key, args.hex, "key")?;
    get(&args.data.connect().await?, &args, key).await
}

pub(super) async fn get(client: &Client, args: &GetArgs, key: Vec<u8>) -> Result<Exit, Failure> {
    let got = client.get_with(&args.tree, key.clone(), args.read.read_as()).await;
    let got = got.map_err(|error| args.data.read_failed("get", &error))?;
    let found = got.entry.is_some();
    let exit = if found { Exit::Done } else { Exit::No };
    if args.data.json() {
        let mut object = Map::new();
        object.insert("tree".to_owned(), args.tree.as_str().into());
        bytes::set_json(&mut object, "key", &key, args.hex);
        object.insert("found".to_owned(), found.into());
        if let Some(entry) = &got.entry {
            bytes::set_json(&mut object, "value", &entry.value, args.hex);
            object.insert("version".to_owned(), entry.version.into());
        }
        let point = got.read_point.unwrap_or_default();
        let point = json!({ "txn_id": point.txn_id, "timeline": point.timeline, "age_micros": point.age_micros,
            "node": point.node });
        object.insert("read_point".to_owned(), point);
        return print(format!("{}\n", serde_json::Value::Object(object)).as_bytes(), exit);
    }
    let Some(entry) = &got.entry else {
        eprintln!("calamus: tree `{}` has no key `{}`", args.tree, bytes::escape(args.key.as_bytes()));
        return Ok(exit);
    };
    if args.hex {
        return print(format!("{}\n", bytes::to_hex(&entry.value)).as_bytes(), exit);
    }
    let end: &[u8] = if std::io::stdout().is_terminal() { b"\n" } else { b"" };
    print([&entry.value, end].concat(), exit)
}
