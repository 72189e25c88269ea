//! What a change feed reads: the operations of a record, each with its value where the record says that it stands.
//!
//! No replica executes them, so nothing else notices when they are wrong. Here they are replayed on plain maps, from the
//! model's state before the record, and must lead to its state after it.

use std::ops::{Bound, RangeBounds};

use calamus_engine::ids::TxnId;
use calamus_engine::page::{PAGE_BYTES, PAGE_HEADER_BYTES};
use calamus_engine::txn::ops::{OperationKind, OperationView, ValueAt};
use calamus_engine::txn::record::Record;

use super::{Stop, disk, wrong};
use crate::oracle::{Item, State, Tree};

/// Replays the operations of a record that was applied between two states.
pub fn check(bytes: &[u8], before: &State, after: &State) -> Result<(), Stop> {
    let record = Record::decode(bytes).map_err(disk("decode a record"))?;
    let mut state = State { trees: before.trees.clone(), ..State::default() };
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
    if state.trees == after.trees {
        return Ok(());
    }
    let other = |name: &&String| state.trees.get(*name) != after.trees.get(*name);
    let name = after.trees.keys().chain(state.trees.keys()).find(other);
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
        OperationKind::Delete => drop(tree(state, name)?.remove(&operation.key).ok_or("no such key")?),
        OperationKind::DeleteRange => {
            let bounds = value.ok_or("no bounds")?;
            let (start, end) = range_of(&operation.key, &bounds)?;
            let tree = tree(state, name)?;
            let keys = tree.len();
            tree.retain(|key, _| !RangeBounds::<[u8]>::contains(&(start, end), &key[..]));
            if tree.len() == keys {
                return Err("nothing in the range");
            }
        }
        OperationKind::CreateTree => {
            if state.trees.insert(name.to_owned(), Tree::new()).is_some() {
                return Err("there already");
            }
        }
        OperationKind::DropTree => drop(state.trees.remove(name).ok_or("no such tree")?),
        OperationKind::RenameTree => {
            let new = String::from_utf8(value.ok_or("no new name")?).map_err(|_| "the new name is not UTF-8")?;
            let tree = state.trees.remove(name).ok_or("no such tree")?;
            if state.trees.insert(new, tree).is_some() {
                return Err("there is one of the new name");
            }
        }
    }
    Ok(())
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
    let start = if bits & 1 == 1 { Bound::Excluded(start) } else { Bound::Included(start) };
    let end = match bits & 6 {
        0 => Bound::Unbounded,
        2 => Bound::Excluded(end),
        4 => Bound::Included(end),
        _ => return Err("an end that is both in and out"),
    };
    Ok((start, end))
}
