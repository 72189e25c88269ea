//! Looking at a directory that no node has open, without changing a byte of it.
//!
//! The state is built as recovery would build it (the data file, and the frames from the checkpoint to the target over
//! it), but in memory. With `upto`, replay goes on to that entry: two directories as a crash left them can so be
//! compared at a common index.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::btree::{PageRef, PageSource, ReadError};
use crate::checkpoint::NodeMeta;
use crate::engine::{OpenError, Paths, Slots, read_slots, take_lock};
use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{Digest, LogId, LogIndex, PageNumber};
use crate::journal::{FrameInfo, inspect};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::recovery::Damage;
use crate::recovery::replay::{advance, put_in_place, timeline_of};
use crate::slots::SlotDamage;
use crate::store::{AppliedState, DataFile};
use crate::verify::{CheckReport, Progress, check_pages};
use crate::versions::Image;

mod page;

#[cfg(test)]
mod offline_test;
#[cfg(test)]
mod page_test;

pub use page::{LeafEntry, PageContent, PageReport, inspect_page};

/// The state of a directory at an entry of its log.
pub struct OfflineState {
    data: DataFile,
    images: BTreeMap<PageNumber, Image>,
    superblock: Superblock,
    applied: AppliedState,
    _lock: Arc<dyn Send + Sync>,
}

/// What [`check_directory`] found.
#[derive(Debug)]
pub struct DirectoryReport {
    /// What `node.meta` says.
    pub meta: NodeMeta,
    /// Slots of `node.meta` and `vote` that are damaged; a start of the node takes the other slot, and mends them.
    pub slot_damage: Vec<SlotDamage>,
    /// How many frames the journal holds.
    pub frames: u64,
    /// The last of them.
    pub last_frame: Option<LogId>,
    /// Damage of the journal.
    pub journal_damage: Option<String>,
    /// The state that was checked.
    pub checked_at: Option<LogId>,
    /// The whole-file check; `None` if the state could not be built: then `state_damage` says why.
    pub pages: Option<CheckReport>,
    /// Why the state could not be built, or does not have the digest that it should.
    pub state_damage: Option<String>,
}

impl DirectoryReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.slot_damage.is_empty()
            && self.journal_damage.is_none()
            && self.state_damage.is_none()
            && self.pages.as_ref().is_some_and(CheckReport::is_clean)
    }
}

impl OfflineState {
    /// Builds the state at the checkpoint's target, or at the entry `upto` if that is later and the journal has it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while a node runs on it; damage, named.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path, upto: Option<LogIndex>) -> Result<Self, OpenError> {
        let lock = take_lock(&**disk, directory)?;
        let meta = read_slots(&**disk, directory)?.meta;
        Self::build(disk, directory, &meta, upto, lock)
    }

    fn build(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        meta: &NodeMeta,
        upto: Option<LogIndex>,
        lock: Arc<dyn Send + Sync>,
    ) -> Result<Self, OpenError> {
        let home = Paths::generation(directory, meta.generation);
        let data = DataFile::open(&**disk, &Paths::data(&home), OpenMode::Read, 1 << 40)?;
        let timeline = timeline_of(&data)?;
        let mut applied = meta.checkpoint.clone();
        let target = meta.target.log_id.map(|log_id| log_id.index);
        let until = target.max(upto);
        let mut images = BTreeMap::new();
        for found in crate::journal::frames(disk.clone(), &Paths::journal(&home))? {
            let (frame, _) = found?;
            let index = frame.log_id().index;
            if Some(index) > until {
                break;
            }
            if Some(index) <= applied.log_id.map(|log_id| log_id.index) {
                continue;
            }
            if !frame.follows(applied.chain) {
                return Err(OpenError::Damaged { directory: directory.to_path_buf(), damage: Damage::OtherHistory });
            }
            let bad = |error| StorageError::corrupted(data.path(), 0, format!("frame {index}: {error}"));
            if let Some(record) = advance(&mut applied, timeline, &frame).map_err(bad)? {
                put_in_place(&data, &mut images, &record, frame.payload().bytes())?;
            }
        }
        if applied.log_id < meta.target.log_id {
            return Err(OpenError::Damaged { directory: directory.to_path_buf(), damage: Damage::JournalEndsEarly });
        }
        let superblock = match images.get(&PageNumber(0)) {
            Some(Image::Page(page)) => Superblock::decode(page),
            _ => Superblock::decode(&*data.read(PageNumber(0))?),
        };
        let superblock = superblock.map_err(|what| StorageError::corrupted(data.path(), 0, what))?;
        Ok(Self { data, images, superblock, applied, _lock: lock })
    }

    /// Where in the log this state is.
    #[must_use]
    pub fn applied(&self) -> &AppliedState {
        &self.applied
    }

    /// The pages of the state as one number: read, verified and summed up anew.
    pub fn compute_digest(&self) -> Result<Digest, ReadError> {
        let mut digest = Digest::default();
        for number in (0..self.superblock.page_count).map(PageNumber) {
            digest = digest.replace(number, 0, self.page(number)?.checksum());
        }
        Ok(digest)
    }

    /// All trees, by name.
    pub fn trees(&self) -> Result<Vec<(String, crate::btree::TreeState)>, ReadError> {
        crate::txn::list_trees(self, &self.superblock.trees)
    }
}

impl PageSource for OfflineState {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        match self.images.get(&number) {
            Some(Image::Page(page)) if checksum::verify(number, page) => Ok(PageRef::Mapped(page)),
            Some(Image::Page(_)) => {
                let what = format!("page {number} does not match its checksum after replay");
                Err(StorageError::corrupted(self.data.path(), crate::store::offset_of(number), what).into())
            }
            Some(Image::Free) => Ok(PageRef::Version(Arc::from(Page::zeroed()))),
            None => Ok(self.data.read(number)?),
        }
    }
}

/// Checks a directory: both slot files, every frame of the journal, every page of the state, the digest.
///
/// # Errors
/// [`OpenError::Locked`] while a node runs on it, and `node.meta` or `vote` that cannot be read; all other damage is in
/// the report.
pub fn check_directory(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<DirectoryReport, OpenError> {
    let lock = take_lock(&**disk, directory)?;
    let Slots { meta, damage: slot_damage } = read_slots(&**disk, directory)?;
    let mut report = DirectoryReport {
        meta: meta.clone(),
        slot_damage,
        frames: 0,
        last_frame: None,
        journal_damage: None,
        checked_at: None,
        pages: None,
        state_damage: None,
    };
    let home = Paths::generation(directory, meta.generation);
    for frame in inspect(disk.clone(), &Paths::journal(&home))? {
        match frame {
            Ok(FrameInfo { log_id, .. }) => {
                report.frames += 1;
                report.last_frame = Some(log_id);
            }
            Err(error) => report.journal_damage = Some(error.to_string()),
        }
    }
    match OfflineState::build(disk, directory, &meta, None, lock) {
        Ok(state) => {
            report.checked_at = state.applied.log_id;
            match check_pages(&state, progress) {
                Ok(pages) => {
                    let (found, expected) = (pages.digest, state.applied.digest);
                    if found != expected {
                        report.state_damage = Some(format!("the digest is {found} and should be {expected}"));
                    }
                    report.pages = Some(pages);
                }
                Err(error) => report.state_damage = Some(error.to_string()),
            }
        }
        Err(error) => report.state_damage = Some(error.to_string()),
    }
    Ok(report)
}
