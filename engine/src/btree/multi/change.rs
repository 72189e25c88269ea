//! Adding and removing a value.

use super::payload::{List, Values, encode_list, encode_tree, list_bytes, list_fits, list_fits_well};
use crate::btree::insert::{insert_value, put_new_cell, replace_cell};
use crate::btree::node::{Node, Payload};
use crate::btree::node_mut::Cell;
use crate::btree::range::{free_tree, take_off};
use crate::btree::remove::{remove_cell, take_out};
use crate::btree::search::{Path, Step, descend, find};
use crate::btree::{KeyError, MAX_KEY_BYTES, PageStore, ReadError, TreeKind, TreeState, damaged};
use crate::ids::TxnId;

/// Whether a value can stand under a key of a multi-value tree.
pub fn check_value(value: &[u8]) -> Result<(), KeyError> {
    match value.len() {
        0 => Err(KeyError::Empty),
        bytes if bytes > MAX_KEY_BYTES => Err(KeyError::KeyTooLong(bytes)),
        _ => Ok(()),
    }
}

fn assert_may_change(tree: &TreeState, key: &[u8], value: &[u8]) {
    assert!(tree.kind == TreeKind::Multi, "a value is added to and removed from a multi-value tree");
    for bytes in [key, value] {
        if let Err(error) = check_value(bytes) {
            panic!("{error}");
        }
    }
}

/// Adds a value under a key; `false`, and nothing changed, if it is there already.
///
/// # Panics
/// When key or value has no or more than [`MAX_KEY_BYTES`] bytes. When the tree is not a multi-value tree.
pub fn add<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<bool, ReadError> {
    assert_may_change(tree, key, value);
    store.note_mutation();
    let path = tree.root.map(|root| descend(&*store, root, tree, key)).transpose()?;
    let Some((path, true)) = path else {
        let payload = store_list(store, tree, key, encode_list([value].into_iter()), version)?;
        let cell = Cell::leaf(key, version, Payload::Inline(&payload));
        put_new_cell(store, tree, path.as_ref().map(|(path, _)| path), &cell)?;
        tree.values += 1;
        return Ok(true);
    };
    let payload =
        match values_at(&*store, path.leaf(), |list| list.find(value).err().map(|slot| list.with(slot, value)))? {
            Found::List(None) => return Ok(false),
            Found::List(Some(list)) => store_list(store, tree, key, list, version)?,
            Found::Tree(mut values) => {
                if find(&*store, &values, value, |_, _, _| ())?.is_some() {
                    return Ok(false);
                }
                let before = values.pages;
                insert_value(store, &mut values, value, version)?;
                recount(store, tree, path.leaf(), before, values.pages)?;
                encode_tree(&values).to_vec()
            }
        };
    replace_cell(store, tree, &path, &Cell::leaf(key, version, Payload::Inline(&payload)))?;
    tree.values += 1;
    Ok(true)
}

/// Removes a value, and with the last one its key; `false`, and nothing changed, if it is not there.
///
/// # Panics
/// As [`add`].
pub fn remove_value<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<bool, ReadError> {
    assert_may_change(tree, key, value);
    store.note_mutation();
    let Some(root) = tree.root else { return Ok(false) };
    let (path, true) = descend(&*store, root, tree, key)? else { return Ok(false) };
    let shorter = |list: List<'_>| list.find(value).ok().map(|slot| (list.count() > 1).then(|| list.without(slot)));
    let rest = match values_at(&*store, path.leaf(), shorter)? {
        Found::List(None) => return Ok(false),
        Found::List(Some(rest)) => rest,
        Found::Tree(mut values) => {
            let before = values.pages;
            if take_out(store, &mut values, value)?.is_none() {
                return Ok(false);
            }
            recount(store, tree, path.leaf(), before, values.pages)?;
            shrink(store, tree, &path, key, values)?
        }
    };
    take_off(store, path.leaf().page, &mut tree.values, 1)?;
    match rest {
        Some(payload) => replace_cell(store, tree, &path, &Cell::leaf(key, version, Payload::Inline(&payload)))?,
        None => remove_cell(store, tree, &path)?,
    }
    Ok(true)
}

/// What the entry at the end of a path has: what was made of its list, or its tree.
pub(super) enum Found<T> {
    List(T),
    Tree(TreeState),
}

pub(super) fn values_at<S: PageStore + ?Sized, T>(
    store: &S,
    leaf: Step,
    of_list: impl FnOnce(List<'_>) -> T,
) -> Result<Found<T>, ReadError> {
    let page = store.page(leaf.page)?;
    let cell = Node::leaf(&page).and_then(|node| node.leaf_cell(usize::from(leaf.slot)));
    let values = cell.and_then(|cell| cell.multi_values()).map_err(|damage| damaged(store, leaf.page, damage))?;
    Ok(match values {
        Values::List(list) => Found::List(of_list(list)),
        Values::Tree(values) => Found::Tree(values),
    })
}

/// The payload for a list of values: the list, or, where that is too long for a cell, the tree that it is planted as.
fn store_list<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    list: Vec<u8>,
    version: TxnId,
) -> Result<Vec<u8>, ReadError> {
    if list_fits(key.len(), list.len()) {
        return Ok(list);
    }
    let mut values = TreeState::default();
    for value in List::of_checked(&list).expect("just encoded").iter() {
        insert_value(store, &mut values, value, version)?;
    }
    tree.pages += values.pages;
    Ok(encode_tree(&values).to_vec())
}

/// The payload for a tree from which a value was taken: none, if that was the last; a list, if the rest is small.
pub(super) fn shrink<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &Path,
    key: &[u8],
    mut values: TreeState,
) -> Result<Option<Vec<u8>>, ReadError> {
    let (Some(root), 1) = (values.root, values.height) else {
        return Ok(values.root.map(|_| encode_tree(&values).to_vec()));
    };
    let list = {
        let page = store.page(root)?;
        let read = |node: Node<'_>| {
            let mut bytes = 0;
            for slot in 0..node.count() {
                bytes += node.key(slot)?.len();
            }
            if !list_fits_well(key.len(), list_bytes(node.count(), bytes)) {
                return Ok(None);
            }
            let values = (0..node.count()).map(|slot| node.key(slot)).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(encode_list(values.into_iter())))
        };
        Node::leaf(&page).and_then(read).map_err(|damage| damaged(&*store, root, damage))?
    };
    let Some(list) = list else { return Ok(Some(encode_tree(&values).to_vec())) };
    let before = values.pages;
    free_tree(store, &mut values)?;
    recount(store, tree, path.leaf(), before, values.pages)?;
    Ok(Some(list))
}

/// The tree of values of an entry had `before` pages, and has `after`.
pub(super) fn recount<S: PageStore + ?Sized>(
    store: &S,
    tree: &mut TreeState,
    leaf: Step,
    before: u64,
    after: u64,
) -> Result<(), ReadError> {
    tree.pages += after;
    take_off(store, leaf.page, &mut tree.pages, before)
}
