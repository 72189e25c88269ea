//! `--reach`, by which tests put relays between two nodes: each way from one to another must go by it.

use std::time::{Duration, Instant};

use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{StatusRequest, TransferRequest};
use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};

use super::setup;

const VALUE_BYTES: usize = 30_000;
/// Without the probes of a failover, nobody stands for election before twice this is over.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(10);

async fn put(cluster: &Cluster, node: usize, ledger: &mut Ledger, key: String) {
    let value = vec![b'v'; VALUE_BYTES];
    let txn_id = until("a write is taken", LIMIT, async || {
        cluster.put_to(node, DOCUMENTS, &key, value.clone().into()).await.ok()
    })
    .await;
    ledger.note(key, &value, txn_id);
}

/// No node is where it says that it is. So what works goes by `--reach`: to join (control and appends), to forward, to ask
/// for a read point and for a status, to send a change on, to fill a node, and to find that a leader is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_cannot_be_found_where_they_say_are_reached_all_the_same() {
    let setup = setup().hidden().flag("--retention-mib", 0);
    let mut cluster = Cluster::start(setup.flag("--election-timeout-ms", ELECTION_TIMEOUT.as_millis())).await;
    let mut ledger = Ledger::default();
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);

    put(&cluster, follower, &mut ledger, "forwarded".to_owned()).await;
    let read = cluster.get_from(follower, DOCUMENTS, b"forwarded").await.expect("the leader is asked for a read point");
    assert!(read.entry.is_some());
    let mut asked = ClusterClient::connect(format!("http://{}", cluster.address(follower))).await.expect("it listens");
    let all = asked.status(StatusRequest { all_nodes: true }).await.expect("it answers").into_inner().members;
    assert!(all.len() == 3 && all.iter().all(|node| !node.unreachable), "{all:?}");
    let to = cluster.name(follower).to_owned();
    until("the leader takes a change that was sent on to it", LIMIT, async || {
        let answer = asked.transfer(TransferRequest { to: to.clone() }).await.ok()?;
        (answer.into_inner().leader == to).then_some(())
    })
    .await;
    let leader = cluster.leader_other_than(leader).await;

    let mut writes = 0;
    while cluster.status_now(leader).await.purged.is_none() {
        put(&cluster, leader, &mut ledger, format!("key {writes}")).await;
        writes += 1;
    }
    let joins = cluster.grow(leader, &[]);
    cluster.voters().await;
    let seeded = cluster.status_now(joins).await;
    assert!(seeded.generation > 1, "it was not seeded");

    let killed = Instant::now();
    cluster.kill(leader);
    cluster.leader_other_than(leader).await;
    assert!(killed.elapsed() < ELECTION_TIMEOUT, "it was found out by time: {} ms", killed.elapsed().as_millis());
    cluster.restart(leader);
    cluster.voters().await;
    cluster.close(&ledger).await;
}
