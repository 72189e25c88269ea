//! The newest states: applied, and staged ahead of the quorum.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Counters, Store, View};
use crate::alloc::Allocator;
use crate::btree::ReadError;
use crate::ids::{Digest, PageNumber, TxnId};
use crate::journal::frame::Payload;
use crate::page::superblock::Superblock;

/// Names a staged batch on this node, since it was started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// A batch that was executed here and is not yet committed.
pub struct StagedBatch {
    pub(crate) id: BatchId,
    pub(crate) payload: Payload,
    pub(crate) first_txn: TxnId,
    pub(crate) last_txn: TxnId,
    pub(crate) builds_on: TxnId,
    pub(crate) pages: Vec<PageNumber>,
    pub(crate) superblock: Superblock,
    pub(crate) digest: Digest,
    pub(crate) bytes: usize,
}

/// How much is staged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StagedState {
    /// Batches.
    pub batches: usize,
    /// Bytes of their records and page versions.
    pub bytes: usize,
    /// The newest staged txn id; the applied one if nothing is staged.
    pub newest_txn: TxnId,
}

/// The applied state, the staged batches on top of it, and what the next batch builds on.
pub struct Head {
    pub(crate) view: Arc<View>,
    pub(crate) staged: VecDeque<StagedBatch>,
    /// The allocator of the newest staged state; `None` after frames that were not executed here.
    pub(crate) allocator: Option<Allocator>,
    pub(crate) next_batch: BatchId,
}

impl Head {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view, staged: VecDeque::new(), allocator: None, next_batch: BatchId(1) }
    }

    /// What the next batch builds on: txn id, superblock and digest of the newest staged state.
    pub(crate) fn newest(&self) -> (TxnId, Superblock, Digest) {
        match self.staged.back() {
            Some(batch) => (batch.last_txn, batch.superblock, batch.digest),
            None => (self.view.applied.txn_id, self.view.superblock, self.view.applied.digest),
        }
    }
}

impl Store {
    /// How much is staged.
    pub fn staged(&self) -> StagedState {
        let head = self.head.lock();
        StagedState {
            batches: head.staged.len(),
            bytes: head.staged.iter().map(|batch| batch.bytes).sum(),
            newest_txn: head.newest().0,
        }
    }

    /// The allocator of the newest staged state, for a caller that holds the batch lock. Where there is none it is loaded,
    /// which reads every bitmap: outside of `head`, and once, so that batches which change nothing find it.
    ///
    /// Until the batch lock is let go nothing else is staged or decoded, so no other superblock comes, and the allocator
    /// that was loaded is still the newest state's.
    pub(crate) fn newest_allocator(&self) -> Result<Allocator, ReadError> {
        let view = {
            let head = self.head.lock();
            if let Some(allocator) = &head.allocator {
                return Ok(allocator.clone());
            }
            assert!(head.staged.is_empty(), "staged batches leave their allocator");
            head.view.clone()
        };
        let allocator = self.load_allocator(&view)?;
        let mut head = self.head.lock();
        assert!(head.staged.is_empty() && head.view.superblock == view.superblock, "the batch lock is held");
        head.allocator = Some(allocator.clone());
        Ok(allocator)
    }

    /// Drops every staged batch: they will never be applied from memory. Waits for an open batch to end.
    pub fn drop_staged(&self) {
        let _exclusive = self.batch_lock.lock();
        let mut head = self.head.lock();
        self.drop_staged_locked(&mut head);
    }

    /// As [`Self::drop_staged`], for a caller that holds the batch lock.
    pub(super) fn drop_staged_locked(&self, head: &mut Head) -> bool {
        let dropped = !head.staged.is_empty();
        for batch in head.staged.drain(..) {
            for number in &batch.pages {
                self.versions.drop_version(*number, batch.last_txn);
            }
        }
        if dropped {
            // The allocator knew the dropped batches' pages.
            head.allocator = None;
            self.notify_memory();
        }
        dropped
    }

    pub(crate) fn note_mutations(&self, count: u64) {
        Counters::add(&self.counters.tree_mutations, count);
    }
}
