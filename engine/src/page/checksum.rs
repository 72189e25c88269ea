//! Page checksums, and the digest of a whole state.
//!
//! The digest is the sum modulo 2^128 of XXH3-128(page number, checksum) over all allocated pages: a sum, so that a
//! changed page costs one subtraction and one addition, whatever the size of the database.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::Page;
use crate::ids::{Digest, PageNumber};

/// The checksum that a page of this number and content must carry.
#[must_use]
pub fn compute(number: PageNumber, page: &Page) -> u64 {
    // Zero is kept for free pages, which have no header.
    xxh3_64_with_seed(&page.bytes()[8..], u64::from(number.0)).max(1)
}

/// Stores the checksum in the page's header.
pub fn seal(number: PageNumber, page: &mut Page) {
    let checksum = compute(number, page);
    page.bytes_mut()[0..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether the page carries its checksum. A free page must be all zeros.
#[must_use]
pub fn verify(number: PageNumber, page: &Page) -> bool {
    match page.checksum() {
        0 => page.is_zero(),
        checksum => checksum == compute(number, page),
    }
}

/// What one page adds to the digest. A free page (checksum 0) adds nothing.
#[must_use]
fn share(number: PageNumber, checksum: u64) -> u128 {
    if checksum == 0 {
        return 0;
    }
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.0.to_le_bytes());
    bytes[4..].copy_from_slice(&checksum.to_le_bytes());
    xxh3_128(&bytes)
}

impl Digest {
    /// The digest of these pages and of others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0.wrapping_add(others.0))
    }

    /// The digest after page `number` went from one checksum to another; 0 stands for a free page.
    #[must_use]
    pub fn replace(self, number: PageNumber, old_checksum: u64, new_checksum: u64) -> Self {
        Self(self.0.wrapping_sub(share(number, old_checksum)).wrapping_add(share(number, new_checksum)))
    }
}
