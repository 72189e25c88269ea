//! A cursor that changes the tree under it.
//!
//! It is stable because it holds no page: its place is a key, copied, and what it does next is a descent to that key in
//! the tree as it then is. So whatever the transaction writes meanwhile, through this cursor or before it was made,
//! `next` goes to the first entry above the key, and `previous` to the last one below, of those that are there *now*.
//! The cursor has the batch to itself as long as it lives; [`WriteCursor::batch`] lends it for writes beside the cursor.
//!
//! Over a multi-value tree it walks from key to key, and deletes a key with all its values.
//!
//! A deleted entry leaves the cursor between its neighbours, so deleting while walking meets each entry once, in both
//! directions.

use std::ops::Bound;

use super::batch::Batch;
use super::error::BatchError;
use super::pages::BatchPages;
use crate::btree::multi::Keys;
use crate::btree::{self, Entry, Range, ReadError};
use crate::ids::TxnId;

/// A place in a tree of an open transaction, for reading and writing there. See [`Batch::cursor_mut`].
pub struct WriteCursor<'b> {
    batch: &'b mut Batch,
    tree: String,
    standing: Standing,
    /// The key at or behind which it stands; its memory is used again.
    key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// `next` goes to the first entry, `previous` to the last.
    Nowhere,
    /// At the entry under `key`, as long as there is one.
    At,
    BeforeFirst,
    BehindLast,
}

impl<'b> WriteCursor<'b> {
    pub(super) fn new(batch: &'b mut Batch, tree: &str) -> Self {
        Self { batch, tree: tree.to_owned(), standing: Standing::Nowhere, key: Vec::new() }
    }

    /// Moves as a cursor over the tree as it is now does, and stands where that one stood.
    fn go(
        &mut self,
        off_the_end: Standing,
        walk: impl FnOnce(&mut Keys<'_, BatchPages>, &[u8]) -> Result<bool, ReadError>,
    ) -> Result<bool, BatchError> {
        let no_tree = || BatchError::NoSuchTree(self.tree.clone());
        let mut cursor = self.batch.keys(&self.tree)?.ok_or_else(no_tree)?;
        let there = walk(&mut cursor, &self.key)?;
        if there {
            let key = cursor.key();
            self.key.clear();
            self.key.extend_from_slice(key);
            self.standing = Standing::At;
        } else {
            self.standing = off_the_end;
        }
        Ok(there)
    }

    /// Goes to the first entry. `false` if there is none.
    pub fn first(&mut self) -> Result<bool, BatchError> {
        self.go(Standing::BehindLast, |cursor, _| cursor.first())
    }

    /// Goes to the last entry. `false` if there is none.
    pub fn last(&mut self) -> Result<bool, BatchError> {
        self.go(Standing::BeforeFirst, |cursor, _| cursor.last())
    }

    /// Goes to the first entry whose key is `key` or above. `false` if there is none.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, BatchError> {
        self.go(Standing::BehindLast, |cursor, _| cursor.seek(key))
    }

    /// Goes to the last entry whose key is `key` or below. `false` if there is none.
    pub fn seek_back(&mut self, key: &[u8]) -> Result<bool, BatchError> {
        self.go(Standing::BeforeFirst, |cursor, _| cursor.seek_back(key))
    }

    /// Goes to the next entry. `false` if there is none.
    #[expect(clippy::should_implement_trait, reason = "a cursor is no iterator: what it shows is borrowed from it")]
    pub fn next(&mut self) -> Result<bool, BatchError> {
        match self.standing {
            Standing::Nowhere | Standing::BeforeFirst => self.first(),
            Standing::BehindLast => Ok(false),
            Standing::At => self.go(Standing::BehindLast, |cursor, key| {
                Ok(cursor.seek(key)? && (cursor.key() != key || cursor.next()?))
            }),
        }
    }

    /// Goes to the entry before. `false` if there is none.
    pub fn previous(&mut self) -> Result<bool, BatchError> {
        match self.standing {
            Standing::Nowhere | Standing::BehindLast => self.last(),
            Standing::BeforeFirst => Ok(false),
            Standing::At => self.go(Standing::BeforeFirst, |cursor, key| {
                Ok(cursor.seek_back(key)? && (cursor.key() != key || cursor.previous()?))
            }),
        }
    }

    /// The key at which the cursor stands, or between whose neighbours, if its entry was deleted; `None` if it stands at
    /// neither.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        (self.standing == Standing::At).then_some(self.key.as_slice())
    }

    /// The entry at which the cursor stands; `None` if it stands at none, or it was deleted.
    pub fn entry(&self) -> Result<Option<Entry<'_>>, BatchError> {
        match self.key() {
            Some(key) => self.batch.get(&self.tree, key),
            None => Ok(None),
        }
    }

    /// Deletes the entry at which the cursor stands; its version, `None` if there is none. The cursor then stands between
    /// its neighbours.
    pub fn delete(&mut self) -> Result<Option<TxnId>, BatchError> {
        match self.standing {
            Standing::At => self.batch.delete(&self.tree, &self.key),
            _ => Ok(None),
        }
    }

    /// Writes a value under the key at which the cursor stands; the version of what it replaces, `None` if that was
    /// deleted.
    ///
    /// # Panics
    /// When the cursor stands at no key.
    pub fn put(&mut self, value: &[u8]) -> Result<Option<TxnId>, BatchError> {
        assert!(self.standing == Standing::At, "the cursor stands at no key");
        self.batch.put(&self.tree, &self.key, value)
    }

    /// The batch, for reads and writes beside the cursor, which stays right.
    pub fn batch(&mut self) -> &mut Batch {
        self.batch
    }
}

impl Batch {
    /// A cursor that changes the tree while it walks; standing nowhere.
    ///
    /// # Errors
    /// If there is no tree of this name.
    pub fn cursor_mut(&mut self, tree: &str) -> Result<WriteCursor<'_>, BatchError> {
        if !self.tree_exists(tree)? {
            return Err(BatchError::NoSuchTree(tree.to_owned()));
        }
        Ok(WriteCursor::new(self, tree))
    }

    /// The entries of a tree between two bounds, as the transactions so far left them; `None` if there is no such tree.
    pub fn range(
        &self,
        tree: &str,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<Option<Range<'_, BatchPages>>, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.map(|state| Range::new(&self.pages, state, start, end)))
    }

    /// The entries of a tree whose keys begin with `prefix`; `None` if there is no such tree.
    pub fn prefix(&self, tree: &str, prefix: &[u8]) -> Result<Option<Range<'_, BatchPages>>, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.map(|state| Range::with_prefix(&self.pages, state, prefix)))
    }

    /// How many entries of a tree lie between two bounds. Looks at no entry but at both ends of the range.
    pub fn count_range(&self, tree: &str, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<u64, BatchError> {
        let state = self.trees.look(&self.pages, tree)?.ok_or_else(|| BatchError::NoSuchTree(tree.to_owned()))?;
        Ok(btree::count_range(&self.pages, &state, start, end)?)
    }
}
