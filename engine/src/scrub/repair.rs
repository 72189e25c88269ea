//! Putting right what is damaged, with bytes that somebody else has.
//!
//! # Which bytes are taken
//!
//! Whoever offers them need not be believed: they are taken only if they are what must stand there.
//! - *A page* whose checksum is known ([`crate::store`]): the bytes must carry it.
//! - *A page* whose checksum is not known, as it was damaged before anybody read it in this process: the digest of the
//!   finished checkpoint is a sum over all pages, so it says what the pages that are not known add to it. If all others
//!   are known, that is, after one pass of the scrub, bytes are taken that add exactly that. Where several pages are not
//!   known, what is offered for each is kept until there is something for all of them.
//! - *A frame*: its chain value, which covers all of its bytes and the whole log before it, is in memory.
//!
//! # How they are written
//!
//! *A page* is written in its place, where its damaged bytes stand, and synced; no checkpoint runs meanwhile. Then it is
//! read from the disk and compared, and leaves the register. *Crash within:* the page is torn, or as bad as before, or
//! right. Where it is not right its checksum says so, or it is an old content, which it was before. No version of another
//! page, and no other file, is written. Recovery needs nothing new: what is written is the page as of the finished
//! checkpoint, one of the contents that the file may hold while a checkpoint runs.
//!
//! Readers may hold slices of the map where the damaged page stands: they see it become right.
//!
//! *A frame*: see `journal/scrub.rs`.

use super::pass;
use crate::damage::{Damage, DamageCounts, DamagedPart, FoundBy};
use crate::engine::{Core, Engine};
use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::journal::frame::Frame;
use crate::page::{PAGE_BYTES, Page, checksum};
use crate::store::Store;
use crate::versions::Image;

/// Why bytes were not taken. Nothing was written, unless it is an error of the disk.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Nothing is wrong with it, or not any more.
    #[error("{0} is not damaged")]
    NotDamaged(DamagedPart),
    /// They are no page, or another page's.
    #[error("these {bytes} bytes are not page {page}: they do not carry its checksum")]
    NotThePage {
        /// The page.
        page: PageNumber,
        /// How many bytes.
        bytes: usize,
    },
    /// The page, as it is at another time, or was made up.
    #[error(
        "this is page {page} as it is at another time: its checksum is {found:016x}; offer it again from elsewhere"
    )]
    OtherVersion {
        /// The page.
        page: PageNumber,
        /// The checksum that was offered.
        found: u64,
    },
    /// It is not known yet what the page must hold.
    #[error(
        "which checksum page {0} must have is known when a scrub has read all other pages; try again behind the next pass"
    )]
    NotKnownYet(PageNumber),
    /// It is kept until something is offered for the other damaged pages, too: they are right or wrong together.
    #[error("page {0} is kept until each of the other damaged pages was offered, too")]
    Kept(PageNumber),
    /// The frame is not the one that this node has had, or it is not kept any more.
    #[error("this is not the frame that the journal must hold")]
    OtherFrame,
    /// The disk: it could not be written, or is not there when it is read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Engine {
    /// What is known to be damaged now.
    #[must_use]
    pub fn damaged(&self) -> Vec<Damage> {
        let store = self.core.store();
        let register = store.data.register();
        // Frames that are purged are nobody's concern any more.
        let first = store.journal.first_kept();
        register.retain(|damage| match damage.part {
            DamagedPart::Frame(log_id) => {
                store.journal.log_id(log_id.index) == Some(log_id) && log_id.index >= first.next_index()
            }
            DamagedPart::Block(position) => position >= store.journal.first_position(),
            _ => true,
        });
        register.list()
    }

    /// How much damage there is, and was.
    #[must_use]
    pub fn damage_counts(&self) -> DamageCounts {
        self.core.store().data.register().counts()
    }

    /// Puts a damaged page right with `bytes`, if those are what it must hold by the checksum that is known of it, or by
    /// the digest. Durable when this returns.
    ///
    /// # Errors
    /// Why not. After [`RepairError::Storage`] the page is as damaged as before.
    pub fn repair_page(&self, number: PageNumber, bytes: &[u8]) -> Result<(), RepairError> {
        let core = &self.core;
        let _one = core.maintenance.lock();
        let store = core.store();
        let part = DamagedPart::Page(number);
        if !store.data.register().has_page(number) {
            return Err(RepairError::NotDamaged(part));
        }
        let page = bytes.first_chunk::<PAGE_BYTES>().filter(|_| bytes.len() == PAGE_BYTES).map(Page::from_ref);
        let page = page.filter(|page| checksum::verify(number, page));
        let Some(page) = page else { return Err(RepairError::NotThePage { page: number, bytes: bytes.len() }) };
        if let Some(error) = core.failed.lock().clone() {
            return Err(error.into());
        }
        match store.data.sums().get(number) {
            Some(expected) if expected == page.checksum() => write(core, &store, number, page),
            Some(_) => Err(RepairError::OtherVersion { page: number, found: page.checksum() }),
            None => offer(core, &store, number, page),
        }
    }

    /// Puts a damaged frame right with `frame`, if that is the one that must stand there. Durable when this returns.
    ///
    /// # Errors
    /// Why not.
    pub fn repair_frame(&self, frame: &Frame) -> Result<(), RepairError> {
        let store = self.core.store();
        let part = DamagedPart::Frame(frame.log_id());
        if store.data.register().get(part).is_none() {
            return Err(RepairError::NotDamaged(part));
        }
        if !store.journal.write_again(frame)? {
            return Err(RepairError::OtherFrame);
        }
        let index = frame.log_id().index;
        let bad = store.journal.look_at_disk(index, 1)?.map(|piece| piece.bad).unwrap_or_default();
        if let Some(bad) = bad.into_iter().find(|bad| bad.part == part) {
            return Err(bad.error.into());
        }
        store.data.register().clear(part, "written again");
        Ok(())
    }

    /// The contents that this node has of a page, newest first: of its versions, and of its data file. For another node,
    /// whose page is damaged: which of them it needs, its checksum says.
    ///
    /// # Errors
    /// Those of the disk.
    #[doc(hidden)]
    pub fn copies_of_page(&self, number: PageNumber) -> Result<Vec<Box<Page>>, StorageError> {
        let store = self.core.store();
        // Held, so that no checkpoint writes the page while it is read.
        let reader = store.readers.open();
        if number.0 >= reader.state().superblock.page_count {
            return Ok(Vec::new());
        }
        let as_page = |image: Image| match image {
            Image::Page(page) => Box::new((*page).clone()),
            Image::Free => Page::zeroed(),
        };
        let mut copies: Vec<Box<Page>> = store.versions.all_of(number).into_iter().rev().map(as_page).collect();
        if store.versions.newest_at(number, reader.txn_id()).is_none() || copies.is_empty() {
            match store.data.read(number) {
                Ok(page) => copies.push(Box::new((*page).clone())),
                Err(StorageError::DamagedPage { .. }) => {}
                Err(error) => return Err(error),
            }
        } else if let Some(page) = store.data.read_unverified(number)?
            && checksum::verify(number, &page)
        {
            // The file's own is older than a version, and a checkpoint may be writing it: its checksum says what it is.
            copies.push(page);
        }
        Ok(copies)
    }
}

impl Core {
    /// A page or frame that somebody wanted is damaged: notes it.
    pub(crate) fn note_damage(&self, error: &StorageError) {
        if let StorageError::DamagedFrame { log_id, .. } = error {
            let part = DamagedPart::Frame(*log_id);
            self.store().data.register().note(Damage::new(part, error, FoundBy::Read));
        }
    }
}

fn write(core: &Core, store: &Store, number: PageNumber, page: &Page) -> Result<(), RepairError> {
    store.data.repair(number, page).map_err(|error| {
        if let StorageError::Io { .. } = error {
            // A failed write or sync is not tried again: nothing is written into the file behind it.
            core.fail(&error);
        }
        error.into()
    })
}

/// A page whose checksum is not known: it is right if it is what the digest lacks, with those offered before.
fn offer(core: &Core, store: &Store, number: PageNumber, page: &Page) -> Result<(), RepairError> {
    let meta = core.meta.lock().value.clone();
    let not_known = Err(RepairError::NotKnownYet(number));
    if meta.checkpoint_running() || meta.generation != store.generation {
        return not_known;
    }
    // The length stands on page 0; if that one is offered, on what is offered.
    let page_count = match pass::page_count(store, meta.checkpoint.txn_id)? {
        Some(page_count) => page_count,
        None if number == PageNumber(0) => match crate::page::superblock::Superblock::decode(page) {
            Ok(superblock) if superblock.txn_id == meta.checkpoint.txn_id => superblock.page_count,
            _ => return Err(RepairError::OtherVersion { page: number, found: page.checksum() }),
        },
        None => return not_known,
    };
    let damaged = store.data.register().counts().open as usize;
    let (mut digest, unknown) = store.data.sums().digest(page_count, damaged + 1);
    if !unknown.contains(&number) || unknown.iter().any(|number| !store.data.register().has_page(*number)) {
        return not_known;
    }
    let mut offers = store.data.offers();
    offers.retain(|number, _| unknown.contains(number));
    offers.insert(number, Box::new(page.clone()));
    if offers.len() < unknown.len() {
        return Err(RepairError::Kept(number));
    }
    for (number, page) in &*offers {
        digest = digest.replace(*number, 0, page.checksum());
    }
    if digest != meta.checkpoint.digest {
        offers.remove(&number);
        return Err(RepairError::OtherVersion { page: number, found: page.checksum() });
    }
    let proven = std::mem::take(&mut *offers);
    proven.iter().try_for_each(|(number, page)| write(core, store, *number, page))
}

/// Pages that are damaged and must be free: they are zeros, and nobody is needed to say so.
pub(super) fn zero_free_pages(core: &Core, store: &Store) -> Result<(), RepairError> {
    for damage in store.data.register().list() {
        let DamagedPart::Page(number) = damage.part else { continue };
        let _one = core.maintenance.lock();
        if store.data.sums().get(number) == Some(0)
            && store.data.register().has_page(number)
            && store.versions.newest_at(number, TxnId(u64::MAX)).is_none()
        {
            write(core, store, number, &Page::zeroed())?;
        }
    }
    Ok(())
}
