//! What a cluster keeps through restarts, lost leaders, nodes that are far behind and nodes that come back empty.

use calamus_engine::ids::Term;
use calamus_proto::v1::Consistency;

use super::cluster::{PATIENCE, TestCluster, TestNode, retry};
use crate::node_error::NodeError;
use crate::options::NodeConfig;
use crate::seam::{Consensus, Leadership, Proposed, ReadIndexError};

fn value(number: u32) -> Vec<u8> {
    format!("value {number} ").into_bytes().repeat(20)
}

pub(super) fn write_range(cluster: &TestCluster, numbers: std::ops::Range<u32>) {
    for number in numbers {
        cluster.write(&format!("k{number:05}"), &value(number));
    }
}

fn assert_holds(node: &TestNode, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let found = node.get(&format!("k{number:05}"));
        assert_eq!(found, Some(value(number)), "k{number:05} on {}", node.identity.name);
    }
}

#[test]
fn followers_apply_the_same_and_catch_up_after_a_restart() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..30);
    cluster.assert_equal();
    let follower = (cluster.leader_index() + 1) % 3;
    cluster.nodes[follower].kill();
    write_range(&cluster, 30..60);
    cluster.nodes[follower].restart();
    write_range(&cluster, 60..70);
    cluster.assert_equal();
    for node in &cluster.nodes {
        assert_holds(node, 0..70);
    }
    // The first leader may have lost its office meanwhile; a node that has just been started has not led.
    let leads = cluster.nodes[follower].leading().is_some();
    let mutations = cluster.nodes[follower].engine().status().tree_mutations;
    assert!(mutations == 0 || leads, "a follower executes nothing");
    cluster.close();
}

#[test]
fn a_lost_leader_is_replaced_and_comes_back_as_a_follower() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..20);
    let (lost, term) = retry("a node leads", || {
        let leader = cluster.leader_index();
        Some((leader, Some(cluster.nodes[leader].leading()?)))
    });
    cluster.nodes[lost].kill();
    write_range(&cluster, 20..40);
    let now = retry("another leads", || cluster.leader().leading());
    assert!(term.is_some_and(|term| now > term), "a new leader has a new term");
    cluster.nodes[lost].restart();
    write_range(&cluster, 40..50);
    cluster.assert_equal();
    assert_holds(&cluster.nodes[lost], 0..50);
    cluster.close();
}

#[test]
fn all_nodes_killed_at_once_keep_what_was_acknowledged() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..25);
    cluster.nodes.iter_mut().for_each(TestNode::kill);
    cluster.nodes.iter_mut().for_each(TestNode::restart);
    write_range(&cluster, 25..30);
    cluster.assert_equal();
    for node in &cluster.nodes {
        assert_holds(node, 0..30);
    }
    cluster.close();
}

/// The terms that a cluster of one leads before and after a restart.
fn terms_around_a_restart(config: &NodeConfig) -> (Term, Term) {
    let mut cluster = TestCluster::start_with(1, config);
    write_range(&cluster, 0..3);
    let before = retry("it leads", || cluster.nodes[0].leading());
    cluster.nodes[0].kill();
    cluster.nodes[0].restart();
    write_range(&cluster, 3..6);
    assert_holds(&cluster.nodes[0], 0..6);
    let after = retry("it leads again", || cluster.nodes[0].leading());
    cluster.close();
    (before, after)
}

#[test]
fn a_restarted_leader_never_leads_the_same_term_again() {
    let (before, after) = terms_around_a_restart(&NodeConfig::default());
    assert!(after > before, "term {before} is led again, by a log that may be shorter");
}

#[cfg(feature = "mutants")]
#[test]
fn leading_on_after_a_restart_is_found() {
    let mutants = crate::options::Mutants { enable_leader_restore: true, ..Default::default() };
    let config = NodeConfig { mutants, ..NodeConfig::default() };
    let (before, after) = terms_around_a_restart(&config);
    assert_eq!(after, before, "the planted fault has no effect, so the test beside this proves nothing");
}

#[cfg(feature = "mutants")]
#[test]
fn a_leader_whose_merger_panics_is_replaced() {
    let mutants = crate::merger::Mutants { panics: true, ..Default::default() };
    let merger = crate::merger::MergerOptions { mutants, ..Default::default() };
    let first = NodeConfig { merger, ..NodeConfig::default() };
    let cluster = TestCluster::start_each(3, &first, &NodeConfig::default());
    let lost = retry("the first node leads", || cluster.nodes[0].leading().map(|_| &cluster.nodes[0]));
    let answer = lost.put("k", b"v").expect_err("nothing executes it");
    assert_eq!(answer.outcome, crate::error::Outcome::Unknown, "{answer}");
    write_range(&cluster, 0..5);
    assert_ne!(cluster.leader_index(), 0);
    let Leadership::Stopped { why } = lost.node().leadership().borrow().clone() else { panic!("it has not stopped") };
    assert!(why.contains("merger"), "{why}");
    cluster.close();
}

#[test]
fn leadership_moves_to_the_voter_that_is_named() {
    let cluster = TestCluster::start(3);
    write_range(&cluster, 0..5);
    let to = (cluster.leader_index() + 1) % 3;
    let name = cluster.nodes[to].identity.name.clone();
    // Asked again where leadership moves by itself meanwhile: to another, or at once on from the one that is named.
    retry("the named voter leads", || {
        let leader = cluster.leader();
        let moved = leader.on(leader.replica().transfer(&name)).ok()?;
        assert_eq!(moved, name);
        (cluster.leader_index() == to).then_some(())
    });
    write_range(&cluster, 5..10);
    cluster.close();
}

#[test]
fn every_node_takes_writes_and_serves_linearizable_reads() {
    let cluster = TestCluster::start(3);
    for (number, writer) in cluster.nodes.iter().enumerate() {
        let key = format!("by {}", writer.identity.name);
        let text = format!("round {number}");
        let written = retry("it is committed through this node", || writer.put(&key, text.as_bytes()).ok());
        for node in &cluster.nodes {
            let read = || node.on(node.node().read(Consistency::Linearizable));
            let (read, point) = retry("a read point", || read().ok());
            assert!(point.txn_id >= written.txn_id, "{} reads {point:?} after {written:?}", node.identity.name);
            let entry = read.get(super::cluster::TREE, key.as_bytes()).expect("readable").expect("there");
            assert_eq!(entry.value.to_vec().expect("readable"), text.as_bytes());
        }
    }
    // All of it while one node leads: an election in between begins it again.
    let (refused, status) = retry("one node leads for a while", || {
        let leader = cluster.leader_index();
        let term = cluster.nodes[leader].leading()?;
        let follower = &cluster.nodes[(leader + 1) % 3];
        let refused = follower.on(follower.replica().read_index(Some(term)));
        let (_, local) = follower.on(follower.node().read(Consistency::Local)).expect("a local read");
        let status = follower.node().status();
        let same =
            cluster.nodes[leader].leading() == Some(term) && status.leader == cluster.nodes[leader].identity.name;
        (same && local.age_micros < 60_000_000).then_some((refused, status))
    });
    assert!(matches!(refused, Err(ReadIndexError::NotLeading { .. })), "{refused:?}");
    assert_eq!((status.voter, status.state.as_str()), (true, "ready"));
    cluster.close();
}

#[test]
fn a_node_that_is_shut_down_hands_leadership_over_and_opens_without_replay() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..10);
    let leader = cluster.leader_index();
    let node = &cluster.nodes[leader];
    node.on(node.node().shutdown(true)).expect("a last checkpoint");
    let checkpointed = node.engine().checkpointed().log_id;
    assert_eq!(checkpointed, node.engine().applied().log_id, "all that was applied is checkpointed");
    let shown = node.node().leadership().borrow().clone();
    assert!(matches!(shown, Leadership::Stopped { .. }), "{shown:?}");
    cluster.led_by(|other| other != leader);
    cluster.nodes[leader].kill();
    write_range(&cluster, 10..15);
    cluster.nodes[leader].restart();
    write_range(&cluster, 15..20);
    cluster.assert_equal();
    assert_holds(&cluster.nodes[leader], 0..20);
    cluster.close();
}

#[test]
fn a_leader_without_a_quorum_neither_commits_nor_shows_itself_as_leading() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..5);
    let (leader, term) = retry("a node leads", || {
        let leader = cluster.leader_index();
        Some((leader, cluster.nodes[leader].leading()?))
    });
    cluster.nodes[(leader + 1) % 3].kill();
    cluster.nodes[(leader + 2) % 3].kill();
    let node = &cluster.nodes[leader];
    let before = node.engine().applied().txn_id;
    // Taken while the lease lasts, refused after it: the first kind never gets an answer here, so only ask for refusals.
    retry("a proposal is refused", || {
        let mut batch = node.engine().begin_batch().expect("a batch");
        batch.begin_txn();
        batch.put(super::cluster::TREE, b"lost", b"x").expect("put");
        batch.commit_txn();
        let staged = batch.seal(1).expect("sealed").expect("changed");
        let outcome = node.on(async {
            let answer = node.replica().propose(term, staged.payload);
            tokio::time::timeout(std::time::Duration::from_millis(50), answer).await
        });
        node.engine().drop_staged();
        matches!(outcome, Ok(Ok(Proposed::Refused { .. }))).then_some(())
    });
    retry("it does not show itself as leading", || node.leading().is_none().then_some(()));
    assert_eq!(node.engine().applied().txn_id, before);
    cluster.nodes[(leader + 1) % 3].restart();
    write_range(&cluster, 5..10);
    assert_holds(cluster.leader(), 0..10);
    cluster.close();
}

/// Writes and checkpoints until the leader's log begins after `index`.
pub(super) fn purge_past(cluster: &TestCluster, index: u64) -> u32 {
    let mut number = 1000;
    retry("the log is purged", || {
        for _ in 0..20 {
            cluster.write(&format!("k{number:05}"), &value(number).repeat(40));
            number += 1;
        }
        let leader = cluster.leader().engine().clone();
        leader.checkpoint().expect("a checkpoint");
        leader.log_state().last_purged.filter(|purged| purged.index.0 > index).map(|_| number)
    })
}

#[test]
fn a_node_too_far_behind_is_seeded_while_writes_go_on() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..10);
    cluster.assert_equal();
    let behind = (cluster.leader_index() + 1) % 3;
    let last = cluster.nodes[behind].engine().log_state().last.expect("a log").index.0;
    let generation = cluster.nodes[behind].engine().status().generation;
    cluster.nodes[behind].kill();
    purge_past(&cluster, last);
    cluster.nodes[behind].restart();
    let mut number = 2000;
    retry("the node is seeded", || {
        write_range(&cluster, number..number + 1);
        number += 1;
        (cluster.nodes[behind].engine().status().generation > generation).then_some(())
    });
    write_range(&cluster, number..number + 10);
    cluster.assert_equal();
    assert_holds(&cluster.nodes[behind], 0..10);
    assert_holds(&cluster.nodes[behind], 2000..number + 10);
    // It stands on the new generation after a restart too.
    cluster.nodes[behind].kill();
    cluster.nodes[behind].restart();
    write_range(&cluster, 3000..3005);
    cluster.close();
}

#[test]
fn a_node_that_is_busy_being_seeded_is_asked_again_until_it_is_not() {
    let mut cluster = TestCluster::start(1);
    write_range(&cluster, 0..10);
    purge_past(&cluster, 5);
    let node = TestNode::create(cluster.root.path(), "n2", 102, &NodeConfig::default());
    // As if an earlier seeding, given up by its leader, were still being finished.
    let held = node.engine().seed_receiver().expect("a new node is not being seeded");
    cluster.nodes.push(node);
    let joining = &cluster.nodes[1];
    retry("the node is a learner", || {
        let leader = cluster.leader();
        leader.on(leader.replica().add(&joining.add_request(false))).ok()
    });
    let generation = joining.engine().status().generation;
    write_range(&cluster, 10..100);
    assert_eq!(joining.engine().status().generation, generation, "it was seeded in spite of the other receiver");
    assert!(joining.engine().applied().log_id.is_none());
    drop(held);
    cluster.join(1, false);
    cluster.assert_equal();
    assert_holds(joining, 0..100);
    assert!(joining.engine().status().generation > generation);
    cluster.close();
}

#[test]
fn a_wiped_node_replaces_its_old_self_under_a_new_raft_id() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..10);
    cluster.assert_equal();
    let wiped = (cluster.leader_index() + 1) % 3;
    let (name, old) = (cluster.nodes[wiped].identity.name.clone(), cluster.nodes[wiped].identity.raft_id.0);
    cluster.nodes[wiped].kill();
    std::fs::remove_dir_all(&cluster.nodes[wiped].directory).expect("removed");
    purge_past(&cluster, 5);
    let node = TestNode::create(cluster.root.path(), &name, 900, &NodeConfig::default());
    let leader = cluster.leader();
    let refused = leader.on(leader.replica().add(&node.add_request(false))).expect_err("the name is taken");
    assert!(refused.to_string().contains("say that this node replaces it"), "{refused}");
    cluster.nodes[wiped] = node;
    cluster.join(wiped, true);
    write_range(&cluster, 10..20);
    cluster.assert_equal();
    assert_holds(&cluster.nodes[wiped], 0..20);
    let members = cluster.leader().replica().members();
    assert_eq!(members.len(), 3, "{members:?}");
    assert!(members.iter().all(|member| member.raft_id != old && member.voter), "{members:?}");
    // The new one counts: with the third node down, it and the leader are the quorum.
    let third = (0..3).find(|index| *index != wiped && *index != cluster.leader_index()).expect("three nodes");
    cluster.nodes[third].kill();
    write_range(&cluster, 20..25);
    cluster.close();
}

#[test]
fn removing_a_node_leaves_a_cluster_that_works_and_never_one_that_does_not() {
    let mut cluster = TestCluster::start(3);
    write_range(&cluster, 0..5);
    let leader = cluster.leader_index();
    let (second, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.nodes[second].kill();
    let request = |index: usize| calamus_proto::v1::RemoveRequest {
        name: cluster.nodes[index].identity.name.clone(),
        force_cluster_id: String::new(),
    };
    // Without the third, only the leader of two voters would answer.
    let (third_request, second_request) = (request(third), request(second));
    let dead = cluster.nodes[second].identity.raft_id.0;
    let refused = retry("the dead node's last answer is old", || {
        let leader = cluster.leader();
        let age = leader.replica().core().progress(dead).last_answer;
        if age.is_some_and(|age| age <= NodeConfig::default().election_timeout.end * 2) {
            return None;
        }
        match leader.on(leader.replica().remove(&third_request)) {
            Ok(members) => panic!("it has lost the quorum: {members:?}"),
            Err(NodeError::Refused(why)) => Some(why),
            Err(_) => None,
        }
    });
    assert!(refused.contains("no quorum"), "{refused}");
    // On a machine that is busy the third may not have answered lately either, or may lead by now.
    retry("the dead one can go", || {
        let leader = cluster.leader();
        leader.on(leader.replica().remove(&second_request)).ok()
    });
    write_range(&cluster, 5..10);
    let members = cluster.leader().replica().members();
    assert_eq!(members.len(), 2, "{members:?}");
    cluster.close();
}

#[test]
fn a_leader_whose_process_is_gone_is_replaced_without_waiting_for_its_lease() {
    // By the timers alone nobody would stand for election before the test has failed.
    let election_timeout = PATIENCE * 2..PATIENCE * 4;
    let config = NodeConfig { election_timeout, ..NodeConfig::default() };
    let mut cluster = TestCluster::start_with(3, &config);
    for round in 0..3 {
        write_range(&cluster, round * 10..round * 10 + 10);
        let lost = cluster.leader_index();
        cluster.nodes[lost].kill();
        cluster.led_by(|other| other != lost);
        cluster.nodes[lost].restart();
        cluster.assert_equal();
    }
    assert_holds(cluster.leader(), 0..30);
    cluster.close();
}
