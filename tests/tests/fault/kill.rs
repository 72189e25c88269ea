//! kill -9 in the middle of a load by 8 clients: the load finishes, every acknowledged write is there, the node comes
//! back and catches up.

use calamus_tests::acknowledged::{Ledger, Load, cities};
use calamus_tests::cluster::Cluster;
use calamus_tests::compare;
use calamus_tests::wait::share;

use super::{CLIENTS, LOAD_LIMIT, setup};

/// How many documents a load has.
fn documents() -> usize {
    share(4_000, 34_006)
}

/// A part of them, in tenths.
fn tenths(count: usize) -> u64 {
    (documents() * count / 10) as u64
}

async fn begin() -> (Cluster, Load) {
    let cluster = Cluster::start(setup()).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, cities(documents())).await;
    load.reach(tenths(2), LOAD_LIMIT).await;
    (cluster, load)
}

fn assert_all_told(ledger: &Ledger) {
    // What is unknown was under way when a node was killed: a few of each client's at most.
    let acknowledged = ledger.acknowledged();
    assert!(acknowledged + 4 * CLIENTS >= documents(), "only {acknowledged} of {} documents", documents());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader() {
    let (mut cluster, mut load) = begin().await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader_other_than(leader).await;
    load.progress(tenths(2), LOAD_LIMIT).await;
    cluster.restart(leader);
    let ledger = load.finish(LOAD_LIMIT).await;
    assert_all_told(&ledger);
    cluster.close(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower() {
    let (mut cluster, mut load) = begin().await;
    let follower = cluster.follower().await;
    cluster.kill(follower);
    load.progress(tenths(2), LOAD_LIMIT).await;
    cluster.restart(follower);
    let ledger = load.finish(LOAD_LIMIT).await;
    assert_all_told(&ledger);
    cluster.close(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_at_once() {
    let (mut cluster, mut load) = begin().await;
    for _ in 0..share(2, 10) {
        cluster.kill_all().await;
        let directories = cluster.directories();
        let replayed = tokio::task::spawn_blocking(move || compare::assert_equal_as_left(&directories));
        let replayed = replayed.await.expect("the directories as left are equal");
        assert!(replayed >= 1, "no two directories had a common entry to be replayed to");
        for node in 0..cluster.len() {
            cluster.restart(node);
        }
        if load.acknowledged() < tenths(8) {
            load.progress(tenths(1) / 2, LOAD_LIMIT).await;
        }
    }
    let ledger = load.finish(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}

/// One after the other, again and again, faster than it takes to be ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_in_turn() {
    let (mut cluster, mut load) = begin().await;
    for round in 0..share(4, 30) {
        let node = round % cluster.len();
        cluster.kill(node);
        cluster.restart(node);
        if load.acknowledged() < tenths(9) {
            load.progress(CLIENTS as u64, LOAD_LIMIT).await;
        }
    }
    let ledger = load.finish(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}
