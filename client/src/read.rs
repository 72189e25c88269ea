//! What a read may show.
//!
//! By default all that was committed before it began. A local read shows what one node has applied, and asks nobody; with a
//! transaction that the reader has seen ([`SeenTxn`]) it waits for the node to have that much: whoever writes through one
//! node and then reads from another does not miss its own writes.
//!
//! ```no_run
//! # use calamus_client::{Client, Options, ReadAs};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let written = client.put("accounts", "anna", "60").await?;
//! let read = client.get_with("accounts", "anna", ReadAs::local().at_least(written.seen())).await?;
//! // Never older than what was read before, either, on whichever node.
//! let seen = read.read_point.map(|point| ReadAs::local().at_least(&point));
//! # let _ = seen;
//! # Ok(())
//! # }
//! ```

use calamus_proto::v1::{Consistency, SeenTxn};

use crate::outcome::Committed;

/// What a read may show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReadAs {
    /// Linearizable by default.
    pub consistency: Consistency,
    /// Not older than this; by default anything will do.
    pub at_least: SeenTxn,
}

impl ReadAs {
    /// All that was committed before the read began.
    #[must_use]
    pub fn linearizable() -> ReadAs {
        ReadAs::default()
    }

    /// What the node that answers has applied.
    #[must_use]
    pub fn local() -> ReadAs {
        ReadAs { consistency: Consistency::Local, ..ReadAs::default() }
    }

    /// Not older than a transaction that the reader knows of. A node that has not applied it within a few seconds refuses, and
    /// is asked again, or another is, until the deadline is over.
    #[must_use]
    pub fn at_least(self, seen: impl Into<SeenTxn>) -> ReadAs {
        ReadAs { at_least: seen.into(), ..self }
    }
}

impl From<Consistency> for ReadAs {
    fn from(consistency: Consistency) -> ReadAs {
        ReadAs { consistency, ..ReadAs::default() }
    }
}

impl Committed {
    /// This transaction, for later reads; nothing if it changed nothing.
    #[must_use]
    pub fn seen(&self) -> SeenTxn {
        SeenTxn { txn_id: self.txn_id, timeline: self.timeline }
    }
}
