//! Which checksum each page of the data file must carry, as far as this process knows.
//!
//! A page's own checksum tells damage of its content. It does not tell an old content that a disk brought back, or never
//! replaced: that one carries its own checksum too. This table does: it says which content the file must hold.
//!
//! An entry is about the file, as of the last checkpoint that wrote the page, and comes from
//! - the checkpoint: set when its pages are synced, and before it drops the versions that it wrote. Until then there is a
//!   version, nobody reads the page from the file, and nobody compares;
//! - the first reading of a page that nobody has read yet in this process: what was found is taken for right, since
//!   nothing says otherwise. The scrub proves all of them together: at the end of a pass the sum of the table must be the
//!   digest of the finished checkpoint ([`crate::scrub`]).
//!
//! It takes 8 bytes for each page, a thousandth of the file, in leaves of 8 KiB that come into being when they are first
//! used.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{Digest, PageNumber};

/// Entries of a leaf, and leaves of a branch.
const WIDTH: usize = 1 << 10;
const BRANCHES: usize = 1 << 12;
const _: () = assert!(BRANCHES * WIDTH * WIDTH == 1 << u32::BITS, "every page number has its place");

/// As it stands in the table: a page that is free has checksum 0, and one of checksum 1 counts as not known.
const UNKNOWN: u64 = 0;
const FREE: u64 = 1;

type Leaf = [AtomicU64; WIDTH];
type Branch = [OnceLock<Box<Leaf>>; WIDTH];

/// The table.
pub(crate) struct PageSums {
    branches: Box<[OnceLock<Box<Branch>>]>,
}

impl Default for PageSums {
    fn default() -> Self {
        Self { branches: (0..BRANCHES).map(|_| OnceLock::new()).collect() }
    }
}

fn encode(checksum: u64) -> u64 {
    match checksum {
        0 => FREE,
        1 => UNKNOWN,
        other => other,
    }
}

fn decode(entry: u64) -> Option<u64> {
    match entry {
        UNKNOWN => None,
        FREE => Some(0),
        other => Some(other),
    }
}

impl PageSums {
    fn place(number: PageNumber) -> (usize, usize, usize) {
        let number = number.0 as usize;
        (number / (WIDTH * WIDTH), number / WIDTH % WIDTH, number % WIDTH)
    }

    fn entry(&self, number: PageNumber) -> &AtomicU64 {
        let (branch, leaf, place) = Self::place(number);
        let branch = self.branches[branch].get_or_init(|| Box::new([const { OnceLock::new() }; WIDTH]));
        &branch[leaf].get_or_init(|| Box::new([const { AtomicU64::new(UNKNOWN) }; WIDTH]))[place]
    }

    /// The checksum that a page must carry, 0 for a free one; `None` where that is not known.
    pub(crate) fn get(&self, number: PageNumber) -> Option<u64> {
        let (branch, leaf, place) = Self::place(number);
        decode(self.branches[branch].get()?[leaf].get()?[place].load(Ordering::Acquire))
    }

    /// The file holds this now.
    pub(crate) fn set(&self, number: PageNumber, checksum: u64) {
        self.entry(number).store(encode(checksum), Ordering::Release);
    }

    /// What the page must carry: what is known, else what was found.
    pub(crate) fn get_or_adopt(&self, number: PageNumber, found: u64) -> u64 {
        let entry = self.entry(number);
        match entry.compare_exchange(UNKNOWN, encode(found), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => found,
            Err(known) => decode(known).expect("what is not unknown is known"),
        }
    }

    /// The digest of the first pages, and the first of those that are not known, at most `most` of them.
    pub(crate) fn digest(&self, page_count: u32, most: usize) -> (Digest, Vec<PageNumber>) {
        let (mut digest, mut unknown) = (Digest::default(), Vec::new());
        for number in (0..page_count).map(PageNumber) {
            match self.get(number) {
                Some(checksum) => digest = digest.replace(number, 0, checksum),
                None if unknown.len() < most => unknown.push(number),
                None => break,
            }
        }
        (digest, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_known_and_what_is_found_first_is_taken() {
        let sums = PageSums::default();
        let (page, free) = (PageNumber(70_000), PageNumber(3));
        assert_eq!(sums.get(page), None);
        assert_eq!(sums.get_or_adopt(page, 77), 77);
        assert_eq!(sums.get_or_adopt(page, 78), 77);
        sums.set(page, 79);
        assert_eq!((sums.get(page), sums.get_or_adopt(page, 77)), (Some(79), 79));
        assert_eq!(sums.get_or_adopt(free, 0), 0);
        assert_eq!((sums.get(free), sums.get_or_adopt(free, 9)), (Some(0), 0));
        sums.set(free, 1);
        assert_eq!(sums.get(free), None, "one checksum of 2^64 is not told from none");
    }

    #[test]
    fn the_digest_is_the_pages() {
        let sums = PageSums::default();
        for (number, checksum) in [(0, 5), (1, 0), (3, 7)] {
            sums.set(PageNumber(number), checksum);
        }
        assert_eq!(sums.digest(4, 10).1, [PageNumber(2)]);
        sums.set(PageNumber(2), 6);
        let expected = [(0, 5), (2, 6), (3, 7)].into_iter();
        let expected =
            expected.fold(Digest::default(), |sum, (page, checksum)| sum.replace(PageNumber(page), 0, checksum));
        assert_eq!(sums.digest(4, 10), (expected, Vec::new()));
    }
}
