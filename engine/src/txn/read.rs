//! Reading a snapshot.

use std::ops::Bound;

use super::trees::{self, TreeInfo};
use crate::btree::{self, Cursor, Entry, PageRef, PageSource, Range, ReadError, TreeState};
use crate::engine::ReadersStore;
use crate::ids::{PageNumber, TxnId};
use crate::page::Page;
use crate::store::View;
use crate::versions::Registration;

/// A snapshot of the applied state. Never blocks a writer, and is never blocked by one. Threads may share it; a clone is
/// another reader of the same snapshot.
///
/// When page versions exceed their bound, the oldest reader is expired: its next access says [`ReadError::Expired`].
pub struct ReadTxn {
    // Dropped before the store, which may be the last user of its files.
    registration: Registration<View>,
    store: ReadersStore,
}

impl Clone for ReadTxn {
    #[track_caller]
    fn clone(&self) -> Self {
        Self { registration: self.registration.clone(), store: self.store.clone() }
    }
}

impl ReadTxn {
    #[track_caller]
    pub(crate) fn open(store: ReadersStore) -> Self {
        Self { registration: store.readers.open(), store }
    }

    /// The newest transaction that the snapshot shows.
    #[must_use]
    pub fn txn_id(&self) -> TxnId {
        self.registration.txn_id()
    }

    /// Whether this reader was expired: every access says so. Whoever holds one without accessing it asks now and then, and
    /// drops it.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.registration.is_expired()
    }

    /// The state that the snapshot shows.
    #[doc(hidden)]
    #[must_use]
    pub fn view(&self) -> &View {
        self.registration.state()
    }

    /// The state of a tree.
    #[doc(hidden)]
    pub fn tree(&self, name: &str) -> Result<Option<TreeState>, ReadError> {
        trees::find(self, &self.view().superblock.trees, name)
    }

    /// A tree, found once for many reads; `None` if there is none of this name.
    pub fn open_tree(&self, name: &str) -> Result<Option<TreeView<'_>>, ReadError> {
        Ok(self.tree(name)?.map(|state| TreeView { snapshot: self, state }))
    }

    /// What there is to know of a tree without reading it; `None` if there is none of this name.
    pub fn tree_info(&self, name: &str) -> Result<Option<TreeInfo>, ReadError> {
        Ok(self.tree(name)?.map(|state| TreeInfo::new(name.to_owned(), &state)))
    }

    /// What there is to know of all trees, by name.
    pub fn list_trees(&self) -> Result<Vec<TreeInfo>, ReadError> {
        Ok(self.trees()?.into_iter().map(|(name, state)| TreeInfo::new(name, &state)).collect())
    }

    /// The states of all trees, by name.
    #[doc(hidden)]
    pub fn trees(&self) -> Result<Vec<(String, TreeState)>, ReadError> {
        trees::list(self, &self.view().superblock.trees)
    }

    /// The entry of a key; `None` also if there is no such tree. Whoever reads many keys of a tree finds the tree once, by
    /// [`Self::open_tree`].
    pub fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Entry<'_>>, ReadError> {
        match self.tree(tree)? {
            Some(state) => btree::get(self, &state, key),
            None => Ok(None),
        }
    }

    /// A cursor over a tree; `None` if there is none of this name.
    pub fn cursor(&self, tree: &str) -> Result<Option<Cursor<'_, Self>>, ReadError> {
        Ok(self.tree(tree)?.map(|state| Cursor::new(self, state)))
    }

    /// The entries of a tree between two bounds; `None` if there is no tree of this name.
    pub fn range(
        &self,
        tree: &str,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<Option<Range<'_, Self>>, ReadError> {
        Ok(self.tree(tree)?.map(|state| Range::new(self, state, start, end)))
    }

    /// The entries of a tree whose keys begin with `prefix`; `None` if there is no tree of this name.
    pub fn prefix(&self, tree: &str, prefix: &[u8]) -> Result<Option<Range<'_, Self>>, ReadError> {
        Ok(self.tree(tree)?.map(|state| Range::with_prefix(self, state, prefix)))
    }

    /// How many entries of a tree lie between two bounds, without a look at all of them; `None` if there is no tree of
    /// this name.
    pub fn count_range(&self, tree: &str, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<Option<u64>, ReadError> {
        self.tree(tree)?.map(|state| btree::count_range(self, &state, start, end)).transpose()
    }
}

impl PageSource for ReadTxn {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        let page = self.store.page_at(number, self.txn_id());
        // Asked after the look-up: versions go only after the reader was marked, so a look-up that missed one for
        // that reason sees the mark.
        if self.registration.is_expired() {
            return Err(ReadError::Expired);
        }
        page
    }

    fn page_at_hand(&self, number: PageNumber) -> Option<&Page> {
        self.store.page_at_hand(number)
    }
}

/// A tree of a snapshot: finding it by its name is done, and reads cost what they cost in the tree alone.
#[derive(Clone, Copy)]
pub struct TreeView<'a> {
    pub(super) snapshot: &'a ReadTxn,
    pub(super) state: TreeState,
}

impl<'a> TreeView<'a> {
    /// The tree's state: how many entries and pages it has.
    #[doc(hidden)]
    #[must_use]
    pub fn state(&self) -> &TreeState {
        &self.state
    }

    /// The entry of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry<'a>>, ReadError> {
        btree::get(self.snapshot, &self.state, key)
    }

    /// A cursor over the tree.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'a, ReadTxn> {
        Cursor::new(self.snapshot, self.state)
    }

    /// The entries between two bounds.
    #[must_use]
    pub fn range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Range<'a, ReadTxn> {
        Range::new(self.snapshot, self.state, start, end)
    }

    /// The entries whose keys begin with `prefix`.
    #[must_use]
    pub fn prefix(&self, prefix: &[u8]) -> Range<'a, ReadTxn> {
        Range::with_prefix(self.snapshot, self.state, prefix)
    }

    /// How many entries lie between two bounds, without a look at all of them.
    pub fn count_range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<u64, ReadError> {
        btree::count_range(self.snapshot, &self.state, start, end)
    }
}

/// Threads share a snapshot, and take it along.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<ReadTxn>();
    shared::<TreeView<'static>>();
};
