//! Linearizable reads on nodes that do not lead.

use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use tonic::Code;

use super::setup;

/// The leader's `Kv` is shut and its peers' service is open: a follower answers gets from its own pages, having asked the
/// leader for nothing but a read index; each sees the write before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_while_the_service_of_the_leader_is_shut() {
    let mut cluster = Cluster::start(setup()).await;
    let shut = cluster.follower().await;
    cluster.terminate(shut, rustix::process::Signal::TERM).await;
    cluster.set_environment(shut, &[("CALAMUS_PLANTED_KV", "shut")]);
    cluster.restart(shut);
    cluster.ready(shut).await;
    cluster.lead(shut).await;
    let refused = cluster.get_from(shut, DOCUMENTS, b"key").await.expect_err("it is shut");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");

    let followers = cluster.others(shut);
    let mut ledger = Ledger::default();
    for number in 0..50_u32 {
        let (key, value) = (format!("key-{number}"), number.to_string());
        let via = followers[number as usize % 2];
        let txn_id = cluster.put_to(via, DOCUMENTS, &key, value.clone().into()).await.expect("a follower forwards");
        for node in &followers {
            let read = cluster.get_from(*node, DOCUMENTS, key.as_bytes()).await.expect("a follower answers");
            assert_eq!(read.entry.expect("written before").value, value);
            assert_eq!(read.read_point.expect("a read says where it stood").node, cluster.name(*node));
        }
        ledger.note(key, value.as_bytes(), txn_id);
    }
    assert_eq!(cluster.leader().await, shut, "the leader was the shut one all the time");

    cluster.terminate(shut, rustix::process::Signal::TERM).await;
    cluster.set_environment(shut, &[]);
    cluster.restart(shut);
    cluster.close(&ledger).await;
}
