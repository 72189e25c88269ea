//! Every operation of whole lives.

use calamus_engine::engine::Faults;

use super::enumerate::{Workload, enumerate};
use super::workloads;

fn survives(name: &str, workload: Workload, node: usize) {
    let started = std::time::Instant::now();
    let found = enumerate(workload, node, Faults::default());
    println!(
        "crash: {name}: {} operations, {} disks recovered from, in {:.1?}",
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
fn a_leader_survives_a_power_cut_at_any_operation() {
    survives("a_leader", workloads::leader, 0);
}

#[test]
fn a_follower_survives_a_power_cut_at_any_operation() {
    survives("a_follower", workloads::follower, 1);
}

#[test]
fn a_seeded_node_survives_a_power_cut_at_any_operation() {
    survives("a_seeded_node", workloads::seeded, 1);
}
