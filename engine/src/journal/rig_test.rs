//! A journal on a simulated disk beside the plain list of frames it should be, through power cuts.
//!
//! Every change that is asked for gives a next *state*, a list of all frames from index 0 on (the purged ones
//! included). Callbacks must run in order; they move `acked`. After a power cut the journal must be explained by the
//! states from the acked one to the last one asked for: a prefix of one of them, and no shorter than the shortest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::frame::Frame;
use super::journal_test::{EMPTY, frames_after, small};
use super::{Done, Journal, JournalMode, JournalOptions, LogStart, Scan};
use crate::env::{CrashChoice, Disk, OpenMode, SimDisk};
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex};

const DIRECTORY: &str = "/db/journal";

/// What is asked of the journal.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Frames of these payload lengths.
    Append(Vec<usize>),
    /// Removes up to this many of the newest frames (fewer if they are purged).
    Cut(usize),
    /// Purges all but this many of the newest frames.
    Purge(usize),
    Attest,
    /// Appends and cuts that wait together.
    Together(Vec<Op>),
    /// Closes and opens again.
    Reopen,
}

pub(super) struct Rig {
    pub disk: SimDisk,
    journal: Option<Journal>,
    states: Vec<Vec<Frame>>,
    acked: Arc<AtomicUsize>,
    term: u64,
    /// Whether the last change asked for alone was a cut.
    single_cut: bool,
    /// No frame up to here may be missing at the front.
    purged_upto: Option<LogIndex>,
}

enum Ask {
    Append(Vec<Frame>, Done),
    Cut(Option<LogId>, Done),
}

pub(super) fn end_of(frames: &[Frame]) -> LogStart {
    frames.last().map_or(EMPTY, |last| LogStart { previous: Some(last.log_id()), chain: last.chain() })
}

fn options() -> JournalOptions {
    small(JournalMode::Inline)
}

fn disk_of(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

impl Rig {
    /// A new journal. With a disk whose power goes away meanwhile it may not come to be.
    pub fn create(disk: SimDisk) -> Self {
        let journal = Journal::create(disk_of(&disk), Path::new(DIRECTORY), EMPTY, options()).ok();
        Self::with(disk, journal, Vec::new(), 1)
    }

    fn with(disk: SimDisk, journal: Option<Journal>, frames: Vec<Frame>, term: u64) -> Self {
        let acked = Arc::new(AtomicUsize::new(0));
        Self { disk, journal, states: vec![frames], acked, term, single_cut: false, purged_upto: None }
    }

    fn newest(&self) -> &[Frame] {
        self.states.last().expect("never empty")
    }

    /// Runs all; false when the disk is gone.
    pub fn run(&mut self, ops: &[Op]) -> bool {
        ops.iter().all(|op| self.step(op).is_ok())
    }

    /// A callback for the newest state.
    fn done(&self) -> Done {
        let number = self.states.len() - 1;
        let acked = self.acked.clone();
        Box::new(move |outcome| {
            if outcome.is_ok() {
                assert_eq!(acked.fetch_add(1, Ordering::SeqCst) + 1, number, "callbacks run in queue order");
            }
        })
    }

    fn prepare(&mut self, op: &Op, first_kept: LogIndex) -> Ask {
        match op {
            Op::Append(lengths) => {
                let frames = frames_after(end_of(self.newest()), self.term, lengths);
                self.states.push([self.newest(), &frames].concat());
                Ask::Append(frames, self.done())
            }
            Op::Cut(back) => {
                self.term += 1;
                let first_kept = usize::try_from(first_kept.0).expect("small");
                let left = self.newest().len().saturating_sub(*back).max(first_kept);
                self.states.push(self.newest()[..left].to_vec());
                Ask::Cut(end_of(self.newest()).previous, self.done())
            }
            other => panic!("{other:?} cannot wait together with others"),
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), StorageError> {
        let Some(journal) = self.journal.clone() else {
            return Err(StorageError::Poisoned("never created".into()));
        };
        let first_kept = journal.first_kept().next_index();
        self.single_cut = matches!(op, Op::Cut(_));
        match op {
            Op::Append(_) | Op::Cut(_) => ask(&journal, self.prepare(op, first_kept))?,
            Op::Together(ops) => {
                let asks: Vec<Ask> = ops.iter().map(|op| self.prepare(op, first_kept)).collect();
                let inner = journal.clone();
                // Asked from within a job, they all wait until it is done.
                let job = Box::new(move || asks.into_iter().try_for_each(|one| ask(&inner, one)));
                journal.run_in_order(job, Box::new(drop))?;
            }
            Op::Purge(keep) => {
                let newest = self.newest();
                if let Some(upto) = newest.len().checked_sub(keep + 1).map(|slot| newest[slot].log_id().index) {
                    self.purged_upto = self.purged_upto.max(Some(upto));
                    let previous = journal.purge(upto)?;
                    assert_eq!(journal.first_kept().previous, previous);
                    assert!(previous.map(|previous| previous.index) <= self.purged_upto);
                }
            }
            Op::Attest => journal.attest()?,
            Op::Reopen => {
                drop(journal);
                self.journal = None;
                let (journal, scan) = Journal::open(disk_of(&self.disk), Path::new(DIRECTORY), options())?;
                assert_eq!((scan.damage, scan.last), (None, end_of(self.newest())), "after a clean stop");
                self.journal = Some(journal);
            }
        }
        let journal = self.journal.as_ref().expect("open");
        if let Some(error) = journal.poisoned() {
            return Err(error);
        }
        assert_eq!(self.acked.load(Ordering::SeqCst), self.states.len() - 1, "everything asked for is done");
        self.check_content()
    }

    /// The journal, read to its end, is the newest state without what is purged.
    fn check_content(&self) -> Result<(), StorageError> {
        let journal = self.journal.as_ref().expect("open");
        let first = usize::try_from(journal.first_kept().next_index().0).expect("small");
        assert!(first == 0 || Some(LogIndex(first as u64 - 1)) <= self.purged_upto, "no frame goes unasked");
        let newest = self.newest();
        assert_eq!(journal.first_kept(), end_of(&newest[..first]));
        assert_eq!((journal.last(), journal.last_chain()), (end_of(newest).previous, end_of(newest).chain));
        assert_eq!(journal.durable(), journal.last());
        assert!(read_all(journal)? == newest[first..], "the frames differ");
        let names = self.disk.list_dir(Path::new(DIRECTORY))?;
        let segments = names.iter().filter(|name| name.ends_with(".seg")).count();
        assert_eq!(segments, journal.stats().segments, "no segment is left over: {names:?}");
        Ok(())
    }

    /// Cuts the power, opens what is left, and checks that it can be explained. `None` if there never was a journal.
    pub fn crash(&mut self, choice: CrashChoice) -> Option<Self> {
        self.reopen_on(self.disk.crash(choice)).unwrap_or_else(|error| panic!("opening failed: {error}"))
    }

    /// Kills the process, opens what the next one finds, and checks that it can be explained. With `failed_syncs` the last
    /// thing that happens is that syncs of everything fail. `None` if there never was a journal.
    pub fn kill(&mut self, failed_syncs: bool) -> Option<Self> {
        let next = self.disk.kill();
        let directory = Path::new(DIRECTORY);
        if failed_syncs && next.exists(directory).expect("the power is on") {
            for name in next.list_dir(directory).expect("the power is on") {
                next.fail_next_sync();
                let file = next.open(&directory.join(name), OpenMode::Write).expect("it is there");
                file.sync_data().expect_err("told to fail");
            }
        }
        self.reopen_on(next).unwrap_or_else(|error| panic!("opening failed: {error}"))
    }

    /// Opens `disk` as what was left. `Ok(None)`: there is no journal, and never was one.
    fn reopen_on(&self, disk: SimDisk) -> Result<Option<Self>, StorageError> {
        let (journal, scan) = match Journal::open(disk_of(&disk), Path::new(DIRECTORY), options()) {
            Ok(opened) => opened,
            Err(_) if self.journal.is_none() && self.states.len() == 1 => return Ok(None),
            Err(error) => return Err(error),
        };
        let frames = self.explain(&journal, &scan)?;
        let mut rig = Self::with(disk, Some(journal), frames, self.term + 1);
        rig.purged_upto = self.purged_upto;
        rig.check_content()?;
        Ok(Some(rig))
    }

    /// Cuts the power, then once more after each operation of opening; then checks that the last opening, undisturbed,
    /// finds what can be explained.
    pub fn crash_while_opening(&mut self, choice: CrashChoice) {
        for boundary in 0.. {
            let disk = self.disk.crash(choice);
            disk.crash_after(boundary);
            let opened = Journal::open(disk_of(&disk), Path::new(DIRECTORY), options()).is_ok();
            let operations = disk.operation_count();
            for second in [CrashChoice::LoseAll, CrashChoice::KeepAll, CrashChoice::Seeded(boundary)] {
                let again = self.reopen_on(disk.crash(second)).unwrap_or_else(|error| panic!("{second:?}: {error}"));
                if let Some(mut rig) = again {
                    assert!(rig.run(&[Op::Append(vec![10, 20])]), "it goes on");
                }
            }
            if opened || operations < boundary {
                return;
            }
        }
    }

    /// Finds the state that explains the frames; returns it with the purged ones.
    fn explain(&self, journal: &Journal, scan: &Scan) -> Result<Vec<Frame>, StorageError> {
        assert_eq!(scan.damage, None, "a power cut is no damage");
        let acked = self.acked.load(Ordering::SeqCst);
        let possible = &self.states[acked..];
        let found = read_all(journal)?;
        let first = usize::try_from(journal.first_kept().next_index().0).expect("small");
        let length = first + found.len();
        let shortest = possible.iter().map(Vec::len).min().expect("at least the acked one");
        assert!(length >= shortest, "{length} frames are left, {shortest} were promised");
        let fits = |state: &&Vec<Frame>| state.get(first..length).is_some_and(|part| part == found);
        let state = possible.iter().find(fits).expect("the frames are those of some state");
        if possible.len() == 2 && self.single_cut {
            assert!(possible.iter().any(|state| state.len() == length), "a cut is made or not");
        }
        Ok(state[..length].to_vec())
    }
}

fn ask(journal: &Journal, ask: Ask) -> Result<(), StorageError> {
    match ask {
        Ask::Append(frames, done) => journal.append(frames, done),
        Ask::Cut(last, done) => journal.cut_after(last, done),
    }
}

fn read_all(journal: &Journal) -> Result<Vec<Frame>, StorageError> {
    let mut next = journal.first_kept().next_index();
    let mut frames = Vec::new();
    loop {
        let more = journal.read(next, LogIndex(u64::MAX), 20_000)?;
        let Some(last) = more.last() else { return Ok(frames) };
        next = last.log_id().index.next();
        frames.extend(more);
    }
}
