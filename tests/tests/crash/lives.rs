//! Every operation of whole lives, with a kill at each. (Power cuts: `every_image.rs`.)

use calamus_engine::engine::Faults;

use super::enumerate::{Looks, Search, Workload, enumerate};
use super::workloads;

fn survives(name: &str, workload: Workload, node: usize) {
    let started = std::time::Instant::now();
    let found = enumerate(workload, node, Faults::default(), Looks::new(Search::Kills));
    println!(
        "crash: {name}: kills: {} operations, {} disks recovered from, in {:.1?}",
        found.boundaries,
        found.images,
        started.elapsed()
    );
    assert!(found.boundaries > 100, "only {} operations", found.boundaries);
    if let Some(what) = found.failure {
        panic!("{name}: {what}\nrun it again: cargo test -p calamus-tests --test crash {name}");
    }
}

#[test]
fn a_leader_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_leader", workloads::leader, 0);
}

#[test]
fn a_follower_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_follower", workloads::follower, 1);
}

#[test]
fn a_seeded_node_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_seeded_node", workloads::seeded, 1);
}
