//! Which operations of a batch have their value in the tree: at most one a key, the last that put it.
//!
//! Found by a hash of tree and key, which costs no copy of the key. Once a batch deletes a range, they are kept in order
//! too: so taking out a range costs what lies in it, however long the batch is.
//!
//! Operations are entered when somebody asks, all that were not until then: a batch that only puts keys above all others
//! never asks. Until then each of them has its value in the tree under a key of its own, because whoever puts a key that
//! may be there has asked for it first.

use std::collections::BTreeMap;
use std::ops::Bound;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::batch::{Pending, PendingValue};

/// Places of operations in the batch, by tree and key. Trees are named by their place among the batch's names. What is
/// asked for is handed the operations, which have the keys.
#[derive(Default)]
pub(super) struct InTree {
    /// The first operations of the batch, so many, are entered.
    entered: usize,
    places: HashTable<usize>,
    /// Only once a range was asked for.
    ordered: Option<BTreeMap<(u16, Vec<u8>), usize>>,
}

fn hash(tree: u16, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(tree))
}

fn hash_of(operation: &Pending) -> u64 {
    hash(operation.tree, &operation.key)
}

impl InTree {
    /// Enters what was not yet.
    fn enter(&mut self, operations: &[Pending]) {
        let first = std::mem::replace(&mut self.entered, operations.len());
        for place in first..operations.len() {
            if matches!(operations[place].value, PendingValue::InTree) {
                self.insert(operations, place);
            }
        }
    }

    fn insert(&mut self, operations: &[Pending], place: usize) {
        let operation = &operations[place];
        self.places.insert_unique(hash_of(operation), place, |place| hash_of(&operations[*place]));
        if let Some(ordered) = &mut self.ordered {
            let before = ordered.insert((operation.tree, operation.key.clone()), place);
            assert!(before.is_none(), "two operations share a value");
        }
    }

    fn remove(&mut self, operations: &[Pending], tree: u16, key: &[u8]) -> Option<usize> {
        let of_key = |place: &usize| operations[*place].tree == tree && operations[*place].key == key;
        let (place, _) = self.places.find_entry(hash(tree, key), of_key).ok()?.remove();
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(&(tree, key.to_vec()));
        }
        Some(place)
    }

    /// Takes out the operation of a key.
    pub(super) fn take(&mut self, operations: &[Pending], tree: u16, key: &[u8]) -> Option<usize> {
        self.enter(operations);
        self.remove(operations, tree, key)
    }

    /// Forgets all operations but the first `length`.
    pub(super) fn truncate(&mut self, operations: &[Pending], length: usize) {
        for undone in operations.get(length..self.entered).unwrap_or_default() {
            if matches!(undone.value, PendingValue::InTree) {
                self.remove(operations, undone.tree, &undone.key);
            }
        }
        self.entered = self.entered.min(length);
    }

    /// The operation at `place`, which was taken out, has its value in the tree again.
    pub(super) fn put_back(&mut self, operations: &[Pending], place: usize) {
        if place < self.entered {
            self.insert(operations, place);
        }
    }

    /// Takes out the operations of a range, in the order of their keys.
    pub(super) fn take_range(
        &mut self,
        operations: &[Pending],
        tree: u16,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Vec<usize> {
        self.enter(operations);
        if is_backwards(start, end) || self.places.is_empty() {
            return Vec::new();
        }
        let ordered = self.ordered.get_or_insert_with(|| {
            let key_of = |place: &usize| (operations[*place].tree, operations[*place].key.clone());
            self.places.iter().map(|place| (key_of(place), *place)).collect()
        });
        let from = match start {
            Bound::Included(key) => Bound::Included((tree, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((tree, key.to_vec())),
            Bound::Unbounded => Bound::Included((tree, Vec::new())),
        };
        let to = match end {
            Bound::Included(key) => Bound::Included((tree, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((tree, key.to_vec())),
            // No batch has a tree in the last place: see `MAX_NAMES`.
            Bound::Unbounded => Bound::Excluded((tree + 1, Vec::new())),
        };
        let inside: Vec<(u16, Vec<u8>)> = ordered.range((from, to)).map(|(key, _)| key.clone()).collect();
        let taken = inside.iter().map(|key| ordered.remove(key).expect("just found")).collect::<Vec<_>>();
        for place in &taken {
            let entry = self.places.find_entry(hash_of(&operations[*place]), |other| other == place);
            entry.expect("what is ordered is here too").remove();
        }
        taken
    }
}

/// Whether no key can lie between the bounds.
fn is_backwards(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::OperationKind;
    use super::*;

    fn put(tree: u16, key: &[u8]) -> Pending {
        Pending { txn: 0, kind: OperationKind::Put, tree, key: key.to_vec(), value: PendingValue::InTree }
    }

    #[test]
    fn a_range_takes_out_what_lies_in_it() {
        let (tree, other) = (3, 4);
        let (a, b, c) = (&b"a"[..], &b"b"[..], &b"c"[..]);
        let operations: Vec<Pending> = [a, c, b].iter().flat_map(|key| [put(tree, key), put(other, key)]).collect();
        let filled = |ordered: bool| {
            let mut places = InTree::default();
            if ordered {
                places.take_range(&operations[..2], 9, Bound::Unbounded, Bound::Unbounded);
            }
            places
        };
        for (start, end, expected) in [
            (Bound::Unbounded, Bound::Unbounded, vec![0, 4, 2]),
            (Bound::Included(a), Bound::Excluded(c), vec![0, 4]),
            (Bound::Excluded(a), Bound::Included(c), vec![4, 2]),
            (Bound::Included(b), Bound::Included(b), vec![4]),
            (Bound::Excluded(b), Bound::Excluded(b), vec![]),
            (Bound::Included(c), Bound::Included(a), vec![]),
            (Bound::Excluded(c), Bound::Unbounded, vec![]),
        ] {
            for ordered in [false, true] {
                let mut places = filled(ordered);
                assert_eq!(places.take_range(&operations, tree, start, end), expected);
                let rest = places.take_range(&operations, tree, Bound::Unbounded, Bound::Unbounded);
                assert_eq!(rest.len(), 3 - expected.len());
                assert_eq!(places.take_range(&operations, 9, start, end), [0; 0]);
                assert_eq!(places.take(&operations, tree, a), None);
                assert_eq!(places.take(&operations, other, c), Some(3));
                assert_eq!(places.take(&operations, other, c), None);
                assert_eq!(places.take_range(&operations, other, Bound::Unbounded, Bound::Unbounded), [1, 5]);
            }
        }
    }
    #[test]
    fn what_is_undone_is_forgotten_entered_or_not() {
        let operations: Vec<Pending> = [b"a", b"b", b"c", b"d"].iter().map(|key| put(1, *key)).collect();
        for entered in 0..=operations.len() {
            for length in 0..=operations.len() {
                let mut places = InTree::default();
                assert_eq!(places.take(&operations[..entered], 1, b"z"), None);
                let taken = (entered > 0).then(|| places.take(&operations[..entered], 1, b"a")).flatten();
                assert_eq!(taken, (entered > 0).then_some(0));
                places.truncate(&operations, length);
                if taken.is_some() && length > 0 {
                    places.put_back(&operations, 0);
                }
                let rest = places.take_range(&operations[..length], 1, Bound::Unbounded, Bound::Unbounded);
                assert_eq!(rest, (0..length).collect::<Vec<_>>(), "{entered} entered, {length} left");
            }
        }
    }
}
