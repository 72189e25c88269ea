//! Going back within a batch: to where the open transaction began, or to a savepoint in it.
//!
//! Both are a [`Mark`]. What pages were is kept in an undo log, of which a mark is a length: going back puts back, from the
//! newest on, what was noted behind it. A page is noted once between two marks, by a count of its `Arc`; the copy is made
//! when it is written to next. So a mark costs what the table of open trees and the allocator's summaries take, and each
//! page that is touched behind it costs one copy, which counts towards the batch's memory until the transaction ends.
//!
//! What is gone back over leaves no trace: pages, page numbers, the allocator, trees, names, operations and where their
//! values stand are what they would be had it never been done, and the record comes out the same, byte for byte. Only the
//! count of tree mutations goes on: it says what was executed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::{Batch, PendingValue};
use super::error::BatchError;
use super::pages::PagesMark;
use super::trees::OpenTrees;
use crate::ids::TxnId;
use crate::space::Footprint;

/// A place in an open transaction that it can go back to: see [`Batch::savepoint`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint(u64);

/// The state of a batch.
pub(super) struct Mark {
    pages: PagesMark,
    trees: OpenTrees,
    operations: usize,
    /// How many values operations had taken into themselves.
    kept: usize,
    names: usize,
    operation_bytes: usize,
    changed: bool,
}

/// The open transaction.
pub(super) struct OpenTxn {
    begin: Mark,
    /// Those that can be gone back to, oldest first.
    savepoints: Vec<(Savepoint, Mark)>,
    pub(super) changed: bool,
    /// Pages in use when it began.
    pages_in_use: u64,
}

impl Batch {
    /// Begins a transaction, and says which id it gets if it changes something.
    ///
    /// # Panics
    /// When one is open.
    pub fn begin_txn(&mut self) -> TxnId {
        assert!(self.open.is_none(), "a transaction is open");
        let begin = self.mark(false);
        let pages_in_use = self.pages.in_use();
        self.open = Some(OpenTxn { begin, savepoints: Vec::new(), changed: false, pages_in_use });
        self.last_txn.next()
    }

    /// Ends the transaction; its id if it changed something.
    ///
    /// # Panics
    /// When none is open.
    pub fn commit_txn(&mut self) -> Option<TxnId> {
        let open = self.open.take().expect("a transaction is open");
        self.pages.forget_marks();
        self.kept.clear();
        if !open.changed {
            return None;
        }
        self.last_txn = self.last_txn.next();
        Some(self.last_txn)
    }

    /// What the open transaction did so far to the space that the database takes.
    ///
    /// # Panics
    /// When none is open.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let open = self.open.as_ref().expect("a transaction is open");
        let done = &self.operations[open.begin.operations..];
        let only_deletes = done.iter().all(|operation| operation.kind.only_frees());
        match open.changed {
            false => Footprint::Nothing,
            true if only_deletes => Footprint::Deletes,
            true if self.pages.in_use() <= open.pages_in_use => Footprint::Keeps,
            true => Footprint::Grows,
        }
    }

    /// Undoes the transaction, and nothing else of the batch.
    ///
    /// # Panics
    /// When none is open.
    pub fn rollback_txn(&mut self) {
        let open = self.open.take().expect("a transaction is open");
        self.go_back(&open.begin);
        self.pages.forget_marks();
        self.kept.clear();
    }

    /// Remembers where the open transaction stands, so that [`Self::rollback_to`] can undo what it does from here on and
    /// nothing else. Savepoints nest, and go with their transaction.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// database.write(|txn| {
    ///     txn.create_tree("birds")?;
    ///     txn.put("birds", b"heron", b"grey")?;
    ///     let savepoint = txn.savepoint();
    ///     txn.delete("birds", b"heron")?;
    ///     txn.create_tree("fish")?;
    ///     txn.rollback_to(savepoint)?;
    ///     assert!(txn.get("birds", b"heron")?.is_some());
    ///     Ok(())
    /// })?;
    /// assert!(!database.read().trees()?.iter().any(|(name, _)| name == "fish"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// When no transaction is open.
    pub fn savepoint(&mut self) -> Savepoint {
        // One count for all batches: so a savepoint of one is none of another.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let changed = self.open.as_ref().expect("a transaction is open").changed;
        let mark = self.mark(changed);
        let savepoint = Savepoint(NEXT.fetch_add(1, Ordering::Relaxed));
        self.open.as_mut().expect("a transaction is open").savepoints.push((savepoint, mark));
        savepoint
    }

    /// Undoes what the open transaction did since `savepoint`, which stays: it can be gone back to again. Those made
    /// behind it are gone.
    ///
    /// # Errors
    /// [`BatchError::NoSuchSavepoint`] if it was made in another transaction, or behind one that was gone back to. Then
    /// nothing changes.
    ///
    /// # Panics
    /// When no transaction is open.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<(), BatchError> {
        let mut open = self.open.take().expect("a transaction is open");
        let place = open.savepoints.iter().rposition(|(other, _)| *other == savepoint);
        if let Some(place) = place {
            open.savepoints.truncate(place + 1);
            let mark = &open.savepoints[place].1;
            self.go_back(mark);
            open.changed = mark.changed;
        }
        self.open = Some(open);
        place.map(drop).ok_or(BatchError::NoSuchSavepoint)
    }

    fn mark(&mut self, changed: bool) -> Mark {
        Mark {
            pages: self.pages.mark(),
            trees: self.trees.clone(),
            operations: self.operations.len(),
            kept: self.kept.len(),
            names: self.names.len(),
            operation_bytes: self.operation_bytes,
            changed,
        }
    }

    fn go_back(&mut self, mark: &Mark) {
        self.pages.roll_back_to(&mark.pages);
        self.trees = mark.trees.clone();
        self.in_tree.truncate(&self.operations, mark.operations);
        self.operations.truncate(mark.operations);
        // The tree has the values again that these took into themselves because they were to go from it.
        for place in self.kept.drain(mark.kept..).filter(|place| *place < mark.operations) {
            self.operations[place].value = PendingValue::InTree;
            self.in_tree.put_back(&self.operations, place);
        }
        self.names.truncate(mark.names);
        self.operation_bytes = mark.operation_bytes;
    }
}
