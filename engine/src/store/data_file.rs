//! The data file: page `n` stands at byte `n * 8192`.
//!
//! The first touch of a page goes through the Disk door and is verified; later reads use the map. What lies beyond the
//! end of the file is a page of zeros: the file gets its length only when a checkpoint ends.
//!
//! The map is touched only where a page has content in the state that is read. Beyond the end of the file it would be a
//! SIGBUS, and the checkpointer cuts the file while others read it. Why that never meets, for whoever reads a page at a
//! snapshot `s`, finds no version of it and so asks the file; `c` is the finished checkpoint, `t` the target of one that
//! runs, and `c <= t <= s` (see [`crate::versions`]):
//! - The page has content at `s`. Without a version it has not changed since `c`, so it has content at `t` too, and the
//!   file is not cut below it.
//! - The page is free at `s`. It may lie beyond the end that the file gets for `t`: the file shrank, and a later record
//!   made it grow again around that page. Such a page is never in the map: a page is *verified*, which is what lets it
//!   be read there, only after content was read through the door, and ceases to be so *before* it is zeroed or cut. Since
//!   there is no version, it was freed by `c`, so that has happened; and nobody made it verified since, because whoever
//!   saw content had a snapshot that `c` waited for, and who does not sees zeros, which verify nothing.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use parking_lot::{Mutex, MutexGuard};

use super::PageSums;
use crate::btree::PageRef;
use crate::damage::{Damage, DamagedPart, FoundBy, Offers, Register};
use crate::env::{Disk, DiskFile, FileMap, OpenMode};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, Page, PageKind, checksum};
use crate::versions::PageBits;

/// Free runs from this length on are punched; shorter ones are written as zeros. A punch of one page costs 145 us and
/// slows the journal's syncs to a third (design brief, part 6).
pub(crate) const PUNCH_FROM_PAGES: u32 = 32;
/// Pages of long values written by one call, 256 KiB.
const PAGES_PER_CALL: usize = 32;

#[cfg(test)]
#[path = "data_file_test.rs"]
mod data_file_test;

static ZERO_BYTES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The open data file of a generation.
pub(crate) struct DataFile {
    file: Arc<dyn DiskFile>,
    map: Option<FileMap>,
    map_bytes: u64,
    verified: PageBits,
    /// What each page must hold.
    sums: PageSums,
    /// Which pages do not.
    register: Register,
    /// What was offered for pages of which that is not known.
    offers: Mutex<Offers>,
}

/// The byte offset of a page in the data file.
#[must_use]
pub(crate) fn offset_of(number: PageNumber) -> u64 {
    u64::from(number.0) * PAGE_BYTES as u64
}

fn zero_page() -> &'static Page {
    Page::from_ref(&ZERO_BYTES)
}

impl DataFile {
    /// Makes a data file that holds `pages` from page 0 on, durable.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, pages: &[Box<Page>]) -> Result<(), StorageError> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        let parts: Vec<IoSlice<'_>> = pages.iter().map(|page| IoSlice::new(page.bytes())).collect();
        file.write_at(&parts, 0)?;
        file.sync_data()
    }

    /// Opens a data file; the map has room for `map_bytes`.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, mode: OpenMode, map_bytes: u64) -> Result<Self, StorageError> {
        let file = disk.open(path, mode)?;
        let map = file.map(map_bytes)?;
        let (verified, sums, register) = (PageBits::default(), PageSums::default(), Register::default());
        Ok(Self { file, map, map_bytes, verified, sums, register, offers: Mutex::default() })
    }

    /// The file's name.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }

    /// The page as the file has it; verified.
    pub(crate) fn read(&self, number: PageNumber) -> Result<PageRef<'_>, StorageError> {
        if let Some(map) = &self.map
            && self.verified.contains(number)
        {
            return Ok(PageRef::Mapped(map.page(number)));
        }
        self.read_first(number)
    }

    /// The page in the map, if it was verified.
    pub(crate) fn page_at_hand(&self, number: PageNumber) -> Option<&Page> {
        let map = self.map.as_ref()?;
        self.verified.contains(number).then(|| map.page(number))
    }

    #[cold]
    fn read_first(&self, number: PageNumber) -> Result<PageRef<'_>, StorageError> {
        if let Some(damage) = self.damage_of(number) {
            return Err(damage);
        }
        let page = self.read_unverified(number)?;
        self.compare(number, page.as_deref().unwrap_or(zero_page()), FoundBy::Read);
        if let Some(damage) = self.damage_of(number) {
            return Err(damage);
        }
        let Some(page) = page.filter(|page| page.checksum() != 0) else { return Ok(PageRef::Mapped(zero_page())) };
        if let Some(map) = &self.map
            && offset_of(number) + PAGE_BYTES as u64 <= self.map_bytes
        {
            self.verified.insert(number);
            // Whoever finds damage puts it into the register, and then takes away the mark; here it is the other way
            // round. One of the two sees what the other did.
            fence(Ordering::SeqCst);
            if let Some(damage) = self.damage_of(number) {
                self.verified.remove(number);
                return Err(damage);
            }
            return Ok(PageRef::Mapped(map.page(number)));
        }
        Ok(PageRef::Version(Arc::from(page)))
    }

    /// Compares what was read of a page, of which the caller knows that it stands in the file, with what it must be. What
    /// does not fit is noted, and served to nobody from now on.
    pub(crate) fn compare(&self, number: PageNumber, page: &Page, found_by: FoundBy) {
        let found = page.checksum();
        if !checksum::verify(number, page) {
            self.note(number, &format!("it does not match its checksum {found:016x}"), found_by);
            return;
        }
        let expected = self.sums.get_or_adopt(number, found);
        if expected != found {
            let what = format!("its checksum is {found:016x} and should be {expected:016x}: it is an old content");
            self.note(number, &what, found_by);
        }
    }

    /// A page is damaged.
    pub(crate) fn note(&self, number: PageNumber, what: &str, found_by: FoundBy) {
        let error = self.damaged_page(number, what.to_owned());
        self.register.note(Damage::new(DamagedPart::Page(number), &error, found_by));
        self.verified.remove(number);
    }

    fn damaged_page(&self, page: PageNumber, what: String) -> StorageError {
        StorageError::DamagedPage { file: self.path(), offset: offset_of(page), page, what }
    }

    fn damage_of(&self, number: PageNumber) -> Option<StorageError> {
        if !self.register.has_page(number) {
            return None;
        }
        let known = self.register.get(DamagedPart::Page(number))?;
        Some(self.damaged_page(number, known.what))
    }

    /// What is damaged.
    pub(crate) fn register(&self) -> &Register {
        &self.register
    }

    /// What the pages must hold.
    pub(crate) fn sums(&self) -> &PageSums {
        &self.sums
    }

    /// What was offered for pages of which it is not known what they must hold.
    pub(crate) fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock()
    }

    /// A checkpoint has written these pages and synced them: this is what the file holds. Said before their versions go.
    pub(crate) fn written(&self, pages: &[(PageNumber, u64)]) {
        for (number, checksum) in pages {
            self.sums.set(*number, *checksum);
            if self.register.has_page(*number) {
                self.register.clear(DamagedPart::Page(*number), "a checkpoint has written it anew");
            }
        }
    }

    /// Writes a damaged page, which must hold this, and makes it durable: see [`crate::scrub`].
    pub(crate) fn repair(&self, number: PageNumber, page: &Page) -> Result<(), StorageError> {
        self.file.write_at(&[IoSlice::new(page.bytes())], offset_of(number))?;
        self.file.sync_data()?;
        let mut found = Page::zeroed();
        self.read_from_disk(number, found.bytes_mut())?;
        if found.bytes() != page.bytes() {
            return Err(self.damaged_page(number, "it was written anew, and the disk does not have it".to_owned()));
        }
        self.sums.set(number, page.checksum());
        self.register.clear(DamagedPart::Page(number), "repaired");
        Ok(())
    }

    /// Fills `buffer` from a page on, from the disk and not from what is cached; what lies beyond the end is zeros.
    pub(crate) fn read_from_disk(&self, first: PageNumber, buffer: &mut [u8]) -> Result<(), StorageError> {
        let got = self.file.read_past_cache(buffer, offset_of(first))?;
        buffer[got..].fill(0);
        Ok(())
    }

    /// The page's bytes as the file has them, whatever they are; `None` where the file does not reach.
    pub(crate) fn read_unverified(&self, number: PageNumber) -> Result<Option<Box<Page>>, StorageError> {
        let mut page = Page::zeroed();
        let got = self.file.read_at(page.bytes_mut(), offset_of(number))?;
        // A page cut short by the end of the file was never finished, so it is made whole by replay: zeros for the rest.
        Ok((got > 0).then_some(page))
    }

    /// Writes pages that follow each other; `wrote` hears after each call how many pages it wrote. One call a page: the page cache keeps
    /// what one call wrote in one folio, and a later change of one page of it would write all of it again. Pages of a long
    /// value only ever change together, so those go in larger calls.
    pub(crate) fn write_run(
        &self,
        first: PageNumber,
        pages: &[Arc<Page>],
        wrote: &dyn Fn(usize) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let is_overflow = |page: &Arc<Page>| page.kind() == Some(PageKind::Overflow);
        let mut number = first.0;
        for run in pages.chunk_by(|page, next| is_overflow(page) && is_overflow(next)) {
            for call in run.chunks(PAGES_PER_CALL) {
                let parts: Vec<IoSlice<'_>> = call.iter().map(|page| IoSlice::new(page.bytes())).collect();
                self.file.write_at(&parts, offset_of(PageNumber(number)))?;
                number += u32::try_from(call.len()).expect("a few");
                wrote(call.len())?;
            }
        }
        Ok(())
    }

    /// Makes a run of pages zero, and gives the space back where that is cheap.
    pub(crate) fn zero_run(&self, first: PageNumber, count: u32) -> Result<(), StorageError> {
        self.take_from_the_map(first.0..first.0 + count);
        if count >= PUNCH_FROM_PAGES {
            return self.file.punch(offset_of(first), u64::from(count) * PAGE_BYTES as u64);
        }
        let zeros: Vec<IoSlice<'_>> = (0..count).map(|_| IoSlice::new(&ZERO_BYTES)).collect();
        self.file.write_at(&zeros, offset_of(first))
    }

    /// Gives the file the length of `page_count` pages.
    pub(crate) fn set_page_count(&self, page_count: u32) -> Result<(), StorageError> {
        let length = u64::from(page_count) * PAGE_BYTES as u64;
        let old = self.file.len()?;
        if old > length {
            let end = u32::try_from(old.div_ceil(PAGE_BYTES as u64)).expect("page numbers are 32 bits");
            self.take_from_the_map(page_count..end);
        }
        if old != length {
            self.file.set_len(length)?;
        }
        Ok(())
    }

    /// Pages that are free from a running checkpoint on are not read through the map any more.
    fn take_from_the_map(&self, pages: std::ops::Range<u32>) {
        for number in pages {
            self.verified.remove(PageNumber(number));
        }
    }

    /// Makes all of it durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_data()
    }

    /// The file's length in bytes.
    pub(crate) fn bytes(&self) -> Result<u64, StorageError> {
        self.file.len()
    }

    /// Fills `buffer` from a page on, as the file is; what lies beyond its end is zeros.
    pub(crate) fn copy_raw(&self, first: PageNumber, buffer: &mut [u8]) -> Result<(), StorageError> {
        let got = self.file.read_at(buffer, offset_of(first))?;
        buffer[got..].fill(0);
        Ok(())
    }
}
