//! Taking out an entry.

use crate::ids::TxnId;

use super::insert::{change, read_holding};
use super::node_mut;
use super::range::take_off;
use super::rebalance::{Reach, rebalance};
use super::search::{Path, descend};
use super::{PageStore, ReadError, TreeState};

/// Takes out the entry under `key` with all that it holds, and returns its version.
pub fn remove<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
) -> Result<Option<TxnId>, ReadError> {
    store.note_mutation();
    take_out(store, tree, key)
}

/// As [`remove`], as a part of another operation.
pub(super) fn take_out<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    key: &[u8],
) -> Result<Option<TxnId>, ReadError> {
    let Some(root) = tree.root else { return Ok(None) };
    let (path, found) = descend(&*store, root, tree, key)?;
    if !found {
        return Ok(None);
    }
    let leaf = path.leaf();
    let (version, holding) = read_holding(&*store, tree.kind, leaf)?;
    holding.release(store, tree, leaf.page)?;
    remove_cell(store, tree, &path)?;
    Ok(Some(version))
}

/// Takes out the cell at the end of `path`, which holds nothing any more.
pub(super) fn remove_cell<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    path: &Path,
) -> Result<(), ReadError> {
    let leaf = path.leaf();
    let slot = usize::from(leaf.slot);
    change(store, leaf.page, |page| node_mut::remove(page, slot..slot + 1))?;
    take_off(store, leaf.page, &mut tree.entries, 1)?;
    rebalance(store, tree, path.steps(), Reach::WhileUnderfull)
}
