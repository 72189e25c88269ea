//! Tests of the tests: with each fault planted, the same searches must find a failure. (The faults exist only in builds
//! for tests, and are off unless an option plants them.)

use std::sync::Arc;

use calamus_engine::engine::Faults;
use calamus_engine::env::{CrashChoice, SimDisk};
use calamus_engine::journal::JournalMode;
use calamus_tests::boundary_disk::BoundaryDisk;
use calamus_tests::engine_driver::changes::put;
use calamus_tests::engine_driver::node::Node;
use calamus_tests::engine_driver::promise::Promise;
use calamus_tests::engine_driver::{Stop, disk};
use calamus_tests::gate::Gate;
use parking_lot::Mutex;

use super::enumerate::{Looks, Search, Workload, caught, enumerate, options};
use super::workloads;

/// With the bounds of CI's share, as `every_image.rs` has them without a number.
fn is_found(name: &str, workload: Workload, node: usize, faults: Faults) {
    let looks = Looks::new(Search::PowerCuts);
    let tally = looks.tally.clone();
    let found = enumerate(workload, node, faults, looks);
    let what = found.failure.unwrap_or_else(|| {
        panic!("{name} was planted, and {} disks show nothing; is the feature `mutants` on?", found.images)
    });
    let tried = tally.tried();
    println!("mutant: {name}: found at operation {}, disk {tried}: {what:.400}", found.boundaries);
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    is_found(
        "acknowledge before fdatasync",
        workloads::leader,
        0,
        Faults { acknowledge_before_sync: true, ..Faults::default() },
    );
}

#[test]
fn a_target_that_is_not_durable_first_is_found() {
    is_found(
        "target written after the first page",
        workloads::leader,
        0,
        Faults { target_not_durable_first: true, ..Faults::default() },
    );
}

#[test]
fn a_replay_that_stops_before_the_target_is_found() {
    is_found(
        "replay stops before the target",
        workloads::leader,
        0,
        Faults { replay_stops_before_target: true, ..Faults::default() },
    );
}

#[test]
fn free_pages_that_are_not_zeroed_are_found() {
    is_found(
        "free pages not zeroed",
        workloads::leader,
        0,
        Faults { free_pages_not_zeroed: true, ..Faults::default() },
    );
}

#[test]
fn a_data_file_that_is_not_synced_is_found() {
    is_found("no data sync", workloads::leader, 0, Faults { no_data_sync: true, ..Faults::default() });
}

#[test]
fn a_generation_that_is_not_synced_before_the_switch_is_found() {
    is_found(
        "no sync before the slot switch",
        workloads::seeded,
        1,
        Faults { no_sync_before_switch: true, ..Faults::default() },
    );
}

#[test]
fn a_cut_that_is_not_durable_is_found() {
    is_found("cut not durable", workloads::follower, 1, Faults { cut_not_durable: true, ..Faults::default() });
}

#[test]
fn a_page_that_is_freed_too_early_is_found() {
    is_found("page freed too early", workloads::leader, 0, Faults { pages_freed_early: true, ..Faults::default() });
}

#[test]
fn a_full_image_that_skips_zeros_is_found() {
    is_found(
        "full image skips zeros",
        workloads::leader,
        0,
        Faults { full_images_skip_zeros: true, ..Faults::default() },
    );
}

fn stage(node: &mut Node, number: u32) -> Result<(), Stop> {
    node.stage(&mut |batch, state| {
        let version = batch.begin_txn();
        batch.create_tree("a").map_err(disk("create tree"))?;
        state.trees.entry("a".into()).or_default();
        put(batch, state, "a", number, vec![7; 900], version)?;
        batch.commit_txn();
        state.txn_id = version;
        Ok(())
    })?;
    Ok(())
}

/// A quorum of others commits an entry while this node's own sync of it hangs; then a checkpoint is due; then the power
/// goes, and what hangs is lost.
fn checkpoint_while_a_sync_hangs(faults: Faults) -> Result<(), Stop> {
    let (sim, gate) = (SimDisk::new(5), Arc::new(Gate::default()));
    let door = Arc::new(BoundaryDisk::new(Arc::new(sim.clone()), gate.at_journal_syncs()));
    let mut threaded = options(faults);
    threaded.journal.mode = JournalMode::Threaded;
    let promise = Arc::new(Mutex::new(Promise::unborn()));
    let mut node = Node::create(sim.clone(), door, 1, threaded, promise.clone())?;
    stage(&mut node, 1)?;
    let first = node.frames(1, 0);
    node.append(&first)?;
    promise.lock().truth.clone_from(&node.log);
    node.apply(1)?;

    let closed = gate.close();
    stage(&mut node, 2)?;
    let second = node.frames(1, 1);
    node.log.extend_from_slice(&second);
    promise.lock().log_becomes(&node.log);
    promise.lock().truth.clone_from(&node.log);
    let frames = second.iter().map(|entry| entry.frame.clone()).collect();
    node.engine().append(frames, Box::new(|_| ())).map_err(disk("append"))?;
    node.apply(2)?;
    // The journal's thread has taken the group, and stands at the gate with it: what is queued from here on is what the
    // checkpoint waits for.
    gate.wait_for_somebody();
    let engine = node.engine().clone();
    let checkpoint = std::thread::spawn(move || engine.checkpoint());
    while node.engine().status().queued_jobs == 0 && !checkpoint.is_finished() {
        std::thread::yield_now();
    }
    let image = sim.crash(CrashChoice::LoseAll);
    let promised = promise.lock().clone();
    drop(closed);
    checkpoint.join().expect("no panic").map_err(disk("checkpoint"))?;
    node.close();

    let mut after = Node::closed(image.clone(), Arc::new(image), options(faults), Arc::new(Mutex::new(promised)));
    after.open()?;
    after.go_on(true)
}

#[test]
fn a_checkpoint_ahead_of_the_local_journal_is_found() {
    checkpoint_while_a_sync_hangs(Faults::default()).expect("a checkpoint waits for the journal");
    let faults = Faults { checkpoint_ahead_of_journal: true, ..Faults::default() };
    let what = caught(|| checkpoint_while_a_sync_hangs(faults)).expect_err("the data file is ahead of the journal");
    println!("mutant: checkpoint ahead of the local journal: found: {what:.300}");
}
