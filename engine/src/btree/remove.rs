//! Taking out an entry.

use crate::ids::TxnId;

use super::insert::change;
use super::node::{Node, Payload};
use super::node_mut;
use super::overflow::run_pages;
use super::rebalance::{Reach, rebalance};
use super::search::descend;
use super::{PageStore, ReadError, TreeState, damaged};

/// Takes out the entry under `key`, and returns its version.
pub fn remove<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
) -> Result<Option<TxnId>, ReadError> {
    store.note_mutation();
    let Some(root) = tree.root else { return Ok(None) };
    let (path, found) = descend(&*store, root, tree, key)?;
    if !found {
        return Ok(None);
    }
    let leaf = path.leaf();
    let slot = usize::from(leaf.slot);
    let (version, run) = {
        let page = store.page(leaf.page)?;
        let cell = Node::leaf(&page).and_then(|node| node.leaf_cell(slot));
        let cell = cell.map_err(|damage| damaged(&*store, leaf.page, damage))?;
        let run = match cell.payload {
            Payload::Inline(_) => None,
            Payload::Overflow(first, length) => Some((first, run_pages(length as usize))),
        };
        (cell.version, run)
    };
    if let Some((first, pages)) = run {
        store.free(first, pages)?;
        tree.pages -= u64::from(pages);
    }
    change(store, leaf.page, |page| node_mut::remove(page, slot..slot + 1))?;
    tree.entries -= 1;
    rebalance(store, tree, path.steps(), Reach::WhileUnderfull)?;
    Ok(Some(version))
}
