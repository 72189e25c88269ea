//! The next backup of a place: an increment where the chain and the journal allow it, else a full one, and why.

use super::Backups;
use super::catalog::{Backup, Catalog, Chain};
use super::error::BackupError;
use super::growing::Growing;
use super::id::BackupId;
use super::interrupted::Interrupted;
use super::manifest::{BackupKind, Manifest};
use super::progress::{Meter, OnProgress, Stage};
use crate::engine::{Engine, Pin, PinError};
use crate::ids::LogIndex;
use crate::seed::SeedError;

/// Why a backup was a full one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WhyFull {
    /// A full one was asked for.
    Asked,
    /// There was none.
    First,
    /// The increments of the chain take more than half of what its full backup takes.
    ChainIsLong {
        /// What they take, in bytes.
        increment_bytes: u64,
        /// What the full one takes.
        full_bytes: u64,
    },
    /// The journal begins behind the end of the newest backup.
    JournalPurged {
        /// The first frame that was needed.
        from: LogIndex,
        /// The first frame that there is.
        oldest: LogIndex,
    },
    /// What the newest backup ends with is not in this node's journal: it is behind, or has another history.
    NotInJournal {
        /// The entry that the newest backup ends with.
        index: LogIndex,
    },
}

impl std::fmt::Display for WhyFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("a full one was asked for"),
            Self::First => f.write_str("there was none that it could follow"),
            Self::ChainIsLong { increment_bytes, full_bytes } => {
                write!(f, "the increments take {increment_bytes} bytes, more than half of the full one's {full_bytes}")
            }
            Self::JournalPurged { from, oldest } => {
                write!(f, "the journal begins with frame {oldest}, and an increment would begin with frame {from}")
            }
            Self::NotInJournal { index } => {
                write!(f, "frame {index}, with which the newest backup ends, is not what this node's journal has there")
            }
        }
    }
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The new backup; `None` if nothing was committed since the newest one.
    pub backup: Option<Manifest>,
    /// Why it is a full one, if it is.
    pub full_because: Option<WhyFull>,
    /// Whether it went on where an interrupted one was.
    pub resumed: bool,
    /// Why an interrupted one was not gone on with, if there was one.
    pub begun_anew_because: Option<String>,
}

impl BackupReport {
    fn increment(backup: Option<Manifest>) -> Self {
        Self { backup, full_because: None, resumed: false, begun_anew_because: None }
    }
}

impl Backups {
    /// Makes a full backup, while the node goes on. Goes on with the newest one that was interrupted, where it can.
    ///
    /// # Errors
    /// [`BackupError::Stopped`] when `on_progress` says so; those of the node and of the place.
    pub fn full(&self, engine: &Engine, on_progress: OnProgress<'_>) -> Result<BackupReport, BackupError> {
        let catalog = self.list_for(engine)?;
        self.full_because(engine, &catalog, WhyFull::Asked, on_progress)
    }

    /// Makes an increment of the newest chain: the frames from its end to what is applied and durable here. Where there is
    /// no chain, or it is long, or the journal does not reach back, it makes a full backup, and the report says why.
    ///
    /// # Errors
    /// As [`Self::full`].
    pub fn incremental(&self, engine: &Engine, on_progress: OnProgress<'_>) -> Result<BackupReport, BackupError> {
        let catalog = self.list_for(engine)?;
        match self.next_increment(engine, &catalog)? {
            Err(why) => self.full_because(engine, &catalog, why, on_progress),
            Ok((parent, pin)) => {
                let parent = self.seal(parent)?;
                let written = self.write_increment(engine, &catalog, &parent, &pin, on_progress)?;
                Ok(BackupReport::increment(written))
            }
        }
    }

    /// What there is; refused if it is of another database or cluster.
    pub(super) fn list_for(&self, engine: &Engine) -> Result<Catalog, BackupError> {
        let catalog = self.list()?;
        let (database, cluster) = (engine.database_id(), engine.identity().cluster_id);
        for manifest in catalog.chains.iter().flat_map(|chain| &chain.backups).map(|backup| &backup.manifest) {
            if manifest.database_id() != database {
                return Err(BackupError::OtherDatabase { expected: database, found: manifest.database_id() });
            }
            if manifest.cluster_id() != cluster || manifest.timeline() != engine.timeline() {
                return Err(BackupError::OtherCluster { expected: cluster, found: manifest.cluster_id() });
            }
        }
        Ok(catalog)
    }

    fn full_because(
        &self,
        engine: &Engine,
        catalog: &Catalog,
        why: WhyFull,
        on_progress: OnProgress<'_>,
    ) -> Result<BackupReport, BackupError> {
        let mut report =
            BackupReport { backup: None, full_because: Some(why), resumed: false, begun_anew_because: None };
        if let Some(known) = self.newest_interrupted(engine, catalog)? {
            let id = known.id.clone();
            match self.resume_full(engine, known, &mut *on_progress) {
                Ok(manifest) => return Ok(BackupReport { backup: Some(manifest), resumed: true, ..report }),
                Err(BackupError::Seed(SeedError::CannotResume(what))) => {
                    report.begun_anew_because = Some(format!("backup {id} was interrupted, and cannot go on: {what}"));
                }
                Err(error) => return Err(error),
            }
        }
        report.backup = Some(self.write_full(engine, self.new_id(catalog), on_progress)?);
        Ok(report)
    }

    /// The newest full backup that was interrupted, if it is newer than every backup that is there, and of this database.
    fn newest_interrupted(&self, engine: &Engine, catalog: &Catalog) -> Result<Option<Interrupted>, BackupError> {
        let newest =
            catalog.chains.iter().flat_map(|chain| &chain.backups).map(|backup| backup.manifest.backup_id()).max();
        let unfinished = catalog.leftovers.iter().rev().filter(|leftover| !leftover.expired);
        for leftover in unfinished.take_while(|leftover| Some(&leftover.id) > newest.as_ref()) {
            let known = Interrupted::read(&*self.store, &leftover.id)?;
            let ours = |known: &Interrupted| {
                known.kind == BackupKind::Full
                    && known.database_id == engine.database_id().0
                    && known.cluster_id == engine.identity().cluster_id.0
                    && known.timeline == engine.timeline().0
            };
            if let Some(known) = known.filter(ours) {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    pub(super) fn new_id(&self, catalog: &Catalog) -> BackupId {
        let (wall, draw) = (self.surroundings.wall_micros(), self.surroundings.draw());
        BackupId::new(wall, draw, catalog.newest_id().as_ref())
    }

    /// The newest backup, with the journal behind it pinned, or why no increment can follow it.
    pub(super) fn next_increment<'c>(
        &self,
        engine: &Engine,
        catalog: &'c Catalog,
    ) -> Result<Result<(&'c Backup, Pin), WhyFull>, BackupError> {
        let Some(chain) = catalog.chains.last().filter(|chain| !is_followed_by_a_problem(chain, catalog)) else {
            return Ok(Err(WhyFull::First));
        };
        if chain.is_long() {
            let (increment_bytes, full_bytes) = (chain.increment_bytes(), chain.full().stored_bytes);
            return Ok(Err(WhyFull::ChainIsLong { increment_bytes, full_bytes }));
        }
        let end = &chain.newest().manifest.end;
        let pin = match engine.pin("backup", end.next_index(), self.options.hold_bytes) {
            Ok(pin) => pin,
            Err(PinError::Purged { from, oldest, .. }) => return Ok(Err(WhyFull::JournalPurged { from, oldest })),
            Err(error) => return Err(error.into()),
        };
        let there = end.log_id().map(|log_id| (log_id, end.chain));
        let here = there.map(|(log_id, _)| engine.log_id(log_id.index).zip(engine.chain_at(log_id.index)));
        match (there, here) {
            (Some(there), Some(here)) if here != Some(there) => Ok(Err(WhyFull::NotInJournal { index: there.0.index })),
            _ => Ok(Ok((chain.newest(), pin))),
        }
    }

    fn write_increment(
        &self,
        engine: &Engine,
        catalog: &Catalog,
        parent: &Backup,
        pin: &Pin,
        on_progress: OnProgress<'_>,
    ) -> Result<Option<Manifest>, BackupError> {
        let as_of_micros = self.surroundings.wall_micros();
        let (next, until) = (parent.manifest.end.next_index(), engine.stays_until());
        if until <= next {
            return Ok(None);
        }
        let id = self.new_id(catalog);
        let total = engine.journal_bytes_from(next);
        let mut meter = Meter::new(&*self.surroundings, self.options.bytes_per_second, total, on_progress);
        let mut growing = Growing::begin(self, parent, id)?;
        while growing.track.next_index() < until {
            pin.check()?;
            let from = growing.track.next_index();
            let read = engine.read_frames(from, until, self.options.chunk_bytes);
            // A purge may have come between the look at the pin and the journal.
            let frames = read.or_else(|error| pin.check().map_err(BackupError::from).and(Err(error.into())))?;
            assert!(!frames.is_empty(), "the journal is pinned from frame {from} on");
            for frame in frames {
                growing.push(&frame)?;
                meter.moved(Stage::Frames, frame.frame_bytes() as u64)?;
            }
            pin.advance(growing.saved)?;
        }
        growing.end_part()?;
        let manifest = growing.manifest(as_of_micros, true);
        self.finish(&growing.id, &manifest)?;
        Ok(Some(manifest))
    }

    /// The backup as one that nothing is added to any more: only then may another name it by its hash.
    pub(super) fn seal(&self, backup: &Backup) -> Result<Backup, BackupError> {
        if backup.manifest.sealed {
            return Ok(backup.clone());
        }
        let manifest = Manifest { sealed: true, ..backup.manifest.clone() };
        self.finish(&manifest.backup_id(), &manifest)?;
        let manifest_hash = xxhash_rust::xxh3::xxh3_128(&manifest.encode());
        Ok(Backup { manifest, manifest_hash })
    }
}

/// Whether something that cannot be relied on is newer than the chain's end: it may have been its next increment.
fn is_followed_by_a_problem(chain: &Chain, catalog: &Catalog) -> bool {
    let newest = chain.newest().manifest.backup_id();
    catalog.problems.iter().any(|problem| problem.id >= newest)
}
