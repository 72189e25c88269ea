//! A few `calamus serve` processes, and how they are spoken to: the plain generated client over a few connections, as for the
//! rival; so no retry hides an error.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use calamus_client::{Client, Options, Txn};
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{Consistency, GetRequest, NodeStatus, Operation, Put, Role, TxnRequest};
use tonic::transport::{Channel, Endpoint};

use crate::process::{Process, free_ports};
use crate::workload::Target;

/// Connections to the leader that puts share.
pub const LEADER_CONNECTIONS: usize = 4;
/// Connections to each node that gets share.
pub const NODE_CONNECTIONS: usize = 2;

/// What is written to.
pub const TREE: &str = "bench";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The running cluster.
pub struct Calamus {
    pub processes: Vec<Process>,
    binary: PathBuf,
    client: Client,
    connections: RwLock<Arc<Connections>>,
}

struct Connections {
    leader: Vec<Channel>,
    all: Vec<Channel>,
}

impl Calamus {
    /// Starts so many nodes and waits until all have a vote.
    pub async fn start(binary: &Path, dir: &Path, nodes: usize) -> anyhow::Result<Calamus> {
        let ports = free_ports(nodes)?;
        let address = |node: usize| format!("127.0.0.1:{}", ports[node]);
        let mut processes = Vec::new();
        for node in 0..nodes {
            let name = format!("n{}", node + 1);
            let node_dir = dir.join(&name);
            let mut command = serve(binary, &node_dir);
            command.args(["--name", &name, "--listen", &address(node)]);
            match node {
                0 => command.arg("--bootstrap"),
                _ => command.args(["--join", &address(0)]),
            };
            processes.push(Process::start(&name, &node_dir, &address(node), command)?);
            if node == 0 {
                wait_for(&mut processes, &address(0), 1).await?;
            }
        }
        let statuses = wait_for(&mut processes, &address(0), nodes).await?;
        ensure!(statuses.iter().any(|status| status.role() == Role::Leader), "no node leads");
        let client = Client::connect((0..nodes).map(address), Options::default()).await?;
        let connections = RwLock::new(Arc::new(Connections { leader: Vec::new(), all: Vec::new() }));
        let calamus = Calamus { processes, binary: binary.to_owned(), client, connections };
        calamus.refresh().await?;
        Ok(calamus)
    }

    /// Starts an ended node again on its directory; it begins a checkpoint when this much journal lies above the last one.
    pub fn start_again(&mut self, name: &str, dir: &Path, address: &str, checkpoint_mib: u64) -> anyhow::Result<()> {
        let mut command = serve(&self.binary, dir);
        // Page versions in memory start checkpoints too.
        let mib = checkpoint_mib.to_string();
        command.args(["--checkpoint-mib", &mib, "--versions-mib", &mib]);
        self.processes.push(Process::start(name, dir, address, command)?);
        Ok(())
    }

    /// Takes a node out of those that run.
    pub fn take(&mut self, name: &str) -> anyhow::Result<Process> {
        let at = self.processes.iter().position(|process| process.name == name).context("no node of that name")?;
        Ok(self.processes.remove(at))
    }

    /// Finds the leader and connects.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        let statuses = self.client.cluster().status(true).await?.members;
        let leader = statuses.iter().find(|status| status.role() == Role::Leader).context("no node leads")?;
        let leader = connect(&leader.address, LEADER_CONNECTIONS).await?;
        let mut all = Vec::new();
        for status in &statuses {
            all.extend(connect(&status.address, NODE_CONNECTIONS).await?);
        }
        *self.connections.write().expect("no panic while held") = Arc::new(Connections { leader, all });
        Ok(())
    }

    /// Each node's own view.
    pub async fn statuses(&self) -> anyhow::Result<Vec<NodeStatus>> {
        Ok(self.client.cluster().status(true).await?.members)
    }

    /// What the node that leads says of itself.
    pub async fn leader(&self) -> anyhow::Result<NodeStatus> {
        let statuses = self.statuses().await?;
        statuses.into_iter().find(|status| status.role() == Role::Leader).context("no node leads")
    }

    /// The length of the value that a node has itself, whatever others have; `None` if the key is not there.
    pub async fn get_local(&self, address: &str, key: Bytes) -> anyhow::Result<Option<usize>> {
        let channel = connect(address, 1).await?.remove(0);
        let request = GetRequest { consistency: Consistency::Local.into(), ..get_request(key) };
        Ok(kv(channel).get(request).await?.into_inner().entry.map(|entry| entry.value.len()))
    }

    /// Puts a value and comes back when it is committed, whatever happens to leaders meanwhile. Not for measurements.
    pub async fn store(&self, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let txn = Txn::new().put(TREE, key, value).idempotent().deadline(START_TIMEOUT);
        self.client.txn(txn).await?;
        Ok(())
    }

    /// The connection to the leader that a client uses.
    pub fn leader_channel(&self, client: usize) -> Channel {
        let connections = self.connections();
        connections.leader[client % connections.leader.len()].clone()
    }

    fn connections(&self) -> Arc<Connections> {
        self.connections.read().expect("no panic while held").clone()
    }
}

fn serve(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("serve").arg("--dir").arg(dir);
    command
}

/// Waits until so many nodes have a vote and see the same leader.
async fn wait_for(processes: &mut [Process], address: &str, voters: usize) -> anyhow::Result<Vec<NodeStatus>> {
    let begun = Instant::now();
    let mut last = "no answer yet".to_owned();
    while begun.elapsed() < START_TIMEOUT {
        processes.iter_mut().try_for_each(Process::check)?;
        let options = Options { deadline: Duration::from_secs(1), ..Options::default() };
        match Client::connect([address], options).await {
            Ok(client) => match client.cluster().status(true).await {
                Ok(status) => {
                    let members = status.members;
                    let ready = members.iter().filter(|member| member.voter && !member.leader.is_empty()).count();
                    if ready == voters && members.len() == voters {
                        return Ok(members);
                    }
                    last = format!("{ready} of {voters} nodes have a vote and a leader");
                }
                Err(error) => last = error.to_string(),
            },
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let logs: Vec<String> =
        processes.iter().map(|process| format!("{}:\n{}", process.name, process.log_end())).collect();
    bail!("{last} after {START_TIMEOUT:?}\n{}", logs.join("\n"))
}

/// Connections with the flow-control windows that the client crate uses as well; the rival's get the same.
pub async fn connect(address: &str, count: usize) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..count {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        channels.push(endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))?);
    }
    Ok(channels)
}

/// The generated client, with the limits that a value of 8 MiB needs.
pub fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A transaction of one put.
pub fn put_request(key: Bytes, value: Bytes) -> TxnRequest {
    let put = Put { tree: TREE.to_owned(), key, value, tree_must_exist: false };
    TxnRequest { operations: vec![Operation { kind: Some(Kind::Put(put)) }], ..TxnRequest::default() }
}

/// A linearizable get of one key.
pub fn get_request(key: Bytes) -> GetRequest {
    GetRequest { tree: TREE.to_owned(), key, ..GetRequest::default() }
}

impl Target for Calamus {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        kv(self.leader_channel(client)).txn(put_request(key, value)).await?;
        Ok(())
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<Option<usize>> {
        let connections = self.connections();
        let channel = connections.all[client % connections.all.len()].clone();
        let answer = kv(channel).get(get_request(key)).await?.into_inner();
        Ok(answer.entry.map(|entry| entry.value.len()))
    }
}

/// `gN/data` and the segments of `gN/journal` are what is written; the rest is small.
pub fn file_kind(path: &Path) -> String {
    let text = path.to_string_lossy();
    for kind in ["journal", "data"] {
        if path.components().any(|part| part.as_os_str() == kind) {
            return kind.to_owned();
        }
    }
    text.split('/').next().unwrap_or_default().to_owned()
}

/// The binary to measure: the one that was named, or the one of this source, built now so that no old one is measured.
pub fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "{} is no file", path.display());
        return Ok(path.to_owned());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in a workspace")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).current_dir(root).args(["build", "--release", "-p", "calamus-server"]).status()?;
    ensure!(built.success(), "the calamus binary could not be built; --binary names another one");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let beside = std::env::current_exe()?.with_file_name("calamus");
    let found = [target.join("release/calamus"), beside].into_iter().find(|path| path.is_file());
    found.context("the calamus binary is not where cargo puts it; name it with --binary")
}
