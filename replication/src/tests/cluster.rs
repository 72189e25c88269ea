//! A cluster in one process: each node with a runtime, a directory and a port of its own, over loopback.
//!
//! Killing a node drops its runtime: its connections break and its listener is gone, as with a process. Its disk is a
//! door that forgets what was not synced by then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calamus_engine::env::{Disk, LosingDisk, RealDisk};
use calamus_engine::ids::Term;
use calamus_engine::offline::check_directory;
use calamus_engine::{Engine, NodeIdentity};
use calamus_proto::v1::{self as proto, AddRequest, TxnResponse};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use super::support;
use crate::error::TxnError;
use crate::node::Node;
use crate::options::NodeConfig;
use crate::replica::Replica;
use crate::seam::{Consensus, Leadership};
use crate::seeding::SeedFrom;
use crate::test_requests;

pub(super) const TREE: &str = "t";
/// Far above what anything here takes: a test that waits this long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct TestNode {
    pub(super) identity: NodeIdentity,
    pub(super) directory: PathBuf,
    config: NodeConfig,
    pub(super) disk: LosingDisk,
    pub(super) node: Option<Node>,
    /// What it is to be seeded from, from its next start on.
    pub(super) wish: SeedFrom,
    runtime: Option<Runtime>,
}

impl TestNode {
    /// A new directory, a free port, started.
    pub(super) fn create(root: &Path, name: &str, raft_id: u64, config: &NodeConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let identity = support::identity(raft_id, name, &address);
        let directory = root.join(format!("{name}-{raft_id}"));
        let disk = LosingDisk::new();
        let engine = support::create(Arc::new(disk.clone()), &directory, &identity);
        let (config, wish) = (config.clone(), SeedFrom::Any);
        let mut node = Self { identity, directory, config, disk, node: None, wish, runtime: None };
        node.run(engine, listener);
        node
    }

    /// A directory that `make` makes for an address, started.
    pub(super) fn in_directory(directory: &Path, make: impl FnOnce(&Path, &str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        make(directory, &listener.local_addr().expect("bound").to_string());
        let disk = LosingDisk::new();
        let opened = Engine::open(Arc::new(disk.clone()), directory, support::options());
        let (engine, _) = opened.expect("the directory opens");
        let (identity, config) = (engine.identity(), NodeConfig::default());
        let (directory, wish) = (directory.to_path_buf(), SeedFrom::Any);
        let mut node = Self { identity, directory, config, disk, node: None, wish, runtime: None };
        node.run(engine, listener);
        node
    }

    fn run(&mut self, engine: Engine, listener: TcpListener) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let node = runtime.block_on(async {
            listener.set_nonblocking(true).expect("a socket");
            let incoming = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let node = Node::start(engine, self.config.clone()).await.expect("the node starts");
            node.seed_from(self.wish.clone(), Box::new(|| ()));
            let server = tonic::transport::Server::builder().add_service(node.raft_server());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(incoming)));
            node
        });
        (self.node, self.runtime) = (Some(node), Some(runtime));
    }

    /// Started again on its directory and address, behind another door: what the old one had not synced is gone.
    pub(super) fn restart(&mut self) {
        self.restart_behind(LosingDisk::new());
    }

    /// The same behind a door of the test's.
    pub(super) fn restart_behind(&mut self, disk: LosingDisk) {
        assert!(self.runtime.is_none(), "it runs");
        self.disk = disk;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (engine, _) = Engine::open(disk, &self.directory, support::options()).expect("the directory opens");
        let listener = retry("the port is free again", || TcpListener::bind(&self.identity.listen).ok());
        self.run(engine, listener);
    }

    /// Gone, without a word to anybody, and without what was not synced.
    pub(super) fn kill(&mut self) {
        self.disk.fail_syncs(true);
        self.disk.hang_syncs(false);
        self.disk.hang_reads(None);
        self.node = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    pub(super) fn replica(&self) -> &Replica {
        self.node().replica()
    }

    pub(super) fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    pub(super) fn engine(&self) -> &Engine {
        self.replica().engine()
    }

    pub(super) fn on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it runs").block_on(work)
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.as_ref().expect("it runs").spawn(work)
    }

    pub(super) fn leading(&self) -> Option<Term> {
        self.node.as_ref().and_then(|node| node.leadership().borrow().leading())
    }

    pub(super) fn add_request(&self, replace: bool) -> AddRequest {
        AddRequest {
            name: self.identity.name.clone(),
            raft_id: self.identity.raft_id.0,
            address: self.identity.advertise.clone(),
            aim: proto::Aim::Unspecified.into(),
            replace,
            cluster_id: self.identity.cluster_id.to_string(),
        }
    }

    /// Puts one value, through this node, whoever leads.
    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result<TxnResponse, TxnError> {
        let value = std::str::from_utf8(value).expect("tests write text");
        self.on(self.node().txn(test_requests::txn(vec![test_requests::put(TREE, key, value)])))
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let read = self.engine().read();
        let entry = read.get(TREE, key.as_bytes()).expect("readable");
        entry.map(|entry| entry.value.to_vec().expect("readable"))
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The data file of a directory, which must pass the whole check.
fn clean_data(disk: &Arc<dyn Disk>, directory: &Path) -> Vec<u8> {
    let report = check_directory(disk, directory, &mut |_| {}).expect("nobody runs on it");
    assert!(report.is_clean(), "{} is not clean: {report:#?}", directory.display());
    let home = directory.join(format!("g{}", report.generation.expect("a node has one").0));
    std::fs::read(home.join("data")).expect("a data file")
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        assert!(self.closed || std::thread::panicking(), "a test of a cluster ends with TestCluster::close");
    }
}

/// Waits for `probe` to give something, and says what was waited for if it never does.
#[track_caller]
pub(super) fn retry<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) struct TestCluster {
    pub(super) root: tempfile::TempDir,
    pub(super) nodes: Vec<TestNode>,
    /// What was acknowledged last, by key.
    written: Mutex<BTreeMap<String, Vec<u8>>>,
    closed: bool,
}

impl TestCluster {
    /// One node bootstraps, the others join it and become voters by themselves.
    pub(super) fn start(count: u64) -> Self {
        Self::start_with(count, &NodeConfig::default())
    }

    pub(super) fn start_with(count: u64, config: &NodeConfig) -> Self {
        Self::start_each(count, config, config)
    }

    /// With a configuration for the first node, which leads in the beginning, and one for the others.
    pub(super) fn start_each(count: u64, first: &NodeConfig, config: &NodeConfig) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self { root, nodes: Vec::new(), written: Mutex::default(), closed: false };
        let first = TestNode::create(cluster.root.path(), "n1", 101, first);
        first.on(first.replica().bootstrap()).expect("an empty log");
        cluster.nodes.push(first);
        for number in 2..=count {
            let node = TestNode::create(cluster.root.path(), &format!("n{number}"), 100 + number, config);
            cluster.nodes.push(node);
            cluster.join(cluster.nodes.len() - 1, false);
        }
        cluster.wait_until_all_know();
        cluster
    }

    /// Of one node that runs, and to which others of its cluster come.
    pub(super) fn around(root: tempfile::TempDir, first: TestNode) -> Self {
        Self { root, nodes: vec![first], written: Mutex::default(), closed: false }
    }

    /// A new node of the first one's cluster, which becomes a voter.
    pub(super) fn grow(&mut self, name: &str, raft_id: u64) {
        let identity =
            NodeIdentity { cluster_id: self.nodes[0].identity.cluster_id, ..support::identity(raft_id, name, "") };
        let node = TestNode::in_directory(&self.root.path().join(name), |directory, address| {
            let identity = NodeIdentity { listen: address.into(), advertise: address.into(), ..identity };
            support::create(Arc::new(RealDisk::new()), directory, &identity).close();
        });
        self.nodes.push(node);
        self.join(self.nodes.len() - 1, false);
        self.wait_until_all_know();
    }

    /// Waits until each node itself knows all as voters, by a membership that is committed, and has applied the leader's
    /// last entry. The leader knows before: a node that has not heard yet that it votes takes itself for a learner, and
    /// stands for no election when that leader goes.
    fn wait_until_all_know(&self) {
        let all: BTreeSet<u64> = self.nodes.iter().map(|node| node.identity.raft_id.0).collect();
        retry("every node knows all as voters and has what the leader has", || {
            let last = self.leader().engine().log_state().last;
            let knows = |node: &TestNode| {
                let metrics = node.replica().core().metrics();
                let committed = &metrics.committed_membership_config;
                let settled = committed.membership().get_joint_config().len() == 1;
                settled
                    && committed.voter_ids().collect::<BTreeSet<_>>() == all
                    && committed.log_id() == metrics.membership_config.log_id()
                    && node.engine().applied().log_id == last
            };
            self.nodes.iter().all(knows).then_some(())
        });
    }

    /// Adds a node that runs, and waits until it votes.
    pub(super) fn join(&self, index: usize, replace: bool) {
        let node = &self.nodes[index];
        retry("the node becomes a voter", || {
            let leader = self.leader();
            let added = leader.on(leader.replica().add(&node.add_request(replace)));
            let members = added.ok()?;
            members.iter().any(|member| member.raft_id == node.identity.raft_id.0 && member.voter).then_some(())
        });
    }

    /// Waits until a node leads that `is` says.
    #[track_caller]
    pub(super) fn led_by(&self, is: impl Fn(usize) -> bool) -> usize {
        retry("the right node leads", || Some(self.leader_index()).filter(|leader| is(*leader)))
    }

    /// The node that leads, once there is one.
    #[track_caller]
    pub(super) fn leader(&self) -> &TestNode {
        &self.nodes[self.leader_index()]
    }

    #[track_caller]
    pub(super) fn leader_index(&self) -> usize {
        let started = Instant::now();
        loop {
            if let Some(index) = self.nodes.iter().position(|node| node.leading().is_some()) {
                return index;
            }
            assert!(started.elapsed() < PATIENCE, "nobody leads:\n{}", self.describe());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn describe(&self) -> String {
        let running = self.nodes.iter().filter_map(|node| node.node.as_ref());
        let lines = running.map(|node| {
            let shown = node.leadership().borrow().clone();
            format!("{shown:?}, {}", node.replica().core().metrics())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Writes, on whoever leads, until it is committed.
    #[track_caller]
    pub(super) fn write(&self, key: &str, value: &[u8]) -> TxnResponse {
        let answer = retry("a write is committed", || self.leader().put(key, value).ok());
        self.written.lock().insert(key.to_owned(), value.to_vec());
        answer
    }

    /// The end of every test with a cluster. Nodes that are down, or have stopped, start again. Each member holds each
    /// acknowledged write; all come to the same state and end in good order; their directories are clean, and their data
    /// files equal byte for byte. Nodes that were removed are left alone.
    #[track_caller]
    pub(super) fn close(mut self) {
        for node in &mut self.nodes {
            let stopped = |node: &Node| matches!(&*node.leadership().borrow(), Leadership::Stopped { .. });
            if node.node.as_ref().is_none_or(stopped) {
                node.kill();
                node.restart();
            }
        }
        let members = self.leader().replica().members();
        self.nodes.retain(|node| members.iter().any(|member| member.raft_id == node.identity.raft_id.0));
        let written = std::mem::take(&mut *self.written.lock());
        for node in &self.nodes {
            retry("a node holds all that was acknowledged", || {
                written.iter().all(|(key, value)| node.get(key).as_ref() == Some(value)).then_some(())
            });
        }
        self.assert_equal();
        // Followers first: a leader that goes while others are there is replaced, for nothing.
        let leader = self.leader_index();
        self.nodes.swap(0, leader);
        for node in self.nodes.iter_mut().rev() {
            node.on(node.node().shutdown(false)).expect("a last checkpoint");
            node.kill();
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let files: Vec<Vec<u8>> = self.nodes.iter().map(|node| clean_data(&disk, &node.directory)).collect();
        for (node, file) in self.nodes.iter().zip(&files) {
            assert!(*file == files[0], "the data files of {} and {}", self.nodes[0].identity.name, node.identity.name);
        }
        self.closed = true;
    }

    /// Waits until all running nodes have applied the same, and compares it.
    #[track_caller]
    pub(super) fn assert_equal(&self) {
        let running = || self.nodes.iter().filter(|node| node.node.is_some());
        let states = retry("all nodes have applied the same", || {
            let states: Vec<_> = running().map(|node| (node.identity.name.clone(), node.engine().applied())).collect();
            states.windows(2).all(|pair| pair[0].1.log_id == pair[1].1.log_id).then_some(states)
        });
        for pair in states.windows(2) {
            assert_eq!(pair[0].1, pair[1].1, "{} and {} differ", pair[0].0, pair[1].0);
        }
        for node in running().filter(|node| node.leading().is_none()) {
            let leadership = node.replica().leadership().borrow().clone();
            assert!(
                !matches!(leadership, Leadership::Stopped { .. }),
                "{} stopped: {leadership:?}",
                node.identity.name
            );
        }
    }
}
