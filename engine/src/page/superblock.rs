//! Page 0: what the whole state is.
//!
//! ```text
//! offset  size  field (little endian)
//!      0    16  the header of every page; kind 1
//!     16     8  magic "CALAMUS\0"
//!     24     4  format version (3)
//!     28     4  page count: the length of the data file in pages
//!     32     8  txn id: the last transaction of this state
//!     40     8  timeline
//!     48     8  wall time of the last batch, in microseconds since 1970; never goes back
//!     56    16  database id
//!     72    32  the tree of trees, a plain one: see [`crate::btree::TreeState`]
//!    104        zeros up to the end of the page
//! ```

use crate::btree::{TreeKind, TreeState};
use crate::ids::{DatabaseId, Timeline, TxnId};

use super::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKind};

const MAGIC: [u8; 8] = *b"CALAMUS\0";
const FORMAT_VERSION: u32 = 3;
const TREES_OFFSET: usize = 72;
const END_OFFSET: usize = TREES_OFFSET + TreeState::ENCODED_BYTES;
const _: () = assert!(PAGE_HEADER_BYTES == 16 && END_OFFSET == 104);

/// The least page count: the superblock and the first allocation bitmap.
pub const MIN_PAGE_COUNT: u32 = 2;

/// The content of page 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The last transaction of this state.
    pub txn_id: TxnId,
    /// The length of the data file, in pages.
    pub page_count: u32,
    /// The tree of trees: under each name, the state of a tree.
    pub trees: TreeState,
    /// Names the database for ever.
    pub database_id: DatabaseId,
    /// Which restore it comes from.
    pub timeline: Timeline,
    /// When the last batch was made, in microseconds since 1970.
    pub wall_time_micros: u64,
}

impl Superblock {
    /// Reads page 0; the error says what is wrong with it. The page's checksum is the caller's business.
    pub fn decode(page: &Page) -> Result<Self, &'static str> {
        let bytes = page.bytes();
        let u32_at = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"));
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"));
        if page.kind() != Some(PageKind::Superblock) || bytes[9..PAGE_HEADER_BYTES].iter().any(|byte| *byte != 0) {
            return Err("page 0 is not a superblock");
        }
        if bytes[16..24] != MAGIC {
            return Err("the superblock has a wrong magic");
        }
        if u32_at(24) != FORMAT_VERSION {
            return Err("the superblock has an unknown format version");
        }
        let page_count = u32_at(28);
        if page_count < MIN_PAGE_COUNT {
            return Err("the superblock has an impossible page count");
        }
        let Some(trees) = TreeState::decode(&bytes[TREES_OFFSET..END_OFFSET]) else {
            return Err("the superblock has an impossible tree of trees");
        };
        if trees.kind != TreeKind::Plain {
            return Err("the superblock has a tree of trees of the wrong kind");
        }
        if bytes[END_OFFSET..].iter().any(|byte| *byte != 0) {
            return Err("the superblock has bytes behind its fields");
        }
        Ok(Self {
            txn_id: TxnId(u64_at(32)),
            page_count,
            trees,
            database_id: DatabaseId(u128::from_le_bytes(bytes[56..72].try_into().expect("16 bytes"))),
            timeline: Timeline(u64_at(40)),
            wall_time_micros: u64_at(48),
        })
    }

    /// Writes page 0; the checksum in its header stays as it is.
    pub fn encode(&self, page: &mut Page) {
        assert!(self.page_count >= MIN_PAGE_COUNT, "a page count of {}", self.page_count);
        page.set_kind(PageKind::Superblock);
        let bytes: &mut [u8; PAGE_BYTES] = page.bytes_mut();
        bytes[16..24].copy_from_slice(&MAGIC);
        bytes[24..28].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.page_count.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.txn_id.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.timeline.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.wall_time_micros.to_le_bytes());
        bytes[56..72].copy_from_slice(&self.database_id.0.to_le_bytes());
        bytes[TREES_OFFSET..END_OFFSET].copy_from_slice(&self.trees.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PageNumber;

    fn example() -> Superblock {
        Superblock {
            txn_id: TxnId(0x1112_1314_1516_1718),
            page_count: 0x2122_2324,
            trees: TreeState { root: Some(PageNumber(7)), height: 1, entries: 2, pages: 3, ..TreeState::default() },
            database_id: DatabaseId(0x3132_3334_3536_3738_393a_3b3c_3d3e_3f30),
            timeline: Timeline(5),
            wall_time_micros: 6,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut page = Page::zeroed();
        example().encode(&mut page);
        let mut golden = [0_u8; PAGE_BYTES];
        golden[8] = 1;
        golden[16..32].copy_from_slice(b"CALAMUS\0\x03\0\0\0\x24\x23\x22\x21");
        golden[32..40].copy_from_slice(&[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        (golden[40], golden[48]) = (5, 6);
        golden[56..64].copy_from_slice(&[0x30, 0x3f, 0x3e, 0x3d, 0x3c, 0x3b, 0x3a, 0x39]);
        golden[64..72].copy_from_slice(&[0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31]);
        (golden[72], golden[76], golden[80], golden[88]) = (7, 1, 2, 3);
        assert_eq!(page.bytes(), &golden);
        assert_eq!(Superblock::decode(&page), Ok(example()));
    }

    /// The state of a tree was shorter in the first version, and slots of tree pages were in the second.
    #[test]
    fn older_versions_are_refused() {
        for version in [1, 2] {
            let mut page = Page::zeroed();
            example().encode(&mut page);
            page.bytes_mut()[24] = version;
            assert_eq!(Superblock::decode(&page), Err("the superblock has an unknown format version"));
        }
    }

    #[test]
    fn what_is_not_a_superblock_is_refused() {
        let mut page = Page::zeroed();
        assert!(Superblock::decode(&page).is_err(), "a page of zeros");
        example().encode(&mut page);
        for offset in (8..32).chain(72..PAGE_BYTES).filter(|offset| !(28..32).contains(offset)) {
            let mut bad = page.clone();
            bad.bytes_mut()[offset] ^= 0x80;
            let decoded = Superblock::decode(&bad);
            // Counts of the tree can be any number but zero.
            assert!(decoded.is_err() || (72..76).contains(&offset) || (80..96).contains(&offset), "byte {offset}");
            assert_ne!(decoded, Ok(example()), "byte {offset}");
        }
    }
}
