//! A cluster of real processes on loopback, and the closing act that every cluster test ends with.
//!
//! A cluster lives in a temporary directory: `nK/` and `nK.log` for each node. It must be ended by [`Cluster::close`];
//! dropped otherwise (a panic, or a test that forgot) the nodes are killed, their directories kept and their logs shown.
//! With `CALAMUS_TEST_KEEP=1` directories and logs are kept always.

mod close;
mod data;
mod setup;

use std::path::{Path, PathBuf};
use std::time::Duration;

use calamus_client::{Client, Options};
use calamus_drill::ports::free_address;
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{NodeStatus, Role, StatusRequest, TransferRequest};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::process::{Process, tail};
use crate::wait::{LIMIT, until};

pub use setup::Setup;

/// How long a question to one node may take: a frozen one must not hold up the others.
const ASK: Duration = Duration::from_millis(800);

/// So many nodes more than a cluster is started with may join it.
const SPARE: usize = 4;

fn name_of(node: usize) -> String {
    format!("n{}", node + 1)
}

/// Flags of a node that advertises an address which is nobody's, for ever (RFC 5737), and knows where the others listen.
fn ways(node: usize, listen: &[String]) -> Vec<String> {
    let mut flags = vec!["--advertise".to_owned(), format!("192.0.2.{}:7001", node + 1)];
    for (other, address) in listen.iter().enumerate().filter(|(other, _)| *other != node) {
        flags.extend(["--reach".to_owned(), format!("{}={address}", name_of(other))]);
    }
    flags
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
    /// Where the nodes listen, in their order; there are some more than nodes.
    listen: Vec<String>,
    home: Option<TempDir>,
    closed: bool,
}

impl Cluster {
    /// Starts all nodes and waits until all are voters and ready.
    pub async fn start(setup: Setup) -> Self {
        let home = tempfile::Builder::new().prefix("calamus-test-").tempdir().expect("a temporary directory");
        let listen: Vec<String> = (0..setup.nodes + SPARE).map(|_| free_address().expect("a free port")).collect();
        let members = (0..setup.nodes).map(|node| Member::new(node, &listen[node], home.path())).collect();
        let mut cluster = Self { setup, members, listen, home: Some(home), closed: false };
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
        if self.setup.hidden {
            all.extend(ways(node, &self.listen));
        }
        let environment = [self.setup.environment.clone(), member.environment.clone()].concat();
        let process = Process::start(&self.setup.binary, &all, &environment, &member.log);
        member.process = Some(process.unwrap_or_else(|error| panic!("{} does not start: {error}", member.name)));
    }

    fn first_start(&mut self, node: usize, join: Option<usize>) {
        self.first_start_with(node, join, &[]);
    }

    fn first_start_with(&mut self, node: usize, join: Option<usize>, flags: &[&str]) {
        let member = &self.members[node];
        let mut arguments = ["--name", &member.name, "--listen", &member.address].map(str::to_owned).to_vec();
        match join {
            None => arguments.push("--bootstrap".to_owned()),
            Some(host) => arguments.extend(["--join".to_owned(), self.members[host].address.clone()]),
        }
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.spawn(node, arguments);
    }

    /// Starts one node more, with these flags beside those of the setup: it joins by asking `host`. Returns its number.
    pub fn grow(&mut self, host: usize, flags: &[&str]) -> usize {
        let node = self.len();
        let home = self.home.as_ref().expect("it is there as long as the cluster").path();
        let listen = self.listen.get(node).expect("no more nodes than addresses");
        let member = Member::new(node, listen, home);
        self.members.push(member);
        self.first_start_with(node, Some(host), flags);
        node
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
            self.process(node).signal(Signal::STOP).expect("it runs");
        }
        for node in 0..self.len() {
            self.process(node).is_frozen().await.expect("it stops");
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
        process.signal(signal).expect("it runs");
        let status = process.end(LIMIT).await.unwrap_or_else(|error| panic!("{error}:\n{}", process.log_tail()));
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
}

impl Member {
    fn new(node: usize, address: &str, home: &Path) -> Self {
        let (name, address) = (name_of(node), address.to_owned());
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
