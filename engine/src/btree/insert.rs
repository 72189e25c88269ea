//! Putting an entry.

use crate::ids::{PageNumber, TxnId};

use super::node::{Node, Payload, overflows};
use super::node_mut::{self, Cell};
use super::overflow::{rewrite_run, run_pages, write_run};
use super::search::{Step, descend};
use super::split::{Split, split};
use super::{MAX_HEIGHT, PageStore, ReadError, TreeState, check_entry, damaged};

/// Puts an entry, and returns the version of the one that it replaces.
///
/// A value that is not longer than the one it replaces is written over it.
///
/// # Panics
/// When key or value are not within their limits: see [`check_entry`].
pub fn insert<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<Option<TxnId>, ReadError> {
    if let Err(error) = check_entry(key, value.len()) {
        panic!("{error}");
    }
    store.note_mutation();
    let Some(root) = tree.root else {
        let payload = write_payload(store, tree, key, value)?;
        let root = new_page(store, tree, 0)?;
        change(store, root, |page| node_mut::append(page, &Cell::leaf(key, version, payload)))?;
        (tree.root, tree.height, tree.entries) = (Some(root), 1, 1);
        return Ok(None);
    };
    let (path, found) = descend(&*store, root, tree, key)?;
    let leaf = path.leaf();
    let rightmost = path.rightmost;
    if !found {
        let payload = write_payload(store, tree, key, value)?;
        tree.entries += 1;
        put(store, tree, path.steps(), leaf.slot, &Cell::leaf(key, version, payload), rightmost)?;
        return Ok(None);
    }
    let (old_version, payload) = replace_payload(store, tree, leaf, key, value)?;
    let cell = Cell::leaf(key, version, payload);
    let slot = usize::from(leaf.slot);
    if !change(store, leaf.page, |page| node_mut::replace(page, slot, &cell))? {
        change(store, leaf.page, |page| node_mut::remove(page, slot..slot + 1))?;
        put(store, tree, path.steps(), leaf.slot, &cell, false)?;
    }
    Ok(Some(old_version))
}

/// Changes a page; damage met there becomes an error that names it.
pub(super) fn change<S: PageStore + ?Sized, T>(
    store: &mut S,
    number: PageNumber,
    apply: impl FnOnce(&mut crate::page::Page) -> Result<T, super::node::Damage>,
) -> Result<T, ReadError> {
    let result = apply(store.page_mut(number)?);
    result.map_err(|damage| damaged(&*store, number, damage))
}

/// A new, empty page of the tree.
pub(super) fn new_page<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    level: u8,
) -> Result<PageNumber, ReadError> {
    let number = store.allocate(1)?;
    tree.pages += 1;
    node_mut::format(store.page_mut(number)?, level);
    Ok(number)
}

fn write_payload<'v, S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: &'v [u8],
) -> Result<Payload<'v>, ReadError> {
    if !overflows(key.len(), value.len()) {
        return Ok(Payload::Inline(value));
    }
    let first = write_run(store, value)?;
    tree.pages += u64::from(run_pages(value.len()));
    Ok(Payload::Overflow(first, u32::try_from(value.len()).expect("a value is at most 8 MiB")))
}

/// Frees or reuses the run of the entry at `leaf`, writes the new value's run, and returns the old version.
fn replace_payload<'v, S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    leaf: Step,
    key: &[u8],
    value: &'v [u8],
) -> Result<(TxnId, Payload<'v>), ReadError> {
    let (old_version, old_run) = {
        let page = store.page(leaf.page)?;
        let cell = Node::leaf(&page).and_then(|node| node.leaf_cell(usize::from(leaf.slot)));
        let cell = cell.map_err(|damage| damaged(store, leaf.page, damage))?;
        let run = match cell.payload {
            Payload::Inline(_) => None,
            Payload::Overflow(first, length) => Some((first, run_pages(length as usize))),
        };
        (cell.version, run)
    };
    if let Some((first, pages)) = old_run {
        if overflows(key.len(), value.len()) && run_pages(value.len()) == pages {
            rewrite_run(store, first, value)?;
            let length = u32::try_from(value.len()).expect("a value is at most 8 MiB");
            return Ok((old_version, Payload::Overflow(first, length)));
        }
        store.free(first, pages)?;
        tree.pages -= u64::from(pages);
    }
    Ok((old_version, write_payload(store, tree, key, value)?))
}

/// Puts a cell before `slot` of the page at the end of `path`, splitting pages upwards as needed.
fn put<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &[Step],
    slot: u16,
    cell: &Cell<'_>,
    rightmost: bool,
) -> Result<(), ReadError> {
    let (last, above) = path.split_last().expect("a tree with a root has a path");
    let (number, slot) = (last.page, usize::from(slot));
    let level = tree.height - u8::try_from(path.len()).expect("at most 32 levels");
    if change(store, number, |page| node_mut::insert(page, slot, cell))? {
        return Ok(());
    }
    let Split { separator, right } = split(store, tree, number, level, slot, cell, rightmost)?;
    match above.last() {
        Some(parent) => put(store, tree, above, parent.slot + 1, &Cell::branch(&separator, right), rightmost),
        None => {
            assert!(usize::from(tree.height) < MAX_HEIGHT, "a tree of {MAX_HEIGHT} levels cannot grow");
            let root = new_page(store, tree, tree.height)?;
            change(store, root, |page| {
                node_mut::append(page, &Cell::branch(&[], number))?;
                node_mut::append(page, &Cell::branch(&separator, right))
            })?;
            tree.root = Some(root);
            tree.height += 1;
            Ok(())
        }
    }
}
