//! Whether backups are what was written, and lead where they say.
//!
//! Every byte is read. What is compared: each chunk with its checksum, each part with its hash, each frame with its CRCs and
//! with the chain value of the one before, each end with the manifest's, each manifest with its child. That the frames and
//! pages make the state whose digest the manifest names, only a restore can tell: a deep check makes one.

use std::path::Path;
use std::sync::Arc;

use super::Backups;
use super::catalog::{BackupProblem, Chain};
use super::error::{ChainError, RestoreError};
use super::id::BackupId;
use super::input::{Input, Piece};
use super::manifest::{BackupKind, Manifest, Membership, Position};
use super::output::manifest_name;
use super::progress::{Meter, OnProgress, Stage};
use super::restore::{NewNode, RestoreOptions};
use super::track::Track;
use crate::env::Disk;
use crate::offline::check_directory;
use crate::page::PAGE_BYTES;
use crate::store::AppliedState;

/// What was read, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many backups were read.
    pub backups: u64,
    /// How many bytes that was.
    pub stored_bytes: u64,
    /// What cannot be relied on. Backups behind one of these in their chain were not read.
    pub problems: Vec<BackupProblem>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Backups {
    /// Reads all chains.
    ///
    /// # Errors
    /// When the place cannot be read, or the progress says stop. What is wrong with the backups is in the report.
    pub fn verify(&self, on_progress: OnProgress<'_>) -> Result<VerifyReport, RestoreError> {
        let catalog = self.list()?;
        let mut report = VerifyReport { problems: catalog.problems, ..VerifyReport::default() };
        let total = catalog.chains.iter().map(Chain::stored_bytes).sum();
        let mut meter = Meter::new(&*self.surroundings, self.options.bytes_per_second, total, on_progress);
        for chain in &catalog.chains {
            let mut state = None;
            for backup in &chain.backups {
                match self.read_backup(&backup.manifest, state.take(), &mut meter) {
                    Ok(end) => state = Some(end),
                    Err(RestoreError::Chain(ChainError::Damaged { object, what })) => {
                        report.problems.push(BackupProblem { id: backup.manifest.backup_id(), object, what });
                        break;
                    }
                    Err(error) => return Err(error),
                }
                report.backups += 1;
                report.stored_bytes += backup.manifest.stored_bytes;
            }
        }
        Ok(report)
    }

    /// As [`Self::verify`], and restores the end of each chain into `scratch`, checks the whole file there, and removes it. The
    /// directory must not be there.
    ///
    /// # Errors
    /// As [`Self::verify`] and [`Self::restore`].
    pub fn verify_deep(
        &self,
        disk: &Arc<dyn Disk>,
        scratch: &Path,
        options: &RestoreOptions,
        on_progress: OnProgress<'_>,
    ) -> Result<VerifyReport, RestoreError> {
        let mut report = self.verify(&mut *on_progress)?;
        for chain in &self.list()?.chains {
            let newest = chain.newest().manifest.backup_id();
            let bad = |object: &BackupId, what: String| BackupProblem {
                id: object.clone(),
                object: manifest_name(object),
                what,
            };
            if report
                .problems
                .iter()
                .any(|problem| chain.backups.iter().any(|of| of.manifest.backup_id() == problem.id))
            {
                continue;
            }
            let node = NewNode { name: "check", listen: "", advertise: "", membership: None };
            let options = RestoreOptions { upto: Some(newest.clone()), replace: false, ..options.clone() };
            match self.restore(disk, scratch, node, &options, &mut *on_progress) {
                Ok(_) => {
                    let found = check_directory(disk, scratch, &mut |_| {})?;
                    if let Some(finding) = found.findings.first() {
                        report.problems.push(bad(&newest, format!("restored, the whole-file check finds: {finding}")));
                    }
                    disk.remove_dir_all(scratch)?;
                }
                Err(RestoreError::Differs(what)) => {
                    disk.remove_dir_all(scratch)?;
                    report.problems.push(bad(&newest, what));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Reads one backup, which begins in `state`; a full one begins in its own. Returns the state that it ends in.
    fn read_backup(
        &self,
        manifest: &Manifest,
        state: Option<AppliedState>,
        meter: &mut Meter<'_>,
    ) -> Result<AppliedState, RestoreError> {
        let start = || AppliedState { membership: manifest.start_membership(), ..manifest.start.state() };
        let mut track = Track::new(state.unwrap_or_else(start), manifest.timeline());
        let mut input = Input::new(&self.store, manifest)?;
        let (mut pages, mut next_page, mut raw_frames) = (0, 0, 0_u64);
        let bad = |what: String| RestoreError::from(ChainError::damaged(manifest_name(&manifest.backup_id()), what));
        while let Some((piece, stored)) = input.next()? {
            match piece {
                Piece::Pages(runs) => {
                    for (first, bytes) in runs {
                        let count = bytes.len() / PAGE_BYTES;
                        let end = u64::from(first.0) + count as u64;
                        let in_place = manifest.kind == BackupKind::Full && raw_frames == 0;
                        if !in_place || u64::from(first.0) < next_page || end > u64::from(manifest.page_count) {
                            return Err(bad(format!("pages from {first} on are out of order, or behind the end")));
                        }
                        (pages, next_page) = (pages + count as u64, end);
                    }
                    meter.moved(Stage::Pages, stored)?;
                }
                Piece::Frames(frames) => {
                    for frame in &frames {
                        track.take(frame).map_err(bad)?;
                        raw_frames += 1;
                    }
                    meter.moved(Stage::Frames, stored)?;
                }
            }
        }
        let found = (Position::of(&track.state), Membership::of(&track.state), pages);
        if found == (manifest.end, manifest.membership.clone(), manifest.pages) {
            return Ok(track.state);
        }
        Err(bad(format!("its pages and frames lead to {:?}, and not to where it ends", track.state.log_id)))
    }
}
