//! A load of the real data set on a healthy cluster.

use calamus_tests::acknowledged::{DOCUMENTS, Load, cities};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::share;

use super::setup;
use crate::LOAD_LIMIT;

/// The documents come back from each node; the followers have executed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_is_on_each_node_and_followers_execute_nothing() {
    let mut cluster = Cluster::start(setup().flag("--checkpoint-mib", 1)).await;
    let documents = cities(share(4_000, 34_006));
    let leader = cluster.leader().await;
    let load = Load::begin(&cluster.addresses(), 8, documents.clone()).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    assert_eq!(ledger.acknowledged(), documents.len(), "a healthy cluster refuses nothing");

    for node in 0..cluster.len() {
        let found = cluster.scan_from(node, DOCUMENTS).await.expect("each node answers scans");
        assert_eq!(found.len(), documents.len());
        let (key, line) = &documents[documents.len() / 2];
        let read = cluster.get_from(node, DOCUMENTS, key).await.expect("each node answers gets");
        assert_eq!(read.entry.expect("the document is there").value, *line);
        assert_eq!(read.read_point.expect("a read says where it stood").node, cluster.name(node));
    }
    cluster.equal_states().await;
    assert_eq!(cluster.leader().await, leader, "nothing happened that needs another leader");
    for node in 0..cluster.len() {
        let status = cluster.status_now(node).await;
        assert_eq!(status.tree_mutations > 0, node == leader, "{} mutations on {}", status.tree_mutations, status.name);
        assert_eq!(status.void_records, 0);
    }
    cluster.close(&ledger).await;
}
