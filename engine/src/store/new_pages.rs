//! Pages on their way into a new data file: those of a full backup, or of a seeding.
//!
//! They are written past the page cache, in pieces of many pages: by a thread of their own ([`WriteBehind`]), or by the one
//! that takes them, where that does nothing else ([`AtOnce`]). The reason for
//! which a checkpoint writes one page a call ([`DataFile::write_run`](crate::store::DataFile::write_run)) does not hold
//! here: it is the page cache that keeps what one call wrote in one folio, and writes all of it again when a page of it
//! changes; of what goes past it, it keeps nothing. It would hold for a new file too, though nobody maps it yet: the folios
//! stay when the file is switched in, and the node's checkpoints would pay for them. So where a disk cannot write past the
//! cache, [`DiskFile::write_past_cache`] writes a page at a time.
//!
//! Nothing may look at the file before [`NewPages::end`] has returned: the replay of the frames reads what the pages were. No
//! order among the pages matters before that, and none to a crash: until the switch the file is nobody's.
//!
//! Free pages between pages are left out of what comes. Where there are fewer of them than are punched in a data file, they
//! are written as the zeros that they are, with the pages around them; longer runs stay holes.

use std::sync::Arc;

use bytes::Bytes;

use crate::env::{DiskFile, WriteBehind};
use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::PAGE_BYTES;

use super::data_file::{PUNCH_FROM_PAGES, offset_of};

/// Pages are collected up to this many bytes. In tests this, and what is long, is little, as their backups are small.
const PIECE_BYTES: usize = if cfg!(test) { 48 << 10 } else { 1 << 20 };
/// A run from this length on is not copied to those around it, but written by itself.
const LONG_RUN_BYTES: usize = if cfg!(test) { 16 << 10 } else { 128 << 10 };

/// Where they go.
pub(crate) trait PageSink {
    /// Takes pages, in whole. The error may be that of earlier ones.
    fn write(&mut self, bytes: Bytes, offset: u64) -> Result<(), StorageError>;
    /// Waits until all that was taken is in the file.
    fn wait(&mut self) -> Result<(), StorageError>;
}

impl PageSink for WriteBehind {
    fn write(&mut self, bytes: Bytes, offset: u64) -> Result<(), StorageError> {
        WriteBehind::write(self, bytes, offset)
    }

    fn wait(&mut self) -> Result<(), StorageError> {
        WriteBehind::wait(self)
    }
}

/// Writes what it takes before it returns.
pub(crate) struct AtOnce(pub(crate) Arc<dyn DiskFile>);

impl PageSink for AtOnce {
    fn write(&mut self, bytes: Bytes, offset: u64) -> Result<(), StorageError> {
        self.0.write_past_cache(&bytes, offset)
    }

    fn wait(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The pages, as they come.
pub(crate) struct NewPages<S> {
    page_count: u32,
    sink: S,
    /// The first page that may come next.
    next: u32,
    count: u64,
    /// Pages that are not handed over yet, and the first of them.
    piece: Vec<u8>,
    first: u32,
}

impl<S: PageSink> NewPages<S> {
    /// Into a file that has the length of `page_count` pages, and none yet.
    pub(crate) fn new(sink: S, page_count: u32) -> Self {
        Self { page_count, sink, next: 0, count: 0, piece: Vec::new(), first: 0 }
    }

    /// Into a file that has all of them.
    pub(crate) fn complete(sink: S, page_count: u32) -> Self {
        Self { next: page_count, ..Self::new(sink, page_count) }
    }

    /// How many came.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first page that may come next.
    pub(crate) fn next(&self) -> PageNumber {
        PageNumber(self.next)
    }

    /// Where they go.
    pub(crate) fn sink(&self) -> &S {
        &self.sink
    }

    /// Whether these pages may come next; the error says why not.
    pub(crate) fn check(&self, first: PageNumber, bytes: &[u8]) -> Result<(), String> {
        let end = u64::from(first.0) + (bytes.len() / PAGE_BYTES) as u64;
        if bytes.is_empty() || !bytes.len().is_multiple_of(PAGE_BYTES) {
            return Err(format!("{} bytes of pages from {first} on are not whole pages", bytes.len()));
        }
        if first.0 < self.next || end > u64::from(self.page_count) {
            return Err(format!("pages from {first} on are out of order, or behind the end"));
        }
        Ok(())
    }

    /// Takes pages that were checked. The error may be that of earlier ones.
    pub(crate) fn take(&mut self, first: PageNumber, bytes: Bytes) -> Result<(), StorageError> {
        let count = u32::try_from(bytes.len() / PAGE_BYTES).expect("a part of a chunk");
        let free = first.0 - self.next;
        let zeros = free as usize * PAGE_BYTES;
        let joins = free < PUNCH_FROM_PAGES && self.piece.len() + zeros + bytes.len() <= PIECE_BYTES;
        if self.piece.is_empty() || !joins || bytes.len() >= LONG_RUN_BYTES {
            self.hand_over()?;
            self.first = first.0;
        } else {
            self.piece.resize(self.piece.len() + zeros, 0);
        }
        self.next = first.0 + count;
        self.count += u64::from(count);
        if bytes.len() >= LONG_RUN_BYTES {
            return self.sink.write(bytes, offset_of(first));
        }
        self.piece.extend_from_slice(&bytes);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), StorageError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sink.write(piece.into(), offset_of(PageNumber(self.first)))
    }

    /// Waits until all that came is in the file.
    pub(crate) fn end(&mut self) -> Result<(), StorageError> {
        self.hand_over()?;
        self.sink.wait()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::env::{Disk, OpenMode, SimDisk};

    /// Runs of any length with gaps of any length: the file has each page in its place, and zeros elsewhere.
    #[test]
    fn every_page_is_in_its_place() {
        let disk = SimDisk::new(1);
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let path = format!("/data-{seed}");
            let file = disk.open(Path::new(&path), OpenMode::CreateNew).expect("made");
            let page_count = 400;
            file.set_len(u64::from(page_count) * PAGE_BYTES as u64).expect("works");
            let mut pages = NewPages::new(WriteBehind::new(file.clone()), page_count);
            let mut model = vec![0; page_count as usize * PAGE_BYTES];
            let (mut next, mut count) = (0, 0);
            loop {
                let first = next + [0, 1, random.random_range(0..80)][random.random_range(0..3)];
                let run = random.random_range(1..9);
                if first + run > page_count {
                    break;
                }
                let bytes: Vec<u8> = (0..run as usize * PAGE_BYTES).map(|_| random.random()).collect();
                let at = first as usize * PAGE_BYTES;
                model[at..at + bytes.len()].copy_from_slice(&bytes);
                pages.check(PageNumber(first), &bytes).expect("in order");
                pages.take(PageNumber(first), bytes.into()).expect("taken");
                (next, count) = (first + run, count + u64::from(run));
            }
            pages.end().expect("written");
            assert_eq!(pages.next().0, next);
            assert_eq!(pages.count(), count);
            let mut found = vec![0; model.len()];
            file.read_exact_at(&mut found, 0).expect("readable");
            assert!(found == model, "seed {seed}");
            let page = [1; PAGE_BYTES];
            assert!(next == 0 || pages.check(PageNumber(next - 1), &page).is_err(), "seed {seed}: out of order");
            assert!(pages.check(PageNumber(page_count), &page).is_err(), "seed {seed}: behind the end");
        }
    }
}
