//! Counting the entries of a range without looking at them.
//!
//! Only the leaves at the two ends are searched. A leaf that lies wholly inside is asked how many slots it has, and a
//! branch above such leaves for its children; no cell of a leaf is read. Of a whole tree the
//! state says how many entries there are.

use std::ops::Bound;

use crate::ids::PageNumber;

use super::node::{Damage, Node};
use super::search::checked_height;
use super::{PageSource, ReadError, TreeState, damaged};

/// How many entries lie between two bounds; none where they are the wrong way round.
pub fn count_range<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<u64, ReadError> {
    let Some(root) = tree.root else { return Ok(0) };
    let level = checked_height(source, root, tree)? - 1;
    let below_start = match start {
        Bound::Unbounded => None,
        Bound::Included(key) => Some(Edge { key, behind: false }),
        Bound::Excluded(key) => Some(Edge { key, behind: true }),
    };
    let below_end = match end {
        Bound::Unbounded => None,
        Bound::Included(key) => Some(Edge { key, behind: true }),
        Bound::Excluded(key) => Some(Edge { key, behind: false }),
    };
    match (below_start, below_end) {
        (None, None) => Ok(tree.entries),
        (Some(from), Some(to)) if (from.key, from.behind) >= (to.key, to.behind) => Ok(0),
        (from, to) => count(source, root, level, from, to),
    }
}

/// A place between entries: before those of `key`, or behind.
#[derive(Clone, Copy)]
struct Edge<'k> {
    key: &'k [u8],
    behind: bool,
}

/// The entries of a subtree between two edges.
fn count<S: PageSource + ?Sized>(
    source: &S,
    number: PageNumber,
    level: u8,
    from: Option<Edge<'_>>,
    to: Option<Edge<'_>>,
) -> Result<u64, ReadError> {
    let page = source.page(number)?;
    let fail = |damage| damaged(source, number, damage);
    let node = Node::at_level(&page, level).map_err(fail)?;
    if level == 0 {
        let place = |edge: Edge<'_>| {
            Ok(match node.find(edge.key)? {
                Ok(slot) => slot + usize::from(edge.behind),
                Err(slot) => slot,
            })
        };
        let first = from.map_or(Ok(0), place).map_err(fail)?;
        let last = to.map_or(Ok(node.count()), place).map_err(fail)?;
        return Ok(last.saturating_sub(first) as u64);
    }
    if node.count() == 0 {
        return Err(fail(Damage("a branch without children")));
    }
    let child_of = |edge: Edge<'_>| node.child_slot(edge.key);
    let first = from.map_or(Ok(0), child_of).map_err(fail)?;
    let last = to.map_or(Ok(node.count() - 1), child_of).map_err(fail)?;
    let mut entries = 0;
    for slot in first..=last {
        let child = node.child(slot).map_err(fail)?;
        let from = from.filter(|_| slot == first);
        let to = to.filter(|_| slot == last);
        entries += count(source, child, level - 1, from, to)?;
    }
    Ok(entries)
}
