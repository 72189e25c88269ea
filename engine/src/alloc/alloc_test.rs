//! The allocator against a set of page numbers, across groups, and its derived state against a fresh load.

use std::collections::{BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Allocator, BitmapPages, MAX_RUN_PAGES, PAGES_PER_GROUP, bitmap_page_of, is_bitmap_page};
use crate::btree::{PageRef, PageSource, ReadError};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::{PAGE_HEADER_BYTES, Page, PageKind};

const B: u32 = PAGES_PER_GROUP;

#[derive(Clone, Default)]
struct Bitmaps(HashMap<PageNumber, Box<Page>>);

impl Bitmaps {
    fn get(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        assert!(is_bitmap_page(number), "page {number} was asked for");
        Ok(PageRef::Mapped(self.0.get(&number).ok_or_else(|| StorageError::corrupted("data", 0, "no such page"))?))
    }
}

impl PageSource for Bitmaps {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.get(number)
    }
}

impl BitmapPages for Bitmaps {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.get(number)
    }

    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        Ok(self.0.get_mut(&number).expect("a bitmap"))
    }

    fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.0.insert(number, Page::zeroed());
        Ok(self.0.get_mut(&number).expect("just put"))
    }
}

/// An allocator with what it should have given out.
struct World {
    pages: Bitmaps,
    page_count: u32,
    allocator: Allocator,
    taken: BTreeSet<u32>,
}

impl World {
    fn new() -> Self {
        let (mut pages, mut page_count) = (Bitmaps::default(), 0);
        let allocator = Allocator::create(&mut pages, &mut page_count).unwrap();
        assert_eq!(page_count, 2);
        Self { pages, page_count, allocator, taken: BTreeSet::new() }
    }

    fn allocate(&mut self, count: u32) -> u32 {
        let first = self.allocator.allocate(&mut self.pages, &mut self.page_count, count).unwrap().0;
        for page in first..first + count {
            assert!(page >= 2 && page < self.page_count && !is_bitmap_page(PageNumber(page)), "page {page}");
            assert_eq!(bitmap_page_of(PageNumber(page)), bitmap_page_of(PageNumber(first)));
            assert!(self.taken.insert(page), "page {page} was given out twice");
        }
        first
    }

    fn free(&mut self, first: u32, count: u32) {
        self.allocator.free(&mut self.pages, &mut self.page_count, PageNumber(first), count).unwrap();
        for page in first..first + count {
            assert!(self.taken.remove(&page));
        }
    }

    fn trim(&mut self) -> u32 {
        let before = self.page_count;
        let trimmed = self.allocator.trim_tail(&mut self.pages, &mut self.page_count).unwrap();
        assert_eq!(before - trimmed, self.page_count);
        trimmed
    }

    fn check(&self) {
        let groups = self.page_count.div_ceil(B);
        let fixed = 1 + groups;
        assert_eq!(self.allocator.free_pages(), self.page_count - fixed - self.taken.len() as u32);
        let loaded = Allocator::load(&self.pages, self.page_count).unwrap();
        assert_eq!(loaded.free_pages(), self.allocator.free_pages());
        assert_eq!(loaded.page_count(), self.page_count);
        for page in [0, 1, 2, 3, B - 1, B, B + 1, self.page_count - 1, self.page_count] {
            let expected =
                page < self.page_count && (page == 0 || is_bitmap_page(PageNumber(page)) || self.taken.contains(&page));
            assert_eq!(self.allocator.is_allocated(&self.pages, PageNumber(page)).unwrap(), expected, "page {page}");
        }
    }
}

#[test]
fn growth_is_exact_and_holes_are_filled_from_below() {
    let mut world = World::new();
    assert_eq!((world.allocate(1), world.page_count), (2, 3));
    assert_eq!((world.allocate(10), world.page_count), (3, 13));
    assert_eq!((world.allocate(1), world.page_count), (13, 14));
    world.free(3, 10);
    assert_eq!(world.allocator.free_pages(), 10);
    assert_eq!(world.allocate(4), 3);
    assert_eq!((world.allocate(7), world.page_count), (14, 21));
    assert_eq!(world.allocate(6), 7);
    world.free(14, 7);
    // The free end of the file is used, and the file grows by what is missing.
    assert_eq!((world.allocate(9), world.page_count), (14, 23));
    world.check();
}

#[test]
fn runs_do_not_cross_groups() {
    let mut world = World::new();
    assert_eq!(world.allocate(MAX_RUN_PAGES), 2);
    assert_eq!(world.page_count, B);
    assert_eq!((world.allocate(1), world.page_count), (B + 1, B + 2));
    assert_eq!((world.allocate(B - 20), world.page_count), (B + 2, 2 * B - 18));
    // 18 pages are left in the group: one more than that goes to the next.
    assert_eq!((world.allocate(19), world.page_count), (2 * B + 1, 2 * B + 20));
    assert_eq!(world.allocate(18), 2 * B - 18);
    world.check();
}

#[test]
fn the_tail_goes_with_its_bitmap() {
    let mut world = World::new();
    let low = world.allocate(1);
    let big = world.allocate(B - 100);
    let next = world.allocate(1000);
    assert_eq!(next, B + 1);
    assert_eq!(world.trim(), 0);
    world.free(next, 500);
    assert_eq!(world.trim(), 0, "page {} is in use", world.page_count - 1);
    world.free(next + 500, 500);
    let before = world.page_count;
    assert_eq!(world.trim(), before - (big + B - 100), "the whole group and the free end of the one before");
    world.check();
    world.free(big, B - 100);
    world.free(low, 1);
    world.trim();
    assert_eq!((world.page_count, world.allocator.free_pages()), (2, 0));
    // And it grows again as if nothing had been.
    assert_eq!(world.allocate(MAX_RUN_PAGES), 2);
    assert_eq!(world.allocate(1), B + 1);
    world.check();
}

#[test]
fn choices_depend_on_the_bitmaps_alone() {
    for seed in 0..30_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for step in 0..300 {
            if random.random_bool(0.55) || runs.is_empty() {
                let count = match random.random_range(0..10) {
                    0..6 => 1,
                    6..8 => random.random_range(2..40),
                    8 => random.random_range(40..1027),
                    _ => random.random_range(1000..20_000),
                };
                // An allocator that knows only the bitmaps chooses the same place.
                let (mut pages, mut page_count) = (world.pages.clone(), world.page_count);
                let mut fresh = Allocator::load(&pages, page_count).unwrap();
                let expected = fresh.allocate(&mut pages, &mut page_count, count).unwrap();
                let first = world.allocate(count);
                assert_eq!((first, world.page_count), (expected.0, page_count), "seed {seed}, step {step}");
                runs.push((first, count));
            } else {
                let (first, count) = runs.swap_remove(random.random_range(0..runs.len()));
                world.free(first, count);
            }
            if random.random_bool(0.1) {
                world.trim();
            }
        }
        world.check();
    }
}

#[test]
#[should_panic(expected = "is free already")]
fn a_page_is_not_freed_twice() {
    let mut world = World::new();
    let first = world.allocate(3);
    let mut page_count = world.page_count;
    for _ in 0..2 {
        world.allocator.free(&mut world.pages, &mut page_count, PageNumber(first), 1).unwrap();
    }
}

#[test]
fn damaged_bitmaps_are_not_loaded() {
    let mut world = World::new();
    world.allocate(100);
    for (offset, bit) in [(8, 0), (9, 0), (16, 0), (16, 1), (16 + 102 / 8, 102 % 8), (8191, 7)] {
        let mut pages = world.pages.clone();
        pages.page_mut(PageNumber(1)).unwrap().bytes_mut()[offset] ^= 1 << bit;
        assert!(Allocator::load(&pages, world.page_count).is_err(), "bit {bit} of byte {offset}");
    }
}

/// 100 GB of pages, of which every other one is free.
fn perforated(page_count: u32) -> World {
    let mut pages = Bitmaps::default();
    for first in (0..page_count).step_by(B as usize) {
        let number = if first == 0 { PageNumber(1) } else { PageNumber(first) };
        let in_file = (page_count - first).min(B);
        let bitmap = pages.new_bitmap(number).unwrap();
        bitmap.set_kind(PageKind::Bitmap);
        for index in (0..in_file).filter(|index| index % 2 == 0 || first + index == 1) {
            bitmap.bytes_mut()[PAGE_HEADER_BYTES + index as usize / 8] |= 1 << (index % 8);
        }
    }
    let allocator = Allocator::load(&pages, page_count).unwrap();
    World { pages, page_count, allocator, taken: BTreeSet::new() }
}

#[test]
fn runs_are_found_fast_in_a_hundred_gigabytes_of_single_holes() {
    let page_count = 100_000_000_000_u64.div_ceil(8192) as u32 | 1;
    let groups = u64::from(page_count.div_ceil(B));
    let mut world = perforated(page_count);
    let searched = |world: &World| world.allocator.searched_words();
    // The first search finds out that there is nothing: it looks at everything once.
    assert_eq!(world.allocate(33), page_count);
    let first = searched(&world);
    assert!(first <= groups * u64::from(B / 64), "{first} words");
    // From then on runs are put at the end of the file at once, and single pages into the lowest holes.
    for round in 0..400 {
        assert_eq!(world.allocate(33), page_count + 33 * (round + 1));
        assert_eq!(world.allocate(1), 3 + 2 * round);
    }
    let next = searched(&world) - first;
    assert!(next <= 800 * 4, "{next} words for 800 allocations");

    // Runs that appear anywhere are found, the lowest first, and not looked for where there are none.
    let mut random = StdRng::seed_from_u64(1);
    let before = searched(&world);
    let mut holes: Vec<u32> = (0..1_000).map(|_| random.random_range(page_count / 32..page_count / 16) * 8).collect();
    holes.sort_unstable();
    holes.dedup();
    holes.retain(|hole| (2..B - 8).contains(&(hole % B)));
    for hole in &holes {
        world.taken.insert(*hole);
        world.free(*hole, 1);
    }
    for hole in &holes {
        assert_eq!(world.allocate(3), hole - 1);
    }
    assert!(world.allocate(3) > page_count);
    let words = searched(&world) - before;
    // Each search goes on where the last of its class in the group ended: all of them see a quarter of the file once.
    let once = u64::from(page_count / 4 / 64 + 2 * (B / 64));
    assert!(words <= once + holes.len() as u64 * 16, "{words} words for {}", holes.len());
}

/// The worst that a stale bound can do: runs that are taken as soon as they appear, one group after the other.
#[test]
fn failed_searches_are_no_more_than_frees() {
    let page_count = 40 * B - 1;
    let mut world = perforated(page_count);
    world.allocate(2);
    let before = world.allocator.searched_words();
    let rounds = 400;
    for round in 0..rounds {
        let hole = (round * 7 % 40) * B + 30_000 + 8 * (round / 40);
        world.taken.insert(hole);
        world.free(hole, 1);
        assert_eq!(world.allocate(2), hole - 1);
        assert_eq!(world.allocate(4) / B, (page_count + 1) / B, "behind all holes");
    }
    let words = world.allocator.searched_words() - before;
    assert!(words <= u64::from(rounds) * 2 * u64::from(B / 64), "{words} words");
}
