//! What waits together, what hangs, what fails.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::journal_test::{EMPTY, done, end_of, frames_after, small};
use super::{Done, Journal, JournalMode, JournalOptions};
use crate::env::{CountingDisk, CrashChoice, Disk, LosingDisk, SimDisk};
use crate::error::StorageError;
use crate::ids::LogIndex;

fn append(journal: &Journal, lengths: &[usize]) -> Receiver<Result<(), StorageError>> {
    let (callback, outcome) = done();
    journal.append(frames_after(end_of(journal), 1, lengths), callback).expect("append");
    outcome
}

fn wait(outcome: &Receiver<Result<(), StorageError>>) {
    outcome.recv().expect("the callback runs").expect("durable");
}

/// Waits until the journal's thread has taken what is queued.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets syncs hang until it is dropped: also when a check fails, else closing the journal would wait for ever.
struct Hang<'a>(&'a LosingDisk);

impl<'a> Hang<'a> {
    fn new(disk: &'a LosingDisk) -> Self {
        disk.hang_syncs(true);
        Self(disk)
    }
}

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        self.0.hang_syncs(false);
    }
}

#[test]
fn all_that_wait_share_one_write_and_one_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let losing = LosingDisk::new();
    let counting = CountingDisk::new(Arc::new(losing.clone()));
    let disk: Arc<dyn Disk> = Arc::new(counting.clone());
    let options = JournalOptions { segment_bytes: 1 << 20, ..small(JournalMode::Threaded) };
    let journal = Journal::create(disk, folder.path(), EMPTY, options).expect("create");
    let before = counting.snapshot();
    let hang = Hang::new(&losing);
    let first = append(&journal, &[10]);
    until("the first group is being written", || (counting.snapshot() - before).journal.writes == 1);
    let second: Vec<_> = (0..50).map(|_| append(&journal, &[20, 30])).collect();
    assert!(first.try_recv().is_err() && journal.durable().is_none());
    assert_eq!(journal.pending_bytes(), 88 + 50 * (96 + 104));
    let age = journal.oldest_pending().expect("something waits");
    until("it grows older", || journal.oldest_pending().is_some_and(|now| now > age));
    assert_eq!(journal.read(LogIndex(0), LogIndex(999), 1 << 20).expect("read").len(), 101, "readable at once");
    drop(hang);
    wait(&first);
    second.iter().for_each(wait);
    // Closed, so that the thread attests nothing any more between one reading and the next.
    journal.close();
    let counts = counting.snapshot() - before;
    let attests = journal.stats().attests;
    // An attest is written in two places.
    assert_eq!((counts.journal.writes - 2 * attests, counts.journal.syncs), (2, 2));
    assert_eq!((journal.stats().groups, journal.stats().syncs), (2, 2));
    assert_eq!((counts.data, counts.meta, counts.vote, counts.other), Default::default());
    assert_eq!((journal.pending_bytes(), journal.oldest_pending()), (0, None));
}

/// Frames in a group that is being written, in the queue, and cut while there: gone at once, and for good.
#[test]
fn a_cut_overtakes_what_is_being_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let losing = LosingDisk::new();
    let counting = CountingDisk::new(Arc::new(losing.clone()));
    let disk: Arc<dyn Disk> = Arc::new(counting.clone());
    let options = small(JournalMode::Threaded);
    let journal = Journal::create(disk.clone(), folder.path(), EMPTY, options).expect("create");
    wait(&append(&journal, &[10]));
    let bytes = counting.snapshot().journal.bytes;
    let hang = Hang::new(&losing);
    let mut waiting = vec![append(&journal, &[20, 3000, 40])];
    until("it is being written", || counting.snapshot().journal.bytes > bytes + 3000);
    waiting.push(append(&journal, &[50, 60]));
    let kept = journal.log_id(LogIndex(1));
    for (last, lengths) in [(journal.log_id(LogIndex(4)), &[1, 2][..]), (kept, &[70, 80])] {
        let (callback, outcome) = done();
        journal.cut_after(last, callback).expect("cut");
        assert_eq!(journal.last(), last, "gone at once");
        waiting.extend([outcome, append(&journal, lengths)]);
    }
    let expected = journal.read(LogIndex(0), LogIndex(99), 1 << 20).expect("read");
    assert_eq!(expected.len(), 4);
    // When the group that is being written is durable, its frame 2 is, but that is not the frame 2 of now.
    let (seen, durable_between) = channel();
    let watched = journal.clone();
    let first_outcome = waiting.remove(0);
    drop(hang);
    wait(&first_outcome);
    seen.send(watched.durable()).expect("kept");
    waiting.iter().for_each(wait);
    assert!(durable_between.recv().expect("sent") <= journal.durable());
    assert_eq!(journal.durable(), journal.last());
    assert_eq!(journal.read(LogIndex(0), LogIndex(99), 1 << 20).expect("read"), expected);
    drop(journal);
    let (journal, scan) = Journal::open(disk, folder.path(), options).expect("open");
    assert_eq!(scan.damage, None);
    assert_eq!(journal.read(LogIndex(0), LogIndex(99), 1 << 20).expect("read"), expected);
}

/// A cut to the very end of a segment waits; a purge up to there would leave the journal without its place.
#[test]
fn nothing_is_purged_while_a_cut_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let losing = LosingDisk::new();
    let options = small(JournalMode::Threaded);
    let disk: Arc<dyn Disk> = Arc::new(losing.clone());
    let journal = Journal::create(disk.clone(), folder.path(), EMPTY, options).expect("create");
    wait(&append(&journal, &[30_000, 20_000, 40_000, 5]));
    assert_eq!(journal.stats().segments, 2);
    let hang = Hang::new(&losing);
    let (callback, outcome) = done();
    journal.cut_after(journal.log_id(LogIndex(1)), callback).expect("cut");
    assert_eq!(journal.purge(LogIndex(1)).expect("purge"), None);
    drop(hang);
    wait(&outcome);
    wait(&append(&journal, &[7]));
    drop(journal);
    let (journal, scan) = Journal::open(disk, folder.path(), options).expect("open");
    assert_eq!((scan.damage, scan.frames, journal.first_kept()), (None, 3, EMPTY));
}

#[test]
fn a_killed_process_loses_only_what_no_callback_promised() {
    let folder = tempfile::tempdir().expect("a folder");
    let losing = LosingDisk::new();
    let options = small(JournalMode::Threaded);
    let journal = Journal::create(Arc::new(losing.clone()), folder.path(), EMPTY, options).expect("create");
    wait(&append(&journal, &[10, 3000, 60_000, 5]));
    let hang = Hang::new(&losing);
    let lost = append(&journal, &[20, 30]);
    // Another process would find the real files as they are now.
    let copy = tempfile::tempdir().expect("a folder");
    for name in losing.list_dir(folder.path()).expect("list") {
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).expect("copy");
    }
    assert!(lost.try_recv().is_err());
    let (_, scan) = Journal::open(Arc::new(LosingDisk::new()), copy.path(), options).expect("open");
    assert_eq!((scan.damage, scan.frames), (None, 4));
    drop(hang);
    wait(&lost);
}

/// Which callback ran, and whether it heard of success; in the order they ran.
type Noted = Arc<Mutex<Vec<(&'static str, bool)>>>;

/// Callbacks that note their outcomes.
fn notes() -> (impl Fn(&'static str) -> Done, Noted) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let inner = notes.clone();
    let note = move |what| -> Done {
        let notes = inner.clone();
        Box::new(move |outcome: Result<(), StorageError>| notes.lock().expect("sound").push((what, outcome.is_ok())))
    };
    (note, notes)
}

#[test]
fn after_a_failed_sync_nothing_is_retried_or_accepted() {
    let disk = SimDisk::new(1);
    let options = small(JournalMode::Inline);
    let directory = Path::new("/journal");
    let journal = Journal::create(Arc::new(disk.clone()), directory, EMPTY, options).expect("create");
    let (note, noted) = notes();
    journal.append(frames_after(EMPTY, 1, &[1]), note("durable")).expect("append");
    let (inner, failing) = (journal.clone(), disk.clone());
    let inside = [note("failed"), note("waiting"), note("cut"), note("job")];
    let job = Box::new(move || {
        let [first, second, third, fourth] = inside;
        inner.append(frames_after(end_of(&inner), 1, &[20_000]), first)?;
        inner.append(frames_after(end_of(&inner), 1, &[3]), second)?;
        inner.cut_after(inner.log_id(LogIndex(1)), third)?;
        inner.run_in_order(Box::new(|| panic!("never run")), fourth)?;
        failing.fail_next_sync();
        Ok(())
    });
    journal.run_in_order(job, note("job before")).expect("job");
    let expected = [
        ("durable", true),
        ("job before", true),
        ("failed", false),
        ("waiting", false),
        ("cut", false),
        ("job", false),
    ];
    assert_eq!(*noted.lock().expect("sound"), expected);
    assert!(journal.poisoned().expect("stopped").to_string().contains("injected"));
    let operations = disk.operation_count();
    let refused = [
        journal.append(Vec::new(), note("late")),
        journal.cut_after(journal.last(), note("late")),
        journal.run_in_order(Box::new(|| Ok(())), note("late")),
        journal.purge(LogIndex(0)).map(drop),
        journal.attest(),
    ];
    for outcome in refused {
        assert!(matches!(outcome, Err(StorageError::Poisoned(_))));
    }
    journal.close();
    assert_eq!(disk.operation_count(), operations, "nothing is written any more");
    assert_eq!((journal.pending_bytes(), journal.oldest_pending()), (0, None));
    assert_eq!(*noted.lock().expect("sound"), expected, "no callback runs twice");
}

/// A sync fails, the operator starts the node again, and it may fail once more while the journal is opened; then it is
/// open, and the power goes.
#[test]
fn a_failed_sync_does_not_become_a_success_by_opening_again() {
    let (options, directory) = (small(JournalMode::Inline), Path::new("/journal"));
    for (lengths, segments) in [(&[20, 5000][..], 1), (&[50_000, 3][..], 2)] {
        for failures_of_opening in 0..3 {
            let mut disk = SimDisk::new(1);
            let open = |disk: &SimDisk| Journal::open(Arc::new(disk.clone()), directory, options);
            let journal = Journal::create(Arc::new(disk.clone()), directory, EMPTY, options).expect("create");
            wait(&append(&journal, &[20_000]));
            wait(&append(&journal, &[20_000]));
            journal.purge(LogIndex(0)).expect("nothing goes, and a spare is made");
            disk.fail_next_sync();
            append(&journal, lengths).recv().expect("the callback runs").expect_err("told to fail");
            for _ in 0..failures_of_opening {
                disk = disk.kill();
                disk.fail_next_sync();
                assert!(open(&disk).is_err());
            }
            disk = disk.kill();
            let (journal, scan) = open(&disk).expect("open");
            assert_eq!((scan.damage, journal.stats().segments), (None, segments));
            let durable = journal.durable();
            let (_, scan) = open(&disk.crash(CrashChoice::LoseAll)).expect("open");
            assert_eq!((scan.damage, scan.last.previous), (None, durable), "{failures_of_opening}");
        }
    }
}

#[test]
fn a_failed_job_stops_the_journal() {
    let journal =
        Journal::create(Arc::new(SimDisk::new(1)), Path::new("/j"), EMPTY, small(JournalMode::Inline)).expect("create");
    let (callback, outcome) = done();
    let failure = StorageError::corrupted("/vote", 0, "told to fail");
    journal.run_in_order(Box::new(move || Err(failure)), callback).expect("queued");
    assert!(outcome.recv().expect("the callback runs").is_err());
    assert!(journal.append(Vec::new(), done().0).is_err());
}

#[test]
fn a_panicking_job_fails_its_own_callback_and_those_behind_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(LosingDisk::new());
    let journal = Journal::create(disk, folder.path(), EMPTY, small(JournalMode::Threaded)).expect("create");
    let (go, gate) = channel::<()>();
    let job = Box::new(move || {
        gate.recv().expect("the test lets it go");
        panic!("a broken invariant, for the test");
    });
    let (callback, own) = done();
    journal.run_in_order(job, callback).expect("queued");
    let waiting = append(&journal, &[1]);
    go.send(()).expect("it waits");
    for outcome in [own, waiting] {
        let error = outcome.recv().expect("the callback runs").expect_err("nobody does it");
        assert!(error.to_string().contains("panicked"), "{error}");
    }
    journal.close();
}

#[test]
fn a_full_disk_stops_the_journal_where_a_new_segment_is_needed() {
    let disk = SimDisk::new(1);
    let journal =
        Journal::create(Arc::new(disk.clone()), Path::new("/j"), EMPTY, small(JournalMode::Inline)).expect("create");
    disk.set_space_limit(Some(64 << 10));
    wait(&append(&journal, &[30_000]));
    let error = append(&journal, &[40_000]).recv().expect("the callback runs").expect_err("no room");
    assert!(error.is_no_space(), "{error}");
    let names = disk.list_dir(Path::new("/j")).expect("list");
    assert_eq!(names, ["00000000000000000001.seg"], "no half-made spare stays");
    drop(journal);
    disk.set_space_limit(None);
    let (journal, scan) = Journal::open(Arc::new(disk), Path::new("/j"), small(JournalMode::Inline)).expect("open");
    assert_eq!((scan.damage, scan.frames), (None, 1));
    wait(&append(&journal, &[40_000]));
}

/// With room for two segments, the third spare cannot be made; what is purged meanwhile takes its place.
#[test]
fn a_spare_that_cannot_be_made_does_not_keep_purged_segments_back() {
    let disk = SimDisk::new(1);
    let journal =
        Journal::create(Arc::new(disk.clone()), Path::new("/j"), EMPTY, small(JournalMode::Threaded)).expect("create");
    disk.set_space_limit(Some(130 << 10));
    for index in 0..8 {
        wait(&append(&journal, &[30_000]));
        if index > 1 {
            // Two frames fill a segment: all but the one being written may go.
            journal.purge(LogIndex(index - 1)).expect("purge");
            until("the purged segment is a spare", || journal.stats().spares + journal.stats().segments == 2);
        }
    }
    journal.close();
    let names = disk.list_dir(Path::new("/j")).expect("list");
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn options_and_places_that_cannot_be() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let create = |segment_bytes| {
        let options = JournalOptions { segment_bytes, ..small(JournalMode::Inline) };
        Journal::create(disk.clone(), Path::new("/j"), EMPTY, options).map(drop)
    };
    for segment_bytes in [0, 63 << 10, (64 << 10) + 1, 1 << 41] {
        let error = create(segment_bytes).expect_err("no size");
        assert!(error.to_string().contains("no segment size"), "{error}");
    }
    create(64 << 10).expect("a size");
    assert!(create(64 << 10).expect_err("there is one").to_string().contains("already"));
}

/// Closing while a spare is being made: neither is waited for, and what is queued is still written.
#[test]
fn closing_does_not_wait_for_spares() {
    for round in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let disk: Arc<dyn Disk> = Arc::new(LosingDisk::new());
        let options = JournalOptions { segment_bytes: 4 << 20, ..small(JournalMode::Threaded) };
        let journal = Journal::create(disk.clone(), folder.path(), EMPTY, options).expect("create");
        let outcome = append(&journal, &[1 << 20, 1 << 20, 1 << 20, 1000, 1 << 20, 5]);
        if round % 2 == 0 {
            wait(&outcome);
            journal.close();
        } else {
            journal.close();
            wait(&outcome);
        }
        let (_, scan) = Journal::open(disk, folder.path(), options).expect("open");
        assert_eq!((scan.damage, scan.frames), (None, 6));
    }
}

#[test]
fn a_callback_that_runs_on_a_caller_may_close_the_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let losing = LosingDisk::new();
    let options = JournalOptions { segment_bytes: 1 << 20, ..small(JournalMode::Threaded) };
    let journal = Journal::create(Arc::new(losing.clone()), folder.path(), EMPTY, options).expect("create");
    let (closed, hears) = channel();
    let closing = journal.clone();
    let caller = std::thread::current().id();
    let callback: Done = Box::new(move |outcome| {
        outcome.expect("durable");
        closing.close();
        closed.send(std::thread::current().id()).expect("waited for");
    });
    journal.queue_append(frames_after(end_of(&journal), 1, &[10]), callback).expect("queued");
    journal.work_off(super::Who::Caller);
    assert_eq!(hears.recv().expect("the callback runs"), caller, "nobody else was told to do it");
    assert!(journal.sync().is_err(), "it is closed");
    drop(journal);
    let (_, scan) = Journal::open(Arc::new(losing), folder.path(), options).expect("opens");
    assert_eq!(scan.last.previous.map(|last| last.index), Some(LogIndex(0)));
}
