//! A transaction that is held open by its owner, beside those that are a closure.

use std::ops::{Deref, DerefMut};

use super::committer::{Committer, Entered};
use super::{Durability, WriteError};
use crate::ids::TxnId;
use crate::txn::Batch;

/// An open write transaction: what it reads and writes are the methods of [`Batch`]. Others wait until it has ended, and
/// the transactions before it are committed before it begins. Dropped without [`Self::commit`], it leaves nothing.
///
/// A thread that has one open must not begin another: it would wait for itself.
pub struct WriteTxn<'a> {
    committer: &'a Committer,
    /// `None` once it has ended.
    open: Option<Entered<'a>>,
    durability: Durability,
}

impl<'a> WriteTxn<'a> {
    pub(super) fn begin(committer: &'a Committer, durability: Durability) -> Result<Self, WriteError> {
        let open = committer.enter(|open| open.batch.is_empty())?;
        let txn = Self { committer, open: Some(open), durability };
        committer.wait_for_led()?;
        Ok(txn)
    }

    /// Ends the transaction. Returns its txn id, `None` if it changed nothing, when it is committed.
    pub fn commit(mut self) -> Result<Option<TxnId>, WriteError> {
        self.open.as_ref().expect("it ends once").admit()?;
        let (txn_id, group) = self.open.take().expect("it ends once").keep(self.durability);
        self.committer.settle(&group)?;
        Ok(txn_id)
    }

    /// Undoes the transaction, as dropping it does.
    pub fn abort(self) {}
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
        }
    }
}

impl Deref for WriteTxn<'_> {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.open.as_ref().expect("it has not ended").batch
    }
}

impl DerefMut for WriteTxn<'_> {
    fn deref_mut(&mut self) -> &mut Batch {
        &mut self.open.as_mut().expect("it has not ended").batch
    }
}
