//! An operation on a batch and on a map, whose answers are compared.

use std::collections::BTreeMap;
use std::ops::Bound;

use calamus_engine::Batch;
use calamus_engine::txn::BatchError;

use super::input::{Key, Operation, Value, tree};
use crate::many;
use crate::sound::{Contents, Map};

type Maps = BTreeMap<String, Map>;

/// Runs an operation on both. An error that the map foretells gives the transaction up.
pub(super) fn apply(
    batch: &mut Batch,
    contents: &mut Contents,
    operation: &Operation,
    room: &mut usize,
) -> Result<(), BatchError> {
    let map = &mut contents.plain;
    match operation {
        Operation::Many(operation) => many::apply(batch, contents, operation, room)?,
        Operation::CreateTree(number) => {
            let made = batch.create_tree(tree(*number))?;
            assert_eq!(made, !map.contains_key(tree(*number)));
            map.entry(tree(*number).to_owned()).or_default();
        }
        Operation::DropTree(number) => {
            assert_eq!(batch.drop_tree(tree(*number))?, map.remove(tree(*number)).is_some());
        }
        Operation::RenameTree(from, to) => rename(batch, map, tree(*from), tree(*to))?,
        Operation::Put { tree: number, key, value } => put(batch, map, tree(*number), *key, *value, room)?,
        Operation::PutMany { tree: number, key, value, count } => {
            for step in 0..*count {
                put(batch, map, tree(*number), key.after(step), *value, room)?;
            }
        }
        Operation::Delete { tree: number, key } => {
            let deleted = batch.delete(tree(*number), &key.bytes());
            let Some(entries) = in_both(map, tree(*number), &deleted) else { return deleted.map(drop) };
            assert_eq!(deleted?.is_some(), entries.remove(&key.bytes()).is_some());
        }
        Operation::DeleteRange { tree: number, start, end } => {
            let (start, end) = (start.bound(), end.bound());
            let deleted = batch.delete_range(tree(*number), as_slice(&start), as_slice(&end));
            let Some(entries) = in_both(map, tree(*number), &deleted) else { return deleted.map(drop) };
            let before = entries.len();
            entries.retain(|key, _| !is_within(key, &start, &end));
            assert_eq!(deleted?, (before - entries.len()) as u64);
        }
        Operation::Get { tree: number, key } => {
            let found = batch.get(tree(*number), &key.bytes())?.map(|entry| entry.value.to_vec()).transpose()?;
            assert_eq!(found.as_ref(), map.get(tree(*number)).and_then(|entries| entries.get(&key.bytes())));
        }
        Operation::Walk { tree: number, from, back, turns } => {
            walk(batch, map.get(tree(*number)), tree(*number), *from, *back, *turns)?;
        }
    }
    Ok(())
}

/// The map's tree, after an operation that needs it; `None` if the operation said rightly that there is none, or that
/// the disk is gone.
fn in_both<'m, T>(map: &'m mut Maps, tree: &str, outcome: &Result<T, BatchError>) -> Option<&'m mut Map> {
    let entries = map.get_mut(tree);
    match outcome {
        Ok(_) => entries,
        Err(BatchError::Read(_)) => None,
        Err(BatchError::NoSuchTree(_)) if entries.is_none() => None,
        Err(error) => panic!("refused in {tree}: {error}"),
    }
}

fn put(
    batch: &mut Batch,
    map: &mut Maps,
    tree: &str,
    key: Key,
    value: Value,
    room: &mut usize,
) -> Result<(), BatchError> {
    let (key, value) = (key.bytes(), value.bytes());
    let Some(left) = room.checked_sub(key.len() + value.len()) else { return Ok(()) };
    *room = left;
    let before = batch.put(tree, &key, &value);
    let Some(entries) = in_both(map, tree, &before) else { return before.map(drop) };
    assert_eq!(before?.is_some(), entries.insert(key, value).is_some());
    Ok(())
}

fn rename(batch: &mut Batch, map: &mut Maps, from: &str, to: &str) -> Result<(), BatchError> {
    match batch.rename_tree(from, to) {
        Ok(renamed) => {
            assert!(!map.contains_key(to));
            let entries = map.remove(from);
            assert_eq!(renamed, entries.is_some());
            map.extend(entries.map(|entries| (to.to_owned(), entries)));
            Ok(())
        }
        Err(error) => {
            let foretold = matches!(error, BatchError::TreeExists(_)) && map.contains_key(to);
            assert!(foretold || matches!(error, BatchError::Read(_)), "refused: {error}");
            Err(error)
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn is_within(key: &[u8], start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    let above = match start {
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
        Bound::Unbounded => true,
    };
    above
        && match end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        }
}

/// A cursor beside an index into the map's keys; each bit of `turns` is a step forward or back.
fn walk(batch: &Batch, map: Option<&Map>, tree: &str, from: Key, back: bool, turns: u8) -> Result<(), BatchError> {
    let cursor = batch.cursor(tree)?;
    assert_eq!(cursor.is_some(), map.is_some());
    let (Some(mut cursor), Some(map)) = (cursor, map) else { return Ok(()) };
    let from = from.bytes();
    let entries: Vec<(&Vec<u8>, &Vec<u8>)> = map.iter().collect();
    let mut there = if back { cursor.seek_back(&from)? } else { cursor.seek(&from)? };
    // One more than the entry's index; 0 and one more than there are stand before and behind all of them.
    let mut at = if back {
        entries.partition_point(|(key, _)| **key <= from)
    } else {
        entries.partition_point(|(key, _)| **key < from) + 1
    };
    for turn in 0..8 {
        assert_eq!(there, (1..=entries.len()).contains(&at), "step {turn} in {tree}");
        if !there {
            return Ok(());
        }
        let (key, value) = entries[at - 1];
        assert!(cursor.key() == key && cursor.value().to_vec()? == *value, "step {turn} in {tree}");
        if turns & (1 << turn) == 0 {
            (there, at) = (cursor.next()?, at + 1);
        } else {
            (there, at) = (cursor.previous()?, at - 1);
        }
    }
    Ok(())
}
