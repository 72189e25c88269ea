//! Running a checkpoint, and purging the journal behind it. The protocol and its argument: [`crate::checkpoint`].

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::pieces::{Pieces, Speed};
use super::{Core, Engine, Faults};
use crate::checkpoint::write_pages;
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex};
use crate::space::SpaceLevel;
use crate::store::{AppliedState, Counters, Store};

/// What a checkpoint takes of the reserve at a time: a sixteenth, and at least so many bytes.
const RESERVE_PIECE_BYTES: u64 = 1 << 20;

/// What a checkpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Where the data file is now.
    pub at: Option<LogId>,
    /// Pages written or zeroed.
    pub pages: usize,
    /// How long it took.
    pub took: Duration,
}

/// Why a checkpoint was not finished.
enum Unfinished {
    /// There was no space for its pages. It may be tried again: see [`crate::checkpoint`].
    NoSpace(StorageError),
    /// Nothing may be written behind this.
    Failed(StorageError),
}

impl From<StorageError> for Unfinished {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

impl Unfinished {
    /// Of the step that writes pages. A sync is never tried again, whatever it says.
    fn of_pages(error: StorageError) -> Self {
        if error.wants_space() { Self::NoSpace(error) } else { Self::Failed(error) }
    }
}

impl Engine {
    /// Runs a whole checkpoint now. Goes as far as the oldest reader lets it.
    ///
    /// # Errors
    /// After one that [`StorageError::is_no_space`], it may be tried again when there is space, unless the engine's
    /// status says that it has failed. Any other is for good.
    pub fn checkpoint(&self) -> Result<CheckpointReport, StorageError> {
        self.core.checkpoint()
    }

    /// Whether a checkpoint is writing pages.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.core.checkpointing.load(Ordering::Relaxed)
    }

    /// The finished checkpoint.
    #[must_use]
    pub fn checkpointed(&self) -> AppliedState {
        self.core.meta.lock().value.checkpoint.clone()
    }

    /// How far the consensus may purge now: the last entry that neither the checkpoint, a pin nor the retention needs.
    #[must_use]
    pub fn purge_limit(&self) -> Option<LogId> {
        let store = self.core.store();
        self.core.with_purge_bound(&store, |bound| store.journal.log_id(bound))?
    }

    /// Calls `observer` after each finished checkpoint, on the thread that ran it.
    pub fn on_checkpoint(&self, observer: Box<dyn Fn() + Send + Sync>) {
        self.core.observers.lock().push(observer);
    }
}

impl Core {
    /// Runs a whole checkpoint at full speed; one that is running goes on at full speed, too. The scrub is no reader that
    /// it stops at.
    pub(crate) fn checkpoint(&self) -> Result<CheckpointReport, StorageError> {
        let _awaited = self.bell.await_checkpoint();
        let _unhindered = self.scrub.between_pieces();
        self.checkpoint_at(Speed::Full)
    }

    /// Runs a whole checkpoint.
    pub(crate) fn checkpoint_at(&self, speed: Speed) -> Result<CheckpointReport, StorageError> {
        let report = {
            let _one = self.maintenance.lock();
            if let Some(error) = self.failed.lock().clone() {
                return Err(error);
            }
            let store = self.store();
            let result = self.checkpoint_with_reserve(&store, speed).and_then(|report| {
                self.purge_journal(&store)?;
                Ok(report)
            });
            // Whether it worked or not: whoever waits for memory looks again.
            store.notify_memory();
            match result {
                Ok(report) => report,
                Err(Unfinished::NoSpace(error)) => return Err(error),
                Err(Unfinished::Failed(error)) => {
                    self.fail(&error);
                    return Err(error);
                }
            }
        };
        for observer in &*self.observers.lock() {
            observer();
        }
        Ok(report)
    }

    /// Runs a checkpoint, on the reserve where the disk has no space. For what was accepted there is as much as it takes.
    fn checkpoint_with_reserve(&self, store: &Store, speed: Speed) -> Result<CheckpointReport, Unfinished> {
        let piece = RESERVE_PIECE_BYTES.max(self.reserve.wanted() / 16);
        loop {
            match self.checkpoint_store(store, speed) {
                Err(Unfinished::NoSpace(_)) if self.reserve.give(piece) > 0 => {}
                done => return done,
            }
        }
    }

    /// Notes that checkpoints have failed for good. The first failure stays.
    pub(crate) fn fail(&self, error: &StorageError) {
        self.failed.lock().get_or_insert_with(|| error.clone());
        self.store().notify_memory();
    }

    fn checkpoint_store(&self, store: &Store, speed: Speed) -> Result<CheckpointReport, Unfinished> {
        let started = Instant::now();
        let checkpointed = self.meta.lock().value.checkpoint.log_id;
        let registration = if Faults::planted(self.options.faults.checkpoint_ignores_readers) {
            Some(store.readers.open())
        } else {
            store.readers.open_for_checkpoint()
        };
        let Some(registration) = registration else {
            return Ok(CheckpointReport { at: checkpointed, ..CheckpointReport::default() });
        };
        let view = registration.state().clone();
        let target = &view.applied;
        assert!(target.log_id >= checkpointed || store.readers.count() > 0, "the applied state went back");
        if target.log_id <= checkpointed {
            return Ok(CheckpointReport { at: checkpointed, ..CheckpointReport::default() });
        }
        if !Faults::planted(self.options.faults.checkpoint_ahead_of_journal) {
            wait_until_durable(store, target)?;
        }
        let early = Faults::planted(self.options.faults.target_not_durable_first);
        if !early {
            self.set_target(target)?;
        }
        let pieces = Pieces::begin(self, store, speed);
        self.checkpointing.store(true, Ordering::Relaxed);
        let pages = write_pages(store, target.txn_id, view.superblock.page_count, &self.options.faults, &|progress| {
            pieces.wrote(progress)
        });
        self.checkpointing.store(false, Ordering::Relaxed);
        let pages = pages.map_err(Unfinished::of_pages)?;
        if early {
            self.set_target(target)?;
        }
        self.meta.lock().update(|meta| {
            assert!(meta.target.log_id == target.log_id, "one checkpoint at a time");
            meta.checkpoint = target.clone();
        })?;
        *self.finished.lock() = target.log_id;
        // Before the versions go: who finds none compares with this.
        store.data.written(&pages);
        for (number, _) in &pages {
            store.versions.drop_up_to(*number, target.txn_id);
        }
        store.note_checkpoint(target.txn_id);
        Counters::add(&self.counters.checkpoints, 1);
        let report = CheckpointReport { at: target.log_id, pages: pages.len(), took: started.elapsed() };
        tracing::debug!(?report, "checkpoint finished");
        Ok(report)
    }

    fn set_target(&self, target: &AppliedState) -> Result<(), StorageError> {
        self.meta.lock().update(|meta| {
            assert!(meta.checkpoint.log_id <= target.log_id, "checkpointed <= target");
            assert!(meta.target.log_id <= target.log_id, "the target went back");
            meta.target = target.clone();
        })
    }

    /// Recycles the journal's segments below the checkpoint, the consensus' wish, the pins and the retention.
    pub(crate) fn purge_journal(&self, store: &Store) -> Result<(), StorageError> {
        let unasked = self.purge_unasked.load(Ordering::Relaxed).then_some(LogIndex(u64::MAX));
        let Some(wish) = unasked.or(self.purge_wish.lock().map(|wish| wish.index)) else { return Ok(()) };
        self.with_purge_bound(store, |bound| store.journal.purge(bound.min(wish)).map(drop)).unwrap_or(Ok(()))
    }

    /// Hands `purge` the last frame that neither the checkpoint, a pin nor the retention needs, if there is one.
    fn with_purge_bound<T>(&self, store: &Store, purge: impl FnOnce(LogIndex) -> T) -> Option<T> {
        let checkpointed = self.meta.lock().value.checkpoint.log_id?;
        // A pin, like the retention, names the first frame that must stay.
        // What is only kept so that others catch up more cheaply goes before writes are refused for ever.
        let retention = match self.space(store).level {
            SpaceLevel::Normal | SpaceLevel::NoGrowth => self.options.retention_bytes,
            SpaceLevel::DeletesOnly | SpaceLevel::Full => 0,
        };
        let kept = retained_from(store, checkpointed.index, retention)?;
        self.pins.while_held(store, checkpointed.index, |pinned| {
            let kept = pinned.map_or(kept, |pinned| kept.min(pinned));
            kept.0.checked_sub(1).map(|before| purge(LogIndex(before).min(checkpointed.index)))
        })
    }
}

/// The first frame of those that take the last `bytes` below and up to `checkpointed`.
fn retained_from(store: &Store, checkpointed: LogIndex, bytes: u64) -> Option<LogIndex> {
    let end = store.journal.position(checkpointed)?;
    let first = store.journal.first_kept().previous.map_or(0, |log_id| log_id.index.0 + 1);
    let (mut low, mut high) = (first, checkpointed.0);
    while low < high {
        let middle = low + (high - low) / 2;
        let position = store.journal.position(LogIndex(middle))?;
        if end.0 - position.0 > bytes { low = middle + 1 } else { high = middle }
    }
    Some(LogIndex(low))
}

/// Returns when the local journal has the target: nothing derived from a frame is written outside the journal before.
fn wait_until_durable(store: &Store, target: &AppliedState) -> Result<(), StorageError> {
    if store.journal.durable() < target.log_id {
        // The frame was queued before it was applied, so it is among what is synced.
        store.journal.sync()?;
    }
    assert!(store.journal.durable() >= target.log_id, "the checkpoint is ahead of the local journal");
    Ok(())
}
