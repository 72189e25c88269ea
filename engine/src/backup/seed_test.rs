//! A replica that is seeded from backups, and goes on from a node.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::error::RestoreError;
use super::rig_test::{Life, TestSurroundings, backups, engine_options, go_on, new_engine, trees_of};
use crate::backup::Backups;
use crate::engine::{Engine, Pin};
use crate::env::{Disk, SimDisk};
use crate::ids::{ClusterId, DatabaseId, LogIndex};
use crate::seed::{SeedChunk, SeedReceiver};

const DATABASE: u128 = 7;

/// A node with a chain of backups, and a cluster that has gone on since.
struct Rig {
    life: Life,
    time: TestSurroundings,
    backups: Backups,
    /// Keeps the journal from the beginning on.
    pin: Option<Pin>,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
        let (engine, time) = (new_engine(&disk, DATABASE), TestSurroundings::default());
        let pin = engine.pin("test", LogIndex(0), u64::MAX).ok();
        let backups = backups(&disk, "/backups", &time);
        let mut rig = Self { life: Life::new(engine, seed), time, backups, pin };
        rig.life.change(40, &rig.time);
        rig.full();
        for _ in 0..seed % 3 {
            rig.life.change(3, &rig.time);
            rig.backups.incremental(&rig.life.engine, &mut go_on).expect("works");
        }
        rig.life.change(5, &rig.time);
        rig
    }

    /// A full backup while writes and checkpoints go on.
    fn full(&mut self) {
        let (engine, life, time) = (self.life.engine.clone(), &mut self.life, &self.time);
        let mut look = 0;
        let mut on_progress = |_| {
            look += 1;
            if look % 4 == 0 {
                life.step(time);
            }
            ControlFlow::Continue(())
        };
        self.backups.full(&engine, &mut on_progress).expect("works");
    }

    fn cluster(&self) -> ClusterId {
        self.life.engine.identity().cluster_id
    }

    /// Feeds at most `pieces` of the backups. Returns whether that was all.
    fn feed(&self, receiver: &mut SeedReceiver, pieces: usize) -> bool {
        let received = receiver.resume();
        let mut count = 0;
        let mut on_piece = |piece: SeedChunk| {
            assert!(!matches!(piece, SeedChunk::Done { .. }), "the cluster has gone on");
            if count == pieces {
                return ControlFlow::Break(());
            }
            count += 1;
            receiver.feed(piece).expect("a good chain");
            ControlFlow::Continue(())
        };
        let seeded = self.backups.seed(DatabaseId(DATABASE), self.cluster(), received.as_ref(), &mut on_piece);
        seeded.expect("a good chain");
        count < pieces
    }

    /// Goes on from the node, and is then what the node is.
    fn go_on(&self, target: &Engine, mut receiver: SeedReceiver) {
        let resume = receiver.resume().expect("the backups brought something");
        let mut source = self.life.engine.resume_seed_source(resume, u64::MAX).expect("kept").frames_beside();
        while let Some(chunk) = source.next(32 << 10).expect("readable") {
            receiver.feed(chunk).expect("a good stream");
        }
        receiver.finish().expect("right");
        assert_eq!(target.applied(), self.life.engine.applied());
        assert_eq!(trees_of(target), self.life.now().trees);
        let report = crate::verify::check_pages(&target.read(), &mut |_| {}).expect("readable");
        assert!(report.is_clean() && report.digest == target.applied().digest, "{report:?}");
    }
}

fn replica(raft_id: u64) -> Engine {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(raft_id));
    let identity = crate::engine::rig_test::identity(raft_id);
    Engine::create(disk, Path::new("/db"), &identity, DatabaseId(DATABASE), engine_options()).expect("new")
}

/// Cut behind each piece, it goes on from the backups or from the node: the same state.
#[test]
fn a_replica_seeded_from_backups_goes_on_from_a_node() {
    for seed in 0..4 {
        let rig = Rig::new(seed);
        let mut whole = false;
        for cut in (1..).step_by(3) {
            let target = replica(2);
            let mut receiver = target.seed_receiver().expect("nobody is there");
            whole = rig.feed(&mut receiver, cut);
            if !whole && cut % 2 == 0 {
                // Cut once more, and then read to the end.
                rig.feed(&mut receiver, 2);
                assert!(rig.feed(&mut receiver, usize::MAX), "seed {seed}, cut {cut}");
                let resume = receiver.resume().expect("it has all");
                let chain_end = rig.backups.list().expect("sound").chains[0].newest().manifest.end.log_id();
                assert_eq!((resume.next_page.0, resume.last), (resume.page_count, chain_end), "seed {seed}, cut {cut}");
                // Nothing is left to hand on.
                assert!(rig.feed(&mut receiver, 1));
            }
            rig.go_on(&target, receiver);
            if whole {
                break;
            }
        }
        assert!(whole);
    }
}

/// Pages of a node, then those of a backup that began with the same checkpoint, in which fewer of them are free.
#[test]
fn backups_go_on_where_a_node_was_cut() {
    let mut both = 0;
    for seed in 0..20_u64 {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
        let (engine, time) = (new_engine(&disk, DATABASE), TestSurroundings::default());
        let pin = engine.pin("test", LogIndex(0), u64::MAX).ok();
        let backups = backups(&disk, "/backups", &time);
        let mut rig = Rig { life: Life::new(engine, seed), time, backups, pin };
        rig.life.change(40, &rig.time);
        rig.life.engine.checkpoint().expect("works");
        let target = replica(2);
        let mut receiver = target.seed_receiver().expect("nobody is there");
        let mut source = rig.life.engine.seed_source(u64::MAX).expect("kept").frames_beside();
        let engine = rig.life.engine.clone();
        rig.backups.full(&engine, &mut go_on).expect("works");
        rig.life.change(30, &rig.time);
        rig.life.engine.checkpoint().expect("works");
        for _ in 0..4 + seed % 20 {
            let Some(chunk) = source.next(16 << 10).expect("readable") else { break };
            if matches!(chunk, SeedChunk::Done { .. }) {
                break;
            }
            receiver.feed(chunk).expect("a good stream");
        }
        let received = receiver.resume();
        let has_pages = received.as_ref().is_some_and(|received| received.next_page.0 < received.page_count);
        both += u32::from(has_pages);
        let mut on_piece = |piece| {
            receiver.feed(piece).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            ControlFlow::Continue(())
        };
        let seeded = rig.backups.seed(DatabaseId(DATABASE), rig.cluster(), received.as_ref(), &mut on_piece);
        seeded.expect("a good chain");
        rig.go_on(&target, receiver);
    }
    assert!(both > 5, "only {both} had pages of both");
}

#[test]
fn backups_that_are_of_no_use_are_refused() {
    let mut rig = Rig::new(1);
    let target = replica(2);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    let mut never = |piece: SeedChunk| panic!("{piece:?} was handed on");
    let (database, cluster) = (DatabaseId(DATABASE), rig.cluster());
    let foreign = rig.backups.seed(database, ClusterId(cluster.0 + 1), None, &mut never);
    assert!(matches!(foreign, Err(RestoreError::Foreign { .. })), "{foreign:?}");
    let foreign = rig.backups.seed(DatabaseId(8), cluster, None, &mut never);
    assert!(matches!(foreign, Err(RestoreError::Foreign { .. })), "{foreign:?}");
    // What was received is of the chain before.
    rig.feed(&mut receiver, 3);
    rig.life.change(9, &rig.time);
    rig.full();
    let older = rig.backups.seed(database, cluster, receiver.resume().as_ref(), &mut never);
    assert!(older.expect_err("another chain").to_string().contains("newest chain"));
    // Backups that are too old for every node: what was received is of no use without the frames behind it.
    drop(receiver);
    let mut receiver = target.seed_receiver().expect("nobody is there");
    assert!(rig.feed(&mut receiver, usize::MAX));
    rig.pin = None;
    rig.life.change(40, &rig.time);
    rig.life.engine.checkpoint().expect("works");
    let refused = rig.life.engine.resume_seed_source(receiver.resume().expect("it has all"), u64::MAX).err();
    let refused = refused.expect("the journal is purged").to_string();
    assert!(refused.contains("the journal begins with frame"), "{refused}");
}
