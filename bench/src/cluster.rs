//! The load on three nodes, alternating with a rival, and the marks to reach.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::Common;
use crate::calamus::{self, Calamus};
use crate::etcd::{self, Etcd};
use crate::process::{Process, Usage, disk_usage, rss_anon, usage};
use crate::report::{Line, Report};
use crate::workload::{Measured, Target, WORKLOADS, Workload};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Options of `cluster`.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Run the same load against this system too, alternating.
    #[arg(long, value_parser = ["etcd"])]
    vs: Option<String>,
    /// How long each load is measured in each round, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often each load is run on each system.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only the loads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only the rival: to try the program out.
    #[arg(long, hide = true, requires = "vs")]
    rival_only: bool,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// A system under test.
struct Subject<T> {
    name: &'static str,
    target: Arc<T>,
    file_kind: fn(&Path) -> String,
    memory: Memory,
}

/// The greatest anonymous memory that any of the processes had, in bytes: since the beginning, and since the last look.
struct Memory {
    most: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
    sampler: Option<std::thread::JoinHandle<()>>,
}

impl Memory {
    fn watch(processes: &[Process]) -> Memory {
        let most = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let stop = Arc::new(AtomicBool::new(false));
        let pids: Vec<u32> = processes.iter().map(Process::pid).collect();
        let (shared, stopped) = (most.clone(), stop.clone());
        let sampler = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A process that ended is told elsewhere.
                let now = pids.iter().filter_map(|pid| rss_anon(*pid).ok()).max().unwrap_or(0);
                shared.iter().for_each(|most| _ = most.fetch_max(now, Ordering::Relaxed));
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        Memory { most, stop, sampler: Some(sampler) }
    }

    fn since_last_look(&self) -> u64 {
        self.most[1].swap(0, Ordering::Relaxed)
    }

    fn throughout(&self) -> u64 {
        self.most[0].load(Ordering::Relaxed)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            // It cannot panic; and if it did, nothing depends on it here.
            let _ = sampler.join();
        }
    }
}

/// What the two systems have in common beyond the load.
trait Cluster: Target {
    fn processes(&self) -> &[Process];
    /// Connects to whoever leads now.
    async fn reconnect(&self) -> anyhow::Result<()>;
    /// Checkpoints that nodes finished since they began, all together, if the system has such a thing.
    async fn checkpoints(&self) -> anyhow::Result<Option<u64>>;
    /// The newest term: it goes up with each election.
    async fn term(&self) -> anyhow::Result<u64>;
}

impl Cluster for Calamus {
    fn processes(&self) -> &[Process] {
        &self.processes
    }
    async fn reconnect(&self) -> anyhow::Result<()> {
        self.refresh().await
    }
    async fn checkpoints(&self) -> anyhow::Result<Option<u64>> {
        Ok(Some(self.statuses().await?.iter().map(|status| status.checkpoints).sum()))
    }
    async fn term(&self) -> anyhow::Result<u64> {
        self.statuses().await?.iter().map(|status| status.term).max().context("no node")
    }
}

impl Cluster for Etcd {
    fn processes(&self) -> &[Process] {
        &self.processes
    }
    async fn reconnect(&self) -> anyhow::Result<()> {
        self.refresh().await
    }
    async fn checkpoints(&self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }
    async fn term(&self) -> anyhow::Result<u64> {
        self.leader_term().await
    }
}

impl<T: Cluster> Subject<T> {
    fn new(name: &'static str, target: T, file_kind: fn(&Path) -> String) -> Subject<T> {
        let memory = Memory::watch(target.processes());
        Subject { name, target: Arc::new(target), file_kind, memory }
    }

    fn usages(&self) -> anyhow::Result<Vec<Usage>> {
        self.target.processes().iter().map(|process| usage(process.pid())).collect()
    }

    /// Errors are no measurement: what the nodes say of them is shown, as their logs go with their folder.
    fn complain(&self, measured: &Measured) {
        let first = measured.first_error.as_deref().unwrap_or_default();
        eprintln!("{}: {} errors, the first: {first}", self.name, measured.errors);
        for process in self.target.processes() {
            let log = process.log_end();
            let worse: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            eprintln!("--- {} ---\n{}", process.name, worse.join("\n"));
        }
    }

    /// Space by kind of file, of all nodes.
    fn files(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for process in self.target.processes() {
            for (kind, bytes) in disk_usage(&process.dir, self.file_kind) {
                *all.entry(kind).or_default() += bytes;
            }
        }
        all
    }

    /// One run of one load, and what it cost.
    async fn measure(&self, workload: &Workload, length: Duration, seed: u64) -> anyhow::Result<Line> {
        self.target.reconnect().await?;
        workload.prepare(&self.target).await?;
        self.memory.since_last_look();
        let (before, checkpoints) = (self.usages()?, self.target.checkpoints().await?);
        let term = self.target.term().await?;
        let measured: Measured = workload.run(&self.target, length, seed).await?;
        if measured.errors > 0 {
            self.complain(&measured);
        }
        let (after, checkpoints_after) = (self.usages()?, self.target.checkpoints().await?);
        let cost = |(before, after): (&Usage, &Usage)| Usage {
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            written_bytes: after.written_bytes.saturating_sub(before.written_bytes),
        };
        Ok(Line {
            system: self.name,
            workload: *workload,
            rounds: 1,
            measured,
            usage: before.iter().zip(&after).map(cost).collect(),
            checkpoints: checkpoints.zip(checkpoints_after).map(|(before, after)| after.saturating_sub(before)),
            elections: self.target.term().await?.saturating_sub(term),
            files: self.files(),
            rss_anon_most: self.memory.since_last_look(),
        })
    }
}

/// Runs the loads and prints lines, ratios and marks.
pub async fn run(args: ClusterArgs) -> anyhow::Result<()> {
    let dir = args.common.temp_dir()?;
    let rival = match args.vs.as_deref() {
        None => None,
        Some(_) => Some(Subject::new("etcd", Etcd::start(dir.path(), 3, None).await?, etcd::file_kind)),
    };
    let calamus = match args.rival_only {
        true => None,
        false => {
            let binary = calamus::binary(args.common.binary.as_deref())?;
            Some(Subject::new("calamus", Calamus::start(&binary, dir.path(), 3).await?, calamus::file_kind))
        }
    };
    let length = Duration::from_secs(args.seconds);
    let mut report = Report::new(args.json);
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&args.only)) {
        let (mut ours, mut theirs): (Option<Line>, Option<Line>) = (None, None);
        for round in 0..args.rounds {
            let seed = u64::from(round) + 1;
            // In turn one and the other goes first: what one leaves for the background disturbs both alike.
            for turn in 0..2 {
                if (turn + round) % 2 == 0 {
                    if let Some(calamus) = &calamus {
                        merge(&mut ours, calamus.measure(workload, length, seed).await?);
                    }
                } else if let Some(rival) = &rival {
                    merge(&mut theirs, rival.measure(workload, length, seed).await?);
                }
            }
        }
        report.workload(ours, theirs);
    }
    let memory = calamus.as_ref().map(|calamus| calamus.memory.throughout());
    report.end(memory);
    Ok(())
}

fn merge(all: &mut Option<Line>, line: Line) {
    match all {
        None => *all = Some(line),
        Some(all) => all.add(line),
    }
}
