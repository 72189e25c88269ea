//! A loaded cluster grows from one node to three and five, gets two nodes replaced and shrinks to three, with kills in between.
//!
//! `calamus drill --scenario grow-and-shrink` runs the same.

use calamus_drill::scenario::{self, Settings};
use calamus_drill::scratch::Plan;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_cluster_grows_replaces_nodes_and_shrinks_while_nodes_are_killed() {
    let scenario = scenario::find("grow-and-shrink").expect("there is such a scenario");
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_calamus-fault"), &["drill-node"]);
    // So that the log does not reach back to the beginning, and nodes that join are filled by a seeding.
    plan.flags = ["--checkpoint-mib", "1", "--retention-mib", "0"].map(str::to_owned).to_vec();
    let settings = Settings { plan, rounds: 1, seed: 1, rate: 300, keep: true };
    let run = scenario::run(&scenario, settings, &|_| ()).await.expect("it can be carried out");
    let happened: Vec<&str> = run.timeline.marks.iter().map(|mark| mark.what.as_str()).collect();
    let verdict = run.verdict;
    let wrong = || format!("{:#?}\n{:#?}\nwhat happened: {happened:#?}", verdict.complaints(), verdict.notes);
    assert!(verdict.is_good(), "seed {}: {}", verdict.seed, wrong());
    assert!(verdict.identical.is_good(), "the replicas were not compared");
    // A kill of a leader and of a follower at three and at five nodes, of each of six nodes that joined, of the one that
    // was replaced dead, and between the replacements and the removals.
    assert!(verdict.faults >= 16, "{} faults: {}", verdict.faults, wrong());
    assert!(verdict.notes.iter().any(|note| note.contains("by a seeding")), "nobody was seeded: {:?}", verdict.notes);
    eprintln!("{verdict}; {} faults; writes stopped for {:?}; {:?}", verdict.faults, verdict.write_gap, verdict.notes);
}
