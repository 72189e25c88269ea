//! What may change the membership, and what whoever is left out of it is told.

use std::time::{Duration, Instant};

use calamus_proto::v1::{self as proto, AddRequest, RemoveRequest};

use super::cluster::{TestCluster, TestNode, retry};
use super::support::CLUSTER;
use crate::membership::PROMOTION_TICK;
use crate::node_error::NodeError;
use crate::options::NodeConfig;
use crate::types::Aim;

const OBSERVER: i32 = proto::Aim::Observer as i32;

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
    assert!(refused(add(&cluster, &AddRequest { aim: OBSERVER, ..known })).contains("votes already"));
    assert_eq!(cluster.leader().replica().members().len(), 3);
    // Once it is gone it moves, and whoever tells so does not make an observer of it.
    cluster.nodes[living].kill();
    retry("it moves", || add(&cluster, &AddRequest { aim: OBSERVER, ..elsewhere.clone() }).ok());
    let leader = cluster.leader();
    let membership = leader.replica().core().membership();
    let node = membership.get_node(&elsewhere.raft_id).expect("a member");
    assert_eq!((node.address.as_str(), node.aim), ("127.0.0.1:1", Aim::Voter));
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
    let request = AddRequest { aim: OBSERVER, ..other.add_request(true) };
    retry("it is added", || add(&cluster, &request).ok());
    cluster.nodes[replaced].restart();
    let wanted = AddRequest { aim: proto::Aim::Voter.into(), replace: false, ..request.clone() };
    retry("it is wanted as a voter", || add(&cluster, &wanted).ok());
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

fn remove(cluster: &TestCluster, request: &RemoveRequest) -> Result<(), NodeError> {
    retry("a leader answers", || {
        let leader = cluster.leader();
        let result = leader.on(leader.replica().remove(request)).map(drop);
        (!matches!(result, Err(NodeError::NotLeader { .. }))).then_some(result)
    })
}

/// With one of three dead, taking out another one that lives leaves one of two. That cannot be committed. By force the dead
/// one goes as well, so that the cluster works on; its id has to be typed out for that.
#[test]
fn a_removal_that_leaves_no_quorum_is_refused_and_by_force_goes_on_without_the_dead() {
    let mut cluster = TestCluster::start(3);
    let (leader, dead) = (cluster.leader_index(), follower(&cluster));
    let living = 3 - leader - dead;
    cluster.nodes[dead].kill();
    let (name, dead_name) = (cluster.nodes[living].identity.name.clone(), cluster.nodes[dead].identity.name.clone());
    let request = RemoveRequest { name, ..RemoveRequest::default() };
    let why = refused(remove(&cluster, &request));
    assert!(why.contains("no quorum") && why.contains(&dead_name), "{why}");
    let wrong = RemoveRequest { force_cluster_id: "yes".to_owned(), ..request.clone() };
    let result = remove(&cluster, &wrong);
    assert!(matches!(result, Err(NodeError::Invalid(_))), "{result:?}");
    assert_eq!(cluster.leader().replica().members().len(), 3);
    cluster.write("k", b"nothing was changed");
    let forced = RemoveRequest { force_cluster_id: CLUSTER.to_string(), ..request };
    assert!(remove(&cluster, &forced).is_ok());
    let left = cluster.leader().replica().members();
    assert!(left.len() == 1 && left[0].raft_id == cluster.nodes[leader].identity.raft_id.0, "{left:?}");
    cluster.write("k", b"the cluster works on");
    let last = RemoveRequest { name: left[0].name.clone(), force_cluster_id: CLUSTER.to_string() };
    let why = refused(cluster.leader().on(cluster.leader().replica().remove(&last)).map(drop));
    assert!(why.contains("the last voter"), "{why}");
    // It is back, and is told that it was taken out.
    cluster.nodes[dead].restart();
    retry("it knows", || {
        let node = &cluster.nodes[dead];
        drop(node.on(async { node.replica().wait_ready(Duration::from_millis(200)).await }));
        node.node().status().state.contains("removed or replaced").then_some(())
    });
    cluster.close();
}

/// Waits until the leader says of a change that it has happened.
fn happens(what: &str, ask: impl Fn(&TestNode) -> Result<proto::ChangeResponse, NodeError>, cluster: &TestCluster) {
    retry(what, || ask(cluster.leader()).ok().filter(|answer| answer.done));
}

fn is_voter(cluster: &TestCluster, raft_id: u64) -> bool {
    cluster.leader().replica().members().iter().any(|member| member.raft_id == raft_id && member.voter)
}

#[test]
fn a_learner_that_is_held_votes_when_it_is_promoted_and_an_observed_voter_goes_on_receiving() {
    let mut cluster = TestCluster::start(3);
    let other = TestNode::create(cluster.root.path(), "n4", 104, &NodeConfig::default());
    let held = AddRequest { aim: proto::Aim::Learner.into(), ..other.add_request(true) };
    retry("it is added", || add(&cluster, &held).ok());
    cluster.nodes.push(other);
    cluster.write("k", b"to the learner too");
    retry("it has caught up", || cluster.nodes[3].get("k").map(drop));
    let (started, mut round) = (Instant::now(), 0);
    while started.elapsed() < PROMOTION_TICK * 10 {
        cluster.write("k", format!("{round}").as_bytes());
        assert!(!is_voter(&cluster, 104), "it was to stay a learner");
        round += 1;
    }
    // Asked again as a node does that joins: it does not take back what it is.
    let request = proto::PromoteRequest { name: "n4".to_owned() };
    happens("n4 votes", |leader| leader.on(leader.replica().promote(&request)), &cluster);
    assert!(is_voter(&cluster, 104));
    assert!(add(&cluster, &held).is_ok() && is_voter(&cluster, 104));

    let leader = cluster.leader();
    let (name, id) = (leader.identity.name.clone(), leader.identity.raft_id.0);
    let request = proto::ObserveRequest { name, ..Default::default() };
    happens("the leader of before observes", |leader| leader.on(leader.replica().observe(&request)), &cluster);
    let members = cluster.leader().replica().members();
    let observer = members.iter().find(|member| member.raft_id == id).expect("still a member");
    assert!(!observer.voter && observer.aim() == proto::Aim::Observer && members.len() == 4, "{members:?}");
    assert_ne!(cluster.leader().identity.raft_id.0, id, "an observer does not lead");
    let started = Instant::now();
    while started.elapsed() < PROMOTION_TICK * 10 {
        cluster.write("k", b"observed");
        assert!(!is_voter(&cluster, id), "an observer became a voter by itself");
    }
    cluster.close();
}

#[test]
fn an_observer_is_not_made_where_no_quorum_would_be_left() {
    let mut cluster = TestCluster::start(3);
    let (leader, dead) = (cluster.leader_index(), follower(&cluster));
    let name = cluster.nodes[3 - leader - dead].identity.name.clone();
    cluster.nodes[dead].kill();
    let request = proto::ObserveRequest { name, ..Default::default() };
    let why = retry("a leader answers", || {
        let leader = cluster.leader();
        match leader.on(leader.replica().observe(&request)) {
            Err(NodeError::Refused(why)) => Some(why),
            Err(NodeError::NotLeader { .. }) => None,
            other => panic!("{other:?}"),
        }
    });
    assert!(why.contains("no quorum"), "{why}");
    cluster.write("k", b"v");
    cluster.close();
}

/// A node of another name takes the place of `old` (dead or alive) in one change: at no time are there four voters.
fn is_replaced(dead: bool) {
    let mut cluster = TestCluster::start(3);
    cluster.write("k", b"before");
    let old = follower(&cluster);
    let (name, old_id) = (cluster.nodes[old].identity.name.clone(), cluster.nodes[old].identity.raft_id.0);
    if dead {
        cluster.nodes[old].kill();
    }
    let new = TestNode::create(cluster.root.path(), "n4", 104, &NodeConfig::default());
    let request = proto::ReplaceRequest { old: name, new: Some(new.add_request(false)), old_may_be_alive: false };
    if !dead {
        let leader = cluster.leader();
        let why = refused(leader.on(leader.replica().replace(&request)).map(drop));
        assert!(why.contains("--old-may-be-alive"), "{why}");
    }
    let request = proto::ReplaceRequest { old_may_be_alive: !dead, ..request };
    retry("n4 took its place", || {
        let leader = cluster.leader();
        let answer = leader.on(leader.replica().replace(&request)).ok()?;
        let new = proto::AddRequest { name: "n5".to_owned(), raft_id: 105, ..new.add_request(false) };
        let second = proto::ReplaceRequest { new: Some(new), ..request.clone() };
        assert!(leader.on(leader.replica().replace(&second)).is_err(), "two take one place");
        let voters = answer.members.iter().filter(|member| member.voter).count();
        assert!(voters <= 3, "{:?}", answer.members);
        let has_old = answer.members.iter().any(|member| member.raft_id == old_id);
        assert!(!answer.done || !has_old, "{:?}", answer.members);
        answer.done.then_some(())
    });
    assert!(is_voter(&cluster, 104));
    if !dead {
        retry("the old one is told", || {
            let node = &cluster.nodes[old];
            drop(node.on(async { node.replica().wait_ready(Duration::from_millis(200)).await }));
            node.node().status().state.contains("removed or replaced").then_some(())
        });
    }
    cluster.nodes[old] = new;
    cluster.write("k", b"after");
    cluster.close();
}

#[test]
fn a_node_that_is_gone_is_replaced_by_one_of_another_name() {
    is_replaced(true);
}

#[test]
fn a_node_that_lives_is_replaced_only_if_that_is_said_and_is_told() {
    is_replaced(false);
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
        aim: OBSERVER,
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
