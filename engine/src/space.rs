//! Space on the disk: the reserve, the marks, and what is still taken when space runs out.
//!
//! # The promise
//!
//! A frame that was accepted always gets its space: first in the journal, later in the data file. Whoever accepts one
//! asks before ([`crate::Engine::admit`]); the journal itself refuses none, because others may build on it already.
//!
//! # What a frame may need
//!
//! - *In the journal*: the segments that are to be begun for all that waits and for the frame. A spare that is ready has
//!   its bytes; of one that is being made only the rest counts.
//! - *In the data file*: no more bytes than the frame has. To write over what has its bytes needs nothing (on file
//!   systems that write in place, as ext4 and XFS do). New bytes are needed only where a page was allocated since the
//!   finished checkpoint; each of those stands, whole, in a frame behind that checkpoint. So the frames behind the
//!   checkpoint, in bytes, bound what the checkpoint after it needs.
//! - *Elsewhere*: nothing. `node.meta` and `vote` are written whole when they are made, and over themselves from then on;
//!   so are the blocks of cuts and attests, which have their place in a segment that is there.
//!
//! Both together are *needed*; it goes back to nearly nothing when a checkpoint ends. So a checkpoint runs whenever space is
//! short, and journal that nobody needs is given back to the file system instead of being kept as spares.
//!
//! # The reserve
//!
//! `DIR/reserve` is a file without a content. Its bytes are taken from the file system ahead of time, so that nobody else
//! can have them, and given up piece by piece when a segment or a checkpoint finds no space; they are taken again when
//! there is space. The disk is full for everybody else before it is full for the node, and then the node can still
//! finish what it accepted, take deletes, and write the checkpoint after which they are space.
//!
//! *Crash by crash.* Nothing is ever read from the reserve, so there is nothing in it to lose: its length at the next start
//! is what it holds, and the rest is taken again. A refusal comes before anything is queued, and leaves nothing behind. What
//! was accepted stands in the journal; opening needs no new space for it, since a cut and the last group go over bytes that
//! are there, and the checkpoint that is due afterwards finds the reserve as a file that is still there.
//!
//! # The marks
//!
//! What is free, and what the reserve has, and not what is needed: that is the *room*. As long as the reserve is whole and
//! nothing is needed, the room is the reserve and what is free beside it.
//!
//! | level | the room is | of transactions, these are taken |
//! | --- | --- | --- |
//! | normal | at least the reserve and the high mark | all |
//! | no growth | less than that | those after which no more pages are in use than before |
//! | deletes only | less than the reserve and the low mark | those that only delete and drop |
//! | full | less than the largest frame may need | those that change nothing |
//!
//! All of it is looked at anew each time, so nothing has to be told when space is back.
//!
//! # What is left to chance
//!
//! What is free may be taken by somebody else between the look and the use; the reserve may not. If so much was taken that
//! the reserve is used up, a frame that was accepted has no space after all. Then it waits: the journal tries again to
//! make its segment, the checkpoint is tried again, and neither is a failure. Nothing of it is acknowledged meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;

#[cfg(test)]
#[path = "space_test.rs"]
mod space_test;

/// The reserve grows by pieces of this many bytes.
const PIECE_BYTES: u64 = 16 << 20;

/// How much space is kept, in bytes. All is 0 by default: then only what is accepted has its space.
/// [`EngineOptions`](crate::EngineOptions) shows how to set them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SpaceOptions {
    /// The size of the reserve. It should hold some segments of the journal.
    pub reserve_bytes: u64,
    /// The low mark: with less than this free beside the reserve, only deletes are taken.
    pub low_bytes: u64,
    /// The high mark: with less than this free beside the reserve, nothing is taken that grows.
    pub high_bytes: u64,
}

/// What a transaction does to the space that the database takes; what [`crate::Batch::footprint`] says.
/// Exhaustive: whoever admits transactions decides on each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Footprint {
    /// It changed nothing.
    Nothing,
    /// It only deleted entries, or dropped trees.
    Deletes,
    /// It wrote, and no more pages are in use than before.
    Keeps,
    /// More pages are in use than before.
    Grows,
}

/// How short of space a node is; later ones are worse. Exhaustive: nodes tell each other the place in [`Self::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum SpaceLevel {
    /// There is space.
    #[default]
    Normal,
    /// Nothing is taken that grows.
    NoGrowth,
    /// Only deletes and drops are taken.
    DeletesOnly,
    /// Nothing is taken.
    Full,
}

impl SpaceLevel {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::Normal, Self::NoGrowth, Self::DeletesOnly, Self::Full];

    /// Whether a transaction is taken.
    #[must_use]
    pub fn admits(self, footprint: Footprint) -> bool {
        match self {
            Self::Normal => true,
            Self::NoGrowth => footprint != Footprint::Grows,
            Self::DeletesOnly => matches!(footprint, Footprint::Nothing | Footprint::Deletes),
            Self::Full => footprint == Footprint::Nothing,
        }
    }

    /// What an operator reads.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::NoGrowth => "no growth",
            Self::DeletesOnly => "deletes only",
            Self::Full => "full",
        }
    }
}

/// How a node's disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Space {
    /// Free bytes on the file system; `None` where it cannot say: then there is taken to be enough.
    pub free_bytes: Option<u64>,
    /// Bytes that the reserve holds.
    pub reserve_bytes: u64,
    /// Bytes that it is to hold.
    pub reserve_wanted_bytes: u64,
    /// Bytes that may still be needed for what is accepted.
    pub needed_bytes: u64,
    /// How short of space that is.
    pub level: SpaceLevel,
}

impl Space {
    /// What is free, and in the reserve, and not needed, in bytes.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let Some(free) = self.free_bytes else { return u64::MAX };
        free.saturating_add(self.reserve_bytes).saturating_sub(self.needed_bytes)
    }

    /// Sets the level; `largest_bytes` is what the largest frame may need.
    pub(crate) fn judge(mut self, options: &SpaceOptions, largest_bytes: u64) -> Self {
        let mark = |bytes: u64| options.reserve_bytes.saturating_add(bytes);
        self.level = match self.room_bytes() {
            room if room < largest_bytes => SpaceLevel::Full,
            room if room < mark(options.low_bytes) => SpaceLevel::DeletesOnly,
            room if room < mark(options.high_bytes) => SpaceLevel::NoGrowth,
            _ => SpaceLevel::Normal,
        };
        self
    }
}

/// A transaction was refused for want of space. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of {} is short of space ({}): {} bytes are free, {} in the reserve, and {needed_bytes} may be needed for what \
     was accepted before. Nothing was changed. Free space on that file system, or delete data; {}",
    directory.display(), level.words(), free_bytes.unwrap_or(u64::MAX), reserve_bytes, next(*level)
)]
#[non_exhaustive]
pub struct DiskFull {
    /// The directory of the database.
    pub directory: PathBuf,
    /// How short of space it is.
    pub level: SpaceLevel,
    /// Free bytes on the file system.
    pub free_bytes: Option<u64>,
    /// Bytes in the reserve.
    pub reserve_bytes: u64,
    /// Bytes that may be needed for what was accepted before, and for this.
    pub needed_bytes: u64,
}

/// What may be tried, at a level.
fn next(level: SpaceLevel) -> &'static str {
    match level {
        SpaceLevel::Normal | SpaceLevel::NoGrowth => "what needs no more pages than before is still taken",
        SpaceLevel::DeletesOnly => "deletes and drops are still taken",
        SpaceLevel::Full => "nothing is taken until then, and it goes on by itself",
    }
}

/// Bytes of the file system that are kept for what was accepted.
pub struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    wanted: u64,
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    held: AtomicU64,
}

impl Reserve {
    /// Finds what the reserve of a directory holds; more than `wanted` bytes is given back. [`Self::fill`] takes what is
    /// missing.
    pub(crate) fn open(disk: Arc<dyn Disk>, directory: &Path, wanted: u64) -> Result<Self, StorageError> {
        let path = directory.join("reserve");
        let mut held = 0;
        let mut file = None;
        if disk.exists(&path)? {
            if wanted == 0 {
                disk.remove_file(&path)?;
            } else {
                let found = disk.open(&path, OpenMode::Write)?;
                held = found.len()?;
                if held > wanted {
                    found.set_len(wanted)?;
                    held = wanted;
                }
                file = Some(found);
            }
        }
        Ok(Self { disk, path, wanted, file: Mutex::new(file), held: AtomicU64::new(held) })
    }

    /// Bytes that it holds.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Bytes that it is to hold.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Gives up to `bytes` back to the file system, for whoever found none there. Returns how many: 0 when it is used up.
    pub(crate) fn give(&self, bytes: u64) -> u64 {
        let file = self.file.lock();
        let Some(file) = &*file else { return 0 };
        let held = self.held();
        let given = bytes.min(held);
        if given == 0 {
            return 0;
        }
        if let Err(error) = file.set_len(held - given) {
            tracing::warn!(%error, "the reserve cannot be drawn on");
            return 0;
        }
        tracing::warn!(given, left = held - given, "the disk is full: the reserve is drawn on");
        self.held.store(held - given, Ordering::Release);
        given
    }

    /// Takes up to `most` bytes of what is missing. That there is no space for it is no failure.
    pub(crate) fn fill(&self, most: u64) {
        let mut file = self.file.lock();
        let until = self.held().saturating_add(most).min(self.wanted);
        while self.held() < until {
            let (held, piece) = (self.held(), (until - self.held()).min(PIECE_BYTES));
            if let Err(error) = self.take(&mut file, held, piece) {
                tracing::debug!(%error, "the reserve is not whole");
                return;
            }
            self.held.store(held + piece, Ordering::Release);
        }
    }

    /// Makes the file longer. After an error it is as long as before, if the disk lets it.
    fn take(&self, file: &mut Option<Arc<dyn DiskFile>>, held: u64, piece: u64) -> Result<(), StorageError> {
        let file = match file {
            Some(file) => file,
            none => none.insert(self.disk.open(&self.path, OpenMode::CreateNew)?),
        };
        let taken = file.allocate(held, piece).and_then(|()| file.sync_data());
        if taken.is_err() {
            file.set_len(held)?;
        }
        taken
    }
}
