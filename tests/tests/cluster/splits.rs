//! Followers copy what the leader decided; they decide nothing.

use calamus_tests::acknowledged::{Load, endless_cities, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::share;

use super::setup;
use crate::LOAD_LIMIT;

/// Each node would split pages elsewhere. Two of them lead in turn, the third never does and executes nothing, and the
/// files are equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_would_split_elsewhere_end_equal() {
    let mut cluster = Cluster::start(setup().flag("--checkpoint-mib", 1)).await;
    for (node, percent) in [(0, "20"), (1, "80"), (2, "50")] {
        cluster.terminate(node, rustix::process::Signal::TERM).await;
        cluster.set_environment(node, &[("CALAMUS_PLANTED_SPLIT_PERCENT", percent)]);
        cluster.restart(node);
        cluster.ready(node).await;
    }
    cluster.lead(0).await;
    let executed = cluster.status_now(2).await.tree_mutations;
    assert_eq!(executed, 0, "the third node has led before");
    let mut load = Load::begin(&cluster.addresses(), 4, endless_cities()).await;
    for node in [0, 1] {
        cluster.lead(node).await;
        load.progress(share(800, 10_000), LOAD_LIMIT).await;
    }
    let ledger = load.stop(LOAD_LIMIT).await;
    for node in [0, 1] {
        assert!(cluster.status_now(node).await.tree_mutations > 0, "{} has led", cluster.name(node));
    }
    assert_eq!(cluster.status_now(2).await.tree_mutations, 0, "a follower executed something");
    cluster.close(&ledger).await;
}

/// The same plant on the leader alone, with values that go to overflow runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_planted_split_and_values_in_runs() {
    let mut cluster = Cluster::start(setup().flag("--checkpoint-mib", 4)).await;
    let leader = cluster.leader().await;
    cluster.terminate(leader, rustix::process::Signal::TERM).await;
    cluster.set_environment(leader, &[("CALAMUS_PLANTED_SPLIT_PERCENT", "90")]);
    cluster.restart(leader);
    cluster.ready(leader).await;
    cluster.lead(leader).await;
    let load = Load::begin(&cluster.addresses(), 4, values("run", 20_000).take(share(400, 4_000))).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}
