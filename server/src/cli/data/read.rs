//! What `get` and `scan` may show.

use calamus_client::{ReadAs, SeenTxn};
use clap::Args;

/// The options of reads.
#[derive(Clone, Debug, Default, Args)]
pub struct ReadArgs {
    /// What the node has applied, without asking the others: may be old. The JSON of `get` says how old.
    #[arg(long)]
    local: bool,
    /// With --local: not older than this transaction, which `put`, `del`, `txn` or an earlier read told. The node waits for it.
    #[arg(long, requires = "local", value_name = "TXN")]
    at_least_txn: Option<u64>,
    /// The timeline that this transaction is of: a number of a time before a restore is refused then.
    #[arg(long, requires = "at_least_txn", value_name = "N")]
    timeline: Option<u64>,
}

impl ReadArgs {
    /// The same for the client.
    pub fn read_as(&self) -> ReadAs {
        if !self.local {
            return ReadAs::linearizable();
        }
        let (txn_id, timeline) = (self.at_least_txn.unwrap_or(0), self.timeline.unwrap_or(0));
        ReadAs::local().at_least(SeenTxn { txn_id, timeline })
    }
}
