//! Operations on multi-value trees, beside a map of sets.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};

use arbitrary::Arbitrary;
use calamus_engine::Batch;
use calamus_engine::txn::BatchError;

use crate::sound::{Contents, ManyMap};

/// None of them has the name of a plain tree.
const TREES: [&str; 2] = ["tags", "$links"];

/// An operation; numbers are taken modulo what there is.
#[derive(Arbitrary, Debug)]
pub enum ManyOperation {
    /// Makes a tree.
    Create(u8),
    /// Drops it.
    Drop(u8),
    /// Gives a tree the other's name.
    Rename(u8),
    /// Values that follow each other.
    Add(Place, u8),
    /// Values that follow each other.
    Remove(Place, u8),
    /// The values of a key from one on, below another.
    RemoveRange(Place, u16),
    /// All values of a key.
    Delete(Place),
    /// Whether a value is there, how many there are, and a walk from it; each bit is a step forward or back.
    Look(Place, u8),
    /// What is for the other kind of tree.
    Other(Place),
}

/// A value under a key.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place {
    tree: u8,
    key: u8,
    value: u16,
}

impl Place {
    /// Any one.
    #[cfg(test)]
    pub fn example() -> Self {
        Self { tree: 0, key: 1, value: 3 }
    }

    fn tree(self) -> &'static str {
        tree(self.tree)
    }

    fn key(self) -> Vec<u8> {
        let mut key = vec![self.key % 4];
        key.resize([1, 30, 1_900, 2_048][usize::from(self.key % 4)], b'k');
        key
    }

    fn value(self) -> Vec<u8> {
        let mut value = self.value.to_be_bytes().to_vec();
        value.resize([2, 8, 90, 600][usize::from(self.value % 4)], b'v');
        value
    }

    fn after(self, steps: u8) -> Self {
        Self { value: self.value.wrapping_add(steps.into()), ..self }
    }
}

fn tree(number: u8) -> &'static str {
    TREES[usize::from(number) % TREES.len()]
}

/// Runs an operation on both. An error that the map foretells gives the transaction up.
pub fn apply(
    batch: &mut Batch,
    contents: &mut Contents,
    operation: &ManyOperation,
    room: &mut usize,
) -> Result<(), BatchError> {
    let map = &mut contents.many;
    match operation {
        ManyOperation::Create(number) => {
            assert_eq!(batch.create_multi_tree(tree(*number))?, !map.contains_key(tree(*number)));
            map.entry(tree(*number).to_owned()).or_default();
        }
        ManyOperation::Drop(number) => {
            assert_eq!(batch.drop_tree(tree(*number))?, map.remove(tree(*number)).is_some());
        }
        ManyOperation::Rename(number) => {
            let (from, to) = (tree(*number), tree(number.wrapping_add(1)));
            let renamed = batch.rename_tree(from, to);
            if matches!(renamed, Err(BatchError::TreeExists(_))) {
                assert!(map.contains_key(to));
                return renamed.map(drop);
            }
            let entries = map.remove(from);
            assert_eq!(renamed?, entries.is_some());
            map.extend(entries.map(|entries| (to.to_owned(), entries)));
        }
        ManyOperation::Add(place, count) => {
            for step in 0..=*count % 64 {
                add(batch, map.get_mut(place.tree()), place.after(step), room)?;
            }
        }
        ManyOperation::Remove(place, count) => {
            for step in 0..=*count % 64 {
                remove(batch, map.get_mut(place.tree()), place.after(step))?;
            }
        }
        ManyOperation::RemoveRange(place, to) => {
            let (start, end) = (place.value(), Place { value: *to, ..*place }.value());
            let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
            let removed = batch.remove_values(place.tree(), &place.key(), range.0, range.1);
            let Some(entries) = in_both(map.get_mut(place.tree()), &removed) else { return removed.map(drop) };
            let count = |entries: &ManyMap| entries.get(&place.key()).map_or(0, BTreeSet::len) as u64;
            let before = count(entries);
            if let Some(values) = entries.get_mut(&place.key()) {
                values.retain(|value| !RangeBounds::<[u8]>::contains(&range, &value[..]));
            }
            assert_eq!(removed?, before - count(entries));
            entries.retain(|_, values| !values.is_empty());
        }
        ManyOperation::Delete(place) => {
            let deleted = batch.delete(place.tree(), &place.key());
            let Some(entries) = in_both(map.get_mut(place.tree()), &deleted) else { return deleted.map(drop) };
            assert_eq!(deleted?.is_some(), entries.remove(&place.key()).is_some());
        }
        ManyOperation::Look(place, turns) => look(batch, map.get(place.tree()), *place, *turns)?,
        ManyOperation::Other(place) => {
            if map.contains_key(place.tree()) {
                assert!(batch.get(place.tree(), &place.key()).is_err());
                assert!(batch.cursor(place.tree())?.expect("it is there").first().is_err());
                let put = batch.put(place.tree(), &place.key(), b"one");
                assert!(matches!(put, Err(BatchError::ManyValues(_))));
            }
            for name in contents.plain.keys() {
                assert!(matches!(batch.add(name, &place.key(), b"many"), Err(BatchError::OneValue(_))));
                assert!(matches!(batch.create_multi_tree(name), Err(BatchError::OneValue(_))));
            }
        }
    }
    Ok(())
}

/// The map's tree, after an operation that needs it; `None` if the operation said rightly that there is none, or that
/// the disk is gone.
fn in_both<'m, T>(entries: Option<&'m mut ManyMap>, outcome: &Result<T, BatchError>) -> Option<&'m mut ManyMap> {
    match outcome {
        Ok(_) => entries,
        Err(BatchError::Read(_)) => None,
        Err(BatchError::NoSuchTree(_)) if entries.is_none() => None,
        Err(error) => panic!("refused: {error}"),
    }
}

fn add(batch: &mut Batch, entries: Option<&mut ManyMap>, place: Place, room: &mut usize) -> Result<(), BatchError> {
    let (key, value) = (place.key(), place.value());
    let Some(left) = room.checked_sub(key.len() + value.len()) else { return Ok(()) };
    *room = left;
    let added = batch.add(place.tree(), &key, &value);
    let Some(entries) = in_both(entries, &added) else { return added.map(drop) };
    assert_eq!(added?, entries.entry(key).or_default().insert(value));
    Ok(())
}

fn remove(batch: &mut Batch, entries: Option<&mut ManyMap>, place: Place) -> Result<(), BatchError> {
    let (key, value) = (place.key(), place.value());
    let removed = batch.remove_value(place.tree(), &key, &value);
    let Some(entries) = in_both(entries, &removed) else { return removed.map(drop) };
    assert_eq!(removed?, entries.get_mut(&key).is_some_and(|values| values.remove(&value)));
    entries.retain(|_, values| !values.is_empty());
    Ok(())
}

/// A cursor over values beside an index into the set.
fn look(batch: &Batch, entries: Option<&ManyMap>, place: Place, turns: u8) -> Result<(), BatchError> {
    let (tree, key, from) = (place.tree(), place.key(), place.value());
    let nothing = BTreeSet::new();
    let set = entries.and_then(|entries| entries.get(&key)).unwrap_or(&nothing);
    assert_eq!(batch.count_values(tree, &key)?, set.len() as u64);
    assert_eq!(batch.contains(tree, &key, &from)?, set.contains(&from));
    let values: Vec<&Vec<u8>> = set.iter().collect();
    let mut cursor = batch.values(tree, &key)?;
    let mut there = cursor.seek(&from)?;
    // One more than the value's index; 0 and one more than there are stand before and behind all of them.
    let mut at = values.partition_point(|value| **value < from) + 1;
    for turn in 0..8 {
        assert_eq!(there, (1..=values.len()).contains(&at), "step {turn}");
        if !there {
            break;
        }
        assert_eq!(cursor.value(), values[at - 1], "step {turn}");
        if turns & (1 << turn) == 0 {
            (there, at) = (cursor.next()?, at + 1);
        } else {
            (there, at) = (cursor.previous()?, at - 1);
        }
    }
    Ok(())
}
