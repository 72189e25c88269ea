//! What a pin keeps, until when, and what its owner is told.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rig_test::{commit, identity, options};
use super::{Engine, EngineOptions, PinError};
use crate::env::{Disk, SimDisk};
use crate::ids::{DatabaseId, LogIndex};
use crate::journal::JournalOptions;

/// An engine that keeps no more of its journal than it must.
fn engine(name: &str) -> Engine {
    let journal = JournalOptions { segment_bytes: 64 << 10, ..options().journal };
    let options = EngineOptions { retention_bytes: 0, journal, ..options() };
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    Engine::create(disk, &Path::new("/").join(name), &identity(1), DatabaseId(9), options).expect("a new directory")
}

/// Writes at least `bytes` of journal, and some KiB more at most. Its frames take less than that: writes fill whole blocks.
fn write(engine: &Engine, bytes: u64) {
    let end = engine.status().journal_bytes_written + bytes;
    while engine.status().journal_bytes_written < end {
        commit(engine, |batch| {
            batch.create_tree("t").expect("works");
            batch.put("t", b"k", &[7; 4000]).expect("fits");
        });
    }
}

/// Purges all that may go; the first frame that stayed.
fn purge(engine: &Engine) -> LogIndex {
    engine.purge(engine.applied().log_id.expect("not empty")).expect("only noted");
    engine.checkpoint().expect("works");
    engine.core.store().journal.first_kept().next_index()
}

#[test]
fn a_pin_keeps_the_journal_until_it_is_dropped_and_lets_go_as_it_advances() {
    let engine = engine("node");
    let pin = engine.pin("feed", LogIndex(0), u64::MAX).expect("nothing is purged yet");
    write(&engine, 512 << 10);
    assert_eq!(purge(&engine), LogIndex(0));
    let listed = engine.pins().remove(0);
    assert_eq!((listed.name.as_str(), listed.from, listed.max_bytes), ("feed", LogIndex(0), u64::MAX));
    assert!((256 << 10..640 << 10).contains(&listed.held_bytes), "{listed:?}");
    assert_eq!(engine.read_frames(LogIndex(0), LogIndex(1), 1).expect("kept").len(), 1);

    let middle = LogIndex(engine.applied().log_id.expect("not empty").index.0 / 2);
    pin.advance(middle).expect("not lost");
    assert!(engine.pins()[0].held_bytes < listed.held_bytes);
    write(&engine, 4 << 10);
    let first = purge(&engine);
    assert!(first > LogIndex(0) && first <= middle, "{first}");
    pin.advance(LogIndex(0)).expect("it does not go back");
    assert_eq!(pin.from(), middle);
    pin.check().expect("not lost");

    drop(pin);
    assert!(engine.pins().is_empty());
    write(&engine, 4 << 10);
    assert!(purge(&engine) > middle);
}

#[test]
fn a_pin_that_keeps_too_much_is_lost_and_its_owner_is_told() {
    let engine = engine("node");
    let (few, many) = (engine.pin("few", LogIndex(0), 100 << 10), engine.pin("many", LogIndex(0), 10 << 20));
    let (few, many) = (few.expect("pinned"), many.expect("pinned"));
    write(&engine, 48 << 10);
    purge(&engine);
    few.check().expect("not yet too much");
    write(&engine, 256 << 10);
    assert_eq!(purge(&engine), LogIndex(0), "the other one keeps it");
    let error = few.check().expect_err("too much");
    let PinError::Overrun { name, from, held_bytes, max_bytes } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), *from, *max_bytes), ("few", LogIndex(0), 100 << 10));
    assert!(*held_bytes > 100 << 10 && error.to_string().contains("\"few\""), "{error}");
    assert_eq!(few.advance(LogIndex(9)), Err(error), "it does not come back");
    let names: Vec<String> = engine.pins().into_iter().map(|pin| pin.name).collect();
    assert_eq!(names, ["many"]);
    drop(many);
    write(&engine, 4 << 10);
    assert!(purge(&engine) > LogIndex(0), "one that is lost keeps nothing");
}

#[test]
fn what_is_purged_cannot_be_pinned_and_what_is_to_come_can() {
    let engine = engine("node");
    write(&engine, 256 << 10);
    let oldest = purge(&engine);
    let gone = engine.pin("late", LogIndex(0), u64::MAX).err();
    assert_eq!(gone, Some(PinError::Purged { name: "late".into(), from: LogIndex(0), oldest }));
    let next = engine.log_state().last.expect("not empty").index.next();
    let early = engine.pin("early", next, u64::MAX).expect("it is still to come");
    assert_eq!(engine.pins()[0].held_bytes, 0);
    write(&engine, 256 << 10);
    assert!(purge(&engine) <= next && early.check().is_ok());
}

/// A pin that was given names frames that are there, whatever purges meanwhile.
#[test]
fn no_purge_takes_what_was_just_pinned() {
    let engine = engine("node");
    write(&engine, 64 << 10);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                write(&engine, 64 << 10);
                purge(&engine);
            }
            ended.store(true, Ordering::Relaxed);
        });
        let mut given = 0;
        while !ended.load(Ordering::Relaxed) || given == 0 {
            let oldest = engine.core.store().journal.first_kept().next_index();
            let Ok(pin) = engine.pin("racing", oldest, u64::MAX) else { continue };
            let frames = engine.read_frames(oldest, oldest.next(), 1).expect("it is pinned");
            assert_eq!(frames.first().map(|frame| frame.log_id().index), Some(oldest));
            drop(pin);
            given += 1;
        }
    });
}

#[test]
fn a_pin_goes_along_when_the_node_is_seeded_unless_its_frames_do_not() {
    let (source, target) = (engine("source"), engine("target"));
    write(&source, 256 << 10);
    purge(&source);
    let end = source.applied().log_id.expect("not empty").index.next();
    let (low, high) = (target.pin("low", LogIndex(0), u64::MAX), target.pin("high", end, u64::MAX));
    let (low, high) = (low.expect("pinned"), high.expect("pinned"));
    let (mut stream, mut receiver) =
        (source.seed_source(u64::MAX).expect("a source"), target.seed_receiver().expect("one"));
    assert_eq!(source.pins()[0].name, "seeding");
    while let Some(chunk) = stream.next(1 << 20).expect("readable") {
        receiver.feed(chunk).expect("a good stream");
    }
    receiver.finish().expect("switched");
    let error = low.check().expect_err("its frames did not come");
    assert!(matches!(&error, PinError::Replaced { from: LogIndex(0), oldest, .. } if *oldest <= end), "{error}");
    high.check().expect("its frames are still to come");
    write(&target, 256 << 10);
    assert!(purge(&target) <= end);
    drop(high);
    write(&target, 64 << 10);
    assert!(purge(&target) > end);
}
