//! The registry of snapshots in use, and the state that new ones show.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ids::TxnId;

/// Every open reader, by snapshot. `S` is the applied state that a snapshot stands for.
///
/// Opening a reader and publishing a state take the same lock, so a snapshot is registered before anything that it
/// might need can be judged unneeded.
pub struct Readers<S> {
    inner: Arc<Mutex<Inner<S>>>,
}

struct Inner<S> {
    newest: (TxnId, Arc<S>),
    open: BTreeMap<(TxnId, u64), Reader<S>>,
    next_id: u64,
}

struct Reader<S> {
    state: Arc<S>,
    expired: Arc<AtomicBool>,
    opened: Instant,
    place: &'static Location<'static>,
    checkpointer: bool,
}

/// Who holds a snapshot, for status and error messages.
#[derive(Debug, Clone)]
pub struct ReaderInfo {
    /// The snapshot.
    pub txn_id: TxnId,
    /// How long it has been open.
    pub age: Duration,
    /// The line of code that opened it.
    pub place: &'static Location<'static>,
    /// Whether it has been expired, but not yet dropped.
    pub expired: bool,
}

/// A registered snapshot; dropping it gives the snapshot up.
pub struct Registration<S> {
    readers: Arc<Mutex<Inner<S>>>,
    key: (TxnId, u64),
    state: Arc<S>,
    expired: Arc<AtomicBool>,
}

impl<S> Registration<S> {
    /// The snapshot's state.
    pub fn state(&self) -> &Arc<S> {
        &self.state
    }

    /// Whether memory ran short and this snapshot's versions may be gone.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

impl<S> Drop for Registration<S> {
    fn drop(&mut self) {
        self.readers.lock().open.remove(&self.key);
    }
}

impl<S> Inner<S> {
    fn checkpoint_snapshot(&self) -> Option<(TxnId, Arc<S>)> {
        let mut readers = self.open.iter().filter(|(_, reader)| !reader.checkpointer);
        let Some(((txn_id, _), reader)) = readers.next() else { return Some(self.newest.clone()) };
        let mut same =
            std::iter::once(reader).chain(readers.map_while(|((other, _), r)| (other == txn_id).then_some(r)));
        let live = same.any(|reader| !reader.expired.load(Ordering::Acquire));
        live.then(|| (*txn_id, reader.state.clone()))
    }

    /// The readers of snapshots up to `checkpointed`, unless that is the newest state.
    fn holders(&self, checkpointed: TxnId) -> impl Iterator<Item = (TxnId, &Reader<S>)> {
        let newest = self.newest.0;
        let old = self.open.iter().take_while(move |((txn_id, _), _)| *txn_id <= checkpointed && *txn_id < newest);
        old.filter(|(_, reader)| !reader.checkpointer).map(|((txn_id, _), reader)| (*txn_id, reader))
    }
}

impl<S> Readers<S> {
    /// A registry whose first snapshots show `state`.
    pub fn new(txn_id: TxnId, state: Arc<S>) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { newest: (txn_id, state), open: BTreeMap::new(), next_id: 0 })) }
    }

    /// Makes `state` what new readers see, and returns the snapshots (ascending) that are in use and not expired.
    ///
    /// # Panics
    /// When the txn id would go back.
    pub fn publish(&self, txn_id: TxnId, state: Arc<S>) -> Vec<TxnId> {
        let mut inner = self.inner.lock();
        assert!(txn_id >= inner.newest.0, "the applied txn id goes back from {} to {txn_id}", inner.newest.0);
        inner.newest = (txn_id, state);
        let mut snapshots: Vec<TxnId> = Vec::new();
        for ((txn_id, _), reader) in &inner.open {
            if !reader.expired.load(Ordering::Acquire) && snapshots.last() != Some(txn_id) {
                snapshots.push(*txn_id);
            }
        }
        snapshots
    }

    /// The state that new readers see.
    pub fn newest(&self) -> Arc<S> {
        self.inner.lock().newest.1.clone()
    }

    /// Registers a reader of the newest state.
    #[track_caller]
    pub fn open(&self) -> Registration<S> {
        let mut inner = self.inner.lock();
        let (txn_id, state) = inner.newest.clone();
        self.register(&mut inner, txn_id, state, false)
    }

    /// Registers the checkpointer at the newest snapshot that no reader lies below: the oldest reader's, else the
    /// newest state.
    ///
    /// `None` while an expired reader is the oldest and still lives: it may hold slices of the map, so nothing newer
    /// may be written over them, and its own snapshot is not whole any more, since versions that only it needed are
    /// gone.
    #[track_caller]
    pub fn open_for_checkpoint(&self) -> Option<Registration<S>> {
        let mut inner = self.inner.lock();
        let (txn_id, state) = inner.checkpoint_snapshot()?;
        Some(self.register(&mut inner, txn_id, state, true))
    }

    /// Where [`Self::open_for_checkpoint`] would register.
    pub fn checkpoint_snapshot(&self) -> Option<Arc<S>> {
        self.inner.lock().checkpoint_snapshot().map(|(_, state)| state)
    }

    #[track_caller]
    fn register(&self, inner: &mut Inner<S>, txn_id: TxnId, state: Arc<S>, checkpointer: bool) -> Registration<S> {
        let key = (txn_id, inner.next_id);
        inner.next_id += 1;
        let expired = Arc::new(AtomicBool::new(false));
        let place = Location::caller();
        let reader =
            Reader { state: state.clone(), expired: expired.clone(), opened: Instant::now(), place, checkpointer };
        inner.open.insert(key, reader);
        Registration { readers: self.inner.clone(), key, state, expired }
    }

    /// Who holds checkpoints back that have come as far as `checkpointed`: a reader of that snapshot or an older one,
    /// while the newest state is newer. One that is not expired, if there is one.
    pub fn in_the_way(&self, checkpointed: TxnId) -> Option<ReaderInfo> {
        let inner = self.inner.lock();
        let holders = || inner.holders(checkpointed);
        let live = holders().find(|(_, reader)| !reader.expired.load(Ordering::Acquire));
        live.or_else(|| holders().next()).map(|(txn_id, reader)| Self::info(txn_id, reader))
    }

    /// Expires all who hold checkpoints back that have come as far as `checkpointed`. Returns who they were.
    pub fn expire_in_the_way(&self, checkpointed: TxnId) -> Vec<ReaderInfo> {
        let inner = self.inner.lock();
        let live = inner.holders(checkpointed).filter(|(_, reader)| !reader.expired.swap(true, Ordering::AcqRel));
        live.map(|(txn_id, reader)| Self::info(txn_id, reader)).collect()
    }

    /// The oldest reader.
    pub fn oldest(&self) -> Option<ReaderInfo> {
        let inner = self.inner.lock();
        inner.open.iter().find(|(_, reader)| !reader.checkpointer).map(|((txn_id, _), r)| Self::info(*txn_id, r))
    }

    /// How many readers are open.
    pub fn count(&self) -> usize {
        self.inner.lock().open.values().filter(|reader| !reader.checkpointer).count()
    }

    fn info(txn_id: TxnId, reader: &Reader<S>) -> ReaderInfo {
        let expired = reader.expired.load(Ordering::Acquire);
        ReaderInfo { txn_id, age: reader.opened.elapsed(), place: reader.place, expired }
    }
}
