//! What may change the membership, and what whoever is left out of it is told.

use std::time::{Duration, Instant};

use calamus_proto::v1::{AddRequest, RemoveRequest};

use super::cluster::{TestCluster, TestNode, retry};
use super::support::CLUSTER;
use crate::membership::PROMOTION_TICK;
use crate::node_error::NodeError;
use crate::options::NodeConfig;

fn add(cluster: &TestCluster, request: &AddRequest) -> Result<(), NodeError> {
    retry("a leader answers", || {
        let leader = cluster.leader();
        let result = leader.on(leader.replica().add(request)).map(drop);
        (!matches!(result, Err(NodeError::NotLeader { .. }))).then_some(result)
    })
}

fn refused(result: Result<(), NodeError>) -> String {
    match result {
        Err(NodeError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// A follower of a cluster of three.
fn follower(cluster: &TestCluster) -> usize {
    (cluster.leader_index() + 1) % 3
}

#[test]
fn a_node_that_answers_is_neither_replaced_nor_moved() {
    let mut cluster = TestCluster::start(3);
    let living = follower(&cluster);
    let name = cluster.nodes[living].identity.name.clone();
    let other = TestNode::create(cluster.root.path(), &name, 900, &NodeConfig::default());
    assert!(refused(add(&cluster, &other.add_request(true))).contains("still answers"));
    let known = cluster.nodes[living].add_request(false);
    let elsewhere = AddRequest { address: "127.0.0.1:1".to_owned(), ..known.clone() };
    assert!(refused(add(&cluster, &elsewhere)).contains("still answers"));
    assert!(refused(add(&cluster, &AddRequest { observer: true, ..known })).contains("votes already"));
    assert_eq!(cluster.leader().replica().members().len(), 3);
    // Once it is gone it moves, and whoever tells so does not make an observer of it.
    cluster.nodes[living].kill();
    retry("it moves", || add(&cluster, &AddRequest { observer: true, ..elsewhere.clone() }).ok());
    let leader = cluster.leader();
    let membership = leader.replica().core().membership();
    let node = membership.get_node(&elsewhere.raft_id).expect("a member");
    assert_eq!((node.address.as_str(), node.observer), ("127.0.0.1:1", false));
    assert!(leader.replica().members().iter().all(|member| member.voter));
    retry("it moves back", || add(&cluster, &cluster.nodes[living].add_request(false)).ok());
    cluster.close();
}

#[test]
fn a_learner_is_not_promoted_while_the_node_that_it_replaces_answers() {
    let mut cluster = TestCluster::start(3);
    let replaced = follower(&cluster);
    let name = cluster.nodes[replaced].identity.name.clone();
    cluster.nodes[replaced].kill();
    let other = TestNode::create(cluster.root.path(), &name, 900, &NodeConfig::default());
    // The old one is back before the new one is promoted: it is not promoted until the old one is gone again.
    let request = AddRequest { observer: true, ..other.add_request(true) };
    retry("it is added", || add(&cluster, &request).ok());
    cluster.nodes[replaced].restart();
    retry("it is wanted as a voter", || add(&cluster, &AddRequest { observer: false, ..request.clone() }).ok());
    cluster.write("k", b"v");
    retry("the new one has caught up", || (other.get("k").is_some()).then_some(()));
    let (started, mut round) = (Instant::now(), 0);
    while started.elapsed() < PROMOTION_TICK * 10 {
        cluster.write("k", format!("{round}").as_bytes());
        let leader = cluster.leader();
        let votes = leader.replica().members().iter().any(|member| member.raft_id == 900 && member.voter);
        assert!(!votes, "both nodes called {name} run");
        round += 1;
    }
    cluster.nodes[replaced].kill();
    retry("the new one votes", || {
        let members = cluster.leader().replica().members();
        (members.len() == 3 && members.iter().any(|member| member.raft_id == 900 && member.voter)).then_some(())
    });
    cluster.nodes[replaced] = other;
    cluster.write("k", b"last");
    cluster.close();
}

#[test]
fn what_no_node_could_use_is_invalid() {
    let cluster = TestCluster::start(1);
    let right =
        AddRequest { name: "n2".to_owned(), raft_id: 7, address: "127.0.0.1:1".to_owned(), ..Default::default() };
    for wrong in [
        AddRequest { name: "a b".to_owned(), ..right.clone() },
        AddRequest { address: "nowhere".to_owned(), ..right.clone() },
        AddRequest { raft_id: 0, ..right },
    ] {
        let result = add(&cluster, &wrong);
        assert!(matches!(result, Err(NodeError::Invalid(_))), "{wrong:?}: {result:?}");
    }
    cluster.close();
}

#[test]
fn a_removal_that_could_never_be_committed_is_not_forced() {
    let mut cluster = TestCluster::start(3);
    let (leader, dead) = (cluster.leader_index(), follower(&cluster));
    let living = 3 - leader - dead;
    cluster.nodes[dead].kill();
    let request =
        RemoveRequest { name: cluster.nodes[living].identity.name.clone(), force_cluster_id: CLUSTER.to_string() };
    let why = retry("the dead node has not answered for long", || {
        let leader = cluster.leader();
        assert_eq!(leader.replica().members().len(), 3, "it was removed");
        let id = cluster.nodes[dead].identity.raft_id.0;
        let age = leader.replica().core().progress(id).last_answer;
        if age.is_some_and(|age| age <= NodeConfig::default().election_timeout.end * 2) {
            return None;
        }
        match leader.on(leader.replica().remove(&request)) {
            Err(NodeError::Refused(why)) => Some(why),
            Err(NodeError::NotLeader { .. }) => None,
            other => panic!("{other:?}"),
        }
    });
    assert!(why.contains("cannot be forced"), "{why}");
    cluster.write("k", b"the cluster works on");
    cluster.close();
}

#[test]
fn a_change_that_was_begun_when_the_consensus_ended_is_unknown() {
    let mut cluster = TestCluster::start(3);
    let leader = cluster.leader_index();
    cluster.nodes[(leader + 1) % 3].kill();
    cluster.nodes[(leader + 2) % 3].kill();
    let node = &cluster.nodes[leader];
    let before = node.engine().log_state().last;
    let request = AddRequest {
        name: "n9".to_owned(),
        raft_id: 9,
        address: "127.0.0.1:1".to_owned(),
        observer: true,
        ..Default::default()
    };
    let replica = node.replica().clone();
    let adding = node.spawn(async move { replica.add(&request).await });
    retry("the change stands in the log, or it is too late", || {
        ((node.engine().log_state().last > before) || adding.is_finished()).then_some(())
    });
    node.on(node.replica().core().shutdown("the test ends it"));
    let result = node.on(adding).expect("no panic");
    assert!(matches!(result, Err(NodeError::Unknown(_))), "{result:?}");
    cluster.close();
}

/// Removes a node that is down and starts it again, with the leader that it knows or with another.
fn is_told_of_its_removal(leader_moves: bool) {
    let mut cluster = TestCluster::start(3);
    cluster.write("k", b"v");
    cluster.assert_equal();
    let removed = follower(&cluster);
    let request = RemoveRequest { name: cluster.nodes[removed].identity.name.clone(), ..Default::default() };
    cluster.nodes[removed].kill();
    retry("it is removed", || {
        let leader = cluster.leader();
        drop(leader.on(leader.replica().remove(&request)));
        let members = cluster.leader().replica().members();
        members.iter().all(|member| member.name != request.name).then_some(())
    });
    if leader_moves {
        let leader = cluster.leader();
        let other = leader.replica().members().into_iter().find(|member| member.name != leader.identity.name);
        let other = other.expect("two are left").name;
        retry("the other leads", || {
            let leader = cluster.leader();
            drop(leader.on(leader.replica().transfer(&other)));
            (cluster.leader().identity.name == other).then_some(())
        });
    }
    cluster.nodes[removed].restart();
    let node = &cluster.nodes[removed];
    let status = retry("it knows", || {
        // As the server does at its start.
        drop(node.on(async { node.replica().wait_ready(Duration::from_millis(200)).await }));
        let status = node.node().status();
        status.state.contains("removed or replaced").then_some(status)
    });
    assert!(!status.voter && status.role == i32::from(calamus_proto::v1::Role::Outside), "{status:?}");
    let living = cluster.leader().node().status();
    assert!(living.voter && living.state == "ready", "{living:?}");
    cluster.close();
}

#[test]
fn a_node_that_was_removed_while_it_was_gone_says_so_when_it_is_back() {
    is_told_of_its_removal(false);
}

#[test]
fn so_does_one_that_comes_back_to_another_leader() {
    is_told_of_its_removal(true);
}
