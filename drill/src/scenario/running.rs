//! Drills of a cluster that is in use: leadership is moved, and processes whose pid files are given stand still for a while.
//! Nothing is killed and no node's files are touched. The load has trees of its own, which are dropped in the end; a drill
//! is refused while they are there, because another one may be running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calamus_client::{Client, Consistency, ScanOptions, Txn};
use calamus_proto::v1::NodeStatus;
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process};

use super::judge::{self, Lists};
use super::watch::Watched;
use crate::load::{self, LISTS, Load, LoadOptions, REGISTERS, element, list};
use crate::timeline::{Gap, MarkKind, Timeline};
use crate::trouble::Trouble;
use crate::verdict::{Run, Verdict};

/// The load runs so long before the first fault, and after the last.
const QUIET: Duration = Duration::from_millis(1_000);
const STEADY: Duration = Duration::from_millis(400);
const LOOK: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);
/// How far behind a node may be and count as caught up, in entries.
const CAUGHT_UP_ENTRIES: u64 = 64;
const CLIENTS: usize = 4;
/// How long a process stands still: longer than the longest election timeout of the default settings.
const STANDSTILL: Duration = Duration::from_millis(2_500);

/// What is drilled.
#[derive(Clone, Debug)]
pub struct RunningCluster {
    /// HOST:PORT of some nodes.
    pub endpoints: Vec<String>,
    /// Files with the process ids of nodes on this machine, which may be stopped for a while.
    pub pid_files: Vec<PathBuf>,
    /// How often leadership is moved, and each process stopped.
    pub rounds: u32,
    /// What is drawn by chance comes from this.
    pub seed: u64,
    /// Calls a second, about.
    pub rate: u32,
}

/// A drill of a cluster that is in use.
struct Drill {
    cluster: RunningCluster,
    client: Client,
    timeline: Arc<Timeline>,
    voters: usize,
    redundancy_us: Vec<u64>,
    findings: Vec<String>,
}

/// Runs it. `begun` is called with the timeline when the load begins.
///
/// # Errors
/// When it could not be carried out, or the drill's trees are there already.
pub async fn run_running(
    cluster: RunningCluster,
    begun: &(dyn Fn(&Arc<Timeline>) + Send + Sync),
) -> Result<Run, Trouble> {
    let started = Instant::now();
    // Before anything is done.
    cluster.pid_files.iter().try_for_each(|file| pid_of(file).map(drop))?;
    let client = Client::connect(cluster.endpoints.clone(), load::client_options()).await;
    let client = client.map_err(|error| Trouble::during("no node of the cluster answers", error))?;
    refuse_leftovers(&client).await?;
    let members = members(&client).await?;
    let timeline = Arc::new(Timeline::default());
    begun(&timeline);
    let watched = Watched::default();
    watched.set_places(members.iter().map(|member| (member.name.clone(), member.address.clone())));
    let watching = watched.run(Arc::clone(&timeline));
    let options = LoadOptions { clients: CLIENTS, rate: cluster.rate, seed: cluster.seed };
    let addresses: Vec<String> = members.iter().map(|member| member.address.clone()).collect();
    let load = Load::begin(&addresses, &options, Arc::clone(&timeline)).await?;
    let voters = members.iter().filter(|member| member.voter).count();
    let mut drill = Drill { cluster, client, timeline, voters, redundancy_us: Vec::new(), findings: Vec::new() };
    let ended = drill.rounds().await;
    let (noted, troubles) = load.stop().await;
    watching.abort();
    drill.findings.extend(ended.err().into_iter().chain(troubles).map(|trouble| trouble.to_string()));
    let recorded = drill.timeline.recorded();
    let lists = drill.lists().await.map_err(|trouble| drill.findings.push(trouble.to_string())).ok();
    drill.findings.extend(drop_trees(&drill.client).await.err().map(|trouble| trouble.to_string()));
    let judged = judge::all(noted, lists).await;
    let verdict = Verdict {
        redundancy: Gap::of(std::mem::take(&mut drill.redundancy_us)),
        findings: drill.findings,
        ..judged.verdict("running", drill.cluster.seed, &recorded, started)
    };
    Ok(Run { about: "leadership is moved, and processes stand still".to_owned(), verdict, timeline: recorded })
}

async fn refuse_leftovers(client: &Client) -> Result<(), Trouble> {
    let trees = client.trees(Consistency::Linearizable, false).await;
    let trees = trees.map_err(|error| Trouble::during("the trees of the cluster cannot be listed", error))?.trees;
    match trees.into_iter().find(|tree| tree.name == LISTS || tree.name == REGISTERS) {
        None => Ok(()),
        Some(tree) => Err(Trouble::new(format!(
            "the cluster has a tree {}: another drill runs, or one was cut off; if none runs, drop {LISTS} and {REGISTERS}",
            tree.name
        ))),
    }
}

async fn members(client: &Client) -> Result<Vec<NodeStatus>, Trouble> {
    let status = client.cluster().status(true).await;
    Ok(status.map_err(|error| Trouble::during("the members of the cluster are not known", error))?.members)
}

fn pid_of(file: &Path) -> Result<Pid, Trouble> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Trouble::during(format!("cannot read the pid file {}", file.display()), error))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Trouble::new(format!("{} holds no process id but {text:?}", file.display())))?;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
    // A process id is used again once its process has ended.
    if !name.starts_with("calamus") {
        let what = if name.is_empty() { "no process".to_owned() } else { format!("a process called {}", name.trim()) };
        return Err(Trouble::new(format!("{} names {what}, not a node of Calamus", file.display())));
    }
    Ok(pid)
}

/// Goes on when dropped, whatever happens to the drill.
struct Standing(Pid);

impl Drop for Standing {
    fn drop(&mut self) {
        // It may have been killed by somebody else meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

impl Drill {
    async fn rounds(&mut self) -> Result<(), Trouble> {
        tokio::time::sleep(QUIET).await;
        for _ in 0..self.cluster.rounds {
            let since = self.timeline.mark(MarkKind::Fault, "leadership is handed over");
            let moved = self.client.cluster().transfer("").await;
            let to = moved.map_err(|error| Trouble::during("leadership was not handed over", error))?;
            self.timeline.mark(MarkKind::Note, format!("{to} leads"));
            self.whole(since).await?;
            tokio::time::sleep(STEADY).await;
            for file in self.cluster.pid_files.clone() {
                // Read anew: a node that was started again has another process.
                self.stand_still(pid_of(&file)?).await?;
            }
        }
        tokio::time::sleep(QUIET).await;
        Ok(())
    }

    async fn stand_still(&mut self, pid: Pid) -> Result<(), Trouble> {
        let number = pid.as_raw_nonzero();
        let since = self.timeline.mark(MarkKind::Fault, format!("process {number} stands still"));
        kill_process(pid, Signal::STOP)
            .map_err(|error| Trouble::during(format!("cannot stop process {number}"), error))?;
        let standing = Standing(pid);
        tokio::time::sleep(STANDSTILL).await;
        drop(standing);
        self.timeline.mark(MarkKind::Repair, format!("process {number} goes on"));
        self.whole(since).await?;
        tokio::time::sleep(STEADY).await;
        Ok(())
    }

    /// Waits until all members answer and have caught up, as many vote as before, and writes are acknowledged.
    async fn whole(&mut self, since_us: u64) -> Result<(), Trouble> {
        let began = Instant::now();
        loop {
            let there = self.timeline.now_us();
            if self.is_whole().await {
                while !self.timeline.wrote_since(there) {
                    if began.elapsed() >= LIMIT {
                        let what =
                            format!("all nodes are there, and no write is acknowledged for {} s", LIMIT.as_secs());
                        return Err(Trouble::new(what));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                let at = self.timeline.mark(MarkKind::Whole, "all nodes are there and have caught up");
                self.redundancy_us.push(at - since_us);
                return Ok(());
            }
            if began.elapsed() >= LIMIT {
                return Err(Trouble::new(format!("not all nodes have caught up after {} s", LIMIT.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_whole(&self) -> bool {
        let Ok(members) = members(&self.client).await else { return false };
        let applied = |member: &NodeStatus| member.applied.map_or(0, |position| position.index);
        let newest = members.iter().map(applied).max().unwrap_or(0);
        members.iter().all(|m| !m.unreachable && !m.leader.is_empty() && applied(m) + CAUGHT_UP_ENTRIES >= newest)
            && members.iter().filter(|member| member.voter).count() == self.voters
    }

    /// The lists, read as a client reads them.
    async fn lists(&self) -> Result<Lists, Trouble> {
        let cannot = |error: calamus_client::ReadError| Trouble::during("the lists cannot be read", error);
        let mut scan = self.client.scan(LISTS, ScanOptions::default()).await.map_err(cannot)?;
        let mut lists = Lists::new();
        while let Some(entry) = scan.next().await {
            let entry = entry.map_err(cannot)?;
            lists.entry(list(&entry)?).or_default().push(element(&entry)?);
        }
        Ok(lists)
    }
}

impl RunningCluster {
    /// Drops the trees of a drill that was cut off.
    ///
    /// # Errors
    /// When they may still be there.
    pub async fn drop_trees(&self) -> Result<(), Trouble> {
        let client = Client::connect(self.endpoints.clone(), load::client_options()).await;
        drop_trees(&client.map_err(|error| Trouble::during(still_there(), error))?).await
    }
}

fn still_there() -> String {
    format!("the trees {LISTS} and {REGISTERS} of the drill may still be there: drop them")
}

async fn drop_trees(client: &Client) -> Result<(), Trouble> {
    for tree in [LISTS, REGISTERS] {
        // One that was never written to is not there.
        match client.txn(Txn::new().drop_tree(tree).idempotent()).await {
            Err(error) if error.failure().reason != "no_such_tree" => {
                return Err(Trouble::during(still_there(), error));
            }
            _ => {}
        }
    }
    Ok(())
}
