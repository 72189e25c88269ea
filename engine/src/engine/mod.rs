//! The engine: one directory of a node, open.
//!
//! It knows nothing of consensus. Whoever drives it appends frames, says which are committed by applying them in order,
//! and executes batches where it leads. The engine keeps the rest: durability, versions, checkpoints, recovery.

mod background;
mod checkpoint;
mod current;
mod error;
mod log;
mod open;
mod options;
mod pieces;
mod pin;
mod room;
mod status;
mod tail;

#[cfg(test)]
mod engine_test;
#[cfg(test)]
mod failure_test;
#[cfg(test)]
mod full_disk_test;
#[cfg(test)]
mod memory_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod open_test;
#[cfg(test)]
mod pacing_test;
#[cfg(test)]
mod pin_test;
#[cfg(test)]
pub(crate) mod rig_test;
#[cfg(test)]
mod space_test;
#[cfg(test)]
mod tail_test;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use checkpoint::CheckpointReport;
pub(crate) use current::{CurrentStore, ReadersStore};
pub use error::OpenError;
pub(crate) use log::VOTE_SLOT_BYTES;
pub use log::{LogState, Vote};
pub use open::RecoveryReport;
pub(crate) use open::{Paths, open_store, read_meta, remove_other_generations, take_lock};
pub use options::{EngineOptions, Faults};
#[cfg(test)]
pub(crate) use pieces::Speed;
pub(crate) use pin::Pins;
pub use pin::{Pin, PinError, PinInfo};
pub use status::EngineStatus;
pub use tail::{JournalTail, TailCloser, TailError, TailNext};

use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::NodeIdentity;
use crate::env::Disk;
use crate::error::StorageError;
use crate::ids::{DatabaseId, LogId, LogIndex};
use crate::journal::frame::Frame;
use crate::scrub::{Scrub, ScrubThread};
use crate::slots::{SlotDamage, SlotFile};
use crate::space::Reserve;
use crate::store::{Applied, AppliedState, ApplyError, Counters, StagedState, Store};
use crate::txn::{Batch, BatchError, ReadTxn};
use background::{Background, Bell};

/// How long `begin_batch` waits for memory before it gives up.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// An open directory. Handles are cheap to clone; the last one that is dropped closes it. It can be opened again when
/// every reader and batch has been dropped too.
#[derive(Clone)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
    // Behind `core`, so that it stops the thread before the last handle lets go of the core.
    _background: Arc<Background>,
    // The same.
    _scrub: Arc<ScrubThread>,
}

/// `node.meta`, and its value as it is on disk.
pub(crate) struct MetaFile {
    slots: SlotFile,
    pub(crate) value: NodeMeta,
}

impl MetaFile {
    /// Changes the value, durable when this returns. After an error the next start may find the old value or the new one:
    /// whoever changes what makes a difference between them must leave both as they are, and stop.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut NodeMeta)) -> Result<(), StorageError> {
        let mut value = self.value.clone();
        change(&mut value);
        self.slots.write(&value.encode())?;
        self.value = value;
        Ok(())
    }

    /// Reads both slots anew, and mends what is bad.
    pub(crate) fn scrub(&mut self) -> Result<Vec<SlotDamage>, StorageError> {
        self.slots.scrub()
    }

    /// Fails once an update has failed.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.slots.check()
    }
}

/// What all handles and the background thread share.
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: EngineOptions,
    pub(crate) database_id: DatabaseId,
    pub(crate) meta: Mutex<MetaFile>,
    pub(crate) vote_file: Arc<Mutex<SlotFile>>,
    pub(crate) vote: Mutex<Option<Vote>>,
    pub(crate) store: CurrentStore,
    pub(crate) counters: Arc<Counters>,
    /// One checkpoint, purge or change of generation at a time.
    pub(crate) maintenance: Mutex<()>,
    /// Whether a checkpoint writes pages.
    pub(crate) checkpointing: AtomicBool,
    /// Whether a receiver builds a new generation.
    pub(crate) seeding: AtomicBool,
    /// The journal is kept for these, whatever may be purged otherwise.
    pub(crate) pins: Pins,
    /// How far the consensus lets us purge.
    pub(crate) purge_wish: Mutex<Option<LogId>>,
    /// There is no consensus whose wish counts.
    pub(crate) purge_unasked: AtomicBool,
    pub(crate) observers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    pub(crate) bell: Bell,
    /// Where the finished checkpoint is, without waiting for `node.meta` to be written.
    pub(crate) finished: Mutex<Option<LogId>>,
    /// What may be accepted without a look at the disk.
    pub(crate) plenty: Mutex<room::Plenty>,
    /// Space for what was accepted.
    pub(crate) reserve: Arc<Reserve>,
    /// The first failure of a checkpoint; nothing is written into the data file behind it.
    pub(crate) failed: Mutex<Option<StorageError>>,
    pub(crate) scrub: Scrub,
    /// Last: held as long as anything of the directory is in use. Stores share it.
    pub(crate) lock: Arc<dyn Send + Sync>,
}

impl Core {
    pub(crate) fn store(&self) -> Arc<Store> {
        self.store.get()
    }

    /// Whether a checkpoint writes pages.
    pub(crate) fn is_checkpointing(&self) -> bool {
        self.checkpointing.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether a checkpoint is due by itself. Never one that could not go on.
    fn checkpoint_due(&self, store: &Store) -> bool {
        store.readers.checkpoint_snapshot().is_some_and(|reachable| self.due_up_to(store, &reachable.applied))
    }

    /// Whether a checkpoint is due, or would be if it were not for a reader. Nobody rings when that reader goes, since
    /// readers are to be cheap, so whoever waits for it has to look: also if it has gone since the last look.
    fn checkpoint_wanted(&self, store: &Store) -> bool {
        let newest = store.head.lock().view.applied.clone();
        self.due_up_to(store, &newest)
    }

    /// Whether a checkpoint that goes as far as `reachable` is due.
    fn due_up_to(&self, store: &Store, reachable: &AppliedState) -> bool {
        let checkpointed = self.meta.lock().value.checkpoint.log_id;
        if reachable.log_id <= checkpointed {
            return false;
        }
        if store.versions.bytes() >= self.options.version_bytes_limit / 2 || self.is_short_of_space(store) {
            return true;
        }
        let first = LogIndex(checkpointed.map_or(0, |log_id| log_id.index.0 + 1));
        let (Some(from), Some(to)) =
            (store.journal.position(first), reachable.log_id.and_then(|log_id| store.journal.position(log_id.index)))
        else {
            return false;
        };
        to.0.saturating_sub(from.0) >= self.options.checkpoint_journal_bytes
    }
}

impl Engine {
    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.core.meta.lock().value.identity.clone()
    }

    /// Changes where the node listens and where others reach it; durable when this returns.
    pub fn set_addresses(&self, listen: &str, advertise: &str) -> Result<(), StorageError> {
        self.core.meta.lock().update(|meta| {
            listen.clone_into(&mut meta.identity.listen);
            advertise.clone_into(&mut meta.identity.advertise);
        })
    }

    /// The database's name for ever.
    #[must_use]
    pub fn database_id(&self) -> DatabaseId {
        self.core.database_id
    }

    /// Opens a batch on the newest staged state. Waits while another batch is open, and while page versions take more
    /// than their bound and checkpoints can go on.
    ///
    /// # Errors
    /// When checkpoints have failed; when memory does not become free: with the reader that is in the way, if one is.
    pub fn begin_batch(&self) -> Result<Batch, BatchError> {
        self.wait_for_memory()?;
        Batch::begin(self.core.store())
    }

    /// As [`Self::begin_batch`], but where page versions take too much memory it says `None` at once; then
    /// [`Self::wait_for_memory`] waits for what `begin_batch` waits for.
    ///
    /// # Errors
    /// When checkpoints have failed, or the newest state cannot be read.
    pub fn try_begin_batch(&self) -> Result<Option<Batch>, BatchError> {
        let store = self.core.store();
        if !self.has_memory(&store)? {
            return Ok(None);
        }
        Batch::begin(store).map(Some)
    }

    fn has_memory(&self, store: &Store) -> Result<bool, BatchError> {
        if let Some(error) = self.core.failed.lock().clone() {
            return Err(error.into());
        }
        store.relieve();
        Ok(store.has_memory())
    }

    /// Waits until page versions take little enough memory for a batch to begin. Blocks the thread for up to
    /// some seconds.
    ///
    /// # Errors
    /// When checkpoints have failed; when memory does not become free: with the reader that is in the way, if one is.
    pub fn wait_for_memory(&self) -> Result<(), BatchError> {
        let store = self.core.store();
        let started = Instant::now();
        loop {
            let mut guard = store.memory_lock.lock();
            if self.has_memory(&store)? {
                return Ok(());
            }
            if !self.core.options.background || started.elapsed() >= MEMORY_PATIENCE {
                return Err(match store.in_the_way() {
                    Some(reader) => BatchError::ForgottenReader {
                        place: reader.place.to_string(),
                        age_seconds: reader.age.as_secs(),
                    },
                    None => BatchError::NoMemory { bytes: store.versions.bytes() },
                });
            }
            self.core.bell.ring();
            store.memory_freed.wait_for(&mut guard, Duration::from_millis(100));
        }
    }

    /// Drops every staged batch: what follows builds on the applied state. Waits for an open batch to end.
    pub fn drop_staged(&self) {
        self.core.store().drop_staged();
    }

    /// How much is staged.
    #[must_use]
    pub fn staged(&self) -> StagedState {
        self.core.store().staged()
    }

    /// Applies the committed frame behind the last applied one.
    ///
    /// # Errors
    /// Any error means that this replica cannot go on: the node must stop.
    ///
    /// # Panics
    /// When the frame does not follow the applied state.
    pub fn apply(&self, frame: &Frame) -> Result<Applied, ApplyError> {
        let store = self.core.store();
        let applied = store.apply(frame)?;
        store.journal.note_committed(frame.log_id().index);
        self.core.bell.note_applied(frame.frame_bytes() as u64, &store, &self.core.options);
        Ok(applied)
    }

    /// The applied state.
    #[must_use]
    pub fn applied(&self) -> AppliedState {
        self.core.store().head.lock().view.applied.clone()
    }

    /// Opens a snapshot of the applied state.
    #[track_caller]
    #[must_use]
    pub fn read(&self) -> ReadTxn {
        ReadTxn::open(self.core.store.for_reader())
    }

    /// Ends the background thread, writes what the journal has queued, and attests its end.
    pub fn close(&self) {
        self.core.bell.stop();
        self.core.scrub.stop();
        self.core.store().journal.close();
    }
}
