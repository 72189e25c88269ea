use std::path::Path;
use std::sync::Arc;

use super::{SeedChunk, SeedError};
use crate::engine::rig_test::{append, commit, create, identity, options};
use crate::engine::{Engine, EngineOptions};
use crate::env::{CrashChoice, Disk, RealDisk, SimDisk};
use crate::ids::{DatabaseId, Generation, LogIndex};
use crate::journal::JournalOptions;
use crate::store::Published;

pub(super) fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

pub(super) fn put(engine: &Engine, round: u32, length: usize) {
    commit(engine, |batch| {
        batch.create_tree("t").expect("works");
        for key in 0..20_u32 {
            let key = (round * 7 + key) % 90;
            batch.put("t", &key.to_be_bytes(), &vec![round as u8; length]).expect("fits");
        }
        if round.is_multiple_of(3) {
            batch.delete("t", &(round % 90).to_be_bytes()).expect("works");
        }
    });
}

/// The whole stream of `source`.
pub(super) fn stream_of(source: &Engine) -> Vec<SeedChunk> {
    stream_while_writing(source, 0)
}

/// The whole stream of `source`, with writes and checkpoints between its pieces.
fn stream_while_writing(source: &Engine, writes: u32) -> Vec<SeedChunk> {
    let mut stream = source.seed_source(u64::MAX).expect("a source");
    let mut chunks = Vec::new();
    let mut round = 100;
    while let Some(chunk) = stream.next(64 << 10).expect("readable") {
        chunks.push(chunk);
        if round < 100 + writes {
            put(source, round, 500 + round as usize % 5 * 2_000);
            if round.is_multiple_of(2) {
                source.checkpoint().expect("works");
            }
            round += 1;
        }
    }
    chunks
}

pub(super) fn feed(engine: &Engine, chunks: Vec<SeedChunk>) -> Result<(), SeedError> {
    let mut receiver = engine.seed_receiver()?;
    for chunk in chunks {
        receiver.feed(chunk)?;
    }
    receiver.finish().map(drop)
}

pub(super) fn catch_up(from: &Engine, to: &Engine) {
    let next = to.log_state().last.map_or(0, |last| last.index.0 + 1);
    let end = from.log_state().last.map_or(0, |last| last.index.0 + 1);
    for index in next..end {
        let index = crate::ids::LogIndex(index);
        let frame = from.read_frames(index, index.next(), 1).expect("kept").remove(0);
        append(to, vec![frame]);
    }
    let next = to.applied().log_id.map_or(0, |last| last.index.0 + 1);
    for index in next..end {
        let index = crate::ids::LogIndex(index);
        let frame = to.read_frames(index, index.next(), 1).expect("kept").remove(0);
        let applied = to.apply(&frame).expect("the pages are the leader's");
        assert!(matches!(applied, crate::store::Applied::Record { how: Published::Decoded, .. }));
    }
}

fn files_equal(a: &Path, b: &Path) {
    let (a, b) = (std::fs::read(a).expect("a data file"), std::fs::read(b).expect("a data file"));
    assert!(a == b, "the data files differ");
}

#[test]
fn a_seeded_replica_has_the_sources_bytes_although_writes_and_checkpoints_went_on() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = create(&disk(), &home.path().join("a"), 1);
    for round in 0..60 {
        put(&source, round, 300 + round as usize * 50);
    }
    source.checkpoint().expect("works");
    for round in 60..70 {
        put(&source, round, 3_000);
    }
    let chunks = stream_while_writing(&source, 12);
    assert!(source.status().checkpoints >= 4, "checkpoints finished while the pages were copied");
    let target = create(&disk(), &home.path().join("b"), 2);
    // An old reader keeps the old generation, and its files, until it goes.
    let old = target.read();
    feed(&target, chunks).expect("a good stream");
    assert!(home.path().join("b/g1").exists());
    drop(old);
    assert!(!home.path().join("b/g1").exists(), "the old generation goes with its last reader");
    assert_eq!(target.status().generation, Generation(2));
    catch_up(&source, &target);
    assert_eq!(target.applied(), source.applied());
    source.checkpoint().expect("works");
    target.checkpoint().expect("works");
    files_equal(&home.path().join("a/g1/data"), &home.path().join("b/g2/data"));
    drop(target);
    let (target, _) = Engine::open(disk(), &home.path().join("b"), options()).expect("opens");
    assert_eq!(target.applied().digest, source.applied().digest);
    assert_eq!(target.status().tree_mutations, 0);
}

#[test]
fn a_damaged_stream_is_refused_and_leaves_the_old_state() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = create(&disk(), &home.path().join("a"), 1);
    for round in 0..30 {
        put(&source, round, 700);
    }
    source.checkpoint().expect("works");
    let good = stream_while_writing(&source, 3);
    let target = create(&disk(), &home.path().join("b"), 2);
    let before = target.applied();
    let mut refused = 0;
    for place in 0..good.len() {
        // A piece missing.
        let mut chunks = good.clone();
        chunks.remove(place);
        assert!(feed(&target, chunks).is_err(), "piece {place} of {} missing", good.len());
        // A piece twice, unless writing it twice is the same as once and it is counted so.
        let mut chunks = good.clone();
        chunks.insert(place, good[place].clone());
        assert!(feed(&target, chunks).is_err(), "piece {place} twice");
        // A byte of a page flipped.
        let SeedChunk::Pages { bytes, .. } = &good[place] else { continue };
        for part in 1..5 {
            let mut flipped = bytes.to_vec();
            let at = flipped.len() * part / 5;
            flipped[at] ^= 0x40;
            let mut chunks = good.clone();
            let SeedChunk::Pages { bytes, .. } = &mut chunks[place] else { unreachable!("it is pages") };
            *bytes = flipped.into();
            // A flipped byte under a later full image or diff is harmless; then the state is the source's.
            let fresh = create(&disk(), &home.path().join(format!("f{place}-{part}")), 3);
            if feed(&fresh, chunks).is_ok() {
                let read = fresh.read();
                let report = crate::verify::check_pages(&read, &mut |_| {}).expect("readable");
                assert!(report.is_clean() && report.digest == fresh.applied().digest, "{report:?}");
            } else {
                refused += 1;
                assert_eq!(fresh.applied(), before);
            }
        }
    }
    assert!(refused > 0, "no flipped byte was found");
    assert_eq!(target.applied(), before);
    assert_eq!(target.status().generation, Generation(1));
    assert!(!home.path().join("b/g2").exists());
}

#[test]
fn a_stream_of_another_database_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = create(&disk(), &home.path().join("a"), 1);
    let other = Engine::create(disk(), &home.path().join("b"), &identity(2), DatabaseId(1), options()).expect("new");
    let error = feed(&other, stream_while_writing(&source, 0)).expect_err("another database").to_string();
    assert!(error.contains("is of database"), "{error}");
}

#[test]
fn seeding_from_a_source_that_has_applied_nothing_keeps_what_was_acknowledged() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = create(&disk(), &home.path().join("a"), 1);
    let writer = create(&disk(), &home.path().join("b"), 2);
    put(&writer, 1, 100);
    let frames = writer.read_frames(crate::ids::LogIndex(0), crate::ids::LogIndex(1), 1).expect("kept");
    let target = create(&disk(), &home.path().join("c"), 3);
    append(&target, frames.clone());
    feed(&target, stream_while_writing(&source, 0)).expect("a good stream");
    assert_eq!(target.log_state().last, Some(frames[0].log_id()), "the frame was acknowledged before");
    assert_eq!(target.log_state().durable, Some(frames[0].log_id()));
}

#[test]
fn a_second_receiver_is_refused_and_the_next_one_leaves_the_first_ones_generation_alone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = create(&disk(), &home.path().join("a"), 1);
    put(&source, 1, 2_000);
    source.checkpoint().expect("works");
    let target = create(&disk(), &home.path().join("b"), 2);
    let mut first = target.seed_receiver().expect("nobody is there");
    assert!(matches!(target.seed_receiver(), Err(SeedError::Busy)));
    let (chunks, last) = {
        let mut chunks = stream_while_writing(&source, 0);
        let last = chunks.pop().expect("the end of the stream");
        (chunks, last)
    };
    for chunk in chunks {
        first.feed(chunk).expect("a good stream");
        assert!(matches!(target.seed_receiver(), Err(SeedError::Busy)), "the first one is at work");
    }
    first.feed(last).expect("a good stream");
    assert!(matches!(target.seed_receiver(), Err(SeedError::Busy)), "the first one is not finished");
    let progress = first.progress();
    let fed = progress.steps();
    first.finish().expect("a good stream");
    assert!(progress.steps() > fed, "finishing is seen from outside");

    let mut second = target.seed_receiver().expect("the first one has ended");
    second.feed(stream_while_writing(&source, 0).remove(0)).expect("a manifest");
    drop(second);
    assert_eq!(target.applied(), source.applied());
    drop(target);
    let (target, _) = Engine::open(disk(), &home.path().join("b"), options()).expect("opens");
    assert_eq!(target.applied().digest, source.applied().digest);
    assert!(crate::verify::check_pages(&target.read(), &mut |_| {}).expect("readable").is_clean());
}

#[test]
fn a_receiver_builds_where_nothing_stands() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let target = create(&disk(), home.path(), 1);
    std::fs::create_dir_all(home.path().join("g7/data")).expect("a place that is taken");
    let receiver = target.seed_receiver().expect("nobody is there");
    assert!(home.path().join("g8").exists() && home.path().join("g7/data").exists());
    drop(receiver);
    assert!(!home.path().join("g8").exists() && home.path().join("g7/data").exists());
}

#[test]
fn a_source_whose_receiver_is_too_slow_gives_the_journal_up_and_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let journal = JournalOptions { segment_bytes: 64 << 10, ..options().journal };
    let options = EngineOptions { retention_bytes: 0, journal, ..options() };
    let source = Engine::create(disk(), home.path(), &identity(1), DatabaseId(9), options).expect("new");
    let purge = || {
        source.purge(source.applied().log_id.expect("not empty")).expect("only noted");
        source.checkpoint().expect("works");
        source.log_state().last_purged
    };
    put(&source, 0, 700);
    purge();
    const HOLD_BYTES: u64 = 256 << 10;
    let (mut slow, mut patient) =
        (source.seed_source(HOLD_BYTES).expect("a source"), source.seed_source(64 << 20).expect("a source"));
    for stream in [&mut slow, &mut patient] {
        assert!(matches!(stream.next(1 << 20), Ok(Some(SeedChunk::Manifest(_)))));
    }
    let begin = source.status().journal_bytes_written;
    let mut round = 1;
    while source.status().journal_bytes_written - begin < 2 * HOLD_BYTES {
        put(&source, round, 700);
        round += 1;
        purge();
    }
    let kept = source.core.store().journal.first_kept().previous;
    assert!(matches!(slow.next(1 << 20), Err(SeedError::TooSlow { hold_bytes: HOLD_BYTES })));
    while patient.next(1 << 20).expect("the journal was kept").is_some() {}
    drop(patient);
    put(&source, round, 700);
    purge();
    assert!(source.core.store().journal.first_kept().previous > kept, "nothing holds the journal any more");
}

/// Frames go on coming while a new generation takes the journal's place: each is in the one or, copied, in the other.
#[test]
fn no_frame_that_comes_during_a_switch_is_lost() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (source, target) = (create(&disk(), &home.path().join("a"), 1), create(&disk(), &home.path().join("b"), 2));
    put(&source, 0, 700);
    catch_up(&source, &target);
    for _ in 0..20 {
        // The seed ends where the target is; what comes behind it is on its way to either journal.
        source.checkpoint().expect("works");
        let chunks = stream_while_writing(&source, 0);
        let first = target.log_state().last.expect("not empty").index.next();
        for round in 0..30 {
            put(&source, round, 10);
        }
        let applied = target.applied().log_id;
        std::thread::scope(|scope| {
            let appender = scope.spawn(|| {
                let frames = source.read_frames(first, LogIndex(u64::MAX), usize::MAX).expect("kept");
                frames.into_iter().for_each(|frame| append(&target, vec![frame]));
            });
            while target.log_state().last.is_none_or(|last| last.index < first) {
                std::thread::yield_now();
            }
            let seeded = feed(&target, chunks);
            appender.join().expect("each frame follows the one before");
            seeded.expect("switched");
        });
        assert!(target.applied().log_id >= applied);
        assert_eq!(target.log_state().last, source.log_state().last);
        catch_up(&source, &target);
        assert_eq!(target.applied(), source.applied());
    }
}

#[test]
fn a_source_that_is_seeded_itself_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (other, source) = (create(&disk(), &home.path().join("a"), 1), create(&disk(), &home.path().join("b"), 2));
    for round in 0..9 {
        put(&other, round, 700);
    }
    other.checkpoint().expect("works");
    put(&source, 0, 700);
    source.checkpoint().expect("works");
    let mut early = source.seed_source(u64::MAX).expect("a source");
    let mut late = source.seed_source(u64::MAX).expect("a source");
    assert!(early.next(64 << 10).expect("a manifest").is_some());
    while !matches!(late.next(64 << 10), Ok(Some(SeedChunk::PagesDone { .. }))) {}
    feed(&source, stream_while_writing(&other, 0)).expect("a good stream");
    let ended = std::iter::repeat_with(|| early.next(64 << 10)).find(|next| !matches!(next, Ok(Some(_))));
    assert!(matches!(ended, Some(Err(SeedError::Switched))), "{ended:?}");
    // One that knew its target before has all it needs in the old files.
    while late.next(64 << 10).expect("the old journal is there").is_some() {}
}

/// The write of `node.meta` that switches fails. Whichever generation the next start reads, after a kill or a power cut,
/// it is there, whole, and with everything that was acknowledged.
#[test]
fn after_a_switch_that_failed_one_generation_opens() {
    let (sim, place) = (SimDisk::new(1), Path::new("/b"));
    let source = create(&(Arc::new(SimDisk::new(2)) as Arc<dyn Disk>), Path::new("/a"), 1);
    put(&source, 1, 100);
    let target = create(&(Arc::new(sim.clone()) as Arc<dyn Disk>), place, 2);
    catch_up(&source, &target);
    target.checkpoint().expect("works");
    let before = target.applied();
    for round in 2..9 {
        put(&source, round, 3_000);
    }
    source.checkpoint().expect("works");
    let mut receiver = target.seed_receiver().expect("nobody is there");
    stream_while_writing(&source, 0).into_iter().for_each(|chunk| receiver.feed(chunk).expect("a good stream"));
    sim.fail_next_sync_of(&place.join("node.meta"));
    let error = receiver.finish().expect_err("told to fail");
    assert!(error.to_string().contains("injected"), "{error}");

    let refused =
        target.append(vec![source.read_frames(LogIndex(1), LogIndex(2), 1).expect("kept").remove(0)], Box::new(drop));
    assert!(refused.is_err(), "what it acknowledged now, the next start might not read");
    assert!(target.seed_receiver().is_err() && target.checkpoint().is_err() && target.set_addresses("a", "b").is_err());
    drop(target);

    let mut read = std::collections::BTreeSet::new();
    let disks = [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..10).map(CrashChoice::Seeded));
    for (after, what) in disks.map(|choice| (sim.crash(choice), choice)).chain([(sim.kill(), CrashChoice::KeepAll)]) {
        let open = |disk: &SimDisk| Engine::open(Arc::new(disk.clone()), place, options()).expect("opens").0;
        let engine = open(&after);
        let generation = engine.status().generation;
        let expected = if generation == Generation(1) { &before } else { &source.applied() };
        assert_eq!(&engine.applied(), expected, "{what:?}");
        let report = crate::verify::check_pages(&engine.read(), &mut |_| {}).expect("readable");
        assert!(report.is_clean() && report.digest == expected.digest, "{what:?}: {report:?}");
        let generations = after.list_dir(place).expect("list").iter().filter(|name| name.starts_with('g')).count();
        assert_eq!(generations, 1, "the other one went");
        let later = open(&after.crash(CrashChoice::LoseAll));
        assert_eq!((later.status().generation, later.applied()), (generation, engine.applied()), "{what:?}");
        read.insert(generation);
    }
    assert_eq!(read.len(), 2, "both generations were read by some start");
}

/// What the node has accepted needs its space more than a seeding does.
#[test]
fn a_seeding_for_which_there_is_no_space_is_not_begun_and_is_when_there_is() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = create(&(Arc::new(from) as Arc<dyn Disk>), Path::new("/db"), 1);
    for round in 0..20 {
        put(&source, round, 3_000);
    }
    source.checkpoint().expect("works");
    let chunks = stream_while_writing(&source, 0);
    let digest = source.applied().digest;
    let target = create(&(Arc::new(to.clone()) as Arc<dyn Disk>), Path::new("/db"), 2);
    to.set_space_limit(Some(1 << 50));
    let used = (1 << 50) - to.free_bytes(Path::new("/db")).expect("known");
    to.set_space_limit(Some(used + (1 << 20)));
    match feed(&target, chunks.clone()).expect_err("no space") {
        SeedError::Storage(error) => assert!(error.is_no_space() && error.to_string().contains("are free"), "{error}"),
        other => panic!("{other}"),
    }
    assert!(!to.exists(Path::new("/db/g2")).expect("known"), "nothing is left of it");
    assert_eq!(target.status().failed, None);
    // Nor may its frames take what others need, however many come.
    to.set_space_limit(Some(used + (64 << 20)));
    for round in 20..100 {
        put(&source, round, 2_000);
    }
    let mut stream = source.seed_source(u64::MAX).expect("a source").frames_beside();
    let many: Vec<SeedChunk> = std::iter::from_fn(|| stream.next(8 << 10).expect("readable")).collect();
    let frames = many.iter().filter(|chunk| matches!(chunk, SeedChunk::Frames(_))).map(SeedChunk::carried_bytes);
    assert!(frames.sum::<u64>() > 64 << 10);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    let ended = many.into_iter().try_for_each(|chunk| {
        if matches!(chunk, SeedChunk::Pages { .. }) {
            to.set_space_limit(Some(used + (1 << 20)));
        }
        receiver.feed(chunk)
    });
    assert!(matches!(ended, Err(SeedError::Storage(ref error)) if error.is_no_space()), "{ended:?}");
    drop(receiver);
    assert!(!to.exists(Path::new("/db/g2")).expect("known"), "nothing is left of it");
    to.set_space_limit(None);
    feed(&target, chunks).expect("there is space");
    assert_eq!(target.applied().digest, digest);
}
