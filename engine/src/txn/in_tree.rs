//! Which operations of a batch have their value in the tree: at most one a key, the last that put it.
//!
//! Ordered by key, so that taking out a range of a tree costs what lies in the range, however long the batch is: each
//! operation comes here once, and goes once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Tree and key to the operation's place in the batch.
#[derive(Default)]
pub(super) struct InTree(HashMap<Arc<str>, BTreeMap<Vec<u8>, usize>>);

impl InTree {
    /// Notes the operation that has its value in the tree now.
    ///
    /// # Panics
    /// When the one before it was not taken out.
    pub(super) fn insert(&mut self, tree: &Arc<str>, key: &[u8], place: usize) {
        let keys = match self.0.get_mut(tree) {
            Some(keys) => keys,
            None => self.0.entry(tree.clone()).or_default(),
        };
        assert!(keys.insert(key.to_vec(), place).is_none(), "two operations share a value");
    }

    /// Takes out the operation of a key.
    pub(super) fn take(&mut self, tree: &str, key: &[u8]) -> Option<usize> {
        self.0.get_mut(tree)?.remove(key)
    }

    /// Takes out the operations of a range, in the order of their keys.
    pub(super) fn take_range(&mut self, tree: &str, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Vec<usize> {
        let Some(keys) = self.0.get_mut(tree) else { return Vec::new() };
        if is_backwards(start, end) {
            return Vec::new();
        }
        let inside: Vec<Vec<u8>> = keys.range::<[u8], _>((start, end)).map(|(key, _)| key.clone()).collect();
        inside.iter().map(|key| keys.remove(key).expect("just found")).collect()
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
    use super::*;

    #[test]
    fn a_range_takes_out_what_lies_in_it() {
        let (tree, other): (Arc<str>, Arc<str>) = ("t".into(), "other".into());
        let filled = || {
            let mut places = InTree::default();
            for (place, key) in [b"a", b"c", b"b"].into_iter().enumerate() {
                places.insert(&tree, key, place);
                places.insert(&other, key, 10 + place);
            }
            places
        };
        let (a, b, c) = (&b"a"[..], &b"b"[..], &b"c"[..]);
        for (start, end, expected) in [
            (Bound::Unbounded, Bound::Unbounded, vec![0, 2, 1]),
            (Bound::Included(a), Bound::Excluded(c), vec![0, 2]),
            (Bound::Excluded(a), Bound::Included(c), vec![2, 1]),
            (Bound::Included(b), Bound::Included(b), vec![2]),
            (Bound::Excluded(b), Bound::Excluded(b), vec![]),
            (Bound::Included(c), Bound::Included(a), vec![]),
            (Bound::Excluded(c), Bound::Unbounded, vec![]),
        ] {
            let mut places = filled();
            assert_eq!(places.take_range("t", start, end), expected);
            assert_eq!(places.take_range("t", Bound::Unbounded, Bound::Unbounded).len(), 3 - expected.len());
            assert_eq!(places.take_range("nowhere", start, end), [0; 0]);
            assert_eq!((places.take("t", a), places.take("other", c), places.take("other", c)), (None, Some(11), None));
        }
    }
}
