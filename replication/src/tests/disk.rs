//! What a node does with a disk that is slow to sync, hangs, fails or forgets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calamus_engine::env::LosingDisk;
use calamus_engine::ids::LogId;
use calamus_proto::v1::Consistency;
use futures::FutureExt;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::cluster::{TestCluster, retry};
use super::support;
use crate::log_store::{Early, LogStore, SwitchGate};
use crate::network::convert::to_raft_log_id;
use crate::options::NodeConfig;
use crate::seam::Leadership;
use crate::test_requests::{put, txn};
use crate::types::{Entry, TypeConfig};

/// Appends while syncs hang, and looks who was told what.
async fn append_while_syncs_hang(early: Early) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = LosingDisk::new();
    let engine =
        support::create(Arc::new(disk.clone()), &directory.path().join("n"), &support::identity(1, "n", "h:1"));
    let mut store = LogStore::new(engine.clone(), SwitchGate::default(), early);
    disk.hang_syncs(true);
    let (sender, mut told) = TypeConfig::oneshot();
    let entry = Entry::new_blank(to_raft_log_id(LogId::new(1, 0)));
    store.append([entry], IOFlushed::signal(sender)).await.expect("queued");
    assert_eq!(engine.log_state().last, Some(LogId::new(1, 0)), "it can be read at once");
    let mut vote = Box::pin(async move {
        let vote = openraft::impls::Vote::new(3, 1);
        store.save_vote(&vote).await.expect("saved");
    });
    let early = (&mut told).now_or_never().is_some() || (&mut vote).now_or_never().is_some();
    let durable = engine.log_state().durable;
    // Before any assert: a sync that hangs for ever would keep the test from failing.
    disk.hang_syncs(false);
    assert_eq!(durable, None);
    assert!(!early, "an acknowledgement before the sync");
    told.await.expect("told").expect("durable");
    vote.await;
    assert_eq!(engine.log_state().durable, Some(LogId::new(1, 0)));
    assert_eq!(engine.vote().map(|vote| vote.term.0), Some(3));
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_sync() {
    append_while_syncs_hang(Early::default()).await;
}

#[tokio::test]
#[should_panic(expected = "an acknowledgement before the sync")]
async fn acknowledging_before_the_sync_is_found() {
    append_while_syncs_hang(Early { frames: true, ..Early::default() }).await;
}

#[tokio::test]
#[should_panic(expected = "an acknowledgement before the sync")]
async fn a_planted_vote_before_its_sync_is_found() {
    append_while_syncs_hang(Early { votes: true, ..Early::default() }).await;
}

#[tokio::test]
async fn a_vote_that_is_saved_counts_with_the_time_that_it_takes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = LosingDisk::new();
    let engine =
        support::create(Arc::new(disk.clone()), &directory.path().join("n"), &support::identity(1, "n", "h:1"));
    let mut store = LogStore::new(engine, SwitchGate::default(), Early::default());
    let saves = store.vote_saves().clone();
    assert!(!saves.is_saving());
    disk.hang_syncs(true);
    let mut vote = Box::pin(async move {
        let vote = openraft::impls::Vote::new(3, 1);
        store.save_vote(&vote).await.expect("saved");
    });
    let early = (&mut vote).now_or_never().is_some();
    let (saving, began) = (saves.is_saving(), saves.longest());
    // The clock goes on, and so does the save.
    let hung = retry("it takes longer", || Some(saves.longest()).filter(|now| *now > began));
    disk.hang_syncs(false);
    vote.await;
    assert!(saving && !early);
    assert!(!saves.is_saving() && saves.longest() >= hung, "{:?} of {hung:?}", saves.longest());
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_comes_back() {
    let cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let hung = cluster.leader_index();
    let node = &cluster.nodes[hung];
    node.disk.hang_syncs(true);
    // Something that needs a sync; nobody waits for it here.
    let request = node.node().clone();
    drop(node.spawn(async move { request.txn(txn(vec![put("t", "during", "y")])).await }));
    let moved = retry("another node leads", || {
        cluster.nodes.iter().position(|other| other.leading().is_some()).filter(|leader| *leader != hung)
    });
    let other = &cluster.nodes[moved];
    retry("a write is committed without the hung node", || other.put("after", b"z").ok());
    node.disk.hang_syncs(false);
    cluster.assert_equal();
    for node in &cluster.nodes {
        assert_eq!(node.get("after").as_deref(), Some(&b"z"[..]), "on {}", node.identity.name);
    }
    cluster.close();
}

/// Short timeouts, so that a test can wait for many of them.
const ELECTION: Duration = Duration::from_millis(200);

fn short_timeouts() -> NodeConfig {
    NodeConfig {
        election_timeout: ELECTION / 2..ELECTION,
        heartbeat_interval: ELECTION / 8,
        read_patience: ELECTION / 4,
        ..NodeConfig::default()
    }
}

/// Three nodes, of which the first leader's syncs hang; another leads. Returns the hung one, and when it began.
fn hung_and_replaced() -> (TestCluster, usize, Instant) {
    let cluster = TestCluster::start_with(3, &short_timeouts());
    cluster.write("before", b"x");
    let hung = cluster.leader_index();
    let node = &cluster.nodes[hung];
    let began = Instant::now();
    node.disk.hang_syncs(true);
    let request = node.node().clone();
    drop(node.spawn(async move { request.txn(txn(vec![put("t", "during", "y")])).await }));
    retry("another node leads and commits", || {
        let other = cluster.nodes.iter().position(|other| other.leading().is_some()).filter(|leader| *leader != hung);
        cluster.nodes[other?].put("after", b"z").ok()
    });
    (cluster, hung, began)
}

#[test]
fn a_leader_that_was_replaced_while_its_disk_hung_is_a_follower_when_it_comes_back() {
    let (cluster, hung, began) = hung_and_replaced();
    let node = &cluster.nodes[hung];
    retry("twelve election timeouts have passed", || (began.elapsed() > ELECTION * 12).then_some(()));
    let shown = node.node().leadership().borrow().clone();
    node.disk.hang_syncs(false);
    assert!(!matches!(shown, Leadership::Stopped { .. }), "{shown:?}");
    cluster.assert_equal();
    assert_eq!(node.get("after").as_deref(), Some(&b"z"[..]));
    cluster.close();
}

#[test]
fn a_node_whose_disk_never_comes_back_says_so_and_gathers_no_readers() {
    let (cluster, hung, _) = hung_and_replaced();
    let node = &cluster.nodes[hung];
    let reads = || node.on(async { node.node().read(Consistency::Linearizable).await.err() });
    let mut most = 0;
    let why = retry("the node says that it has stopped", || {
        drop(reads());
        most = most.max(node.node().reads().waiting());
        match &*node.node().leadership().borrow() {
            Leadership::Stopped { why } => Some(why.clone()),
            _ => None,
        }
    });
    let refused = reads().expect("no read point");
    let status = node.node().status().state;
    node.disk.hang_syncs(false);
    assert!(why.contains("sync hangs"), "{why}");
    assert!(status.contains("sync hangs"), "{status}");
    assert_eq!(refused.reason, crate::error::reason::STOPPING, "{refused}");
    assert!(most <= 4, "{most} readers wait, of which each had given up before the next came");
    cluster.close();
}

#[test]
fn a_leader_with_a_hanging_disk_and_no_successor_stops() {
    let cluster = TestCluster::start(1);
    cluster.write("before", b"x");
    let node = cluster.leader();
    node.disk.hang_syncs(true);
    let request = node.node().clone();
    drop(node.spawn(async move { request.txn(txn(vec![put("t", "during", "y")])).await }));
    let why = retry("the consensus stops", || match &*node.node().leadership().borrow() {
        Leadership::Stopped { why } => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("sync hangs"), "{why}");
    // Local reads go on.
    let local = node.on(node.node().read(Consistency::Local));
    assert_eq!(node.get("before").as_deref(), Some(&b"x"[..]));
    assert!(local.is_ok(), "{:?}", local.err());
    node.disk.hang_syncs(false);
    drop(local);
    cluster.close();
}

#[test]
fn a_failed_sync_stops_the_node_and_nothing_acknowledged_is_lost() {
    let mut cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let failed = cluster.leader_index();
    cluster.nodes[failed].disk.fail_syncs(true);
    let node = &cluster.nodes[failed];
    let request = node.node().clone();
    drop(node.spawn(async move { request.txn(txn(vec![put("t", "during", "y")])).await }));
    retry("the consensus of the node stops", || {
        matches!(*node.node().leadership().borrow(), Leadership::Stopped { .. }).then_some(())
    });
    cluster.write("after", b"z");
    cluster.nodes[failed].kill();
    cluster.nodes[failed].restart();
    cluster.write("later", b"w");
    cluster.assert_equal();
    assert_eq!(cluster.nodes[failed].get("after").as_deref(), Some(&b"z"[..]));
    cluster.close();
}

#[test]
fn a_node_that_cannot_sync_its_data_file_stops_and_leadership_moves() {
    let mut cluster = TestCluster::start(3);
    cluster.write("before", b"x");
    let stopped = |node: &super::cluster::TestNode| match &*node.node().leadership().borrow() {
        Leadership::Stopped { why } => Some(why.clone()),
        _ => None,
    };
    for round in ["as the leader", "as a follower"] {
        let leads = cluster.leader_index();
        let failed = if round == "as the leader" { leads } else { (leads + 1) % 3 };
        cluster.write(round, b"y");
        retry("the node has something to checkpoint", || cluster.nodes[failed].get(round));
        cluster.nodes[failed].disk.fail_data_syncs(true);
        cluster.nodes[failed].engine().checkpoint().expect_err("the data file is not synced");
        let why = retry("the consensus of the node stops", || stopped(&cluster.nodes[failed]));
        assert!(why.contains("storage has failed") && why.contains("told to fail"), "{why}");
        cluster.write("after", round.as_bytes());
        assert_ne!(cluster.leader_index(), failed, "another leads");
        assert_eq!(cluster.nodes[failed].get(round).as_deref(), Some(&b"y"[..]), "local reads go on");
        cluster.nodes[failed].kill();
        cluster.nodes[failed].restart();
        cluster.write("later", round.as_bytes());
        cluster.assert_equal();
    }
    cluster.close();
}
