//! Changing a tree page, touching as few of its bytes as can be: what changes is journalled.
//!
//! A new cell goes into the gap, else into a hole that it fits, and only else is the page compacted; even then cells
//! that already stand right stay where they are.

use std::ops::Range;

use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKind};

use super::node::{
    BODY_BYTES, BRANCH_CELL_HEADER_BYTES, CELLS_START_OFFSET, CHILD_OFFSET, DEAD_BYTES_OFFSET, Damage,
    LEAF_CELL_HEADER_BYTES, MAX_SLOTS, Node, OVERFLOW_BIT, Payload, REFERENCE_BYTES, SLOT_BYTES, SLOT_COUNT_OFFSET,
    head_of,
};

/// A cell to be written: its parts, not yet joined.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'c> {
    head: [u8; LEAF_CELL_HEADER_BYTES],
    head_bytes: usize,
    key: &'c [u8],
    tail: Tail<'c>,
}

#[derive(Clone, Copy)]
enum Tail<'c> {
    Bytes(&'c [u8]),
    Reference([u8; REFERENCE_BYTES]),
}

impl<'c> Cell<'c> {
    /// An entry of a leaf.
    pub(crate) fn leaf(key: &'c [u8], version: TxnId, payload: Payload<'c>) -> Self {
        let (tail, bit) = match payload {
            Payload::Inline(value) => (Tail::Bytes(value), 0),
            Payload::Overflow(first, length) => {
                let mut reference = [0; REFERENCE_BYTES];
                reference[..4].copy_from_slice(&first.0.to_le_bytes());
                reference[4..].copy_from_slice(&length.to_le_bytes());
                (Tail::Reference(reference), OVERFLOW_BIT)
            }
        };
        let mut cell = Self { head: [0; LEAF_CELL_HEADER_BYTES], head_bytes: LEAF_CELL_HEADER_BYTES, key, tail };
        let payload_bytes = u16::try_from(cell.tail().len()).expect("a long value is in an overflow run");
        cell.head[0..2].copy_from_slice(&(short(key.len()) | bit).to_le_bytes());
        cell.head[2..4].copy_from_slice(&payload_bytes.to_le_bytes());
        cell.head[4..12].copy_from_slice(&version.0.to_le_bytes());
        cell
    }

    /// A child of a branch.
    pub(crate) fn branch(key: &'c [u8], child: PageNumber) -> Self {
        let mut head = [0; LEAF_CELL_HEADER_BYTES];
        head[0..2].copy_from_slice(&short(key.len()).to_le_bytes());
        head[2..6].copy_from_slice(&child.0.to_le_bytes());
        Self { head, head_bytes: BRANCH_CELL_HEADER_BYTES, key, tail: Tail::Bytes(&[]) }
    }

    /// A cell as it stands in another page.
    pub(crate) fn copied(bytes: &'c [u8]) -> Self {
        Self { head: [0; LEAF_CELL_HEADER_BYTES], head_bytes: 0, key: bytes, tail: Tail::Bytes(&[]) }
    }

    fn tail(&self) -> &[u8] {
        match &self.tail {
            Tail::Bytes(bytes) => bytes,
            Tail::Reference(bytes) => bytes,
        }
    }

    /// The cell's size in bytes, without its slot.
    pub(crate) fn len(&self) -> usize {
        self.head_bytes + self.key.len() + self.tail().len()
    }

    /// The key of a cell that was not copied.
    pub(crate) fn key(&self) -> &'c [u8] {
        assert!(self.head_bytes > 0, "a copied cell is not taken apart");
        self.key
    }

    /// The child of a branch's cell that was not copied.
    pub(crate) fn child(&self) -> PageNumber {
        assert!(self.head_bytes == BRANCH_CELL_HEADER_BYTES, "only a branch's cell has a child");
        PageNumber(u32::from_le_bytes(self.head[2..6].try_into().expect("4 bytes")))
    }

    fn write(&self, to: &mut [u8]) {
        let (head, rest) = to.split_at_mut(self.head_bytes);
        let (key, tail) = rest.split_at_mut(self.key.len());
        head.copy_from_slice(&self.head[..self.head_bytes]);
        key.copy_from_slice(self.key);
        tail.copy_from_slice(self.tail());
    }
}

fn short(value: usize) -> u16 {
    u16::try_from(value).expect("bounded by the page")
}

fn set_u16(page: &mut Page, offset: usize, value: usize) {
    page.bytes_mut()[offset..offset + 2].copy_from_slice(&short(value).to_le_bytes());
}

fn node(page: &Page) -> Result<Node<'_>, Damage> {
    Node::at_level(page, u8::from(page.kind() == Some(PageKind::Branch)))
}

fn slot_start(slot: usize) -> usize {
    PAGE_HEADER_BYTES + slot * SLOT_BYTES
}

/// Lets the head in a slot be that of its cell's key.
fn set_head(page: &mut Page, slot: usize) -> Result<(), Damage> {
    let head = head_of(node(page)?.key(slot)?);
    page.bytes_mut()[slot_start(slot) + 2..slot_start(slot + 1)].copy_from_slice(&head);
    Ok(())
}

/// Makes an empty node of a page of zeros.
pub(crate) fn format(page: &mut Page, level: u8) {
    page.set_kind(if level == 0 { PageKind::Leaf } else { PageKind::Branch });
    set_u16(page, CELLS_START_OFFSET, PAGE_BYTES);
}

/// The cells of a page as (offset, size, slot), the highest first. They lie apart from each other.
struct Layout([(u16, u16, u16); MAX_SLOTS], usize);

impl Layout {
    fn of(page: &Page) -> Result<Self, Damage> {
        let view = node(page)?;
        let mut layout = Self([(0, 0, 0); MAX_SLOTS], view.count());
        let Some(cells) = layout.0.get_mut(..view.count()) else { return Err(Damage("more slots than fit")) };
        for (slot, entry) in cells.iter_mut().enumerate() {
            *entry = (short(view.offset(slot)?), short(view.cell_bytes(slot)?), short(slot));
        }
        cells.sort_unstable_by(|a, b| b.cmp(a));
        let mut end = PAGE_BYTES;
        for (offset, size, _) in layout.cells() {
            if offset + size > end {
                return Err(Damage("cells overlap"));
            }
            end = offset;
        }
        Ok(layout)
    }

    fn cells(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.0[..self.1]
            .iter()
            .map(|(offset, size, slot)| (usize::from(*offset), usize::from(*size), usize::from(*slot)))
    }

    /// The start of the smallest hole between cells that takes so many bytes.
    fn hole(&self, cells_start: usize, bytes: usize) -> Option<usize> {
        let mut end = PAGE_BYTES;
        let mut best: Option<(usize, usize)> = None;
        for (offset, size, _) in self.cells().chain([(cells_start, 0, 0)]) {
            let hole = end.saturating_sub(offset + size);
            if hole >= bytes && best.is_none_or(|(smallest, _)| hole < smallest) {
                best = Some((hole, offset + size));
            }
            end = offset;
        }
        best.map(|(_, start)| start)
    }
}

/// Moves cells together, so that all free bytes are in the gap.
fn compact(page: &mut Page, layout: &Layout) {
    let mut end = PAGE_BYTES;
    for (offset, size, slot) in layout.cells() {
        end -= size;
        if offset != end {
            page.bytes_mut().copy_within(offset..offset + size, end);
            set_u16(page, slot_start(slot), end);
        }
    }
    set_u16(page, CELLS_START_OFFSET, end);
    set_u16(page, DEAD_BYTES_OFFSET, 0);
}

/// Finds a place for a cell of so many bytes, with `slot_bytes` left in the gap: in the gap, else in a hole, else by
/// compaction. The free bytes have been looked at. The place counts as used afterwards.
fn take_room(page: &mut Page, bytes: usize, slot_bytes: usize) -> Result<usize, Damage> {
    let view = node(page)?;
    if view.gap_bytes() < bytes + slot_bytes {
        let layout = Layout::of(page)?;
        let (cells_start, dead) = (view.cells_start(), view.dead_bytes());
        if view.gap_bytes() >= slot_bytes
            && dead >= bytes
            && let Some(offset) = layout.hole(cells_start, bytes)
        {
            set_u16(page, DEAD_BYTES_OFFSET, dead - bytes);
            return Ok(offset);
        }
        compact(page, &layout);
    }
    let view = node(page)?;
    if view.gap_bytes() < bytes + slot_bytes {
        return Err(Damage("fewer free bytes than the header says"));
    }
    let offset = view.cells_start() - bytes;
    set_u16(page, CELLS_START_OFFSET, offset);
    Ok(offset)
}

/// Forgets the bytes of a cell.
fn bury(page: &mut Page, offset: usize, size: usize) -> Result<(), Damage> {
    let view = node(page)?;
    if offset == view.cells_start() {
        set_u16(page, CELLS_START_OFFSET, offset + size);
        return Ok(());
    }
    add_dead(page, size)
}

fn add_dead(page: &mut Page, bytes: usize) -> Result<(), Damage> {
    let dead = node(page)?.dead_bytes() + bytes;
    if dead > BODY_BYTES {
        return Err(Damage("more dead bytes than a page has"));
    }
    set_u16(page, DEAD_BYTES_OFFSET, dead);
    Ok(())
}

/// Puts a cell into a new slot before what stands there. `false`, and nothing changed, if there is no room.
pub(crate) fn insert(page: &mut Page, slot: usize, cell: &Cell<'_>) -> Result<bool, Damage> {
    let view = node(page)?;
    let (count, needed) = (view.count(), cell.len() + SLOT_BYTES);
    assert!(slot <= count, "slot {slot} of {count}");
    if needed > view.free_bytes() {
        return Ok(false);
    }
    let offset = take_room(page, cell.len(), SLOT_BYTES)?;
    cell.write(&mut page.bytes_mut()[offset..offset + cell.len()]);
    page.bytes_mut().copy_within(slot_start(slot)..slot_start(count), slot_start(slot + 1));
    set_u16(page, slot_start(slot), offset);
    set_u16(page, SLOT_COUNT_OFFSET, count + 1);
    set_head(page, slot)?;
    Ok(true)
}

/// Puts a cell into a new slot. That there is room was worked out before, so the lack of it is damage.
pub(crate) fn insert_fitting(page: &mut Page, slot: usize, cell: &Cell<'_>) -> Result<(), Damage> {
    if insert(page, slot, cell)? { Ok(()) } else { Err(Damage("cells larger than they were counted")) }
}

/// Puts a cell behind all others in key order.
pub(crate) fn append(page: &mut Page, cell: &Cell<'_>) -> Result<(), Damage> {
    let count = node(page)?.count();
    insert_fitting(page, count, cell)
}

/// Takes cells out. What a leaf's cells refer to is the caller's business.
pub(crate) fn remove(page: &mut Page, slots: Range<usize>) -> Result<(), Damage> {
    let count = node(page)?.count();
    assert!(slots.end <= count && slots.start <= slots.end, "slots {slots:?} of {count}");
    if slots.len() == count {
        // Nothing is left, and no byte of it needs to be touched for that.
        set_u16(page, SLOT_COUNT_OFFSET, 0);
        set_u16(page, CELLS_START_OFFSET, PAGE_BYTES);
        set_u16(page, DEAD_BYTES_OFFSET, 0);
        return Ok(());
    }
    for slot in slots.clone() {
        let view = node(page)?;
        let (offset, size) = (view.offset(slot)?, view.cell_bytes(slot)?);
        bury(page, offset, size)?;
    }
    page.bytes_mut().copy_within(slot_start(slots.end)..slot_start(count), slot_start(slots.start));
    set_u16(page, SLOT_COUNT_OFFSET, count - slots.len());
    Ok(())
}

/// Puts a cell in place of the one in `slot`: over it, if it is not longer. `false`, and nothing changed, if there is no
/// room.
pub(crate) fn replace(page: &mut Page, slot: usize, cell: &Cell<'_>) -> Result<bool, Damage> {
    let view = node(page)?;
    let (offset, size) = (view.offset(slot)?, view.cell_bytes(slot)?);
    if cell.len() <= size {
        cell.write(&mut page.bytes_mut()[offset..offset + cell.len()]);
        if cell.len() < size {
            add_dead(page, size - cell.len())?;
        }
        set_head(page, slot)?;
        return Ok(true);
    }
    if view.free_bytes() + size < cell.len() {
        return Ok(false);
    }
    // The slots behind this one move up and back again: in the end only this one differs.
    remove(page, slot..slot + 1)?;
    insert_fitting(page, slot, cell)?;
    Ok(true)
}

/// Lets a slot of a branch point to another child.
pub(crate) fn set_child(page: &mut Page, slot: usize, child: PageNumber) -> Result<(), Damage> {
    let start = node(page)?.offset(slot)? + CHILD_OFFSET;
    page.bytes_mut()[start..start + 4].copy_from_slice(&child.0.to_le_bytes());
    Ok(())
}

/// Takes children out of a branch. The child that is first afterwards takes everything below its right neighbour, so
/// its key goes.
pub(crate) fn remove_children(page: &mut Page, slots: Range<usize>) -> Result<(), Damage> {
    remove(page, slots)?;
    let view = node(page)?;
    if view.count() == 0 || view.key(0)?.is_empty() {
        return Ok(());
    }
    let (offset, key_bytes) = (view.offset(0)?, view.key(0)?.len());
    set_u16(page, offset, 0);
    set_head(page, 0)?;
    add_dead(page, key_bytes)
}
