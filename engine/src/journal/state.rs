//! What the journal's handles, its thread and its readers share, under one lock that is never held across disk work.
//!
//! Pointers, in log order; each moves only as its line says:
//!
//! ```text
//! start.previous  <=  durable  <=  index.end
//!    purge             sync, cut    append, cut
//! ```
//!
//! The queue only ever holds live frames: a cut takes the frames it removes out of the queue at once, and lowers the
//! cuts that still wait before it. What is being written at that moment is cut short in [`InFlight::live_below`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::env::DiskFile;
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, LogIndex};
use crate::journal::cache::Cache;
use crate::journal::dones::{Done, Dones};
use crate::journal::format::{Geometry, LogStart, SEGMENT_HEADER_BYTES, span};
use crate::journal::frame::Frame;
use crate::journal::index::{Entry, Index};
use crate::journal::spare::Spares;

/// Work that is done in queue order, by whoever works the queue off.
pub type InOrder = Box<dyn FnOnce() -> Result<(), StorageError> + Send>;

/// Frames of one group at most: each is up to three parts of one `pwritev`, which takes 1024; four are around them.
const MAX_GROUP_FRAMES: usize = 340;

/// A segment that holds kept frames, or will.
pub(super) struct Segment {
    pub number: u64,
    /// The frame before its first one.
    pub start: LogStart,
    /// Opened to be read.
    pub file: Arc<dyn DiskFile>,
}

enum Job {
    Append(VecDeque<Frame>),
    InOrder(InOrder),
    Cut(Option<LogId>),
    Attest,
}

struct Queued {
    job: Job,
    done: Option<Done>,
    since: Instant,
}

/// What the journal's thread is at.
struct InFlight {
    bytes: usize,
    frames: usize,
    since: Instant,
    /// Frames from this index on were cut while they were being written.
    live_below: LogIndex,
}

/// Where a cut goes, and what remains.
pub(super) struct CutTarget {
    pub segment: u64,
    pub offset: u64,
    /// The last frame that stays.
    pub last: LogStart,
}

/// What the journal's thread is to do next.
pub(super) enum Work {
    /// Write these frames as one group; in a fresh segment if so.
    Group {
        frames: Vec<Frame>,
        fresh: bool,
    },
    InOrder(InOrder),
    Cut(CutTarget),
    Attest,
    /// Only the callbacks.
    Nothing,
}

pub(super) struct Taken {
    pub work: Work,
    pub dones: Dones,
}

/// A group on disk and synced.
pub(super) struct Written {
    pub positions: Vec<JournalPosition>,
    /// The segment that was begun for it, if one was.
    pub segment: Option<Segment>,
    pub bytes: u64,
    /// Where the next group may stand, in bytes of the segment.
    pub end_offset: u64,
}

/// Counters since the journal was opened, and sizes as they are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct JournalStats {
    /// Groups written.
    pub groups: u64,
    /// Syncs of segments: one a group, one a cut, one if opening wrote the last group again.
    pub syncs: u64,
    /// Cut blocks written, the one of opening included.
    pub cuts: u64,
    /// Attest blocks written; they are not synced.
    pub attests: u64,
    /// Bytes of groups and blocks written.
    pub bytes_written: u64,
    /// Bytes of frames queued or being written.
    pub queued_bytes: usize,
    /// Jobs queued behind what is being done.
    pub queued_jobs: usize,
    /// Segments kept.
    pub segments: usize,
    /// Bytes from the first kept segment to the end of what is written.
    pub bytes_kept: u64,
    /// Spare segments ready.
    pub spares: usize,
    /// How long groups took to write and to sync of late: each newer one counts for an eighth.
    pub recent_sync: Duration,
}

pub(super) struct State {
    pub geometry: Geometry,
    pub index: Index,
    pub cache: Cache,
    /// Ascending, consecutive, never empty; the last is the one being written.
    pub segments: VecDeque<Segment>,
    /// Segment files behind the last one that belong to no live frame (only after damage).
    pub strays: Vec<u64>,
    pub durable: Option<LogId>,
    /// The last frame that is known to be committed; it may lie behind `durable`.
    pub committed: Option<LogIndex>,
    /// How many wait for `durable` and `committed` to move.
    pub followers: usize,
    /// Another journal has taken this one's place.
    pub replaced: bool,
    pub poisoned: Option<StorageError>,
    /// Damage found on opening: no append until a cut.
    pub damaged: Option<StorageError>,
    pub closing: bool,
    /// Who works the queue off.
    pub drainer: Option<ThreadId>,
    /// A group was written since the end was last attested.
    pub unattested: bool,
    pub spares: Spares,
    pub stats: JournalStats,
    /// Where the next group may stand in the last segment, in bytes.
    pub end_offset: u64,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    in_flight: Option<InFlight>,
    /// Cuts queued or being made.
    cuts: usize,
}

impl State {
    pub fn new(geometry: Geometry, index: Index, cache: Cache, segments: VecDeque<Segment>, spares: Spares) -> Self {
        assert!(!segments.is_empty());
        Self {
            geometry,
            durable: index.end().previous,
            index,
            cache,
            segments,
            strays: Vec::new(),
            committed: None,
            followers: 0,
            replaced: false,
            poisoned: None,
            damaged: None,
            closing: false,
            drainer: None,
            unattested: false,
            spares,
            stats: JournalStats::default(),
            end_offset: SEGMENT_HEADER_BYTES,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: None,
            cuts: 0,
        }
    }

    /// Whether anything is still written.
    pub fn accepts_work(&self) -> Result<(), StorageError> {
        self.poisoned.as_ref().map_or(Ok(()), |error| Err(StorageError::Poisoned(error.to_string())))
    }

    /// Whether new jobs are taken.
    pub fn accepts(&self) -> Result<(), StorageError> {
        self.accepts_work()?;
        if self.closing {
            return Err(StorageError::Poisoned("the journal is closed".into()));
        }
        Ok(())
    }

    fn queue_job(&mut self, job: Job, done: Option<Done>) {
        self.queue.push_back(Queued { job, done, since: Instant::now() });
    }

    /// Indexes, caches and queues frames.
    ///
    /// # Panics
    /// When they do not follow the last frame.
    pub fn append(&mut self, frames: Vec<Frame>, done: Done) {
        for frame in &frames {
            let end = self.index.end();
            assert!(frame.follows(end.chain), "the chain of frame {} does not follow {end:?}", frame.log_id());
            let bytes = u32::try_from(frame.frame_bytes()).expect("frames are bounded");
            let entry = Entry { position: JournalPosition(0), chain: frame.chain(), bytes };
            self.index.push(frame.log_id(), entry);
            self.cache.push(frame.clone());
            self.queued_bytes += frame.frame_bytes();
        }
        self.queue_job(Job::Append(frames.into()), Some(done));
    }

    pub fn run_in_order(&mut self, job: InOrder, done: Done) {
        self.queue_job(Job::InOrder(job), Some(done));
    }

    pub fn attest(&mut self) {
        self.queue_job(Job::Attest, None);
    }

    /// Removes all frames after `last` from what can be read, and queues the cut.
    ///
    /// # Panics
    /// When `last` is neither a kept frame nor the one before the first.
    pub fn cut_after(&mut self, last: Option<LogId>, done: Done) {
        let known = last.map_or(self.index.start().previous, |last| self.index.log_id(last.index));
        assert_eq!(known, last, "a cut after a frame that the journal does not have");
        let first_gone = LogStart { previous: last, chain: 0 }.next_index();
        self.index.truncate_after(last);
        self.cache.truncate_from(first_gone);
        if self.durable.is_some_and(|durable| durable.index >= first_gone) {
            self.durable = last;
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.live_below = in_flight.live_below.min(first_gone);
        }
        for queued in &mut self.queue {
            match &mut queued.job {
                Job::Append(frames) => {
                    while let Some(frame) = frames.pop_back_if(|frame| frame.log_id().index >= first_gone) {
                        self.queued_bytes -= frame.frame_bytes();
                    }
                }
                Job::Cut(earlier) if earlier.is_some_and(|earlier| earlier.index >= first_gone) => *earlier = last,
                _ => {}
            }
        }
        self.cuts += 1;
        self.queue_job(Job::Cut(last), Some(done));
    }

    /// Drops whole segments that hold only frames up to `upto`, and returns their numbers, ascending.
    pub fn purge(&mut self, upto: LogIndex) -> Vec<u64> {
        let mut gone = Vec::new();
        // A cut that waits may remove the very segments behind the one it goes to.
        if self.cuts > 0 || self.damaged.is_some() {
            return gone;
        }
        let upto = Some(upto).min(self.durable.map(|durable| durable.index));
        while self.segments.len() > 1 && self.segments[1].start.previous.map(|previous| previous.index) <= upto {
            gone.push(self.segments.pop_front().expect("more than one").number);
        }
        if !gone.is_empty() {
            let start = self.segments[0].start;
            self.index.purge(start);
            self.cache.drop_below(start.next_index());
        }
        gone
    }

    /// Takes the next piece of work, with the callbacks that follow its success. `offset`: where the next group goes.
    pub fn take(&mut self, offset: u64, max_group_bytes: usize) -> Option<Taken> {
        assert!(self.in_flight.is_none(), "one piece of work at a time");
        let since = self.queue.front()?.since;
        if matches!(self.queue.front()?.job, Job::Append(_)) {
            return Some(self.take_group(since, offset, max_group_bytes));
        }
        // While the job is still in the queue: if this panics, its callback is heard with the others, outside the lock.
        let target = match self.queue.front()?.job {
            Job::Cut(last) => Some(self.cut_target(last)),
            _ => None,
        };
        let Queued { job, done, since } = self.queue.pop_front()?;
        let mut dones = Dones::default();
        dones.push(done);
        let work = match job {
            Job::InOrder(job) => Work::InOrder(job),
            Job::Cut(_) => Work::Cut(target.expect("looked up above")),
            Job::Attest => Work::Attest,
            Job::Append(_) => unreachable!("handled above"),
        };
        self.in_flight = Some(InFlight { bytes: 0, frames: 0, since, live_below: self.index.next_index() });
        Some(Taken { work, dones })
    }

    fn take_group(&mut self, since: Instant, offset: u64, max_group_bytes: usize) -> Taken {
        let mut frames: Vec<Frame> = Vec::new();
        let mut dones = Dones::default();
        let (mut used, mut bytes, mut fresh) = (0, 0, false);
        let mut room = self.geometry.room(offset);
        'jobs: while let Some(Queued { job: Job::Append(waiting), .. }) = self.queue.front_mut() {
            while let Some(frame) = waiting.front() {
                let span = span(frame.frame_bytes());
                if frames.is_empty() && span > room {
                    fresh = true;
                    room = self.geometry.fresh_room();
                }
                let too_large = used + span > room || used + span > max_group_bytes as u64;
                if frames.len() == MAX_GROUP_FRAMES || (too_large && !frames.is_empty()) {
                    break 'jobs;
                }
                used += span;
                bytes += frame.frame_bytes();
                frames.extend(waiting.pop_front());
            }
            dones.push(self.queue.pop_front().and_then(|queued| queued.done));
        }
        self.queued_bytes -= bytes;
        let live_below = frames.last().map_or(self.index.next_index(), |frame| frame.log_id().index.next());
        self.in_flight = Some(InFlight { bytes, frames: frames.len(), since, live_below });
        let work = if frames.is_empty() { Work::Nothing } else { Work::Group { frames, fresh } };
        Taken { work, dones }
    }

    /// The end of frame `last`, which is written: everything queued before the cut is.
    fn cut_target(&self, last: Option<LogId>) -> CutTarget {
        if last == self.index.start().previous {
            let first = self.segments[0].number;
            return CutTarget { segment: first, offset: SEGMENT_HEADER_BYTES, last: self.index.start() };
        }
        let index = last.expect("a kept frame").index;
        let entry = self.index.get(index).expect("a cut only waits for frames that are kept");
        assert_ne!(entry.position, JournalPosition(0), "frame {index} was queued before the cut after it");
        let (segment, offset) = self.geometry.place(entry.position);
        CutTarget {
            segment,
            offset: offset + span(entry.bytes as usize),
            last: LogStart { previous: last, chain: entry.chain },
        }
    }

    /// The work that was taken is done.
    pub fn finish(&mut self) {
        self.in_flight = None;
    }

    /// The group that was taken is durable; to write and to sync it took so long.
    pub fn finish_group(&mut self, frames: &[Frame], written: Written, took: Duration) {
        let in_flight = self.in_flight.take().expect("a group was taken");
        assert_eq!(frames.len(), written.positions.len());
        for (frame, position) in frames.iter().zip(written.positions) {
            let index = frame.log_id().index;
            if index < in_flight.live_below {
                self.index.set_position(index, position);
                assert!(self.durable < Some(frame.log_id()), "frames become durable in log order");
                self.durable = Some(frame.log_id());
            }
        }
        self.segments.extend(written.segment);
        self.end_offset = written.end_offset;
        self.cache.evict(self.durable.map(|durable| durable.index));
        self.stats.recent_sync = match self.stats.groups {
            0 => took,
            _ => (self.stats.recent_sync * 7 + took) / 8,
        };
        self.stats.groups += 1;
        self.stats.syncs += 1;
        self.stats.bytes_written += written.bytes;
    }

    /// The cut that was taken is durable. Returns the segment files that hold nothing any more, ascending.
    pub fn finish_cut(&mut self, target: &CutTarget, written_bytes: Option<u64>, end_offset: u64) -> Vec<u64> {
        self.in_flight = None;
        self.cuts -= 1;
        let mut gone = Vec::new();
        let Some(bytes) = written_bytes else { return gone };
        while self.segments.back().is_some_and(|segment| segment.number > target.segment) {
            gone.extend(self.segments.pop_back().map(|segment| segment.number));
        }
        assert!(!self.segments.is_empty(), "a cut goes to a kept segment");
        gone.append(&mut self.strays);
        gone.sort_unstable();
        self.damaged = None;
        self.end_offset = end_offset;
        self.stats.cuts += 1;
        self.stats.syncs += 1;
        self.stats.bytes_written += bytes;
        gone
    }

    /// Ends everything with `error`; returns the callbacks that must hear of it.
    pub fn poison(&mut self, error: &StorageError) -> Dones {
        self.poisoned.get_or_insert_with(|| error.clone());
        self.in_flight = None;
        self.queued_bytes = 0;
        self.queue.drain(..).filter_map(|queued| queued.done).collect()
    }

    /// Whether something waits or is being done.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some() || self.has_work()
    }

    /// Whether something waits to be done.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether nothing is being done, and no group has been written since there were `groups`.
    pub fn is_idle_since(&self, groups: u64) -> bool {
        self.poisoned.is_none() && self.drainer.is_none() && !self.has_work() && self.stats.groups == groups
    }

    /// Bytes of frames that are not durable yet.
    pub fn pending_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.bytes)
    }

    /// How many frames are not durable yet.
    pub fn pending_frames(&self) -> usize {
        let queued =
            self.queue.iter().map(|queued| if let Job::Append(frames) = &queued.job { frames.len() } else { 0 });
        queued.sum::<usize>() + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.frames)
    }

    /// When the oldest unfinished job was queued.
    pub fn oldest_pending(&self) -> Option<Instant> {
        let queued = self.queue.front().map(|queued| queued.since);
        self.in_flight.as_ref().map(|in_flight| in_flight.since).or(queued)
    }

    pub fn stats(&self) -> JournalStats {
        let first = self.segments[0].number;
        let last = self.segments[self.segments.len() - 1].number;
        JournalStats {
            queued_bytes: self.pending_bytes(),
            queued_jobs: self.queue.len(),
            segments: self.segments.len(),
            bytes_kept: (last - first) * self.geometry.segment_bytes + self.end_offset,
            spares: self.spares.ready(),
            ..self.stats
        }
    }
}
