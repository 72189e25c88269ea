//! Spare segments: files of a segment's size, made ahead or kept when a segment is purged or cut away, so that
//! beginning a segment costs a rename and no zeros.
//!
//! A file counts as spare only once its new name is durable: before that, a crash could bring it back under its old
//! name with new bytes in it. Purged segments go one by one, oldest first, each durably, so that no crash leaves a gap
//! in the numbers.
//!
//! Checkpoints purge several segments at a time, so several are kept: with one, every second segment was zeroed anew, a
//! quarter of all that a node wrote. A spare that cannot be made (the disk is full) keeps nothing else back: purged segments
//! go on to be spares, and it is tried again.
//!
//! Zeroing takes as much of the disk as the journal itself while a directory is young, so it gives way: it pauses between
//! pieces while the journal is at work. And nobody waits for zeros: when the writer needs a segment and none is ready, the
//! rest of the one that is being made gets its space unwritten. That is as good for every promise, since such space reads as
//! zeros and cannot run out, and better for long groups; only small ones are slower there, once.
//!
//! # A full disk
//!
//! The frames that the writer needs a segment for are in the journal already: it cannot refuse them. So where no spare can be
//! made for want of space, the [`Reserve`](crate::space::Reserve) is drawn on, and when that is used up, too, the writer waits and tries again:
//! nothing was written, nobody was told anything, and there may be space in a moment. ([`crate::space`] has the reasons why
//! it should not come to that.) Only a journal that has a reserve to draw on, if it be of no bytes, waits: one that is being
//! built by a seeding fails, and its files go. So does one in inline mode, whose caller is the one who could make space.
//! While space is short, spares that nobody needs are given back.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::journal::JournalMode;
use crate::journal::format::{Geometry, segment_path, spare_number, spare_path};
use crate::journal::run::Shared;
use crate::journal::segment::{Zeroing, make_zeroed};
use crate::journal::state::State;

/// Spares that are kept; more are removed. As many as a checkpoint purges at once: 256 MiB and what was begun meanwhile.
pub(super) const KEPT_SPARES: usize = 6;
/// The same while space is short: the next segment.
const KEPT_WHEN_SHORT: usize = 1;
/// How long zeroing pauses after each piece while the journal is at work; a piece takes some 3 ms of the disk.
const PAUSE: Duration = Duration::from_millis(10);
/// How long after a failure the same is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the writer waits on a full disk before it tries again.
const SPACE_PAUSE: Duration = Duration::from_millis(200);

/// The spares, and what is to be done about them.
#[derive(Default)]
pub(super) struct Spares {
    ready: Vec<PathBuf>,
    next_number: u64,
    wanted: bool,
    /// The writer waits for one.
    urgent: bool,
    /// Purged segments whose files are still there, ascending.
    purged: VecDeque<u64>,
    working: bool,
    /// Bytes of the one that is being made, so far.
    made_bytes: u64,
    /// Space is short.
    short: bool,
    /// The writer waits for space.
    starved: bool,
    /// Why the last one could not be made, and when.
    not_made: Option<Failure>,
    /// Why the oldest purged segment could not be taken away, and when.
    not_retired: Option<Failure>,
}

struct Failure {
    error: StorageError,
    at: Instant,
}

fn is_due(failure: Option<&Failure>) -> bool {
    failure.is_none_or(|failure| failure.at.elapsed() >= RETRY_AFTER)
}

enum Task {
    Retire { segment: u64, keep_as: Option<u64> },
    Make { spare: u64 },
    Remove { spare: PathBuf },
}

impl Spares {
    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Bytes that are written of the one that is being made.
    pub fn made_bytes(&self) -> u64 {
        self.made_bytes
    }

    /// Whether the writer waits because the disk is full.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Says whether space is short.
    pub fn set_short(&mut self, short: bool) {
        self.short = short;
    }

    /// How many are kept.
    fn kept(&self) -> usize {
        if self.short { KEPT_WHEN_SHORT } else { KEPT_SPARES }
    }

    /// Whether a purged segment is kept as one more.
    fn has_place(&self) -> bool {
        self.ready.len() < self.kept()
    }

    /// Asks for one more, if none is ready.
    pub fn want(&mut self) {
        self.wanted = self.ready.is_empty();
    }

    /// Gives purged segments over.
    pub fn retire(&mut self, segments: Vec<u64>) {
        self.purged.extend(segments);
    }

    fn next(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn has_purged(&self) -> bool {
        !self.purged.is_empty()
    }

    fn may_retire(&self) -> bool {
        !self.purged.is_empty() && is_due(self.not_retired.as_ref())
    }

    /// Whether there is something to do now.
    pub fn has_task(&self) -> bool {
        let may_make = self.wanted && self.ready.is_empty() && is_due(self.not_made.as_ref());
        (self.may_retire() || self.has_too_many() || may_make) && !self.working
    }

    fn has_too_many(&self) -> bool {
        self.ready.len() > self.kept()
    }

    fn take_task(&mut self) -> Option<Task> {
        if !self.has_task() {
            return None;
        }
        self.working = true;
        if self.may_retire()
            && let Some(segment) = self.purged.pop_front()
        {
            let keep_as = self.has_place().then(|| self.next());
            return Some(Task::Retire { segment, keep_as });
        }
        if self.has_too_many()
            && let Some(spare) = self.ready.pop()
        {
            return Some(Task::Remove { spare });
        }
        Some(Task::Make { spare: self.next() })
    }
}

/// Does one thing that is to be done; false when there is nothing. With `may_stop`, zeroing ends early on closing.
fn housekeep(shared: &Shared, may_stop: bool) -> Result<bool, StorageError> {
    let Some(task) = shared.state.lock().spares.take_task() else { return Ok(false) };
    let (disk, directory) = (&*shared.disk, shared.directory.as_path());
    let outcome = match &task {
        Task::Retire { segment, keep_as } => retire_file(disk, directory, *segment, *keep_as),
        Task::Make { spare } => {
            let path = spare_path(directory, *spare);
            let next = |done| how_to_go_on(shared, done, may_stop);
            make_zeroed(disk, &path, shared.geometry.segment_bytes, &next).and_then(|finished| {
                disk.sync_dir(directory)?;
                Ok(finished.then_some(path))
            })
        }
        Task::Remove { spare } => disk.remove_file(spare).map(|()| None),
    };
    let mut state = shared.state.lock();
    (state.spares.working, state.spares.made_bytes) = (false, 0);
    shared.spare_wake.notify_all();
    match outcome {
        Ok(spare) => {
            match task {
                Task::Retire { .. } => state.spares.not_retired = None,
                Task::Make { .. } => (state.spares.not_made, state.spares.starved) = (None, false),
                Task::Remove { .. } => {}
            }
            state.spares.ready.extend(spare);
            Ok(true)
        }
        Err(error) => {
            let failure = Some(Failure { error: error.clone(), at: Instant::now() });
            match task {
                Task::Retire { segment, .. } => {
                    // No later one may go before it: the numbers on disk stay without a gap.
                    state.spares.purged.push_front(segment);
                    state.spares.not_retired = failure;
                }
                Task::Make { .. } => state.spares.not_made = failure,
                // It takes its space until the journal is opened again.
                Task::Remove { .. } => {}
            }
            Err(error)
        }
    }
}

/// Gives way to the journal, but not to somebody who waits for this very file.
fn how_to_go_on(shared: &Shared, done: u64, may_stop: bool) -> Zeroing {
    let mut state = shared.state.lock();
    state.spares.made_bytes = done;
    if shared.options.mode == JournalMode::Threaded && state.is_busy() && !state.spares.urgent && !state.closing {
        shared.spare_wake.wait_for(&mut state, PAUSE);
    }
    match (may_stop && state.closing, state.spares.urgent) {
        (true, _) => Zeroing::Stop,
        (false, true) => Zeroing::AllocateTheRest,
        (false, false) => Zeroing::GoOn,
    }
}

/// Takes a segment out of the journal; durable when it returns. Returns its path if it was kept as a spare.
fn retire_file(
    disk: &dyn Disk,
    directory: &Path,
    segment: u64,
    keep_as: Option<u64>,
) -> Result<Option<PathBuf>, StorageError> {
    let path = segment_path(directory, segment);
    let kept = keep_as.map(|number| spare_path(directory, number));
    match &kept {
        Some(spare) => disk.rename(&path, spare)?,
        None => disk.remove_file(&path)?,
    }
    disk.sync_dir(directory)?;
    Ok(kept)
}

/// Takes away, at once, segments behind a cut: their names are needed again.
pub(super) fn retire_now(shared: &Shared, segments: &[u64]) -> Result<(), StorageError> {
    for segment in segments.iter().rev() {
        let keep_as = {
            let spares = &mut shared.state.lock().spares;
            spares.has_place().then(|| spares.next())
        };
        let kept = retire_file(&*shared.disk, &shared.directory, *segment, keep_as)?;
        shared.state.lock().spares.ready.extend(kept);
    }
    Ok(())
}

/// A spare for the writer: one that is ready, or one made now.
pub(super) fn take(shared: &Shared) -> Result<PathBuf, StorageError> {
    let mut state = shared.state.lock();
    // Now it is needed: whatever failed is tried once more, at once.
    (state.spares.not_made, state.spares.not_retired) = (None, None);
    loop {
        if let Some(path) = state.spares.ready.pop() {
            (state.spares.wanted, state.spares.urgent, state.spares.starved) = (false, false, false);
            return Ok(path);
        }
        // Noted until then, so that the spare thread does not try again before it is time.
        if let Some(error) = state.spares.not_made.as_ref().map(|failure| failure.error.clone()) {
            let again = may_try_again(shared, &mut state, &error);
            state.spares.not_made = None;
            if again {
                continue;
            }
            state.spares.urgent = false;
            return Err(error);
        }
        state.accepts_work()?;
        state.spares.wanted = true;
        // While closing, the spare thread may be gone: then the writer does its work.
        if shared.options.mode == JournalMode::Threaded && (state.spares.working || !state.closing) {
            state.spares.urgent = true;
            shared.spare_wake.notify_all();
            shared.spare_wake.wait(&mut state);
        } else {
            drop(state);
            let failed = housekeep(shared, false).err();
            state = shared.state.lock();
            if let Some(error) = failed.filter(|_| state.spares.not_made.is_none()) {
                return Err(error);
            }
        }
    }
}

/// Whether a spare that could not be made is to be tried again: there is no space, and the reserve gives some, or somebody
/// else may. Waits for that.
fn may_try_again(shared: &Shared, state: &mut MutexGuard<'_, State>, error: &StorageError) -> bool {
    let Some(reserve) = shared.reserve.get().filter(|_| error.wants_space()) else { return false };
    if MutexGuard::unlocked(state, || reserve.give(shared.geometry.segment_bytes)) > 0 {
        return true;
    }
    if shared.options.mode == JournalMode::Inline || state.closing {
        return false;
    }
    if !std::mem::replace(&mut state.spares.starved, true) {
        tracing::error!(%error, "the disk is full and the reserve is used up: the journal waits for space");
    }
    shared.spare_wake.wait_for(state, SPACE_PAUSE);
    true
}

/// Does all there is to do now (inline mode). A spare that finds no space is not needed yet: that is no failure of anything.
pub(super) fn housekeep_all(shared: &Shared) -> Result<(), StorageError> {
    loop {
        match housekeep(shared, false) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.wants_space() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The spare thread of threaded mode. On closing it still takes purged segments away, but makes no more spares; an
/// unfinished one is removed by the next opening.
pub(super) fn run(shared: &Shared) {
    loop {
        {
            let mut state = shared.state.lock();
            while !state.closing && !state.spares.has_task() {
                shared.spare_wake.wait(&mut state);
            }
            if state.closing && !(state.spares.has_task() && state.spares.has_purged()) {
                return;
            }
        }
        if let Err(error) = housekeep(shared, true)
            && !shared.state.lock().spares.starved
        {
            tracing::warn!(%error, "no spare journal segment could be prepared");
        }
    }
}

/// Finds the spares of a directory when a journal is opened: one of the right size stays, the others and the segments
/// that belong to no live frame go (or become the spare).
pub(super) fn tidy(
    disk: &dyn Disk,
    directory: &Path,
    geometry: Geometry,
    strays: &[u64],
) -> Result<Spares, StorageError> {
    let mut spares = Spares::default();
    for name in disk.list_dir(directory)? {
        let Some(number) = spare_number(&name) else { continue };
        spares.next_number = spares.next_number.max(number);
        let path = directory.join(&name);
        let whole = disk.open(&path, OpenMode::Read)?.len()? == geometry.segment_bytes;
        if whole && spares.has_place() {
            spares.ready.push(path);
        } else {
            disk.remove_file(&path)?;
        }
    }
    disk.sync_dir(directory)?;
    for segment in strays.iter().rev() {
        let keep_as = spares.has_place().then(|| spares.next());
        spares.ready.extend(retire_file(disk, directory, *segment, keep_as)?);
    }
    Ok(spares)
}
