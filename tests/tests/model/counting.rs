//! What goes through the door between the arrival of a frame and its acknowledgement, and on closing.

use std::path::Path;
use std::sync::{Arc, mpsc};

use calamus_engine::env::{BLOCK_BYTES, Count, CountingDisk, Disk, DiskCounts, RealDisk};
use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::journal::frame::{Frame, FrameKind};
use calamus_engine::journal::{CHAIN_START, JournalMode};
use calamus_engine::{Batch, Database, Engine, EngineOptions};
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::node::DATABASE;
use calamus_tests::engine_driver::{identity, small_options};
use calamus_tests::gate::Gate;

/// Segments in which all of a test's frames have room: beginning one is not what is counted here.
fn options(mode: JournalMode) -> EngineOptions {
    let mut options = small_options();
    options.journal.mode = mode;
    options.journal.segment_bytes = 8 << 20;
    options
}

/// Executes a batch (values of 10 bytes to 40 KiB) and encodes its record behind a chain value.
fn frame(engine: &Engine, number: usize, chain: u64) -> Frame {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("works");
    batch.put("t", &[1 + (number % 7) as u8], &vec![number as u8; 10 << (number % 13)]).expect("fits");
    batch.commit_txn();
    let payload = batch.seal(1).expect("fits").expect("changed something").payload;
    let commit = number.checked_sub(1).map(|index| LogIndex(index as u64));
    Frame::encode(FrameKind::Record, LogId::new(1, number as u64), commit, chain, payload)
}

/// Frames of a leader somewhere else.
fn frames(count: usize) -> Vec<Frame> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = Engine::create(disk, home.path(), &identity(9), DATABASE, options(JournalMode::Inline)).expect("new");
    let mut frames: Vec<Frame> = Vec::new();
    for number in 0..count {
        let chain = frames.last().map_or(CHAIN_START, Frame::chain);
        frames.push(frame(&engine, number, chain));
    }
    frames
}

fn only(journal: Count) -> DiskCounts {
    DiskCounts { journal, ..DiskCounts::default() }
}

/// Appends frames as one call, and returns what had gone through the door when they were acknowledged.
fn append(engine: &Engine, disk: &CountingDisk, frames: Vec<Frame>) -> DiskCounts {
    let before = disk.snapshot();
    let (done, acknowledged) = mpsc::channel();
    let counted = disk.clone();
    let callback = move |result: Result<(), _>| {
        result.expect("synced");
        done.send(counted.snapshot()).expect("waited for");
    };
    engine.append(frames, Box::new(callback)).expect("not poisoned");
    acknowledged.recv().expect("called") - before
}

/// Appends a group, counts, and applies it.
fn take_group(engine: &Engine, disk: &CountingDisk, group: &[Frame]) {
    let counts = append(engine, disk, group.to_vec());
    assert_eq!((counts.journal.writes, counts.journal.syncs), (1, 1), "{counts:?}");
    assert_eq!(counts, only(counts.journal), "nothing else before the acknowledgement");
    let least: usize = group.iter().map(Frame::frame_bytes).sum();
    // The block of the group, each frame up to the next multiple of 64, and the rest of the disk's blocks in which all of
    // that begins and ends.
    let most = least + 64 + 64 * group.len() + 2 * BLOCK_BYTES as usize;
    assert!(counts.journal.bytes.is_multiple_of(BLOCK_BYTES), "{counts:?}");
    assert!((least as u64..=most as u64).contains(&counts.journal.bytes), "{counts:?} for {least} bytes of frames");
    let before = disk.snapshot();
    for frame in group {
        engine.apply(frame).expect("applies");
    }
    assert_eq!(disk.snapshot() - before, DiskCounts::default(), "applying writes nothing");
}

fn node(home: &Path) -> (CountingDisk, Engine) {
    let disk = CountingDisk::new(Arc::new(RealDisk::new()));
    let options = options(JournalMode::Inline);
    let engine = Engine::create(Arc::new(disk.clone()), home, &identity(1), DATABASE, options).expect("new");
    (disk, engine)
}

#[test]
fn a_group_is_one_write_and_one_sync_of_the_journal_on_a_leader() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (disk, engine) = node(home.path());
    for number in 0..24 {
        let before = disk.snapshot();
        let frame = frame(&engine, number, engine.last_chain());
        assert_eq!(disk.snapshot() - before, DiskCounts::default(), "executing writes nothing");
        take_group(&engine, &disk, &[frame]);
    }
    assert_eq!(engine.status().published_records, 24);
    closing_writes_no_file_again(&engine, &disk, home.path());
}

#[test]
fn a_group_is_one_write_and_one_sync_of_the_journal_on_a_follower() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (disk, engine) = node(home.path());
    let frames = frames(24);
    frames.chunks(3).for_each(|group| take_group(&engine, &disk, group));
    assert_eq!((engine.status().decoded_records, engine.status().tree_mutations), (24, 0));
    closing_writes_no_file_again(&engine, &disk, home.path());
}

/// A checkpoint writes its pages once and `node.meta` twice, into both slots, which one sync makes durable where it takes
/// one sector, as here; closing adds the attest, in two places.
fn closing_writes_no_file_again(engine: &Engine, disk: &CountingDisk, home: &Path) {
    let before = disk.snapshot();
    let report = engine.checkpoint().expect("works");
    let counts = disk.snapshot() - before;
    // No page twice; pages that were freed at the end of the file are cut with it.
    let most = engine.status().page_count.min(report.pages as u64) * 8192;
    assert!(counts.data.bytes > 0 && counts.data.bytes <= most, "{counts:?} {report:?}");
    assert_eq!((counts.data.syncs, counts.meta.writes, counts.meta.syncs), (1, 4, 2));
    assert_eq!(counts, DiskCounts { data: counts.data, meta: counts.meta, ..DiskCounts::default() });
    let before = disk.snapshot();
    engine.checkpoint().expect("nothing to do");
    assert_eq!(disk.snapshot() - before, DiskCounts::default(), "nothing was applied since");
    let data = std::fs::read(home.join("g1/data")).expect("a data file");

    let before = disk.snapshot();
    engine.close();
    let counts = disk.snapshot() - before;
    let attest = Count { writes: 2, syncs: 0, bytes: 2 * BLOCK_BYTES };
    assert_eq!(counts, only(attest), "closing writes two blocks into the journal, and no file again");
    assert!(std::fs::read(home.join("g1/data")).expect("a data file") == data);
}

#[test]
fn what_waits_while_a_sync_runs_shares_the_next_one() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let gate = Arc::new(Gate::default());
    let gated = BoundaryDisk::new(Arc::new(RealDisk::new()), gate.at_journal_syncs());
    let disk = CountingDisk::new(Arc::new(gated));
    let (door, options) = (Arc::new(disk.clone()), options(JournalMode::Threaded));
    let engine = Engine::create(door, home.path(), &identity(1), DATABASE, options).expect("new");
    let frames = frames(40);
    let before = (disk.snapshot(), engine.status().journal_groups);
    let closed = gate.close();
    let (done, acknowledged) = mpsc::channel();
    let count = frames.len();
    let mut waiting = 0;
    for frame in frames {
        let (done, bytes) = (done.clone(), frame.frame_bytes());
        engine.append(vec![frame], Box::new(move |result| done.send(result).expect("waited for"))).expect("queued");
        waiting += bytes;
    }
    assert!(acknowledged.try_recv().is_err(), "nothing is acknowledged before its sync");
    drop(closed);
    (0..count).for_each(|_| acknowledged.recv().expect("called").expect("synced"));
    let (counts, groups) = (disk.snapshot() - before.0, engine.status().journal_groups - before.1);
    assert_eq!(counts.journal.syncs, groups, "one sync a group");
    // One group for what came before the journal's thread looked, then full ones.
    let full = waiting / options.journal.max_group_bytes + 1;
    assert!(groups as usize <= 2 * full + 1, "{groups} groups for {count} frames of {waiting} bytes");
    // An attest, which is two writes and not synced, may stand among them if the thread was idle for a while.
    assert!(counts.journal.writes >= groups && counts.journal.writes <= groups + 4, "{counts:?}");
    assert_eq!(DiskCounts { spare: Count::default(), ..counts }, only(counts.journal));
}

#[test]
fn transactions_that_wait_while_a_sync_runs_share_the_next_one() {
    const WAITING: usize = 12;
    let home = tempfile::tempdir().expect("a temporary directory");
    let gate = Arc::new(Gate::default());
    let gated = BoundaryDisk::new(Arc::new(RealDisk::new()), gate.at_journal_syncs());
    let disk = CountingDisk::new(Arc::new(gated));
    let mut options = options(JournalMode::Threaded);
    options.background = false;
    let database = Database::open_with(Arc::new(disk.clone()), home.path(), options).expect("new");
    database.write(|txn| txn.create_tree("t")).expect("committed");
    let before = disk.snapshot();
    let closed = gate.close();
    let (ran, has_run) = mpsc::channel();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| database.write(|txn| txn.put("t", b"leader", b"")).expect("committed"));
        gate.wait_for_somebody();
        let waiting: Vec<_> = (0..WAITING)
            .map(|number| {
                let (database, ran) = (&database, ran.clone());
                scope.spawn(move || {
                    let put = |txn: &mut Batch| txn.put("t", &number.to_be_bytes(), b"");
                    let put = |txn: &mut Batch| put(txn).inspect(|_| ran.send(()).expect("waited for"));
                    database.write(put).expect("committed")
                })
            })
            .collect();
        (0..WAITING).for_each(|_| has_run.recv().expect("sent"));
        assert!(!leader.is_finished() && !waiting.iter().any(std::thread::ScopedJoinHandle::is_finished));
        drop(closed);
        leader.join().expect("no panic");
        waiting.into_iter().for_each(|waiting| assert!(waiting.join().is_ok()));
    });
    let counts = disk.snapshot() - before;
    assert_eq!((counts.journal.syncs, database.engine().status().published_records), (2, 3), "{counts:?}");
    // An attest, which is not synced, may stand between them if nothing was written for a while.
    assert!((2..=3).contains(&counts.journal.writes), "{counts:?}");
    assert_eq!(DiskCounts { spare: Count::default(), ..counts }, only(counts.journal));
}
