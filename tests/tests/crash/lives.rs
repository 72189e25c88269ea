//! Every operation of whole lives.

use calamus_engine::engine::Faults;

use super::enumerate::{Search, Workload, enumerate};
use super::workloads;

fn survives(name: &str, workload: Workload, node: usize, search: Search) {
    let started = std::time::Instant::now();
    let found = enumerate(workload, node, Faults::default(), search);
    println!(
        "crash: {name}: {search:?}: {} operations, {} disks recovered from, in {:.1?}",
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
    survives("a_leader", workloads::leader, 0, Search::PowerCuts);
}

#[test]
fn a_leader_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_leader", workloads::leader, 0, Search::Kills);
}

#[test]
fn a_follower_survives_a_power_cut_at_any_operation() {
    survives("a_follower", workloads::follower, 1, Search::PowerCuts);
}

#[test]
fn a_follower_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_follower", workloads::follower, 1, Search::Kills);
}

#[test]
fn a_seeded_node_survives_a_power_cut_at_any_operation() {
    survives("a_seeded_node", workloads::seeded, 1, Search::PowerCuts);
}

#[test]
fn a_seeded_node_survives_a_kill_at_any_operation_and_a_power_cut_later() {
    survives("a_seeded_node", workloads::seeded, 1, Search::Kills);
}
