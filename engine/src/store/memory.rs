//! The bound on memory for page versions, and who gives way when it is reached.
//!
//! | versions take | what happens |
//! | --- | --- |
//! | half of the bound | a checkpoint starts, which will drop what it has written |
//! | all of it | no batch begins until a checkpoint has caught up, unless a reader is in the way |
//! | one and a half times | readers that are in the way are expired |
//!
//! A reader is *in the way* when the finished checkpoint is its snapshot and the applied state is newer: then no
//! checkpoint can go on until it is dropped. Any other reader holds up nothing: the next checkpoint goes to its snapshot
//! and drops everything up to there, what only this reader sees included. So where checkpoints are the bottleneck,
//! writers wait and readers live; where a reader is, writers do not wait for it, and it is expired. An expired reader
//! that is still held, since it may hold slices of the map, makes writers wait, and in the end refuses them.
//!
//! Staged versions count like applied ones. Waiting for memory cannot hold up what frees it: whoever waits holds no lock
//! and has no batch open, staged batches are applied or dropped by others, and what is applied a checkpoint writes. If
//! nothing commits any more, the wait ends in an error. A batch is let in whole: a single one may take more than the
//! bound, once nothing else is held.

use std::sync::atomic::Ordering;

use super::Store;
use crate::ids::TxnId;
use crate::versions::ReaderInfo;

impl Store {
    /// Versions beyond this many bytes expire readers that are in the way.
    fn expiry_bytes(&self) -> usize {
        self.limits.version_bytes.saturating_add(self.limits.version_bytes / 2)
    }

    /// Whether a batch may begin.
    pub(crate) fn has_memory(&self) -> bool {
        let bytes = self.versions.bytes();
        bytes <= self.limits.version_bytes
            || (bytes <= self.expiry_bytes() && self.in_the_way().is_some_and(|reader| !reader.expired))
    }

    /// The reader that holds checkpoints back.
    pub(crate) fn in_the_way(&self) -> Option<ReaderInfo> {
        self.readers.in_the_way(TxnId(self.checkpointed.load(Ordering::Acquire)))
    }

    /// Expires the readers that are in the way, if versions take too much.
    pub(crate) fn relieve(&self) {
        if self.versions.bytes() <= self.expiry_bytes() {
            return;
        }
        for reader in self.readers.expire_in_the_way(TxnId(self.checkpointed.load(Ordering::Acquire))) {
            tracing::warn!(
                snapshot = reader.txn_id.0, age = ?reader.age, opened_at = %reader.place,
                "expired a reader: it holds checkpoints back, and page versions exceed their bound"
            );
        }
    }

    /// A checkpoint of this state is finished, and the versions that it wrote are dropped.
    pub(crate) fn note_checkpoint(&self, txn_id: TxnId) {
        self.checkpointed.store(txn_id.0, Ordering::Release);
        self.relieve();
    }

    /// Tells those who wait for memory to look again.
    pub(crate) fn notify_memory(&self) {
        let _guard = self.memory_lock.lock();
        self.memory_freed.notify_all();
    }
}
