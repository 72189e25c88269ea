//! A lock in parts, for what many threads use often and few ever change.
//!
//! Each thread has a lane, and what is done often takes the lock of that lane alone: no other thread writes to its cache
//! lines, so the lock and the reference counts behind it cost what they cost one thread. What concerns everybody takes
//! the locks of all lanes, in their order, and is then as exclusive as under one lock: whatever the argument for one lock
//! is, it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// More lanes than threads read at a time on most machines. Two threads in one lane wait for each other, and no more.
const LANES: usize = 16;

/// The lock of a lane, in cache lines of its own (processors fetch them in pairs).
#[repr(align(128))]
pub struct Lane<T>(Mutex<T>);

impl<T> Lane<T> {
    /// Takes this lane's lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

/// All lanes.
pub struct Lanes<T>([Arc<Lane<T>>; LANES]);

fn my_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
    MINE.with(|number| *number)
}

impl<T> Lanes<T> {
    /// Lanes that each begin with what `make` gives.
    pub fn new(make: impl Fn() -> T) -> Self {
        Self(std::array::from_fn(|_| Arc::new(Lane(Mutex::new(make())))))
    }

    /// The lane of this thread.
    pub fn mine(&self) -> &Arc<Lane<T>> {
        &self.0[my_number()]
    }

    /// The locks of all lanes.
    pub fn lock_all(&self) -> AllLanes<'_, T> {
        AllLanes { lanes: self, guards: std::array::from_fn(|number| self.0[number].lock()) }
    }
}

/// Holds the locks of all lanes.
pub struct AllLanes<'a, T> {
    lanes: &'a Lanes<T>,
    guards: [MutexGuard<'a, T>; LANES],
}

impl<'a, T> AllLanes<'a, T> {
    /// What all lanes hold.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.guards.iter().map(|guard| &**guard)
    }

    /// What all lanes hold, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.guards.iter_mut().map(|guard| &mut **guard)
    }

    /// The lane of this thread, and what it holds.
    pub fn mine(&mut self) -> (&'a Arc<Lane<T>>, &mut T) {
        let number = my_number();
        (&self.lanes.0[number], &mut *self.guards[number])
    }
}
