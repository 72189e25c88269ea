//! The pages of an open batch: private copies of what it changed, on top of the newest staged state.
//!
//! What a batch holds in memory is bounded while it runs, not when it ends: a transaction of small operations may touch
//! any number of pages, and each page that it touches is copied whole. So each copy asks for room, in the middle of an
//! operation if need be, and the transaction that gets none is rolled back by whoever runs it. Pages that are freed are
//! not copied, but each becomes a version on every node when the record is applied: they have a bound of their own.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::freed::FreedPages;
use crate::alloc::{self, Allocator, BitmapPages};
use crate::btree::{PageRef, PageSource, PageStore, ReadError, SplitPolicy};
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, Page};
use crate::raw;
use crate::store::Store;
use crate::versions::PageHasher;

/// The most pages that a batch may free: 32 GiB, and a few hundred megabytes of versions on each node.
pub(super) const MAX_FREED_PAGES: u64 = 4 << 20;

/// A page that the batch changed.
#[derive(Clone)]
pub(super) struct Dirty {
    pub(super) page: Arc<Page>,
    /// Allocated in this batch: its record carries a full image.
    pub(super) fresh: bool,
    /// Allocated before this batch too: freed and taken again.
    pub(super) reborn: bool,
    /// What it was copied from, unless that is in the data file.
    base: Option<Arc<Page>>,
    /// The era that last saved it for undo.
    saved_in: u64,
}

/// What to put back when a batch goes back to a mark.
enum Undo {
    Page(PageNumber, Option<Dirty>),
    /// So many pages from the first on.
    Freed(PageNumber, u32),
    Unfreed(PageNumber),
}

/// The copies, without the allocator, which works on them.
pub(super) struct Copies {
    pub(super) store: Arc<Store>,
    pub(super) snapshot: TxnId,
    pub(super) dirty: HashMap<PageNumber, Dirty, BuildHasherDefault<PageHasher>>,
    /// Pages allocated before the batch and free now.
    pub(super) freed: FreedPages,
    /// Whether any page was freed, be it one of the batch, or one that is in use again: what was where before that means
    /// nothing.
    pub(super) has_freed: bool,
    undo: Vec<Undo>,
    /// How many pages `undo` holds.
    saved: usize,
    /// Where in `undo` the last mark is. What was noted before it stays as it is.
    marked: usize,
    /// Counts marks, and returns to them: what was saved before the last one must be saved again. `None` without a mark:
    /// nothing is saved.
    era: Option<u64>,
    eras: u64,
}

/// The pages of an open batch. See [`super::Batch`].
pub struct BatchPages {
    pub(super) copies: Copies,
    pub(super) allocator: Allocator,
    pub(super) page_count: u32,
    pub(super) base_page_count: u32,
    pub(super) mutations: u64,
    split_policy: SplitPolicy,
    /// The most that copies of pages may take, in bytes.
    memory_limit: usize,
}

/// A state of the pages that the batch can go back to.
pub(super) struct PagesMark {
    undo: usize,
    allocator: Allocator,
    page_count: u32,
}

impl Copies {
    /// The page as the state has it that the batch builds on.
    pub(super) fn base(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.store.page_at(number, self.snapshot)
    }

    /// What a dirty page was copied from.
    pub(super) fn base_of_dirty(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        match self.dirty.get(&number).and_then(|dirty| dirty.base.as_deref()) {
            Some(page) => Ok(PageRef::Mapped(page)),
            None => self.base(number),
        }
    }

    /// Says that a dirty page and what it was copied from will be read soon: by then, the caches have seen much else.
    pub(super) fn read_soon(&self, number: PageNumber) {
        let Some(dirty) = self.dirty.get(&number) else { return };
        raw::read_all_soon(&dirty.page);
        let base = dirty.base.as_deref().or_else(|| self.store.page_at_hand(number));
        if let Some(base) = base.filter(|_| !dirty.fresh) {
            raw::read_all_soon(base);
        }
    }

    /// Keeps what a page was, once an era.
    fn save(&mut self, number: PageNumber) {
        let Some(era) = self.era else { return };
        match self.dirty.get_mut(&number) {
            Some(dirty) if dirty.saved_in == era => {}
            Some(dirty) => {
                self.undo.push(Undo::Page(number, Some(dirty.clone())));
                self.saved += 1;
                dirty.saved_in = era;
            }
            None => self.undo.push(Undo::Page(number, None)),
        }
    }

    fn insert_fresh(&mut self, number: PageNumber) {
        self.save(number);
        let reborn = self.freed.remove(number);
        if reborn && self.era.is_some() {
            self.undo.push(Undo::Unfreed(number));
        }
        let page = Page::shared_zeroed();
        self.dirty.insert(number, Dirty { page, fresh: true, reborn, base: None, saved_in: self.eras });
    }

    /// The page, to be written whole: zeros, but for the checksum of what it was, which a copy keeps until it is sealed.
    fn overwrite(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.save(number);
        let (checksum, fresh, reborn, base) = match self.dirty.get(&number) {
            Some(dirty) => (dirty.page.checksum(), dirty.fresh, dirty.reborn, dirty.base.clone()),
            None => (self.base(number)?.checksum(), false, false, None),
        };
        let mut page = Page::shared_zeroed();
        let bytes = Arc::get_mut(&mut page).expect("a new page is not shared").bytes_mut();
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        self.dirty.insert(number, Dirty { page, fresh, reborn, base, saved_in: self.eras });
        let dirty = self.dirty.get_mut(&number).expect("just put there");
        Ok(Arc::get_mut(&mut dirty.page).expect("a new page is not shared"))
    }

    fn remove(&mut self, number: PageNumber) {
        self.has_freed = true;
        let was_there = if self.dirty.contains_key(&number) {
            self.save(number);
            self.dirty.remove(&number).is_some_and(|dirty| !dirty.fresh || dirty.reborn)
        } else {
            true
        };
        if was_there {
            assert!(self.freed.insert(number), "page {number} is freed twice");
            if self.era.is_some() {
                match self.undo[self.marked..].last_mut() {
                    Some(Undo::Freed(first, count)) if first.0 + *count == number.0 => *count += 1,
                    _ => self.undo.push(Undo::Freed(number, 1)),
                }
            }
        }
    }

    /// Whether changing the page makes another copy of it.
    fn is_copied_for(&self, number: PageNumber) -> bool {
        self.dirty.get(&number).is_none_or(|dirty| self.era.is_some_and(|era| dirty.saved_in != era))
    }

    /// From here on, changes are noted behind the first `marked` of those noted so far.
    fn begin_era(&mut self, marked: usize) {
        self.eras += 1;
        self.era = Some(self.eras);
        self.marked = marked;
    }

    fn forget_marks(&mut self) {
        self.undo.clear();
        (self.saved, self.marked, self.era) = (0, 0, None);
    }

    fn roll_back_to(&mut self, mark: usize) {
        for undo in self.undo.drain(mark..).rev() {
            match undo {
                Undo::Page(number, Some(dirty)) => {
                    self.saved -= 1;
                    self.dirty.insert(number, dirty);
                }
                Undo::Page(number, None) => drop(self.dirty.remove(&number)),
                Undo::Freed(first, count) => {
                    for number in first.0..first.0 + count {
                        assert!(self.freed.remove(PageNumber(number)), "page {number} was freed");
                    }
                }
                Undo::Unfreed(number) => assert!(self.freed.insert(number), "page {number} was taken again"),
            }
        }
        self.begin_era(mark);
    }
}

impl PageSource for Copies {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        match self.dirty.get(&number) {
            Some(dirty) => Ok(PageRef::Mapped(&dirty.page)),
            None => self.base(number),
        }
    }
}

impl BitmapPages for Copies {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        PageSource::page(self, number)
    }

    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.save(number);
        if !self.dirty.contains_key(&number) {
            let (page, base) = match self.base(number)? {
                PageRef::Version(base) => (base.clone(), Some(base)),
                PageRef::Mapped(page) => (Arc::new(page.clone()), None),
            };
            self.dirty.insert(number, Dirty { page, fresh: false, reborn: false, base, saved_in: self.eras });
        }
        let dirty = self.dirty.get_mut(&number).expect("just put there");
        // Copies what is shared.
        Ok(Arc::make_mut(&mut dirty.page))
    }

    fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.insert_fresh(number);
        let dirty = self.dirty.get_mut(&number).expect("just put there");
        Ok(Arc::get_mut(&mut dirty.page).expect("a new page is not shared"))
    }
}

impl BatchPages {
    pub(super) fn new(store: Arc<Store>, snapshot: TxnId, allocator: Allocator, page_count: u32) -> Self {
        let split_policy = store.limits.split_policy;
        let copies = Copies {
            store,
            snapshot,
            dirty: HashMap::default(),
            freed: FreedPages::default(),
            has_freed: false,
            undo: Vec::new(),
            saved: 0,
            marked: 0,
            era: None,
            eras: 0,
        };
        Self {
            copies,
            allocator,
            page_count,
            base_page_count: page_count,
            mutations: 0,
            split_policy,
            memory_limit: usize::MAX,
        }
    }

    /// Sets the most that copies of pages may take, in bytes.
    pub(super) fn limit_memory(&mut self, bytes: usize) {
        self.memory_limit = bytes;
    }

    /// What the copies of pages take, those kept to go back to marks among them, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.copies.dirty.len() + self.copies.saved) * PAGE_BYTES
    }

    /// How many pages of the file hold something.
    pub(super) fn in_use(&self) -> u64 {
        u64::from(self.page_count) - u64::from(self.allocator.free_pages())
    }

    /// Whether so many pages more may be freed.
    pub(super) fn may_free(&self, pages: u64) -> Result<(), ReadError> {
        if self.copies.freed.pages().saturating_add(pages) > MAX_FREED_PAGES {
            return Err(ReadError::NoRoom(format!("it frees more than {MAX_FREED_PAGES} pages")));
        }
        Ok(())
    }

    fn need_room(&self, pages: usize) -> Result<(), ReadError> {
        let bytes = self.memory_bytes() + pages * PAGE_BYTES;
        if bytes > self.memory_limit {
            return Err(ReadError::NoRoom(format!(
                "it changes more than {} pages, {} bytes",
                self.memory_limit / PAGE_BYTES,
                self.memory_limit
            )));
        }
        Ok(())
    }

    /// Marks the state that the pages have now. Once a batch has gone back to a mark, those made behind it mean nothing.
    pub(super) fn mark(&mut self) -> PagesMark {
        let undo = self.copies.undo.len();
        self.copies.begin_era(undo);
        PagesMark { undo, allocator: self.allocator.clone(), page_count: self.page_count }
    }

    /// Drops the changes since the mark, which stays.
    pub(super) fn roll_back_to(&mut self, mark: &PagesMark) {
        self.copies.roll_back_to(mark.undo);
        self.allocator = mark.allocator.clone();
        self.page_count = mark.page_count;
    }

    /// Keeps the changes; there are no marks any more.
    pub(super) fn forget_marks(&mut self) {
        self.copies.forget_marks();
    }

    /// Cuts the free tail of the file. A last group that is empty goes with its bitmap, which so becomes free too.
    pub(super) fn trim_tail(&mut self) -> Result<(), ReadError> {
        let before = self.page_count;
        self.allocator.trim_tail(&mut self.copies, &mut self.page_count)?;
        for number in (self.page_count..before).map(PageNumber).filter(|number| alloc::is_bitmap_page(*number)) {
            self.copies.remove(number);
        }
        Ok(())
    }

    /// An upper bound of the bytes that pages take in the record.
    pub(super) fn bytes_bound(&self) -> usize {
        const PER_PAGE: usize = PAGE_BYTES + 512;
        self.copies.dirty.len() * PER_PAGE + self.copies.freed.run_count() * 8
    }
}

impl PageSource for BatchPages {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        PageSource::page(&self.copies, number)
    }
}

impl PageStore for BatchPages {
    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        if self.copies.is_copied_for(number) {
            self.need_room(1)?;
            return BitmapPages::page_mut(&mut self.copies, number);
        }
        let dirty = self.copies.dirty.get_mut(&number).expect("copied for this transaction");
        Ok(Arc::make_mut(&mut dirty.page))
    }

    fn overwrite(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        if self.copies.is_copied_for(number) {
            self.need_room(1)?;
        }
        self.copies.overwrite(number)
    }

    fn allocate(&mut self, count: u32) -> Result<PageNumber, ReadError> {
        self.need_room(count as usize)?;
        let first = self.allocator.allocate(&mut self.copies, &mut self.page_count, count)?;
        for number in first.0..first.0 + count {
            self.copies.insert_fresh(PageNumber(number));
        }
        Ok(first)
    }

    fn free(&mut self, first: PageNumber, count: u32) -> Result<(), ReadError> {
        self.may_free(u64::from(count))?;
        self.allocator.free(&mut self.copies, &mut self.page_count, first, count)?;
        for number in first.0..first.0 + count {
            self.copies.remove(PageNumber(number));
        }
        Ok(())
    }

    fn split_policy(&self) -> SplitPolicy {
        self.split_policy
    }

    fn note_mutation(&mut self) {
        self.mutations += 1;
    }
}
