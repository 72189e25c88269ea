//! How a transaction is sent, and what its end means.

use calamus_client::{Client, Committed, Txn, TxnError};

use super::Told;
use crate::timeline::Ending;

/// Sends a transaction once for all: with all its attempts.
pub(super) async fn send(client: &Client, txn: Txn) -> Result<Committed, Told> {
    client.txn(txn).await.map_err(|error| match error {
        TxnError::NotCommitted(_) => Told::NotDone,
        TxnError::Unknown(_) => Told::Unknown,
    })
}

/// What a timeline says of it.
pub(super) fn ending<T>(result: &Result<T, Told>) -> Ending {
    match result {
        Ok(_) | Err(Told::Done) => Ending::Done,
        Err(Told::NotDone) => Ending::Refused,
        Err(Told::Unknown) => Ending::Unknown,
    }
}
