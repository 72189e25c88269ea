//! The store in use: asked for by every operation, changed when a seed takes its place.

use std::sync::Arc;

use crate::store::Store;
use crate::versions::{AllLanes, Lanes};

/// A store as readers hold it. Each lane has a box of its own around the store: two threads that open readers count
/// references in different cache lines.
pub(crate) type ReadersStore = Arc<Arc<Store>>;

/// The store in use.
pub(crate) struct CurrentStore(Lanes<ReadersStore>);

impl CurrentStore {
    pub(crate) fn new(store: Store) -> Self {
        let store = Arc::new(store);
        Self(Lanes::new(|| Arc::new(store.clone())))
    }

    pub(crate) fn get(&self) -> Arc<Store> {
        Arc::clone(&**self.0.mine().lock())
    }

    /// Does something with the store that no other store replaces before it is done. Must be quick, and must not ask for
    /// the store.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Store) -> T) -> T {
        work(&self.0.mine().lock())
    }

    /// The store, for a reader.
    pub(crate) fn for_reader(&self) -> ReadersStore {
        self.0.mine().lock().clone()
    }

    /// Keeps everybody from asking for the store until the guard is dropped.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        Exclusive(self.0.lock_all())
    }
}

/// Nobody else asks for the store.
pub(crate) struct Exclusive<'a>(AllLanes<'a, ReadersStore>);

impl Exclusive<'_> {
    /// Puts another store in place.
    pub(crate) fn replace(&mut self, store: Store) {
        let store = Arc::new(store);
        for lane in self.0.iter_mut() {
            *lane = Arc::new(store.clone());
        }
    }
}
