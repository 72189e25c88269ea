//! The state of a directory at an entry of its log, built in memory: the data file, and the frames over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::btree::{PageRef, PageSource, ReadError, TreeState};
use crate::engine::{OpenError, Paths, read_meta, take_lock};
use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{Digest, LogIndex, PageNumber};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::recovery::Damage;
use crate::recovery::in_place::{PutError, put_in_place};
use crate::recovery::replay::{advance, timeline_of};
use crate::store::{AppliedState, DataFile, offset_of};
use crate::versions::Image;

/// The largest data file that is looked at, in bytes of address space.
const MAP_BYTES: u64 = 1 << 40;

/// The state of a directory at an entry of its log.
pub struct OfflineState {
    pub(super) data: DataFile,
    images: BTreeMap<PageNumber, Image>,
    /// Page 0 of it, or what is wrong with it.
    pub(super) superblock: Result<Superblock, String>,
    pub(super) applied: AppliedState,
    file: PathBuf,
    _lock: Arc<dyn Send + Sync>,
}

/// Why replay ended before where it should have.
#[derive(Debug)]
pub(super) enum Stop {
    /// The journal could not be read on.
    Journal(StorageError),
    /// A frame that does not follow the state.
    OtherHistory,
    /// A record that is none.
    Record(LogIndex, String),
}

impl OfflineState {
    /// Builds the state at the checkpoint's target, or at the entry `upto` if that is later and the journal has it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while a node runs on it; damage, named.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path, upto: Option<LogIndex>) -> Result<Self, OpenError> {
        let lock = take_lock(&**disk, directory)?;
        let meta = read_meta(&**disk, directory)?;
        let home = Paths::generation(directory, meta.generation);
        let target = meta.target.log_id;
        let until = target.map(|log_id| log_id.index).max(upto);
        let (state, stop) = Self::build(disk, &home, meta.checkpoint, until, lock)?;
        let damaged = |damage| OpenError::Damaged { directory: directory.to_path_buf(), damage };
        match stop {
            None if state.applied.log_id < target => Err(damaged(Damage::JournalEndsEarly)),
            None => match &state.superblock {
                Ok(_) => Ok(state),
                Err(what) => Err(StorageError::corrupted(&state.file, 0, what).into()),
            },
            Some(Stop::Journal(error)) => Err(error.into()),
            Some(Stop::OtherHistory) => Err(damaged(Damage::OtherHistory)),
            Some(Stop::Record(index, what)) => {
                Err(StorageError::corrupted(&state.file, 0, format!("frame {index}: {what}")).into())
            }
        }
    }

    /// Builds the state as far as it goes: from `from` on, over the data file in `home`, up to the entry `until`.
    pub(super) fn build(
        disk: &Arc<dyn Disk>,
        home: &Path,
        from: AppliedState,
        until: Option<LogIndex>,
        lock: Arc<dyn Send + Sync>,
    ) -> Result<(Self, Option<Stop>), StorageError> {
        let file = Paths::data(home);
        let data = DataFile::open(&**disk, &file, OpenMode::Read, MAP_BYTES)?;
        let superblock = Err("it was not read yet".into());
        let mut state = Self { data, images: BTreeMap::new(), superblock, applied: from, file, _lock: lock };
        let stop = state.replay(disk, home, until)?;
        state.superblock = match state.page(PageNumber(0)) {
            Ok(page) => Superblock::decode(&page).map_err(str::to_owned),
            Err(ReadError::Storage(StorageError::Corrupted { what, .. } | StorageError::DamagedPage { what, .. })) => {
                Err(what)
            }
            Err(error) => Err(error.to_string()),
        };
        Ok((state, stop))
    }

    fn replay(
        &mut self,
        disk: &Arc<dyn Disk>,
        home: &Path,
        until: Option<LogIndex>,
    ) -> Result<Option<Stop>, StorageError> {
        if until <= self.applied.log_id.map(|log_id| log_id.index) {
            return Ok(None);
        }
        // Of a page 0 that cannot be read, the first record that changes the state has a whole image, or nothing has.
        let timeline = timeline_of(&self.data).ok();
        let frames = match crate::journal::frames(disk.clone(), &Paths::journal(home)) {
            Ok(frames) => frames,
            Err(error) => return Ok(Some(Stop::Journal(error))),
        };
        for found in frames {
            let frame = match found {
                Ok((frame, _)) => frame,
                Err(error) => return Ok(Some(Stop::Journal(error))),
            };
            let index = frame.log_id().index;
            if Some(index) > until {
                break;
            }
            if Some(index) <= self.applied.log_id.map(|log_id| log_id.index) {
                continue;
            }
            if !frame.follows(self.applied.chain) {
                return Ok(Some(Stop::OtherHistory));
            }
            let Some(timeline) = timeline else {
                return Ok(Some(Stop::Record(index, "page 0 does not say to which timeline it belongs".into())));
            };
            match advance(&mut self.applied, timeline, &frame) {
                Ok(Some(record)) => {
                    match put_in_place(&self.data, &mut self.images, &record, frame.payload().bytes()) {
                        Ok(()) => {}
                        Err(PutError::Storage(error)) => return Err(error),
                        Err(PutError::Record(error)) => return Ok(Some(Stop::Record(index, error.to_string()))),
                    }
                }
                Ok(None) => {}
                Err(error) => return Ok(Some(Stop::Record(index, error.to_string()))),
            }
        }
        Ok(None)
    }

    /// Where in the log this state is.
    #[must_use]
    pub fn applied(&self) -> &AppliedState {
        &self.applied
    }

    fn known_superblock(&self) -> Result<&Superblock, ReadError> {
        self.superblock.as_ref().map_err(|what| StorageError::corrupted(&self.file, 0, what).into())
    }

    /// The pages of the state as one number: read, verified and summed up anew.
    pub fn compute_digest(&self) -> Result<Digest, ReadError> {
        let mut digest = Digest::default();
        for number in (0..self.known_superblock()?.page_count).map(PageNumber) {
            digest = digest.replace(number, 0, self.page(number)?.checksum());
        }
        Ok(digest)
    }

    /// All trees, by name.
    pub fn trees(&self) -> Result<Vec<(String, TreeState)>, ReadError> {
        crate::txn::list_trees(self, &self.known_superblock()?.trees)
    }
}

impl PageSource for OfflineState {
    /// A page that the disk refuses to read is one that is damaged: others can be read all the same.
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        match self.images.get(&number) {
            Some(Image::Page(page)) if checksum::verify(number, page) => Ok(PageRef::Mapped(page)),
            Some(Image::Page(_)) => {
                let what = format!("page {number} does not match its checksum after replay");
                Err(StorageError::corrupted(&self.file, offset_of(number), what).into())
            }
            Some(Image::Free) => Ok(PageRef::Version(Arc::from(Page::zeroed()))),
            None => self.data.read(number).map_err(|error| match error {
                StorageError::Io { file, offset, operation: "read", message, .. } => {
                    StorageError::corrupted(file, offset, format!("page {number} cannot be read: {message}")).into()
                }
                error => error.into(),
            }),
        }
    }

    fn file(&self) -> &Path {
        &self.file
    }
}
