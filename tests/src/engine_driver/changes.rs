//! Random transactions, executed by a batch and by the model side by side; every answer is compared.

use std::ops::Bound;
use std::sync::Arc;

use calamus_engine::ids::TxnId;
use calamus_engine::{Batch, BatchError, Savepoint};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Stop, disk, many, wrong};
use crate::oracle::{Item, State, Tree};

/// The trees that there may be.
const NAMES: [&str; 4] = ["a", "b", "cities", "$system"];
/// Keys that there may be: few, so that they are met again.
const KEYS: u32 = 60;

/// How large values get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// Up to some KiB; now and then some pages.
    Small,
    /// Now and then more than a hundred KiB.
    Large,
}

/// The key of a number: lengths from 1 to 2,048 bytes, with long common beginnings among them.
#[must_use]
pub fn key(number: u32) -> Vec<u8> {
    let mut key = match number % 6 {
        0 => vec![],
        1 => vec![b'k'; 20],
        2 => vec![b'p'; 300],
        3 => vec![b'p'; 1_000],
        4 => b"city/".to_vec(),
        _ => vec![0xff; 7],
    };
    key.push(u8::try_from(number).expect("few keys"));
    if number % 29 == 7 {
        key.resize(2_048, 0);
    }
    key
}

fn value(random: &mut StdRng, sizes: Sizes) -> Vec<u8> {
    let length = match random.random_range(0..100) {
        0..50 => random.random_range(0..200),
        50..75 => random.random_range(200..2_100),
        75..95 => random.random_range(2_000..9_000),
        _ if sizes == Sizes::Large => random.random_range(8_000..150_000),
        _ => random.random_range(8_000..30_000),
    };
    let mut bytes = vec![random.random::<u8>(); length];
    // Not one byte over and over: neighbours in a page must differ.
    for (place, byte) in bytes.iter_mut().enumerate().step_by(7) {
        *byte = byte.wrapping_add((place % 251) as u8);
    }
    bytes
}

fn refused<T>(result: Result<T, BatchError>, operation: &str) -> Result<(), Stop> {
    match result {
        Err(BatchError::NoSuchTree(_) | BatchError::TreeExists(_)) => Ok(()),
        Err(error) => Err(disk(operation)(error)),
        Ok(_) => Err(wrong(format!("{operation} on a tree that is not there, or there twice"))),
    }
}

/// Some transactions; some of them are rolled back, whole or to a savepoint.
pub fn transactions(random: &mut StdRng, sizes: Sizes, batch: &mut Batch, state: &mut State) -> Result<(), Stop> {
    for _ in 0..random.random_range(1..=4) {
        let before = state.clone();
        let version = batch.begin_txn();
        if version != before.txn_id.next() {
            return Err(wrong(format!("a transaction would get id {version} behind {}", before.txn_id)));
        }
        let mut changed = false;
        let mut savepoints: Vec<(Savepoint, State, bool)> = Vec::new();
        for _ in 0..random.random_range(1..=6) {
            match random.random_range(0..12) {
                0..2 => savepoints.push((batch.savepoint(), state.clone(), changed)),
                2 if !savepoints.is_empty() => {
                    savepoints.truncate(random.random_range(1..=savepoints.len()));
                    let (savepoint, then, had_changed) = &savepoints[savepoints.len() - 1];
                    batch.rollback_to(*savepoint).map_err(disk("rollback to a savepoint"))?;
                    (*state, changed) = (then.clone(), *had_changed);
                }
                _ => changed |= operation(random, sizes, batch, state, version)?,
            }
        }
        if random.random_ratio(1, 8) {
            batch.rollback_txn();
            *state = before;
            continue;
        }
        let given = batch.commit_txn();
        if given != changed.then_some(version) {
            return Err(wrong(format!("the transaction got {given:?}, not {version} (changed: {changed})")));
        }
        if changed {
            state.txn_id = version;
        }
    }
    Ok(())
}

fn operation(
    random: &mut StdRng,
    sizes: Sizes,
    batch: &mut Batch,
    state: &mut State,
    version: TxnId,
) -> Result<bool, Stop> {
    if random.random_ratio(1, 5) {
        return many::operation(random, batch, state, version);
    }
    let name = NAMES[random.random_range(0..NAMES.len())];
    match random.random_range(0..100) {
        0..8 => create(batch, state, name),
        8..9 => drop_tree(batch, state, name),
        9..12 => rename(batch, state, name, NAMES[random.random_range(0..NAMES.len())]),
        12..24 => delete(batch, state, name, random.random_range(0..KEYS)),
        24..28 => {
            let (one, other) = (random.random_range(0..KEYS), random.random_range(0..KEYS));
            let width = random.random_range(0..3);
            delete_range(batch, state, name, &key(one), &key(other), width)
        }
        28..34 => look(batch, state, name, random.random_range(0..KEYS)),
        _ => {
            let name = if state.trees.contains_key(name) || random.random_ratio(1, 10) { name } else { "a" };
            let created = if name == "a" { create(batch, state, name)? } else { false };
            let put = put(batch, state, name, random.random_range(0..KEYS), value(random, sizes), version)?;
            Ok(created | put)
        }
    }
}

fn create(batch: &mut Batch, state: &mut State, name: &str) -> Result<bool, Stop> {
    let made = batch.create_tree(name).map_err(disk("create tree"))?;
    if made == state.trees.contains_key(name) {
        return Err(wrong(format!("create tree {name} says {made}")));
    }
    state.trees.entry(name.into()).or_default();
    Ok(made)
}

fn drop_tree(batch: &mut Batch, state: &mut State, name: &str) -> Result<bool, Stop> {
    let dropped = batch.drop_tree(name).map_err(disk("drop tree"))?;
    if dropped != state.trees.remove(name).is_some() {
        return Err(wrong(format!("drop tree {name} says {dropped}")));
    }
    Ok(dropped)
}

fn rename(batch: &mut Batch, state: &mut State, from: &str, to: &str) -> Result<bool, Stop> {
    if state.trees.contains_key(to) {
        refused(batch.rename_tree(from, to), "rename tree")?;
        return Ok(false);
    }
    let renamed = batch.rename_tree(from, to).map_err(disk("rename tree"))?;
    let tree = state.trees.remove(from);
    if renamed != tree.is_some() {
        return Err(wrong(format!("rename tree {from} to {to} says {renamed}")));
    }
    state.trees.extend(tree.map(|tree| (to.to_owned(), tree)));
    Ok(renamed)
}

/// Puts, and reads what was put.
pub fn put(
    batch: &mut Batch,
    state: &mut State,
    name: &str,
    number: u32,
    value: Vec<u8>,
    version: TxnId,
) -> Result<bool, Stop> {
    let key = key(number);
    let Some(tree) = state.trees.get_mut(name) else {
        refused(batch.put(name, &key, &value), "put")?;
        return Ok(false);
    };
    let previous = batch.put(name, &key, &value).map_err(disk("put"))?;
    let value: Arc<[u8]> = value.into();
    let replaced = tree.insert(key.clone(), Item { version, value: value.clone() });
    if previous != replaced.map(|item| item.version) {
        return Err(wrong(format!("put over version {previous:?} in {name}")));
    }
    let entry = batch.get(name, &key).map_err(disk("get"))?.ok_or_else(|| wrong("what was put is not there"))?;
    if entry.version != version || entry.value.to_vec().map_err(disk("get"))? != *value {
        return Err(wrong("what was put reads otherwise"));
    }
    Ok(true)
}

fn delete(batch: &mut Batch, state: &mut State, name: &str, number: u32) -> Result<bool, Stop> {
    let key = key(number);
    let Some(tree) = state.trees.get_mut(name) else {
        refused(batch.delete(name, &key), "delete")?;
        return Ok(false);
    };
    let deleted = batch.delete(name, &key).map_err(disk("delete"))?;
    let removed = tree.remove(&key).map(|item| item.version);
    if deleted != removed {
        return Err(wrong(format!("delete of version {deleted:?} in {name}, not {removed:?}")));
    }
    Ok(deleted.is_some())
}

/// Deletes between two keys; `width` 1 leaves the end out, 2 leaves one or both ends open.
fn delete_range(
    batch: &mut Batch,
    state: &mut State,
    name: &str,
    one: &[u8],
    other: &[u8],
    width: u32,
) -> Result<bool, Stop> {
    let (low, high) = (one.min(other), one.max(other));
    let (start, end) = match width {
        0 => (Bound::Included(low), Bound::Included(high)),
        1 => (Bound::Excluded(low), Bound::Excluded(high)),
        _ if low[0] == b'p' => (Bound::Included(low), Bound::Unbounded),
        _ => (Bound::Unbounded, Bound::Excluded(low)),
    };
    let Some(tree) = state.trees.get_mut(name) else {
        refused(batch.delete_range(name, start, end), "delete range")?;
        return Ok(false);
    };
    let deleted = batch.delete_range(name, start, end).map_err(disk("delete range"))?;
    let before = tree.len();
    tree.retain(|key, _| !std::ops::RangeBounds::<[u8]>::contains(&(start, end), &key[..]));
    if deleted != (before - tree.len()) as u64 {
        return Err(wrong(format!("delete range of {deleted} entries, not {}", before - tree.len())));
    }
    Ok(deleted > 0)
}

/// Reads what the batch sees, which changes nothing: a key, and a walk from it.
fn look(batch: &Batch, state: &State, name: &str, number: u32) -> Result<bool, Stop> {
    let nothing = Tree::new();
    let (key, tree) = (key(number), state.trees.get(name).unwrap_or(&nothing));
    let found = batch.get(name, &key).map_err(disk("get"))?.map(|entry| entry.version);
    if found != tree.get(&key).map(|item| item.version) {
        return Err(wrong(format!("a batch sees version {found:?}")));
    }
    let Some(mut cursor) = batch.cursor(name).map_err(disk("cursor"))? else {
        return if state.trees.contains_key(name) { Err(wrong("a tree is gone")) } else { Ok(false) };
    };
    let mut there = cursor.seek(&key).map_err(disk("seek"))?;
    for (expected, item) in tree.range(key..).take(5) {
        if !there || cursor.key() != expected || cursor.version() != item.version {
            return Err(wrong("a batch's cursor sees something else"));
        }
        there = cursor.next().map_err(disk("next"))?;
    }
    Ok(false)
}
