//! Pins: the journal is kept for whoever reads it, but not at any price.
//!
//! A pin has a name, for people; it names the first frame that must stay, and how many bytes of journal up to the
//! checkpoint it may keep. When it keeps more it is lost: it holds nothing from then on, and its owner is told so when it
//! looks, before it relies on the journal again. So a reader that stopped reading never fills the disk.
//!
//! Pins are of this process: they are not on disk, and after a restart the journal is kept for the retention alone. One
//! that must outlive a restart is made again by whom it is for, who knows how far he has come; should the frames be gone
//! by then, he is told.
//!
//! Locks: the store, then the pins, then `node.meta`. The lock on the pins is held from the look at them to the end of the purge that follows it: so a pin that was given
//! names frames that are there, and no purge that looked before it takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Core, Engine};
use crate::ids::{Generation, LogIndex};
use crate::store::{AppliedState, Store};

/// A pin, for a list of them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PinInfo {
    /// What its owner called it. Several may have one name.
    pub name: String,
    /// The first frame that it keeps.
    pub from: LogIndex,
    /// The journal that it keeps: from its frame to the finished checkpoint, in bytes.
    pub held_bytes: u64,
    /// At more than this it is lost.
    pub max_bytes: u64,
}

/// Why a pin keeps nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The frame is purged already.
    #[error("the pin {name:?} cannot keep frame {from}: the journal begins with frame {oldest}; begin there, or anew")]
    Purged {
        /// The pin's name.
        name: String,
        /// The first frame that it was to keep.
        from: LogIndex,
        /// The first frame that there is.
        oldest: LogIndex,
    },
    /// It kept more than it may.
    #[error(
        "the pin {name:?} was lost: it kept {held_bytes} bytes of journal from frame {from} on, and may keep {max_bytes}; \
         begin anew, and read faster or allow it more"
    )]
    Overrun {
        /// The pin's name.
        name: String,
        /// The first frame that it kept.
        from: LogIndex,
        /// What it kept.
        held_bytes: u64,
        /// What it may.
        max_bytes: u64,
    },
    /// The node was seeded, and its new journal begins behind the frame.
    #[error("the pin {name:?} was lost: the node was seeded, and its journal begins with frame {oldest}, not {from}")]
    Replaced {
        /// The pin's name.
        name: String,
        /// The first frame that it kept.
        from: LogIndex,
        /// The first frame that there is now.
        oldest: LogIndex,
    },
}

struct Pinned {
    name: String,
    generation: Generation,
    /// It goes along when the node is seeded. Else it keeps the frames of its generation, whose files its owner holds.
    goes_along: bool,
    from: LogIndex,
    max_bytes: u64,
    lost: Option<PinError>,
}

impl Pinned {
    fn held_bytes(&self, store: &Store, checkpointed: LogIndex) -> u64 {
        let (start, end) = (store.journal.position(self.from), store.journal.position(checkpointed));
        // Nothing stands behind the checkpoint that a purge could take.
        end.zip(start).map_or(0, |(end, start)| end.0.saturating_sub(start.0))
    }

    fn holds_in(&self, store: &Store) -> bool {
        self.generation == store.generation && self.lost.is_none()
    }
}

type All = BTreeMap<u64, Pinned>;

/// All pins of an engine.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<All>>);

impl Pins {
    fn add(&self, all: &mut All, pinned: Pinned) -> Pin {
        let id = all.keys().next_back().map_or(0, |last| last + 1);
        all.insert(id, pinned);
        Pin { pins: self.clone(), id }
    }

    /// Hands `purge` the first frame that a pin keeps in this store, whose finished checkpoint is at `checkpointed`. No
    /// pin comes before it has returned. Pins that keep more than they may are lost.
    pub(crate) fn while_held<T>(
        &self,
        store: &Store,
        checkpointed: LogIndex,
        purge: impl FnOnce(Option<LogIndex>) -> T,
    ) -> T {
        let mut all = self.0.lock();
        for pinned in all.values_mut().filter(|pinned| pinned.holds_in(store)) {
            let held_bytes = pinned.held_bytes(store, checkpointed);
            if held_bytes > pinned.max_bytes {
                let (name, from, max_bytes) = (pinned.name.clone(), pinned.from, pinned.max_bytes);
                let error = PinError::Overrun { name, from, held_bytes, max_bytes };
                tracing::warn!(%error, "the journal is not kept any longer for a reader of it");
                pinned.lost = Some(error);
            }
        }
        purge(all.values().filter(|pinned| pinned.holds_in(store)).map(|pinned| pinned.from).min())
    }

    /// Another generation takes the place of the one in use. The caller keeps the journals as they are.
    pub(crate) fn go_along(&self, from: Generation, to: &Store) {
        let oldest = to.journal.first_kept().next_index();
        for pinned in self.0.lock().values_mut().filter(|pinned| pinned.goes_along && pinned.generation == from) {
            pinned.generation = to.generation;
            if pinned.from < oldest && pinned.lost.is_none() {
                pinned.lost = Some(PinError::Replaced { name: pinned.name.clone(), from: pinned.from, oldest });
            }
        }
    }
}

/// Keeps the journal from a frame on, as long as it lives and is not lost. See [`Engine::pin`].
#[must_use = "it keeps nothing once it is dropped"]
pub struct Pin {
    pins: Pins,
    id: u64,
}

impl Pin {
    /// Pins the journal of `store`, the current one, from the first frame behind the finished checkpoint on. Returns the
    /// pin and that checkpoint. The caller keeps the generation from changing, and holds the store.
    pub(crate) fn behind_checkpoint(core: &Core, store: &Store, name: &str, max_bytes: u64) -> (Self, AppliedState) {
        let mut all = core.pins.0.lock();
        let checkpoint = core.meta.lock().value.checkpoint.clone();
        let from = LogIndex(checkpoint.log_id.map_or(0, |log_id| log_id.index.0 + 1));
        let (name, generation) = (name.to_owned(), store.generation);
        let pinned = Pinned { name, generation, goes_along: false, from, max_bytes, lost: None };
        (core.pins.add(&mut all, pinned), checkpoint)
    }

    /// As [`Self::behind_checkpoint`], from a frame on that the journal may still reach back to. The caller keeps the
    /// generation from changing, and holds the store.
    pub(crate) fn at(core: &Core, store: &Store, name: &str, from: LogIndex, max_bytes: u64) -> Result<Self, PinError> {
        let mut all = core.pins.0.lock();
        let (oldest, name) = (store.journal.first_kept().next_index(), name.to_owned());
        if from < oldest {
            return Err(PinError::Purged { name, from, oldest });
        }
        let pinned = Pinned { name, generation: store.generation, goes_along: false, from, max_bytes, lost: None };
        Ok(core.pins.add(&mut all, pinned))
    }

    /// Says whether it still keeps what it names.
    ///
    /// # Errors
    /// Why it was lost.
    pub fn check(&self) -> Result<(), PinError> {
        self.pins.0.lock()[&self.id].lost.clone().map_or(Ok(()), Err)
    }

    /// The first frame that it keeps.
    #[must_use]
    pub fn from(&self) -> LogIndex {
        self.pins.0.lock()[&self.id].from
    }

    /// Lets go of the frames before `from`, and keeps those behind. Never goes back.
    ///
    /// # Errors
    /// Why it was lost.
    pub fn advance(&self, from: LogIndex) -> Result<(), PinError> {
        let mut all = self.pins.0.lock();
        let pinned = all.get_mut(&self.id).expect("as long as this lives");
        pinned.from = pinned.from.max(from);
        pinned.lost.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.0.lock().remove(&self.id);
    }
}

impl Engine {
    /// Keeps the journal from frame `from` on from being recycled, until the pin is dropped, or until it keeps more than
    /// `max_bytes` up to the finished checkpoint: then it is lost, and [`Pin::check`] says so. The frame may be one that
    /// is still to come. Pins are not on disk: after a restart there are none.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// use calamus_engine::LogIndex;
    ///
    /// let pin = database.engine().pin("search index", LogIndex(0), 1 << 30)?;
    /// database.write(|txn| txn.create_tree("birds"))?;
    /// let frames = database.engine().read_frames(pin.from(), LogIndex(u64::MAX), 4 << 20)?;
    /// pin.advance(frames.last().expect("one was written").log_id().index.next())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PinError::Purged`] if the journal begins behind `from`.
    pub fn pin(&self, name: &str, from: LogIndex, max_bytes: u64) -> Result<Pin, PinError> {
        self.core.store.with(|store| {
            let mut all = self.core.pins.0.lock();
            let oldest = store.journal.first_kept().next_index();
            let name = name.to_owned();
            if from < oldest {
                return Err(PinError::Purged { name, from, oldest });
            }
            let generation = store.generation;
            let pinned = Pinned { name, generation, goes_along: true, from, max_bytes, lost: None };
            Ok(self.core.pins.add(&mut all, pinned))
        })
    }

    /// The pins that keep something, oldest first.
    #[must_use]
    pub fn pins(&self) -> Vec<PinInfo> {
        let store = self.core.store();
        let checkpointed = self.checkpointed().log_id.map_or(LogIndex(0), |log_id| log_id.index);
        let all = self.core.pins.0.lock();
        let holding = all.values().filter(|pinned| pinned.holds_in(&store));
        let info = |pinned: &Pinned| PinInfo {
            name: pinned.name.clone(),
            from: pinned.from,
            held_bytes: pinned.held_bytes(&store, checkpointed),
            max_bytes: pinned.max_bytes,
        };
        holding.map(info).collect()
    }
}
