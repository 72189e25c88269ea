//! Merged commits: transactions of many threads share a batch, a frame, a write and a sync.
//!
//! # The order of things
//!
//! A transaction runs on the thread that asked for it, one at a time, in the *open group*: a batch, and those who wait
//! for its outcome. Whoever has run its transaction and finds nobody leading, leads: it takes the open group, seals its
//! batch, appends the frame, and, if anybody in the group wants it durable, writes and syncs the journal itself; then it
//! applies the frame and tells the group. Meanwhile others run their transactions in the next group, on top of the
//! staged state, and the first of them that finds nobody leading takes that. Nobody waits for others to come, and a
//! thread alone does everything itself, with no way to another thread and back.
//!
//! One group is led at a time, so frames are staged, appended and applied in one order. At most one staged batch is not
//! applied, and the open group, if there is one, builds on it.
//!
//! # What a caller is told
//!
//! Nobody is told anything of a group before its outcome is known, not those either whose transaction changed nothing or
//! failed: what they saw is that of the groups before theirs, and of those before them in it.
//!
//! - *Committed*: the frame was applied, and if durability was asked for, the sync had succeeded before. A power cut at
//!   any time afterwards finds the frame in the journal.
//! - *Not committed*: the transaction failed, or the group was refused before the journal had the frame: it was too
//!   large, could not be sealed, or the journal was stopped or closed. No byte of it was written.
//! - *Unknown*: the journal had the frame, and its write or sync failed. Whether the next opening finds it depends on
//!   what reached the disk. Here it is dropped, and so is everything that was staged on it; the open group, which was
//!   never written, is told *not committed*. The journal is stopped: every later group is told so, too.
//!
//! What a transaction reads within its closure may be of a group that is still being written. Its caller is told nothing
//! before that one's outcome is known, and *not committed* if it was not: only who acts on it inside of the closure acts
//! too early. A [`WriteTxn`](super::WriteTxn) is in its owner's hands before it has ended, so it waits, when it begins,
//! until nothing that it may read is still being written.
//!
//! Of commits that did not ask for durability, a power cut takes those behind the last sync: frames stand in the journal
//! in the order of their commits, and an opening takes what it finds up to the first that is missing. So what is lost
//! is a suffix. A checkpoint waits until what it writes is durable in the journal, and asserts it.
//!
//! # Panics
//!
//! A closure that panics is undone like one that fails, and its panic goes on, on its own thread. If undoing it panics,
//! the open group is not what it should be, and goes with all who wait for it; if committing does, its group's outcome is
//! unknown. Both are bugs of ours: nothing is committed behind them.
//!
//! # Locks
//!
//! `open`, then `state`. The batch lock of the store is held by the open group. Who leads waits for `open` to take its
//! group, and once more to clean up behind a failure, when the outcome is told already: so whoever holds `open` may wait
//! for an outcome, but not for the leader to be gone.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::commit::commit;
use super::{Durability, WriteError};
use crate::engine::Engine;
use crate::error::StorageError;
use crate::ids::TxnId;
use crate::txn::{Batch, BatchError};

type Outcome = Result<(), WriteError>;

/// Those whose transactions share a batch.
pub(super) struct Group {
    /// Behind [`Committer::state`].
    outcome: Mutex<Option<Outcome>>,
    settled: Condvar,
}

/// The group that transactions run in.
pub(super) struct OpenGroup {
    pub(super) batch: Batch,
    group: Arc<Group>,
    durability: Durability,
    /// Those who wait for the outcome, or will.
    members: usize,
}

/// The open group, locked, and a transaction in it. It always is one.
pub(super) struct Entered<'a> {
    committer: &'a Committer,
    open: MutexGuard<'a, Option<OpenGroup>>,
    /// The transaction has ended, one way or another.
    ended: bool,
}

impl Entered<'_> {
    /// Ends the transaction. Who waits for the outcome is in the group from here on.
    pub(super) fn keep(mut self, durability: Durability) -> (Option<TxnId>, Arc<Group>) {
        let open = self.open.as_mut().expect("it was entered");
        let txn_id = open.batch.commit_txn();
        if txn_id.is_some() {
            open.durability = open.durability.max(durability);
        }
        (txn_id, self.join())
    }

    /// Whether the disk takes the transaction, behind what is staged and what ran before it in the group.
    pub(super) fn admit(&self) -> Result<(), BatchError> {
        let engine = &self.committer.engine;
        let bytes = self.batch.record_bytes_bound() + engine.staged().bytes;
        Ok(engine.admit(self.batch.footprint(), bytes as u64)?)
    }

    /// Undoes the transaction, whose outcome is nevertheless that of the group: it saw what others wrote there.
    fn undo(mut self) -> Arc<Group> {
        self.batch.rollback_txn();
        self.join()
    }

    fn join(&mut self) -> Arc<Group> {
        self.ended = true;
        let open = self.open.as_mut().expect("it was entered");
        open.members += 1;
        open.group.clone()
    }

    /// Undoes the transaction, and nobody waits. A group that so has nobody in it goes.
    pub(super) fn abort(mut self) {
        self.batch.rollback_txn();
        self.ended = true;
        if self.members == 0 {
            *self.open = None;
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let error = StorageError::Poisoned("a transaction could not be ended".into());
            let mut state = self.committer.state.lock();
            state.stopped.get_or_insert_with(|| error.clone());
            refuse(self.open.take(), &error);
        }
    }
}

/// Tells the open group that it was not committed. The caller has `state` locked.
fn refuse(open: Option<OpenGroup>, error: &StorageError) {
    if let Some(OpenGroup { batch, group, .. }) = open {
        drop(batch);
        *group.outcome.lock() = Some(Err(WriteError::NotCommitted(error.clone())));
        group.settled.notify_all();
    }
}

impl Deref for Entered<'_> {
    type Target = OpenGroup;

    fn deref(&self) -> &OpenGroup {
        self.open.as_ref().expect("it was entered")
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut OpenGroup {
        self.open.as_mut().expect("it was entered")
    }
}

/// What threads wait for.
#[derive(Default)]
struct State {
    /// The group that is being committed.
    led: Option<Arc<Group>>,
    leading: bool,
    /// One behind it, of which somebody waits.
    next: Option<Arc<Group>>,
    /// Why nothing is committed any more.
    stopped: Option<StorageError>,
}

/// What all handles of a database share. `open` is locked before `state`.
pub(super) struct Committer {
    engine: Engine,
    pub(super) open: Mutex<Option<OpenGroup>>,
    state: Mutex<State>,
}

/// How a transaction ended that ran in a group.
enum Ran<T> {
    Ended(Result<T, BatchError>, Option<TxnId>, Arc<Group>),
    /// It ran out of room, which others had taken. Nothing of it is left.
    NoRoom,
}

impl Committer {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, open: Mutex::default(), state: Mutex::default() }
    }

    /// Runs `work` as a transaction in a group, and waits for its outcome.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        mut work: impl FnMut(&mut Batch) -> Result<T, BatchError>,
    ) -> Result<(Option<TxnId>, T), WriteError> {
        let entered = self.enter(|open| open.batch.record_bytes_bound() <= open.batch.record_limit() / 2)?;
        let (result, txn_id, group) = match run(entered, durability, &mut work) {
            Ran::Ended(result, txn_id, group) => (result, txn_id, group),
            Ran::NoRoom => match run(self.enter(|open| open.batch.is_empty())?, durability, &mut work) {
                Ran::Ended(result, txn_id, group) => (result, txn_id, group),
                Ran::NoRoom => unreachable!("nobody else has taken room"),
            },
        };
        self.settle(&group)?;
        result.map(|value| (txn_id, value)).map_err(WriteError::Batch)
    }

    /// Waits until `fits` says that a transaction may run in the open group, or begins one. The transaction is begun.
    pub(super) fn enter(&self, fits: impl Fn(&OpenGroup) -> bool) -> Result<Entered<'_>, WriteError> {
        loop {
            let mut open = self.open.lock();
            match &mut *open {
                Some(group) if fits(group) => group.batch.begin_txn(),
                Some(full) => {
                    let group = full.group.clone();
                    drop(open);
                    // Its outcome is told to those whose it is.
                    let _ = self.settle(&group);
                    continue;
                }
                none => {
                    self.check()?;
                    let group = Arc::new(Group { outcome: Mutex::default(), settled: Condvar::new() });
                    let mut batch = self.engine.begin_batch()?;
                    let txn_id = batch.begin_txn();
                    *none = Some(OpenGroup { batch, group, durability: Durability::Deferred, members: 0 });
                    txn_id
                }
            };
            return Ok(Entered { committer: self, open, ended: false });
        }
    }

    /// Waits until nothing is being written that the open group builds on. The caller has `open` locked, so that its group
    /// is not led meanwhile.
    pub(super) fn wait_for_led(&self) -> Result<(), WriteError> {
        let mut state = self.state.lock();
        while let Some(led) = state.led.clone().filter(|led| led.outcome.lock().is_none()) {
            led.settled.wait(&mut state);
        }
        refusal(&state)
    }

    /// Waits for a group's outcome, and commits it if nobody else does.
    pub(super) fn settle(&self, group: &Arc<Group>) -> Outcome {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &*group.outcome.lock() {
                return outcome.clone();
            }
            if !state.leading {
                break;
            }
            if !state.led.as_ref().is_some_and(|led| Arc::ptr_eq(led, group)) {
                state.next = Some(group.clone());
            }
            group.settled.wait(&mut state);
        }
        state.leading = true;
        state.led = Some(group.clone());
        drop(state);
        let mut lead = Lead { committer: self, group, outcome: Err(WriteError::Unknown(panicked())) };
        lead.outcome = self.lead(group);
        lead.outcome.clone()
    }

    /// Commits the open group, which is `group`: only who leads takes it, and tells it before another one leads.
    fn lead(&self, group: &Arc<Group>) -> Outcome {
        let taken = self.open.lock().take();
        self.check()?;
        let OpenGroup { batch, group: taken, durability, .. } = taken.expect("it is open until it is led");
        assert!(Arc::ptr_eq(&taken, group), "a group was left behind");
        commit(&self.engine, batch, durability)
    }

    /// Makes everything that was committed so far durable, and says up to where that is.
    pub(super) fn sync(&self) -> Result<TxnId, WriteError> {
        self.check()?;
        // A frame is appended before it is applied.
        let txn_id = self.engine.applied().txn_id;
        if let Err(error) = self.engine.sync_journal() {
            // Whoever leads next finds it, and tells the open group.
            self.state.lock().stopped.get_or_insert_with(|| error.clone());
            return Err(WriteError::Unknown(error));
        }
        Ok(txn_id)
    }

    pub(super) fn check(&self) -> Result<(), WriteError> {
        refusal(&self.state.lock())
    }
}

fn refusal(state: &State) -> Result<(), WriteError> {
    match &state.stopped {
        Some(error) => Err(WriteError::NotCommitted(StorageError::Poisoned(error.to_string()))),
        None => Ok(()),
    }
}

/// Tells a group how it ended, and lets the next one be led: also when committing it panics.
struct Lead<'a> {
    committer: &'a Committer,
    group: &'a Arc<Group>,
    outcome: Outcome,
}

impl Lead<'_> {
    /// Why nothing is committed behind this outcome.
    fn stops(&self) -> Option<StorageError> {
        match &self.outcome {
            Ok(()) | Err(WriteError::Batch(_)) => None,
            Err(WriteError::Unknown(error) | WriteError::NotCommitted(error)) => Some(error.clone()),
            Err(WriteError::Apply(error)) => Some(StorageError::Poisoned(error.to_string())),
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let committer = self.committer;
        let stops = self.stops();
        let mut state = committer.state.lock();
        if let Some(error) = &stops {
            state.stopped.get_or_insert_with(|| error.clone());
        }
        *self.group.outcome.lock() = Some(self.outcome.clone());
        self.group.settled.notify_all();
        if let Some(error) = &stops {
            drop(state);
            // What is open builds on what goes here; with `open` locked nobody begins another such.
            let mut open = committer.open.lock();
            state = committer.state.lock();
            refuse(open.take(), error);
            drop(state);
            committer.engine.drop_staged();
            drop(open);
            state = committer.state.lock();
        }
        state.leading = false;
        state.led = None;
        if let Some(next) = state.next.take() {
            next.settled.notify_one();
        }
    }
}

fn panicked() -> StorageError {
    StorageError::Poisoned("a thread panicked while it committed".into())
}

/// Runs a transaction that was begun. One that fails or panics is undone, and nothing else of the group.
fn run<T>(
    mut open: Entered<'_>,
    durability: Durability,
    work: &mut impl FnMut(&mut Batch) -> Result<T, BatchError>,
) -> Ran<T> {
    let shared = !open.batch.is_empty();
    let result = match catch_unwind(AssertUnwindSafe(|| work(&mut open.batch))) {
        Ok(result) => result,
        Err(panic) => {
            open.abort();
            resume_unwind(panic);
        }
    };
    let is_of_size = result.as_ref().is_err_and(BatchError::is_of_size);
    if shared && (is_of_size || open.batch.check_record_bound().is_err()) {
        open.abort();
        return Ran::NoRoom;
    }
    let result = result.and_then(|value| open.admit().map(|()| value));
    if result.is_err() {
        return Ran::Ended(result, None, open.undo());
    }
    let (txn_id, group) = open.keep(durability);
    Ran::Ended(result, txn_id, group)
}
