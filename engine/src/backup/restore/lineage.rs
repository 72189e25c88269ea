//! The restores that led to a database, as its tree `$timelines` tells them.

use super::fork::{Fork, TREE};
use crate::Engine;
use crate::btree::ReadError;
use crate::error::StorageError;
use crate::ids::{Timeline, TxnId};

/// A restore that led to a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ForkPoint {
    /// The timeline that began with it.
    pub timeline: Timeline,
    /// The one that it came from.
    pub forked_from: Timeline,
    /// The last transaction that both have.
    pub txn_id: TxnId,
}

impl Engine {
    /// The restores that led to this database, oldest first. None if it was never restored.
    ///
    /// # Errors
    /// When the tree `$timelines` cannot be read.
    pub fn forks(&self) -> Result<Vec<ForkPoint>, ReadError> {
        let snapshot = self.read();
        let mut forks = Vec::new();
        let Some(mut cursor) = snapshot.cursor(TREE)? else { return Ok(forks) };
        let mut there = cursor.first()?;
        while there {
            let fork: Fork = serde_json::from_slice(&cursor.value().to_vec()?).map_err(|error| {
                let what = format!("an entry of the tree {TREE} is no fork: {error}");
                StorageError::corrupted(&self.core.directory, 0, what)
            })?;
            forks.push(ForkPoint {
                timeline: Timeline(fork.timeline),
                forked_from: Timeline(fork.forked_from),
                txn_id: TxnId(fork.txn_id),
            });
            there = cursor.next()?;
        }
        Ok(forks)
    }

    /// The last transaction that this database shares with what `timeline` was when it was left: whoever has seen no more of
    /// that timeline has seen nothing that is not in this one too. `None` if this database does not come from it.
    ///
    /// # Errors
    /// As [`Self::forks`].
    pub fn forked_from(&self, timeline: Timeline) -> Result<Option<TxnId>, ReadError> {
        Ok(shared(&self.forks()?, timeline))
    }
}

/// The last transaction that a database with these forks shares with a timeline that it left.
fn shared(forks: &[ForkPoint], left: Timeline) -> Option<TxnId> {
    let from = forks.iter().position(|fork| fork.forked_from == left)?;
    // What came later may have forked at a transaction before that one.
    forks[from..].iter().map(|fork| fork.txn_id).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_what_no_later_fork_has_left_behind() {
        let fork = |forked_from, timeline, txn_id| ForkPoint {
            timeline: Timeline(timeline),
            forked_from: Timeline(forked_from),
            txn_id: TxnId(txn_id),
        };
        let forks = [fork(1, 20, 50), fork(20, 30, 90)];
        let shared = |timeline| shared(&forks, Timeline(timeline)).map(|txn_id| txn_id.0);
        assert_eq!([1, 20, 30, 4].map(shared), [Some(50), Some(90), None, None]);
    }
}
