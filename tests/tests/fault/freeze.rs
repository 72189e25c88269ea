//! SIGSTOP: a node that is alive and silent, and that believes to be what it was when it goes on.

use std::time::Duration;

use calamus_tests::acknowledged::{Load, endless_cities};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::share;
use tokio::time::Instant;

use super::{CLIENTS, LOAD_LIMIT, setup};

/// How long a node is frozen: longer than the longest wait for a leader (1 s), in the long run 10 s.
fn frozen() -> Duration {
    share(Duration::from_secs(3), Duration::from_secs(10))
}

async fn freeze_during_a_load(leader: bool) {
    let cluster = Cluster::start(setup()).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, endless_cities()).await;
    load.reach(200, LOAD_LIMIT).await;
    let node = if leader { cluster.leader().await } else { cluster.follower().await };
    let until = Instant::now() + frozen();
    cluster.process(node).freeze().await.expect("it stops");
    if leader {
        cluster.leader_other_than(node).await;
    }
    // Once at least: it may have taken long to find the other leader.
    loop {
        load.progress(50, LOAD_LIMIT).await;
        if Instant::now() >= until {
            break;
        }
    }
    cluster.process(node).thaw().expect("it runs");
    load.progress(200, LOAD_LIMIT).await;
    let ledger = load.stop(LOAD_LIMIT).await;
    cluster.close(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_replaced_and_follows_when_it_goes_on() {
    freeze_during_a_load(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up() {
    freeze_during_a_load(false).await;
}
