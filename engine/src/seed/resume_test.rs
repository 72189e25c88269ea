//! A stream that was cut, and goes on from another source.

use std::path::Path;
use std::sync::Arc;

use super::seed_test::{catch_up, disk, feed, put};
use super::{SeedChunk, SeedError, SeedReceiver, SeedSource};
use crate::engine::rig_test::{append, commit, create, identity, options};
use crate::engine::{Engine, EngineOptions};
use crate::env::{Disk, SimDisk};
use crate::ids::{DatabaseId, LogId, LogIndex};
use crate::journal::JournalOptions;
use crate::journal::frame::Frame;
use crate::txn::Batch;

const PIECE_BYTES: usize = 32 << 10;

/// Two replicas, and what goes on in their cluster meanwhile.
struct Pair {
    a: Engine,
    b: Engine,
    round: u32,
    /// Every frame that there was, for the journals forget them.
    log: Vec<Frame>,
}

/// A replica whose journal is purged, but for a few frames, as far as its checkpoint lets it.
fn replica(home: &Path, raft_id: u64) -> Engine {
    let journal = JournalOptions { segment_bytes: 128 << 10, ..options().journal };
    let options = EngineOptions { retention_bytes: 128 << 10, journal, ..options() };
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(raft_id));
    Engine::create(disk, home, &identity(raft_id), DatabaseId(9), options).expect("new")
}

fn checkpoint_and_purge(engine: &Engine) {
    engine.purge(engine.applied().log_id.expect("not empty")).expect("only noted");
    engine.checkpoint().expect("works");
}

impl Pair {
    fn new() -> Self {
        let mut pair =
            Self { a: replica(Path::new("/a"), 1), b: replica(Path::new("/b"), 2), round: 0, log: Vec::new() };
        for part in 0..20_u32 {
            let fill = |batch: &mut Batch| {
                batch.create_tree("u").expect("works");
                for key in part * 20..part * 20 + 20 {
                    batch.put("u", &key.to_be_bytes(), &[7; 1_000]).expect("fits");
                }
            };
            pair.log.extend(commit(&pair.a, fill));
            pair.round += 1;
        }
        catch_up(&pair.a, &pair.b);
        for _ in 0..20 {
            pair.write();
        }
        checkpoint_and_purge(&pair.a);
        checkpoint_and_purge(&pair.b);
        pair
    }

    fn write(&mut self) {
        put(&self.a, self.round, 200 + self.round as usize % 7 * 150);
        catch_up(&self.a, &self.b);
        let last = self.a.log_state().last.expect("not empty").index;
        self.log.extend(self.a.read_frames(last, last.next(), usize::MAX).expect("kept"));
        self.round += 1;
    }

    /// What goes on between two pieces: the checkpoints of both come at times of their own.
    fn go_on(&mut self) {
        self.write();
        if self.round.is_multiple_of(3) {
            checkpoint_and_purge(&self.a);
        }
        if self.round.is_multiple_of(5) {
            checkpoint_and_purge(&self.b);
        }
    }

    /// Feeds at most `pieces` of a stream. Returns whether that was all of it.
    fn pump(&mut self, source: &mut SeedSource, receiver: &mut SeedReceiver, pieces: usize) -> bool {
        for _ in 0..pieces {
            let Some(chunk) = source.next(PIECE_BYTES).expect("readable") else { return true };
            let pages = matches!(chunk, SeedChunk::Pages { .. });
            receiver.feed(chunk).expect("a good stream");
            if pages {
                self.go_on();
            }
        }
        false
    }

    /// The target is what `a` is, once it has the frames behind the seeding.
    fn assert_becomes_equal(&self, target: &Engine) {
        let next = target.log_state().last.expect("it was seeded").index.next();
        for frame in self.log.iter().skip(usize::try_from(next.0).expect("few")) {
            append(target, vec![frame.clone()]);
            target.apply(frame).expect("the pages are the leader's");
        }
        assert_eq!(target.applied(), self.a.applied());
        let report = crate::verify::check_pages(&target.read(), &mut |_| {}).expect("readable");
        assert!(report.is_clean() && report.digest == self.a.applied().digest, "{report:?}");
    }
}

fn begin(engine: &Engine) -> SeedSource {
    engine.seed_source(u64::MAX).expect("a source").frames_beside()
}

/// Cut behind each piece, gone on from the other replica or from the same one, and cut again there: no page is sent twice,
/// although neither journal reaches back to where the first source began.
#[test]
fn a_stream_that_is_cut_anywhere_goes_on_from_another_replica() {
    let (mut cuts, mut purged_meanwhile) = (0, 0);
    for cut in 1.. {
        let mut pair = Pair::new();
        let target = replica(Path::new("/t"), 3);
        let mut receiver = target.seed_receiver().expect("nobody is there");
        let (a, b) = (pair.a.clone(), pair.b.clone());
        let mut source = begin(&a);
        let first_page_count = source.page_count();
        if pair.pump(&mut source, &mut receiver, cut) {
            break;
        }
        let sources: [&Engine; 2] = if cut.is_multiple_of(3) { [&a, &b] } else { [&b, &a] };
        let mut pages_sent = 0;
        for (place, engine) in sources.into_iter().enumerate() {
            drop(source);
            let resume = receiver.resume().expect("the manifest was received");
            assert_eq!(resume.page_count, first_page_count);
            assert!(resume.pages_sent >= pages_sent, "what was received stays");
            pages_sent = resume.pages_sent;
            let oldest = engine.core.store().journal.first_kept().previous;
            purged_meanwhile += usize::from(oldest > resume.checkpoint.log_id);
            source = engine.resume_seed_source(resume, u64::MAX).expect("it has all of it").frames_beside();
            let pieces = if place == 0 { 2 } else { usize::MAX };
            if pair.pump(&mut source, &mut receiver, pieces) {
                break;
            }
        }
        cuts += 1;
        receiver.finish().expect("the mixture that any seeding makes");
        pair.assert_becomes_equal(&target);
    }
    assert!(cuts > 10, "the stream has {cuts} pieces");
    assert!(purged_meanwhile > cuts / 4, "the other journal reached back to the beginning all the time");
}

/// One that was verified, and then was not far enough, goes on with the frames that it lacks.
#[test]
fn a_verified_seeding_goes_on_with_what_was_committed_since() {
    let mut pair = Pair::new();
    let target = replica(Path::new("/t"), 3);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    let a = pair.a.clone();
    pair.pump(&mut begin(&a), &mut receiver, usize::MAX);
    for _ in 0..3 {
        let verified = receiver.verify().expect("right");
        let before = verified.applied();
        assert!(target.status().generation.0 == 1 && matches!(target.seed_receiver(), Err(SeedError::Busy)));
        receiver = verified.reopen().expect("opens");
        pair.write();
        let resume = receiver.resume().expect("it has all of the pages");
        assert_eq!((resume.last, resume.next_page.0), (before.log_id, resume.page_count));
        let b = pair.b.clone();
        let mut source = b.resume_seed_source(resume, u64::MAX).expect("it has the frames").frames_beside();
        while let Some(chunk) = source.next(PIECE_BYTES).expect("readable") {
            assert!(!matches!(chunk, SeedChunk::Pages { .. }));
            receiver.feed(chunk).expect("a good stream");
        }
    }
    receiver.finish().expect("right");
    assert_eq!(target.applied(), pair.b.applied(), "up to what the source had applied");
    pair.assert_becomes_equal(&target);
}

/// Who has not what it takes says why, and the receiver goes on from somebody else.
#[test]
fn a_source_that_cannot_take_over_says_why() {
    let mut pair = Pair::new();
    let target = replica(Path::new("/t"), 3);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    assert!(receiver.resume().is_none(), "nothing was received yet");
    let a = pair.a.clone();
    let mut source = begin(&a);
    pair.pump(&mut source, &mut receiver, 3);
    let resume = receiver.resume().expect("it has pages");
    assert!(resume.next_page.0 < resume.page_count && resume.last > resume.checkpoint.log_id);
    let why = |engine: &Engine, resume: &super::SeedResume| match engine.resume_seed_source(resume.clone(), 1 << 30) {
        Ok(_) => panic!("it takes over"),
        Err(SeedError::CannotResume(why)) => why,
        Err(other) => panic!("{other}"),
    };
    // Behind: it has applied less than what was copied may be of.
    let behind = replica(Path::new("/behind"), 4);
    assert!(why(&behind, &resume).contains("and this node has its beginning"), "{}", why(&behind, &resume));
    let ahead = LogId { index: LogIndex(u64::MAX - 1), ..resume.target.expect("not empty") };
    let further = super::SeedResume { target: Some(ahead), ..resume.clone() };
    assert!(why(&pair.b, &further).contains("this node has applied"), "{}", why(&pair.b, &further));
    // Another history under the same log ids.
    let forged = super::SeedResume { chain: resume.chain ^ 1, ..resume.clone() };
    assert!(why(&pair.b, &forged).contains("does not have the frame"), "{}", why(&pair.b, &forged));
    // Its pages are older than those that were copied.
    let old = replica(Path::new("/old"), 5);
    feed(&old, super::seed_test::stream_of(&pair.a)).expect("a good stream");
    let later = super::SeedResume { checkpoint: pair.a.applied(), last: pair.a.applied().log_id, ..resume.clone() };
    let later = super::SeedResume { chain: pair.a.applied().chain, target: later.last, ..later };
    catch_up(&pair.a, &old);
    assert!(why(&old, &later).contains("this node's checkpoint is at"), "{}", why(&old, &later));
    // Its journal begins too late.
    for _ in 0..30 {
        pair.write();
    }
    drop(source);
    checkpoint_and_purge(&pair.a);
    assert!(why(&pair.a, &resume).contains("the journal begins with frame"), "{}", why(&pair.a, &resume));
    // Frames that nobody has, or can have.
    let last = resume.last.map(|last| LogId { index: LogIndex(u64::MAX), ..last });
    let beyond = super::SeedResume { last, ..resume.clone() };
    assert!(why(&pair.b, &beyond).contains("broke off"), "{}", why(&pair.b, &beyond));
    // Pages without an end: nobody looks through them one by one.
    let endless = super::SeedResume { page_count: u32::MAX, ..resume.clone() };
    let mut source = pair.b.resume_seed_source(endless, u64::MAX).expect("it has all of it");
    assert!(std::iter::from_fn(|| source.next(PIECE_BYTES).expect("readable")).count() < 1_000);
    // It contradicts itself.
    let wrong = super::SeedResume { page_count: resume.next_page.0 - 1, ..resume.clone() };
    assert!(why(&pair.b, &wrong).contains("contradicts"), "{}", why(&pair.b, &wrong));
    // The receiver is none the worse for it.
    let mut source = pair.b.resume_seed_source(resume, u64::MAX).expect("it has all of it").frames_beside();
    let mut round = 0;
    while let Some(chunk) = source.next(PIECE_BYTES).expect("readable") {
        receiver.feed(chunk).expect("a good stream");
        round += 1;
    }
    assert!(round > 3);
    receiver.finish().expect("right");
    pair.assert_becomes_equal(&target);
}

/// A page may be newer than the last frame that was received: whoever takes over must have come as far as the page.
#[test]
fn a_replica_that_lags_takes_over_when_it_has_caught_up() {
    let mut pair = Pair::new();
    let target = replica(Path::new("/t"), 3);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    let mut source = begin(&pair.a);
    receiver.feed(source.next(PIECE_BYTES).expect("readable").expect("a manifest")).expect("good");
    for round in 100..103 {
        put(&pair.a, round, 900);
    }
    pair.a.checkpoint().expect("works");
    receiver.feed(source.next(PIECE_BYTES).expect("readable").expect("pages")).expect("good");
    drop(source);
    let resume = receiver.resume().expect("it has pages");
    assert!(resume.last == resume.checkpoint.log_id && resume.target == pair.a.checkpointed().log_id, "{resume:?}");
    let refused = pair.b.resume_seed_source(resume.clone(), u64::MAX).err();
    assert!(matches!(refused, Some(SeedError::CannotResume(_))), "{refused:?}");
    let next = pair.b.applied().log_id.expect("not empty").index.next();
    pair.log.extend(pair.a.read_frames(next, LogIndex(u64::MAX), usize::MAX).expect("kept"));
    catch_up(&pair.a, &pair.b);
    let mut source = pair.b.resume_seed_source(resume, u64::MAX).expect("it has all of it").frames_beside();
    assert!(pair.pump(&mut source, &mut receiver, usize::MAX));
    receiver.finish().expect("right");
    pair.assert_becomes_equal(&target);
}

/// Frames that go beside the pages do not have to be kept until the pages are through.
#[test]
fn frames_beside_the_pages_let_the_journal_go() {
    let mut pair = Pair::new();
    let a = pair.a.clone();
    const HOLD_BYTES: u64 = 256 << 10;
    let mut patient = a.seed_source(HOLD_BYTES).expect("a source").frames_beside();
    let mut late = a.seed_source(HOLD_BYTES).expect("a source");
    let mut too_slow = None;
    while let Some(chunk) = patient.next(16 << 10).expect("the journal is kept") {
        if matches!(chunk, SeedChunk::Pages { .. }) {
            pair.go_on();
        }
        if too_slow.is_none() {
            too_slow = late.next(16 << 10).err();
        }
    }
    assert!(matches!(too_slow, Some(SeedError::TooSlow { hold_bytes: HOLD_BYTES })), "{too_slow:?}");
}

/// A receiver of real files, so that what is parked is seen to go.
#[test]
fn a_receiver_that_waits_for_another_source_clears_up_when_it_is_dropped() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut pair = Pair::new();
    let target = create(&disk(), &home.path().join("t"), 3);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    let a = pair.a.clone();
    pair.pump(&mut begin(&a), &mut receiver, usize::MAX);
    let reopened = receiver.verify().expect("right").reopen().expect("opens");
    assert!(home.path().join("t/g2/data").exists());
    drop(reopened);
    assert!(!home.path().join("t/g2").exists());
    assert!(target.seed_receiver().is_ok(), "the seat is free");
}
