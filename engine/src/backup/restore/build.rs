//! The restored state: pages into a new data file, frames over them, and all of it compared with what it should be.

use std::ops::ControlFlow;
use std::sync::Arc;

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
use crate::engine::Paths;
use crate::env::{OpenMode, WriteBehind};
use crate::ids::PageNumber;
use crate::journal::frame::Frame;
use crate::page::PAGE_BYTES;
use crate::page::superblock::Superblock;
use crate::recovery::in_place::PutError;
use crate::recovery::replay::BlindReplay;
use crate::store::{AppliedState, DataFile, NewPages, NoProof, carried, digest_of_file, offset_of};

/// A state that was restored and verified.
pub(super) struct Built {
    /// The state.
    pub(super) state: AppliedState,
}

/// Builds the state at the point in the new generation.
pub(super) fn build(
    store: &Arc<dyn BackupStore>,
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
        pages: NewPages::new(WriteBehind::new(file), full.page_count),
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
    verify(place, full, &superblock, &state, meter)?;
    Ok(Built { state })
}

pub(super) fn differs(what: impl Into<String>) -> RestoreError {
    RestoreError::Differs(what.into())
}

struct Building<'b> {
    pages: NewPages<WriteBehind>,
    replay: BlindReplay<'b>,
    track: Track,
    options: &'b RestoreOptions,
}

impl Building<'_> {
    /// Reads one backup. Returns whether the point was met in it.
    fn member(
        &mut self,
        store: &Arc<dyn BackupStore>,
        manifest: &Manifest,
        meter: &mut Meter<'_>,
    ) -> Result<bool, RestoreError> {
        let mut input = Input::new(store, manifest)?;
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
                        self.pages.take(first, bytes)?;
                    }
                    meter.moved(Stage::Pages, stored)?;
                }
                Piece::Frames(frames) => {
                    if !frames_began {
                        self.pages.end()?;
                        frames_began = true;
                    }
                    for frame in &frames {
                        if self.frame(manifest, frame)? {
                            return Ok(true);
                        }
                    }
                    meter.moved(Stage::Frames, stored)?;
                }
            }
        }
        self.pages.end()?;
        let state = &self.track.state;
        let pages = if manifest.kind == BackupKind::Full { self.pages.count() } else { 0 };
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

/// Compares page 0 with what the backup says, and every page with its checksum and the digest.
fn verify(
    place: &Place,
    full: &Manifest,
    superblock: &Superblock,
    state: &AppliedState,
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
    prove(place, superblock.page_count, state, meter)
}

/// Compares every page with its checksum, and all of them with the digest of the state: [`crate::store`]'s proof.
pub(super) fn prove(
    place: &Place,
    page_count: u32,
    state: &AppliedState,
    meter: &mut Meter<'_>,
) -> Result<(), RestoreError> {
    // Opened anew: no handle that wrote it reads it.
    let file = place.disk.open(&Paths::data(&place.home), OpenMode::Read)?;
    meter.more(offset_of(PageNumber(page_count)));
    let mut seen = |bytes| match meter.moved(Stage::Verify, bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let digest = digest_of_file(&*file, page_count, &carried, &mut seen).map_err(|error| match error {
        NoProof::Storage(error) => error.into(),
        NoProof::Damaged(what) => differs(what),
        NoProof::Stopped => RestoreError::Stopped,
    })?;
    if digest == state.digest {
        return Ok(());
    }
    Err(differs(format!("its digest is {digest}, and that of txn {} was {}", state.txn_id, state.digest)))
}
