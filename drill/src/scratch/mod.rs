//! A scratch cluster: nodes of real processes on loopback, in a directory of its own, that a drill starts and breaks.
//!
//! ```text
//! node     one node: its place, its process, what it says of itself
//! door     what goes wrong on a node's disk, while it runs
//! close    the end: all nodes hold the same, end in order, and their files are compared
//! compare  data files, byte for byte
//! ```
//!
//! Nodes stand on disks that undo what was not synced when their process is killed: `kill -9` alone would prove nothing
//! about syncs, because the kernel keeps what a killed process wrote. Dropping a cluster kills its nodes.

mod close;
pub mod compare;
mod door;
mod node;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use calamus_client::{Client, Options};
use calamus_proto::v1::{NodeStatus, Role};
use rustix::process::Signal;
use tempfile::TempDir;

pub use door::DiskTrouble;
pub use node::Node;

use crate::process::tail;
use crate::proxy::{AtHeal, ProxyMesh};
use crate::trouble::Trouble;

/// Between two questions to a cluster.
const PAUSE: Duration = Duration::from_millis(10);
/// Nothing that a healthy cluster does takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// How far behind a node may be and count as caught up, in entries: writes go on.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// How a scratch cluster is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program whose nodes are drilled.
    pub program: PathBuf,
    /// How it is told to run a node, before the flags of `serve`.
    pub command: Vec<String>,
    /// More flags of `serve`, for every node.
    pub flags: Vec<String>,
    /// More variables of the environment of every node.
    pub environment: Vec<(String, String)>,
    /// How many nodes.
    pub nodes: usize,
    /// Every message between two nodes goes by way of a proxy.
    pub proxied: bool,
    /// Where the cluster's directory is made; the system's temporary directory if it is not said.
    pub within: Option<PathBuf>,
}

impl Plan {
    /// Of three nodes that reach each other directly.
    pub fn new(program: impl Into<PathBuf>, command: &[&str]) -> Plan {
        Plan {
            program: program.into(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            flags: Vec::new(),
            // A disk that forgets has to write all of the reserve.
            environment: vec![("CALAMUS_RESERVE_MIB".to_owned(), "8".to_owned())],
            nodes: 3,
            proxied: false,
            within: None,
        }
    }
}

/// A running cluster. Nodes are numbered from 0; node k is called n(k+1).
pub struct Scratch {
    plan: Plan,
    home: Option<TempDir>,
    nodes: Vec<Node>,
    links: Option<ProxyMesh>,
}

impl Scratch {
    /// Starts all nodes and waits until all vote and are ready.
    ///
    /// # Errors
    /// When a node does not start, or the cluster does not form.
    pub async fn start(plan: Plan) -> Result<Scratch, Trouble> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("calamus-drill-");
        let home = match &plan.within {
            Some(within) => builder.tempdir_in(within),
            None => builder.tempdir(),
        };
        let home = home.map_err(|error| Trouble::during("cannot make a directory for the scratch cluster", error))?;
        let mut nodes = Vec::new();
        for number in 1..=plan.nodes {
            nodes.push(Node::plan(number, home.path())?);
        }
        let places: Vec<(&str, &str)> = nodes.iter().map(|node: &Node| (node.name(), node.address())).collect();
        // What was on its way when a cut began arrives when it ends, however late: that is the harder case.
        let links = if plan.proxied { Some(ProxyMesh::start(&places, AtHeal::Deliver).await?) } else { None };
        let mut scratch = Scratch { plan, home: Some(home), nodes, links };
        scratch.first_start(0, None)?;
        scratch.until("the first node is ready", async |s| Ok(s.nodes[0].is_serving().await)).await?;
        for node in 1..scratch.nodes.len() {
            scratch.first_start(node, Some(0))?;
        }
        scratch.redundant().await?;
        Ok(scratch)
    }

    /// The nodes, running or not.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        self.nodes[node].name()
    }

    /// HOST:PORT of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address().to_owned()).collect()
    }

    /// All nodes but this one.
    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != node).collect()
    }

    /// The proxies between the nodes.
    ///
    /// # Panics
    /// When the cluster was planned without.
    pub fn links(&self) -> &ProxyMesh {
        self.links.as_ref().expect("the plan says that nodes reach each other by proxies")
    }

    /// Lets all nodes reach each other again, where there are proxies.
    ///
    /// # Errors
    /// When a proxy cannot listen again.
    pub async fn heal(&self) -> Result<(), Trouble> {
        match &self.links {
            Some(links) => Ok(links.heal().await?),
            None => Ok(()),
        }
    }

    /// A client that knows all addresses.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn client(&self, options: Options) -> Result<Client, Trouble> {
        let connected = Client::connect(self.addresses(), options).await;
        connected.map_err(|error| Trouble::during("cannot connect to the scratch cluster", error))
    }

    // ---- starting and ending nodes ----

    fn spawn(&mut self, node: usize, arguments: Vec<String>) -> Result<(), Trouble> {
        let mut reach = Vec::new();
        if let Some(links) = &self.links {
            for other in self.others(node) {
                let address = links.address(self.name(node), self.name(other));
                reach.extend(["--reach".to_owned(), format!("{}={address}", self.name(other))]);
            }
        }
        let mut all = self.plan.command.clone();
        all.extend(arguments);
        all.extend(self.plan.flags.iter().cloned());
        all.extend(reach);
        self.nodes[node].spawn(&self.plan.program, all, &self.plan.environment)
    }

    fn first_start(&mut self, node: usize, join: Option<usize>) -> Result<(), Trouble> {
        self.first_start_as(node, join, &[])
    }

    fn first_start_as(&mut self, node: usize, join: Option<usize>, role: &[&str]) -> Result<(), Trouble> {
        let (name, address) = (self.name(node).to_owned(), self.nodes[node].address().to_owned());
        let mut arguments = ["--name", &name, "--listen", &address].map(str::to_owned).to_vec();
        match join {
            None => arguments.push("--bootstrap".to_owned()),
            Some(host) => arguments.extend(["--join".to_owned(), self.nodes[host].address().to_owned()]),
        }
        arguments.extend(role.iter().map(|&word| word.to_owned()));
        self.spawn(node, arguments)
    }

    /// Starts one node more; it joins by asking `host`. Returns its number.
    ///
    /// # Errors
    /// When it does not start.
    pub fn grow(&mut self, host: usize) -> Result<usize, Trouble> {
        self.grow_as(host, &[])
    }

    /// The same with a node that does not vote before somebody says so.
    ///
    /// # Errors
    /// When it does not start.
    pub fn grow_learner(&mut self, host: usize) -> Result<usize, Trouble> {
        self.grow_as(host, &["--as", "learner"])
    }

    fn grow_as(&mut self, host: usize, role: &[&str]) -> Result<usize, Trouble> {
        let node = self.nodes.len();
        let home = self.home.as_ref().expect("it is there as long as the cluster").path();
        self.nodes.push(Node::plan(node + 1, home)?);
        self.first_start_as(node, Some(host), role)?;
        Ok(node)
    }

    /// Starts a node again on its directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, node: usize) -> Result<(), Trouble> {
        self.spawn(node, Vec::new())
    }

    /// Starts a node whose directory was removed, under its old name; it joins by asking `host`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn rejoin(&mut self, node: usize, host: usize) -> Result<(), Trouble> {
        self.first_start(node, Some(host))
    }

    /// As if its power failed.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// All that run at once: they are stopped within microseconds of each other, and none goes on. One after the other
    /// would give the last ones time to sync what they have acknowledged.
    ///
    /// # Errors
    /// When one does not stop.
    pub async fn kill_all(&mut self) -> Result<(), Trouble> {
        for node in &self.nodes {
            node.signal(Signal::STOP)?;
        }
        for node in &self.nodes {
            if let Some(process) = node.process() {
                process.is_frozen().await?;
            }
        }
        self.nodes.iter_mut().for_each(Node::kill);
        Ok(())
    }

    /// Kills a node and removes its directory.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn wipe(&mut self, node: usize) -> Result<(), Trouble> {
        self.nodes[node].kill();
        std::fs::remove_dir_all(self.nodes[node].directory())
            .map_err(|error| Trouble::during(format!("cannot remove the directory of {}", self.name(node)), error))
    }

    /// Ends a node in an orderly way, by this signal.
    ///
    /// # Errors
    /// When it does not end with code 0.
    pub async fn terminate(&mut self, node: usize, signal: Signal) -> Result<(), Trouble> {
        self.nodes[node].terminate(signal, LIMIT).await
    }

    /// Takes a node that was removed from the cluster, and does not run, out of what is compared at the end.
    pub fn forget(&mut self, node: usize) -> Result<(), Trouble> {
        self.wipe(node)?;
        self.nodes[node].retire();
        Ok(())
    }

    // ---- waiting ----

    /// Asks until the answer is yes.
    async fn until(
        &mut self,
        what: &str,
        mut ask: impl AsyncFnMut(&mut Scratch) -> Result<bool, Trouble>,
    ) -> Result<Duration, Trouble> {
        let began = Instant::now();
        loop {
            self.check_running()?;
            if ask(self).await? {
                return Ok(began.elapsed());
            }
            if began.elapsed() >= LIMIT {
                return Err(Trouble::new(format!("waited {} s in vain: {what}", LIMIT.as_secs())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A node that ended by itself is a finding.
    ///
    /// # Errors
    /// When one has, with the end of its log.
    pub fn check_running(&mut self) -> Result<(), Trouble> {
        for node in &mut self.nodes {
            if let Some(status) = node.has_ended() {
                let log = tail(node.log());
                return Err(Trouble::new(format!("{} ended by itself: {status}; its log ends:\n{log}", node.name())));
            }
        }
        Ok(())
    }

    /// What each node says of itself; `None` for one that does not answer.
    pub async fn statuses(&self) -> Vec<Option<NodeStatus>> {
        futures::future::join_all(self.nodes.iter().map(Node::status)).await
    }

    /// Who leads: of those that say so, the one of the highest term.
    pub async fn leader_now(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        let leads = statuses.iter().enumerate().filter_map(|(node, status)| {
            let status = status.as_ref()?;
            (status.role == i32::from(Role::Leader)).then_some((status.term, node))
        });
        leads.max().map(|(_, node)| node)
    }

    /// Waits until somebody leads.
    ///
    /// # Errors
    /// When nobody does for long.
    pub async fn leader(&mut self) -> Result<usize, Trouble> {
        let mut found = None;
        self.until("a node leads", async |s| {
            found = s.leader_now().await;
            Ok(found.is_some())
        })
        .await?;
        Ok(found.expect("waited for"))
    }

    /// Waits until a node that was started knows that it is a member, whether it votes or not. Returns what it says then.
    ///
    /// # Errors
    /// When that is not so for long.
    pub async fn admitted(&mut self, node: usize) -> Result<NodeStatus, Trouble> {
        let what = format!("{} is a member", self.name(node));
        let mut found = None;
        self.until(&what, async |s| {
            let inside = |status: &NodeStatus| !matches!(status.role(), Role::Outside | Role::Unspecified);
            found = s.nodes[node].status().await.filter(inside);
            Ok(found.is_some())
        })
        .await?;
        Ok(found.expect("waited for"))
    }

    /// Waits until a node that was started is a voter and serves.
    ///
    /// # Errors
    /// When that is not so for long.
    pub async fn joined(&mut self, node: usize) -> Result<(), Trouble> {
        let what = format!("{} votes and serves", self.name(node));
        let joined = async |s: &mut Scratch| {
            let status = s.nodes[node].status().await;
            Ok(status.is_some_and(|status| status.voter) && s.nodes[node].is_serving().await)
        };
        self.until(&what, joined).await.map(drop)
    }

    /// Waits until every node runs, votes, serves, and has applied nearly all that there is. Returns how long it took.
    ///
    /// # Errors
    /// When that is not so for long.
    pub async fn redundant(&mut self) -> Result<Duration, Trouble> {
        self.until("every node votes, serves and has caught up", async |s| Ok(s.is_redundant().await)).await
    }

    async fn is_redundant(&self) -> bool {
        let statuses = self.statuses().await;
        let mut applied = Vec::new();
        for (node, status) in self.nodes.iter().zip(&statuses) {
            if node.is_retired() {
                continue;
            }
            match status {
                Some(status) if status.voter && !status.leader.is_empty() && status.damaged == 0 => {
                    applied.push(status.applied.map_or(0, |position| position.index));
                }
                _ => return false,
            }
            if !node.is_serving().await {
                return false;
            }
        }
        let newest = applied.iter().max().copied().unwrap_or(0);
        applied.iter().all(|applied| applied + CAUGHT_UP_ENTRIES >= newest)
    }

    /// The end of each node's log, for who looks into a failure.
    pub fn log_tails(&self) -> Vec<(String, String)> {
        self.nodes.iter().map(|node| (node.name().to_owned(), tail(node.log()))).collect()
    }

    /// Kills the nodes and keeps the directory. Returns where it is.
    pub fn keep(mut self) -> PathBuf {
        self.nodes.iter_mut().for_each(Node::kill);
        self.home.take().map(TempDir::keep).unwrap_or_default()
    }

    /// Where the nodes' directories are.
    pub fn home(&self) -> &Path {
        self.home.as_ref().expect("it is there as long as the cluster").path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Before the directory goes.
        self.nodes.iter_mut().for_each(Node::kill);
    }
}
