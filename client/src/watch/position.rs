//! Where a watch stands, as a value that is kept.

use std::fmt;
use std::str::FromStr;

use calamus_proto::v1::WatchPosition;

/// Where a watcher stands: it knows everything up to a transaction of a timeline of a database. Small enough to be kept with
/// what the changes were used for; its text (`DATABASE/TIMELINE/TXN`) is read again by `parse`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// 32 hex digits; empty for whatever database the cluster has.
    pub database_id: String,
    /// Which restore the database comes from; 0 for whatever it is on.
    pub timeline: u64,
    /// The transaction.
    pub txn_id: u64,
}

impl Position {
    /// Behind this transaction of whatever database the cluster has now: such as a read point, read just before.
    #[must_use]
    pub fn after_txn(txn_id: u64) -> Position {
        Position { database_id: String::new(), timeline: 0, txn_id }
    }
}

impl From<WatchPosition> for Position {
    fn from(WatchPosition { database_id, timeline, txn_id }: WatchPosition) -> Position {
        Position { database_id, timeline, txn_id }
    }
}

impl From<Position> for WatchPosition {
    fn from(Position { database_id, timeline, txn_id }: Position) -> WatchPosition {
        WatchPosition { database_id, timeline, txn_id }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.database_id, self.timeline, self.txn_id)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let [database_id, timeline, txn_id] = parts[..] else { return Err(PositionError) };
        let hex =
            database_id.is_empty() || database_id.len() == 32 && database_id.bytes().all(|b| b.is_ascii_hexdigit());
        match (hex, timeline.parse(), txn_id.parse()) {
            (true, Ok(timeline), Ok(txn_id)) => Ok(Position { database_id: database_id.to_owned(), timeline, txn_id }),
            _ => Err(PositionError),
        }
    }
}

/// A text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not DATABASE/TIMELINE/TXN: 32 hex digits, and two numbers")]
pub struct PositionError;
