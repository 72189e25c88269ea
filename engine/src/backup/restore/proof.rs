//! What proves that the new data file is the state that was backed up.
//!
//! Every page is read once more when all of them are written, replayed and synced, and each read goes past the page cache,
//! to the disk: each page must carry its checksum, and all of them together must be the digest of the last record. So
//! - a page that was another one when it was backed up, or became one in the backup with every sum over it made anew, does
//!   not carry its checksum, or the digest is another one;
//! - frames that were not the ones that led to this state lead to another digest;
//! - a write that was lost, fell short, or landed elsewhere, by a fault of this program or of the disk, leaves a page that
//!   is not its number's, or an old one, or none.
//!
//! The last is why the sums are not simply taken of the pages as they pass by on their way to the disk, which would save a
//! reading: that proves what was handed to the disk, and not what the file holds. What rots after this reading is found as in
//! any data file, by the first read of a page and by the scrub.
//!
//! Several threads read and sum up: one would either wait for the disk or let it wait. The digest is a sum, so that it does
//! not matter who read which page. Of several damaged pages the first is named: blocks are taken in
//! order, and whoever finds damage lets nobody take another one, so no page before it is left unread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::RestoreError;
use super::build::differs;
use super::place::Place;
use crate::backup::progress::{Meter, Stage};
use crate::engine::Paths;
use crate::env::{DiskFile, OpenMode};
use crate::ids::{Digest, PageNumber};
use crate::page::{PAGE_BYTES, Page, checksum};
use crate::store::{AppliedState, offset_of};

/// Pages that are read at a time: 1 MiB.
const BLOCK_PAGES: u64 = 128;
/// How many read and sum up. Not for their sums, for which one would do, but for the disk: with four reads under way it gave 1.6 times
/// the bytes that it gave with two.
const READERS: usize = 4;
/// Nobody takes a block from here on.
const STOPPED: u64 = u64::MAX / 2;

/// Compares every page with its checksum, and all of them with the digest of the state.
pub(super) fn prove(
    place: &Place,
    page_count: u32,
    state: &AppliedState,
    meter: &mut Meter<'_>,
) -> Result<(), RestoreError> {
    // Opened anew: no handle that wrote it reads it.
    let file = place.disk.open(&Paths::data(&place.home), OpenMode::Read)?;
    let digest = sum_of_pages(&*file, page_count, meter)?;
    if digest == state.digest {
        return Ok(());
    }
    Err(differs(format!("its digest is {digest}, and that of txn {} was {}", state.txn_id, state.digest)))
}

/// The digest of the first pages of a file, each of which carries its checksum.
fn sum_of_pages(file: &dyn DiskFile, page_count: u32, meter: &mut Meter<'_>) -> Result<Digest, RestoreError> {
    meter.more(offset_of(PageNumber(page_count)));
    let next_block = AtomicU64::new(0);
    let (tell, told) = sync_channel(2 * READERS);
    std::thread::scope(|scope| {
        let reader = || {
            let (tell, next_block) = (tell.clone(), &next_block);
            scope.spawn(move || sum_of_blocks(file, page_count, next_block, &tell))
        };
        let readers: Vec<_> = (0..READERS).map(|_| reader()).collect();
        drop(tell);
        let stopped = told.iter().find_map(|bytes| meter.moved(Stage::Verify, bytes).err());
        // Whoever still reads hears that nobody listens.
        drop(told);
        let joined =
            readers.into_iter().map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let sums: Vec<Result<Digest, (PageNumber, RestoreError)>> = joined.collect();
        if let Some(stopped) = stopped {
            return Err(stopped.into());
        }
        let (sums, wrong): (Vec<_>, Vec<_>) = sums.into_iter().partition(Result::is_ok);
        match wrong.into_iter().filter_map(Result::err).min_by_key(|(number, _)| *number) {
            Some((_, error)) => Err(error),
            None => Ok(sums.into_iter().flatten().fold(Digest::default(), Digest::and)),
        }
    })
}

/// The digest of the blocks that this reader takes; the error is that of the first page of them that is not as it should be.
fn sum_of_blocks(
    file: &dyn DiskFile,
    page_count: u32,
    next_block: &AtomicU64,
    tell: &SyncSender<u64>,
) -> Result<Digest, (PageNumber, RestoreError)> {
    let mut digest = Digest::default();
    let mut buffer = vec![0; BLOCK_PAGES as usize * PAGE_BYTES];
    loop {
        let first = next_block.fetch_add(1, Ordering::Relaxed).saturating_mul(BLOCK_PAGES);
        let Some(first) = u32::try_from(first).ok().filter(|first| *first < page_count) else { return Ok(digest) };
        let count = u64::from(page_count - first).min(BLOCK_PAGES);
        let block = &mut buffer[..count as usize * PAGE_BYTES];
        let stop = |number: u32, error: RestoreError| {
            next_block.store(STOPPED, Ordering::Relaxed);
            (PageNumber(number), error)
        };
        let got = file.read_past_cache(block, offset_of(PageNumber(first)));
        let got = got.map_err(|error| stop(first, error.into()))?;
        // What lies beyond the end reads as free pages.
        block[got..].fill(0);
        for (number, bytes) in (first..).zip(block.as_chunks::<PAGE_BYTES>().0) {
            let page = Page::from_ref(bytes);
            if !checksum::verify(PageNumber(number), page) {
                let what = format!("page {number} does not match its checksum {:016x}", page.checksum());
                return Err(stop(number, differs(what)));
            }
            digest = digest.replace(PageNumber(number), 0, page.checksum());
        }
        if tell.send(block.len() as u64).is_err() {
            return Ok(digest);
        }
    }
}

#[cfg(test)]
#[path = "proof_test.rs"]
mod proof_test;
