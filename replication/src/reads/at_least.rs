//! Reading one's own writes from any node: a local read that is not older than a transaction which the reader knows of.
//!
//! The reader names a txn id, from the answer to its commit or from the read point of an earlier read, and the timeline
//! that it is of. Txn ids are consecutive within a timeline, so a snapshot whose txn id is not below it holds it. The node
//! waits until it has applied that much.
//!
//! | what the reader names, and the node has | decision |
//! | --- | --- |
//! | nothing | any snapshot will do |
//! | not applied yet | wait; when the time is over: `behind`, to be asked again or elsewhere |
//! | applied, of this timeline, or of one that the reader does not know | read |
//! | applied, of another timeline | `other_timeline`: the number means another transaction here |
//! | above what a linearizable read shows | `no_such_txn`: nobody was ever given it here |
//!
//! A timeline is compared only once the number is reached: a node that is new has no data yet, and is of the timeline
//! that all begin with until it is filled.

use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::LogId;
use calamus_proto::v1::{ReadPoint, SeenTxn};
use tokio::sync::watch;

use crate::error::{TxnError, reason};

/// Waits until the engine, which tells `applied` what it has applied, has applied `seen`.
///
/// # Errors
/// When it has not within `patience`.
pub(crate) async fn wait(
    engine: &Engine,
    mut applied: watch::Receiver<Option<LogId>>,
    seen: SeenTxn,
    patience: Duration,
) -> Result<(), TxnError> {
    let reached = || engine.applied().txn_id.0 >= seen.txn_id;
    let wait = applied.wait_for(|_| reached());
    if matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(_))) {
        return Ok(());
    }
    let (txn_id, timeline) = (engine.applied().txn_id.0, engine.timeline().0);
    if other_timeline(seen, timeline) && txn_id > 0 {
        return Err(refuse_timeline(seen, timeline));
    }
    Err(TxnError::not_committed(
        reason::BEHIND,
        format!(
            "this node has applied txn {txn_id}, and not yet txn {} that the read asks for, within {} ms; read again, or \
             from another node",
            seen.txn_id,
            patience.as_millis()
        ),
    ))
}

/// Whether a snapshot is what the reader asked for.
///
/// # Errors
/// When the transaction is not one of this database.
pub(crate) fn check(seen: SeenTxn, point: &ReadPoint) -> Result<(), TxnError> {
    if other_timeline(seen, point.timeline) {
        return Err(refuse_timeline(seen, point.timeline));
    }
    if seen.txn_id <= point.txn_id {
        return Ok(());
    }
    Err(TxnError::invalid(
        reason::NO_SUCH_TXN,
        format!(
            "the read asks for txn {}, and the newest of this database is {}: it is of another database, or of a time \
             before a restore; read without it",
            seen.txn_id, point.txn_id
        ),
    ))
}

fn other_timeline(seen: SeenTxn, timeline: u64) -> bool {
    seen.txn_id > 0 && seen.timeline != 0 && seen.timeline != timeline
}

fn refuse_timeline(seen: SeenTxn, timeline: u64) -> TxnError {
    TxnError::invalid(
        reason::OTHER_TIMELINE,
        format!(
            "the read asks for txn {} of timeline {}, and this database is of timeline {timeline} since it was restored: \
             what was written before may be gone; read without it, and look",
            seen.txn_id, seen.timeline
        ),
    )
}

#[cfg(test)]
mod at_least_test;
