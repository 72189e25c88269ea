//! Reading a snapshot.

use std::panic::Location;
use std::sync::Arc;

use super::trees;
use crate::btree::{self, Cursor, Entry, PageRef, PageSource, ReadError, TreeState};
use crate::ids::{PageNumber, TxnId};
use crate::store::{Store, View};
use crate::versions::Registration;

/// A snapshot of the applied state. Never blocks a writer, and is never blocked by one.
///
/// When page versions exceed their bound, the oldest reader is expired: its next access says [`ReadError::Expired`].
pub struct ReadTxn {
    // Dropped before the store, which may be the last user of its files.
    registration: Registration<View>,
    store: Arc<Store>,
}

impl ReadTxn {
    #[track_caller]
    pub(crate) fn open(store: Arc<Store>) -> Self {
        let _ = Location::caller();
        Self { registration: store.readers.open(), store }
    }

    /// The newest transaction that the snapshot shows.
    #[must_use]
    pub fn txn_id(&self) -> TxnId {
        self.registration.state().applied.txn_id
    }

    /// Whether this reader was expired: every access says so. Whoever holds one without accessing it asks now and then, and
    /// drops it.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.registration.is_expired()
    }

    /// The state that the snapshot shows.
    #[must_use]
    pub fn view(&self) -> &View {
        self.registration.state()
    }

    /// The state of a tree.
    pub fn tree(&self, name: &str) -> Result<Option<TreeState>, ReadError> {
        trees::find(self, &self.view().superblock.trees, name)
    }

    /// All trees, by name.
    pub fn trees(&self) -> Result<Vec<(String, TreeState)>, ReadError> {
        trees::list(self, &self.view().superblock.trees)
    }

    /// The entry of a key; `None` also if there is no such tree.
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
}
