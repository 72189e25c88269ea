//! The receiving side: filled, verified, switched in. Only the last changes anything that the node stands on, and only
//! that must wait for nothing else: a node goes on with its old generation while the new one is verified.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::{SeedChunk, SeedError, SeedManifest, SeedResume};
use crate::checkpoint::NodeMeta;
use crate::engine::{Core, Engine, Faults, Paths, open_store};
use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{Generation, LogId, LogIndex, PageNumber};
use crate::journal::frame::Frame;
use crate::journal::{Journal, JournalOptions, LogStart};
use crate::page::{PAGE_BYTES, Page};
use crate::recovery::replay::{advance, for_each_frame, timeline_of};
use crate::store::{AppliedState, AtOnce, DataFile, NewPages, NoProof, Store, carried, digest_of_file};

/// Each time that so many bytes of frames have come, it is looked whether there is space for more. Few in tests.
const LOOK_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 64 << 20 };

/// Builds a new generation from a stream, and switches to it when it is complete and verified. Dropped before, it
/// removes what it built.
///
/// The switch is one write of `node.meta`. If that fails, nobody knows which generation the next start will read, and
/// both are complete: neither is removed, and nothing more is written to the old one, so that it makes no difference.
/// The next start makes what it reads durable, and removes the other when that is open.
pub struct SeedReceiver {
    core: Arc<Core>,
    generation: Generation,
    home: PathBuf,
    phase: Phase,
    bytes: u64,
    pages: u64,
    /// After so many more bytes of frames it is looked whether there is space for others.
    frames_until_look: u64,
    progress: SeedProgress,
    finished: bool,
    // Last, so that another receiver begins only when this one has cleared up.
    _seat: Seat,
}

/// How much a receiver has done: a number that grows with every piece fed, and with every frame and page looked at when
/// it is verified. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct SeedProgress(Arc<AtomicU64>);

impl SeedProgress {
    /// The number. Only that it grows has a meaning.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Held by the one receiver of an engine.
struct Seat(Arc<Core>);

impl Seat {
    fn take(core: &Arc<Core>) -> Option<Self> {
        let free = !core.seeding.swap(true, Ordering::AcqRel);
        free.then(|| Self(core.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seeding.store(false, Ordering::Release);
    }
}

enum Phase {
    Start,
    Pages(Building),
    Frames(Building),
    Complete(Building),
    Broken,
}

struct Building {
    pages: NewPages<AtOnce>,
    journal: Journal,
    checkpoint: AppliedState,
    page_count: u32,
    /// The frames go at least so far.
    target: Option<LogId>,
}

impl Engine {
    /// Begins a new generation. The node's state is untouched until [`VerifiedSeed::switch`].
    ///
    /// # Errors
    /// [`SeedError::Busy`] while there is another receiver of this engine; those of the disk.
    #[doc(hidden)]
    pub fn seed_receiver(&self) -> Result<SeedReceiver, SeedError> {
        let seat = Seat::take(&self.core).ok_or(SeedError::Busy)?;
        let current = {
            let meta = self.core.meta.lock();
            // After a switch that failed half-way it is not known which generation is the node's.
            meta.check()?;
            meta.value.generation
        };
        let highest = Paths::highest_generation(&*self.core.disk, &self.core.directory)?;
        let generation = highest.max(Some(current)).expect("one of them is there").next();
        let home = Paths::generation(&self.core.directory, generation);
        self.core.disk.create_dir_all(&home)?;
        Ok(SeedReceiver {
            core: self.core.clone(),
            generation,
            home,
            phase: Phase::Start,
            bytes: 0,
            pages: 0,
            frames_until_look: LOOK_BYTES,
            progress: SeedProgress::default(),
            finished: false,
            _seat: seat,
        })
    }
}

impl SeedReceiver {
    /// Bytes received, for progress.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How far it is, to be watched while another thread verifies it.
    #[must_use]
    pub fn progress(&self) -> SeedProgress {
        self.progress.clone()
    }

    /// Takes the next piece. After an error the receiver is of no more use.
    pub fn feed(&mut self, chunk: SeedChunk) -> Result<(), SeedError> {
        self.progress.step();
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Broken), chunk) {
            (Phase::Start, SeedChunk::Manifest(bytes)) => Phase::Pages(self.start(&bytes)?),
            (Phase::Pages(mut building), SeedChunk::Pages { first, bytes, target }) => {
                building.pages.check(first, &bytes).map_err(SeedError::Stream)?;
                self.bytes += bytes.len() as u64;
                self.pages += (bytes.len() / PAGE_BYTES) as u64;
                building.pages.take(first, bytes)?;
                building.target = building.target.max(target);
                Phase::Pages(building)
            }
            (Phase::Pages(mut building), SeedChunk::PagesDone { target, pages_sent, .. }) => {
                if pages_sent != self.pages {
                    let what = format!("{pages_sent} pages were sent and {} arrived", self.pages);
                    return Err(SeedError::Stream(what));
                }
                building.pages.end()?;
                let AtOnce(data) = building.pages.sink();
                if !Faults::planted(self.core.options.faults.no_sync_before_switch) {
                    data.sync_data()?;
                }
                building.pages = NewPages::complete(AtOnce(data.clone()), building.page_count);
                building.target = building.target.max(target);
                Phase::Frames(building)
            }
            (Phase::Pages(building), SeedChunk::Frames(frames)) => Phase::Pages(self.append(building, frames)?),
            (Phase::Frames(building), SeedChunk::Frames(frames)) => Phase::Frames(self.append(building, frames)?),
            (Phase::Frames(building), SeedChunk::Done { last, chain }) => {
                let journal = &building.journal;
                if last < building.target || journal.last() != last || journal.last_chain() != chain {
                    let what = format!("it ends at {last:?}, and the frames at {:?}", journal.last());
                    return Err(SeedError::Stream(what));
                }
                Phase::Complete(building)
            }
            _ => return Err(SeedError::Stream("a piece out of order".into())),
        };
        Ok(())
    }

    /// Leaves the stream that it was fed from, which was broken off, for one that goes on from there, maybe of another
    /// source: that one begins without a manifest. Says where it goes on; `None` if nothing was received, or nothing
    /// is of any use.
    pub fn resume(&mut self) -> Option<SeedResume> {
        let building = match std::mem::replace(&mut self.phase, Phase::Broken) {
            Phase::Pages(building) | Phase::Frames(building) | Phase::Complete(building) => building,
            other => {
                self.phase = other;
                return None;
            }
        };
        let resume = SeedResume {
            checkpoint: building.checkpoint.clone(),
            page_count: building.page_count,
            next_page: building.pages.next(),
            pages_sent: self.pages,
            target: building.target,
            last: building.journal.last(),
            chain: building.journal.last_chain(),
        };
        self.phase = Phase::Pages(building);
        Some(resume)
    }

    fn append(&mut self, building: Building, frames: Vec<Frame>) -> Result<Building, SeedError> {
        if frames.is_empty() {
            // Who sends it only says that he is there: nothing to sync.
            return Ok(building);
        }
        let bytes = frames.iter().map(|frame| frame.frame_bytes() as u64).sum::<u64>();
        self.bytes += bytes;
        self.frames_until_look = self.frames_until_look.saturating_sub(bytes);
        if self.frames_until_look == 0 {
            self.check_space(0)?;
            self.frames_until_look = LOOK_BYTES;
        }
        append(&building.journal, frames)?;
        Ok(building)
    }

    fn start(&mut self, manifest: &Bytes) -> Result<Building, SeedError> {
        let SeedManifest { database_id, page_count, checkpoint } = SeedManifest::decode(manifest)?;
        if database_id != self.core.database_id {
            let (expected, found) = (self.core.database_id.to_string(), database_id.to_string());
            return Err(SeedError::OtherDatabase { expected, found });
        }
        self.check_space(page_count)?;
        let disk = &self.core.disk;
        let data = disk.open(&Paths::data(&self.home), OpenMode::CreateNew)?;
        data.set_len(u64::from(page_count) * PAGE_BYTES as u64)?;
        let start = LogStart { previous: checkpoint.log_id, chain: checkpoint.chain };
        let options = self.journal_options();
        let journal = Journal::create(disk.clone(), &Paths::journal(&self.home), start, options)?;
        let pages = NewPages::new(AtOnce(data), page_count);
        Ok(Building { pages, journal, checkpoint, page_count, target: None })
    }

    /// What this node has accepted needs its space: a seeding that would take it is not begun, and ends when its frames,
    /// of which nobody knows how many come, have come so far.
    fn check_space(&self, page_count: u32) -> Result<(), SeedError> {
        let space = self.core.space(&self.core.store());
        let segment_bytes = self.core.meta.lock().value.segment_bytes;
        let wanted = u64::from(page_count) * PAGE_BYTES as u64 + 2 * segment_bytes + space.needed_bytes;
        match space.free_bytes {
            Some(free) if free < wanted => {
                let what =
                    format!("the seed may need {wanted} bytes, and {free} are free: free some on that file system");
                let error = std::io::Error::new(std::io::ErrorKind::StorageFull, what);
                Err(StorageError::io(&self.home, 0, "seed", &error).into())
            }
            _ => Ok(()),
        }
    }

    fn journal_options(&self) -> JournalOptions {
        let segment_bytes = self.core.meta.lock().value.segment_bytes;
        JournalOptions { segment_bytes, ..self.core.options.journal }
    }

    /// Verifies the new generation and switches to it. Returns the state that the node has applied now.
    pub fn finish(self) -> Result<AppliedState, SeedError> {
        self.verify()?.switch()
    }

    /// Opens the new generation beside the current one, replays it and verifies every page. Takes as long as that is
    /// long; the node's state is untouched.
    pub fn verify(mut self) -> Result<VerifiedSeed, SeedError> {
        let Phase::Complete(building) = std::mem::replace(&mut self.phase, Phase::Broken) else {
            return Err(SeedError::Stream("it ended before its end".into()));
        };
        let Building { journal, checkpoint, page_count, .. } = building;
        let target = journal.last().map(|log_id| (log_id, journal.last_chain()));
        journal.close();
        drop(journal);
        let disk = self.core.disk.clone();
        disk.sync_dir(&self.home)?;
        disk.sync_dir(&self.core.directory)?;

        let target = self.target_of(&checkpoint, target)?;
        let meta = self.meta_with(&checkpoint, &target, self.core.meta.lock().value.clone());
        let directory = self.core.directory.clone();
        let (counters, lock) = (self.core.counters.clone(), self.core.lock.clone());
        let opened = open_store(&disk, &directory, &meta, &self.core.options, counters, lock)?;
        verify(&*self.core.disk, &self.home, &opened.store, &self.progress)?;
        Ok(VerifiedSeed { store: opened.store, checkpoint, target, page_count, receiver: self })
    }

    /// `current`, as it is once the new generation is switched in.
    fn meta_with(&self, checkpoint: &AppliedState, target: &AppliedState, current: NodeMeta) -> NodeMeta {
        NodeMeta {
            generation: self.generation,
            checkpoint: checkpoint.clone(),
            target: target.clone(),
            purged: None,
            ..current
        }
    }

    /// The state at the end of the frames: what the last record says, or the checkpoint if there is none.
    fn target_of(
        &self,
        checkpoint: &AppliedState,
        end: Option<(crate::ids::LogId, u64)>,
    ) -> Result<AppliedState, SeedError> {
        let (journal, _) = Journal::open(self.core.disk.clone(), &Paths::journal(&self.home), self.journal_options())?;
        let path = Paths::data(&self.home);
        let data = DataFile::open(&*self.core.disk, &path, OpenMode::Read, self.core.options.map_bytes)?;
        let timeline = timeline_of(&data)?;
        let mut target = checkpoint.clone();
        let from = checkpoint.log_id.map_or(0, |log_id| log_id.index.0 + 1);
        let until = end.map_or(0, |(log_id, _)| log_id.index.0 + 1);
        for_each_frame::<SeedError>(&journal, from, until.max(from), |frame| {
            self.progress.step();
            advance(&mut target, timeline, frame)
                .map(drop)
                .map_err(|error| SeedError::Stream(format!("frame {}: {error}", frame.log_id())))
        })?;
        journal.close();
        Ok(target)
    }

    /// Makes the new generation the node's. What the old journal holds behind the new state, of the same history, comes
    /// along: it may have been acknowledged to a leader.
    fn switch(
        &mut self,
        store: Store,
        checkpoint: &AppliedState,
        target: &AppliedState,
    ) -> Result<AppliedState, SeedError> {
        let _awaited = self.core.bell.await_checkpoint();
        let _one = self.core.maintenance.lock();
        // From here on it is the node's.
        store.journal.draw_on(self.core.reserve.clone());
        let old = self.core.store();
        // No frame may be queued to the old journal behind the copy: the lock on the store is held until the switch.
        let mut current = self.core.store.exclusive();
        let applied = store.readers.newest().applied.clone();
        let old_applied = old.readers.newest().applied.log_id;
        if applied.log_id < old_applied {
            let what = format!("it ends at {:?}, and this node has applied {old_applied:?}", applied.log_id);
            return Err(SeedError::Stream(what));
        }
        let (next, same_history) = match applied.log_id {
            Some(log_id) => (log_id.index.0 + 1, old.journal.chain(log_id.index) == Some(applied.chain)),
            None => (0, old.journal.first_kept().previous.is_none()),
        };
        if same_history {
            let end = old.journal.last().map_or(0, |last| last.index.0 + 1);
            for_each_frame::<StorageError>(&old.journal, next, end, |frame| {
                append(&store.journal, vec![frame.clone()])
            })?;
        }
        // Whatever `update` says, from here on `node.meta` may name the new generation: it stays.
        self.finished = true;
        let switched = self.core.meta.lock().update(|value| *value = self.meta_with(checkpoint, target, value.clone()));
        if let Err(error) = switched {
            stop(&self.core, &old, &error);
            return Err(error.into());
        }
        self.core.pins.go_along(old.generation, &store);
        current.replace(store);
        *self.core.finished.lock() = checkpoint.log_id;
        drop(current);
        old.journal.note_replaced();
        old.retire(&self.core.disk);
        Ok(applied)
    }
}

/// A new generation that is complete and verified, and not switched in. Dropped, it removes what was built.
pub struct VerifiedSeed {
    // Before the receiver, which removes the files that are open here.
    store: Store,
    checkpoint: AppliedState,
    target: AppliedState,
    /// Of the stream.
    page_count: u32,
    receiver: SeedReceiver,
}

impl VerifiedSeed {
    /// The state that it holds.
    #[must_use]
    pub fn applied(&self) -> AppliedState {
        self.store.readers.newest().applied.clone()
    }

    /// Makes it the node's: one slot write. Returns the state that the node has applied now.
    pub fn switch(self) -> Result<AppliedState, SeedError> {
        // Dropped in the opposite order: the store first.
        let Self { mut receiver, checkpoint, target, store, .. } = self;
        receiver.switch(store, &checkpoint, &target)
    }

    /// Makes it a receiver again, which goes on with frames behind its end: [`SeedReceiver::resume`] says where.
    ///
    /// # Errors
    /// Those of the disk; what was received is gone then.
    pub fn reopen(self) -> Result<SeedReceiver, SeedError> {
        let Self { mut receiver, checkpoint, target, page_count, store } = self;
        store.journal.close();
        drop(store);
        let disk = &receiver.core.disk;
        let data = disk.open(&Paths::data(&receiver.home), OpenMode::Write)?;
        let (journal, _) = Journal::open(disk.clone(), &Paths::journal(&receiver.home), receiver.journal_options())?;
        let pages = NewPages::complete(AtOnce(data), page_count);
        receiver.phase = Phase::Complete(Building { pages, journal, checkpoint, page_count, target: target.log_id });
        Ok(receiver)
    }
}

impl Drop for SeedReceiver {
    fn drop(&mut self) {
        if self.finished || self.core.meta.lock().value.generation == self.generation {
            return;
        }
        self.phase = Phase::Broken;
        if let Err(error) = self.core.disk.remove_dir_all(&self.home) {
            tracing::warn!(%error, "what an unfinished seeding left goes at the next start");
        }
    }
}

/// Ends the old generation, too: the next start may read the new one, and must miss nothing that was acknowledged.
fn stop(core: &Core, old: &Store, error: &StorageError) {
    core.failed.lock().get_or_insert_with(|| error.clone());
    let (stopped, heard) = mpsc::channel();
    let why = error.clone();
    let done = move |result| {
        // Somebody listens until the journal has stopped.
        let _ = stopped.send(result);
    };
    if old.journal.run_in_order(Box::new(move || Err(why)), Box::new(done)).is_ok() {
        // Its outcome is an error in any case.
        let _ = heard.recv();
    }
}

/// Appends frames and waits until they are durable.
fn append(journal: &Journal, frames: Vec<Frame>) -> Result<(), StorageError> {
    let mut chain = journal.last_chain();
    let next = journal.last().map_or(0, |log_id| log_id.index.0 + 1);
    for (next, frame) in (next..).zip(&frames) {
        if !frame.follows(chain) || frame.log_id().index != LogIndex(next) {
            let what = format!("frame {} does not follow the one before", frame.log_id());
            return Err(StorageError::corrupted("the seed stream", 0, what));
        }
        chain = frame.chain();
    }
    let (done, synced) = mpsc::channel();
    journal.append(
        frames,
        Box::new(move |result| {
            // Nobody listens any more only if seeding has failed already.
            let _ = done.send(result);
        }),
    )?;
    synced.recv().unwrap_or_else(|_| Err(StorageError::Poisoned("the journal was closed".into())))
}

/// Checks every page of the store against its checksum, and all of them against the digest.
fn verify(disk: &dyn Disk, home: &Path, store: &Store, progress: &SeedProgress) -> Result<(), SeedError> {
    let view = store.readers.newest();
    let snapshot = view.applied.txn_id;
    let sum_of = |number: PageNumber, page: &Page| match store.versions.newest_at(number, snapshot) {
        Some(image) => Ok(image.checksum()),
        // It has been read, and was found right: what the file must hold is known from here on.
        None => carried(number, page).map(|sum| store.data.sums().get_or_adopt(number, sum)),
    };
    let mut seen = |_| {
        progress.step();
        ControlFlow::Continue(())
    };
    // Opened anew: no handle that wrote it reads it.
    let file = disk.open(&Paths::data(home), OpenMode::Read)?;
    let found =
        digest_of_file(&*file, view.superblock.page_count, &sum_of, &mut seen).map_err(|error| match error {
            NoProof::Storage(error) => SeedError::Storage(error),
            NoProof::Damaged(what) => SeedError::Stream(what),
            NoProof::Stopped => unreachable!("nobody stops it"),
        })?;
    let expected = view.applied.digest;
    if found == expected { Ok(()) } else { Err(SeedError::Digest { expected, found }) }
}
