//! A node whose directory was lost comes back under its old name and a new raft id.

use calamus_tests::acknowledged::{Load, cities, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, share, until};

use super::{CLIENTS, LOAD_LIMIT, setup};

async fn wipe_during_a_load(leader: bool) {
    // No journal below the checkpoint: the new node can only be seeded.
    let mut cluster = Cluster::start(setup().flag("--retention-mib", 0)).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", 3_000)).await;
    load.reach(share(2_000, 50_000), LOAD_LIMIT).await;
    let node = if leader { cluster.leader().await } else { cluster.follower().await };
    let old = cluster.status_now(node).await.raft_id;
    cluster.wipe(node);
    let host = cluster.leader_other_than(node).await;
    until("the journal's beginning is purged", LIMIT, async || {
        load.progress(1, LIMIT).await;
        cluster.status(host).await?.purged
    })
    .await;
    cluster.rejoin(node, host);
    cluster.ready(node).await;
    load.progress(100, LOAD_LIMIT).await;
    cluster.voters().await;
    let ledger = load.stop(LOAD_LIMIT).await;

    let status = cluster.status_now(node).await;
    assert_ne!(status.raft_id, old, "a raft id came back with another log under it");
    assert!(status.generation > 1, "it was not seeded: its data is of generation {}", status.generation);
    assert!(status.voter, "it votes again");
    cluster.close(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_seeded_while_writes_go_on() {
    wipe_during_a_load(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_before_is_seeded_while_writes_go_on() {
    wipe_during_a_load(true).await;
}

/// Waits until a node is in the middle of its seeding; `false` if that is over.
async fn is_seeding(cluster: &mut Cluster, node: usize) -> bool {
    until("the node is being seeded, or was", LIMIT, async || {
        cluster.assert_running();
        let status = cluster.status(node).await?;
        let seeding = status.state.starts_with("seeding");
        (seeding || status.voter).then_some(seeding)
    })
    .await
}

/// Killed again and again while it is being filled, it gets there in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_is_seeded() {
    let mut cluster = Cluster::start(setup().flag("--retention-mib", 0)).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", 30_000)).await;
    load.reach(share(800, 8_000), LOAD_LIMIT).await;
    let node = cluster.follower().await;
    cluster.wipe(node);
    let host = cluster.leader().await;
    cluster.rejoin(node, host);
    let mut kills = 0;
    while kills < share(3, 20) && is_seeding(&mut cluster, node).await {
        cluster.kill(node);
        cluster.restart(node);
        kills += 1;
    }
    cluster.voters().await;
    let ledger = load.stop(LOAD_LIMIT).await;
    let generation = cluster.status_now(node).await.generation;
    assert!(
        kills > 0 && generation > 1,
        "killed {kills} times while it was seeded, its data is of generation {generation}"
    );
    cluster.close(&ledger).await;
}

/// All data of a cluster of one goes with its directory; a cluster of three that lost one directory after the other has
/// lost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_directory_is_lost_once() {
    let mut cluster = Cluster::start(setup().flag("--retention-mib", 0)).await;
    let load = Load::begin(&cluster.addresses(), CLIENTS, cities(share(1_500, 20_000))).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    for node in 0..cluster.len() {
        cluster.wipe(node);
        let host = cluster.leader_other_than(node).await;
        cluster.rejoin(node, host);
        cluster.voters().await;
    }
    cluster.close(&ledger).await;
}
