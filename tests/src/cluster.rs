//! A cluster of real processes on loopback, and the closing act that every cluster test ends with.
//!
//! A cluster lives in a temporary directory: `nK/` and `nK.log` for each node. It must be ended by [`Cluster::close`];
//! dropped otherwise (a panic, or a test that forgot) the nodes are killed, their directories kept and their logs shown.
//! With `CALAMUS_TEST_KEEP=1` directories and logs are kept always.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use calamus_client::{Client, Options};
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::{
    Entry, FreezeRequest, GetRequest, GetResponse, NodeStatus, Operation, Put, Role, ScanRequest, StatusRequest,
    TransferRequest, TxnRequest, operation,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::acknowledged::Ledger;
use crate::compare;
use crate::ports::free_address;
use crate::process::{Process, tail};
use crate::wait::{LIMIT, until};

/// How long a question to one node may take: a frozen one must not hold up the others.
const ASK: Duration = Duration::from_millis(800);

/// How long a node may take for one answer of data, or the next piece of a longer one: a node gives up by itself before.
const ANSWER: Duration = Duration::from_secs(30);

/// An answer, or an error in its place if it takes too long: a hanging node must fail its test, not hold it up.
async fn in_time<T>(answer: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs())));
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(late)
}

/// How the nodes of a cluster are started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary: `env!("CARGO_BIN_EXE_calamus-fault")`.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// More flags of `serve`, at every start.
    pub flags: Vec<String>,
    /// The environment of every node.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// Three nodes on real disks.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), nodes: 3, flags: Vec::new(), environment: Vec::new() }
    }

    /// On disks that forget what was not synced when their process is killed: `kill -9` alone proves nothing about
    /// syncs, because the kernel keeps what a killed process wrote.
    #[must_use]
    pub fn losing(self) -> Self {
        self.environment("CALAMUS_DISK", "losing")
    }

    /// With this flag of `serve`.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// With this variable in the environment of every node.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

struct Member {
    name: String,
    address: String,
    directory: PathBuf,
    log: PathBuf,
    channel: Channel,
    /// Its own, beside that of the setup.
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// A running cluster. Nodes are numbered from 0; node k is called n(k+1).
pub struct Cluster {
    setup: Setup,
    members: Vec<Member>,
    home: Option<TempDir>,
    closed: bool,
}

impl Cluster {
    /// Starts all nodes and waits until all are voters and ready.
    pub async fn start(setup: Setup) -> Self {
        let home = tempfile::Builder::new().prefix("calamus-test-").tempdir().expect("a temporary directory");
        let members = (1..=setup.nodes).map(|number| Member::new(number, home.path())).collect();
        let mut cluster = Self { setup, members, home: Some(home), closed: false };
        cluster.first_start(0, None);
        cluster.ready(0).await;
        for node in 1..cluster.len() {
            cluster.first_start(node, Some(0));
        }
        cluster.voters().await;
        cluster
    }

    /// How many nodes there are, running or not.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a cluster has nodes")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// HOST:PORT of a node.
    #[must_use]
    pub fn address(&self, node: usize) -> &str {
        &self.members[node].address
    }

    /// Of all nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: usize) -> &str {
        &self.members[node].name
    }

    /// A node's directory.
    #[must_use]
    pub fn directory(&self, node: usize) -> &Path {
        &self.members[node].directory
    }

    /// Where a node's output goes.
    #[must_use]
    pub fn log(&self, node: usize) -> &Path {
        &self.members[node].log
    }

    /// Of all nodes.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        self.members.iter().map(|member| member.directory.clone()).collect()
    }

    /// The process of a node.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn process(&self, node: usize) -> &Process {
        self.members[node].process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name(node)))
    }

    /// All nodes but this one.
    #[must_use]
    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.len()).filter(|other| *other != node).collect()
    }

    /// Sets what a node finds in its environment at its next start.
    pub fn set_environment(&mut self, node: usize, environment: &[(&str, &str)]) {
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.members[node].environment = owned.collect();
    }

    /// A client that was told all addresses.
    pub async fn client(&self) -> Client {
        self.client_with(Options { deadline: LIMIT, ..Options::default() }).await
    }

    /// A client that was told all addresses.
    pub async fn client_with(&self, options: Options) -> Client {
        Client::connect(self.addresses(), options).await.expect("a node answers")
    }

    /// Ends a cluster that is not expected to be in order: a fault was planted in it.
    pub fn abandon(mut self) {
        self.closed = true;
    }

    // ---- starting and ending nodes ----

    fn spawn(&mut self, node: usize, arguments: Vec<String>) {
        let member = &mut self.members[node];
        assert!(member.process.is_none(), "{} runs already", member.name);
        let directory = member.directory.to_str().expect("temporary paths are UTF-8").to_owned();
        let mut all = vec!["serve".to_owned(), "--dir".to_owned(), directory];
        all.extend(arguments);
        all.extend(self.setup.flags.iter().cloned());
        let environment = [self.setup.environment.clone(), member.environment.clone()].concat();
        member.process = Some(Process::start(&self.setup.binary, &all, &environment, &member.log));
    }

    fn first_start(&mut self, node: usize, join: Option<usize>) {
        let member = &self.members[node];
        let mut arguments = ["--name", &member.name, "--listen", &member.address].map(str::to_owned).to_vec();
        match join {
            None => arguments.push("--bootstrap".to_owned()),
            Some(host) => arguments.extend(["--join".to_owned(), self.members[host].address.clone()]),
        }
        self.spawn(node, arguments);
    }

    /// Starts a node again on its directory.
    pub fn restart(&mut self, node: usize) {
        self.spawn(node, Vec::new());
    }

    /// Starts a node whose directory is gone, under its old name: it joins by asking `host`.
    pub fn rejoin(&mut self, node: usize, host: usize) {
        assert!(!self.members[node].directory.exists(), "the directory of {} is still there", self.name(node));
        self.first_start(node, Some(host));
    }

    /// As if its power failed.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.members[node].process.take().expect("it runs");
        process.kill();
    }

    /// All at once: they are stopped within microseconds of each other, and none goes on. One after the other would give
    /// the last ones time to sync what they have acknowledged.
    pub async fn kill_all(&mut self) {
        for node in 0..self.len() {
            self.process(node).signal(Signal::STOP);
        }
        for node in 0..self.len() {
            self.process(node).is_frozen().await;
        }
        for node in 0..self.len() {
            self.kill(node);
        }
    }

    /// Kills a node and removes its directory.
    pub fn wipe(&mut self, node: usize) {
        if self.members[node].process.is_some() {
            self.kill(node);
        }
        std::fs::remove_dir_all(self.directory(node)).expect("a directory of ours can be removed");
    }

    /// Ends a node in an orderly way.
    ///
    /// # Panics
    /// When it does not end with code 0.
    pub async fn terminate(&mut self, node: usize, signal: Signal) {
        let mut process = self.members[node].process.take().expect("it runs");
        process.signal(signal);
        let status = process.end(LIMIT).await;
        let name = self.name(node);
        assert_eq!(status.code(), Some(0), "{name} ended with {status}; its log:\n{}", process.log_tail());
    }

    /// Nodes must not end by themselves.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_running(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.try_wait()
            {
                panic!("{} ended by itself: {status}; its log:\n{}", member.name, process.log_tail());
            }
        }
    }

    // ---- asking nodes ----

    /// What a node says of itself; `None` if it does not answer.
    pub async fn status(&self, node: usize) -> Option<NodeStatus> {
        let mut client = ClusterClient::new(self.members[node].channel.clone());
        let answer = tokio::time::timeout(ASK, client.status(StatusRequest { all_nodes: false })).await;
        answer.ok()?.ok()?.into_inner().node
    }

    /// What a node says of itself.
    ///
    /// # Panics
    /// When it does not answer for long.
    pub async fn status_now(&self, node: usize) -> NodeStatus {
        until(&format!("a status of {}", self.name(node)), LIMIT, async || self.status(node).await).await
    }

    async fn is_serving(&self, node: usize) -> bool {
        let mut client = HealthClient::new(self.members[node].channel.clone());
        let answer = tokio::time::timeout(ASK, client.check(HealthCheckRequest::default())).await;
        answer.is_ok_and(|answer| {
            answer.is_ok_and(|answer| answer.into_inner().status == i32::from(ServingStatus::Serving))
        })
    }

    /// Whether a node has ended by itself.
    pub fn has_ended(&mut self, node: usize) -> bool {
        self.members[node].process.as_mut().is_some_and(|process| process.try_wait().is_some())
    }

    /// Waits until a node says that it is ready.
    pub async fn ready(&mut self, node: usize) {
        let what = format!("{} is ready", self.name(node));
        until(&what, LIMIT, async || {
            self.assert_running();
            self.is_serving(node).await.then_some(())
        })
        .await;
    }

    /// Waits until all nodes are ready, and the leader counts exactly them as voters.
    pub async fn voters(&mut self) {
        for node in 0..self.len() {
            self.ready(node).await;
        }
        until("all nodes are voters", LIMIT, async || {
            self.assert_running();
            let mut ids = Vec::new();
            for node in 0..self.len() {
                ids.push(self.status(node).await?.raft_id);
            }
            let leader = self.leader_now().await?;
            let mut client = ClusterClient::new(self.members[leader].channel.clone());
            let all = client.status(StatusRequest { all_nodes: true }).await.ok()?.into_inner().members;
            let same = all.len() == ids.len() && all.iter().all(|node| node.voter && ids.contains(&node.raft_id));
            same.then_some(())
        })
        .await;
    }

    async fn leader_now(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        for node in 0..self.len() {
            if self.members[node].process.is_none() {
                continue;
            }
            if let Some(status) = self.status(node).await
                && status.role == i32::from(Role::Leader)
            {
                leaders.push((status.term, node));
            }
        }
        // One that was cut off may not know yet that there is a newer one.
        leaders.into_iter().max().map(|(_, node)| node)
    }

    /// The node that leads.
    pub async fn leader(&self) -> usize {
        until("a leader", LIMIT, async || self.leader_now().await).await
    }

    /// A node that leads and is not this one.
    pub async fn leader_other_than(&self, node: usize) -> usize {
        until("another leader", LIMIT, async || self.leader_now().await.filter(|leader| *leader != node)).await
    }

    /// A node that does not lead.
    pub async fn follower(&self) -> usize {
        self.others(self.leader().await)[0]
    }

    /// Makes this node the leader.
    pub async fn lead(&self, node: usize) {
        until(&format!("{} leads", self.name(node)), LIMIT, async || {
            let leader = self.leader_now().await?;
            if leader == node {
                return Some(());
            }
            let mut client = ClusterClient::new(self.members[leader].channel.clone());
            let request = TransferRequest { to: self.name(node).to_owned() };
            // It may be refused while the node is behind; then it is asked again.
            let _ = tokio::time::timeout(5 * ASK, client.transfer(request)).await;
            None
        })
        .await;
    }

    fn kv(&self, node: usize) -> KvClient<Channel> {
        KvClient::new(self.members[node].channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Puts a value by way of this node alone: it runs the transaction or forwards it. Returns the txn id.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn put_to(&self, node: usize, tree: &str, key: &str, value: Bytes) -> Result<u64, tonic::Status> {
        let put = Put { tree: tree.to_owned(), key: key.to_owned().into(), value, tree_must_exist: false };
        let operations = vec![Operation { kind: Some(operation::Kind::Put(put)) }];
        let request = TxnRequest { operations, ..TxnRequest::default() };
        Ok(in_time(self.kv(node).txn(request)).await?.into_inner().txn_id)
    }

    /// A linearizable read of this node's own pages.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn get_from(&self, node: usize, tree: &str, key: &[u8]) -> Result<GetResponse, tonic::Status> {
        let request = GetRequest { tree: tree.to_owned(), key: key.to_vec().into(), consistency: 0 };
        Ok(in_time(self.kv(node).get(request)).await?.into_inner())
    }

    /// All entries of a tree, linearizably, from this node's own pages.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn scan_from(&self, node: usize, tree: &str) -> Result<Vec<Entry>, tonic::Status> {
        let request = ScanRequest { tree: tree.to_owned(), ..ScanRequest::default() };
        let mut chunks = in_time(self.kv(node).scan(request)).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(chunk) = in_time(chunks.message()).await? {
            entries.extend(chunk.entries);
        }
        Ok(entries)
    }

    // ---- the closing act ----

    /// Waits until all nodes have applied the same, and says of which state: index and digest.
    pub async fn equal_states(&mut self) -> (u64, String) {
        until("all nodes have applied the same", LIMIT, async || {
            self.assert_running();
            let mut found = Vec::new();
            for node in 0..self.len() {
                let status = self.status(node).await?;
                let applied = status.applied?.index;
                if status.last_log?.index != applied {
                    return None;
                }
                found.push((applied, status.digest));
            }
            found.iter().all(|state| state.0 == found[0].0).then(|| {
                assert!(found.iter().all(|state| state.1 == found[0].1), "one index, and digests {found:?}");
                found[0].clone()
            })
        })
        .await
    }

    /// Each acknowledged write is there, with its value, on each node, read from that node's own pages.
    pub async fn assert_acknowledged(&mut self, ledger: &Ledger) {
        for tree in ledger.trees() {
            for node in 0..self.len() {
                let what = format!("a scan of {tree} from {}", self.name(node));
                let found = until(&what, LIMIT, async || {
                    self.assert_running();
                    self.scan_from(node, tree).await.ok()
                })
                .await;
                ledger.compare(self.name(node), tree, &found);
            }
        }
    }

    /// The end of every cluster test: all nodes run and hold what was acknowledged, they come to equal states, end in
    /// good order, and their directories are clean and equal, byte for byte and frame for frame.
    ///
    /// # Panics
    /// When any of that is not so.
    pub async fn close(mut self, ledger: &Ledger) {
        for node in 0..self.len() {
            self.ready(node).await;
        }
        self.assert_acknowledged(ledger).await;
        for node in 0..self.len() {
            let mut client = ClusterClient::new(self.members[node].channel.clone());
            in_time(client.freeze(FreezeRequest { frozen: true })).await.expect("the node answers");
        }
        self.equal_states().await;
        // Followers first: a leader that goes while others are there is replaced, for nothing.
        let leader = self.leader().await;
        for node in self.others(leader).into_iter().chain([leader]) {
            self.terminate(node, Signal::USR1).await;
        }
        let directories = self.directories();
        let compared = tokio::task::spawn_blocking(move || compare::assert_equal_after_stop(&directories)).await;
        if let Err(panic) = compared {
            std::panic::resume_unwind(panic.into_panic());
        }
        self.closed = true;
    }
}

impl Member {
    fn new(number: usize, home: &Path) -> Self {
        let (name, address) = (format!("n{number}"), free_address());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect_timeout(ASK).tcp_nodelay(true).connect_lazy();
        let (directory, log) = (home.join(&name), home.join(format!("{name}.log")));
        Self { name, address, directory, log, channel, environment: Vec::new(), process: None }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.process = None;
        }
        if self.closed && std::env::var_os("CALAMUS_TEST_KEEP").is_none() {
            return;
        }
        let kept = self.home.take().map(TempDir::keep).unwrap_or_default();
        if self.closed {
            eprintln!("the directories of the cluster are kept: {}", kept.display());
            return;
        }
        for member in &self.members {
            eprintln!("---- {}: the end of {} ----\n{}", member.name, member.log.display(), tail(&member.log));
        }
        eprintln!("the directories of the cluster are kept: {}", kept.display());
        assert!(std::thread::panicking(), "a test of a cluster ends with Cluster::close");
    }
}
