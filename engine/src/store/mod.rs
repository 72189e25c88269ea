//! A store: the data file, the page versions, the journal and the applied and staged state of one generation.
//!
//! ```text
//!   batch --seal--> staged ==append, quorum==> apply --publish--> applied --checkpoint--> data file
//!                     |                          |
//!                     +-- drop_staged            +-- decode (a frame that is not the head of the staged batches)
//! ```
//!
//! The order of pointers, asserted where they move: `checkpointed <= target <= min(applied, durable here)`.
//!
//! A store is shared by the engine's handles and by every reader and batch, which may outlive them. So the lock of the
//! node's directory belongs to the store too: another process, or this one, opens the directory only when nobody can
//! reach this store any more. Were it opened earlier, its checkpoints would write pages under the slices that a reader
//! holds, and its journal would be attested by two. The journal is closed with the engine's last handle: behind that
//! nobody can append, and what a reader needs of the store is pages.
//!
//! Locks, in the order in which they are taken: the batch lock (one open batch; also held to drop staged versions and to
//! decode, so that an open batch never sees pages change under it), then `head`, then the readers' registry, then a
//! shard of the version table.

mod apply;
mod data_file;
mod head;
mod marks;
mod memory;
mod new_pages;
mod proof;
mod state;
mod sums;

#[cfg(test)]
mod apply_test;
#[cfg(test)]
mod proof_test;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

pub(crate) use apply::image_at;
pub use apply::{Applied, ApplyError, Published};
pub(crate) use data_file::{DataFile, offset_of};
pub use head::{BatchId, Head, StagedBatch, StagedState};
pub(crate) use marks::{Mark, Marks};
pub(crate) use new_pages::{AtOnce, NewPages};
pub(crate) use proof::{NoProof, carried, digest_of_file};
pub use state::{AppliedState, View};
pub(crate) use sums::PageSums;

use crate::alloc::Allocator;
use crate::btree::{PageRef, PageSource, ReadError, SplitPolicy};
use crate::env::Disk;
use crate::ids::{Generation, PageNumber, TxnId};
use crate::journal::Journal;
use crate::txn::Compaction;
use crate::versions::{Image, Readers, VersionTable};

/// What a store counts; plain numbers since it was opened.
#[derive(Default, Debug)]
pub struct Counters {
    /// Changes to trees made by executing operations: 0 on a node that only follows.
    pub tree_mutations: AtomicU64,
    /// Records that did not build on the applied state.
    pub void_records: AtomicU64,
    /// Finished checkpoints.
    pub checkpoints: AtomicU64,
    /// Records published from staged versions.
    pub published_records: AtomicU64,
    /// Records decoded from their bytes.
    pub decoded_records: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// Bounds that a store keeps.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// The bound on the bytes of versions: see `store/memory.rs`.
    pub version_bytes: usize,
    /// How a page splits.
    pub split_policy: SplitPolicy,
}

/// Where a generation stands.
pub(crate) struct Home {
    pub(crate) generation: Generation,
    /// Its own, within the node's.
    pub(crate) directory: PathBuf,
    /// Of the node's directory.
    pub(crate) lock: Arc<dyn Send + Sync>,
}

/// One generation, open.
pub struct Store {
    pub(crate) generation: Generation,
    pub(crate) directory: PathBuf,
    pub(crate) data: DataFile,
    pub(crate) versions: VersionTable,
    pub(crate) readers: Readers<View>,
    pub(crate) head: Mutex<Head>,
    pub(crate) batch_lock: Arc<Mutex<()>>,
    pub(crate) journal: Journal,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: StoreLimits,
    /// The txn id of the finished checkpoint.
    checkpointed: AtomicU64,
    /// Signalled when versions were dropped or staged batches left: whoever waits for memory looks again.
    pub(crate) memory_freed: Condvar,
    pub(crate) memory_lock: Mutex<()>,
    /// Where the moving of pages from the end of the file goes on. Taken with the batch lock held.
    pub(crate) compaction: Mutex<Compaction>,
    /// States that the journal passed through.
    pub(crate) marks: Marks,
    /// What removes the directory when the last user of this store goes, once another generation has taken its place.
    pub(crate) retired: std::sync::OnceLock<Arc<dyn Disk>>,
    /// Last: a reader or a batch that outlives its engine still uses the files, and nobody else may meanwhile.
    _lock: Arc<dyn Send + Sync>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.journal.close();
        if let Some(disk) = self.retired.get()
            && let Err(error) = disk.remove_dir_all(&self.directory)
        {
            tracing::warn!(%error, "a generation that is out of use goes at the next start");
        }
    }
}

impl Store {
    /// A store whose applied state is `view` and whose finished checkpoint is of `checkpointed`, with no versions.
    pub(crate) fn new(
        home: Home,
        data: DataFile,
        journal: Journal,
        view: View,
        counters: Arc<Counters>,
        limits: StoreLimits,
        checkpointed: TxnId,
    ) -> Self {
        let Home { generation, directory, lock } = home;
        let view = Arc::new(view);
        Self {
            generation,
            directory,
            data,
            versions: VersionTable::default(),
            readers: Readers::new(view.applied.txn_id, view.clone()),
            head: Mutex::new(Head::new(view)),
            batch_lock: Arc::default(),
            journal,
            counters,
            limits,
            checkpointed: AtomicU64::new(checkpointed.0),
            memory_freed: Condvar::new(),
            memory_lock: Mutex::new(()),
            compaction: Mutex::default(),
            marks: Marks::default(),
            retired: std::sync::OnceLock::new(),
            _lock: lock,
        }
    }

    /// Another generation has taken this one's place: its files go with its last user.
    pub(crate) fn retire(&self, disk: &Arc<dyn Disk>) {
        // A second call says the same.
        let _ = self.retired.set(disk.clone());
    }

    /// The page as a snapshot shows it. The snapshot must be registered, or the batch lock held.
    pub(crate) fn page_at(&self, number: PageNumber, snapshot: TxnId) -> Result<PageRef<'_>, ReadError> {
        match self.versions.newest_at(number, snapshot) {
            Some(Image::Page(page)) => Ok(PageRef::Version(page)),
            Some(Image::Free) => Ok(PageRef::Version(Arc::from(crate::page::Page::zeroed()))),
            None => Ok(self.data.read(number)?),
        }
    }

    /// The page as the map has it, if every snapshot that may be read sees it there.
    pub(crate) fn page_at_hand(&self, number: PageNumber) -> Option<&crate::page::Page> {
        if self.versions.has_any(number) { None } else { self.data.page_at_hand(number) }
    }

    /// The allocator of a state.
    pub(crate) fn load_allocator(&self, view: &View) -> Result<Allocator, ReadError> {
        let source = SnapshotPages { store: self, snapshot: view.applied.txn_id };
        Allocator::load(&source, view.superblock.page_count)
    }
}

/// The pages of a snapshot, for whoever makes sure that it stays.
pub(crate) struct SnapshotPages<'a> {
    pub(crate) store: &'a Store,
    pub(crate) snapshot: TxnId,
}

impl PageSource for SnapshotPages<'_> {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.store.page_at(number, self.snapshot)
    }
}
