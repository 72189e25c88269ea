//! What is taken when disks are short of space: this node's, which it looks at for each batch, or those of a quorum, as far
//! as they have said.

use calamus_engine::txn::Batch;
use calamus_engine::{Footprint, SpaceLevel};

use super::worker::Worker;
use crate::error::{TxnError, reason};

/// Disks are short of space.
pub(super) struct Shortage {
    level: SpaceLevel,
    error: TxnError,
}

impl Shortage {
    /// Looks, with so many bytes of records on their way to the journal.
    pub(super) fn look(worker: &Worker) -> Option<Self> {
        let in_flight = worker.chain.bytes() as u64;
        let own = worker.engine.short_of_space(in_flight);
        let quorum = worker.consensus.quorum_space();
        match own {
            Some(own) if own.level >= quorum.level => {
                Some(Self { level: own.level, error: TxnError::invalid(reason::DISK_FULL, own.to_string()) })
            }
            _ if quorum.level == SpaceLevel::Normal => None,
            _ => {
                let message = format!(
                    "the disk of {} is short of space ({}), and no quorum is without it. Nothing was changed. Free space on \
                     that file system, or delete data; `calamus cluster status` shows the disk of each node",
                    quorum.node,
                    quorum.level.words()
                );
                Some(Self { level: quorum.level, error: TxnError::invalid(reason::DISK_FULL, message) })
            }
        }
    }

    /// Whether the open transaction, which is one on sessions, is taken. What closes and resolves is, as deletes are: it
    /// writes some bytes, and a client can do without what it holds.
    pub(super) fn check_session(&self, batch: &Batch, opens: bool) -> Result<(), TxnError> {
        if opens { self.check(batch) } else { self.admit(Footprint::Deletes) }
    }

    fn admit(&self, footprint: Footprint) -> Result<(), TxnError> {
        if self.level.admits(footprint) { Ok(()) } else { Err(self.error.clone()) }
    }

    /// Whether the open transaction is taken.
    pub(super) fn check(&self, batch: &Batch) -> Result<(), TxnError> {
        self.admit(batch.footprint())
    }
}
