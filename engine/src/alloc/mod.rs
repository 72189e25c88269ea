//! Which pages of the data file are in use: allocation bitmaps at fixed places.
//!
//! Promised here:
//! - a run lies within one group, lowest place first; only if no group has room does the file grow, by exactly what is
//!   missing (and a bitmap page where a group begins);
//! - all bits at and beyond the page count are clear;
//! - only bitmap pages are touched, and of them only the bytes whose bits change;
//! - what [`Allocator`] keeps in memory is derived from the bitmaps: [`Allocator::load`] makes it anew, and choices
//!   depend on the bitmaps alone.
//!
//! How fast a place is found, in a file of any size and however full of holes it is: a group is looked into only where
//! its summary, of 24 bytes, leaves the run possible. 100 GB are 187 groups, so that is a scan of 4.5 KB. The summary
//! knows a bound of the longest free run, which a search that fails makes exact and a free raises by what it joined; so
//! a search fails only after an allocation took from a run that was long enough, and failures are no more than
//! successes. And for each power of two up to 128 it knows below which page no run of that length begins, so that a
//! search for many pages does not go over the single holes below them again and again.

#[cfg(test)]
mod alloc_test;
mod bitmap;

use crate::btree::{PageRef, PageSource, ReadError};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, Page, PageKind};

use bitmap::{Group, Search};
pub use bitmap::{PAGES_PER_GROUP, bitmap_page_of, is_bitmap_page, is_set};

/// The longest run that can be allocated, in pages.
pub const MAX_RUN_PAGES: u32 = PAGES_PER_GROUP - 2;

/// The bitmap pages, as the allocator sees them.
pub trait BitmapPages {
    /// A bitmap page.
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError>;
    /// A bitmap page, to change.
    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError>;
    /// A page of zeros that becomes a bitmap page; the file grows to have it.
    fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError>;
}

/// How many lengths of runs a summary tells apart: at least 1, 2, 4, ... 128 pages.
const CLASSES: usize = 8;
/// The least length in the last class, in pages.
const LAST_CLASS_PAGES: u32 = 1 << (CLASSES - 1);
const _: () = assert!(PAGES_PER_GROUP <= u16::MAX as u32 && std::mem::size_of::<Summary>() == 24);

/// What is known of a group without looking at its bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Summary {
    /// Set bits.
    allocated: u32,
    /// No run of clear bits is longer than this.
    longest: u32,
    /// No run of 2^class clear bits, or more, begins below this bit.
    begins: [u16; CLASSES],
}

impl Summary {
    fn new(allocated: u32) -> Self {
        Self { allocated, longest: PAGES_PER_GROUP - allocated, begins: [0; CLASSES] }
    }

    /// The class in which to look for a run.
    fn class_of(count: u32) -> usize {
        (count.ilog2() as usize).min(CLASSES - 1)
    }

    /// A search for a run found none.
    fn note_failure(&mut self, class: usize, search: &Search) {
        // What lies below the place where the search began is shorter than its class.
        let below = if self.begins[class] == 0 { 0 } else { (1 << class) - 1 };
        self.longest = self.longest.min(search.longest.max(below));
        self.begins[class] = search.first_noted as u16;
    }

    /// A search found a run at `start`, of which `count` bits were set.
    fn note_taken(&mut self, class: usize, search: &Search, start: u32, count: u32) {
        self.allocated += count;
        self.longest = self.longest.min(PAGES_PER_GROUP - self.allocated);
        self.begins[class] = search.first_noted as u16;
        for begins in self.begins.iter_mut().filter(|begins| u32::from(**begins) == start) {
            *begins = (start + count) as u16;
        }
    }

    /// `count` bits from `start` on were cleared. Below and above them that many were clear before, or at least
    /// [`LAST_CLASS_PAGES`].
    fn note_freed(&mut self, start: u32, count: u32, below: u32, above: u32) {
        self.allocated -= count;
        // Where it was not counted to the end, the run is no longer than the longest was.
        let bound = |counted: u32| if counted < LAST_CLASS_PAGES { counted } else { self.longest };
        let joined = bound(below) + count + bound(above);
        self.longest = self.longest.max(joined).min(PAGES_PER_GROUP - self.allocated);
        // If the run begins lower than counted, it was in every class before, and each knew where it begins.
        let (begin, length) = ((start - below) as u16, below + count + above);
        for (class, begins) in self.begins.iter_mut().enumerate() {
            if length >> class > 0 {
                *begins = (*begins).min(begin);
            }
        }
    }
}

/// Allocates and frees pages.
#[derive(Clone, Debug)]
pub struct Allocator {
    groups: Vec<Summary>,
    page_count: u32,
    searched_words: u64,
}

impl Allocator {
    /// Makes the first bitmap of a new database, whose page count becomes 2.
    ///
    /// # Panics
    /// When the page count is not 0.
    pub fn create<P: BitmapPages + ?Sized>(pages: &mut P, page_count: &mut u32) -> Result<Self, ReadError> {
        assert!(*page_count == 0, "a new database has no pages yet");
        let mut allocator = Self { groups: Vec::new(), page_count: 0, searched_words: 0 };
        allocator.add_group(pages)?;
        *page_count = allocator.page_count;
        Ok(allocator)
    }

    /// Reads all bitmaps of a file of `page_count` pages.
    pub fn load<S: PageSource + ?Sized>(source: &S, page_count: u32) -> Result<Self, ReadError> {
        let mut groups = Vec::new();
        for group in (0..page_count.div_ceil(PAGES_PER_GROUP)).map(Group) {
            let number = group.bitmap_page();
            let bitmap = source.page(number)?;
            let in_file = (u64::from(page_count) - group.start()).min(u64::from(PAGES_PER_GROUP)) as u32;
            if let Some(what) = problem(&bitmap, group, in_file) {
                let offset = u64::from(number.0) * PAGE_BYTES as u64;
                return Err(StorageError::corrupted(source.file(), offset, format!("page {number}: {what}")).into());
            }
            groups.push(Summary::new(bitmap::count_set(&bitmap)));
        }
        Ok(Self { groups, page_count, searched_words: 0 })
    }

    /// Takes `count` pages that follow each other, and returns the first.
    ///
    /// # Errors
    /// Those of `pages`; "storage full" when the page numbers are exhausted.
    ///
    /// # Panics
    /// When `count` is 0 or more than [`MAX_RUN_PAGES`], or `page_count` is not what this allocator left it at.
    pub fn allocate<P: BitmapPages + ?Sized>(
        &mut self,
        pages: &mut P,
        page_count: &mut u32,
        count: u32,
    ) -> Result<PageNumber, ReadError> {
        assert!((1..=MAX_RUN_PAGES).contains(&count), "a run of {count} pages");
        assert!(*page_count == self.page_count, "page count {page_count}, not {}", self.page_count);
        for index in 0..self.groups.len() {
            if let Some(first) = self.allocate_in(pages, index, count)? {
                *page_count = self.page_count;
                return Ok(first);
            }
        }
        self.add_group(pages)?;
        let first = self.allocate_in(pages, self.groups.len() - 1, count)?;
        *page_count = self.page_count;
        first.ok_or_else(exhausted)
    }

    fn allocate_in<P: BitmapPages + ?Sized>(
        &mut self,
        pages: &mut P,
        index: usize,
        count: u32,
    ) -> Result<Option<PageNumber>, ReadError> {
        let summary = &mut self.groups[index];
        if summary.longest < count {
            return Ok(None);
        }
        let group = Group(u32::try_from(index).expect("fewer groups than pages"));
        let number = group.bitmap_page();
        let class = Summary::class_of(count);
        let from = u32::from(summary.begins[class]);
        let search = bitmap::find_clear(&*pages.page(number)?, from, count, 1 << class);
        self.searched_words += u64::from(search.words);
        let Some(start) = search.found else {
            summary.note_failure(class, &search);
            return Ok(None);
        };
        let Ok(end) = u32::try_from(group.start() + u64::from(start + count)) else { return Ok(None) };
        bitmap::flip(pages.page_mut(number)?, start..start + count, true);
        summary.note_taken(class, &search, start, count);
        self.page_count = self.page_count.max(end);
        Ok(Some(PageNumber(end - count)))
    }

    fn add_group<P: BitmapPages + ?Sized>(&mut self, pages: &mut P) -> Result<(), ReadError> {
        let group = Group(u32::try_from(self.groups.len()).expect("fewer groups than pages"));
        let fixed = group.fixed_pages();
        let Ok(end) = u32::try_from(group.start() + u64::from(fixed)) else { return Err(exhausted()) };
        let bitmap = pages.new_bitmap(group.bitmap_page())?;
        bitmap.set_kind(PageKind::Bitmap);
        bitmap::flip(bitmap, 0..fixed, true);
        self.groups.push(Summary::new(fixed));
        self.page_count = end;
        Ok(())
    }

    /// Gives `count` pages from `first` on back. The page count stays: see [`Self::trim_tail`].
    ///
    /// # Panics
    /// When one of them is not allocated, is the superblock or a bitmap, or when they are not in one group: no run that
    /// was allocated is like that.
    pub fn free<P: BitmapPages + ?Sized>(
        &mut self,
        pages: &mut P,
        page_count: &mut u32,
        first: PageNumber,
        count: u32,
    ) -> Result<(), ReadError> {
        assert!(*page_count == self.page_count, "page count {page_count}, not {}", self.page_count);
        assert!((1..=MAX_RUN_PAGES).contains(&count), "a run of {count} pages");
        let group = Group::of(first);
        let start = first.0 % PAGES_PER_GROUP;
        let in_file = u64::from(first.0) + u64::from(count) <= u64::from(self.page_count);
        assert!(
            start >= group.fixed_pages() && start + count <= PAGES_PER_GROUP && in_file,
            "freeing {count} pages from {first} on, of {}",
            self.page_count
        );
        let bitmap = pages.page_mut(group.bitmap_page())?;
        bitmap::flip(bitmap, start..start + count, false);
        let below = bitmap::clear_below(bitmap, start, LAST_CLASS_PAGES);
        let above = bitmap::clear_from(bitmap, start + count, LAST_CLASS_PAGES);
        self.searched_words += u64::from((below + above) / 64 + 2);
        self.groups[group.0 as usize].note_freed(start, count, below, above);
        Ok(())
    }

    /// Takes free pages off the end of the file, at the end of a batch; returns how many there were.
    ///
    /// A group that has nothing but its bitmap goes too, and its bitmap page is among those taken off: whatever `pages`
    /// holds for page numbers at and beyond the new page count means nothing any more.
    pub fn trim_tail<P: BitmapPages + ?Sized>(
        &mut self,
        pages: &mut P,
        page_count: &mut u32,
    ) -> Result<u32, ReadError> {
        assert!(*page_count == self.page_count, "page count {page_count}, not {}", self.page_count);
        while self.groups.len() > 1 && self.groups.last().is_some_and(|summary| summary.allocated == 1) {
            self.groups.pop();
            self.page_count = self.groups.len() as u32 * PAGES_PER_GROUP;
        }
        let group = Group::of(PageNumber(self.page_count - 1));
        let bitmap = pages.page(group.bitmap_page())?;
        let highest = bitmap::highest_set(&bitmap).expect("a bitmap's own page is allocated");
        let end = group.start() + u64::from(highest) + 1;
        assert!(end <= u64::from(self.page_count), "page {} is allocated, of {}", end - 1, self.page_count);
        self.page_count = end as u32;
        let trimmed = *page_count - self.page_count;
        *page_count = self.page_count;
        Ok(trimmed)
    }

    /// Whether a page is allocated. A page beyond the end of the file is not.
    pub fn is_allocated<P: BitmapPages + ?Sized>(&self, pages: &P, number: PageNumber) -> Result<bool, ReadError> {
        if number.0 >= self.page_count {
            return Ok(false);
        }
        Ok(is_set(&*pages.page(bitmap_page_of(number))?, number))
    }

    /// How many pages of the file are free.
    #[must_use]
    pub fn free_pages(&self) -> u32 {
        self.page_count - self.groups.iter().map(|summary| summary.allocated).sum::<u32>()
    }

    /// How many words of bitmaps were looked at for free runs.
    #[must_use]
    pub fn searched_words(&self) -> u64 {
        self.searched_words
    }

    /// How many pages the file has.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }
}

#[cold]
fn exhausted() -> ReadError {
    let source = std::io::Error::new(std::io::ErrorKind::StorageFull, "all page numbers are in use");
    StorageError::io("data", 0, "allocate", &source).into()
}

/// What is wrong with the bitmap of a group that has `in_file` pages in the file.
fn problem(bitmap: &Page, group: Group, in_file: u32) -> Option<&'static str> {
    if bitmap.kind() != Some(PageKind::Bitmap) {
        return Some("not an allocation bitmap where there must be one");
    }
    if bitmap.bytes()[9..crate::page::PAGE_HEADER_BYTES].iter().any(|byte| *byte != 0) {
        return Some("an allocation bitmap with more in its header than its kind");
    }
    if (0..group.fixed_pages()).any(|index| !bitmap::bit(bitmap, index)) {
        return Some("an allocation bitmap that says it is free itself");
    }
    if bitmap::highest_set(bitmap).is_some_and(|highest| highest >= in_file) {
        return Some("pages beyond the end of the file are allocated");
    }
    None
}

/// What is wrong with a bitmap page of a file of `page_count` pages: for the whole-file check.
pub(crate) fn check_bitmap(bitmap: &Page, number: PageNumber, page_count: u32) -> Option<&'static str> {
    assert!(is_bitmap_page(number) && number.0 < page_count);
    let group = Group::of(number);
    problem(bitmap, group, (u64::from(page_count) - group.start()).min(u64::from(PAGES_PER_GROUP)) as u32)
}
