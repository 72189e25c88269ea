//! The layout of a tree page, and reading it.
//!
//! Slots grow up from the header, cells grow down from the end. A slot is the offset of a cell and the head of its key;
//! slots are in key order, cells stand in any order.
//!
//! ```text
//! 0            16                          cells start                              8192
//! +------------+--------+--------+---------+--------+-------------+--------+--------+
//! | header     | slot 0 | slot 1 | gap     | cell   | dead bytes  | cell   | cell   |
//! | (page/mod) |        |        |         |        |             |        |        |
//! +------------+--------+--------+---------+--------+-------------+--------+--------+
//!
//! slot:         0          2                       6
//!               +----------+-----------------------+
//!               | offset   | head: the first bytes |   zeros behind a shorter key
//!               | u16 LE   | of the key, 4 bytes   |
//!               +----------+-----------------------+
//!
//! leaf cell:    0          2            4          12     12+k
//!               +----------+------------+----------+------+-------------------------------------------+
//!               | key len  |payload len | version  | key  | payload: the value, or, if bit 15 of      |
//!               | u16 LE   | u16 LE     | u64 LE   |      | key len is set: first page u32, length u32|
//!               +----------+------------+----------+------+-------------------------------------------+
//!
//! branch cell:  0          2            6
//!               +----------+------------+------+
//!               | key len  | child      | key  |   everything in the child is >= key; slot 0 has an empty key
//!               | u16 LE   | u32 LE     |      |   and takes what is below the key of slot 1
//!               +----------+------------+------+
//! ```
//!
//! - Heads are in the order of their keys, as far as they tell them apart. So a search reads slots, which stand together,
//!   and only cells whose head is that of the key it looks for: the pages of a large tree are in no cache, and each cell
//!   looked at is another wait for memory. ("Poor man's normalized keys": Graefe, *Modern B-Tree Techniques*, 2011, 3.6.)
//! - `dead bytes` in the header counts bytes between `cells start` and the end that belong to no cell. They and the gap
//!   keep whatever was written there before: clearing them would be bytes in the journal for nothing.
//! - A value moves to an overflow run if its cell would be longer than a quarter of the body, unless the reference
//!   would be no shorter than the value. So at least three cells fit into any page.
//! - In a multi-value tree the payload is that of [`super::multi::payload`], and bit 15 is never set.
//! - A tree knows its height, so the level at which a page is met says of which kind it must be.
//! - Nothing in a page is trusted: every access checks what it uses, and damage is an error, not a panic.

use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKind};

use super::MAX_KEY_BYTES;
use super::multi::payload::Values;

/// What cells and slots of a page can use, in bytes.
pub(crate) const BODY_BYTES: usize = PAGE_BYTES - PAGE_HEADER_BYTES;
/// The size of a slot, in bytes.
pub(crate) const SLOT_BYTES: usize = 2 + HEAD_BYTES;
/// How much of a key stands in its slot, in bytes.
pub(super) const HEAD_BYTES: usize = 4;
/// The size of a leaf cell without key and payload, in bytes.
pub(crate) const LEAF_CELL_HEADER_BYTES: usize = 12;
/// The size of a branch cell without its key, in bytes.
pub(crate) const BRANCH_CELL_HEADER_BYTES: usize = 6;
/// The size of a reference to an overflow run, in bytes.
pub(crate) const REFERENCE_BYTES: usize = 8;
/// A leaf cell longer than this, in bytes, has its value in an overflow run.
pub(crate) const MAX_INLINE_CELL_BYTES: usize = BODY_BYTES / 4;
/// A page that uses fewer bytes than this looks for siblings to be merged with.
pub(crate) const SPARSE_BYTES: usize = BODY_BYTES / 16 * 11;
/// A page that uses fewer bytes than this, and fits into no sibling, takes cells from one.
pub(crate) const UNDERFULL_BYTES: usize = BODY_BYTES / 4;
/// The size of a reference to a tree of values, in bytes: see [`super::multi::payload`].
pub(crate) const SUB_TREE_BYTES: usize = 24;
/// The longest cell there can be, in bytes.
pub(crate) const MAX_CELL_BYTES: usize = LEAF_CELL_HEADER_BYTES + MAX_KEY_BYTES + SUB_TREE_BYTES;
/// The most slots that a page has room for.
pub(crate) const MAX_SLOTS: usize = BODY_BYTES / (SLOT_BYTES + BRANCH_CELL_HEADER_BYTES);

pub(super) const SLOT_COUNT_OFFSET: usize = 10;
pub(super) const CELLS_START_OFFSET: usize = 12;
pub(super) const DEAD_BYTES_OFFSET: usize = 14;
pub(super) const OVERFLOW_BIT: u16 = 1 << 15;
pub(super) const VERSION_OFFSET: usize = 4;
pub(super) const CHILD_OFFSET: usize = 2;

const _: () = assert!(DEAD_BYTES_OFFSET + 2 == PAGE_HEADER_BYTES);
const _: () = assert!(VERSION_OFFSET + 8 == LEAF_CELL_HEADER_BYTES && CHILD_OFFSET + 4 == BRANCH_CELL_HEADER_BYTES);
const _: () = assert!(REFERENCE_BYTES <= SUB_TREE_BYTES && MAX_INLINE_CELL_BYTES <= MAX_CELL_BYTES);
const _: () = assert!(3 * (MAX_CELL_BYTES + SLOT_BYTES) <= BODY_BYTES, "a split must always find a place");
const _: () = assert!(MAX_KEY_BYTES < OVERFLOW_BIT as usize && PAGE_BYTES <= u16::MAX as usize);

/// What is wrong with a page. The caller knows which page, and makes a storage error of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damage(pub(crate) &'static str);

pub(super) fn u16_at(bytes: &[u8; PAGE_BYTES], offset: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[offset], bytes[offset + 1]]))
}

/// Whether a value of this length goes into an overflow run, under a key of that length (both in bytes).
#[must_use]
pub(crate) fn overflows(key_bytes: usize, value_bytes: usize) -> bool {
    LEAF_CELL_HEADER_BYTES + key_bytes + value_bytes > MAX_INLINE_CELL_BYTES && value_bytes > REFERENCE_BYTES
}

/// The shortest key that is above `left` and not above `right`, as a prefix of `right`; `left` is below `right`.
#[must_use]
pub(crate) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    &right[..(common + 1).min(right.len())]
}

/// The head of a key. Keys are in the order of their heads, read as big-endian numbers, where these differ.
#[must_use]
#[inline]
pub(super) fn head_of(key: &[u8]) -> [u8; HEAD_BYTES] {
    match key.first_chunk() {
        Some(head) => *head,
        None => {
            let mut head = [0; HEAD_BYTES];
            head[..key.len()].copy_from_slice(key);
            head
        }
    }
}

/// A tree page whose header was checked.
#[derive(Clone, Copy)]
pub(crate) struct Node<'p> {
    bytes: &'p [u8; PAGE_BYTES],
    slots: &'p [[u8; SLOT_BYTES]],
    cells_start: usize,
    cell_header_bytes: usize,
}

/// An entry of a leaf.
#[derive(Clone, Copy)]
pub(crate) struct LeafCell<'p> {
    pub(crate) key: &'p [u8],
    pub(crate) version: TxnId,
    /// Where the payload begins, in bytes from the start of the page.
    pub(crate) payload_offset: usize,
    pub(crate) payload: Payload<'p>,
}

/// What a leaf cell carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payload<'p> {
    /// The value itself.
    Inline(&'p [u8]),
    /// The first page of a run, and the value's length in bytes.
    Overflow(PageNumber, u32),
}

impl<'p> LeafCell<'p> {
    /// The values, in a multi-value tree.
    pub(crate) fn multi_values(&self) -> Result<Values<'p>, Damage> {
        match self.payload {
            Payload::Inline(bytes) => Values::parse(bytes),
            Payload::Overflow(..) => Err(Damage("an overflow run in a multi-value tree")),
        }
    }
}

impl<'p> Node<'p> {
    /// A page at some level of its tree: 0 are the leaves.
    #[inline]
    pub(crate) fn at_level(page: &'p Page, level: u8) -> Result<Self, Damage> {
        if level == 0 { Self::leaf(page) } else { Self::branch(page) }
    }

    /// A page that must be a leaf.
    #[inline]
    pub(crate) fn leaf(page: &'p Page) -> Result<Self, Damage> {
        if page.bytes()[8] != PageKind::Leaf as u8 {
            return Err(Damage("not a leaf where the tree has one"));
        }
        Self::checked(page, LEAF_CELL_HEADER_BYTES)
    }

    /// A page that must be a branch.
    #[inline]
    pub(crate) fn branch(page: &'p Page) -> Result<Self, Damage> {
        if page.bytes()[8] != PageKind::Branch as u8 {
            return Err(Damage("not a branch where the tree has one"));
        }
        Self::checked(page, BRANCH_CELL_HEADER_BYTES)
    }

    #[inline]
    fn checked(page: &'p Page, cell_header_bytes: usize) -> Result<Self, Damage> {
        let bytes = page.bytes();
        let count = u16_at(bytes, SLOT_COUNT_OFFSET);
        let cells_start = u16_at(bytes, CELLS_START_OFFSET);
        let slots = PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + count * SLOT_BYTES;
        if slots.end > cells_start || cells_start > PAGE_BYTES {
            return Err(Damage("slots and cells overlap"));
        }
        let (slots, _) = bytes[slots].as_chunks();
        Ok(Self { bytes, slots, cells_start, cell_header_bytes })
    }

    /// How many cells there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Whether this is a leaf.
    pub(crate) fn is_leaf(&self) -> bool {
        self.cell_header_bytes == LEAF_CELL_HEADER_BYTES
    }

    /// Where the lowest cell may begin, in bytes from the start of the page.
    pub(crate) fn cells_start(&self) -> usize {
        self.cells_start
    }

    /// Bytes between slots and cells.
    pub(crate) fn gap_bytes(&self) -> usize {
        self.cells_start - PAGE_HEADER_BYTES - self.count() * SLOT_BYTES
    }

    /// Bytes among the cells that belong to none.
    pub(crate) fn dead_bytes(&self) -> usize {
        u16_at(self.bytes, DEAD_BYTES_OFFSET)
    }

    /// Bytes that can be had, if need be by compaction.
    pub(crate) fn free_bytes(&self) -> usize {
        self.gap_bytes() + self.dead_bytes()
    }

    /// Bytes used by slots and cells.
    pub(crate) fn used_bytes(&self) -> usize {
        BODY_BYTES.saturating_sub(self.free_bytes())
    }

    /// Where a cell begins, in bytes from the start of the page.
    #[inline]
    pub(crate) fn offset(&self, slot: usize) -> Result<usize, Damage> {
        let Some([low, high, ..]) = self.slots.get(slot) else {
            return Err(Damage("a slot that is not there"));
        };
        let offset = usize::from(u16::from_le_bytes([*low, *high]));
        if offset < self.cells_start || offset + self.cell_header_bytes > PAGE_BYTES {
            return Err(Damage("a slot points outside the cells"));
        }
        Ok(offset)
    }

    /// The key of a cell; empty in slot 0 of a branch.
    #[inline]
    pub(crate) fn key(&self, slot: usize) -> Result<&'p [u8], Damage> {
        let offset = self.offset(slot)?;
        let length = u16_at(self.bytes, offset) & !usize::from(OVERFLOW_BIT);
        let start = offset + self.cell_header_bytes;
        self.bytes.get(start..start + length).ok_or(Damage("a key reaches beyond the page"))
    }

    /// The size of a cell in bytes, without its slot.
    pub(crate) fn cell_bytes(&self, slot: usize) -> Result<usize, Damage> {
        Ok(self.cell(slot)?.len())
    }

    /// The bytes of a cell.
    pub(crate) fn cell(&self, slot: usize) -> Result<&'p [u8], Damage> {
        let offset = self.offset(slot)?;
        let key_bytes = u16_at(self.bytes, offset) & !usize::from(OVERFLOW_BIT);
        let payload_bytes = if self.is_leaf() { u16_at(self.bytes, offset + 2) } else { 0 };
        let end = offset + self.cell_header_bytes + key_bytes + payload_bytes;
        self.bytes.get(offset..end).ok_or(Damage("a cell reaches beyond the page"))
    }

    /// An entry. The node must be a leaf.
    #[inline]
    pub(crate) fn leaf_cell(&self, slot: usize) -> Result<LeafCell<'p>, Damage> {
        debug_assert!(self.is_leaf());
        let offset = self.offset(slot)?;
        let key_word = u16_at(self.bytes, offset);
        let key_bytes = key_word & !usize::from(OVERFLOW_BIT);
        let payload_bytes = u16_at(self.bytes, offset + 2);
        let key_start = offset + LEAF_CELL_HEADER_BYTES;
        let payload_offset = key_start + key_bytes;
        let Some(payload) = self.bytes.get(payload_offset..payload_offset + payload_bytes) else {
            return Err(Damage("a cell reaches beyond the page"));
        };
        let version = &self.bytes[offset + VERSION_OFFSET..offset + VERSION_OFFSET + 8];
        let payload = if key_word & usize::from(OVERFLOW_BIT) == 0 {
            Payload::Inline(payload)
        } else {
            let Ok(reference) = <[u8; REFERENCE_BYTES]>::try_from(payload) else {
                return Err(Damage("an overflow reference of a wrong length"));
            };
            let first = u32::from_le_bytes(reference[..4].try_into().expect("4 bytes"));
            let length = u32::from_le_bytes(reference[4..].try_into().expect("4 bytes"));
            if length as usize > super::MAX_VALUE_BYTES || length as usize <= REFERENCE_BYTES {
                return Err(Damage("an overflow reference with an impossible length"));
            }
            Payload::Overflow(PageNumber(first), length)
        };
        Ok(LeafCell {
            key: &self.bytes[key_start..payload_offset],
            version: TxnId(u64::from_le_bytes(version.try_into().expect("8 bytes"))),
            payload_offset,
            payload,
        })
    }

    /// The child in a slot. The node must be a branch.
    #[inline]
    pub(crate) fn child(&self, slot: usize) -> Result<PageNumber, Damage> {
        debug_assert!(!self.is_leaf());
        let start = self.offset(slot)? + CHILD_OFFSET;
        Ok(PageNumber(u32::from_le_bytes(self.bytes[start..start + 4].try_into().expect("4 bytes"))))
    }

    /// The head in a slot that is there.
    #[inline]
    pub(super) fn head(&self, slot: usize) -> [u8; HEAD_BYTES] {
        let [_, _, head @ ..] = self.slots[slot];
        head
    }

    /// The slot in a branch whose child may hold `key`.
    #[inline]
    pub(crate) fn child_slot(&self, key: &[u8]) -> Result<usize, Damage> {
        // The head in slot 0 is zero: it stands below or among those of the other children, wherever the search begins.
        let (mut low, mut high) = self.same_head(key);
        low = low.max(1);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle)? <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low - 1)
    }

    /// The slot in a leaf that holds `key`, or the one it would go to.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Result<Result<usize, usize>, Damage> {
        let (mut low, mut high) = self.same_head(key);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle)?.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// The slots whose keys have the head of `key`: from the first to behind the last. Those before have keys below it,
    /// those behind keys above it.
    #[inline]
    fn same_head(&self, key: &[u8]) -> (usize, usize) {
        let head = u32::from_be_bytes(head_of(key));
        let first = partition(self.slots, |other| other < head);
        (first, first + partition(&self.slots[first..], |other| other == head))
    }
}

/// How many slots there are before the first whose head is not as `is_before` says. No branch depends on what is read,
/// so that reads of one search need not wait for each other.
#[inline]
fn partition(slots: &[[u8; SLOT_BYTES]], is_before: impl Fn(u32) -> bool) -> usize {
    let (mut first, mut size) = (0, slots.len());
    while size > 0 {
        let half = size / 2;
        let [_, _, head @ ..] = slots[first + half];
        let before = is_before(u32::from_be_bytes(head));
        first = std::hint::select_unpredictable(before, first + half + 1, first);
        size = std::hint::select_unpredictable(before, size - half - 1, half);
    }
    first
}
