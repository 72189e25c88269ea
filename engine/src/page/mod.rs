//! A page: 8 KiB with a 16-byte header, whatever it holds.
//!
//! ```text
//!  0        8     9      10          12            14           16                       8192
//!  +--------+-----+------+-----------+-------------+------------+------------------------+
//!  |checksum|kind |flags | slot count| cells start | dead bytes | body                   |
//!  | u64 LE | u8  | u8   | u16 LE    | u16 LE      | u16 LE     |                        |
//!  +--------+-----+------+-----------+-------------+------------+------------------------+
//! ```
//!
//! `checksum` is XXH3-64 of bytes 8.., seeded with the page number: a page in the wrong place does not verify.
//! The fields behind `flags` mean something in tree pages only, and are zero elsewhere. A free page is all zeros.
//!
//! For tools and tests that look at the disk: not covered by [what is promised](crate#what-is-stable).

pub mod checksum;
pub mod superblock;

use std::sync::Arc;

/// The size of a page, in bytes.
pub const PAGE_BYTES: usize = 8192;
/// The size of the header of every page, in bytes.
pub const PAGE_HEADER_BYTES: usize = 16;

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageKind {
    /// Nothing: all bytes are zero.
    Free = 0,
    /// Page 0.
    Superblock = 1,
    /// An allocation bitmap.
    Bitmap = 2,
    /// The lowest level of a tree: keys, versions, values.
    Leaf = 3,
    /// An inner level of a tree: keys and children.
    Branch = 4,
    /// A part of a value too large for a leaf.
    Overflow = 5,
}

/// The bytes of a page.
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct Page([u8; PAGE_BYTES]);

impl Page {
    /// A page of zeros, on the heap.
    #[must_use]
    pub fn zeroed() -> Box<Self> {
        Box::new(Self([0; PAGE_BYTES]))
    }

    /// A page of zeros that can be shared: made in its place, where an `Arc` made of a box would be a copy.
    #[must_use]
    pub(crate) fn shared_zeroed() -> Arc<Self> {
        Arc::new(Self([0; PAGE_BYTES]))
    }

    /// Views bytes as a page.
    #[must_use]
    pub fn from_ref(bytes: &[u8; PAGE_BYTES]) -> &Self {
        crate::raw::view(bytes)
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.0
    }

    /// All bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_BYTES] {
        &mut self.0
    }

    /// The stored checksum; 0 on a free page.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        u64::from_le_bytes(self.0[0..8].try_into().expect("8 bytes"))
    }

    /// What the page holds, or `None` for a kind that does not exist.
    #[must_use]
    pub fn kind(&self) -> Option<PageKind> {
        Some(match self.0[8] {
            0 => PageKind::Free,
            1 => PageKind::Superblock,
            2 => PageKind::Bitmap,
            3 => PageKind::Leaf,
            4 => PageKind::Branch,
            5 => PageKind::Overflow,
            _ => return None,
        })
    }

    /// Sets what the page holds.
    pub fn set_kind(&mut self, kind: PageKind) {
        self.0[8] = kind as u8;
    }

    /// Whether every byte is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page({:?}, checksum {:016x})", self.kind(), self.checksum())
    }
}
