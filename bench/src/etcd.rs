//! Three etcd processes, and how they are spoken to: etcd's own gRPC interface through a generated client, over as many
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
use tonic::transport::Channel;

use crate::calamus::{LEADER_CONNECTIONS, NODE_CONNECTIONS, connect};
use crate::process::{Process, free_ports};
use crate::workload::Target;

/// The messages and clients of the part of etcd's interface that is used.
#[allow(clippy::all, missing_docs, rust_2018_idioms, unused)]
mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

use etcdserverpb::kv_client::KvClient;
use etcdserverpb::maintenance_client::MaintenanceClient;
use etcdserverpb::{PutRequest, RangeRequest, StatusRequest};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const QUOTA_BYTES: u64 = 16 << 30;
/// Larger than any answer here.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The running cluster.
pub struct Etcd {
    pub processes: Vec<Process>,
    connections: RwLock<Arc<Connections>>,
}

struct Connections {
    leader: Vec<Channel>,
    all: Vec<Channel>,
}

impl Etcd {
    /// Starts three members and waits for a leader.
    pub async fn start(dir: &Path) -> anyhow::Result<Etcd> {
        let ports = free_ports(6)?;
        let (client, peer) =
            (|n: usize| format!("127.0.0.1:{}", ports[n]), |n: usize| format!("127.0.0.1:{}", ports[3 + n]));
        let members: Vec<String> = (0..3).map(|n| format!("e{}=http://{}", n + 1, peer(n))).collect();
        let mut processes = Vec::new();
        for n in 0..3 {
            let name = format!("e{}", n + 1);
            let (peers, clients, data) =
                (format!("http://{}", peer(n)), format!("http://{}", client(n)), dir.join(&name));
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
            command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
            command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            command.args([
                "--quota-backend-bytes",
                &QUOTA_BYTES.to_string(),
                "--logger",
                "zap",
                "--log-level",
                "error",
            ]);
            command.arg("--data-dir").arg(&data);
            let started = Process::start(&name, &data, &client(n), command);
            processes.push(started.context("is etcd installed? (Debian: apt install etcd-server)")?);
        }
        let connections = RwLock::new(Arc::new(Connections { leader: Vec::new(), all: Vec::new() }));
        let mut etcd = Etcd { processes, connections };
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

    /// Finds the leader and connects.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        let (mut all, mut leader) = (Vec::new(), None);
        for process in &self.processes {
            let channels = connect(&process.address, NODE_CONNECTIONS).await?;
            let status = MaintenanceClient::new(channels[0].clone()).status(StatusRequest {}).await?.into_inner();
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
        let mut kv = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = kv.range(RangeRequest { key }).await?.into_inner();
        Ok(answer.kvs.first().map(|found| found.value.len()))
    }
}

/// The write-ahead log, and the snapshots and the store.
pub fn file_kind(path: &Path) -> String {
    match path.components().nth(1) {
        Some(part) => part.as_os_str().to_string_lossy().into_owned(),
        None => path.to_string_lossy().into_owned(),
    }
}
