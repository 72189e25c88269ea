//! Leadership goes only to a voter that answers and has caught up. The test is held against nodes that do not look, too.

use calamus_proto::v1::TransferRequest;
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};
use tonic::Code;

use super::setup;

/// Asks the leader to hand over to a node that stands still and lacks entries. Returns whether the leader of before was
/// lost by that.
async fn costs_the_leader(mutants: &str) -> bool {
    let mut cluster = Cluster::start(setup().environment("CALAMUS_MUTANTS", mutants)).await;
    let leader = cluster.leader().await;
    let lags = cluster.others(leader)[0];
    let mut ledger = Ledger::default();
    cluster.process(lags).freeze().await.expect("it stops");
    for number in 0..300 {
        let (key, value) = (format!("key {number}"), format!("value {number}"));
        let txn_id =
            cluster.put_to(leader, DOCUMENTS, &key, value.clone().into()).await.expect("two of three are there");
        ledger.note(key, value.as_bytes(), txn_id);
    }
    let term = cluster.status_now(leader).await.term;
    let mut asked = ClusterClient::connect(format!("http://{}", cluster.address(leader))).await.expect("it listens");
    let answer = asked.transfer(TransferRequest { to: cluster.name(lags).to_owned() }).await;
    let refused = answer.is_err_and(|status| status.code() == Code::FailedPrecondition);
    if refused {
        let (key, value) = ("after", "goes on");
        let txn_id = cluster.put_to(leader, DOCUMENTS, key, value.into()).await.expect("the leader leads on");
        ledger.note(key.to_owned(), value.as_bytes(), txn_id);
        assert_eq!(cluster.status_now(leader).await.term, term, "leadership moved, and the transfer was refused");
    } else {
        until("another election", LIMIT, async || (cluster.status(leader).await?.term > term).then_some(())).await;
    }
    cluster.process(lags).thaw().expect("it runs");
    cluster.voters().await;
    cluster.close(&ledger).await;
    !refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_does_not_go_to_a_node_that_lags() {
    assert!(!costs_the_leader("").await, "the leader was lost for a node that cannot lead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_does_not_look_is_found() {
    assert!(costs_the_leader("transfer_blindly").await, "nothing was lost: the test above proves nothing");
}
