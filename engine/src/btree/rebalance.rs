//! Joining pages that became too empty, along the path to a leaf, from the leaf upwards.
//!
//! An empty page goes. An underfull one is merged into a sibling, if both fit into one page: always the smaller's cells
//! move, as they are what is journalled. Else it takes cells from its fuller sibling; but if the branch above has no
//! room for the new separator, it stays as it is.

use crate::ids::PageNumber;
use crate::page::Page;

use super::insert::change;
use super::node::{BODY_BYTES, Damage, Node, SLOT_BYTES, UNDERFULL_BYTES, separator};
use super::node_mut::{self, Cell};
use super::search::Step;
use super::{PageStore, ReadError, TreeState, damaged};

/// How far up a path to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Up to the first page that is full enough: after one entry was taken out.
    WhileUnderfull,
    /// Up to the root: after whole subtrees were taken out.
    Root,
}

/// Joins pages along `path`, and takes levels off the tree that are no longer needed.
pub(super) fn rebalance<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &[Step],
    reach: Reach,
) -> Result<(), ReadError> {
    for index in (1..path.len()).rev() {
        let (number, parent) = (path[index].page, path[index - 1]);
        let level = tree.height - 1 - u8::try_from(index).expect("at most 32 levels");
        let (count, used) = {
            let page = store.page(number)?;
            let node = Node::at_level(&page, level).map_err(|damage| damaged(&*store, number, damage))?;
            (node.count(), node.used_bytes())
        };
        let slot = usize::from(parent.slot);
        if count == 0 {
            store.free(number, 1)?;
            tree.pages -= 1;
            change(store, parent.page, |page| node_mut::remove_children(page, slot..slot + 1))?;
        } else if used < UNDERFULL_BYTES {
            join(store, tree, parent.page, slot, level)?;
        } else if reach == Reach::WhileUnderfull {
            break;
        }
    }
    lower_root(store, tree)
}

/// Takes off roots that have one child, and a root that has nothing.
pub(super) fn lower_root<S: PageStore + ?Sized>(store: &mut S, tree: &mut TreeState) -> Result<(), ReadError> {
    while let Some(root) = tree.root {
        let child = {
            let page = store.page(root)?;
            let node = Node::at_level(&page, tree.height - 1).map_err(|damage| damaged(&*store, root, damage))?;
            match node.count() {
                0 => None,
                1 if !node.is_leaf() => Some(node.child(0).map_err(|damage| damaged(&*store, root, damage))?),
                _ => return Ok(()),
            }
        };
        store.free(root, 1)?;
        tree.pages -= 1;
        tree.root = child;
        tree.height = if child.is_some() { tree.height - 1 } else { 0 };
    }
    Ok(())
}

/// Two pages that stand side by side under a branch, copied.
struct Pair {
    left: (PageNumber, Box<Page>),
    right: (PageNumber, Box<Page>),
    /// The slot of the right one in the branch.
    right_slot: usize,
    /// The key of the right one in the branch.
    separator: Vec<u8>,
}

impl Pair {
    fn read<S: PageStore + ?Sized>(store: &S, parent: PageNumber, right_slot: usize) -> Result<Self, ReadError> {
        let (left, right, separator) = {
            let page = store.page(parent)?;
            let read = |node: Node<'_>| {
                Ok((node.child(right_slot - 1)?, node.child(right_slot)?, node.key(right_slot)?.to_vec()))
            };
            Node::branch(&page).and_then(read).map_err(|damage| damaged(store, parent, damage))?
        };
        let copy =
            |number: PageNumber| -> Result<_, ReadError> { Ok((number, Box::new((*store.page(number)?).clone()))) };
        Ok(Self { left: copy(left)?, right: copy(right)?, right_slot, separator })
    }

    fn used_bytes<S: PageStore + ?Sized>(&self, store: &S, level: u8) -> Result<(usize, usize), ReadError> {
        let used = |(number, page): &(PageNumber, Box<Page>)| {
            let node = Node::at_level(page, level).map_err(|damage| damaged(store, *number, damage))?;
            Ok::<_, ReadError>(node.used_bytes())
        };
        Ok((used(&self.left)?, used(&self.right)?))
    }
}

/// Merges the underfull page under `slot` of `parent` with a sibling, or lets it take cells from one.
fn join<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    parent: PageNumber,
    slot: usize,
    level: u8,
) -> Result<(), ReadError> {
    let count = {
        let page = store.page(parent)?;
        Node::branch(&page).map_err(|damage| damaged(&*store, parent, damage))?.count()
    };
    let mut fullest: Option<(usize, Pair)> = None;
    let right_slots = [(slot > 0).then_some(slot), (slot + 1 < count).then_some(slot + 1)];
    for right_slot in right_slots.into_iter().flatten() {
        let pair = Pair::read(&*store, parent, right_slot)?;
        let (left, right) = pair.used_bytes(&*store, level)?;
        let lifted = if level == 0 { 0 } else { pair.separator.len() };
        if left + right + lifted <= BODY_BYTES {
            return merge(store, tree, parent, &pair, level, left >= right);
        }
        if fullest.as_ref().is_none_or(|(bytes, _)| left.max(right) > *bytes) {
            fullest = Some((left.max(right), pair));
        }
    }
    let Some((_, pair)) = fullest else { return Ok(()) };
    if pair.right_slot == slot {
        take_from_left(store, parent, &pair, level)
    } else {
        take_from_right(store, parent, &pair, level)
    }
}

/// The cell in a page, to be put into the page's sibling: what is first in a branch gets the separator as its key.
fn moved<'p>(node: &Node<'p>, slot: usize, separator: &'p [u8]) -> Result<Cell<'p>, Damage> {
    if slot == 0 && !node.is_leaf() {
        return Ok(Cell::branch(separator, node.child(0)?));
    }
    Ok(Cell::copied(node.cell(slot)?))
}

fn merge<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    parent: PageNumber,
    pair: &Pair,
    level: u8,
    into_left: bool,
) -> Result<(), ReadError> {
    let ((left, left_page), (right, right_page)) = (&pair.left, &pair.right);
    if into_left {
        change(store, *left, |page| {
            let node = Node::at_level(right_page, level)?;
            (0..node.count()).try_for_each(|slot| node_mut::append(page, &moved(&node, slot, &pair.separator)?))
        })?;
        change(store, parent, |page| node_mut::remove_children(page, pair.right_slot..pair.right_slot + 1))?;
        store.free(*right, 1)?;
    } else {
        change(store, *right, |page| {
            if level > 0 {
                let first = Cell::branch(&pair.separator, Node::branch(right_page)?.child(0)?);
                if !node_mut::replace(page, 0, &first)? {
                    return Err(Damage("cells larger than they were counted"));
                }
            }
            let node = Node::at_level(left_page, level)?;
            (0..node.count()).try_for_each(|slot| node_mut::insert_fitting(page, slot, &Cell::copied(node.cell(slot)?)))
        })?;
        change(store, parent, |page| {
            node_mut::set_child(page, pair.right_slot - 1, *right)?;
            node_mut::remove_children(page, pair.right_slot..pair.right_slot + 1)
        })?;
        store.free(*left, 1)?;
    }
    tree.pages -= 1;
    Ok(())
}

/// How many cells to take from the near end of `from` (`sizes` in that order), so that both pages become about equal.
fn count_to_take(from_bytes: usize, to_bytes: usize, keep: usize, sizes: &[usize]) -> usize {
    let (mut taken_bytes, mut taken) = (0, 0);
    for size in sizes.iter().take(sizes.len().saturating_sub(keep)) {
        let next = taken_bytes + size;
        let enough = taken > 0 && to_bytes + next > from_bytes.saturating_sub(next);
        if enough || to_bytes + next > BODY_BYTES {
            break;
        }
        (taken_bytes, taken) = (next, taken + 1);
    }
    taken
}

/// The sizes of all cells with their slots, in bytes.
fn sizes(node: &Node<'_>) -> Result<Vec<usize>, Damage> {
    (0..node.count()).map(|slot| Ok(node.cell_bytes(slot)? + SLOT_BYTES)).collect()
}

/// Gives `right_slot` of the branch a new key. `false`, and nothing changed, if the branch has no room for it.
fn set_separator<S: PageStore + ?Sized>(
    store: &mut S,
    parent: PageNumber,
    pair: &Pair,
    key: &[u8],
) -> Result<bool, ReadError> {
    change(store, parent, |page| node_mut::replace(page, pair.right_slot, &Cell::branch(key, pair.right.0)))
}

fn take_from_left<S: PageStore + ?Sized>(
    store: &mut S,
    parent: PageNumber,
    pair: &Pair,
    level: u8,
) -> Result<(), ReadError> {
    let ((left, left_page), (right, right_page)) = (&pair.left, &pair.right);
    let lifted = if level == 0 { 0 } else { pair.separator.len() };
    let plan = || {
        let (from, to) = (Node::at_level(left_page, level)?, Node::at_level(right_page, level)?);
        let mut sizes = sizes(&from)?;
        sizes.reverse();
        let keep = if level == 0 { 1 } else { 2 };
        let taken = count_to_take(from.used_bytes(), to.used_bytes() + lifted, keep, &sizes);
        let start = from.count() - taken;
        let key = match level {
            _ if taken == 0 => &[],
            0 => separator(from.key(start - 1)?, from.key(start)?),
            _ => from.key(start)?,
        };
        Ok((from, start, key))
    };
    let (from, start, key) = plan().map_err(|damage| damaged(&*store, *left, damage))?;
    if start == from.count() || !set_separator(store, parent, pair, key)? {
        return Ok(());
    }
    change(store, *right, |page| {
        if level > 0 {
            let first = Cell::branch(&pair.separator, Node::branch(right_page)?.child(0)?);
            if !node_mut::replace(page, 0, &first)? {
                return Err(Damage("cells larger than they were counted"));
            }
        }
        for (to_slot, slot) in (start..from.count()).enumerate() {
            let first_of_branch = level > 0 && to_slot == 0;
            let cell =
                if first_of_branch { Cell::branch(&[], from.child(slot)?) } else { Cell::copied(from.cell(slot)?) };
            node_mut::insert_fitting(page, to_slot, &cell)?;
        }
        Ok(())
    })?;
    change(store, *left, |page| node_mut::remove(page, start..from.count()))
}

fn take_from_right<S: PageStore + ?Sized>(
    store: &mut S,
    parent: PageNumber,
    pair: &Pair,
    level: u8,
) -> Result<(), ReadError> {
    let ((left, left_page), (right, right_page)) = (&pair.left, &pair.right);
    let lifted = if level == 0 { 0 } else { pair.separator.len() };
    let plan = || {
        let (to, from) = (Node::at_level(left_page, level)?, Node::at_level(right_page, level)?);
        let keep = if level == 0 { 1 } else { 2 };
        let taken = count_to_take(from.used_bytes(), to.used_bytes() + lifted, keep, &sizes(&from)?);
        let key = match level {
            _ if taken == 0 => &[],
            0 => separator(from.key(taken - 1)?, from.key(taken)?),
            _ => from.key(taken)?,
        };
        Ok((from, taken, key))
    };
    let (from, taken, key) = plan().map_err(|damage| damaged(&*store, *right, damage))?;
    if taken == 0 || !set_separator(store, parent, pair, key)? {
        return Ok(());
    }
    change(store, *left, |page| {
        (0..taken).try_for_each(|slot| node_mut::append(page, &moved(&from, slot, &pair.separator)?))
    })?;
    change(store, *right, |page| {
        if level == 0 { node_mut::remove(page, 0..taken) } else { node_mut::remove_children(page, 0..taken) }
    })
}
