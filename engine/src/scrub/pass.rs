//! One pass: the pages, what they prove together, the journal, the slots.

use std::time::{Duration, Instant, SystemTime};

use super::RepairError;
use super::background::ScrubReport;
use super::repair::zero_free_pages;
use crate::damage::{Damage, DamagedPart, FoundBy};
use crate::engine::Core;
use crate::error::StorageError;
use crate::ids::{LogIndex, PageNumber};
use crate::journal::BadPart;
use crate::page::superblock::Superblock;
use crate::page::{PAGE_BYTES, Page};
use crate::store::Store;

/// What is read at a time, in pages: 1 MiB.
const PIECE_PAGES: u32 = 128;
/// The same of the journal, in bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// Pages that the end of a pass reads while checkpoints wait: what had a version whenever the pass came by.
const PROOF_PAGES: usize = 4096;

/// Whoever waits for a checkpoint looks so often whether the pass is still wanted.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(200);

/// Why a pass ended before its end.
pub(super) enum Ended {
    /// Nobody wants it any more, or another generation was switched in.
    GivenUp,
    /// The disk.
    Failed(StorageError),
}

impl From<StorageError> for Ended {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// Hears after each piece how many bytes were read, waits as long as it likes, and says whether to go on.
pub(super) type Pause<'a> = &'a dyn Fn(u64) -> bool;

/// How many bytes a pass reads, about.
pub(super) fn total_bytes(store: &Store) -> u64 {
    let pages = u64::from(store.readers.newest().superblock.page_count);
    pages * PAGE_BYTES as u64 + store.journal.stats().bytes_kept
}

/// Makes a pass.
pub(super) fn run(core: &Core, store: &Store, pause: Pause<'_>) -> Result<ScrubReport, Ended> {
    let started = Instant::now();
    let before = store.data.register().counts().found;
    let mut report = ScrubReport::default();
    slots(core, store)?;
    pages(core, store, &mut report, pause)?;
    report.proven = prove(core, store, pause)?;
    zero_free_pages(core, store).map_err(|error| match error {
        RepairError::Storage(error) => Ended::Failed(error),
        other => Ended::Failed(StorageError::Poisoned(other.to_string())),
    })?;
    journal(core, store, &mut report, pause)?;
    report.found = store.data.register().counts().found - before;
    report.took = started.elapsed();
    report.finished_at = Some(SystemTime::now());
    Ok(report)
}

fn go_on(core: &Core, store: &Store, pause: Pause<'_>, bytes: u64) -> Result<(), Ended> {
    if pause(bytes) && core.store().generation == store.generation { Ok(()) } else { Err(Ended::GivenUp) }
}

fn pages(core: &Core, store: &Store, report: &mut ScrubReport, pause: Pause<'_>) -> Result<(), Ended> {
    let mut first = 0;
    while let Some(count) = piece(core, store, PageNumber(first)) {
        first += count;
        let bytes = u64::from(count) * PAGE_BYTES as u64;
        report.pages += u64::from(count);
        report.bytes += bytes;
        go_on(core, store, pause, bytes)?;
    }
    Ok(())
}

/// Looks at some pages from `first` on; how many, or `None` at the end. The order of its steps is argued in [`super`].
fn piece(core: &Core, store: &Store, first: PageNumber) -> Option<u32> {
    let _alone = core.scrub.between_pieces();
    let reader = store.readers.open();
    let page_count = reader.state().superblock.page_count;
    let count = page_count.saturating_sub(first.0).min(PIECE_PAGES);
    if count == 0 {
        return None;
    }
    let numbers = (first.0..first.0 + count).map(PageNumber);
    let in_file: Vec<bool> =
        numbers.clone().map(|number| store.versions.newest_at(number, reader.txn_id()).is_none()).collect();
    let mut buffer = vec![0; count as usize * PAGE_BYTES];
    let readable = store.data.read_from_disk(first, &mut buffer).is_ok();
    let images = buffer.chunks_exact(PAGE_BYTES).map(|bytes| Page::from_ref(bytes.first_chunk().expect("a page")));
    for ((number, page), _) in numbers.zip(images).zip(in_file).filter(|(_, in_file)| *in_file) {
        if readable {
            store.data.compare(number, page, FoundBy::Scrub);
        } else {
            compare_alone(store, number);
        }
    }
    Some(count)
}

/// A page by itself, where the disk could not read all of a piece. If it cannot read this one, it is damaged.
fn compare_alone(store: &Store, number: PageNumber) {
    let mut page = Page::zeroed();
    match store.data.read_from_disk(number, page.bytes_mut()) {
        Ok(()) => store.data.compare(number, &page, FoundBy::Scrub),
        Err(error) => store.data.note(number, &error.to_string(), FoundBy::Scrub),
    }
}

/// Whether the pages are, all together, those of the finished checkpoint. While this runs, no checkpoint does; one that runs
/// is waited for, as long as the pass is wanted.
fn prove(core: &Core, store: &Store, pause: Pause<'_>) -> Result<bool, Ended> {
    let _one = loop {
        if let Some(one) = core.maintenance.try_lock_for(CHECKPOINT_LOOK) {
            break one;
        }
        go_on(core, store, pause, 0)?;
    };
    let meta = core.meta.lock().value.clone();
    // One that was given up, for want of space, has left a mixture behind. The next one goes on from there.
    if meta.generation != store.generation || meta.checkpoint_running() {
        return Ok(false);
    }
    let Some(page_count) = page_count(store, meta.checkpoint.txn_id)? else { return Ok(false) };
    let (_, unknown) = store.data.sums().digest(page_count, PROOF_PAGES);
    for number in unknown {
        compare_alone(store, number);
    }
    let (digest, unknown) = store.data.sums().digest(page_count, 1);
    if !unknown.is_empty() {
        return Ok(false);
    }
    if digest == meta.checkpoint.digest {
        store.data.register().clear(DamagedPart::State, "the pages have the digest that they must have");
        return Ok(true);
    }
    let what = format!(
        "the pages in the file have the digest {digest}, and the checkpoint at txn {} has {}: a page holds an old content. \
         If this node is part of a cluster, remove its directory and let it join again",
        meta.checkpoint.txn_id, meta.checkpoint.digest
    );
    let error = StorageError::corrupted(store.data.path(), 0, what);
    store.data.register().note(Damage::new(DamagedPart::State, &error, FoundBy::Scrub));
    Ok(false)
}

/// The page count of the finished checkpoint, from the file's own page 0; `None` if that is not the checkpoint's.
pub(super) fn page_count(store: &Store, checkpointed: crate::ids::TxnId) -> Result<Option<u32>, StorageError> {
    if store.data.register().has_page(PageNumber(0)) {
        return Ok(None);
    }
    let Some(page) = store.data.read_unverified(PageNumber(0))? else { return Ok(None) };
    let superblock = Superblock::decode(&page).ok().filter(|superblock| superblock.txn_id == checkpointed);
    Ok(superblock.map(|superblock| superblock.page_count))
}

fn journal(core: &Core, store: &Store, report: &mut ScrubReport, pause: Pause<'_>) -> Result<(), Ended> {
    let mut from = LogIndex(0);
    while let Some(piece) = store.journal.look_at_disk(from, PIECE_BYTES)? {
        for BadPart { part, error, rebuilt } in piece.bad {
            let damage = Damage::new(part, &error, FoundBy::Scrub);
            let mended = match rebuilt {
                Some(rebuilt) => store.journal.write_rebuilt(rebuilt)?,
                None => false,
            };
            if mended {
                store.data.register().clear(part, "made anew");
                store.data.register().note_mended(&damage);
            } else {
                store.data.register().note(damage);
            }
        }
        from = piece.next;
        report.frames += piece.frames;
        report.bytes += piece.bytes;
        go_on(core, store, pause, piece.bytes)?;
    }
    Ok(())
}

/// `node.meta` and `vote`, which are mended from memory.
fn slots(core: &Core, store: &Store) -> Result<(), StorageError> {
    let mut found = Vec::new();
    let meta = core.meta.lock().scrub();
    let vote = core.vote_file.lock().scrub();
    for scrubbed in [meta, vote] {
        match scrubbed {
            Ok(bad) => found.extend(bad),
            // A write of it has failed: what it holds is not known, and the engine has stopped for that.
            Err(StorageError::Poisoned(_)) => {}
            Err(error) => return Err(error),
        }
    }
    for slot in found {
        let error = StorageError::corrupted(slot.file, slot.offset, slot.what);
        store.data.register().note_mended(&Damage::new(DamagedPart::Slot, &error, FoundBy::Scrub));
    }
    Ok(())
}
