//! What a reader that follows the journal shows, and when it waits, ends and fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::rig_test::{append, commit, commit_later, identity, options};
use super::{Engine, EngineOptions, JournalTail, TailError, TailNext};
use crate::database::{Database, Durability};
use crate::env::{CrashChoice, Disk, SimDisk};
use crate::ids::{DatabaseId, LogId, LogIndex};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::journal::{JournalMode, JournalOptions};

fn engine(name: &str) -> Engine {
    let journal = JournalOptions { segment_bytes: 64 << 10, ..options().journal };
    let options = EngineOptions { retention_bytes: 0, journal, ..options() };
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    Engine::create(disk, &Path::new("/").join(name), &identity(1), DatabaseId(9), options).expect("a new directory")
}

fn put(engine: &Engine, length: usize) -> Frame {
    let work = |batch: &mut crate::Batch| {
        batch.create_tree("t").expect("works");
        batch.put("t", b"k", &vec![length as u8; length]).expect("fits");
    };
    commit(engine, work).expect("changed something")
}

fn purge(engine: &Engine) {
    engine.purge(engine.applied().log_id.expect("not empty")).expect("only noted");
    engine.checkpoint().expect("works");
}

/// What it shows without waiting.
fn shown(tail: &mut JournalTail) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let TailNext::Frame(frame) = tail.next_within(Duration::ZERO).expect("readable") {
        frames.push(frame);
    }
    frames
}

fn blank(engine: &Engine, term: u64) -> Frame {
    let index = engine.log_state().last.expect("not empty").index.next();
    let id = LogId::new(term, index.0);
    Frame::encode(FrameKind::Blank, id, None, engine.last_chain(), Payload::new(bytes::Bytes::new()))
}

#[test]
fn it_shows_what_is_committed_and_never_what_may_be_cut() {
    let engine = engine("node");
    let mut tail = engine.tail(LogIndex(0));
    assert!(shown(&mut tail).is_empty());
    let first = put(&engine, 100);
    let later = commit_later(&engine, |batch| assert!(batch.put("t", b"later", b"").expect("fits").is_none()));
    let later = later.expect("changed something");
    append(&engine, vec![later.clone()]);
    assert!(engine.log_state().durable == Some(later.log_id()), "it is durable, and not committed");
    assert_eq!(shown(&mut tail), [first]);
    // A leader of a later term has another frame in its place.
    engine.drop_staged();
    engine.cut_after(engine.applied().log_id, Box::new(|outcome| outcome.expect("durable"))).expect("queued");
    assert!(shown(&mut tail).is_empty());
    let other = blank(&engine, 2);
    append(&engine, vec![other.clone()]);
    assert!(shown(&mut tail).is_empty());
    engine.apply(&other).expect("applies");
    assert_eq!(shown(&mut tail), [other]);
    assert_eq!(tail.position(), LogIndex(2));
    // One that begins later shows the same from there on, and one that begins at the end waits.
    assert_eq!(shown(&mut engine.tail(LogIndex(1))).len(), 1);
    assert!(shown(&mut engine.tail(LogIndex(2))).is_empty());
}

#[test]
fn what_is_applied_before_it_is_durable_here_is_shown_when_it_is() {
    let disk = SimDisk::new(1);
    let journal = JournalOptions { mode: JournalMode::Threaded, ..options().journal };
    let options = EngineOptions { journal, ..options() };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let engine = Engine::create(disk, Path::new("/node"), &identity(1), DatabaseId(9), options).expect("new");
    let first = put(&engine, 100);
    let mut tail = engine.tail(LogIndex(0));
    assert_eq!(shown(&mut tail), [first]);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let held_up = move || released.recv().map_or(Ok(()), Ok);
    engine.core.store().journal.run_in_order(Box::new(held_up), Box::new(drop)).expect("open");
    let frame = blank(&engine, 1);
    engine.append(vec![frame.clone()], Box::new(drop)).expect("queued");
    engine.apply(&frame).expect("applies");
    assert!(shown(&mut tail).is_empty());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tail.next());
        release.send(()).expect("it waits");
        assert_eq!(waiting.join().expect("no panic").expect("readable"), Some(frame));
    });
}

#[test]
fn what_is_purged_before_it_is_read_is_named_and_a_pin_keeps_it() {
    let engine = engine("node");
    let frames: Vec<Frame> = (0..30).map(|_| put(&engine, 20_000)).collect();
    let (mut slow, mut pinned) = (engine.tail(LogIndex(0)), engine.tail(LogIndex(0)));
    let pin = engine.pin("tail", LogIndex(0), u64::MAX).expect("nothing is purged");
    purge(&engine);
    assert_eq!(shown(&mut pinned), frames);
    drop(pin);
    put(&engine, 100);
    purge(&engine);
    let oldest = engine.core.store().journal.first_kept().next_index();
    let error = slow.next_within(Duration::ZERO).expect_err("purged");
    assert!(matches!(error, TailError::Purged { next: LogIndex(0), oldest: found } if found == oldest), "{error}");
    assert_eq!(shown(&mut engine.tail(oldest)).len() as u64, engine.applied().log_id.unwrap().index.0 + 1 - oldest.0);
}

#[test]
fn closing_it_or_the_engine_ends_its_wait() {
    let engine = engine("node");
    let first = put(&engine, 100);
    let mut tail = engine.tail(LogIndex(1));
    let closer = tail.closer();
    let waiting = std::thread::spawn(move || tail.next());
    closer.close();
    assert!(waiting.join().expect("no panic").expect("no failure").is_none());

    let mut tail = engine.tail(LogIndex(0));
    let waiting = std::thread::spawn(move || {
        let mut frames = Vec::new();
        while let Some(frame) = tail.next().expect("no failure") {
            frames.push(frame);
        }
        frames
    });
    drop((closer, engine));
    assert_eq!(waiting.join().expect("no panic"), [first], "what stays is shown before");
}

#[test]
fn when_the_journal_fails_it_shows_what_stays_and_says_why_no_more_comes() {
    let disk = SimDisk::new(1);
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let engine = Engine::create(door, Path::new("/node"), &identity(1), DatabaseId(9), options()).expect("new");
    let first = put(&engine, 100);
    let mut tail = engine.tail(LogIndex(0));
    // Of the segment that is written: the one behind it may be prepared at this moment, and fail without harm.
    disk.fail_next_sync_of(Path::new("00000000000000000001.seg"));
    engine.append(vec![blank(&engine, 1)], Box::new(drop)).expect("it was open");
    assert_eq!(tail.next().expect("readable"), Some(first));
    let error = tail.next().expect_err("nothing comes any more");
    assert!(error.to_string().contains("injected"), "{error}");
}

/// A writer that recycles segments as it goes, and a reader that pins its place: it sees each frame once, in order.
#[test]
fn it_keeps_up_with_a_writer_through_segments_and_recycling() {
    let engine = engine("node");
    let mut tail = engine.tail(LogIndex(0));
    let pin = engine.pin("tail", LogIndex(0), u64::MAX).expect("nothing is purged");
    let begun = engine.last_chain();
    let reader = std::thread::spawn(move || {
        let (mut chain, mut next) = (begun, LogIndex(0));
        while let Some(frame) = tail.next().expect("it is pinned") {
            assert_eq!(frame.log_id().index, next);
            assert!(frame.follows(chain));
            (chain, next) = (frame.chain(), next.next());
            pin.advance(next).expect("not lost");
        }
        next
    });
    for round in 0..300 {
        put(&engine, 1_000 + round * 37 % 9_000);
        if round % 10 == 9 {
            purge(&engine);
        }
    }
    let end = engine.log_state().last.expect("not empty").index.next();
    engine.close();
    assert_eq!(reader.join().expect("no panic"), end);
}

#[test]
fn it_goes_on_in_a_new_generation_if_that_has_what_it_read() {
    let (source, target, other) = (engine("source"), engine("target"), engine("other"));
    let frames: Vec<Frame> = (0..5).map(|_| put(&source, 3_000)).collect();
    for frame in &frames[..3] {
        append(&target, vec![frame.clone()]);
        target.apply(frame).expect("applies");
    }
    put(&other, 7);
    let (mut tail, mut lost, mut foreign) =
        (target.tail(LogIndex(0)), target.tail(LogIndex(0)), other.tail(LogIndex(0)));
    assert_eq!(shown(&mut tail), frames[..3]);
    assert_eq!(shown(&mut foreign).len(), 1);
    // A seeding begins behind the finished checkpoint: at frame 3 in the one, at frame 1 in the other.
    let seed = |from: &Engine, to: &Engine| {
        let (mut stream, mut receiver) = (from.seed_source(u64::MAX).expect("one"), to.seed_receiver().expect("one"));
        while let Some(chunk) = stream.next(1 << 20).expect("readable") {
            receiver.feed(chunk).expect("a good stream");
        }
        receiver.finish().expect("switched");
    };
    let second = engine("second");
    append(&second, vec![frames[0].clone()]);
    second.apply(&frames[0]).expect("applies");
    second.checkpoint().expect("works");
    for frame in &frames[1..] {
        append(&second, vec![frame.clone()]);
        second.apply(frame).expect("applies");
    }
    let mut early = second.seed_source(u64::MAX).expect("a source");
    let mut receiver = other.seed_receiver().expect("one");
    let manifest = early.next(1 << 20).expect("readable").expect("a manifest");
    receiver.feed(manifest).expect("a good stream");
    second.checkpoint().expect("works");
    while let Some(chunk) = early.next(1 << 20).expect("readable") {
        receiver.feed(chunk).expect("a good stream");
    }
    receiver.finish().expect("switched");
    let error = foreign.next_within(Duration::ZERO).expect_err("it read another frame 0");
    assert!(matches!(error, TailError::OtherHistory { next: LogIndex(1) }), "{error}");

    let waiting = std::thread::spawn(move || (tail.next(), tail));
    let third = engine("third");
    for frame in &frames[..3] {
        append(&third, vec![frame.clone()]);
        third.apply(frame).expect("applies");
    }
    third.checkpoint().expect("works");
    seed(&third, &target);
    for frame in &frames[3..] {
        append(&target, vec![frame.clone()]);
        target.apply(frame).expect("applies");
    }
    let (next, mut tail) = waiting.join().expect("no panic");
    assert_eq!(next.expect("readable").as_ref(), Some(&frames[3]));
    assert_eq!(shown(&mut tail), frames[4..]);
    let error = lost.next_within(Duration::ZERO).expect_err("the new journal begins behind it");
    assert!(matches!(error, TailError::Purged { next: LogIndex(0), oldest: LogIndex(3) }), "{error}");
}

#[test]
fn no_power_cut_takes_what_was_shown() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let open = |disk: &SimDisk| {
            Database::open_with(Arc::new(disk.clone()), Path::new("/db"), EngineOptions::default()).expect("opens")
        };
        let database = open(&disk);
        database.write(|txn| txn.create_tree("t")).expect("committed");
        let deferred = database.with_durability(Durability::Deferred);
        let mut tail = database.engine().tail(LogIndex(0));
        for round in 0..60_u64 {
            deferred.write(|txn| txn.put("t", &round.to_be_bytes(), &[7; 300])).expect("committed");
            let seen = shown(&mut tail);
            if round % 15 == seed % 15 {
                let after = open(&disk.crash(CrashChoice::Seeded(seed * 100 + round)));
                let last = after.engine().log_state().last.map(|last| last.index.next());
                assert!(last >= Some(tail.position()), "shown up to {}, left up to {last:?}", tail.position());
                if let Some(frame) = seen.last() {
                    assert_eq!(after.engine().chain_at(frame.log_id().index), Some(frame.chain()));
                }
            }
        }
    }
}
