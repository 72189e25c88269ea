//! What proves that a new data file is the state that it should be: one that was backed up, or a source's.
//!
//! Every page is read once more when all of them are written, replayed and synced, and each read goes past the page cache,
//! to the disk: each page must carry its checksum, and all of them together must be the digest of the last record. So
//! - a page that was another one when it was copied, or became one in the backup with every sum over it made anew, does
//!   not carry its checksum, or the digest is another one;
//! - frames that were not the ones that led to this state lead to another digest;
//! - a write that was lost, fell short, or landed elsewhere, by a fault of this program or of the disk, leaves a page that
//!   is not its number's, or an old one, or none.
//!
//! The last is why the sums are not simply taken of the pages as they pass by on their way to the disk, which would save a
//! reading: that proves what was handed to the disk, and not what the file holds. What rots after this reading is found as in
//! any data file, by the first read of a page and by the scrub.
//!
//! A page of which memory holds a newer version counts with that one: who reads it gets it from there, and the next checkpoint
//! writes it.
//!
//! Several threads read and sum up: one would either wait for the disk or let it wait. The digest is a sum, so that it does
//! not matter who read which page. Of several damaged pages the first is named: blocks are taken in
//! order, and whoever finds damage lets nobody take another one, so no page before it is left unread.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::data_file::offset_of;
use crate::env::DiskFile;
use crate::error::StorageError;
use crate::ids::{Digest, PageNumber};
use crate::page::{PAGE_BYTES, Page, checksum};

/// Pages that are read at a time: 1 MiB.
const BLOCK_PAGES: u64 = 128;
/// How many read and sum up. Not for their sums, for which one would do, but for the disk: with four reads under way it gave 1.6 times
/// the bytes that it gave with two.
const READERS: usize = 4;
/// Nobody takes a block from here on.
const STOPPED: u64 = u64::MAX / 2;

/// Why there is no sum.
#[derive(Debug)]
pub(crate) enum NoProof {
    /// The disk does not read.
    Storage(StorageError),
    /// A page is not what it should be; the first that is not, and what it is.
    Damaged(String),
    /// Whoever hears of progress wanted it to end.
    Stopped,
}

/// What a page counts with: the checksum of what it is, given what the file has; the error says what is wrong with that.
pub(crate) type SumOf<'s> = &'s (dyn Fn(PageNumber, &Page) -> Result<u64, String> + Sync);

/// The checksum that the page must carry, and does.
pub(crate) fn carried(number: PageNumber, page: &Page) -> Result<u64, String> {
    if checksum::verify(number, page) {
        return Ok(page.checksum());
    }
    Err(format!("page {number} does not match its checksum {:016x}", page.checksum()))
}

/// The digest of the first pages of a file. `seen` hears how many bytes were read since it last did.
pub(crate) fn digest_of_file(
    file: &dyn DiskFile,
    page_count: u32,
    sum_of: SumOf<'_>,
    seen: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Digest, NoProof> {
    let next_block = AtomicU64::new(0);
    let (tell, told) = sync_channel(2 * READERS);
    std::thread::scope(|scope| {
        let reader = || {
            let (tell, next_block) = (tell.clone(), &next_block);
            scope.spawn(move || digest_of_blocks(file, page_count, sum_of, next_block, &tell))
        };
        let readers: Vec<_> = (0..READERS).map(|_| reader()).collect();
        drop(tell);
        let stopped = told.iter().any(|bytes| seen(bytes).is_break());
        // Whoever still reads hears that nobody listens.
        drop(told);
        let joined =
            readers.into_iter().map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let sums: Vec<Result<Digest, (PageNumber, NoProof)>> = joined.collect();
        if stopped {
            return Err(NoProof::Stopped);
        }
        let (sums, wrong): (Vec<_>, Vec<_>) = sums.into_iter().partition(Result::is_ok);
        match wrong.into_iter().filter_map(Result::err).min_by_key(|(number, _)| *number) {
            Some((_, error)) => Err(error),
            None => Ok(sums.into_iter().flatten().fold(Digest::default(), Digest::and)),
        }
    })
}

/// The digest of the blocks that this reader takes; the error is that of the first page of them that is not as it should be.
fn digest_of_blocks(
    file: &dyn DiskFile,
    page_count: u32,
    sum_of: SumOf<'_>,
    next_block: &AtomicU64,
    tell: &SyncSender<u64>,
) -> Result<Digest, (PageNumber, NoProof)> {
    let mut digest = Digest::default();
    let mut buffer = vec![0; BLOCK_PAGES as usize * PAGE_BYTES];
    loop {
        let first = next_block.fetch_add(1, Ordering::Relaxed).saturating_mul(BLOCK_PAGES);
        let Some(first) = u32::try_from(first).ok().filter(|first| *first < page_count) else { return Ok(digest) };
        let count = u64::from(page_count - first).min(BLOCK_PAGES);
        let block = &mut buffer[..count as usize * PAGE_BYTES];
        let stop = |number: u32, error: NoProof| {
            next_block.store(STOPPED, Ordering::Relaxed);
            (PageNumber(number), error)
        };
        let got = file.read_past_cache(block, offset_of(PageNumber(first)));
        let got = got.map_err(|error| stop(first, NoProof::Storage(error)))?;
        // What lies beyond the end reads as free pages.
        block[got..].fill(0);
        for (number, bytes) in (first..).zip(block.as_chunks::<PAGE_BYTES>().0) {
            let sum = sum_of(PageNumber(number), Page::from_ref(bytes));
            let sum = sum.map_err(|what| stop(number, NoProof::Damaged(what)))?;
            digest = digest.replace(PageNumber(number), 0, sum);
        }
        if tell.send(block.len() as u64).is_err() {
            return Ok(digest);
        }
    }
}
