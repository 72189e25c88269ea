//! Joining pages that became too empty, along the path to a leaf, from the leaf upwards.
//!
//! An empty page goes. One that is less than about two thirds full is merged into a sibling, if both fit into one page:
//! always the smaller's cells move, as they are what is journalled. Else a leaf is divided among both of its siblings, if they have
//! room for it: so no three leaves side by side stay that fit into two. Else, below a quarter, it takes cells from its
//! fuller sibling; but if the branch above has no room for the new separator, it stays as it is.
//!
//! And before a leaf is split, it gives cells to a sibling that has room: see [`make_room`]. Without these two, random
//! puts, deletes and values that change their length leave leaves 43 to 57 % full; with them it is 70 to 80 %.

use crate::ids::PageNumber;
use crate::page::Page;

use super::insert::change;
use super::node::{BODY_BYTES, Damage, Node, SLOT_BYTES, SPARSE_BYTES, UNDERFULL_BYTES, separator};
use super::node_mut::{self, Cell};
use super::range::take_off;
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
            take_off(store, number, &mut tree.pages, 1)?;
            change(store, parent.page, |page| node_mut::remove_children(page, slot..slot + 1))?;
        } else if used < SPARSE_BYTES {
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
        take_off(store, root, &mut tree.pages, 1)?;
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
}

/// What the children of a branch around one of them use, in bytes.
struct Neighbours {
    own: usize,
    left: Option<usize>,
    right: Option<usize>,
    /// The keys of the child and of its right sibling, in bytes, which come down where branches are merged.
    lifted: (usize, usize),
}

impl Neighbours {
    fn look<S: PageStore + ?Sized>(store: &S, parent: PageNumber, slot: usize, level: u8) -> Result<Self, ReadError> {
        let page = store.page(parent)?;
        let branch = Node::branch(&page).map_err(|damage| damaged(store, parent, damage))?;
        let used = |slot: usize| -> Result<usize, ReadError> {
            let number = branch.child(slot).map_err(|damage| damaged(store, parent, damage))?;
            let page = store.page(number)?;
            let node = Node::at_level(&page, level).map_err(|damage| damaged(store, number, damage))?;
            Ok(node.used_bytes())
        };
        let lifted = |slot: usize| match level {
            0 => Ok(0),
            _ => branch.key(slot).map(<[u8]>::len).map_err(|damage| damaged(store, parent, damage)),
        };
        let behind = slot + 1 < branch.count();
        Ok(Self {
            own: used(slot)?,
            left: (slot > 0).then(|| used(slot - 1)).transpose()?,
            right: behind.then(|| used(slot + 1)).transpose()?,
            lifted: (lifted(slot)?, if behind { lifted(slot + 1)? } else { 0 }),
        })
    }
}

/// Merges the page under `slot` of `parent`, which is less than about two thirds full, with a sibling, or divides it among
/// both, or lets it take cells from one.
fn join<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    parent: PageNumber,
    slot: usize,
    level: u8,
) -> Result<(), ReadError> {
    let around = Neighbours::look(&*store, parent, slot, level)?;
    if let Some(left) = around.left.filter(|left| left + around.own + around.lifted.0 <= BODY_BYTES) {
        let pair = Pair::read(&*store, parent, slot)?;
        return merge(store, tree, parent, &pair, level, left >= around.own);
    }
    if let Some(right) = around.right.filter(|right| right + around.own + around.lifted.1 <= BODY_BYTES) {
        let pair = Pair::read(&*store, parent, slot + 1)?;
        return merge(store, tree, parent, &pair, level, around.own >= right);
    }
    if let (0, Some(left), Some(right)) = (level, around.left, around.right)
        && left + around.own + right <= 2 * FULL_ENOUGH_BYTES
        && divide(store, tree, parent, slot, left, right)?
    {
        return Ok(());
    }
    if around.own >= UNDERFULL_BYTES {
        return Ok(());
    }
    match (around.left, around.right) {
        (Some(left), right) if right.is_none_or(|right| left >= right) => {
            let pair = Pair::read(&*store, parent, slot)?;
            take_from_left(store, parent, &pair, level)?;
        }
        (_, Some(_)) => {
            let pair = Pair::read(&*store, parent, slot + 1)?;
            take_from_right(store, parent, &pair, level, None)?;
        }
        _ => {}
    }
    Ok(())
}

/// How full two leaves may become by what is divided among them: so that the next few entries find room.
const FULL_ENOUGH_BYTES: usize = BODY_BYTES / 32 * 31;

/// Divides the leaf under `slot` of `parent` among its siblings, which use `left` and `right` bytes. `false`, and nothing
/// changed, where that cannot be done.
fn divide<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    parent: PageNumber,
    slot: usize,
    left: usize,
    right: usize,
) -> Result<bool, ReadError> {
    let pair = Pair::read(&*store, parent, slot)?;
    let (number, page) = &pair.right;
    let sizes = Node::leaf(page).and_then(|node| sizes(&node)).map_err(|damage| damaged(&*store, *number, damage))?;
    let total: usize = sizes.iter().sum();
    let mut best: Option<(usize, usize)> = None;
    let mut bytes = 0;
    for (index, size) in sizes.iter().enumerate().take(sizes.len() - 1) {
        bytes += size;
        let (to_left, to_right) = (left + bytes, right + total - bytes);
        let distance = to_left.abs_diff(to_right);
        if to_left <= BODY_BYTES && to_right <= BODY_BYTES && best.is_none_or(|(_, least)| distance < least) {
            best = Some((index + 1, distance));
        }
    }
    let Some((count, _)) = best else { return Ok(false) };
    if !take_from_right(store, parent, &pair, 0, Some(count))? {
        return Ok(false);
    }
    let rest = Pair::read(&*store, parent, slot + 1)?;
    merge(store, tree, parent, &rest, 0, false)?;
    Ok(true)
}

/// A leaf that has no room gives cells to the emptier of its siblings, if that is at most three quarters full, and both
/// are about equally full then. `false`, and nothing changed, if there is no such sibling. What moves is less than what
/// a split would write, which makes a new page.
pub(super) fn make_room<S: PageStore + ?Sized>(store: &mut S, path: &[Step]) -> Result<bool, ReadError> {
    const ROOM_FROM_BYTES: usize = BODY_BYTES / 4 * 3;
    let [.., parent, _] = path else { return Ok(false) };
    let slot = usize::from(parent.slot);
    let around = Neighbours::look(&*store, parent.page, slot, 0)?;
    let left = around.left.filter(|used| *used <= ROOM_FROM_BYTES);
    let right = around.right.filter(|used| *used <= ROOM_FROM_BYTES);
    match (left, right) {
        (Some(left), right) if right.is_none_or(|right| left <= right) => {
            let pair = Pair::read(&*store, parent.page, slot)?;
            take_from_right(store, parent.page, &pair, 0, None)
        }
        (_, Some(_)) => {
            let pair = Pair::read(&*store, parent.page, slot + 1)?;
            take_from_left(store, parent.page, &pair, 0)
        }
        _ => Ok(false),
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
    take_off(store, parent, &mut tree.pages, 1)
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

/// The right page takes so many cells from the left one that both become about equal. `false`, and nothing changed, if it
/// takes none.
fn take_from_left<S: PageStore + ?Sized>(
    store: &mut S,
    parent: PageNumber,
    pair: &Pair,
    level: u8,
) -> Result<bool, ReadError> {
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
        return Ok(false);
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
    change(store, *left, |page| node_mut::remove(page, start..from.count()))?;
    Ok(true)
}

/// The left page takes `count` cells from the right one, or so many that both become about equal. `false`, and nothing
/// changed, if it takes none.
fn take_from_right<S: PageStore + ?Sized>(
    store: &mut S,
    parent: PageNumber,
    pair: &Pair,
    level: u8,
    count: Option<usize>,
) -> Result<bool, ReadError> {
    let ((left, left_page), (right, right_page)) = (&pair.left, &pair.right);
    let lifted = if level == 0 { 0 } else { pair.separator.len() };
    let plan = || {
        let (to, from) = (Node::at_level(left_page, level)?, Node::at_level(right_page, level)?);
        let keep = if level == 0 { 1 } else { 2 };
        let taken = match count {
            Some(count) => count,
            None => count_to_take(from.used_bytes(), to.used_bytes() + lifted, keep, &sizes(&from)?),
        };
        let key = match level {
            _ if taken == 0 => &[],
            0 => separator(from.key(taken - 1)?, from.key(taken)?),
            _ => from.key(taken)?,
        };
        Ok((from, taken, key))
    };
    let (from, taken, key) = plan().map_err(|damage| damaged(&*store, *right, damage))?;
    if taken == 0 || !set_separator(store, parent, pair, key)? {
        return Ok(false);
    }
    change(store, *left, |page| {
        (0..taken).try_for_each(|slot| node_mut::append(page, &moved(&from, slot, &pair.separator)?))
    })?;
    change(store, *right, |page| {
        if level == 0 { node_mut::remove(page, 0..taken) } else { node_mut::remove_children(page, 0..taken) }
    })?;
    Ok(true)
}
