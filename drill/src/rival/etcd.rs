//! Three members of etcd as processes on loopback, with its defaults: heartbeats of 100 ms, elections after 1 to 2 s.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::wire::{self, StatusResponse};
use crate::ports::free_address;
use crate::process::{Process, tail};
use crate::trouble::Trouble;

const MEMBERS: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_millis(800);
const PAUSE: Duration = Duration::from_millis(10);
/// How far behind a member may be and count as caught up, in entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

struct Member {
    name: String,
    arguments: Vec<String>,
    channel: Channel,
    log: PathBuf,
    process: Option<Process>,
}

/// A running cluster.
pub(super) struct Etcd {
    members: Vec<Member>,
    /// Dropped after the processes.
    _home: TempDir,
}

impl Etcd {
    /// Starts all members and waits until all have caught up.
    pub(super) async fn start(within: Option<&Path>) -> Result<Etcd, Trouble> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("calamus-drill-etcd-");
        let home = within.map_or_else(|| builder.tempdir(), |within| builder.tempdir_in(within))?;
        let mut places = Vec::new();
        for number in 1..=MEMBERS {
            places.push((format!("e{number}"), free_address()?, free_address()?));
        }
        let cluster: Vec<String> = places.iter().map(|(name, _, peer)| format!("{name}=http://{peer}")).collect();
        let members = places.iter().map(|(name, client, peer)| {
            let data = home.path().join(name).display().to_string();
            let (client_url, peer_url, cluster) =
                (format!("http://{client}"), format!("http://{peer}"), cluster.join(","));
            let arguments = [
                ("--name", name.as_str()),
                ("--data-dir", &data),
                ("--listen-peer-urls", &peer_url),
                ("--initial-advertise-peer-urls", &peer_url),
                ("--listen-client-urls", &client_url),
                ("--advertise-client-urls", &client_url),
                ("--initial-cluster", &cluster),
                ("--initial-cluster-state", "new"),
                ("--logger", "zap"),
                ("--log-level", "error"),
            ];
            let endpoint = Endpoint::from_shared(client_url.clone()).expect("an address");
            Member {
                name: name.clone(),
                arguments: arguments.into_iter().flat_map(|(flag, value)| [flag, value].map(str::to_owned)).collect(),
                channel: endpoint.connect_timeout(ASK).tcp_nodelay(true).connect_lazy(),
                log: home.path().join(format!("{name}.log")),
                process: None,
            }
        });
        let mut etcd = Etcd { members: members.collect(), _home: home };
        for member in 0..MEMBERS {
            etcd.restart(member)?;
        }
        etcd.redundant().await?;
        Ok(etcd)
    }

    pub(super) fn name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    /// A connection to each member.
    pub(super) fn channels(&self) -> Vec<Channel> {
        self.members.iter().map(|member| member.channel.clone()).collect()
    }

    pub(super) fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill();
        }
    }

    pub(super) fn restart(&mut self, member: usize) -> Result<(), Trouble> {
        let member = &mut self.members[member];
        let process = Process::start(Path::new("etcd"), &member.arguments, &[], &member.log).map_err(|error| {
            Trouble::during("cannot start etcd; is it installed? (Debian: apt install etcd-server)", error)
        })?;
        member.process = Some(process);
        Ok(())
    }

    async fn statuses(&self) -> Vec<Option<StatusResponse>> {
        let asked = self.members.iter().map(|member| async {
            member.process.as_ref()?;
            tokio::time::timeout(ASK, wire::status(member.channel.clone())).await.ok()?.ok()
        });
        futures::future::join_all(asked).await
    }

    /// Which member leads.
    pub(super) async fn leader(&mut self) -> Result<usize, Trouble> {
        let mut found = None;
        self.until("a member leads", |statuses| {
            let leads = |status: &Option<StatusResponse>| {
                status
                    .as_ref()
                    .is_some_and(|s| s.leader != 0 && s.header.as_ref().is_some_and(|h| h.member_id == s.leader))
            };
            found = statuses.iter().position(leads);
            found.is_some()
        })
        .await?;
        Ok(found.expect("waited for"))
    }

    /// Waits until every member answers, knows a leader and has applied nearly all.
    pub(super) async fn redundant(&mut self) -> Result<(), Trouble> {
        self.until("every member has caught up", |statuses| {
            let applied = |status: &Option<StatusResponse>| {
                status.as_ref().filter(|status| status.leader != 0).map(|status| status.raft_applied_index)
            };
            let applied: Option<Vec<u64>> = statuses.iter().map(applied).collect();
            applied.is_some_and(|applied| {
                let newest = applied.iter().max().copied().unwrap_or(0);
                applied.iter().all(|applied| applied + CAUGHT_UP_ENTRIES >= newest)
            })
        })
        .await
    }

    async fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&[Option<StatusResponse>]) -> bool,
    ) -> Result<(), Trouble> {
        let began = Instant::now();
        loop {
            for member in &mut self.members {
                if let Some(status) = member.process.as_mut().and_then(Process::try_wait) {
                    let log = tail(&member.log);
                    return Err(Trouble::new(format!(
                        "{} ended by itself: {status}; its log ends:\n{log}",
                        member.name
                    )));
                }
            }
            if is_so(&self.statuses().await) {
                return Ok(());
            }
            if began.elapsed() >= LIMIT {
                return Err(Trouble::new(format!("etcd: waited {} s in vain: {what}", LIMIT.as_secs())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}
