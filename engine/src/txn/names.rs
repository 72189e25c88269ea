//! The names of the trees that the operations of a batch speak of.

use std::collections::HashMap;
use std::sync::Arc;

/// The most names that a record has room for: an operation names its tree by an index of 16 bits, of which the last
/// means none.
pub const MAX_NAMES: usize = u16::MAX as usize;

/// Names, in the order in which operations first spoke of them: as the record lists them.
#[derive(Default)]
pub(super) struct TreeNames {
    in_order: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u16>,
    /// The place that was asked for last; it may be gone.
    last: u16,
}

impl TreeNames {
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    pub(super) fn get(&self, place: u16) -> &Arc<str> {
        &self.in_order[usize::from(place)]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.in_order.iter()
    }

    /// The place of a name, if an operation has spoken of it.
    pub(super) fn find(&self, name: &str) -> Option<u16> {
        // Most operations speak of the tree that the one before them spoke of.
        match self.in_order.get(usize::from(self.last)) {
            Some(last) if **last == *name => Some(self.last),
            _ => self.places.get(name).copied(),
        }
    }

    /// The place of a name, which is added if it is new; `None` if there is no room for it.
    pub(super) fn place_of(&mut self, name: &str) -> Option<u16> {
        if let Some(place) = self.find(name) {
            self.last = place;
            return Some(place);
        }
        let place = u16::try_from(self.in_order.len()).ok().filter(|place| usize::from(*place) < MAX_NAMES)?;
        let name: Arc<str> = name.into();
        self.in_order.push(name.clone());
        self.places.insert(name, place);
        self.last = place;
        Some(place)
    }

    /// Forgets all but the first `length` names.
    pub(super) fn truncate(&mut self, length: usize) {
        for name in self.in_order.drain(length..) {
            self.places.remove(&name);
        }
    }
}
