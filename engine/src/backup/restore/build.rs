//! The restored state: pages into a new data file, frames over them, and all of it compared with what it should be.

use std::io::IoSlice;

use super::place::Place;
use super::{RestoreOptions, RestorePoint};
use crate::backup::catalog::Backup;
use crate::backup::error::{ChainError, RestoreError};
use crate::backup::input::{Input, Piece};
use crate::backup::manifest::{BackupKind, Manifest, Membership, Position};
use crate::backup::output::manifest_name;
use crate::backup::progress::{Meter, Stage};
use crate::backup::store::BackupStore;
use crate::backup::track::Track;
use crate::engine::{EngineOptions, Paths};
use crate::env::{DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{Digest, PageNumber};
use crate::journal::frame::Frame;
use crate::page::PAGE_BYTES;
use crate::page::superblock::Superblock;
use crate::recovery::in_place::PutError;
use crate::recovery::replay::BlindReplay;
use crate::store::{AppliedState, DataFile, offset_of};

/// Progress is told each time that so many pages were verified.
const PAGES_PER_LOOK: u32 = 512;

/// A state that was restored and verified.
pub(super) struct Built {
    /// The state.
    pub(super) state: AppliedState,
}

/// Builds the state at the point in the new generation.
pub(super) fn build(
    store: &dyn BackupStore,
    members: &[&Backup],
    options: &RestoreOptions,
    place: &Place,
    meter: &mut Meter<'_>,
) -> Result<Built, RestoreError> {
    let path = Paths::data(&place.home);
    let full = &members[0].manifest;
    let file = place.disk.open(&path, OpenMode::CreateNew)?;
    file.set_len(u64::from(full.page_count) * PAGE_BYTES as u64)?;
    let data = DataFile::open(&*place.disk, &path, OpenMode::Write, options.engine.map_bytes)?;
    let start = AppliedState { membership: full.start_membership(), ..full.start.state() };
    let mut building = Building {
        pages: Pages { file: &*file, next: 0, count: 0, full },
        replay: BlindReplay::new(&data),
        track: Track::new(start, full.timeline()),
        options,
    };
    for backup in members {
        if building.member(store, &backup.manifest, meter)? {
            break;
        }
    }
    building.replay.flush()?;
    let state = building.track.state.clone();
    drop(building);
    let page = data.read_unverified(PageNumber(0))?.ok_or_else(|| differs("it has no page 0"))?;
    let superblock = Superblock::decode(&page).map_err(differs)?;
    data.set_page_count(superblock.page_count)?;
    data.sync()?;
    drop(data);
    verify(place, full, &superblock, &state, &options.engine, meter)?;
    Ok(Built { state })
}

fn differs(what: impl Into<String>) -> RestoreError {
    RestoreError::Differs(what.into())
}

struct Building<'b> {
    pages: Pages<'b>,
    replay: BlindReplay<'b>,
    track: Track,
    options: &'b RestoreOptions,
}

impl Building<'_> {
    /// Reads one backup. Returns whether the point was met in it.
    fn member(
        &mut self,
        store: &dyn BackupStore,
        manifest: &Manifest,
        meter: &mut Meter<'_>,
    ) -> Result<bool, RestoreError> {
        let mut input = Input::new(store, manifest);
        let mut frames_began = false;
        while let Some((piece, stored)) = input.next()? {
            let bad = |what: String| ChainError::damaged(manifest_name(&manifest.backup_id()), what);
            match piece {
                Piece::Pages(runs) => {
                    if manifest.kind != BackupKind::Full || frames_began {
                        return Err(bad("pages stand behind frames, or in an increment".into()).into());
                    }
                    for (first, bytes) in runs {
                        self.pages.check(first, &bytes).map_err(bad)?;
                        self.pages.write(first, &bytes)?;
                    }
                    meter.moved(Stage::Pages, stored)?;
                }
                Piece::Frames(frames) => {
                    frames_began = true;
                    for frame in &frames {
                        if self.frame(manifest, frame)? {
                            return Ok(true);
                        }
                    }
                    meter.moved(Stage::Frames, stored)?;
                }
            }
        }
        let state = &self.track.state;
        let pages = if manifest.kind == BackupKind::Full { self.pages.count } else { 0 };
        let found = (Position::of(state), Membership::of(state), pages);
        if found != (manifest.end, manifest.membership.clone(), manifest.pages) {
            let what = format!("its pages and frames lead to {:?}, and not to where it ends", state.log_id);
            return Err(ChainError::damaged(manifest_name(&manifest.backup_id()), what).into());
        }
        Ok(false)
    }

    /// Replays one frame. Returns whether it is behind the point; then it was not.
    fn frame(&mut self, manifest: &Manifest, frame: &Frame) -> Result<bool, RestoreError> {
        let before = self.track.state.clone();
        let taken = self.track.take(frame);
        let taken = taken.map_err(|what| ChainError::damaged(manifest_name(&manifest.backup_id()), what))?;
        let Some(record) = taken else { return Ok(false) };
        let behind = match self.options.point {
            RestorePoint::End => false,
            RestorePoint::Txn(txn_id) => record.header.last_txn > txn_id,
            RestorePoint::Time(micros) => record.header.wall_time_micros > micros,
        };
        if behind {
            // Over the pages of a full backup, all of its frames are needed.
            assert_eq!(manifest.kind, BackupKind::Incremental, "the plan has a full backup that ends by the point");
            self.track.state = before;
            return Ok(true);
        }
        let put = self.replay.put(&record, frame.payload().bytes(), &self.options.engine.faults);
        put.map_err(|error| match error {
            PutError::Storage(error) => RestoreError::from(error),
            PutError::Record(error) => {
                let what = format!("frame {}: {error}", frame.log_id());
                ChainError::damaged(manifest_name(&manifest.backup_id()), what).into()
            }
        })?;
        Ok(false)
    }
}

/// The pages of a full backup, on their way into the data file.
struct Pages<'p> {
    file: &'p dyn DiskFile,
    /// The first page that may come next.
    next: u32,
    count: u64,
    full: &'p Manifest,
}

impl Pages<'_> {
    fn check(&self, first: PageNumber, bytes: &[u8]) -> Result<(), String> {
        let end = u64::from(first.0) + (bytes.len() / PAGE_BYTES) as u64;
        if first.0 < self.next || end > u64::from(self.full.page_count) {
            return Err(format!("pages from {first} on are out of order, or behind the end"));
        }
        Ok(())
    }

    fn write(&mut self, first: PageNumber, bytes: &[u8]) -> Result<(), StorageError> {
        let pages = bytes.chunks_exact(PAGE_BYTES);
        self.count += pages.len() as u64;
        // One call a page, for the reason that `DataFile::write_run` gives.
        for (number, page) in (first.0..).map(PageNumber).zip(pages) {
            self.file.write_at(&[IoSlice::new(page)], offset_of(number))?;
            self.next = number.0 + 1;
        }
        Ok(())
    }
}

/// Compares every page with its checksum, and all of them with the digest of the state.
fn verify(
    place: &Place,
    full: &Manifest,
    superblock: &Superblock,
    state: &AppliedState,
    options: &EngineOptions,
    meter: &mut Meter<'_>,
) -> Result<(), RestoreError> {
    if superblock.database_id != full.database_id() || superblock.timeline != full.timeline() {
        return Err(differs("page 0 is of another database or timeline than the backup says"));
    }
    if superblock.txn_id != state.txn_id {
        return Err(differs(format!(
            "page 0 is of txn {}, and the frames end with {}",
            superblock.txn_id, state.txn_id
        )));
    }
    // Opened anew: what was read on the way was of no one state.
    let data = DataFile::open(&*place.disk, &Paths::data(&place.home), OpenMode::Read, options.map_bytes)?;
    meter.more(offset_of(PageNumber(superblock.page_count)));
    let mut digest = Digest::default();
    for number in 0..superblock.page_count {
        let page = data.read(PageNumber(number)).map_err(|error| match error.damage() {
            Some(_) => differs(error.to_string()),
            None => error.into(),
        })?;
        digest = digest.replace(PageNumber(number), 0, page.checksum());
        if (number + 1).is_multiple_of(PAGES_PER_LOOK) {
            meter.moved(Stage::Verify, u64::from(PAGES_PER_LOOK) * PAGE_BYTES as u64)?;
        }
    }
    let rest = superblock.page_count % PAGES_PER_LOOK;
    meter.moved(Stage::Verify, u64::from(rest) * PAGE_BYTES as u64)?;
    if digest == state.digest {
        return Ok(());
    }
    Err(differs(format!("its digest is {digest}, and that of txn {} was {}", state.txn_id, state.digest)))
}
