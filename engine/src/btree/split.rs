//! Making two pages of one that has no room for a cell.
//!
//! The left page keeps its number, and its cells keep their places: only the slots of what moved go. The right page is
//! new, and packed. At the right edge of the tree the left page stays full, so that loading in key order fills pages;
//! elsewhere the bytes are divided as [`super::SplitPolicy`] says.

use crate::ids::PageNumber;
use crate::page::Page;

use super::insert::{change, new_page};
use super::node::{BODY_BYTES, Damage, Node, SLOT_BYTES, separator};
use super::node_mut::{self, Cell};
use super::{PageStore, ReadError, TreeState, damaged};

/// What a split gives to the branch above.
pub(super) struct Split {
    /// Everything in the right page is at or above it, and everything in the left page below it.
    pub(super) separator: Vec<u8>,
    /// The new page.
    pub(super) right: PageNumber,
}

/// Where the cells go, the new one counted among them.
struct Plan {
    /// How many cells the left page has in the end.
    left: usize,
    separator: Vec<u8>,
}

/// Splits a page and puts `cell` before `slot` of it, into whichever half that is.
pub(super) fn split<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    number: PageNumber,
    level: u8,
    slot: usize,
    cell: &Cell<'_>,
    rightmost: bool,
) -> Result<Split, ReadError> {
    if level == 0 && rightmost {
        let leaf = store.page(number)?;
        let separator = beyond_all(&leaf, slot, cell).map_err(|damage| damaged(&*store, number, damage))?;
        drop(leaf);
        if let Some(separator) = separator {
            let right = new_page(store, tree, level)?;
            change(store, right, |page| node_mut::append(page, cell))?;
            return Ok(Split { separator, right });
        }
    }
    let old: Page = (*store.page(number)?).clone();
    let percent = usize::from(store.split_policy().percent);
    let node = Node::at_level(&old, level).map_err(|damage| damaged(store, number, damage))?;
    let plan = plan(&node, slot, cell, rightmost, percent).map_err(|damage| damaged(store, number, damage))?;

    let right = new_page(store, tree, level)?;
    change(store, right, |page| {
        for index in plan.left..=node.count() {
            let moved = if index == slot { *cell } else { Cell::copied(node.cell(old_slot(index, slot))?) };
            if level > 0 && index == plan.left {
                let child = if index == slot { cell.child() } else { node.child(old_slot(index, slot))? };
                node_mut::append(page, &Cell::branch(&[], child))?;
            } else {
                node_mut::append(page, &moved)?;
            }
        }
        Ok(())
    })?;
    change(store, number, |page| {
        let stays = plan.left - usize::from(slot < plan.left);
        node_mut::remove(page, stays..node.count())?;
        if slot < plan.left { node_mut::insert_fitting(page, slot, cell) } else { Ok(()) }
    })?;
    Ok(Split { separator: plan.separator, right })
}

/// What separates the leaf from a cell that comes behind all of it; `None` if the cell does not.
fn beyond_all(leaf: &Page, slot: usize, cell: &Cell<'_>) -> Result<Option<Vec<u8>>, Damage> {
    let node = Node::leaf(leaf)?;
    let Some(last) = slot.checked_sub(1).filter(|_| slot == node.count()) else { return Ok(None) };
    Ok(Some(separator(node.key(last)?, cell.key()).to_vec()))
}

/// Where a cell stands in the old page, by its place among all cells, the new one at `new` among them.
fn old_slot(index: usize, new: usize) -> usize {
    if index < new { index } else { index - 1 }
}

fn plan(node: &Node<'_>, slot: usize, cell: &Cell<'_>, rightmost: bool, percent: usize) -> Result<Plan, Damage> {
    let total_cells = node.count() + 1;
    let least = if node.is_leaf() { 1 } else { 2 };
    if total_cells < 2 * least {
        return Err(Damage("too few cells to split, yet no room"));
    }
    let size = |index: usize| -> Result<usize, Damage> {
        let bytes = if index == slot { cell.len() } else { node.cell_bytes(old_slot(index, slot))? };
        Ok(bytes + SLOT_BYTES)
    };
    let left = if rightmost && slot == node.count() {
        total_cells - least
    } else {
        let mut total_bytes = 0;
        for index in 0..total_cells {
            total_bytes += size(index)?;
        }
        let target = total_bytes * percent / 100;
        let (mut best, mut best_distance, mut bytes) = (None, usize::MAX, 0);
        for index in 0..total_cells - least {
            bytes += size(index)?;
            let fits = bytes <= BODY_BYTES && total_bytes - bytes <= BODY_BYTES;
            if fits && index + 1 >= least && bytes.abs_diff(target) < best_distance {
                (best, best_distance) = (Some(index + 1), bytes.abs_diff(target));
            }
        }
        best.ok_or(Damage("cells longer than cells can be"))?
    };
    let key = |index: usize| if index == slot { Ok(cell.key()) } else { node.key(old_slot(index, slot)) };
    let separator = if node.is_leaf() { separator(key(left - 1)?, key(left)?) } else { key(left)? };
    Ok(Plan { left, separator: separator.to_vec() })
}
