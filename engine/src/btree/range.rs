//! Taking out many entries at once.
//!
//! Only the two paths to the ends of the range are changed. Subtrees that lie wholly inside it are freed: their pages
//! are read to find what else they hold, and not written. The two paths are rebalanced once, at the end.

use std::ops::{Bound, Range};

use crate::ids::PageNumber;

use super::insert::change;
use super::node::{Damage, Node};
use super::node_mut;
use super::owned::{Holding, Owned};
use super::rebalance::{Reach, lower_root, rebalance};
use super::search::{checked_height, descend};
use super::{PageStore, ReadError, TreeState, damaged};

/// Takes out all entries between two bounds, and returns how many there were.
pub fn remove_range<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<u64, ReadError> {
    store.note_mutation();
    take_range(store, tree, start, end)
}

/// As [`remove_range`], as a part of another operation.
pub(super) fn take_range<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<u64, ReadError> {
    let Some(root) = tree.root else { return Ok(0) };
    if is_empty(start, end) {
        return Ok(0);
    }
    let before = tree.entries;
    let level = checked_height(&*store, root, tree)? - 1;
    if prune(store, tree, root, level, start, end)? {
        (tree.root, tree.height) = (None, 0);
        return Ok(before);
    }
    if before > tree.entries {
        // Where a bound is missing, nothing is left on that side.
        for bound in [start, end] {
            let (Bound::Included(key) | Bound::Excluded(key)) = bound else { continue };
            let Some(root) = tree.root else { break };
            let (path, _) = descend(&*store, root, tree, key)?;
            rebalance(store, tree, path.steps(), Reach::Root)?;
        }
        lower_root(store, tree)?;
    }
    Ok(before - tree.entries)
}

/// Frees all pages of a tree, which is empty then, and of the same kind.
pub fn destroy<S: PageStore + ?Sized>(store: &mut S, tree: &mut TreeState) -> Result<(), ReadError> {
    store.note_mutation();
    free_tree(store, tree)
}

/// As [`destroy`], as a part of another operation.
pub(super) fn free_tree<S: PageStore + ?Sized>(store: &mut S, tree: &mut TreeState) -> Result<(), ReadError> {
    if let Some(root) = tree.root {
        let level = checked_height(&*store, root, tree)? - 1;
        free_subtree(store, tree, root, level)?;
        if (tree.entries, tree.pages, tree.values) != (0, 0, 0) {
            return Err(damaged(&*store, root, Damage("a tree with other counts than its state says")));
        }
        *tree = TreeState::empty(tree.kind);
    }
    Ok(())
}

fn is_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

/// Takes the range out of a subtree. `true` if nothing was left, and its page is freed.
fn prune<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    level: u8,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<bool, ReadError> {
    if (start, end) == (Bound::Unbounded, Bound::Unbounded) {
        free_subtree(store, tree, number, level)?;
        return Ok(true);
    }
    let (slots, count) = if level == 0 {
        prune_leaf(store, tree, number, start, end)?
    } else {
        prune_branch(store, tree, number, level, start, end)?
    };
    if slots.len() == count {
        store.free(number, 1)?;
        take_off(store, number, &mut tree.pages, 1)?;
        return Ok(true);
    }
    if !slots.is_empty() {
        change(store, number, |page| {
            if level == 0 { node_mut::remove(page, slots) } else { node_mut::remove_children(page, slots) }
        })?;
    }
    Ok(false)
}

/// Frees what the entries in the range hold. Returns their slots, and how many the leaf has.
fn prune_leaf<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<(Range<usize>, usize), ReadError> {
    let (slots, count) = {
        let page = store.page(number)?;
        let find = |node: Node<'_>| {
            let at = |key: &[u8], behind: bool| {
                Ok(match node.find(key)? {
                    Ok(slot) => slot + usize::from(behind),
                    Err(slot) => slot,
                })
            };
            let from = match start {
                Bound::Unbounded => 0,
                Bound::Included(key) => at(key, false)?,
                Bound::Excluded(key) => at(key, true)?,
            };
            let to = match end {
                Bound::Unbounded => node.count(),
                Bound::Included(key) => at(key, true)?,
                Bound::Excluded(key) => at(key, false)?,
            };
            Ok((from..to.max(from), node.count()))
        };
        Node::leaf(&page).and_then(find).map_err(|damage| damaged(&*store, number, damage))?
    };
    free_held(store, tree, number, slots.clone())?;
    Ok((slots, count))
}

/// Prunes the children at both ends of the range, and frees those between. Returns the slots of the children that are
/// gone, and how many the branch has.
fn prune_branch<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    level: u8,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<(Range<usize>, usize), ReadError> {
    let (first, last, count) = {
        let page = store.page(number)?;
        let find = |node: Node<'_>| {
            if node.count() == 0 {
                return Err(Damage("a branch without children"));
            }
            let slot_of = |bound: Bound<&[u8]>, edge: usize| match bound {
                Bound::Unbounded => Ok(edge),
                Bound::Included(key) | Bound::Excluded(key) => node.child_slot(key),
            };
            Ok((slot_of(start, 0)?, slot_of(end, node.count() - 1)?, node.count()))
        };
        Node::branch(&page).and_then(find).map_err(|damage| damaged(&*store, number, damage))?
    };
    if first > last {
        return Err(damaged(&*store, number, Damage("keys out of order")));
    }
    if first == last {
        let child = child(store, number, first)?;
        let gone = prune(store, tree, child, level - 1, start, end)?;
        return Ok((first..first + usize::from(gone), count));
    }
    let low = child(store, number, first)?;
    let low_gone = prune(store, tree, low, level - 1, start, Bound::Unbounded)?;
    for slot in first + 1..last {
        let inside = child(store, number, slot)?;
        free_subtree(store, tree, inside, level - 1)?;
    }
    let high = child(store, number, last)?;
    let high_gone = prune(store, tree, high, level - 1, Bound::Unbounded, end)?;
    Ok((first + usize::from(!low_gone)..last + usize::from(high_gone), count))
}

fn child<S: PageStore + ?Sized>(store: &S, number: PageNumber, slot: usize) -> Result<PageNumber, ReadError> {
    let page = store.page(number)?;
    Node::branch(&page).and_then(|node| node.child(slot)).map_err(|damage| damaged(store, number, damage))
}

/// Frees a subtree with all that its entries hold.
fn free_subtree<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    level: u8,
) -> Result<(), ReadError> {
    let count = {
        let page = store.page(number)?;
        Node::at_level(&page, level).map_err(|damage| damaged(&*store, number, damage))?.count()
    };
    if level == 0 {
        free_held(store, tree, number, 0..count)?;
    } else {
        for slot in 0..count {
            let child = child(store, number, slot)?;
            free_subtree(store, tree, child, level - 1)?;
        }
    }
    store.free(number, 1)?;
    take_off(store, number, &mut tree.pages, 1)
}

/// Frees what some entries of a leaf hold, which count as gone then.
fn free_held<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    slots: Range<usize>,
) -> Result<(), ReadError> {
    let mut slot = slots.start;
    while slot < slots.end {
        let holding = {
            let page = store.page(number)?;
            let next = |node: Node<'_>| {
                let mut values = 0;
                while slot < slots.end {
                    slot += 1;
                    let holding = Holding::of(tree.kind, &node.leaf_cell(slot - 1)?)?;
                    values += holding.values;
                    if holding.owned != Owned::Nothing {
                        return Ok(Holding { values, ..holding });
                    }
                }
                Ok(Holding { owned: Owned::Nothing, values })
            };
            Node::leaf(&page).and_then(next).map_err(|damage| damaged(&*store, number, damage))?
        };
        holding.release(store, tree, number)?;
    }
    take_off(store, number, &mut tree.entries, slots.len() as u64)
}

/// Takes pages, entries or values off a count of the tree that the page is of. A count is bytes from a disk, too.
pub(super) fn take_off<S: PageStore + ?Sized>(
    store: &S,
    number: PageNumber,
    count: &mut u64,
    by: u64,
) -> Result<(), ReadError> {
    *count =
        count.checked_sub(by).ok_or_else(|| damaged(store, number, Damage("a tree with more than its state says")))?;
    Ok(())
}
