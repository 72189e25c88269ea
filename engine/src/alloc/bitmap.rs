//! The layout of an allocation bitmap, and its bits.
//!
//! ```text
//!  0        8     9         16                                8192
//!  +--------+-----+---------+----------------------------------+
//!  |checksum|kind | zeros   | bit i of byte b: page 8b+i of    |
//!  |        | 2   |         | the group; set if allocated      |
//!  +--------+-----+---------+----------------------------------+
//! ```
//!
//! Group g is the pages from g * 65408 on. Its bitmap is its first page; but in group 0 that is the superblock, so
//! there it is page 1. Superblock and bitmaps count as allocated.

use std::ops::Range;

use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page};

/// How many pages one bitmap stands for.
pub const PAGES_PER_GROUP: u32 = ((PAGE_BYTES - PAGE_HEADER_BYTES) * 8) as u32;
const _: () = assert!(PAGES_PER_GROUP == 65408 && PAGES_PER_GROUP.is_multiple_of(64));

/// The number of a group of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Group(pub(super) u32);

impl Group {
    pub(super) fn of(number: PageNumber) -> Self {
        Self(number.0 / PAGES_PER_GROUP)
    }

    /// The first page.
    pub(super) fn start(self) -> u64 {
        u64::from(self.0) * u64::from(PAGES_PER_GROUP)
    }

    pub(super) fn bitmap_page(self) -> PageNumber {
        match self.0 {
            0 => PageNumber(1),
            group => PageNumber(group * PAGES_PER_GROUP),
        }
    }

    /// How many pages at its start are the superblock and the bitmap.
    pub(super) fn fixed_pages(self) -> u32 {
        if self.0 == 0 { 2 } else { 1 }
    }
}

/// The bitmap that says whether this page is allocated.
#[must_use]
pub fn bitmap_page_of(number: PageNumber) -> PageNumber {
    Group::of(number).bitmap_page()
}

/// Whether this page is a bitmap.
#[must_use]
pub fn is_bitmap_page(number: PageNumber) -> bool {
    bitmap_page_of(number) == number
}

/// Whether `bitmap`, the bitmap of the page's group, says that the page is allocated.
#[must_use]
pub fn is_set(bitmap: &Page, number: PageNumber) -> bool {
    bit(bitmap, number.0 % PAGES_PER_GROUP)
}

pub(super) fn bit(bitmap: &Page, index: u32) -> bool {
    bitmap.bytes()[PAGE_HEADER_BYTES + index as usize / 8] & (1 << (index % 8)) != 0
}

fn word(bitmap: &Page, index: u32) -> u64 {
    let start = PAGE_HEADER_BYTES + index as usize * 8;
    u64::from_le_bytes(bitmap.bytes()[start..start + 8].try_into().expect("8 bytes"))
}

pub(super) fn count_set(bitmap: &Page) -> u32 {
    (0..PAGES_PER_GROUP / 64).map(|index| word(bitmap, index).count_ones()).sum()
}

/// The highest set bit.
pub(super) fn highest_set(bitmap: &Page) -> Option<u32> {
    let index = (0..PAGES_PER_GROUP / 64).rev().find(|index| word(bitmap, *index) != 0)?;
    Some(index * 64 + 63 - word(bitmap, index).leading_zeros())
}

/// Sets or clears bits, all of which must be the other way before.
pub(super) fn flip(bitmap: &mut Page, bits: Range<u32>, to: bool) {
    for index in bits {
        let mask = 1 << (index % 8);
        let byte = &mut bitmap.bytes_mut()[PAGE_HEADER_BYTES + index as usize / 8];
        assert!((*byte & mask != 0) != to, "page {index} of a group is {} already", if to { "taken" } else { "free" });
        *byte ^= mask;
    }
}

/// What a search for clear bits found.
pub(super) struct Search {
    /// The start of the first run that is long enough.
    pub(super) found: Option<u32>,
    /// The start of the first run of at least `note` bits; the end of the group if there is none.
    pub(super) first_noted: u32,
    /// The longest run seen.
    pub(super) longest: u32,
    /// How many words were looked at.
    pub(super) words: u32,
}

/// Looks for `count` clear bits that follow each other, from bit `from` on. Notes the first run of `note` bits, which
/// are no more than `count`.
pub(super) fn find_clear(bitmap: &Page, from: u32, count: u32, note: u32) -> Search {
    let mut search = Search { found: None, first_noted: PAGES_PER_GROUP, longest: 0, words: 0 };
    let (mut start, mut at) = (from, from);
    while at < PAGES_PER_GROUP {
        let left = 64 - at % 64;
        let rest = word(bitmap, at / 64) >> (at % 64);
        let clear = rest.trailing_zeros().min(left);
        at += clear;
        search.longest = search.longest.max(at - start);
        if at - start >= note && search.first_noted == PAGES_PER_GROUP {
            search.first_noted = start;
        }
        if at - start >= count {
            search.found = Some(start);
            break;
        }
        if clear < left {
            at += (rest >> clear).trailing_ones();
            start = at;
        }
    }
    search.words = at.min(PAGES_PER_GROUP - 1) / 64 + 1 - from.min(PAGES_PER_GROUP - 1) / 64;
    search
}

/// How many clear bits end just below bit `end`, no more than `most`.
pub(super) fn clear_below(bitmap: &Page, end: u32, most: u32) -> u32 {
    let mut count = 0;
    while count < most && count < end {
        let last = end - count - 1;
        let rest = word(bitmap, last / 64) << (63 - last % 64);
        let clear = rest.leading_zeros().min(last % 64 + 1);
        count += clear;
        if clear < last % 64 + 1 {
            break;
        }
    }
    count.min(most)
}

/// How many clear bits begin at bit `start`, no more than `most`.
pub(super) fn clear_from(bitmap: &Page, start: u32, most: u32) -> u32 {
    let mut count = 0;
    while count < most && start + count < PAGES_PER_GROUP {
        let first = start + count;
        let clear = (word(bitmap, first / 64) >> (first % 64)).trailing_zeros().min(64 - first % 64);
        count += clear;
        if clear < 64 - first % 64 {
            break;
        }
    }
    count.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let b = PAGES_PER_GROUP;
        assert_eq!(bitmap_page_of(PageNumber(0)), PageNumber(1));
        assert_eq!(bitmap_page_of(PageNumber(b - 1)), PageNumber(1));
        assert_eq!(bitmap_page_of(PageNumber(b)), PageNumber(b));
        assert_eq!(bitmap_page_of(PageNumber(2 * b + 5)), PageNumber(2 * b));
        let bitmaps: Vec<u32> = (0..=2 * b).filter(|n| is_bitmap_page(PageNumber(*n))).collect();
        assert_eq!(bitmaps, [1, b, 2 * b]);
    }

    #[test]
    fn golden_bits() {
        let mut page = Page::zeroed();
        flip(&mut page, 0..2, true);
        flip(&mut page, 15..17, true);
        flip(&mut page, PAGES_PER_GROUP - 1..PAGES_PER_GROUP, true);
        assert_eq!(page.bytes()[16..20], [0b11, 0b1000_0000, 1, 0]);
        assert_eq!(page.bytes()[PAGE_BYTES - 1], 0x80);
        assert_eq!(count_set(&page), 5);
        assert_eq!(highest_set(&page), Some(PAGES_PER_GROUP - 1));
        flip(&mut page, 15..17, false);
        assert_eq!(count_set(&page), 3);
    }

    #[test]
    fn search_agrees_with_looking_at_each_bit() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..40_u64 {
            let mut page = Page::zeroed();
            for index in 0..PAGES_PER_GROUP {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(round | 1);
                // Runs of very different lengths: the chance of a set bit changes along the page.
                if (seed >> 33) % 97 < u64::from(index / 4096) * round / 4 {
                    flip(&mut page, index..index + 1, true);
                }
            }
            let from = (seed >> 40) as u32 % 70;
            for count in [1_u32, 2, 3, 17, 64, 65, 200, 1027] {
                let note = 1 << count.ilog2();
                let search = find_clear(&page, from, count, note);
                let free = |start: u32, count: u32| (start..start + count).all(|index| !bit(&page, index));
                let expected = |count: u32| (from..=PAGES_PER_GROUP - count).find(|start| free(*start, count));
                assert_eq!(search.found, expected(count), "round {round}, {count} bits from {from}");
                let noted = expected(note).unwrap_or(PAGES_PER_GROUP);
                assert_eq!(search.first_noted, noted, "round {round}, {note} bits from {from}");
                let at = noted.min(PAGES_PER_GROUP - 1);
                let below = (0..at).rev().take(count as usize).take_while(|index| !bit(&page, *index)).count();
                assert_eq!(clear_below(&page, at, count) as usize, below, "round {round}, {count} bits below {at}");
                let above = (at..PAGES_PER_GROUP).take(count as usize).take_while(|index| !bit(&page, *index)).count();
                assert_eq!(clear_from(&page, at, count) as usize, above, "round {round}, {count} bits from {at}");
            }
        }
    }
}
