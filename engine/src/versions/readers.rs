//! The registry of snapshots in use, and the state that new ones show.
//!
//! A reader is opened and dropped under the lock of its thread's lane alone (see [`super::lanes`]); there it is noted
//! with its snapshot, its age and the place where it was opened. A publication, and whoever asks for the oldest reader,
//! holds the locks of all lanes. So:
//! - a reader that opened before a publication is in its lane when the publication counts who is there;
//! - one that opens after it sees the new state, since the publication took the old one out of every lane;
//! - and there is no third case: *a snapshot is registered before anything that it might need can be judged unneeded*.
//!
//! The same holds for the checkpointer, which chooses its snapshot and is registered under all the locks, and for expiry.
//!
//! Each lane has its own reference-counted box for the newest state, made by the first reader that opens there after a
//! publication: readers in different lanes write to no cache line in common. Otherwise opening allocates nothing once a
//! lane has had as many readers at a time.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lanes::{AllLanes, Lane, Lanes};
use crate::ids::TxnId;

/// Every open reader, by snapshot. `S` is the applied state that a snapshot stands for.
pub struct Readers<S> {
    lanes: Lanes<Desk<S>>,
    /// Changed only under the locks of all lanes; read under that of one, or just to look.
    newest: Mutex<Arc<Shown<S>>>,
}

/// A state that was published.
struct Shown<S> {
    txn_id: TxnId,
    /// Counts publications: a txn id may be published again, when an entry of the log changed nothing.
    publication: u64,
    state: Arc<S>,
}

/// The readers of a lane.
struct Desk<S> {
    /// The newest state, in a box of this lane; none until somebody opens a reader here after a publication.
    shown: Option<Arc<Shown<S>>>,
    seats: Vec<Seat<S>>,
    free: Vec<usize>,
}

struct Seat<S> {
    expired: Arc<AtomicBool>,
    reader: Option<Reader<S>>,
}

struct Reader<S> {
    shown: Arc<Shown<S>>,
    opened: Instant,
    place: &'static Location<'static>,
    checkpointer: bool,
}

/// Who holds a snapshot, for status and error messages.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    lane: Arc<Lane<Desk<S>>>,
    seat: usize,
    shown: Arc<Shown<S>>,
    expired: Arc<AtomicBool>,
}

impl<S> Registration<S> {
    /// The snapshot's state.
    pub fn state(&self) -> &Arc<S> {
        &self.shown.state
    }

    /// The snapshot.
    #[inline]
    pub fn txn_id(&self) -> TxnId {
        self.shown.txn_id
    }

    /// Whether memory ran short and this snapshot's versions may be gone.
    #[inline]
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

impl<S> Clone for Registration<S> {
    /// Registers another reader of the same snapshot, expired if this one is: who expires holds this lane's lock too.
    #[track_caller]
    fn clone(&self) -> Self {
        let mut desk = self.lane.lock();
        let other = desk.register(&self.lane, self.shown.clone(), false);
        other.expired.store(self.is_expired(), Ordering::Release);
        other
    }
}

impl<S> Drop for Registration<S> {
    fn drop(&mut self) {
        let mut desk = self.lane.lock();
        let reader = desk.seats[self.seat].reader.take();
        desk.free.push(self.seat);
        drop(desk);
        assert!(reader.is_some(), "a reader left its seat before it was dropped");
    }
}

impl<S> Desk<S> {
    fn new() -> Self {
        Self { shown: None, seats: Vec::new(), free: Vec::new() }
    }

    #[track_caller]
    fn register(&mut self, lane: &Arc<Lane<Self>>, shown: Arc<Shown<S>>, checkpointer: bool) -> Registration<S> {
        let place = Location::caller();
        let number = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat { expired: Arc::default(), reader: None });
            self.seats.len() - 1
        });
        let seat = &mut self.seats[number];
        seat.expired.store(false, Ordering::Release);
        seat.reader = Some(Reader { shown: shown.clone(), opened: Instant::now(), place, checkpointer });
        Registration { lane: lane.clone(), seat: number, shown, expired: seat.expired.clone() }
    }

    fn readers(&self) -> impl Iterator<Item = Taken<'_, S>> {
        self.seats.iter().filter_map(|seat| Some(Taken { expired: &seat.expired, reader: seat.reader.as_ref()? }))
    }
}

/// A seat with a reader.
struct Taken<'a, S> {
    expired: &'a AtomicBool,
    reader: &'a Reader<S>,
}

impl<S> Taken<'_, S> {
    fn txn_id(&self) -> TxnId {
        self.reader.shown.txn_id
    }

    fn is_live(&self) -> bool {
        !self.expired.load(Ordering::Acquire)
    }

    fn order(&self) -> (u64, Instant) {
        (self.reader.shown.publication, self.reader.opened)
    }

    fn info(&self) -> ReaderInfo {
        ReaderInfo {
            txn_id: self.txn_id(),
            age: self.reader.opened.elapsed(),
            place: self.reader.place,
            expired: !self.is_live(),
        }
    }
}

/// Every reader but the checkpointer.
fn readers<'a, S>(desks: &'a AllLanes<'_, Desk<S>>) -> impl Iterator<Item = Taken<'a, S>> {
    desks.iter().flat_map(Desk::readers).filter(|taken| !taken.reader.checkpointer)
}

impl<S> Readers<S> {
    /// A registry whose first snapshots show `state`.
    pub fn new(txn_id: TxnId, state: Arc<S>) -> Self {
        let newest = Mutex::new(Arc::new(Shown { txn_id, publication: 0, state }));
        Self { lanes: Lanes::new(Desk::new), newest }
    }

    /// Makes `state` what new readers see, and returns the snapshots (ascending) that are in use and not expired.
    ///
    /// # Panics
    /// When the txn id would go back.
    pub fn publish(&self, txn_id: TxnId, state: Arc<S>) -> Vec<TxnId> {
        let mut desks = self.lanes.lock_all();
        {
            let mut newest = self.newest.lock();
            assert!(txn_id >= newest.txn_id, "the applied txn id goes back from {} to {txn_id}", newest.txn_id);
            *newest = Arc::new(Shown { txn_id, publication: newest.publication + 1, state });
        }
        for desk in desks.iter_mut() {
            desk.shown = None;
        }
        let live = desks.iter().flat_map(Desk::readers).filter(Taken::is_live);
        let mut snapshots: Vec<TxnId> = live.map(|taken| taken.txn_id()).collect();
        drop(desks);
        snapshots.sort_unstable();
        snapshots.dedup();
        snapshots
    }

    /// The state that new readers see.
    pub fn newest(&self) -> Arc<S> {
        self.newest.lock().state.clone()
    }

    /// Registers a reader of the newest state.
    #[track_caller]
    pub fn open(&self) -> Registration<S> {
        let lane = self.lanes.mine();
        let mut desk = lane.lock();
        let shown = desk.shown.get_or_insert_with(|| {
            let newest = self.newest.lock();
            Arc::new(Shown { txn_id: newest.txn_id, publication: newest.publication, state: newest.state.clone() })
        });
        let shown = shown.clone();
        desk.register(lane, shown, false)
    }

    /// Where a checkpoint may go: the newest snapshot that no reader lies below.
    fn reachable(&self, desks: &AllLanes<'_, Desk<S>>) -> Option<Arc<Shown<S>>> {
        let Some(oldest) = readers(desks).min_by_key(Taken::order) else { return Some(self.newest.lock().clone()) };
        let live = readers(desks).any(|taken| taken.txn_id() == oldest.txn_id() && taken.is_live());
        live.then(|| oldest.reader.shown.clone())
    }

    /// Registers the checkpointer at the newest snapshot that no reader lies below: the oldest reader's, else the
    /// newest state.
    ///
    /// `None` while an expired reader is the oldest and still lives: it may hold slices of the map, so nothing newer
    /// may be written over them, and its own snapshot is not whole any more, since versions that only it needed are
    /// gone.
    #[track_caller]
    pub fn open_for_checkpoint(&self) -> Option<Registration<S>> {
        let mut desks = self.lanes.lock_all();
        let shown = self.reachable(&desks)?;
        let (lane, desk) = desks.mine();
        Some(desk.register(lane, shown, true))
    }

    /// Where [`Self::open_for_checkpoint`] would register.
    pub fn checkpoint_snapshot(&self) -> Option<Arc<S>> {
        self.reachable(&self.lanes.lock_all()).map(|shown| shown.state.clone())
    }

    /// The readers of snapshots up to `checkpointed`, unless that is the newest state; the oldest first.
    fn holders<'a>(&self, desks: &'a AllLanes<'_, Desk<S>>, checkpointed: TxnId) -> Vec<Taken<'a, S>> {
        let newest = self.newest.lock().txn_id;
        let held_back = |taken: &Taken<'_, S>| taken.txn_id() <= checkpointed && taken.txn_id() < newest;
        let mut holders: Vec<_> = readers(desks).filter(held_back).collect();
        holders.sort_unstable_by_key(Taken::order);
        holders
    }

    /// Who holds checkpoints back that have come as far as `checkpointed`: a reader of that snapshot or an older one,
    /// while the newest state is newer. One that is not expired, if there is one.
    pub fn in_the_way(&self, checkpointed: TxnId) -> Option<ReaderInfo> {
        let desks = self.lanes.lock_all();
        let holders = self.holders(&desks, checkpointed);
        holders.iter().find(|taken| taken.is_live()).or(holders.first()).map(Taken::info)
    }

    /// Expires all who hold checkpoints back that have come as far as `checkpointed`. Returns who they were.
    pub fn expire_in_the_way(&self, checkpointed: TxnId) -> Vec<ReaderInfo> {
        let desks = self.lanes.lock_all();
        let holders = self.holders(&desks, checkpointed);
        let live = holders.iter().filter(|taken| !taken.expired.swap(true, Ordering::AcqRel));
        live.map(Taken::info).collect()
    }

    /// The oldest reader.
    pub fn oldest(&self) -> Option<ReaderInfo> {
        let desks = self.lanes.lock_all();
        readers(&desks).min_by_key(Taken::order).map(|taken| taken.info())
    }

    /// How many readers are open.
    pub fn count(&self) -> usize {
        readers(&self.lanes.lock_all()).count()
    }
}
