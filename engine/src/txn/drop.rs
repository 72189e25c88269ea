//! Dropping a tree in more than one transaction.
//!
//! Every page that a batch frees becomes a version on every node when the record is applied, so a batch may free no more
//! than 32 GiB of them, and a larger tree cannot be dropped at once. Nor should one that is much smaller, where others
//! wait for their commits: to free a page it must be known, so the whole tree is walked. In parts, each transaction takes
//! so many pages off the front of the tree, and the last one drops what is left. In between the tree is there, and
//! shorter.

use std::ops::Bound;

use super::Batch;
use super::error::BatchError;
use crate::btree::multi::{self, Keys};
use crate::btree::{self, TreeKind, TreeState};

/// What [`Batch::drop_tree_part`] did. Exhaustive: there is no fourth way for it to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropProgress {
    /// There is no such tree.
    NoSuchTree,
    /// There are entries left: to be called again, in another transaction.
    More,
    /// The tree is gone.
    Dropped,
}

impl Batch {
    /// Takes entries off the front of a tree until at least `pages` pages are free, and drops the tree when none is left.
    /// It frees no more than `pages` and what the entries of one leaf hold (in a multi-value tree, little more than `pages`),
    /// unless the tree has no more than `pages`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// use calamus_engine::DropProgress;
    ///
    /// # database.write(|txn| txn.create_tree("birds"))?;
    /// let mut progress = DropProgress::More;
    /// while progress == DropProgress::More {
    ///     database.write(|txn| {
    ///         progress = txn.drop_tree_part("birds", 10_000)?;
    ///         Ok(())
    ///     })?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_tree_part(&mut self, tree: &str, pages: u64) -> Result<DropProgress, BatchError> {
        let Some(state) = self.trees.look(&self.pages, tree)? else { return Ok(DropProgress::NoSuchTree) };
        let goal = state.pages.saturating_sub(pages.max(1));
        let left = match state.kind {
            _ if goal == 0 => 0,
            TreeKind::Plain => self.shorten(tree, &state, goal)?,
            TreeKind::Multi => self.shorten_multi(tree, &state, goal)?,
        };
        if goal > 0 && left <= goal {
            return Ok(DropProgress::More);
        }
        self.drop_tree(tree)?;
        Ok(DropProgress::Dropped)
    }

    /// Takes leaves off the front of a tree until no more than `goal` pages are left, or one leaf; how many are left.
    fn shorten(&mut self, tree: &str, state: &TreeState, goal: u64) -> Result<u64, BatchError> {
        let (mut left, mut gone) = (state.pages, None);
        while left > goal {
            let state = self.trees.look(&self.pages, tree)?.expect("looked at just now");
            let Some(end) = btree::key_behind_leaf(&self.pages, &state, &[])? else { break };
            self.keep_values(tree, Bound::Unbounded, Bound::Excluded(&end))?;
            let state = Self::tree_mut(&mut self.trees, &self.pages, tree)?;
            btree::remove_range(&mut self.pages, state, Bound::Unbounded, Bound::Excluded(&end))?;
            left = state.pages;
            gone = Some(end);
        }
        if let Some(end) = &gone {
            self.note_deleted_range(tree, Bound::Unbounded, Bound::Excluded(end))?;
        }
        Ok(left)
    }

    /// As [`Self::shorten`], key by key, since one key may own any number of pages: of a tree of values with more pages than
    /// are to go, leaves are taken off the front.
    fn shorten_multi(&mut self, tree: &str, state: &TreeState, goal: u64) -> Result<u64, BatchError> {
        let (mut left, mut gone, mut part) = (state.pages, None, None);
        while left > goal {
            let state = self.trees.look(&self.pages, tree)?.expect("looked at just now");
            let key = {
                let mut keys = Keys::new(&self.pages, state);
                if !keys.first()? {
                    break;
                }
                keys.key().to_vec()
            };
            match multi::first_leaf_of_values(&self.pages, &state, &key)? {
                Some((pages, end)) if pages > left - goal => {
                    self.take_values(tree, &key, Bound::Unbounded, Bound::Excluded(&end))?;
                    part = Some((key, end));
                }
                _ => {
                    let state = Self::tree_mut(&mut self.trees, &self.pages, tree)?;
                    btree::remove(&mut self.pages, state, &key)?;
                    (gone, part) = (Some(key), None);
                }
            }
            left = self.trees.look(&self.pages, tree)?.expect("looked at just now").pages;
        }
        if let Some(key) = &gone {
            self.note_deleted_range(tree, Bound::Unbounded, Bound::Included(key))?;
        }
        if let Some((key, end)) = &part {
            self.note_removed_values(tree, key, Bound::Unbounded, Bound::Excluded(end))?;
        }
        Ok(left)
    }
}
