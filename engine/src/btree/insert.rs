//! Putting an entry.

use crate::ids::{PageNumber, TxnId};

use super::edge::Edge;
use super::node::{MAX_INLINE_CELL_BYTES, Node, Payload, overflows};
use super::node_mut::{self, Cell};
use super::overflow::{fill_run, reserve_run, reuse_run, run_pages, write_run};
use super::owned::{Holding, Owned};
use super::range::take_off;
use super::rebalance::{Reach, make_room, rebalance};
use super::search::{Path, Step, descend};
use super::split::{Split, split};
use super::{MAX_HEIGHT, PageStore, ReadError, TreeKind, TreeState, check_entry, damaged};

/// A value to be put.
#[derive(Clone, Copy)]
enum NewValue<'v> {
    Bytes(&'v [u8]),
    /// So many zeros.
    Zeros(usize),
}

/// What stands in a leaf where a value is reserved.
static ZEROS: [u8; MAX_INLINE_CELL_BYTES] = [0; MAX_INLINE_CELL_BYTES];

impl<'v> NewValue<'v> {
    fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => length,
        }
    }

    /// Of a value that stands in a leaf.
    fn inline(self) -> &'v [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Zeros(length) => &ZEROS[..length],
        }
    }
}

/// Puts an entry, and returns the version of the one that it replaces.
///
/// A value that is not longer than the one it replaces is written over it, and so is one in an overflow run that takes no
/// more pages.
///
/// # Panics
/// When key or value are not within their limits: see [`check_entry`]. When the tree is not a plain one.
pub fn insert<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<Option<TxnId>, ReadError> {
    insert_minding(store, tree, &mut Edge::default(), key, value, version)
}

/// As [`insert`]; afterwards `edge` is that of the tree, if the entry was put there.
pub fn insert_minding<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    edge: &mut Edge,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<Option<TxnId>, ReadError> {
    store.note_mutation();
    edge.forget();
    let (previous, at_edge) = put_entry(store, tree, key, NewValue::Bytes(value), version)?;
    if at_edge {
        edge.find(&*store, tree)?;
    }
    Ok(previous)
}

/// As [`insert`], of a value into a tree of values: a part of another operation.
pub(super) fn insert_value<S: PageStore + ?Sized>(
    store: &mut S,
    values: &mut TreeState,
    value: &[u8],
    version: TxnId,
) -> Result<Option<TxnId>, ReadError> {
    put_entry(store, values, value, NewValue::Bytes(&[]), version).map(|(previous, _)| previous)
}

/// As [`insert`], with a value of so many zeros. It is there to be filled: [`locate`](super::locate) says where.
pub fn reserve<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    length_bytes: usize,
    version: TxnId,
) -> Result<Option<TxnId>, ReadError> {
    store.note_mutation();
    put_entry(store, tree, key, NewValue::Zeros(length_bytes), version).map(|(previous, _)| previous)
}

/// Returns too whether it is a new entry behind all others in its leaf, and its leaf the last of the tree.
fn put_entry<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
    value: NewValue<'_>,
    version: TxnId,
) -> Result<(Option<TxnId>, bool), ReadError> {
    if let Err(error) = check_entry(key, value.len()) {
        panic!("{error}");
    }
    assert!(tree.kind == TreeKind::Plain, "a value is put into a plain tree");
    let path = tree.root.map(|root| descend(&*store, root, tree, key)).transpose()?;
    match path {
        Some((path, true)) => {
            let (old_version, payload) = replace_payload(store, tree, path.leaf(), key, value)?;
            replace_cell(store, tree, &path, &Cell::leaf(key, version, payload))?;
            Ok((Some(old_version), false))
        }
        path => {
            let path = path.as_ref().map(|(path, _)| path);
            let at_edge = path.map_or(Ok(true), |path| is_at_edge(&*store, path))?;
            let payload = write_payload(store, tree, key, value)?;
            put_new_cell(store, tree, path, &Cell::leaf(key, version, payload))?;
            Ok((None, at_edge))
        }
    }
}

/// Whether a path ends behind all entries of the tree.
fn is_at_edge<S: PageStore + ?Sized>(store: &S, path: &Path) -> Result<bool, ReadError> {
    if !path.rightmost {
        return Ok(false);
    }
    let Step { page: number, slot } = path.leaf();
    let page = store.page(number)?;
    let count = Node::leaf(&page).map(|node| node.count()).map_err(|damage| damaged(store, number, damage))?;
    Ok(usize::from(slot) == count)
}

/// Puts the cell of a key that is not there, at the end of the path to where it would be; `None` in an empty tree.
pub(super) fn put_new_cell<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: Option<&Path>,
    cell: &Cell<'_>,
) -> Result<(), ReadError> {
    tree.entries += 1;
    if let Some(path) = path {
        return put_in_leaf(store, tree, path.steps(), path.leaf().slot, cell, path.rightmost);
    }
    let root = new_page(store, tree, 0)?;
    change(store, root, |page| node_mut::append(page, cell))?;
    (tree.root, tree.height) = (Some(root), 1);
    Ok(())
}

/// Puts a cell in place of the one at the end of `path`, which has the same key.
pub(super) fn replace_cell<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &Path,
    cell: &Cell<'_>,
) -> Result<(), ReadError> {
    let leaf = path.leaf();
    let slot = usize::from(leaf.slot);
    let used_before = used_bytes(&*store, leaf.page)?;
    if !change(store, leaf.page, |page| node_mut::replace(page, slot, cell))? {
        change(store, leaf.page, |page| node_mut::remove(page, slot..slot + 1))?;
        return put_in_leaf(store, tree, path.steps(), leaf.slot, cell, false);
    }
    if used_bytes(&*store, leaf.page)? < used_before {
        rebalance(store, tree, path.steps(), Reach::WhileUnderfull)?;
    }
    Ok(())
}

fn used_bytes<S: PageStore + ?Sized>(store: &S, leaf: PageNumber) -> Result<usize, ReadError> {
    let page = store.page(leaf)?;
    Node::leaf(&page).map(|node| node.used_bytes()).map_err(|damage| damaged(store, leaf, damage))
}

/// Puts an entry before `slot` of the leaf at the end of `path`. Where there is no room, siblings are asked before the
/// leaf is split; but not at the right edge of the tree, where loading in key order fills pages by itself.
fn put_in_leaf<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &[Step],
    slot: u16,
    cell: &Cell<'_>,
    rightmost: bool,
) -> Result<(), ReadError> {
    let leaf = path.last().expect("a tree with a root has a path").page;
    if change(store, leaf, |page| node_mut::insert(page, usize::from(slot), cell))? {
        return Ok(());
    }
    if rightmost || !make_room(store, path)? {
        return put(store, tree, path, slot, cell, rightmost);
    }
    let root = tree.root.expect("the tree has a leaf");
    let (path, _) = descend(&*store, root, tree, cell.key())?;
    put(store, tree, path.steps(), path.leaf().slot, cell, false)
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
    value: NewValue<'v>,
) -> Result<Payload<'v>, ReadError> {
    if !overflows(key.len(), value.len()) {
        return Ok(Payload::Inline(value.inline()));
    }
    let first = match value {
        NewValue::Bytes(bytes) => write_run(store, bytes)?,
        NewValue::Zeros(length) => reserve_run(store, length)?,
    };
    tree.pages += u64::from(run_pages(value.len()));
    Ok(Payload::Overflow(first, u32::try_from(value.len()).expect("a value is at most 8 MiB")))
}

/// Frees or reuses the run of the entry at `leaf`, writes the new value's run, and returns the old version.
fn replace_payload<'v, S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    leaf: Step,
    key: &[u8],
    value: NewValue<'v>,
) -> Result<(TxnId, Payload<'v>), ReadError> {
    let (old_version, old) = read_holding(&*store, tree.kind, leaf)?;
    if let Owned::Run(first, length) = old.owned
        && overflows(key.len(), value.len())
        && run_pages(value.len()) <= run_pages(length as usize)
    {
        let pages = run_pages(length as usize);
        reuse_run(store, first, pages, value.len())?;
        if let NewValue::Bytes(bytes) = value {
            fill_run(store, first, bytes)?;
        }
        take_off(store, leaf.page, &mut tree.pages, u64::from(pages - run_pages(value.len())))?;
        let length = u32::try_from(value.len()).expect("a value is at most 8 MiB");
        return Ok((old_version, Payload::Overflow(first, length)));
    }
    old.release(store, tree, leaf.page)?;
    Ok((old_version, write_payload(store, tree, key, value)?))
}

/// The version of an entry, and what it holds.
pub(super) fn read_holding<S: PageStore + ?Sized>(
    store: &S,
    kind: TreeKind,
    leaf: Step,
) -> Result<(TxnId, Holding), ReadError> {
    let page = store.page(leaf.page)?;
    let read = |node: Node<'_>| {
        let cell = node.leaf_cell(usize::from(leaf.slot))?;
        Ok((cell.version, Holding::of(kind, &cell)?))
    };
    Node::leaf(&page).and_then(read).map_err(|damage| damaged(store, leaf.page, damage))
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
