//! What a checkpoint does between the pieces that it writes: it gives the disk what it has written, and lets the journal
//! go first. How fast it goes on is for [`Pacer`] to say.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::{Core, Faults};
use crate::checkpoint::{Bounds, Pacer, Progress, Seen};
use crate::error::StorageError;
use crate::store::Store;

/// The checkpoint looks around after so many pages, 512 KiB, so that a journal sync beside it does not wait long.
const PAGES_PER_LOOK: usize = 64;
/// It syncs after so many pages, 4 MiB: one sync of a whole checkpoint keeps the disk busy for a tenth of a second, and
/// the journal waits behind it.
const PAGES_PER_SYNC: usize = 512;
/// As above for one that is spread: it has the time.
const PAGES_PER_SPREAD_SYNC: usize = 128;

/// How fast a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speed {
    /// As fast as it can, but for a breath where the journal has something to write.
    Full,
    /// Spread over the time until the next one.
    Spread,
}

/// The pieces of one checkpoint.
pub(super) struct Pieces<'a> {
    core: &'a Core,
    store: &'a Store,
    began: Instant,
    /// Of a checkpoint that is spread.
    pacer: Option<RefCell<Pacer>>,
    looked: Cell<usize>,
    synced: Cell<usize>,
}

impl<'a> Pieces<'a> {
    pub(super) fn begin(core: &'a Core, store: &'a Store, speed: Speed) -> Self {
        let pieces =
            Self { core, store, began: Instant::now(), pacer: None, looked: Cell::new(0), synced: Cell::new(0) };
        let bounds = Bounds {
            interval_bytes: core.options.checkpoint_journal_bytes,
            version_bytes: core.options.version_bytes_limit,
        };
        let pacer = (speed == Speed::Spread).then(|| RefCell::new(Pacer::new(bounds, pieces.seen())));
        Self { pacer, ..pieces }
    }

    fn seen(&self) -> Seen {
        let journal = self.store.journal.stats();
        Seen {
            time: self.began.elapsed(),
            journal_bytes: journal.bytes_written,
            sync: journal.recent_sync,
            version_bytes: self.store.versions.bytes(),
            awaited: self.core.bell.is_awaited() || self.core.is_short_of_space(self.store),
        }
    }

    /// A piece is written.
    pub(super) fn wrote(&self, progress: Progress) -> Result<(), StorageError> {
        let pages_per_sync = if self.pacer.is_some() { PAGES_PER_SPREAD_SYNC } else { PAGES_PER_SYNC };
        if progress.written - self.synced.get() >= pages_per_sync
            && !Faults::planted(self.core.options.faults.no_data_sync)
        {
            self.store.data.sync()?;
            self.synced.set(progress.written);
        }
        if progress.written - self.looked.get() >= PAGES_PER_LOOK {
            self.looked.set(progress.written);
            self.wait(progress);
        }
        Ok(())
    }

    fn wait(&self, progress: Progress) {
        const BREATH: Duration = Duration::from_micros(500);
        match &self.pacer {
            Some(pacer) => {
                let mut pacer = pacer.borrow_mut();
                while let Some(pause) = pacer.wait(progress.written, progress.all, &self.seen()) {
                    self.core.bell.pause_checkpoint(pause);
                }
            }
            // Page writes beside the journal's syncs halve their rate.
            None if self.store.journal.pending_bytes() > 0 => std::thread::sleep(BREATH),
            None => {}
        }
    }
}
