//! A store of pages in a `HashMap`, with a real allocator and nothing else, for tests.

use std::collections::HashMap;

use super::{PageRef, PageSource, PageStore, ReadError, SplitPolicy, TreeState, insert};
use crate::alloc::{Allocator, BitmapPages};
use crate::error::StorageError;
use crate::ids::{DatabaseId, PageNumber, Timeline, TxnId};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::verify::{CheckReport, check_pages};

#[derive(Clone, Default)]
pub(crate) struct Pages(HashMap<PageNumber, Box<Page>>);

impl Pages {
    fn get(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        let missing = || StorageError::corrupted("data", u64::from(number.0) * 8192, format!("no page {number}"));
        Ok(PageRef::Mapped(self.0.get(&number).ok_or_else(missing)?))
    }

    fn get_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.get(number)?;
        Ok(self.0.get_mut(&number).expect("just found"))
    }
}

impl BitmapPages for Pages {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.get(number)
    }

    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.get_mut(number)
    }

    fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.0.insert(number, Page::zeroed());
        self.get_mut(number)
    }
}

/// Pages in memory. What is freed becomes zeros at once.
#[derive(Clone)]
pub(crate) struct TestStore {
    pub(crate) pages: Pages,
    pub(crate) allocator: Allocator,
    pub(crate) page_count: u32,
    pub(crate) policy: SplitPolicy,
    pub(crate) mutations: u64,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::with_policy(SplitPolicy::default())
    }

    pub(crate) fn with_policy(policy: SplitPolicy) -> Self {
        let mut pages = Pages::default();
        pages.0.insert(PageNumber(0), Page::zeroed());
        let mut page_count = 0;
        let allocator = Allocator::create(&mut pages, &mut page_count).unwrap();
        Self { pages, allocator, page_count, policy, mutations: 0 }
    }

    /// Ends a batch: the file gets shorter, if it can.
    pub(crate) fn trim(&mut self) -> u32 {
        let trimmed = self.allocator.trim_tail(&mut self.pages, &mut self.page_count).unwrap();
        let page_count = self.page_count;
        self.pages.0.retain(|number, _| number.0 < page_count);
        trimmed
    }

    /// The state with these trees named in the tree of trees, a superblock and all checksums.
    pub(crate) fn sealed(&self, trees: &[(&str, TreeState)]) -> Self {
        let mut sealed = self.clone();
        let mut of_trees = TreeState::default();
        for (name, state) in trees {
            insert(&mut sealed, &mut of_trees, name.as_bytes(), &state.encode(), TxnId(1)).unwrap();
        }
        let superblock = Superblock {
            txn_id: TxnId(u64::MAX),
            page_count: sealed.page_count,
            trees: of_trees,
            database_id: DatabaseId(1),
            timeline: Timeline(1),
            wall_time_micros: 1,
        };
        superblock.encode(sealed.page_mut(PageNumber(0)).unwrap());
        for number in (0..sealed.page_count).map(PageNumber) {
            sealed.pages.0.entry(number).or_insert_with(Page::zeroed);
            if sealed.allocator.is_allocated(&sealed.pages, number).unwrap() {
                checksum::seal(number, sealed.page_mut(number).unwrap());
            }
        }
        sealed
    }

    /// Runs the whole-file check, and returns what it found.
    pub(crate) fn report(&self) -> CheckReport {
        check_pages(self, &mut |_| ()).unwrap()
    }

    /// Asserts that the state is sound, with just these trees.
    pub(crate) fn assert_sound(&self, trees: &[(&str, TreeState)]) {
        let report = self.sealed(trees).report();
        assert!(report.is_clean(), "{:#?}", report.problems);
        assert_eq!(report.trees, trees.len() as u64);
        assert_eq!(report.entries, trees.iter().map(|(_, tree)| tree.entries).sum::<u64>());
        let loaded = Allocator::load(self, self.page_count).unwrap();
        assert_eq!(loaded.free_pages(), self.allocator.free_pages());
    }

    /// How many pages are allocated beside superblock and bitmaps.
    pub(crate) fn allocated(&self) -> u64 {
        let groups = self.page_count.div_ceil(crate::alloc::PAGES_PER_GROUP);
        u64::from(self.page_count - self.allocator.free_pages() - 1 - groups)
    }

    /// How many bytes differ from an earlier state, in how many pages.
    pub(crate) fn changed_since(&self, before: &Self) -> (usize, usize) {
        let zeros = Page::zeroed();
        let mut changed = (0, 0);
        for number in (2..self.page_count.max(before.page_count)).map(PageNumber) {
            let old = before.pages.0.get(&number).unwrap_or(&zeros);
            let new = self.pages.0.get(&number).unwrap_or(&zeros);
            let bytes = old.bytes().iter().zip(new.bytes()).filter(|(old, new)| old != new).count();
            changed = (changed.0 + bytes, changed.1 + usize::from(bytes > 0));
        }
        changed
    }
}

impl PageSource for TestStore {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.pages.get(number)
    }
}

impl PageStore for TestStore {
    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.pages.get_mut(number)
    }

    fn allocate(&mut self, count: u32) -> Result<PageNumber, ReadError> {
        let first = self.allocator.allocate(&mut self.pages, &mut self.page_count, count)?;
        for number in (first.0..first.0 + count).map(PageNumber) {
            let page = self.pages.0.entry(number).or_insert_with(Page::zeroed);
            assert!(page.is_zero(), "a free page that is not zero");
        }
        Ok(first)
    }

    fn free(&mut self, first: PageNumber, count: u32) -> Result<(), ReadError> {
        self.allocator.free(&mut self.pages, &mut self.page_count, first, count)?;
        for number in (first.0..first.0 + count).map(PageNumber) {
            self.pages.0.insert(number, Page::zeroed());
        }
        Ok(())
    }

    fn split_policy(&self) -> SplitPolicy {
        self.policy
    }

    fn note_mutation(&mut self) {
        self.mutations += 1;
    }
}
