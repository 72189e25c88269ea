//! The handle: what the rest of the engine, and the consensus, may ask of the journal.

use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::{self, Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, LogIndex};
use crate::journal::cache::Cache;
use crate::journal::dones::{Done, panicked};
use crate::journal::format::{
    FIRST_SEGMENT, Geometry, LogStart, MIN_SEGMENT_BYTES, SEGMENT_HEADER_BYTES, is_segment_size, segment_number,
    segment_path, span, spare_path,
};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, MAX_PAYLOAD_BYTES};
use crate::journal::index::Index;
use crate::journal::options::{JournalMode, JournalOptions};
use crate::journal::reader;
use crate::journal::run::{self, Shared};
use crate::journal::scan::{self, Scan};
use crate::journal::segment::{SegmentHeader, Zeroing, make_zeroed};
use crate::journal::spare::{self, Spares};
use crate::journal::state::{InOrder, JournalStats, Segment, State};
use crate::journal::writer::Writer;
use crate::space::Reserve;

/// Who is to work the queue off, in threaded mode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Thread,
    Caller,
}

/// The journal. Handles are cheap to clone; the last one that is dropped closes it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Makes a new journal in `directory` (made if missing), whose first frame follows `start`. It is durable when this
    /// returns.
    ///
    /// # Errors
    /// Those of the disk, of options out of range, and `AlreadyExists` if segments are there.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        start: LogStart,
        options: JournalOptions,
    ) -> Result<Self, StorageError> {
        let refuse = |kind, what: String| {
            Err(StorageError::io(directory, 0, "create journal", &std::io::Error::new(kind, what)))
        };
        if !is_segment_size(options.segment_bytes) {
            let what =
                format!("{} is no segment size: multiples of 512 from {MIN_SEGMENT_BYTES}", options.segment_bytes);
            return refuse(std::io::ErrorKind::InvalidInput, what);
        }
        env::create_dir_durable(&*disk, directory)?;
        if disk.list_dir(directory)?.iter().any(|name| segment_number(name).is_some()) {
            return refuse(std::io::ErrorKind::AlreadyExists, "a journal is there already".into());
        }
        let geometry = Geometry { segment_bytes: options.segment_bytes };
        let unnamed = spare_path(directory, 0);
        make_zeroed(&*disk, &unnamed, options.segment_bytes, &|_| Zeroing::GoOn)?;
        let header = SegmentHeader {
            number: FIRST_SEGMENT,
            segment_bytes: options.segment_bytes,
            first_group: 1,
            epoch: 0,
            start,
        };
        let file = disk.open(&unnamed, OpenMode::Write)?;
        file.write_at(&[std::io::IoSlice::new(&header.encode()[..])], 0)?;
        file.sync_data()?;
        let path = segment_path(directory, FIRST_SEGMENT);
        disk.rename(&unnamed, &path)?;
        disk.sync_dir(directory)?;
        let writer = Writer {
            geometry,
            segment: FIRST_SEGMENT,
            file: disk.open(&path, OpenMode::WriteBlocks)?,
            offset: SEGMENT_HEADER_BYTES,
            number: 0,
            epoch: 0,
            attested: geometry.position(FIRST_SEGMENT, SEGMENT_HEADER_BYTES),
            last: start,
            must_cut: false,
            tail: None,
        };
        let segment = Segment { number: FIRST_SEGMENT, start, file: disk.open(&path, OpenMode::Read)? };
        let cache = Cache::new(options.cache_bytes);
        let state = State::new(geometry, Index::new(start), cache, [segment].into(), Spares::default());
        Ok(Self::start(disk, directory, options, state, writer))
    }

    /// Opens the journal in `directory`: verifies every frame, finds the end, makes it durable (see [`super`]).
    ///
    /// With damage the journal opens too: [`Scan::damage`] says where. Then frames before it can be read, and `append`
    /// is refused until `cut_after` was called (which gives up what follows the cut).
    ///
    /// # Errors
    /// Those of the disk, and a first segment whose header cannot be read.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path, options: JournalOptions) -> Result<(Self, Scan), StorageError> {
        let scan::Opened { scan, syncs, index, segments, writer, strays } = scan::open(&disk, directory)?;
        let kept_strays = if scan.damage.is_some() { strays.clone() } else { Vec::new() };
        let removed: &[u64] = if scan.damage.is_some() { &[] } else { &strays };
        let spares = spare::tidy(&*disk, directory, writer.geometry, removed)?;
        let cache = Cache::new(options.cache_bytes);
        let mut state = State::new(writer.geometry, index, cache, segments, spares);
        state.strays = kept_strays;
        state.damaged = scan.damage.as_ref().map(crate::journal::Damage::error);
        state.end_offset = writer.offset;
        (state.stats.cuts, state.stats.syncs) = (u64::from(scan.damage.is_none()), syncs);
        Ok((Self::start(disk, directory, options, state, writer), scan))
    }

    fn start(disk: Arc<dyn Disk>, directory: &Path, options: JournalOptions, state: State, writer: Writer) -> Self {
        let shared = Arc::new(Shared {
            disk,
            directory: directory.to_path_buf(),
            options,
            geometry: writer.geometry,
            state: Mutex::new(state),
            writer: Mutex::new(writer),
            wake: Condvar::new(),
            spare_wake: Condvar::new(),
            progress: Condvar::new(),
            reserve: OnceLock::new(),
        });
        let mut threads = Vec::new();
        if options.mode == JournalMode::Threaded {
            for (name, body) in [("journal", run::run as fn(&Shared)), ("journal-spare", run::run_spares)] {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name(name.into()).spawn(move || body(&shared));
                threads.push(thread.expect("the operating system starts threads"));
            }
        }
        Self { inner: Arc::new(Inner { shared, threads: Mutex::new(threads) }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Queues something under the lock.
    fn queue(&self, put: impl FnOnce(&mut State)) -> Result<(), StorageError> {
        let mut state = self.shared().state.lock();
        state.accepts()?;
        put(&mut state);
        Ok(())
    }

    /// Has what is queued done by `who`.
    pub(crate) fn work_off(&self, who: Who) {
        let shared = self.shared();
        if who == Who::Caller || shared.options.mode == JournalMode::Inline {
            shared.drain();
        } else {
            shared.wake.notify_one();
        }
    }

    /// The size of every segment, in bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.shared().geometry.segment_bytes
    }

    /// The longest payload of a frame that [`Self::append`] takes, in bytes: a frame does not go over segments.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        let room = usize::try_from(self.shared().geometry.fresh_room()).unwrap_or(usize::MAX);
        (room - FRAME_HEADER_BYTES).min(MAX_PAYLOAD_BYTES)
    }

    /// Queues frames; they can be read at once. `done` runs when all of them are durable.
    ///
    /// # Errors
    /// If the journal is stopped or closed, has damage that nobody cut away, or a frame does not fit in a segment.
    /// Then nothing was queued and `done` is not called.
    ///
    /// # Panics
    /// When the frames do not follow the last one, by index, term or chain value.
    pub fn append(&self, frames: Vec<Frame>, done: Done) -> Result<(), StorageError> {
        self.queue_append(frames, done)?;
        self.work_off(Who::Thread);
        Ok(())
    }

    /// As [`Self::append`], but nobody is told to do it: [`Self::work_off`] is called next.
    pub(crate) fn queue_append(&self, frames: Vec<Frame>, done: Done) -> Result<(), StorageError> {
        let shared = self.shared();
        let room = shared.geometry.fresh_room();
        if let Some(frame) = frames.iter().find(|frame| span(frame.frame_bytes()) > room) {
            let what = format!("frame {} has {} bytes, a segment holds {room}", frame.log_id(), frame.frame_bytes());
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
            return Err(StorageError::io(&shared.directory, 0, "append", &error));
        }
        if let Some(damage) = &shared.state.lock().damaged {
            return Err(damage.clone());
        }
        self.queue(|state| state.append(frames, done))
    }

    /// Queues work for the journal's thread: it is done after everything queued before it is durable, and before
    /// anything queued after it is written. If it fails, the journal stops, as after a failed write of its own.
    ///
    /// # Errors
    /// If the journal is stopped or closed. Then neither `job` nor `done` is called.
    pub fn run_in_order(&self, job: InOrder, done: Done) -> Result<(), StorageError> {
        self.queue(|state| state.run_in_order(job, done))?;
        self.work_off(Who::Thread);
        Ok(())
    }

    /// Returns when everything queued so far is durable; the caller writes it itself, unless somebody is at it.
    ///
    /// # Errors
    /// If the journal is stopped or closed, or stops meanwhile.
    pub fn sync(&self) -> Result<(), StorageError> {
        let (done, synced) = mpsc::channel();
        let done: Done = Box::new(move |outcome| {
            // The receiver waits just below.
            let _ = done.send(outcome);
        });
        self.queue(|state| state.run_in_order(Box::new(|| Ok(())), done))?;
        self.work_off(Who::Caller);
        synced.recv().unwrap_or_else(|_| Err(panicked()))
    }

    /// Removes all frames after `last` (`None`: all, of a journal that begins with the log). They cannot be read any
    /// more when this returns; `done` runs when they cannot come back.
    ///
    /// # Errors
    /// If the journal is stopped or closed. Then nothing was cut and `done` is not called.
    ///
    /// # Panics
    /// When `last` is neither a kept frame nor the one before the first.
    pub fn cut_after(&self, last: Option<LogId>, done: Done) -> Result<(), StorageError> {
        self.queue_cut(last, done)?;
        self.work_off(Who::Thread);
        Ok(())
    }

    /// As [`Self::cut_after`], but nobody is told to do it: [`Self::work_off`] is called next.
    pub(crate) fn queue_cut(&self, last: Option<LogId>, done: Done) -> Result<(), StorageError> {
        self.queue(|state| state.cut_after(last, done))
    }

    /// Gives up whole segments that hold only durable frames up to `upto`. Returns the frame before the first kept one.
    /// While a cut waits, nothing is given up.
    ///
    /// # Errors
    /// If the journal is stopped or closed; in inline mode, those of the disk.
    pub fn purge(&self, upto: LogIndex) -> Result<Option<LogId>, StorageError> {
        let shared = self.shared();
        let start = {
            let mut state = shared.state.lock();
            state.accepts()?;
            let gone = state.purge(upto);
            if !gone.is_empty() {
                state.spares.retire(gone);
                shared.spare_wake.notify_all();
            }
            state.index.start().previous
        };
        if shared.options.mode == JournalMode::Inline {
            spare::housekeep_all(shared)?;
        }
        Ok(start)
    }

    /// Queues an attest of the end: a block, not synced, that says how far the journal is durable. Done by itself when
    /// the journal is idle, and on closing.
    ///
    /// # Errors
    /// If the journal is stopped or closed.
    pub fn attest(&self) -> Result<(), StorageError> {
        self.queue(State::attest)?;
        self.work_off(Who::Thread);
        Ok(())
    }

    /// The frame before the first kept one.
    #[must_use]
    pub fn first_kept(&self) -> LogStart {
        self.shared().state.lock().index.start()
    }

    /// The last appended frame, queued or durable; of a journal without frames, the one before its first.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.shared().state.lock().index.end().previous
    }

    /// The chain value after the last appended frame.
    #[must_use]
    pub fn last_chain(&self) -> u64 {
        self.shared().state.lock().index.end().chain
    }

    /// The last durable frame; a cut lowers it at once.
    #[must_use]
    pub fn durable(&self) -> Option<LogId> {
        self.shared().state.lock().durable
    }

    /// The log id at `index`, of a kept frame or of the one before the first.
    #[must_use]
    pub fn log_id(&self, index: LogIndex) -> Option<LogId> {
        self.shared().state.lock().index.log_id(index)
    }

    /// The chain value after the frame at `index`, kept or the one before the first.
    #[must_use]
    pub fn chain(&self, index: LogIndex) -> Option<u64> {
        self.shared().state.lock().index.chain(index)
    }

    /// Where the frame at `index` stands on disk; `None` if it is not kept, or not written yet.
    #[must_use]
    pub fn position(&self, index: LogIndex) -> Option<JournalPosition> {
        let entry = self.shared().state.lock().index.get(index)?;
        (entry.position != JournalPosition(0)).then_some(entry.position)
    }

    /// Frames from `from` on, below `until_exclusive`, of `max_bytes` together, but at least one if any is there; fewer
    /// where the journal ends. From memory, or from disk and verified.
    ///
    /// # Errors
    /// `NotFound` if `from` is purged, `DamagedFrame` for frames that are not what was written, those of the disk.
    pub fn read(
        &self,
        from: LogIndex,
        until_exclusive: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Frame>, StorageError> {
        reader::read(self.shared(), from, until_exclusive, max_bytes)
    }

    /// Where the first kept segment begins.
    #[must_use]
    pub(crate) fn first_position(&self) -> JournalPosition {
        let state = self.shared().state.lock();
        state.geometry.position(state.segments[0].number, 0)
    }

    /// From now on segments that find no space on the disk take it from `reserve`, and wait when that has none.
    pub(crate) fn draw_on(&self, reserve: Arc<Reserve>) {
        // A journal has one directory, and that one reserve: a second call says the same.
        let _ = self.shared().reserve.set(reserve);
    }

    /// Says whether space is short: then spares that nobody needs are given back.
    ///
    /// # Errors
    /// In inline mode, those of the disk.
    pub(crate) fn set_short_of_space(&self, short: bool) -> Result<(), StorageError> {
        let shared = self.shared();
        {
            let mut state = shared.state.lock();
            state.spares.set_short(short);
            if !state.spares.has_task() {
                return Ok(());
            }
            shared.spare_wake.notify_all();
        }
        if shared.options.mode == JournalMode::Inline { spare::housekeep_all(shared) } else { Ok(()) }
    }

    /// How many bytes of segments are still to be made for all that waits and `bytes` of frames behind it, at most.
    pub(crate) fn space_needed(&self, bytes: u64) -> u64 {
        self.shared().state.lock().space_needed(bytes)
    }

    /// How many bytes the frames behind `last` take, at most, those that wait included.
    pub(crate) fn bytes_behind(&self, last: Option<LogId>) -> u64 {
        self.shared().state.lock().bytes_behind(last)
    }

    /// Whether what was appended waits because the disk is full.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.shared().state.lock().spares.is_starved()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        self.shared().state.lock().stats()
    }

    /// Bytes of frames that are not durable yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.shared().state.lock().pending_bytes()
    }

    /// The age of the oldest job that is not done.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<Duration> {
        self.shared().state.lock().oldest_pending().map(|since| since.elapsed())
    }

    /// Why the journal stopped, if it did.
    #[must_use]
    pub fn poisoned(&self) -> Option<StorageError> {
        self.shared().state.lock().poisoned.clone()
    }

    /// Does what is queued, attests the end, ends the threads. Nothing is accepted after it. Called from a callback it
    /// does not wait for the journal's threads.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        let shared = &self.shared;
        let this_thread = std::thread::current().id();
        let within_callback = {
            let mut state = shared.state.lock();
            if !state.closing && state.poisoned.is_none() && shared.options.mode == JournalMode::Inline {
                state.attest();
            }
            state.closing = true;
            state.drainer == Some(this_thread)
        };
        shared.wake.notify_all();
        shared.spare_wake.notify_all();
        shared.progress.notify_all();
        if shared.options.mode == JournalMode::Inline {
            shared.drain();
        }
        let mut threads = self.threads.lock();
        let is_ours = threads.iter().any(|thread| thread.thread().id() == this_thread);
        if within_callback && !is_ours {
            // The journal's thread waits until this call has ended. It is joined with the last handle, of which the caller
            // that ran into this callback has one.
            return;
        }
        let threads = std::mem::take(&mut *threads);
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this_thread) {
            // A panic in it has poisoned the journal and was reported.
            drop(thread.join());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Journal>();
};
