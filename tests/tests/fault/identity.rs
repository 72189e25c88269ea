//! Why a directory that was lost comes back under a new raft id: what its old self acknowledged is gone with it, so it
//! must not be counted, nor vote, as that self. The search is held against nodes that keep the id, too.

use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};

use super::planted::differs;
use super::setup;

const WRITES: usize = 50;

/// Writes are acknowledged by the leader and one follower, while the other is frozen. Then the first follower's directory
/// is lost, and the leader is down for a while: whoever has all of them must lead again before anybody else does.
async fn loses_what_a_wiped_node_acknowledged(keeps_its_raft_id: bool) -> bool {
    let kept = if keeps_its_raft_id { "kept" } else { "no" };
    let mut cluster = Cluster::start(setup().environment("CALAMUS_PLANTED_RAFT_ID", kept)).await;
    let leader = cluster.leader().await;
    let (wiped, behind) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let old = cluster.status_now(wiped).await.raft_id;
    cluster.process(behind).freeze().await.expect("it stops");
    let mut ledger = Ledger::default();
    for number in 0..WRITES {
        let (key, value) = (format!("key {number}"), format!("value {number}"));
        let put = cluster.put_to(leader, DOCUMENTS, &key, value.clone().into()).await;
        ledger.note(key, value.as_bytes(), put.expect("two of three are there"));
    }
    cluster.wipe(wiped);
    cluster.kill(leader);
    cluster.process(behind).thaw().expect("it runs");
    cluster.rejoin(wiped, behind);
    let back = until("the wiped node answers", LIMIT, async || cluster.status(wiped).await).await;
    assert_eq!(back.raft_id == old, keeps_its_raft_id);
    if keeps_its_raft_id {
        // The empty node votes for the one that is behind.
        cluster.leader_other_than(leader).await;
    }
    cluster.restart(leader);
    let lost = differs(&cluster, &ledger).await;
    if lost {
        cluster.abandon();
    } else {
        cluster.ready(wiped).await;
        cluster.voters().await;
        cluster.close(&ledger).await;
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_does_not_vote_away_what_it_acknowledged() {
    assert!(!loses_what_a_wiped_node_acknowledged(false).await, "acknowledged writes are lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_that_keeps_its_raft_id_is_found() {
    assert!(loses_what_a_wiped_node_acknowledged(true).await, "nothing is lost: the test above proves nothing");
}
