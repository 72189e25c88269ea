//! Multi-value trees in a batch, and in a snapshot: see [`crate::btree::multi`].

use std::ops::Bound;

use super::batch::{Batch, PendingValue, check_bounds, check_key, encode_range};
use super::error::BatchError;
use super::ops::OperationKind;
use super::pages::BatchPages;
use super::read::{ReadTxn, TreeView};
use super::trees::OpenTrees;
use crate::btree::multi::{self, Keys, ValuesCursor};
use crate::btree::{ReadError, TreeKind, TreeState};

pub(super) fn check_value(value: &[u8]) -> Result<(), BatchError> {
    multi::check_value(value).map_err(|_| BatchError::SortedValueLength(value.len()))
}

impl Batch {
    /// Makes an empty multi-value tree; `false` if it was there.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// database.write(|txn| {
    ///     txn.create_multi_tree("seen at")?;
    ///     txn.add("seen at", b"heron", b"lake")?;
    ///     txn.add("seen at", b"heron", b"brook")?;
    ///     txn.add("seen at", b"swift", b"tower")?;
    ///     assert!(!txn.add("seen at", b"swift", b"tower")?, "it is there already");
    ///     txn.remove_value("seen at", b"swift", b"tower").map(drop)
    /// })?;
    /// let snapshot = database.read();
    /// assert_eq!(snapshot.count_values("seen at", b"heron")?, 2);
    /// assert!(snapshot.contains("seen at", b"heron", b"brook")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BatchError::OneValue`] if there is a plain tree of this name.
    pub fn create_multi_tree(&mut self, tree: &str) -> Result<bool, BatchError> {
        self.create(tree, TreeKind::Multi)
    }

    /// Adds a value under a key; `false` if it was there.
    ///
    /// # Errors
    /// [`BatchError::OneValue`] if the tree is a plain one. [`BatchError::SortedValueLength`]: values are sorted as keys
    /// are, and are no longer than those.
    pub fn add(&mut self, tree: &str, key: &[u8], value: &[u8]) -> Result<bool, BatchError> {
        check_key(key)?;
        check_value(value)?;
        let version = self.last_txn.next();
        let state = multi_mut(&mut self.trees, &self.pages, tree)?;
        let added = multi::add(&mut self.pages, state, key, value, version)?;
        if added {
            self.note(OperationKind::AddValue, tree, key, PendingValue::Inline(value.to_vec()))?;
        }
        Ok(added)
    }

    /// Removes a value, and with the last one its key; `false` if it was not there. All values of a key go with
    /// [`Self::delete`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn remove_value(&mut self, tree: &str, key: &[u8], value: &[u8]) -> Result<bool, BatchError> {
        check_key(key)?;
        check_value(value)?;
        let version = self.last_txn.next();
        let state = multi_mut(&mut self.trees, &self.pages, tree)?;
        let removed = multi::remove_value(&mut self.pages, state, key, value, version)?;
        if removed {
            self.note(OperationKind::RemoveValue, tree, key, PendingValue::Inline(value.to_vec()))?;
        }
        Ok(removed)
    }

    /// Removes the values of a key between two bounds; how many there were. A bound may be empty, but no longer than a value.
    /// So a key with more values than a transaction may remove is emptied in parts.
    ///
    /// # Errors
    /// [`BatchError::OneValue`] if the tree is a plain one.
    pub fn remove_values(
        &mut self,
        tree: &str,
        key: &[u8],
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<u64, BatchError> {
        check_key(key)?;
        check_bounds(start, end)?;
        let removed = self.take_values(tree, key, start, end)?;
        if removed > 0 {
            self.note_removed_values(tree, key, start, end)?;
        }
        Ok(removed)
    }

    /// Removes values, and leaves it to the caller to say so.
    pub(super) fn take_values(
        &mut self,
        tree: &str,
        key: &[u8],
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<u64, BatchError> {
        let version = self.last_txn.next();
        let state = multi_mut(&mut self.trees, &self.pages, tree)?;
        Ok(multi::remove_values(&mut self.pages, state, key, start, end, version)?)
    }

    pub(super) fn note_removed_values(
        &mut self,
        tree: &str,
        key: &[u8],
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<(), BatchError> {
        let (start, bounds) = encode_range(start, end);
        let start_bytes = u16::try_from(start.len()).expect("no longer than a key").to_le_bytes();
        let range = [&bounds[..1], &start_bytes, &start, &bounds[1..]].concat();
        self.note(OperationKind::RemoveValues, tree, key, PendingValue::Inline(range))
    }

    /// Whether a value stands under a key, as the transactions so far left it. `false` also if there is no such tree.
    pub fn contains(&self, tree: &str, key: &[u8], value: &[u8]) -> Result<bool, BatchError> {
        match self.trees.look(&self.pages, tree)? {
            Some(state) => Ok(multi::contains(&self.pages, &state, key, value)?),
            None => Ok(false),
        }
    }

    /// How many values stand under a key, without a look at them. 0 also if there is no such tree.
    pub fn count_values(&self, tree: &str, key: &[u8]) -> Result<u64, BatchError> {
        match self.trees.look(&self.pages, tree)? {
            Some(state) => Ok(multi::count_values(&self.pages, &state, key)?),
            None => Ok(0),
        }
    }

    /// The values of a key, as the transactions so far left them; none also if there is no such tree.
    pub fn values(&self, tree: &str, key: &[u8]) -> Result<ValuesCursor<'_, BatchPages>, BatchError> {
        match self.trees.look(&self.pages, tree)? {
            Some(state) => Ok(ValuesCursor::new(&self.pages, &state, key)?),
            None => Ok(ValuesCursor::nothing()),
        }
    }

    /// The keys of a tree of either kind; `None` if there is no tree of this name.
    pub fn keys(&self, tree: &str) -> Result<Option<Keys<'_, BatchPages>>, BatchError> {
        Ok(self.trees.look(&self.pages, tree)?.map(|state| Keys::new(&self.pages, state)))
    }
}

/// A multi-value tree, to change.
fn multi_mut<'a>(trees: &'a mut OpenTrees, pages: &BatchPages, tree: &str) -> Result<&'a mut TreeState, BatchError> {
    let state = Batch::tree_mut(trees, pages, tree)?;
    if state.kind == TreeKind::Multi { Ok(state) } else { Err(BatchError::other_kind(state.kind, tree)) }
}

impl ReadTxn {
    /// Whether a value stands under a key of a multi-value tree. `false` also if there is no such tree.
    pub fn contains(&self, tree: &str, key: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        self.open_tree(tree)?.map_or(Ok(false), |tree| tree.contains(key, value))
    }

    /// How many values stand under a key of a multi-value tree, without a look at them. 0 also if there is no such tree.
    pub fn count_values(&self, tree: &str, key: &[u8]) -> Result<u64, ReadError> {
        self.open_tree(tree)?.map_or(Ok(0), |tree| tree.count_values(key))
    }

    /// The values of a key of a multi-value tree, to be walked over in both directions; none also if there is no such tree.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// # database.write(|txn| {
    /// #     txn.create_multi_tree("seen at")?;
    /// #     ["brook", "lake", "reeds"].iter().try_for_each(|place| txn.add("seen at", b"heron", place.as_bytes()).map(drop))
    /// # })?;
    /// let snapshot = database.read();
    /// let mut places = snapshot.values("seen at", b"heron")?;
    /// let mut there = places.seek(b"l")?;
    /// while there {
    ///     println!("{}", String::from_utf8_lossy(places.value()));
    ///     there = places.next()?;
    /// }
    /// assert!(places.previous()?);
    /// assert_eq!(places.value(), b"reeds");
    /// # Ok(())
    /// # }
    /// ```
    pub fn values(&self, tree: &str, key: &[u8]) -> Result<ValuesCursor<'_, Self>, ReadError> {
        self.open_tree(tree)?.map_or_else(|| Ok(ValuesCursor::nothing()), |tree| tree.values(key))
    }

    /// The keys of a tree of either kind; `None` if there is no tree of this name.
    pub fn keys(&self, tree: &str) -> Result<Option<Keys<'_, Self>>, ReadError> {
        Ok(self.open_tree(tree)?.map(|tree| tree.keys()))
    }
}

impl<'a> TreeView<'a> {
    /// Whether a value stands under a key of this multi-value tree.
    pub fn contains(&self, key: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        multi::contains(self.snapshot, &self.state, key, value)
    }

    /// How many values stand under a key of this multi-value tree, without a look at them.
    pub fn count_values(&self, key: &[u8]) -> Result<u64, ReadError> {
        multi::count_values(self.snapshot, &self.state, key)
    }
    /// The values of a key of this multi-value tree, to be walked over in both directions.
    pub fn values(&self, key: &[u8]) -> Result<ValuesCursor<'a, ReadTxn>, ReadError> {
        ValuesCursor::new(self.snapshot, &self.state, key)
    }

    /// The keys of this tree, of whatever kind it is.
    #[must_use]
    pub fn keys(&self) -> Keys<'a, ReadTxn> {
        Keys::new(self.snapshot, self.state)
    }
}
