//! `calamus del TREE KEY`, `calamus del TREE --prefix P`, `calamus del TREE --from A --to B`

use calamus_client::proto::operation_result::Kind;
use calamus_client::{Client, Committed, Range, Txn};
use clap::Args;
use serde_json::json;

use super::session::{self, SessionArgs};
use super::{DataArgs, bytes};
use crate::cli::{Exit, Failure};

/// A range on the command line.
#[derive(Clone, Debug, Default, Args)]
pub struct RangeArgs {
    /// Keys that begin with this.
    #[arg(long, conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    pub(super) prefix: Option<String>,
    /// Keys from this one.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(super) from: Option<String>,
    /// Keys before this one.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(super) to: Option<String>,
}

impl RangeArgs {
    /// Whether any bound was given.
    pub(super) fn is_given(&self) -> bool {
        self.prefix.is_some() || self.from.is_some() || self.to.is_some()
    }

    pub(super) fn range(&self, hex: bool) -> Result<Range, Failure> {
        let parse = |text: &Option<String>, what| bytes::parse(text.as_deref().unwrap_or(""), hex, what);
        let (start, end) = (parse(&self.from, "--from")?.into(), parse(&self.to, "--to")?.into());
        Ok(Range { start, end, prefix: parse(&self.prefix, "--prefix")?.into() })
    }
}

/// Options of `del`.
#[derive(Clone, Debug, Args)]
pub struct DelArgs {
    /// The tree.
    tree: String,
    /// The key.
    #[arg(required_unless_present_any = ["prefix", "from", "to"], conflicts_with_all = ["prefix", "from", "to"])]
    key: Option<String>,
    #[command(flatten)]
    range: RangeArgs,
    /// Keys are hex digits.
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) async fn run(args: DelArgs) -> Result<Exit, Failure> {
    let txn = match &args.key {
        Some(key) => Txn::new().delete(&args.tree, bytes::parse(key, args.hex, "key")?),
        None => {
            assert!(args.range.is_given(), "clap asks for a key or a bound");
            Txn::new().delete_range(&args.tree, args.range.range(args.hex)?)
        }
    };
    del(&args.data.connect().await?, &args, txn).await
}

pub(super) async fn del(client: &Client, args: &DelArgs, txn: Txn) -> Result<Exit, Failure> {
    session::run(&args.data, &args.session, client, ("del", txn), |done| told(args, done)).await
}

fn told(args: &DelArgs, done: &Committed) -> (String, Exit) {
    let deleted = match done.results.first().and_then(|result| result.kind.as_ref()) {
        Some(Kind::Delete(one)) => u64::from(one.previous_version != 0),
        Some(Kind::DeleteRange(range)) => range.deleted,
        _ => 0,
    };
    let line = if args.data.json() {
        let (attempts, unknown_attempts) = (done.attempts, done.unknown_attempts);
        json!({
            "outcome": "committed", "txn_id": done.txn_id, "deleted": deleted, "attempts": attempts,
            "unknown_attempts": unknown_attempts,
        })
        .to_string()
    } else if deleted == 0 {
        "nothing to delete".to_owned()
    } else {
        format!("{deleted} deleted, committed as txn {}", done.txn_id)
    };
    // A range may well be empty; a key that was named is missed.
    let exit = if deleted == 0 && args.key.is_some() { Exit::No } else { Exit::Done };
    (format!("{line}\n"), exit)
}
