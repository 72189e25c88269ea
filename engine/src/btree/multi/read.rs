//! Looking for a value, and counting them.

use std::ops::Range;

use super::payload::Values;
use crate::btree::node::{Damage, LeafCell, Payload};
use crate::btree::search::find;
use crate::btree::{PageRef, PageSource, ReadError, TreeKind, TreeState, damaged};
use crate::ids::PageNumber;

/// The values of a key, where they stand.
pub(super) struct Place<'a> {
    pub(super) leaf: PageNumber,
    pub(super) page: PageRef<'a>,
    /// Where the payload is in the page.
    pub(super) payload: Range<usize>,
}

impl Place<'_> {
    /// The values, checked.
    pub(super) fn values<S: PageSource + ?Sized>(&self, source: &S) -> Result<Values<'_>, ReadError> {
        Values::parse(&self.page.bytes()[self.payload.clone()]).map_err(|damage| damaged(source, self.leaf, damage))
    }
}

/// Finds a key of a multi-value tree.
pub(super) fn place_of<'a, S: PageSource + ?Sized>(
    source: &'a S,
    tree: &TreeState,
    key: &[u8],
) -> Result<Option<Place<'a>>, ReadError> {
    if tree.kind != TreeKind::Multi {
        return Err(ReadError::OtherKind(tree.kind));
    }
    let found = find(source, tree, key, |place, page, cell| match cell.payload {
        Payload::Inline(bytes) => {
            let payload = cell.payload_offset..cell.payload_offset + bytes.len();
            Ok(Place { leaf: place.page, page: page.clone(), payload })
        }
        Payload::Overflow(..) => Err(damaged(source, place.page, Damage("an overflow run in a multi-value tree"))),
    });
    found?.transpose()
}

/// An entry of a tree of values has nothing but its key.
pub(crate) fn check_bare(cell: &LeafCell<'_>) -> Result<(), Damage> {
    if cell.payload == Payload::Inline(&[]) { Ok(()) } else { Err(Damage("more than a value in a tree of values")) }
}

/// Whether a value stands under a key.
pub fn contains<S: PageSource + ?Sized>(
    source: &S,
    tree: &TreeState,
    key: &[u8],
    value: &[u8],
) -> Result<bool, ReadError> {
    let Some(place) = place_of(source, tree, key)? else { return Ok(false) };
    match place.values(source)? {
        Values::List(list) => Ok(list.find(value).is_ok()),
        Values::Tree(values) => {
            let found = find(source, &values, value, |place, _, cell| {
                check_bare(cell).map_err(|damage| damaged(source, place.page, damage))
            });
            Ok(found?.transpose()?.is_some())
        }
    }
}

/// How many values stand under a key, by what its cell says.
pub fn count_values<S: PageSource + ?Sized>(source: &S, tree: &TreeState, key: &[u8]) -> Result<u64, ReadError> {
    match place_of(source, tree, key)? {
        Some(place) => Ok(place.values(source)?.count()),
        None => Ok(0),
    }
}
