//! Walking over the keys of a tree of either kind.

use super::cursor::ValuesCursor;
use super::read::Place;
use crate::btree::{Cursor, PageSource, ReadError, TreeKind, TreeState};
use crate::ids::TxnId;

/// A place among the keys of a tree. It moves as a [`Cursor`] does, and shows no value itself: in a multi-value tree,
/// [`Self::values`] walks over those of the current key.
pub struct Keys<'a, S: PageSource + ?Sized> {
    source: &'a S,
    cursor: Cursor<'a, S>,
    kind: TreeKind,
}

impl<'a, S: PageSource + ?Sized> Keys<'a, S> {
    /// The keys of `tree`, standing nowhere.
    #[doc(hidden)]
    #[must_use]
    pub fn new(source: &'a S, tree: TreeState) -> Self {
        let cursor = Cursor::new(source, TreeState { kind: TreeKind::Plain, ..tree });
        Self { source, cursor, kind: tree.kind }
    }

    /// Goes to the first key. `false` if there is none.
    pub fn first(&mut self) -> Result<bool, ReadError> {
        self.cursor.first()
    }

    /// Goes to the last key. `false` if there is none.
    pub fn last(&mut self) -> Result<bool, ReadError> {
        self.cursor.last()
    }

    /// Goes to the first key that is `key` or above. `false` if there is none.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        self.cursor.seek(key)
    }

    /// Goes to the last key that is `key` or below. `false` if there is none.
    pub fn seek_back(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        self.cursor.seek_back(key)
    }

    /// Goes to the next key. `false` if there is none.
    #[expect(clippy::should_implement_trait, reason = "a cursor is no iterator: what it shows is borrowed from it")]
    pub fn next(&mut self) -> Result<bool, ReadError> {
        self.cursor.next()
    }

    /// Goes to the key before. `false` if there is none.
    pub fn previous(&mut self) -> Result<bool, ReadError> {
        self.cursor.previous()
    }

    /// The current key.
    ///
    /// # Panics
    /// When it stands at no key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    /// The transaction that last changed what stands under the current key.
    ///
    /// # Panics
    /// When it stands at no key.
    #[must_use]
    pub fn version(&self) -> TxnId {
        self.cursor.version()
    }

    /// The values of the current key.
    ///
    /// # Errors
    /// [`ReadError::OtherKind`] if the tree is a plain one.
    ///
    /// # Panics
    /// When it stands at no key.
    pub fn values(&self) -> Result<ValuesCursor<'a, S>, ReadError> {
        if self.kind != TreeKind::Multi {
            return Err(ReadError::OtherKind(self.kind));
        }
        let (leaf, page, payload) = self.cursor.place_in_leaf()?;
        ValuesCursor::at(self.source, Place { leaf, page, payload })
    }
}
