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
use crate::btree;

/// What [`Batch::drop_tree_part`] did.
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
    /// It frees no more than `pages` and what the entries of one leaf hold, unless the tree has no more than `pages`.
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
        let (mut left, mut gone) = (state.pages, None);
        while left > goal && goal > 0 {
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
        if goal > 0 && left <= goal {
            return Ok(DropProgress::More);
        }
        self.drop_tree(tree)?;
        Ok(DropProgress::Dropped)
    }
}
