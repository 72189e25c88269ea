//! Whether there is room for what is to be accepted, and what is done about it when there is little. What the words mean,
//! and why the bounds hold: [`crate::space`].

use std::time::{Duration, Instant};

use super::{Core, Engine};
use crate::error::StorageError;
use crate::space::{DiskFull, Footprint, Space, SpaceLevel, SpaceOptions};
use crate::store::Store;

/// Kept for what nobody asks about: entries of the consensus itself, which are some hundred bytes each. In a small journal,
/// a part of a segment.
const UNASKED_BYTES: u64 = 1 << 20;

/// How long a look that found plenty is good.
const PLENTY: Duration = Duration::from_millis(100);

/// What may still be accepted without a look: it costs some microseconds, and a commit that waits for no disk hardly more.
#[derive(Default)]
pub(crate) struct Plenty {
    left: u64,
    looked: Option<Instant>,
}

impl Plenty {
    /// A sixteenth of what is above the high mark and some segments: a frame takes its bytes in the data file, and no more
    /// than thrice as many, and a segment, in the journal.
    fn of(space: &Space, options: &SpaceOptions, segments: u64) -> Self {
        let marks = options.reserve_bytes.saturating_add(options.high_bytes).saturating_add(segments);
        Self { left: space.room_bytes().saturating_sub(marks) / 16, looked: Some(Instant::now()) }
    }

    /// Takes so many bytes of it, if it has them.
    fn covers(&mut self, bytes: u64) -> bool {
        let fresh = self.looked.is_some_and(|looked| looked.elapsed() < PLENTY);
        let Some(left) = self.left.checked_sub(bytes).filter(|_| fresh) else { return false };
        self.left = left;
        true
    }
}

impl Engine {
    /// How the disk is now.
    #[must_use]
    pub fn space(&self) -> Space {
        self.core.space(&self.core.store())
    }

    /// Why not every transaction is taken now, if that is so; the level says which are. `in_flight` bytes of frames are on
    /// their way to [`Self::append`] and count as accepted.
    #[must_use]
    pub fn short_of_space(&self, in_flight: u64) -> Option<DiskFull> {
        let store = self.core.store();
        let space = self.core.space_beside(&store, in_flight);
        (space.level != SpaceLevel::Normal).then(|| self.core.disk_full(&space))
    }

    /// Whether there is room for frames of so many bytes together, beside all that was accepted. Who appends without having
    /// asked may have to wait for space for as long as there is none.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let store = self.core.store();
        let has_room = self.core.free_and_reserve() >= self.core.needed(&store, bytes);
        if !has_room {
            self.core.bell.ring();
        }
        has_room
    }

    /// Whether the disk takes a transaction of this footprint, whose frame has no more than `bytes` bytes. A look that found
    /// plenty is good for a tenth of a second and a part of what it found.
    ///
    /// # Errors
    /// If it does not; then a checkpoint is under way that may change that.
    pub fn admit(&self, footprint: Footprint, bytes: u64) -> Result<(), DiskFull> {
        if footprint == Footprint::Nothing || self.core.plenty.lock().covers(bytes) {
            return Ok(());
        }
        let store = self.core.store();
        let mut space = self.core.space(&store);
        if self.core.options.background && space.level == SpaceLevel::Normal {
            let segments = 2 * store.journal.segment_bytes();
            *self.core.plenty.lock() = Plenty::of(&space, &self.core.options.space, segments);
        }
        space.needed_bytes = self.core.needed(&store, bytes);
        if self.core.free_and_reserve() < space.needed_bytes {
            space.level = SpaceLevel::Full;
        }
        if space.level.admits(footprint) {
            return Ok(());
        }
        self.core.bell.ring();
        Err(self.core.disk_full(&space))
    }

    /// Sees to it that so many bytes are free on the disk, from the reserve if need be: for small files beside the engine's,
    /// without which a node does not start.
    pub fn keep_free(&self, bytes: u64) {
        let free = self.core.disk.free_bytes(&self.core.directory).unwrap_or(u64::MAX);
        if free < bytes {
            self.core.reserve.give(bytes - free);
        }
    }

    /// Does what there is to do about space now: fills the reserve; where space is short, gives back what nobody needs. The
    /// engine does it by itself, unless its options say that it does nothing by itself.
    ///
    /// # Errors
    /// Those of the disk, for what is given back.
    pub fn tend_space(&self) -> Result<(), StorageError> {
        self.core.tend_space(&self.core.store())
    }
}

impl Core {
    /// What is free, and in the reserve, in bytes; a disk that cannot say has enough.
    fn free_and_reserve(&self) -> u64 {
        let free = self.disk.free_bytes(&self.directory).unwrap_or(u64::MAX);
        free.saturating_add(self.reserve.held())
    }

    /// What may be needed for all that is accepted and for frames of `bytes` more, in bytes.
    fn needed(&self, store: &Store, bytes: u64) -> u64 {
        let checkpointed = *self.finished.lock();
        let segment_bytes = store.journal.segment_bytes();
        let unasked = UNASKED_BYTES.min(segment_bytes / 16);
        store.journal.space_needed(bytes + unasked) + store.journal.bytes_behind(checkpointed) + bytes + unasked
    }

    fn disk_full(&self, space: &Space) -> DiskFull {
        DiskFull {
            directory: self.directory.clone(),
            level: space.level,
            free_bytes: space.free_bytes,
            reserve_bytes: space.reserve_bytes,
            needed_bytes: space.needed_bytes,
        }
    }

    /// How the disk is.
    pub(crate) fn space(&self, store: &Store) -> Space {
        self.space_beside(store, 0)
    }

    /// The same, where `in_flight` bytes of frames are accepted, too.
    fn space_beside(&self, store: &Store, in_flight: u64) -> Space {
        let needed_bytes = self.needed(store, in_flight);
        let with_largest = self.needed(store, in_flight + store.journal.max_payload_bytes() as u64);
        let largest = with_largest.saturating_sub(needed_bytes);
        let space = Space {
            free_bytes: self.disk.free_bytes(&self.directory).ok(),
            reserve_bytes: self.reserve.held(),
            reserve_wanted_bytes: self.reserve.wanted(),
            needed_bytes,
            level: SpaceLevel::Normal,
        };
        space.judge(&self.options.space, largest)
    }

    /// Whether space is short, so that a checkpoint is due whatever the journal has grown.
    pub(crate) fn is_short_of_space(&self, store: &Store) -> bool {
        self.space(store).level != SpaceLevel::Normal
    }

    /// Whether space is looked at when nothing else happens.
    pub(crate) fn watches_space(&self, store: &Store) -> bool {
        self.reserve.wanted() > 0 || self.is_short_of_space(store)
    }

    /// See [`Engine::tend_space`].
    pub(crate) fn tend_space(&self, store: &Store) -> Result<(), StorageError> {
        let space = self.space(store);
        let short = space.level != SpaceLevel::Normal;
        store.journal.set_short_of_space(short)?;
        if short {
            let _one = self.maintenance.lock();
            self.purge_journal(store)?;
        }
        // Whoever needs what is free for something that is accepted must find it.
        let unneeded = space.free_bytes.unwrap_or(0).saturating_sub(space.needed_bytes);
        self.reserve.fill(unneeded.saturating_sub(self.options.space.low_bytes));
        Ok(())
    }
}
