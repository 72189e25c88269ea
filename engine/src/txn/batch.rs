//! A batch: the transactions that are merged into one frame, executed one after the other.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::ArcMutexGuard;

use super::error::BatchError;
use super::in_tree::InTree;
use super::names::TreeNames;
use super::ops::OperationKind;
use super::pages::BatchPages;
use super::record::RECORD_HEADER_BYTES;
use super::savepoint::OpenTxn;
use super::trees::{OpenTrees, TreeInfo};
use crate::btree::{
    self, Appended, Cursor, Edge, Entry, MAX_KEY_BYTES, MAX_VALUE_BYTES, PageRef, PageSource, ReadError, Step,
    TreeKind, TreeState,
};
use crate::ids::{Digest, PageNumber, Timeline, TxnId};
use crate::journal::frame::MAX_PAYLOAD_BYTES;
use crate::page::PAGE_BYTES;
use crate::page::superblock::Superblock;
use crate::store::Store;

/// How much larger than its record the changed pages of a batch may be in memory. The record of a page that changed in a
/// few bytes is a hundredth of the page; what is between is a matter of memory, not of the journal.
pub const PAGES_PER_RECORD: usize = 4;

/// An operation of the batch, whose value's place is known when the batch ends.
pub(super) struct Pending {
    pub(super) txn: u32,
    pub(super) kind: OperationKind,
    /// Its place among the names.
    pub(super) tree: u16,
    pub(super) key: Vec<u8>,
    pub(super) value: PendingValue,
}

pub(super) enum PendingValue {
    None,
    Inline(Vec<u8>),
    /// In the tree, under the operation's key; where it was put, if that is known.
    InTree(Option<Step>),
}

/// An open batch. Only one is open at a time; dropping it drops what it did.
///
/// Each transaction runs between [`Self::begin_txn`] and [`Self::commit_txn`] or [`Self::rollback_txn`].
pub struct Batch {
    pub(super) store: Arc<Store>,
    pub(super) pages: BatchPages,
    pub(super) trees: OpenTrees,
    pub(super) superblock: Superblock,
    pub(super) digest: Digest,
    pub(super) builds_on: TxnId,
    pub(super) last_txn: TxnId,
    pub(super) operations: Vec<Pending>,
    pub(super) names: TreeNames,
    pub(super) in_tree: InTree,
    /// The operations that took their value into themselves since the open transaction began, oldest first.
    pub(super) kept: Vec<usize>,
    pub(super) operation_bytes: usize,
    pub(super) record_limit: usize,
    pub(super) open: Option<OpenTxn>,
    /// Last, so that it is released last.
    pub(super) exclusive: ArcMutexGuard<parking_lot::RawMutex, ()>,
}

impl Batch {
    /// Opens a batch on the newest staged state; waits while another is open.
    pub(crate) fn begin(store: Arc<Store>) -> Result<Self, BatchError> {
        let exclusive = store.batch_lock.lock_arc();
        let (builds_on, superblock, digest) = store.head.lock().newest();
        let allocator = store.newest_allocator()?;
        let pages = BatchPages::new(store.clone(), builds_on, allocator, superblock.page_count);
        let trees = OpenTrees::new(superblock.trees);
        let mut batch = Self {
            store,
            pages,
            trees,
            superblock,
            digest,
            builds_on,
            last_txn: builds_on,
            operations: Vec::new(),
            names: TreeNames::default(),
            in_tree: InTree::default(),
            kept: Vec::new(),
            operation_bytes: 0,
            record_limit: 0,
            open: None,
            exclusive,
        };
        batch.limit_record(MAX_PAYLOAD_BYTES);
        Ok(batch)
    }

    /// Lets the record begin another timeline. Whoever has the state that this batch builds on takes it for void: only the
    /// directory in which it is made may have it applied.
    pub(crate) fn begin_timeline(&mut self, timeline: Timeline) {
        self.superblock.timeline = timeline;
    }

    /// Sets the most that the record may take, in bytes; no frame has more than 16 MiB, or than a segment of the journal
    /// holds. [`Self::seal`] keeps to it. The pages that the batch changes may take [`PAGES_PER_RECORD`] times as much in
    /// memory: an operation that needs more fails with [`BatchError::TooManyPages`].
    pub fn limit_record(&mut self, bytes: usize) {
        let bytes = bytes.min(MAX_PAYLOAD_BYTES);
        self.record_limit = bytes.min(self.store.journal.max_payload_bytes());
        self.pages.limit_memory(PAGES_PER_RECORD * bytes);
    }

    /// The most that the record may take, in bytes.
    #[must_use]
    pub fn record_limit(&self) -> usize {
        self.record_limit
    }

    /// The newest staged transaction that this batch sees of those before it.
    #[must_use]
    pub fn builds_on(&self) -> TxnId {
        self.builds_on
    }

    /// The timeline of the state that this batch builds on.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.superblock.timeline
    }

    /// How many transactions have changed something.
    #[must_use]
    pub fn txns(&self) -> u64 {
        self.last_txn.0 - self.builds_on.0
    }

    /// Whether no transaction has changed anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last_txn == self.builds_on
    }

    /// Fails if the record may come out larger than its limit, by [`Self::record_bytes_bound`].
    pub fn check_record_bound(&self) -> Result<(), BatchError> {
        let (bytes, limit) = (self.record_bytes_bound(), self.record_limit);
        if bytes > limit { Err(BatchError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// What the pages that the batch changed take in memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pages.memory_bytes()
    }

    /// An upper bound of the record's size, in bytes. It counts each changed page as a whole one: where many pages
    /// changed a little, the record is far smaller, as [`Self::seal`] finds out.
    #[must_use]
    pub fn record_bytes_bound(&self) -> usize {
        // The superblock, and the branches above the tree of trees' leaves.
        const AT_THE_END: usize = 8 * PAGE_BYTES;
        // A tree that changed gets its new state in place: header, ranges and bytes of that diff.
        const PER_OPEN_TREE: usize = 128;
        RECORD_HEADER_BYTES
            + self.pages.bytes_bound()
            + self.operation_bytes
            + self.trees.count() * PER_OPEN_TREE
            + AT_THE_END
    }

    pub(super) fn note(
        &mut self,
        kind: OperationKind,
        tree: &str,
        key: &[u8],
        value: PendingValue,
    ) -> Result<(), BatchError> {
        let named = self.names.place_of(tree).ok_or(BatchError::TooManyTrees)?;
        let open = self.open.as_mut().expect("operations run in a transaction");
        open.changed = true;
        let inline = if let PendingValue::Inline(bytes) = &value { bytes.len() } else { 0 };
        self.operation_bytes += 24 + tree.len() + key.len() + inline + in_tree_of_trees(kind);
        let txn = u32::try_from(self.txns()).expect("a batch is bounded in bytes");
        self.operations.push(Pending { txn, kind, tree: named, key: key.to_vec(), value });
        Ok(())
    }

    /// Whether there is a tree of this name.
    pub fn tree_exists(&self, tree: &str) -> Result<bool, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.is_some())
    }

    /// What there is to know of a tree as it is now; `None` if there is none of this name.
    pub fn tree_info(&self, tree: &str) -> Result<Option<TreeInfo>, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.map(|state| TreeInfo::new(tree.to_owned(), &state)))
    }

    /// All trees as they are now, by name.
    pub fn list_trees(&self) -> Result<Vec<TreeInfo>, BatchError> {
        let trees = self.trees.list(&self.pages)?;
        Ok(trees.into_iter().map(|(name, state)| TreeInfo::new(name, &state)).collect())
    }

    /// Makes an empty tree; `false` if it was there.
    ///
    /// # Errors
    /// [`BatchError::ManyValues`] if there is a multi-value tree of this name.
    pub fn create_tree(&mut self, tree: &str) -> Result<bool, BatchError> {
        self.create(tree, TreeKind::Plain)
    }

    pub(super) fn create(&mut self, tree: &str, kind: TreeKind) -> Result<bool, BatchError> {
        let state = self.trees.open(&self.pages, tree)?;
        if let Some(state) = state {
            return if state.kind == kind { Ok(false) } else { Err(BatchError::other_kind(state.kind, tree)) };
        }
        *state = Some(TreeState::empty(kind));
        let operation = match kind {
            TreeKind::Plain => OperationKind::CreateTree,
            TreeKind::Multi => OperationKind::CreateMultiTree,
        };
        self.note(operation, tree, &[], PendingValue::None)?;
        Ok(true)
    }

    /// Drops a tree with all its entries; `false` if it was not there.
    pub fn drop_tree(&mut self, tree: &str) -> Result<bool, BatchError> {
        // Before it is walked: one that is too large would be walked for nothing.
        let pages = self.trees.look(&self.pages, tree)?.map_or(0, |state| state.pages);
        self.pages.may_free(pages)?;
        self.keep_values(tree, Bound::Unbounded, Bound::Unbounded)?;
        let Some(mut state) = self.trees.open(&self.pages, tree)?.take() else { return Ok(false) };
        btree::destroy(&mut self.pages, &mut state)?;
        self.note(OperationKind::DropTree, tree, &[], PendingValue::None)?;
        Ok(true)
    }

    /// Renames a tree; `false` if there is none of the old name.
    pub fn rename_tree(&mut self, tree: &str, new_name: &str) -> Result<bool, BatchError> {
        if self.trees.open(&self.pages, new_name)?.is_some() {
            return Err(BatchError::TreeExists(new_name.to_owned()));
        }
        self.keep_values(tree, Bound::Unbounded, Bound::Unbounded)?;
        let Some(state) = self.trees.open(&self.pages, tree)?.take() else { return Ok(false) };
        *self.trees.open(&self.pages, new_name)? = Some(state);
        self.note(OperationKind::RenameTree, tree, &[], PendingValue::Inline(new_name.as_bytes().to_vec()))?;
        Ok(true)
    }

    /// The entry of a key, as the transactions so far left it. `None` also if there is no such tree.
    pub fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Entry<'_>>, BatchError> {
        match self.trees.look(&self.pages, tree)? {
            Some(state) => Ok(btree::get(&self.pages, &state, key)?),
            None => Ok(None),
        }
    }

    /// A cursor over a tree; `None` if there is none of this name.
    pub fn cursor(&self, tree: &str) -> Result<Option<Cursor<'_, BatchPages>>, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.map(|state| Cursor::new(&self.pages, state)))
    }

    pub(super) fn tree_mut<'a>(
        trees: &'a mut OpenTrees,
        pages: &BatchPages,
        tree: &str,
    ) -> Result<&'a mut TreeState, BatchError> {
        trees.open(pages, tree)?.as_mut().ok_or_else(|| BatchError::NoSuchTree(tree.to_owned()))
    }

    /// A plain tree, to put into.
    fn plain_at_edge<'a>(
        trees: &'a mut OpenTrees,
        pages: &BatchPages,
        tree: &str,
    ) -> Result<(&'a mut TreeState, &'a mut Edge), BatchError> {
        let (state, edge) = trees.open_at_edge(pages, tree)?;
        let state = state.as_mut().ok_or_else(|| BatchError::NoSuchTree(tree.to_owned()))?;
        if state.kind == TreeKind::Plain { Ok((state, edge)) } else { Err(BatchError::other_kind(state.kind, tree)) }
    }

    /// A plain tree, to change.
    pub(super) fn plain_mut<'a>(
        trees: &'a mut OpenTrees,
        pages: &BatchPages,
        tree: &str,
    ) -> Result<&'a mut TreeState, BatchError> {
        let state = Self::tree_mut(trees, pages, tree)?;
        if state.kind == TreeKind::Plain { Ok(state) } else { Err(BatchError::other_kind(state.kind, tree)) }
    }

    /// Writes a key; the version of what it replaces.
    pub fn put(&mut self, tree: &str, key: &[u8], value: &[u8]) -> Result<Option<TxnId>, BatchError> {
        check_key(key)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(BatchError::ValueLength(value.len()));
        }
        let version = self.last_txn.next();
        let appended = self.append(tree, key, value, version)?;
        // No operation of the batch has its value in the tree under a key that is above all others.
        if appended == Appended::NotAtEdge {
            self.keep_value(tree, key)?;
        }
        let (previous, place) = if let Appended::Done(place) = appended {
            (None, Some(place))
        } else {
            let (state, edge) = Self::plain_at_edge(&mut self.trees, &self.pages, tree)?;
            let put = btree::insert_minding(&mut self.pages, state, edge, key, value, version)?;
            (put.previous, put.place)
        };
        self.note(OperationKind::Put, tree, key, PendingValue::InTree(place))?;
        Ok(previous)
    }

    /// Writes a key that is above all others of its tree, if it is known to be one.
    fn append(&mut self, tree: &str, key: &[u8], value: &[u8], version: TxnId) -> Result<Appended, BatchError> {
        let (state, edge) = Self::plain_at_edge(&mut self.trees, &self.pages, tree)?;
        Ok(btree::append(&mut self.pages, state, edge, key, value, version)?)
    }

    /// Deletes a key, in a multi-value tree with all its values; the version of what it deletes, `None` if it was not
    /// there.
    pub fn delete(&mut self, tree: &str, key: &[u8]) -> Result<Option<TxnId>, BatchError> {
        check_key(key)?;
        self.keep_value(tree, key)?;
        let state = Self::tree_mut(&mut self.trees, &self.pages, tree)?;
        let previous = btree::remove(&mut self.pages, state, key)?;
        if previous.is_some() {
            self.note(OperationKind::Delete, tree, key, PendingValue::None)?;
        }
        Ok(previous)
    }

    /// Deletes the keys of a range; how many there were. A bound may be empty, but no longer than a key.
    pub fn delete_range(&mut self, tree: &str, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<u64, BatchError> {
        check_bounds(start, end)?;
        self.keep_values(tree, start, end)?;
        let state = Self::tree_mut(&mut self.trees, &self.pages, tree)?;
        let deleted = btree::remove_range(&mut self.pages, state, start, end)?;
        if deleted > 0 {
            self.note_deleted_range(tree, start, end)?;
        }
        Ok(deleted)
    }

    pub(super) fn note_deleted_range(
        &mut self,
        tree: &str,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<(), BatchError> {
        let (first, bounds) = encode_range(start, end);
        self.note(OperationKind::DeleteRange, tree, &first, PendingValue::Inline(bounds))
    }

    /// Before a key changes again: an earlier operation of this batch on it keeps its value itself.
    pub(super) fn keep_value(&mut self, tree: &str, key: &[u8]) -> Result<(), BatchError> {
        let Some(tree) = self.names.find(tree) else { return Ok(()) };
        let Some(place) = self.in_tree.take(&self.operations, tree, key) else { return Ok(()) };
        self.kept.push(place);
        self.materialise(place)
    }

    /// As [`Self::keep_value`], for every operation in a range.
    pub(super) fn keep_values(&mut self, tree: &str, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<(), BatchError> {
        let Some(tree) = self.names.find(tree) else { return Ok(()) };
        let places = self.in_tree.take_range(&self.operations, tree, start, end);
        // Noted before one of them fails: going back puts them all back.
        self.kept.extend(&places);
        places.into_iter().try_for_each(|place| self.materialise(place))
    }

    fn materialise(&mut self, place: usize) -> Result<(), BatchError> {
        let pending = &self.operations[place];
        assert!(matches!(pending.value, PendingValue::InTree(_)), "an operation whose value was taken already");
        let tree = self.names.get(pending.tree);
        let entry = self.get(tree, &pending.key)?.expect("what the batch wrote is there until it changes it");
        let bytes = entry.value.to_vec()?;
        self.operation_bytes += bytes.len();
        self.operations[place].value = PendingValue::Inline(bytes);
        Ok(())
    }
}

impl PageSource for Batch {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.pages.page(number)
    }
}

/// A bound may be empty, but no longer than a key.
pub(super) fn check_bounds(start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<(), BatchError> {
    for bound in [start, end] {
        if let Bound::Included(key) | Bound::Excluded(key) = bound
            && key.len() > MAX_KEY_BYTES
        {
            return Err(BatchError::KeyLength(key.len()));
        }
    }
    Ok(())
}

pub(super) fn check_key(key: &[u8]) -> Result<(), BatchError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(BatchError::KeyLength(key.len()));
    }
    Ok(())
}

/// What an operation makes the tree of trees need at the end, in bytes: a name that comes or goes changes a leaf and at
/// most one beside it.
fn in_tree_of_trees(kind: OperationKind) -> usize {
    match kind {
        OperationKind::Put
        | OperationKind::Delete
        | OperationKind::DeleteRange
        | OperationKind::AddValue
        | OperationKind::RemoveValue
        | OperationKind::RemoveValues => 0,
        OperationKind::CreateTree | OperationKind::CreateMultiTree | OperationKind::DropTree => 2 * PAGE_BYTES,
        OperationKind::RenameTree => 4 * PAGE_BYTES,
    }
}

/// A range as an operation carries it: the start as its key; in the value, one byte of bounds (1: start excluded,
/// 2: end excluded, 4: end included, neither: no end) and the end.
pub(super) fn encode_range(start: Bound<&[u8]>, end: Bound<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let (start, start_bits) = match start {
        Bound::Included(key) => (key, 0),
        Bound::Excluded(key) => (key, 1),
        Bound::Unbounded => (&[][..], 0),
    };
    let (end, end_bits) = match end {
        Bound::Excluded(key) => (key, 2),
        Bound::Included(key) => (key, 4),
        Bound::Unbounded => (&[][..], 0),
    };
    let mut bounds = vec![start_bits | end_bits];
    bounds.extend_from_slice(end);
    (start.to_vec(), bounds)
}
