//! Operations on multi-value trees, on a batch and on the model side by side; every answer is compared.

use std::ops::{Bound, RangeBounds};

use calamus_engine::ids::TxnId;
use calamus_engine::{Batch, BatchError};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Stop, disk, wrong};
use crate::oracle::{Held, ManyTree, State};

/// The multi-value trees that there may be. None has the name of a plain tree.
pub const NAMES: [&str; 3] = ["tags", "words", "$links"];
/// Keys that there may be: few, so that each has many values.
const KEYS: u32 = 5;
/// Values that there may be under a key: as many as take a tree of some pages.
const VALUES: u32 = 140;

fn key(number: u32) -> Vec<u8> {
    let mut key = format!("word {number}").into_bytes();
    // Under the longest key there is no room for a list, however short.
    key.resize([6, 8, 300, 1_500, 2_048][number as usize % 5].max(key.len()), b'w');
    key
}

fn value(number: u32) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize([4, 9, 60, 400, 30, 900, 2_048][number as usize % 7], b'v');
    value
}

/// One operation, or a few of a kind; whether it changed anything.
pub fn operation(random: &mut StdRng, batch: &mut Batch, state: &mut State, version: TxnId) -> Result<bool, Stop> {
    let name = NAMES[random.random_range(0..NAMES.len())];
    let (key, first) = (random.random_range(0..KEYS), random.random_range(0..VALUES));
    let count = [1, 1, 3, 25][random.random_range(0..4)];
    match random.random_range(0..100) {
        0..3 => drop_tree(batch, state, name),
        3..6 => rename(batch, state, name, NAMES[random.random_range(0..NAMES.len())]),
        6..9 => delete(batch, state, name, key),
        9..13 => look(batch, state, name, key, first),
        13..14 => remove_range(batch, state, name, key, (first, first + 3 * count), version),
        14..16 => refuse(batch, state, name),
        16..50 => {
            let mut changed = false;
            for number in first..first + count {
                changed |= remove(batch, state, name, key, number, version)?;
            }
            Ok(changed)
        }
        _ => {
            let mut changed = create(batch, state, name)?;
            for number in first..first + count {
                changed |= add(batch, state, name, key, number, version)?;
            }
            Ok(changed)
        }
    }
}

/// Makes a multi-value tree.
pub fn create(batch: &mut Batch, state: &mut State, name: &str) -> Result<bool, Stop> {
    let made = batch.create_multi_tree(name).map_err(disk("create multi-value tree"))?;
    if made == state.many.contains_key(name) {
        return Err(wrong(format!("create multi-value tree {name} says {made}")));
    }
    state.many.entry(name.into()).or_default();
    Ok(made)
}

/// Drops a multi-value tree.
pub fn drop_tree(batch: &mut Batch, state: &mut State, name: &str) -> Result<bool, Stop> {
    let dropped = batch.drop_tree(name).map_err(disk("drop tree"))?;
    if dropped != state.many.remove(name).is_some() {
        return Err(wrong(format!("drop tree {name} says {dropped}")));
    }
    Ok(dropped)
}

fn rename(batch: &mut Batch, state: &mut State, from: &str, to: &str) -> Result<bool, Stop> {
    let renamed = match batch.rename_tree(from, to) {
        Err(BatchError::TreeExists(_)) if state.many.contains_key(to) => return Ok(false),
        other => other.map_err(disk("rename tree"))?,
    };
    let tree = state.many.remove(from);
    if renamed != tree.is_some() {
        return Err(wrong(format!("rename tree {from} to {to} says {renamed}")));
    }
    state.many.extend(tree.map(|tree| (to.to_owned(), tree)));
    Ok(renamed)
}

/// The model's tree, after an operation that needs one; `None` if it was rightly refused.
fn in_both<'s, T>(
    state: &'s mut State,
    name: &str,
    done: Result<T, BatchError>,
) -> Result<Option<(&'s mut ManyTree, T)>, Stop> {
    match (state.many.get_mut(name), done) {
        (Some(tree), Ok(answer)) => Ok(Some((tree, answer))),
        (None, Err(BatchError::NoSuchTree(_))) => Ok(None),
        (None, Ok(_)) => Err(wrong(format!("{name} is not there, and was changed"))),
        (_, Err(error)) => Err(disk("change a multi-value tree")(error)),
    }
}

/// Adds the value of a number under the key of another.
pub fn add(
    batch: &mut Batch,
    state: &mut State,
    name: &str,
    key_number: u32,
    number: u32,
    version: TxnId,
) -> Result<bool, Stop> {
    let (key, value) = (key(key_number), value(number));
    let done = batch.add(name, &key, &value);
    let Some((tree, added)) = in_both(state, name, done)? else { return Ok(false) };
    let held = tree.entry(key).or_insert_with(|| Held { version, values: Default::default() });
    if added != held.values.insert(value) {
        return Err(wrong(format!("add of value {number} says {added}")));
    }
    if added {
        held.version = version;
    }
    Ok(added)
}

/// Removes the value of a number under the key of another.
pub fn remove(
    batch: &mut Batch,
    state: &mut State,
    name: &str,
    key_number: u32,
    number: u32,
    version: TxnId,
) -> Result<bool, Stop> {
    let (key, value) = (key(key_number), value(number));
    let done = batch.remove_value(name, &key, &value);
    let Some((tree, removed)) = in_both(state, name, done)? else { return Ok(false) };
    if removed != tree.get_mut(&key).is_some_and(|held| held.values.remove(&value)) {
        return Err(wrong(format!("remove of value {number} says {removed}")));
    }
    if removed {
        let held = tree.get_mut(&key).expect("it had a value");
        held.version = version;
        if held.values.is_empty() {
            tree.remove(&key);
        }
    }
    Ok(removed)
}

/// Removes the values between those of two numbers.
fn remove_range(
    batch: &mut Batch,
    state: &mut State,
    name: &str,
    key_number: u32,
    (from, to): (u32, u32),
    version: TxnId,
) -> Result<bool, Stop> {
    let (key, from, to) = (key(key_number), value(from), value(to));
    let range = (Bound::Excluded(from.as_slice()), Bound::Included(to.as_slice()));
    let done = batch.remove_values(name, &key, range.0, range.1);
    let Some((tree, removed)) = in_both(state, name, done)? else { return Ok(false) };
    let Some(held) = tree.get_mut(&key) else {
        return if removed == 0 { Ok(false) } else { Err(wrong(format!("{removed} values removed of no key"))) };
    };
    let before = held.values.len();
    held.values.retain(|value| !RangeBounds::<[u8]>::contains(&range, &value[..]));
    if removed != (before - held.values.len()) as u64 {
        return Err(wrong(format!("{removed} values removed, not {}", before - held.values.len())));
    }
    if removed > 0 {
        held.version = version;
    }
    if held.values.is_empty() {
        tree.remove(&key);
    }
    Ok(removed > 0)
}

fn delete(batch: &mut Batch, state: &mut State, name: &str, number: u32) -> Result<bool, Stop> {
    let key = key(number);
    let done = batch.delete(name, &key);
    let Some((tree, deleted)) = in_both(state, name, done)? else { return Ok(false) };
    if deleted != tree.remove(&key).map(|held| held.version) {
        return Err(wrong(format!("delete of version {deleted:?} in {name}")));
    }
    Ok(deleted.is_some())
}

/// What is for trees of the other kind changes nothing, and says so.
fn refuse(batch: &mut Batch, state: &State, name: &str) -> Result<bool, Stop> {
    if state.many.contains_key(name) {
        let refused = matches!(batch.put(name, b"k", b"v"), Err(BatchError::ManyValues(_)))
            && matches!(batch.create_tree(name), Err(BatchError::ManyValues(_)))
            && batch.get(name, b"k").is_err();
        if !refused {
            return Err(wrong(format!("{name} is used as a plain tree")));
        }
    }
    if state.trees.contains_key("a") && !matches!(batch.add("a", b"k", b"v"), Err(BatchError::OneValue(_))) {
        return Err(wrong("a plain tree takes many values"));
    }
    Ok(false)
}

/// Reads what the batch sees, which changes nothing: how many values a key has, and a walk from one of them.
fn look(batch: &Batch, state: &State, name: &str, key_number: u32, number: u32) -> Result<bool, Stop> {
    let (key, from) = (key(key_number), value(number));
    let nothing = Default::default();
    let values = state.many.get(name).and_then(|tree| tree.get(&key)).map_or(&nothing, |held| &held.values);
    let count = batch.count_values(name, &key).map_err(disk("count values"))?;
    if count != values.len() as u64 {
        return Err(wrong(format!("a batch counts {count} values, not {}", values.len())));
    }
    if batch.contains(name, &key, &from).map_err(disk("contains"))? != values.contains(&from) {
        return Err(wrong("a batch does not see a value, or one that is gone"));
    }
    let mut cursor = batch.values(name, &key).map_err(disk("values"))?;
    let mut there = cursor.seek(&from).map_err(disk("seek"))?;
    for expected in values.range(from..).take(5) {
        if !there || cursor.value() != expected {
            return Err(wrong("a batch's cursor over values sees something else"));
        }
        there = cursor.next().map_err(disk("next"))?;
    }
    Ok(false)
}
