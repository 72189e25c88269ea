//! Moving pages of a tree from the end of the file to free places below, one leaf at a time.
//!
//! A page says neither what tree it belongs to nor what points to it. So nobody can ask for the owner of the last page of
//! the file; but who walks over a tree meets every page together with its only reference.

use crate::ids::PageNumber;
use crate::page::Page;

use super::insert::{change, read_holding};
use super::multi::payload::encode_tree;
use super::node::{Node, Payload};
use super::node_mut::{self, Cell};
use super::overflow::{run_page, run_pages};
use super::owned::{Holding, Owned};
use super::search::{Path, Step, descend};
use super::{PageSource, PageStore, ReadError, TreeKind, TreeState, damaged};

/// What [`settle_leaf`] may do.
#[derive(Clone, Copy, Debug)]
pub struct SettleLimits {
    /// Pages from here on are to be moved below.
    pub end: PageNumber,
    /// So many pages may be moved.
    pub pages: u32,
    /// Runs longer than this stay where they are, in pages.
    pub longest_run: u32,
}

/// Where a walk over a tree stands: before everything, at first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct SettlePlace {
    /// A key of the leaf; the empty key stands for the first leaf.
    pub key: Vec<u8>,
    /// A value of the leaf in the tree of values under `key`; the empty value stands for its first leaf. `None` for the
    /// leaf of the tree itself.
    pub value: Option<Vec<u8>>,
}

impl SettlePlace {
    /// A leaf of the tree itself.
    fn leaf(key: Vec<u8>) -> Self {
        Self { key, value: None }
    }
}

/// What [`settle_leaf`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// How many pages were moved.
    pub moved: u32,
    /// Whether the leaf has nothing more to be moved; else more pages than were allowed.
    pub done: bool,
    /// Where the walk goes on; `None` if this was the last leaf.
    pub next: Option<SettlePlace>,
}

/// Moves what lies at or beyond the limit's end of the leaf at `place`, the branches above it and the overflow runs of its
/// entries, where there is a free place below. The leaves of a tree of values come behind the one that the tree hangs on.
pub fn settle_leaf<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    place: &SettlePlace,
    limits: &SettleLimits,
) -> Result<Settled, ReadError> {
    let Some(root) = tree.root else { return Ok(Settled { moved: 0, done: true, next: None }) };
    let (path, found) = descend(&*store, root, tree, &place.key)?;
    if let Some(value) = &place.value {
        return settle_values(store, tree, &path, found, value, limits);
    }
    let mut steps = path.steps().to_vec();
    let behind = next_key(&*store, &steps)?.map(SettlePlace::leaf);
    let mut moved = 0;
    for index in 0..steps.len() {
        if steps[index].page < limits.end {
            continue;
        }
        if moved == limits.pages {
            return Ok(Settled { moved, done: false, next: behind });
        }
        let Some(to) = move_run(store, steps[index].page, 1)? else { continue };
        match index.checked_sub(1).map(|above| steps[above]) {
            Some(above) => {
                change(store, above.page, |page| node_mut::set_child(page, usize::from(above.slot), to))?;
            }
            None => tree.root = Some(to),
        }
        steps[index].page = to;
        moved += 1;
    }
    let leaf = steps.last().expect("a tree with a root has a leaf").page;
    if tree.kind == TreeKind::Multi {
        let next = values_from(&*store, leaf, 0)?.or(behind);
        return Ok(Settled { moved, done: true, next });
    }
    let (runs_moved, done) = settle_runs(store, leaf, limits, limits.pages - moved)?;
    Ok(Settled { moved: moved + runs_moved, done, next: behind })
}

/// Settles a leaf of the tree of values at the end of `path`; if there is none any more, says what comes next.
fn settle_values<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &TreeState,
    path: &Path,
    found: bool,
    value: &[u8],
    limits: &SettleLimits,
) -> Result<Settled, ReadError> {
    let (leaf, mut slot) = (path.leaf(), usize::from(path.leaf().slot));
    let mut settled = Settled { moved: 0, done: true, next: None };
    if found {
        if let (_, Holding { owned: Owned::Values(mut values), .. }) = read_holding(&*store, tree.kind, leaf)? {
            let before = values.root;
            settled = settle_leaf(store, &mut values, &SettlePlace::leaf(value.to_vec()), limits)?;
            if values.root != before {
                replant(store, leaf, &values)?;
            }
        }
        slot += 1;
    }
    settled.next = match settled.next {
        Some(SettlePlace { key: value, .. }) => {
            let page = store.page(leaf.page)?;
            let key = Node::leaf(&page).and_then(|node| node.key(slot - 1).map(<[u8]>::to_vec));
            let key = key.map_err(|damage| damaged(&*store, leaf.page, damage))?;
            Some(SettlePlace { key, value: Some(value) })
        }
        None => match values_from(&*store, leaf.page, slot)? {
            Some(next) => Some(next),
            None => next_key(&*store, path.steps())?.map(SettlePlace::leaf),
        },
    };
    Ok(settled)
}

/// The first tree of values of a leaf, from a slot on.
fn values_from<S: PageSource + ?Sized>(
    store: &S,
    leaf: PageNumber,
    from: usize,
) -> Result<Option<SettlePlace>, ReadError> {
    let page = store.page(leaf)?;
    let search = |node: Node<'_>| {
        for slot in from..node.count() {
            let cell = node.leaf_cell(slot)?;
            if let Owned::Values(_) = Holding::of(TreeKind::Multi, &cell)?.owned {
                return Ok(Some(SettlePlace { key: cell.key.to_vec(), value: Some(Vec::new()) }));
            }
        }
        Ok(None)
    };
    Node::leaf(&page).and_then(search).map_err(|damage| damaged(store, leaf, damage))
}

/// Lets an entry refer to its tree of values where that is now.
fn replant<S: PageStore + ?Sized>(store: &mut S, leaf: Step, values: &TreeState) -> Result<(), ReadError> {
    let slot = usize::from(leaf.slot);
    let (key, version) = {
        let page = store.page(leaf.page)?;
        let cell = Node::leaf(&page).and_then(|node| node.leaf_cell(slot));
        let cell = cell.map_err(|damage| damaged(&*store, leaf.page, damage))?;
        (cell.key.to_vec(), cell.version)
    };
    let payload = encode_tree(values);
    let cell = Cell::leaf(&key, version, Payload::Inline(&payload));
    let fits = change(store, leaf.page, |page| node_mut::replace(page, slot, &cell))?;
    assert!(fits, "a reference takes as much room as another");
    Ok(())
}

/// Moves overflow runs of a leaf: how many pages, and whether that was all.
fn settle_runs<S: PageStore + ?Sized>(
    store: &mut S,
    leaf: PageNumber,
    limits: &SettleLimits,
    allowed: u32,
) -> Result<(u32, bool), ReadError> {
    let (mut slot, mut moved) = (0, 0);
    loop {
        let found = {
            let page = store.page(leaf)?;
            let search = |node: Node<'_>| {
                while slot < node.count() {
                    let cell = node.leaf_cell(slot)?;
                    slot += 1;
                    if let Payload::Overflow(first, length) = cell.payload
                        && first >= limits.end
                    {
                        return Ok(Some((node.key(slot - 1)?.to_vec(), cell.version, first, length)));
                    }
                }
                Ok(None)
            };
            Node::leaf(&page).and_then(search).map_err(|damage| damaged(&*store, leaf, damage))?
        };
        let Some((key, version, first, length)) = found else { return Ok((moved, true)) };
        let count = run_pages(length as usize);
        if count > limits.longest_run {
            continue;
        }
        if moved + count > allowed {
            return Ok((moved, false));
        }
        if let Some(to) = move_run(store, first, count)? {
            let cell = Cell::leaf(&key, version, Payload::Overflow(to, length));
            let fits = change(store, leaf, |page| node_mut::replace(page, slot - 1, &cell))?;
            assert!(fits, "a reference takes as much room as another");
            moved += count;
        }
    }
}

/// Copies pages to a free place below them, and frees them; `None` if there is no such place.
fn move_run<S: PageStore + ?Sized>(
    store: &mut S,
    first: PageNumber,
    count: u32,
) -> Result<Option<PageNumber>, ReadError> {
    let to = store.allocate(count)?;
    if to > first {
        store.free(to, count)?;
        return Ok(None);
    }
    for index in 0..count {
        let page: Page = match count {
            1 => (*store.page(first)?).clone(),
            _ => (*run_page(&*store, first, index)?).clone(),
        };
        *store.page_mut(PageNumber(to.0 + index))? = page;
    }
    store.free(first, count)?;
    Ok(Some(to))
}

/// The least key that the leaf behind the one for `key` may have; `None` if that is the last.
pub fn key_behind_leaf<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    key: &[u8],
) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(root) = tree.root else { return Ok(None) };
    let (path, _) = descend(source, root, tree, key)?;
    next_key(source, path.steps())
}

/// The least key of what lies behind a path.
fn next_key<S: PageSource + ?Sized>(store: &S, path: &[Step]) -> Result<Option<Vec<u8>>, ReadError> {
    for step in path.iter().rev().skip(1) {
        let page = store.page(step.page)?;
        let behind = usize::from(step.slot) + 1;
        let key = Node::branch(&page)
            .and_then(|node| (behind < node.count()).then(|| node.key(behind).map(<[u8]>::to_vec)).transpose());
        if let Some(key) = key.map_err(|damage| damaged(store, step.page, damage))? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}
