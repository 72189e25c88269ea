//! A vote is given once in a term, whatever happens to whoever gave it.

use calamus_engine::ids::RaftId;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::raft_client::RaftClient;

use super::cluster::{TestNode, retry};
use super::support::CLUSTER;
use crate::network::convert;
use crate::options::NodeConfig;

const VOTER: u64 = 101;
const CANDIDATES: [u64; 2] = [201, 202];
const TERM: u64 = 7;

/// Asks the node at this address for its vote.
async fn is_granted(address: String, candidate: u64) -> bool {
    let mut client = RaftClient::connect(format!("http://{address}")).await.expect("it listens");
    let request = wire::VoteRequest {
        envelope: Some(convert::envelope(CLUSTER, RaftId(candidate), RaftId(VOTER))),
        vote: Some(wire::Vote { term: TERM, node_id: candidate, committed: false }),
        last_log: None,
        leader_transfer: false,
    };
    client.vote(request).await.expect("it answers").into_inner().granted
}

/// A node votes for one candidate while its syncs hang, loses its power as soon as that one knows, and is asked by another
/// one. Returns whether both have its vote in one term: with one more vote each, both of them would lead it.
fn votes_twice(config: &NodeConfig) -> bool {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut node = TestNode::create(root.path(), "n1", VOTER, config);
    let address = node.identity.advertise.clone();
    node.disk.hang_syncs(true);
    let first = node.spawn(is_granted(address.clone(), CANDIDATES[0]));
    let saving = || node.replica().core().vote_saves.is_saving();
    retry("the vote is given, or waits for its sync", || (first.is_finished() || saving()).then_some(()));
    if !first.is_finished() {
        node.disk.hang_syncs(false);
    }
    assert!(node.on(first).expect("it runs to its end"), "nobody else had asked");
    node.kill();
    node.restart();
    node.on(is_granted(address, CANDIDATES[1]))
}

#[test]
fn a_vote_that_was_given_is_remembered_by_a_node_that_lost_its_power() {
    assert!(!votes_twice(&NodeConfig::default()), "two candidates have one vote in one term");
}

#[cfg(feature = "mutants")]
#[test]
fn a_planted_vote_that_is_not_synced_is_found() {
    let mutants = crate::options::Mutants { vote_not_synced: true, ..Default::default() };
    let config = NodeConfig { mutants, ..NodeConfig::default() };
    assert!(votes_twice(&config), "the planted fault has no effect, so the test beside this proves nothing");
}
