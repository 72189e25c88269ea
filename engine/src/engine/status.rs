//! What an engine says about itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::damage::DamageCounts;
use crate::ids::{Generation, LogId, LogIndex};
use crate::scrub::ScrubStatus;
use crate::space::Space;
use crate::store::Store;
use crate::versions::ReaderInfo;

/// Counters and gauges; sizes in bytes, counters since the engine was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineStatus {
    /// The generation in use.
    pub generation: Generation,
    /// Length of the data file in pages, as of the applied state.
    pub page_count: u64,
    /// Free pages among them; `None` where nothing was executed here since the last decoded record.
    pub free_pages: Option<u64>,
    /// Journal kept on disk.
    pub journal_bytes: u64,
    /// Groups that the journal wrote; each is one write and one sync.
    pub journal_groups: u64,
    /// Bytes that the journal wrote.
    pub journal_bytes_written: u64,
    /// Page versions in memory, staged ones included.
    pub version_bytes: usize,
    /// Records and versions of staged batches.
    pub staged_bytes: usize,
    /// Bytes queued for the journal and not yet durable.
    pub queued_bytes: usize,
    /// Appends, cuts, votes and checkpoints that wait for what the journal is writing.
    pub queued_jobs: usize,
    /// How long the oldest of them has waited.
    pub pending_sync_age: Option<Duration>,
    /// Transactions that are applied and not in the finished checkpoint. Checkpoints skip no page: one that a reader holds
    /// back ends at that reader's snapshot, and this is what is behind it.
    pub checkpoint_lag_txns: u64,
    /// Bytes of journal from the finished checkpoint to the applied state.
    pub checkpoint_lag_bytes: u64,
    /// Finished checkpoints.
    pub checkpoints: u64,
    /// Changes to trees by executing operations; 0 on a node that only followed.
    pub tree_mutations: u64,
    /// Records that changed nothing because they did not build on the applied state.
    pub void_records: u64,
    /// Records published from staged versions.
    pub published_records: u64,
    /// Records decoded from their bytes.
    pub decoded_records: u64,
    /// How the disk is.
    pub space: Space,
    /// What was accepted waits for space: the disk is full, and so is the reserve used up. It is no sync that hangs.
    pub starved: bool,
    /// Open readers.
    pub readers: usize,
    /// The oldest of them.
    pub oldest_reader: Option<ReaderInfo>,
    /// What was found damaged on disk.
    pub damage: DamageCounts,
    /// How far the scrub is.
    pub scrub: ScrubStatus,
    /// Why nothing is written any more, after a failed write or sync: the node must stop taking part.
    pub failed: Option<String>,
}

impl Engine {
    /// Counters and gauges.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let core = &self.core;
        let store = core.store();
        let staged = store.staged();
        let checkpoint = core.meta.lock().value.checkpoint.clone();
        let (page_count, free_pages, applied) = {
            let head = store.head.lock();
            let free = head.allocator.as_ref().map(|allocator| u64::from(allocator.free_pages()));
            (u64::from(head.view.superblock.page_count), free, head.view.applied.clone())
        };
        let journal = store.journal.stats();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let failed = core.failed.lock().clone().or_else(|| store.journal.poisoned());
        EngineStatus {
            generation: store.generation,
            page_count,
            free_pages,
            journal_bytes: journal.bytes_kept,
            journal_groups: journal.groups,
            journal_bytes_written: journal.bytes_written,
            version_bytes: store.versions.bytes(),
            staged_bytes: staged.bytes,
            queued_bytes: journal.queued_bytes,
            queued_jobs: journal.queued_jobs,
            pending_sync_age: store.journal.oldest_pending(),
            checkpoint_lag_txns: applied.txn_id.0.saturating_sub(checkpoint.txn_id.0),
            checkpoint_lag_bytes: lag_bytes(&store, checkpoint.log_id, applied.log_id),
            checkpoints: count(&core.counters.checkpoints),
            tree_mutations: count(&core.counters.tree_mutations),
            void_records: count(&core.counters.void_records),
            published_records: count(&core.counters.published_records),
            decoded_records: count(&core.counters.decoded_records),
            space: core.space(&store),
            starved: store.journal.is_starved(),
            readers: store.readers.count(),
            oldest_reader: store.readers.oldest(),
            damage: store.data.register().counts(),
            scrub: core.scrub.status(core),
            failed: failed.map(|error| error.to_string()),
        }
    }
}

/// Bytes of journal behind the frame `from`, up to where the frame `to` begins; what is not written yet does not count.
fn lag_bytes(store: &Store, from: Option<LogId>, to: Option<LogId>) -> u64 {
    let first = LogIndex(from.map_or(0, |log_id| log_id.index.0 + 1));
    let position = |index| store.journal.position(index);
    match (position(first), to.and_then(|log_id| position(log_id.index))) {
        (Some(first), Some(last)) => last.0.saturating_sub(first.0),
        _ => 0,
    }
}
