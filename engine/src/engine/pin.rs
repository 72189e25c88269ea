//! Pins: the journal is kept for whoever streams it, but not at any price.
//!
//! A pin names the first frame that must stay, and how many bytes of journal up to the checkpoint it may keep. When it
//! keeps more it expires: it holds nothing from then on, and its owner finds out before it relies on the journal again.
//! So a receiver that stopped taking what it is sent never fills the disk of its source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Core;
use crate::ids::{Generation, LogIndex};
use crate::store::{AppliedState, Store};

struct Pinned {
    generation: Generation,
    from: LogIndex,
    most_bytes: u64,
    expired: Arc<AtomicBool>,
}

/// All pins of an engine.
#[derive(Default)]
pub(crate) struct Pins(Mutex<BTreeMap<u64, Pinned>>);

impl Pins {
    /// The first frame that a pin keeps in this store, whose finished checkpoint is at `checkpointed`. Pins that keep
    /// more than they may expire.
    pub(crate) fn lowest(&self, store: &Store, checkpointed: LogIndex) -> Option<LogIndex> {
        let end = store.journal.position(checkpointed);
        let mut pins = self.0.lock();
        pins.retain(|_, pinned| {
            // Nothing stands behind the checkpoint that a purge could take.
            let start = store.journal.position(pinned.from);
            let held = end.zip(start).map_or(0, |(end, start)| end.0.saturating_sub(start.0));
            let expires = pinned.generation == store.generation && held > pinned.most_bytes;
            if expires {
                tracing::warn!(from = pinned.from.0, held, "the journal is not kept any longer for a reader of it");
                pinned.expired.store(true, Ordering::Release);
            }
            !expires
        });
        pins.values().filter(|pinned| pinned.generation == store.generation).map(|pinned| pinned.from).min()
    }
}

/// Keeps the journal from an index on, as long as it lives and has not expired.
pub(crate) struct Pin {
    core: Arc<Core>,
    id: u64,
    expired: Arc<AtomicBool>,
}

impl Pin {
    /// Pins the journal of `store`, the current one, from the first frame behind the finished checkpoint on. Returns the
    /// pin and that checkpoint. The caller keeps the generation from changing.
    pub(crate) fn behind_checkpoint(core: &Arc<Core>, store: &Store, most_bytes: u64) -> (Self, AppliedState) {
        let meta = core.meta.lock();
        let checkpoint = meta.value.checkpoint.clone();
        let from = LogIndex(checkpoint.log_id.map_or(0, |log_id| log_id.index.0 + 1));
        let expired = Arc::new(AtomicBool::new(false));
        let mut pins = core.pins.0.lock();
        let id = pins.keys().next_back().map_or(0, |last| last + 1);
        pins.insert(id, Pinned { generation: store.generation, from, most_bytes, expired: expired.clone() });
        // A purge that has read the checkpoint already goes at most to the checkpoint, which this pin does not hold.
        (Self { core: core.clone(), id, expired }, checkpoint)
    }

    /// Whether it holds nothing any more.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.core.pins.0.lock().remove(&self.id);
    }
}
