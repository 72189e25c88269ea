//! What a change feed reads: the operations of a record, each with its value where the record says that it stands.
//!
//! No replica executes them, so nothing else notices when they are wrong. Here they are replayed on plain maps, from the
//! model's state before the record, and must lead to its state after it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

use calamus_engine::ids::TxnId;
use calamus_engine::page::{PAGE_BYTES, PAGE_HEADER_BYTES};
use calamus_engine::txn::ops::{OperationKind, OperationView, ValueAt};
use calamus_engine::txn::record::Record;

use super::{Stop, disk, wrong};
use crate::oracle::{Held, Item, ManyTree, State, Tree};

/// Replays the operations of a record that was applied between two states.
pub fn check(bytes: &[u8], before: &State, after: &State) -> Result<(), Stop> {
    let record = Record::decode(bytes).map_err(disk("decode a record"))?;
    let mut state = State { trees: before.trees.clone(), many: before.many.clone(), ..State::default() };
    let mut newest = 0;
    for operation in &record.operations {
        let version = TxnId(record.header.first_txn.0 + u64::from(operation.txn));
        if operation.txn < newest || version > record.header.last_txn {
            return Err(wrong(format!("an operation of txn {version} behind one of {newest} in the record")));
        }
        newest = operation.txn;
        let name = &record.trees[usize::from(operation.tree)];
        replay(&mut state, name, operation, version, bytes)
            .map_err(|what| wrong(format!("{:?} in {name:?}: {what}", operation.kind)))?;
    }
    if state.trees == after.trees && state.many == after.many {
        return Ok(());
    }
    let other = |name: &&String| {
        state.trees.get(*name) != after.trees.get(*name) || state.many.get(*name) != after.many.get(*name)
    };
    let of = |state: &State| state.trees.keys().chain(state.many.keys()).cloned().collect::<Vec<_>>();
    let names = [of(after), of(&state)].concat();
    let name = names.iter().find(other);
    Err(wrong(format!("the operations of the record to txn {} lead to another tree {name:?}", after.txn_id)))
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

fn replay(
    state: &mut State,
    name: &str,
    operation: &OperationView,
    version: TxnId,
    bytes: &[u8],
) -> Result<(), &'static str> {
    let value = value_of(operation, bytes)?;
    match operation.kind {
        OperationKind::Put => {
            let value = value.ok_or("no value")?.into();
            tree(state, name)?.insert(operation.key.clone(), Item { version, value });
        }
        OperationKind::Delete => match state.many.get_mut(name) {
            Some(tree) => drop(tree.remove(&operation.key).ok_or("no such key")?),
            None => drop(tree(state, name)?.remove(&operation.key).ok_or("no such key")?),
        },
        OperationKind::DeleteRange => {
            let bounds = value.ok_or("no bounds")?;
            let range = range_of(&operation.key, &bounds)?;
            match state.many.get_mut(name) {
                Some(tree) => delete_range(tree, range)?,
                None => delete_range(tree(state, name)?, range)?,
            }
        }
        OperationKind::AddValue => {
            let tree = state.many.get_mut(name).ok_or("no such tree")?;
            let held = tree.entry(operation.key.clone()).or_insert_with(|| Held { version, values: BTreeSet::new() });
            held.version = version;
            if !held.values.insert(value.ok_or("no value")?) {
                return Err("there already");
            }
        }
        OperationKind::RemoveValue => {
            let tree = state.many.get_mut(name).ok_or("no such tree")?;
            let held = tree.get_mut(&operation.key).ok_or("no such key")?;
            held.version = version;
            if !held.values.remove(&value.ok_or("no value")?) {
                return Err("no such value");
            }
            if held.values.is_empty() {
                tree.remove(&operation.key);
            }
        }
        OperationKind::RemoveValues => {
            let bounds = value.ok_or("no bounds")?;
            let range = range_of_values(&bounds)?;
            let tree = state.many.get_mut(name).ok_or("no such tree")?;
            let held = tree.get_mut(&operation.key).ok_or("no such key")?;
            held.version = version;
            let values = held.values.len();
            held.values.retain(|value| !RangeBounds::<[u8]>::contains(&range, &value[..]));
            if held.values.len() == values {
                return Err("nothing in the range");
            }
            if held.values.is_empty() {
                tree.remove(&operation.key);
            }
        }
        OperationKind::CreateTree | OperationKind::CreateMultiTree => {
            if state.trees.contains_key(name) || state.many.contains_key(name) {
                return Err("there already");
            }
            match operation.kind {
                OperationKind::CreateTree => drop(state.trees.insert(name.to_owned(), Tree::new())),
                _ => drop(state.many.insert(name.to_owned(), ManyTree::new())),
            }
        }
        OperationKind::DropTree => {
            if state.trees.remove(name).is_none() && state.many.remove(name).is_none() {
                return Err("no such tree");
            }
        }
        OperationKind::RenameTree => {
            let new = String::from_utf8(value.ok_or("no new name")?).map_err(|_| "the new name is not UTF-8")?;
            if state.trees.contains_key(&new) || state.many.contains_key(&new) {
                return Err("there is one of the new name");
            }
            match (state.trees.remove(name), state.many.remove(name)) {
                (Some(tree), None) => drop(state.trees.insert(new, tree)),
                (None, Some(tree)) => drop(state.many.insert(new, tree)),
                _ => return Err("no such tree"),
            }
        }
    }
    Ok(())
}

fn delete_range<V>(tree: &mut BTreeMap<Vec<u8>, V>, range: Bounds<'_>) -> Result<(), &'static str> {
    let keys = tree.len();
    tree.retain(|key, _| !RangeBounds::<[u8]>::contains(&range, &key[..]));
    if tree.len() == keys { Err("nothing in the range") } else { Ok(()) }
}

fn tree<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Tree, &'static str> {
    state.trees.get_mut(name).ok_or("no such tree")
}

/// The value, from where the operation says that it stands.
fn value_of(operation: &OperationView, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    Ok(match &operation.value {
        ValueAt::None => None,
        ValueAt::Inline(value) => Some(value.clone()),
        ValueAt::Span(offset, length) => {
            let rest = bytes.get(*offset as usize..).ok_or("a value beyond the record")?;
            Some(rest.get(..*length as usize).ok_or("a value longer than the record")?.to_vec())
        }
        ValueAt::Run(offset, length) => {
            let (rest, length) = (bytes.get(*offset as usize..).ok_or("a run beyond the record")?, *length as usize);
            let pages = rest.chunks_exact(PAGE_BYTES).take(length.div_ceil(PAGE_BYTES - PAGE_HEADER_BYTES));
            let mut value: Vec<u8> = pages.flat_map(|page| &page[PAGE_HEADER_BYTES..]).copied().collect();
            if value.len() < length {
                return Err("a run longer than the record");
            }
            value.truncate(length);
            Some(value)
        }
    })
}

/// The bounds of a deleted range: see `txn/ops.rs` and `encode_range` of the engine.
fn range_of<'a>(start: &'a [u8], bounds: &'a [u8]) -> Result<Bounds<'a>, &'static str> {
    let (bits, end) = bounds.split_first().ok_or("no byte of bounds")?;
    bounds_of(*bits, start, end)
}

/// The bounds of removed values: see `txn/ops.rs`.
fn range_of_values(bounds: &[u8]) -> Result<Bounds<'_>, &'static str> {
    let (bits, rest) = bounds.split_first().ok_or("no byte of bounds")?;
    let (length, rest) = rest.split_first_chunk().ok_or("no length of the start")?;
    let (start, end) =
        rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or("a start beyond its end")?;
    bounds_of(*bits, start, end)
}

fn bounds_of<'a>(bits: u8, start: &'a [u8], end: &'a [u8]) -> Result<Bounds<'a>, &'static str> {
    let start = if bits & 1 == 1 { Bound::Excluded(start) } else { Bound::Included(start) };
    let end = match bits & 6 {
        0 => Bound::Unbounded,
        2 => Bound::Excluded(end),
        4 => Bound::Included(end),
        _ => return Err("an end that is both in and out"),
    };
    Ok((start, end))
}
