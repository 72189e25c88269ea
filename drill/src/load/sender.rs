//! How a transaction is sent, and what its end means.
//!
//! Each client has a session: a transaction whose answer is lost is sent again, and runs at most once. So what runs twice all
//! the same is found, and hardly anything ends unknown.

use std::time::Duration;

use calamus_client::{Committed, Session, Txn, TxnError};

use super::Told;
use crate::timeline::Ending;

/// How long a transaction may take, with all its attempts: longer than any fault of a scenario.
const DEADLINE: Duration = Duration::from_secs(40);

/// Sends a transaction once for all: with all its attempts.
pub(super) async fn send(session: &Session, txn: Txn) -> Result<Committed, Told> {
    session.txn(txn.deadline(DEADLINE)).await.map_err(|error| match error {
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
