//! Putting keys in their order: at the right edge of a tree, without a search.

use crate::ids::{PageNumber, TxnId};

use super::insert::change;
use super::node::{Damage, Node, Payload, overflows};
use super::node_mut::{self, Cell};
use super::search::checked_height;
use super::{PageStore, ReadError, TreeKind, TreeState, check_entry, damaged};

/// The last leaf of a tree, if it is known. It is known until the tree is changed by whoever does not mind it.
#[derive(Clone, Copy, Default)]
pub struct Edge(Option<PageNumber>);

impl Edge {
    /// Forgets it.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Finds it.
    pub(super) fn find<S: PageStore + ?Sized>(&mut self, store: &S, tree: &TreeState) -> Result<(), ReadError> {
        let Some(mut number) = tree.root else { return Ok(()) };
        for _ in 1..checked_height(store, number, tree)? {
            let page = store.page(number)?;
            let last = |node: Node<'_>| node.child(node.count().checked_sub(1).ok_or(Damage("a page without cells"))?);
            number = Node::branch(&page).and_then(last).map_err(|damage| damaged(store, number, damage))?;
        }
        self.0 = Some(number);
        Ok(())
    }
}

/// What [`append`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// The entry is there.
    Done,
    /// It is not, but its key is above all others of the tree.
    NoRoom,
    /// Nothing is known of it.
    NotAtEdge,
}

/// Puts an entry whose key is above all others of the tree, if that is known of it, its value goes into a leaf, and the
/// last one has room. Otherwise nothing changes, and the entry is [`insert`](super::insert)'s.
///
/// # Panics
/// When key or value are not within their limits: see [`check_entry`]. When the tree is not a plain one.
pub fn append<S: PageStore + ?Sized>(
    store: &mut S,
    tree: &mut TreeState,
    edge: &Edge,
    key: &[u8],
    value: &[u8],
    version: TxnId,
) -> Result<Appended, ReadError> {
    if let Err(error) = check_entry(key, value.len()) {
        panic!("{error}");
    }
    assert!(tree.kind == TreeKind::Plain, "a value is put into a plain tree");
    let Some(leaf) = edge.0 else { return Ok(Appended::NotAtEdge) };
    let page = store.page(leaf)?;
    let place = |node: Node<'_>| {
        let count = node.count();
        let above = count > 0 && node.key(count - 1)? < key;
        Ok(above.then_some(count))
    };
    let place = Node::leaf(&page).and_then(place).map_err(|damage| damaged(&*store, leaf, damage))?;
    drop(page);
    let Some(slot) = place else { return Ok(Appended::NotAtEdge) };
    if overflows(key.len(), value.len()) {
        return Ok(Appended::NoRoom);
    }
    let cell = Cell::leaf(key, version, Payload::Inline(value));
    if !change(store, leaf, |page| node_mut::insert(page, slot, &cell))? {
        return Ok(Appended::NoRoom);
    }
    store.note_mutation();
    tree.entries += 1;
    Ok(Appended::Done)
}
