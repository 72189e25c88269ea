//! Calls that fail, once, somewhere in a life; then the power goes, or the process ends. The failure is named, a failed
//! sync is never tried again into success, and the next process finds all that was acknowledged.

use std::sync::Arc;

use calamus_engine::Vote;
use calamus_engine::engine::Faults;
use calamus_engine::env::sim::{Call, LARGE_SECTOR_BYTES, SECTOR_BYTES};
use calamus_engine::env::{CrashChoice, Disk, Fault, SimDisk, Trouble};
use calamus_engine::ids::{RaftId, Term};
use calamus_engine::journal::frame::FrameKind;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::pair::Pair;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, wrong};
use parking_lot::Mutex;

use super::enumerate::{Workload, caught, options, recover};
use super::workloads::{self, Sizes};

/// A life of a leader or a follower on a disk that fails, and how it ended.
struct Life {
    sim: SimDisk,
    promise: Arc<Mutex<Promise>>,
    pair: Option<Pair>,
    node: usize,
    ended: Result<(), Stop>,
}

fn live(workload: Workload, node: usize, sim: SimDisk) -> Life {
    let promise = Arc::new(Mutex::new(Promise::unborn()));
    let mut life = Life { sim: sim.clone(), promise: promise.clone(), pair: None, node, ended: Ok(()) };
    let door: Arc<dyn Disk> = Arc::new(sim.clone());
    let failing = match Node::create(sim, door, node as u64 + 1, options(Faults::default()), promise) {
        Ok(failing) => failing,
        Err(stop) => return Life { ended: Err(stop), ..life },
    };
    let plain = SimDisk::new(12);
    let idle = Arc::new(Mutex::new(Promise::unborn()));
    let other = Node::create(plain.clone(), Arc::new(plain), 2 - node as u64, options(Faults::default()), idle);
    let other = other.expect("its disk does not fail");
    let pair = life.pair.insert(Pair::new(if node == 0 { [failing, other] } else { [other, failing] }));
    life.ended = workload(pair, &mut Sizes::new(0));
    life
}

impl Life {
    /// What a failed sync stopped stays stopped: whatever the disk says from now on.
    fn stays_stopped(&mut self, part: &str) -> Result<(), Stop> {
        let (Err(stop), Some(pair)) = (&self.ended, &mut self.pair) else { return Ok(()) };
        // A spare that could not be made is made anew, in a file of its own.
        let part = if part == "journal" && !stop.0.contains(".seg") { "a spare" } else { part };
        let node = &mut pair.nodes[self.node];
        // It failed while it was opened: then nothing runs.
        if !node.is_open() {
            return Ok(());
        }
        let again = |node: &mut Node| match part {
            "journal" => {
                let entry = node.other_frame(FrameKind::Blank, 99, 0, Vec::new());
                node.append(&[entry]).is_ok()
            }
            "data" | "node.meta" => node.engine().checkpoint().is_ok(),
            "vote" => node.vote(Vote { term: Term(99), node: Some(RaftId(1)), committed: false }).is_ok(),
            _ => false,
        };
        if again(node) || again(node) {
            return Err(wrong(format!("after {stop}, the {part} goes on")));
        }
        Ok(())
    }

    /// The disks that the next process may find.
    fn left(&self, seed: u64) -> Vec<(String, SimDisk)> {
        let choices = [CrashChoice::LoseAll, CrashChoice::KeepAll, CrashChoice::Seeded(seed)];
        let mut left: Vec<_> = choices.map(|choice| (format!("{choice:?}"), self.sim.crash(choice))).into();
        left.push(("a kill".into(), self.sim.kill()));
        left
    }
}

/// Fails the calls of a kind one after the other, some of them; returns how many lives were lived and how many of them
/// ended with the failure.
fn fails(workload: Workload, node: usize, fault: Fault, part: &str, unit_bytes: usize) -> (u64, u64) {
    const LIVES: u64 = 5;
    // Far enough between two of them that all of a life is covered, whatever its length.
    let stride = match fault {
        Fault::FailWrite | Fault::NoSpace => 13,
        _ => 4,
    };
    let (mut lived, mut ended) = (0, 0);
    for turn in 0..LIVES {
        let sim = SimDisk::with_unit(turn + 1, unit_bytes);
        sim.plan(Trouble::new(fault).of(part).after(turn * stride));
        let place = format!("{fault:?} of {part} after {} calls, units of {unit_bytes}", turn * stride);
        let mut life = live(workload, node, sim);
        if life.sim.faults_happened() == 0 {
            life.ended.unwrap_or_else(|stop| panic!("{place}: nothing failed, and yet: {stop}"));
            break;
        }
        lived += 1;
        if let Err(stop) = &life.ended {
            ended += 1;
            // The call by its name, and the file.
            assert!(stop.0.contains("/db"), "{place}: {stop} does not say where");
        }
        if fault == Fault::FailSync {
            life.stays_stopped(part).unwrap_or_else(|stop| panic!("{place}: {stop}"));
        }
        let promise = life.promise.lock().clone();
        for (what, image) in life.left(turn) {
            let promise = promise.clone();
            let goes_on = caught(|| recover(image, promise, options(Faults::default()))?.go_on(turn % 2 == 0));
            goes_on.unwrap_or_else(|error| panic!("{place}; then {what}: {error}"));
        }
    }
    (lived, ended)
}

#[test]
fn a_call_that_fails_is_named_and_loses_nothing_that_was_acknowledged() {
    let faults = [Fault::FailWrite, Fault::FailSync, Fault::NoSpace];
    let places =
        faults.into_iter().flat_map(|fault| ["journal", "data", "node.meta", "vote"].map(|part| (fault, part)));
    let places = places.chain([(Fault::FailSyncDirectory, "db")]);
    let (mut lived, mut ended) = (0, 0);
    for (turn, (fault, part)) in places.enumerate() {
        let unit_bytes = [SECTOR_BYTES, LARGE_SECTOR_BYTES][turn % 2];
        let (workload, node) = [(workloads::leader as Workload, 0), (workloads::follower, 1)][turn / 2 % 2];
        let (some, of_them) = fails(workload, node, fault, part, unit_bytes);
        lived += some;
        ended += of_them;
    }
    println!("faults: {lived} lives with a failed call, {ended} ended by it");
    assert!(ended > 20, "only {ended} of {lived} lives ended with the failure");
}

/// A read that fails is an error of that read: nothing is wrong with what is on the disk.
#[test]
fn a_read_that_fails_is_an_error_and_nothing_else() {
    let sim = SimDisk::new(1);
    let life = live(workloads::leader, 0, sim.clone());
    life.ended.expect("nothing fails");
    drop(life.pair);
    let promise = life.promise.lock().clone();
    let mut failed = 0;
    for turn in 0.. {
        let disk = sim.kill();
        disk.plan(Trouble::new(Fault::FailRead).after(turn * 3));
        let again = caught(|| recover(disk.clone(), promise.clone(), options(Faults::default())).map(drop));
        if disk.faults_happened() == 0 {
            again.expect("nothing failed");
            break;
        }
        failed += u64::from(again.is_err());
        if let Err(what) = again {
            assert!(what.contains("read of /db") && what.contains("injected"), "the read is named: {what}");
        }
        let sound = recover(disk.crash(CrashChoice::LoseAll), promise.clone(), options(Faults::default()));
        sound.unwrap_or_else(|stop| panic!("after a failed read, number {}: {stop}", turn * 3));
    }
    assert!(failed > 10, "only {failed} reads failed");
}

/// Calls that take a part of what they could are no trouble at all.
#[test]
fn short_reads_and_writes_change_nothing() {
    for unit_bytes in [SECTOR_BYTES, LARGE_SECTOR_BYTES] {
        for (workload, node) in [(workloads::leader as Workload, 0), (workloads::follower, 1), (workloads::seeded, 1)] {
            let (short, whole) = (SimDisk::with_unit(1, unit_bytes), SimDisk::with_unit(1, unit_bytes));
            short.set_short_io(true);
            let images = [short, whole].map(|sim| {
                let life = live(workload, node, sim);
                life.ended.unwrap_or_else(|stop| panic!("units of {unit_bytes}: {stop}"));
                drop(life.pair);
                (life.sim.operation_count(), life.sim.crash(CrashChoice::KeepAll).image_hash())
            });
            assert!(images[0].0 > images[1].0, "calls were short: {images:?}");
            assert_eq!(images[0].1, images[1].1, "the same bytes under the same names");
        }
    }
}

/// A data file whose sync hangs holds up its checkpoint, and nothing else.
#[test]
fn a_checkpoint_that_hangs_holds_up_no_commit_and_no_reader() {
    let sim = SimDisk::new(1);
    let mut life = live(workloads::leader, 0, sim.clone());
    life.ended.expect("nothing fails");
    let node = &mut life.pair.as_mut().expect("it was made").nodes[0];
    let append = |node: &mut Node| {
        let entry = node.other_frame(FrameKind::Blank, 99, node.log.len(), Vec::new());
        node.append(&[entry])?;
        node.promise.lock().truth.clone_from(&node.log);
        node.apply(node.log.len())
    };
    append(node).expect("works");
    let stall = sim.stall(Call::Sync, "data");
    let engine = node.engine().clone();
    let checkpoint = std::thread::spawn(move || engine.checkpoint());
    stall.wait_for_somebody();
    append(node).expect("the journal is another file");
    node.check().expect("readers see the state");
    let image = sim.crash(CrashChoice::LoseAll);
    let promise = node.promise.lock().clone();
    drop(stall);
    checkpoint.join().expect("no panic").expect("it goes on");
    recover(image, promise, options(Faults::default()))
        .and_then(|mut node| node.go_on(true))
        .expect("opens, and goes on");
}
