//! Nodes whose disks are full: what goes on, what is refused and how, and that nobody has to be started again.

use calamus_engine::SpaceLevel;
use calamus_engine::env::LosingDisk;
use calamus_proto::v1::{Consistency, TxnResponse};

use super::cluster::{TREE, TestCluster, TestNode, retry};
use crate::error::{Outcome, TxnError, reason};
use crate::seam::Leadership;
use crate::test_requests::{delete, txn};

static VALUE: [u8; 60_000] = [b'v'; 60_000];

fn level(node: &TestNode) -> SpaceLevel {
    node.engine().space().level
}

fn last_index(node: &TestNode) -> u64 {
    node.engine().log_state().last.map_or(0, |last| last.index.0)
}

fn assert_takes_part(node: &TestNode) {
    let shown = node.node().leadership().borrow().clone();
    assert!(!matches!(shown, Leadership::Stopped { .. }), "{} stopped: {shown:?}", node.identity.name);
    assert_eq!(node.engine().status().failed, None);
}

fn delete_key(cluster: &TestCluster, key: &str) -> Result<TxnResponse, TxnError> {
    let leader = cluster.leader();
    leader.on(leader.node().txn(txn(vec![delete(TREE, key)])))
}

/// Waits until whoever leads refuses what grows, and looks at how it says that.
fn wait_for_refusal(cluster: &TestCluster) -> TxnError {
    let mut attempts = 0;
    let error = retry("growth is refused for want of space", || {
        attempts += 1;
        // Until the leader has heard of it, they are taken.
        match cluster.leader().put(&format!("attempt{attempts}"), &VALUE) {
            Err(error) if error.reason == reason::DISK_FULL => Some(error),
            _ => None,
        }
    });
    assert_eq!((error.outcome, error.retryable), (Outcome::NotCommitted, false));
    error
}

#[test]
fn a_full_follower_refuses_frames_holds_nobody_up_and_catches_up_when_there_is_space() {
    let cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let full = (cluster.leader_index() + 1) % 3;
    let node = &cluster.nodes[full];
    node.disk.set_space_limit(Some(0));
    retry("it is short of space", || (level(node) == SpaceLevel::DeletesOnly).then_some(()));
    let mut written = 0;
    retry("it is behind and has no room for more", || {
        cluster.write(&format!("k{written}"), &VALUE);
        written += 1;
        let leader = cluster.leader();
        let refused = !leader.replica().core().peers.spaces.pause(node.identity.raft_id.0).is_zero();
        (refused && last_index(node) + 20 < last_index(leader)).then_some(())
    });
    assert_takes_part(node);
    assert_ne!(cluster.leader_index(), full);
    retry("what it has taken, it has", || {
        let log = node.engine().log_state();
        (log.durable == log.last).then_some(())
    });
    node.disk.set_space_limit(None);
    cluster.assert_equal();
    assert_takes_part(node);
    retry("its reserve is whole again", || {
        let space = node.engine().space();
        (space.reserve_bytes == space.reserve_wanted_bytes && space.level == SpaceLevel::Normal).then_some(())
    });
    cluster.close();
}

#[test]
fn a_leader_that_is_short_of_space_hands_over_to_one_that_is_not() {
    let cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let full = cluster.leader_index();
    cluster.nodes[full].disk.set_space_limit(Some(0));
    cluster.led_by(|leader| leader != full);
    cluster.write("after", &VALUE);
    assert_takes_part(&cluster.nodes[full]);
    cluster.nodes[full].disk.set_space_limit(None);
    cluster.assert_equal();
    cluster.close();
}

#[test]
fn a_quorum_that_is_full_refuses_growth_takes_deletes_and_goes_on_when_there_is_space() {
    let mut cluster = TestCluster::start(3);
    for key in 0..8 {
        cluster.write(&format!("k{key}"), &VALUE);
    }
    // The leader has space: it is told by the others.
    let leader = cluster.leader_index();
    let full = [(leader + 1) % 3, (leader + 2) % 3];
    for node in full {
        cluster.nodes[node].disk.set_space_limit(Some(0));
    }
    let error = wait_for_refusal(&cluster);
    assert!(error.message.contains("deletes only") && error.message.contains("Free space"), "{error}");
    assert!(full.iter().any(|node| error.message.contains(&cluster.nodes[*node].identity.name)), "{error}");
    // Reads go on, of all kinds.
    let node = cluster.leader();
    assert!(node.on(node.node().read(Consistency::Linearizable)).is_ok());
    retry("a delete is taken", || delete_key(&cluster, "attempt1").ok());
    // Killed and started again on disks that are still full.
    for node in full {
        cluster.nodes[node].kill();
        let disk = LosingDisk::new();
        disk.set_space_limit(Some(0));
        cluster.nodes[node].restart_behind(disk);
    }
    retry("a delete is taken", || delete_key(&cluster, "attempt2").ok());
    wait_for_refusal(&cluster);
    for node in full {
        assert_takes_part(&cluster.nodes[node]);
        cluster.nodes[node].disk.set_space_limit(None);
    }
    cluster.write("after", &VALUE);
    cluster.assert_equal();
    cluster.close();
}

/// All nodes on one disk, as in a trial: nobody is better off, so nobody hands over.
#[test]
fn where_all_are_full_nothing_moves_and_all_goes_on_when_there_is_space() {
    let cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let term = cluster.leader().leading();
    for node in &cluster.nodes {
        node.disk.set_space_limit(Some(0));
    }
    wait_for_refusal(&cluster);
    for node in &cluster.nodes {
        retry("it has looked", || (level(node) != SpaceLevel::Normal).then_some(()));
    }
    wait_for_refusal(&cluster);
    assert_eq!(cluster.leader().leading(), term, "leadership moves to nobody who is full, too");
    for node in &cluster.nodes {
        node.disk.set_space_limit(None);
    }
    cluster.write("after", &VALUE);
    cluster.assert_equal();
    cluster.close();
}
