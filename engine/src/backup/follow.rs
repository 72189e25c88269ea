//! A backup that grows: frames are archived as they are committed.
//!
//! Its caller drives it, step by step; each step that saves
//! 1. puts a part with the frames since the last one,
//! 2. puts the manifest anew, with that part.
//!
//! A crash before 2 leaves a part that the manifest does not name: of this backup, with the next number. That is the one thing
//! that may stand in the folder of a backup that is not sealed, and it counts for nothing. So what a disaster takes is what
//! was committed since the last manifest.
//!
//! A manifest that changes cannot be named by its hash. So a backup that grows is sealed, once, before another follows it:
//! by the follower when it ends or begins another, or by whoever makes the next backup. A follower that finds its manifest
//! changed has lost the place to somebody else, and stops.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::Backups;
use super::catalog::Backup;
use super::error::BackupError;
use super::growing::Growing;
use super::increment::WhyFull;
use super::manifest::{Manifest, Position};
use super::output::{manifest_name, progress_name};
use super::store::StoreError;
use crate::engine::{Engine, JournalTail, Pin, TailNext};
use crate::ids::LogIndex;

/// A backup that grows has no more parts than this, then another one begins: its manifest is put anew with each of them.
const MAX_PARTS: usize = 2048;

/// Archives frames as they are committed. See [`Backups::follow`].
pub struct Follower<'f> {
    backups: &'f Backups,
    engine: Engine,
    tail: JournalTail,
    pin: Pin,
    every: Duration,
    /// What the backup that grows follows; sealed.
    parent: Backup,
    growing: Option<Growing<'f>>,
    /// The manifest of the one that grows, as it was put last.
    put: Option<Vec<u8>>,
    /// When what waits in memory must be in a part.
    due: Option<Duration>,
    /// When nothing that was committed was missing here, by the wall clock.
    as_of_micros: u64,
    full_bytes: u64,
    /// What the increments of the chain take that are complete.
    increment_bytes: u64,
}

/// What a step of a follower did. Exhaustive: its caller does something else after each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Followed {
    /// Frames up to this point are archived.
    Saved(Position),
    /// Nothing had to be saved.
    Nothing,
    /// The increments of the chain take more than half of what its full backup takes: the next backup is to be full. What
    /// grew is sealed. Make a full backup, and follow again.
    FullDue(WhyFull),
    /// The engine was closed. What was committed is archived, and the backup sealed.
    Closed,
}

impl Backups {
    /// Begins to follow the journal behind the newest backup: what is committed is archived at most `every` later, as long
    /// as [`Follower::step`] is called. Where no increment can follow, it says why: make a full backup, and follow that.
    ///
    /// # Errors
    /// As [`Self::incremental`].
    pub fn follow(&self, engine: &Engine, every: Duration) -> Result<Result<Follower<'_>, WhyFull>, BackupError> {
        let catalog = self.list_for(engine)?;
        let (parent, pin) = match self.next_increment(engine, &catalog)? {
            Ok((newest, pin)) => (self.seal(newest)?, pin),
            Err(why) => return Ok(Err(why)),
        };
        let chain = catalog.chains.last().expect("it has a newest backup");
        Ok(Ok(Follower {
            backups: self,
            engine: engine.clone(),
            tail: engine.tail(parent.manifest.end.next_index()),
            pin,
            every,
            growing: None,
            put: None,
            due: None,
            as_of_micros: parent.manifest.as_of_micros,
            full_bytes: chain.full().stored_bytes,
            increment_bytes: chain.increment_bytes(),
            parent,
        }))
    }
}

impl<'f> Follower<'f> {
    /// Waits for a frame, for `patience` at most, and saves what is due. Call it again and again.
    ///
    /// # Errors
    /// [`BackupError::Taken`] when somebody else writes to the place; those of the node and of the place. A follower that has
    /// failed is of no more use: what it has not saved is taken up by the next backup.
    pub fn step(&mut self, patience: Duration) -> Result<Followed, BackupError> {
        if self.increment_bytes + self.growing_bytes() > self.full_bytes / 2 {
            self.end()?;
            let (increment_bytes, full_bytes) = (self.increment_bytes, self.full_bytes);
            return Ok(Followed::FullDue(WhyFull::ChainIsLong { increment_bytes, full_bytes }));
        }
        let time = &self.backups.surroundings;
        let (asked_at, asked_micros) = (time.elapsed(), time.wall_micros());
        let patience = self.due.map_or(patience, |due| patience.min(due.saturating_sub(asked_at)));
        let next = self.tail.next_within(patience)?;
        match next {
            TailNext::Frame(frame) => {
                if self.growing.is_none() {
                    self.growing = Some(self.begin()?);
                }
                let complete = self.growing.as_mut().expect("begun at the latest now").push(&frame)?;
                let due = *self.due.get_or_insert(asked_at + self.every);
                if complete || self.elapsed() >= due { self.save() } else { Ok(Followed::Nothing) }
            }
            TailNext::TimedOut => {
                // There was nothing behind what was read.
                self.as_of_micros = self.as_of_micros.max(asked_micros);
                if self.due.is_some_and(|due| self.elapsed() >= due) { self.save() } else { Ok(Followed::Nothing) }
            }
            TailNext::Closed => {
                self.end()?;
                Ok(Followed::Closed)
            }
        }
    }

    /// Saves what waits, and seals the backup: another may follow it. A later step begins the next one.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn end(&mut self) -> Result<(), BackupError> {
        if self.due.is_some() {
            self.put_manifest()?;
        }
        self.check_put()?;
        let (Some(growing), Some(put)) = (self.growing.take(), self.put.take()) else { return Ok(()) };
        let manifest = growing.manifest(self.as_of_micros, false);
        self.increment_bytes += manifest.stored_bytes;
        self.parent = self.backups.seal(&Backup { manifest, manifest_hash: xxh3_128(&put) })?;
        Ok(())
    }

    /// The first frame that was not read yet.
    #[must_use]
    pub fn next_index(&self) -> LogIndex {
        self.tail.position()
    }

    /// Whether nothing waits to be saved.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.due.is_none()
    }

    fn elapsed(&self) -> Duration {
        self.backups.surroundings.elapsed()
    }

    fn growing_bytes(&self) -> u64 {
        self.growing.as_ref().map_or(0, |growing| growing.output.stored_bytes())
    }

    /// Begins the next increment, if its parent is still the newest backup.
    fn begin(&self) -> Result<Growing<'f>, BackupError> {
        let catalog = self.backups.list_for(&self.engine)?;
        if catalog.chains.last().map(|chain| chain.newest()) != Some(&self.parent) {
            return Err(BackupError::Taken(self.parent.manifest.id.clone()));
        }
        Growing::begin(self.backups, &self.parent, self.backups.new_id(&catalog))
    }

    fn save(&mut self) -> Result<Followed, BackupError> {
        let end = self.put_manifest()?.end;
        if self.growing.as_ref().is_some_and(|growing| growing.output.parts.len() >= MAX_PARTS) {
            self.end()?;
        }
        Ok(Followed::Saved(end))
    }

    /// The two steps.
    fn put_manifest(&mut self) -> Result<Manifest, BackupError> {
        self.check_put()?;
        let growing = self.growing.as_mut().expect("frames wait");
        growing.end_part()?;
        let manifest = growing.manifest(self.as_of_micros, false);
        let bytes = manifest.encode();
        let store = &*self.backups.store;
        store.put(&manifest_name(&growing.id), &bytes)?;
        if self.put.replace(bytes).is_none() {
            store.delete(&progress_name(&growing.id))?;
        }
        self.due = None;
        self.pin.advance(growing.saved)?;
        Ok(manifest)
    }

    /// Whether the manifest is still the one that was put last.
    fn check_put(&self) -> Result<(), BackupError> {
        let (Some(growing), Some(put)) = (&self.growing, &self.put) else { return Ok(()) };
        let found = match self.backups.store.read(&manifest_name(&growing.id), 0, put.len() + 1) {
            Err(StoreError::NotFound { .. }) => Vec::new(),
            read => read?,
        };
        if found == *put { Ok(()) } else { Err(BackupError::Taken(growing.id.as_str().to_owned())) }
    }
}
