//! The journal on real files, with its threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::frame::{Frame, FrameKind, Payload};
use super::{Done, Journal, JournalMode, JournalOptions, LogStart, Scan, inspect};
use crate::env::{Disk, OpenMode, RealDisk};
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex};
use crate::journal::CHAIN_START;
use crate::journal::segment::{Zeroing, make_zeroed};

pub(super) const EMPTY: LogStart = LogStart { previous: None, chain: CHAIN_START };

pub(super) fn small(mode: JournalMode) -> JournalOptions {
    JournalOptions {
        segment_bytes: 64 << 10,
        max_group_bytes: 16 << 10,
        cache_bytes: 8 << 10,
        mode,
        ..JournalOptions::default()
    }
}

/// Frames of these payload lengths behind the journal's last one, in `term`.
pub(super) fn frames_after(start: LogStart, term: u64, lengths: &[usize]) -> Vec<Frame> {
    let mut end = start;
    let one = |length: &usize| {
        let index = end.next_index();
        let fill = (index.0 * 31 + term * 7 + *length as u64) as u8;
        let commit = index.0.checked_sub(1).map(LogIndex);
        let payload = Payload::new(Bytes::from(vec![fill; *length]));
        let frame =
            Frame::encode(FrameKind::Record, LogId { term: crate::ids::Term(term), index }, commit, end.chain, payload);
        end = LogStart { previous: Some(frame.log_id()), chain: frame.chain() };
        frame
    };
    lengths.iter().map(one).collect()
}

pub(super) fn end_of(journal: &Journal) -> LogStart {
    LogStart { previous: journal.last(), chain: journal.last_chain() }
}

/// A callback, and where its outcome arrives.
pub(super) fn done() -> (Done, mpsc::Receiver<Result<(), StorageError>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |outcome| sender.send(outcome).unwrap_or(())), receiver)
}

fn append(journal: &Journal, term: u64, lengths: &[usize]) -> Vec<Frame> {
    let frames = frames_after(end_of(journal), term, lengths);
    let (callback, outcome) = done();
    journal.append(frames.clone(), callback).expect("append");
    outcome.recv().expect("the callback runs").expect("durable");
    frames
}

fn cut(journal: &Journal, last: Option<LogId>) {
    let (callback, outcome) = done();
    journal.cut_after(last, callback).expect("cut");
    outcome.recv().expect("the callback runs").expect("durable");
}

fn all(journal: &Journal) -> Vec<Frame> {
    let from = journal.first_kept().next_index();
    let mut frames = Vec::new();
    loop {
        let next = LogIndex(from.0 + frames.len() as u64);
        let more = journal.read(next, LogIndex(u64::MAX), 10_000).expect("read");
        if more.is_empty() {
            return frames;
        }
        frames.extend(more);
    }
}

fn reopen(directory: &Path) -> (Journal, Scan) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    Journal::open(disk, directory, small(JournalMode::Threaded)).expect("open")
}

fn create(directory: &Path) -> Journal {
    Journal::create(Arc::new(RealDisk::new()), directory, EMPTY, small(JournalMode::Threaded)).expect("create")
}

#[test]
fn frames_come_back_from_memory_from_disk_and_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("deep/journal");
    let journal = create(&directory);
    assert_eq!((journal.last(), journal.durable(), journal.first_kept()), (None, None, EMPTY));
    let mut frames = Vec::new();
    for round in 0..40 {
        frames.extend(append(&journal, 1 + round / 10, &[0, 1, 63, 5000, 200, 9000, 20_000]));
    }
    assert!(journal.stats().segments > 10, "{:?}", journal.stats());
    assert_eq!(all(&journal), frames);
    let last = frames.last().expect("frames").log_id();
    assert_eq!((journal.last(), journal.durable()), (Some(last), Some(last)));
    for frame in &frames {
        let index = frame.log_id().index;
        assert_eq!(journal.log_id(index), Some(frame.log_id()));
        assert_eq!(journal.chain(index), Some(frame.chain()));
    }
    journal.close();
    let (journal, scan) = reopen(&directory);
    assert_eq!((scan.frames, scan.damage, scan.cut_bytes), (frames.len() as u64, None, 0));
    assert_eq!(scan.highest_commit, Some(LogIndex(last.index.0 - 1)));
    assert_eq!(all(&journal), frames);
    frames.extend(append(&journal, 9, &[100]));
    drop(journal);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let listed: Vec<_> = inspect(disk, &directory).expect("list").map(|info| info.expect("whole").log_id).collect();
    assert_eq!(listed, frames.iter().map(Frame::log_id).collect::<Vec<_>>());
}

#[test]
fn reads_are_bounded_but_give_at_least_one_frame() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let frames = append(&journal, 1, &[1000, 1000, 1000, 30_000, 10]);
    let count = |from, until, bytes| journal.read(LogIndex(from), LogIndex(until), bytes).expect("read").len();
    assert_eq!(count(0, 5, 1), 1);
    assert_eq!(count(0, 5, 2 * 1072), 2);
    assert_eq!(count(0, 5, 2 * 1072 - 1), 1);
    assert_eq!(count(0, 5, 1 << 20), 5);
    assert_eq!(count(0, 2, 1 << 20), 2);
    assert_eq!(count(3, 5, 100), 1);
    assert_eq!(count(5, 9, 100), 0);
    assert_eq!(frames.len(), 5);
}

#[test]
fn a_cut_holds_and_appends_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let mut frames = append(&journal, 1, &[3000; 60]);
    assert!(journal.stats().segments > 2);
    cut(&journal, Some(frames[4].log_id()));
    frames.truncate(5);
    assert_eq!(journal.stats().segments, 1);
    let names = RealDisk::new().list_dir(folder.path()).expect("list");
    assert_eq!(names.iter().filter(|name| name.ends_with(".seg")).count(), 1, "{names:?}");
    assert_eq!(all(&journal), frames);
    frames.extend(append(&journal, 2, &[3000; 30]));
    assert_eq!(all(&journal), frames);
    drop(journal);
    let (journal, scan) = reopen(folder.path());
    assert_eq!((scan.frames, scan.damage), (35, None));
    assert_eq!(all(&journal), frames);
    cut(&journal, None);
    assert_eq!((journal.last(), journal.durable()), (None, None));
    let frames = append(&journal, 3, &[10]);
    drop(journal);
    assert_eq!(all(&reopen(folder.path()).0), frames);
}

#[test]
fn purge_gives_up_whole_segments_and_recycles_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let frames = append(&journal, 1, &[3000; 60]);
    assert_eq!(journal.purge(LogIndex(3)).expect("purge"), None);
    let previous = journal.purge(LogIndex(45)).expect("purge").expect("something went");
    assert!(previous.index <= LogIndex(45) && previous.index > LogIndex(20), "{previous}");
    assert_eq!(journal.first_kept().previous, Some(previous));
    assert_eq!(journal.log_id(previous.index), Some(previous));
    assert_eq!(journal.log_id(LogIndex(previous.index.0 - 1)), None);
    assert!(journal.read(LogIndex(0), LogIndex(9), 1).is_err(), "a purged frame is no frame");
    let kept = &frames[usize::try_from(previous.index.0).expect("small") + 1..];
    assert_eq!(all(&journal), kept);
    drop(journal);
    let (journal, scan) = reopen(folder.path());
    assert_eq!(scan.first.previous, Some(previous));
    assert_eq!(all(&journal), kept);
}

#[test]
fn jobs_run_in_queue_order_with_the_frames_before_them_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let (sender, order) = mpsc::channel();
    let note = |what: &'static str| -> Done {
        let sender = sender.clone();
        Box::new(move |outcome| sender.send((what, outcome.is_ok())).unwrap_or(()))
    };
    let first = frames_after(end_of(&journal), 1, &[10, 20]);
    let last = first[1].log_id();
    journal.append(first, note("first")).expect("append");
    let (seen, seen_durable) = mpsc::channel();
    let watched = journal.clone();
    let job = Box::new(move || {
        seen.send(watched.durable()).unwrap_or(());
        Ok(())
    });
    journal.run_in_order(job, note("job")).expect("job");
    journal.append(frames_after(end_of(&journal), 1, &[30]), note("second")).expect("append");
    journal.cut_after(Some(last), note("cut")).expect("cut");
    journal.close();
    drop((journal, note));
    drop(sender);
    assert_eq!(order.iter().collect::<Vec<_>>(), ["first", "job", "second", "cut"].map(|what| (what, true)));
    assert_eq!(seen_durable.recv().expect("the job ran"), Some(last));
}

#[test]
fn the_end_is_attested_once_when_idle() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    append(&journal, 1, &[10]);
    let begun = std::time::Instant::now();
    while journal.stats().attests == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "never attested");
        std::thread::sleep(Duration::from_millis(2));
    }
    journal.close();
    assert_eq!(journal.stats().attests, 1);
    let refused = journal.append(Vec::new(), done().0);
    assert!(matches!(refused, Err(StorageError::Poisoned(_))), "closed");
}

#[test]
fn a_frame_larger_than_a_group_goes_alone_and_one_larger_than_a_segment_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let frames = append(&journal, 1, &[100, 50_000, 100]);
    assert_eq!(all(&journal), frames);
    assert_eq!(journal.stats().groups, 3);
    let too_large = frames_after(end_of(&journal), 1, &[62_000]);
    let error = journal.append(too_large, done().0).expect_err("too large");
    assert!(error.to_string().contains("a segment holds"), "{error}");
    append(&journal, 1, &[1]);
}

#[test]
#[should_panic(expected = "does not follow")]
fn frames_that_do_not_follow_are_a_broken_invariant() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = create(folder.path());
    let frames = frames_after(end_of(&journal), 1, &[1, 1]);
    drop(journal.append(frames[1..].to_vec(), done().0));
}

#[test]
fn the_rest_of_a_spare_is_allocated_when_somebody_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = crate::env::CountingDisk::new(Arc::new(RealDisk::new()));
    let path = folder.path().join("spare-1");
    let (length, asked) = (3 << 20, std::cell::Cell::new(0));
    let next = |_| {
        asked.set(asked.get() + 1);
        if asked.get() == 1 { Zeroing::GoOn } else { Zeroing::AllocateTheRest }
    };
    assert!(make_zeroed(&disk, &path, length, &next).expect("made"));
    let counted = disk.snapshot().spare;
    assert_eq!((asked.get(), counted.writes, counted.bytes, counted.syncs), (2, 1, 1 << 20, 2));
    let file = disk.open(&path, OpenMode::Read).expect("open");
    let mut bytes = vec![1; usize::try_from(length).expect("short")];
    file.read_exact_at(&mut bytes, 0).expect("it has its length");
    assert!(bytes.iter().all(|byte| *byte == 0));
    let space = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).expect("it is there")) * 512;
    assert!(space >= length, "{space} bytes of space");
    assert!(!make_zeroed(&disk, &path, length, &|_| Zeroing::Stop).expect("stopped"));
}

#[test]
fn a_writer_that_is_faster_than_zeroing_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let options = JournalOptions { segment_bytes: 4 << 20, cache_bytes: 0, ..JournalOptions::default() };
    let journal = Journal::create(disk.clone(), folder.path(), EMPTY, options).expect("a journal");
    let frames = frames_after(EMPTY, 1, &[1 << 20; 20]);
    for frame in &frames {
        let (callback, outcome) = done();
        journal.append(vec![frame.clone()], callback).expect("accepted");
        outcome.recv().expect("an answer").expect("durable");
    }
    let end = LogIndex(frames.len() as u64);
    assert_eq!(journal.read(LogIndex(0), end, usize::MAX).expect("read"), frames);
    drop(journal);
    let (journal, scan) = Journal::open(disk, folder.path(), options).expect("opened");
    assert!(scan.damage.is_none());
    assert_eq!(journal.read(LogIndex(0), end, usize::MAX).expect("read"), frames);
}
