//! A `calamus serve` process of a small cluster, and what it says of itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use calamus_client::{Client, Options};
use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{NodeStatus, Role, StatusRequest};
use tonic::transport::{Channel, Endpoint};

use crate::process::{Process, free_ports};

/// Nothing here takes longer, on a slow disk either.
pub const LIMIT: Duration = Duration::from_secs(600);
/// Between two questions of how far a node is: what is measured takes seconds.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether a process listens yet.
const SOON: Duration = Duration::from_millis(2);

/// A running node.
pub struct Node {
    pub process: Process,
    channel: Channel,
}

/// An address that is free now.
pub fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_ports(1)?[0]))
}

impl Node {
    /// Starts a node in a directory, with more flags of `serve`.
    pub fn start(binary: &Path, dir: &Path, name: &str, address: &str, flags: &[&str]) -> Result<Node> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--dir").arg(dir).args(["--name", name, "--listen", address]).args(flags);
        let process = Process::start(name, dir, address, command)?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        let channel = endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy();
        Ok(Node { process, channel })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.process.address
    }

    /// What it says of itself.
    pub async fn status(&self) -> Result<NodeStatus> {
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = client.status(StatusRequest { all_nodes: false }).await?.into_inner();
        answer.node.context("a node says nothing of itself")
    }

    /// Waits until it leads.
    pub async fn leads(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.process.check()?;
            if self.status().await.is_ok_and(|status| status.role() == Role::Leader) {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "{} does not lead:\n{}", self.process.name, self.process.log_end());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until somebody can connect to it.
    pub async fn listens(&mut self) -> Result<()> {
        let began = Instant::now();
        while tokio::net::TcpStream::connect(self.address()).await.is_err() {
            self.process.check()?;
            ensure!(began.elapsed() < LIMIT, "{} does not listen:\n{}", self.process.name, self.process.log_end());
            tokio::time::sleep(SOON).await;
        }
        Ok(())
    }

    /// Waits until it has applied all that `leader` had applied when it was asked right before.
    pub async fn catches_up(&mut self, leader: impl AsyncFn() -> Result<NodeStatus>) -> Result<NodeStatus> {
        let began = Instant::now();
        loop {
            self.process.check()?;
            let wanted = leader().await?;
            let wanted = wanted.applied.context("the leader has applied something")?.index;
            // It may not answer yet.
            let last = match self.status().await {
                Ok(status) if status.applied.as_ref().is_some_and(|applied| applied.index >= wanted) => {
                    return Ok(status);
                }
                Ok(status) => format!("{} with {:?} of {wanted}", status.state, status.applied),
                Err(error) => format!("{error:#}"),
            };
            if began.elapsed() > LIMIT {
                bail!("{} has not caught up: {last}\n{}", self.process.name, self.process.log_end());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Takes a node out of its cluster and ends it. That may have to wait for the end of its becoming a voter.
pub async fn take_out(node: Node, leader: &str) -> Result<()> {
    let client = Client::connect([leader], Options::default()).await?;
    let began = Instant::now();
    let name = node.process.name.clone();
    while let Err(error) = client.cluster().remove(&name, "").await {
        // An outcome that was unknown may have been that it is gone.
        let members = client.cluster().status(true).await?.members;
        if members.iter().all(|member| member.name != name) {
            break;
        }
        ensure!(began.elapsed() < LIMIT, "{name} cannot be taken out: {}", error.failure());
        tokio::time::sleep(LOOK).await;
    }
    let directory = node.process.dir.clone();
    drop(node);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
