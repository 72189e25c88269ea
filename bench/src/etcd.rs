//! A few etcd processes, and how they are spoken to: etcd's own gRPC interface through a generated client, over as many
//! connections as Calamus gets.
//!
//! etcd runs with its defaults (each commit is synced on a quorum before it is answered, reads are linearizable) but for two
//! things that only help it: the space limit of 2 GiB is raised, so that a long run is not refused, and it logs errors only.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};

use crate::calamus::{LEADER_CONNECTIONS, NODE_CONNECTIONS, connect};
use crate::process::{Process, free_ports};
use crate::workload::Target;

/// The messages and clients of the part of etcd's interface that is used.
#[allow(clippy::all, missing_docs, rust_2018_idioms, unused)]
mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

use etcdserverpb::cluster_client::ClusterClient;
use etcdserverpb::kv_client::KvClient;
use etcdserverpb::maintenance_client::MaintenanceClient;
use etcdserverpb::{MemberAddRequest, MemberRemoveRequest, PutRequest, RangeRequest, StatusRequest, StatusResponse};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const QUOTA_BYTES: u64 = 16 << 30;
/// Larger than any answer here.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The running cluster.
pub struct Etcd {
    pub processes: Vec<Process>,
    /// NAME=URL of each, as they are told of each other.
    members: Vec<String>,
    snapshot_count: Option<u64>,
    connections: RwLock<Arc<Connections>>,
}

/// A member that was added.
pub struct Added {
    pub process: Process,
    id: u64,
    channel: Channel,
}

struct Connections {
    leader: Vec<Channel>,
    all: Vec<Channel>,
}

impl Etcd {
    /// Starts so many members and waits for a leader. They take a snapshot after so many entries, by default as many as etcd
    /// takes by itself.
    pub async fn start(dir: &Path, count: usize, snapshot_count: Option<u64>) -> anyhow::Result<Etcd> {
        let ports = free_ports(2 * count)?;
        let (client, peer) = (|n: usize| local(ports[n]), |n: usize| local(ports[count + n]));
        let members: Vec<String> = (0..count).map(|n| format!("e{}=http://{}", n + 1, peer(n))).collect();
        let connections = RwLock::new(Arc::new(Connections { leader: Vec::new(), all: Vec::new() }));
        let mut etcd = Etcd { processes: Vec::new(), members, snapshot_count, connections };
        for n in 0..count {
            let name = format!("e{}", n + 1);
            let started = etcd.member(&name, &dir.join(&name), &client(n), &peer(n), &etcd.members, "new");
            etcd.processes.push(started.context("is etcd installed? (Debian: apt install etcd-server)")?);
        }
        let begun = Instant::now();
        loop {
            etcd.processes.iter_mut().try_for_each(Process::check)?;
            match etcd.refresh().await {
                Ok(()) => return Ok(etcd),
                Err(error) if begun.elapsed() > START_TIMEOUT => {
                    bail!("etcd is not ready: {error:#}\n{}", etcd.processes[0].log_end())
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn member(
        &self,
        name: &str,
        data: &Path,
        client: &str,
        peer: &str,
        members: &[String],
        state: &str,
    ) -> anyhow::Result<Process> {
        let (peers, clients) = (format!("http://{peer}"), format!("http://{client}"));
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", state]);
        command.args(["--quota-backend-bytes", &QUOTA_BYTES.to_string(), "--logger", "zap", "--log-level", "error"]);
        if let Some(count) = self.snapshot_count {
            command.args(["--snapshot-count", &count.to_string()]);
        }
        command.arg("--data-dir").arg(data);
        Process::start(name, data, client, command)
    }

    /// Asks for a new member and starts it. Returns when it was asked for.
    pub async fn add(&self, data: &Path) -> anyhow::Result<(Added, Instant)> {
        let name = format!("e{}", self.members.len() + 1);
        let ports = free_ports(2)?;
        let (client, peer) = (local(ports[0]), local(ports[1]));
        let request = MemberAddRequest { peer_urls: vec![format!("http://{peer}")] };
        let (added, began) = self.change(async |mut cluster| cluster.member_add(request.clone()).await).await?;
        let id = added.member.context("a member was added")?.id;
        let members = [self.members.as_slice(), &[format!("{name}=http://{peer}")]].concat();
        let process = self.member(&name, data, &client, &peer, &members, "existing")?;
        let endpoint = Endpoint::from_shared(format!("http://{client}"))?.tcp_nodelay(true);
        let channel = endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy();
        Ok((Added { process, id, channel }, began))
    }

    /// Removes a member that was added, and ends it.
    pub async fn take_out(&self, added: Added) -> anyhow::Result<()> {
        self.change(async |mut cluster| cluster.member_remove(MemberRemoveRequest { id: added.id }).await).await?;
        Ok(())
    }

    /// Changes who is a member. A cluster refuses that until all its members have been connected for some seconds, so it is asked
    /// again. Returns the answer, and when that was asked for.
    async fn change<T>(
        &self,
        ask: impl AsyncFn(ClusterClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> anyhow::Result<(T, Instant)> {
        let cluster = ClusterClient::new(self.connections().leader[0].clone());
        let trying = Instant::now();
        loop {
            let began = Instant::now();
            match ask(cluster.clone()).await {
                Ok(answer) => return Ok((answer.into_inner(), began)),
                Err(status) if trying.elapsed() > START_TIMEOUT => return Err(status.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The index of the last entry that the leader has applied.
    pub async fn leader_applied(&self) -> anyhow::Result<u64> {
        Ok(status(&self.connections().leader[0]).await?.raft_applied_index)
    }

    /// The term that the leader is in.
    pub async fn leader_term(&self) -> anyhow::Result<u64> {
        Ok(status(&self.connections().leader[0]).await?.raft_term)
    }

    /// Finds the leader and connects.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        let (mut all, mut leader) = (Vec::new(), None);
        for process in &self.processes {
            let channels = connect(&process.address, NODE_CONNECTIONS).await?;
            let status = status(&channels[0]).await?;
            if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
                leader = Some(process.address.clone());
            }
            all.extend(channels);
        }
        let leader = connect(&leader.context("no member leads")?, LEADER_CONNECTIONS).await?;
        *self.connections.write().expect("no panic while held") = Arc::new(Connections { leader, all });
        Ok(())
    }

    fn connections(&self) -> Arc<Connections> {
        self.connections.read().expect("no panic while held").clone()
    }
}

impl Added {
    /// The index of the last entry that it has applied.
    pub async fn applied(&self) -> anyhow::Result<u64> {
        Ok(status(&self.channel).await?.raft_applied_index)
    }

    /// The length of the value that it has itself, whatever others have.
    pub async fn get_local(&self, key: Bytes) -> anyhow::Result<Option<usize>> {
        get(self.channel.clone(), RangeRequest { key, serializable: true }).await
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn status(channel: &Channel) -> anyhow::Result<StatusResponse> {
    Ok(MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await?.into_inner())
}

async fn get(channel: Channel, request: RangeRequest) -> anyhow::Result<Option<usize>> {
    let mut kv = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = kv.range(request).await?.into_inner();
    Ok(answer.kvs.first().map(|found| found.value.len()))
}

impl Target for Etcd {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let connections = self.connections();
        let channel = connections.leader[client % connections.leader.len()].clone();
        KvClient::new(channel).put(PutRequest { key, value }).await?;
        Ok(())
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<Option<usize>> {
        let connections = self.connections();
        let channel = connections.all[client % connections.all.len()].clone();
        get(channel, RangeRequest { key, serializable: false }).await
    }
}

/// The write-ahead log, and the snapshots and the store.
pub fn file_kind(path: &Path) -> String {
    match path.components().nth(1) {
        Some(part) => part.as_os_str().to_string_lossy().into_owned(),
        None => path.to_string_lossy().into_owned(),
    }
}
