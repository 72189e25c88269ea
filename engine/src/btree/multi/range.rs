//! Removing many values of a key at once.

use std::ops::{Bound, RangeBounds};

use super::change::{Found, recount, shrink, values_at};
use super::payload::{List, Values, encode_list, encode_tree};
use super::read::place_of;
use crate::btree::insert::replace_cell;
use crate::btree::node::Payload;
use crate::btree::node_mut::Cell;
use crate::btree::range::{take_off, take_range};
use crate::btree::remove::remove_cell;
use crate::btree::search::descend;
use crate::btree::{MAX_KEY_BYTES, PageSource, PageStore, ReadError, TreeKind, TreeState, key_behind_leaf};
use crate::ids::TxnId;

/// Removes the values of a key between two bounds, and the key with the last of them; returns how many there were. What
/// it costs is what lies at the two ends, and a look at the pages between.
///
/// # Panics
/// When the tree is not a multi-value tree, or the key none.
pub fn remove_values<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
    version: TxnId,
) -> Result<u64, ReadError> {
    assert!(tree.kind == TreeKind::Multi, "values are removed from a multi-value tree");
    assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "a key of {} bytes", key.len());
    store.note_mutation();
    let Some(root) = tree.root else { return Ok(0) };
    let (path, true) = descend(&*store, root, tree, key)? else { return Ok(0) };
    let outside = |list: List<'_>| {
        let rest: Vec<&[u8]> =
            list.iter().filter(|value| !RangeBounds::<[u8]>::contains(&(start, end), *value)).collect();
        let removed = (list.count() - rest.len()) as u64;
        (removed, (!rest.is_empty()).then(|| encode_list(rest.into_iter())))
    };
    let (removed, rest) = match values_at(&*store, path.leaf(), outside)? {
        Found::List(list) => list,
        Found::Tree(mut values) => {
            let before = values.pages;
            let removed = take_range(store, &mut values, start, end)?;
            recount(store, tree, path.leaf(), before, values.pages)?;
            let rest = if removed > 0 {
                shrink(store, tree, &path, key, values)?
            } else {
                Some(encode_tree(&values).to_vec())
            };
            (removed, rest)
        }
    };
    if removed == 0 {
        return Ok(0);
    }
    take_off(store, path.leaf().page, &mut tree.values, removed)?;
    match rest {
        Some(payload) => replace_cell(store, tree, &path, &Cell::leaf(key, version, Payload::Inline(&payload)))?,
        None => remove_cell(store, tree, &path)?,
    }
    Ok(removed)
}

/// How many pages the tree of values of a key has, and the least value that is behind its first leaf; `None` if the key has
/// no such tree, or one of a single leaf.
pub fn first_leaf_of_values<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    key: &[u8],
) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
    let Some(place) = place_of(source, tree, key)? else { return Ok(None) };
    let Values::Tree(values) = place.values(source)? else { return Ok(None) };
    Ok(key_behind_leaf(source, &values, &[])?.map(|end| (values.pages, end)))
}
