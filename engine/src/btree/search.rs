//! Finding a key.

use crate::ids::{PageNumber, TxnId};

use super::node::{Damage, LeafCell, Node, Payload};
use super::{Entry, MAX_HEIGHT, PageRef, PageSource, ReadError, TreeKind, TreeState, Value, damaged};

/// Where the bytes of a value stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueLocation {
    /// In a leaf.
    Inline {
        /// The leaf.
        page: PageNumber,
        /// In bytes from the start of the page.
        offset: u16,
        /// In bytes.
        length: u16,
    },
    /// In an overflow run: behind the header of each page, one page after the other.
    Overflow {
        /// The first page of the run.
        first: PageNumber,
        /// In bytes.
        length: u32,
    },
}

/// One step of a descent.
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) page: PageNumber,
    /// The child that was taken; in the leaf, the entry or where it would go.
    pub(super) slot: u16,
}

/// The pages from the root to a leaf.
pub(super) struct Path {
    steps: [Step; MAX_HEIGHT],
    height: usize,
    /// Whether every branch was left by its last child.
    pub(super) rightmost: bool,
}

impl Path {
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps[..self.height]
    }

    pub(super) fn leaf(&self) -> Step {
        self.steps[self.height - 1]
    }
}

/// The height of a tree with a root, which a damaged state might exceed.
pub(super) fn checked_height<S: PageSource + ?Sized>(
    source: &S,
    root: PageNumber,
    tree: &TreeState,
) -> Result<u8, ReadError> {
    if (1..=MAX_HEIGHT).contains(&usize::from(tree.height)) {
        return Ok(tree.height);
    }
    Err(damaged(source, root, Damage("a tree of impossible height")))
}

/// Goes down to the leaf for `key`. The last step's slot is where the key is (`true`) or would be (`false`).
pub(super) fn descend<S: PageSource + ?Sized>(
    source: &S,
    root: PageNumber,
    tree: &TreeState,
    key: &[u8],
) -> Result<(Path, bool), ReadError> {
    let height = checked_height(source, root, tree)?;
    let mut path = Path { steps: [Step::default(); MAX_HEIGHT], height: usize::from(height), rightmost: true };
    let mut number = root;
    for index in 0..path.height - 1 {
        let page = source.page(number)?;
        let (slot, last, child) = child_for(&page, key).map_err(|damage| damaged(source, number, damage))?;
        path.steps[index] = Step { page: number, slot: slot as u16 };
        path.rightmost &= last;
        number = child;
    }
    let page = source.page(number)?;
    let found = Node::leaf(&page).and_then(|node| node.find(key)).map_err(|damage| damaged(source, number, damage))?;
    let (Ok(slot) | Err(slot)) = found;
    path.steps[path.height - 1] = Step { page: number, slot: slot as u16 };
    Ok((path, found.is_ok()))
}

fn child_for(page: &PageRef<'_>, key: &[u8]) -> Result<(usize, bool, PageNumber), Damage> {
    let node = Node::branch(page)?;
    let slot = node.child_slot(key)?;
    Ok((slot, slot + 1 == node.count(), node.child(slot)?))
}

/// Refuses to read a tree by its values that has more than one under a key.
#[inline]
fn check_plain(tree: &TreeState) -> Result<(), ReadError> {
    if tree.kind == TreeKind::Plain { Ok(()) } else { Err(ReadError::OtherKind(tree.kind)) }
}

/// Finds the leaf that holds `key`, and calls `take` with where it is, itself and the entry.
#[inline]
pub(super) fn find<'a, S: PageSource + ?Sized, T>(
    source: &'a S,
    tree: &TreeState,
    key: &[u8],
    take: impl FnOnce(Step, &PageRef<'a>, &LeafCell<'_>) -> T,
) -> Result<Option<T>, ReadError> {
    let Some(mut number) = tree.root else { return Ok(None) };
    for _ in 1..checked_height(source, number, tree)? {
        let page = source.page(number)?;
        let child = Node::branch(&page).and_then(|node| node.child(node.child_slot(key)?));
        number = child.map_err(|damage| damaged(source, number, damage))?;
    }
    let page = source.page(number)?;
    let cell = Node::leaf(&page).and_then(|node| match node.find(key)? {
        Ok(slot) => node.leaf_cell(slot).map(|cell| Some((cell, slot))),
        Err(_) => Ok(None),
    });
    let cell = cell.map_err(|damage| damaged(source, number, damage))?;
    Ok(cell.map(|(cell, slot)| take(Step { page: number, slot: slot as u16 }, &page, &cell)))
}

/// The entry under `key`.
pub fn get<'a, S: PageSource + ?Sized>(
    source: &'a S,
    tree: &TreeState,
    key: &[u8],
) -> Result<Option<Entry<'a>>, ReadError> {
    check_plain(tree)?;
    find(source, tree, key, |_, page, cell| {
        let value = match cell.payload {
            Payload::Inline(bytes) => Value::in_page(page.clone(), cell.payload_offset, bytes.len()),
            Payload::Overflow(first, length) => Value::in_run(source, first, length),
        };
        Entry { version: cell.version, value }
    })
}

/// The version of the entry under `key`, and where its value's bytes stand. Reads no page of the value.
pub fn locate<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    key: &[u8],
) -> Result<Option<(TxnId, ValueLocation)>, ReadError> {
    check_plain(tree)?;
    find(source, tree, key, |place, _, cell| (cell.version, location_of(place.page, cell)))
}

fn location_of(page: PageNumber, cell: &LeafCell<'_>) -> ValueLocation {
    match cell.payload {
        Payload::Inline(bytes) => {
            ValueLocation::Inline { page, offset: cell.payload_offset as u16, length: bytes.len() as u16 }
        }
        Payload::Overflow(first, length) => ValueLocation::Overflow { first, length },
    }
}

/// Where a key was found last: where keys are looked for in their order, the next stands behind it mostly.
#[derive(Default)]
pub struct Finger(Option<Step>);

/// As [`locate`], looking first where `finger` points; it points to where the key was found afterwards. The tree does not
/// change meanwhile.
pub fn locate_near<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    key: &[u8],
    finger: &mut Finger,
) -> Result<Option<(TxnId, ValueLocation)>, ReadError> {
    check_plain(tree)?;
    if let Some(Step { page: number, slot: last }) = finger.0 {
        let page = source.page(number)?;
        let near = Node::leaf(&page).and_then(|node| {
            let next = usize::from(last) + 1;
            let found = if next < node.count() && node.key(next)? == key { Ok(next) } else { node.find(key)? };
            found.ok().map(|slot| Ok((slot, node.leaf_cell(slot)?))).transpose()
        });
        if let Some((slot, cell)) = near.map_err(|damage| damaged(source, number, damage))? {
            finger.0 = Some(Step { page: number, slot: slot as u16 });
            return Ok(Some((cell.version, location_of(number, &cell))));
        }
    }
    find(source, tree, key, |place, _, cell| {
        finger.0 = Some(place);
        (cell.version, location_of(place.page, cell))
    })
}
