//! What sessions and watchers cost those who write: the same puts on one cluster, plain, in sessions, and beside watchers, in
//! turn.
//!
//! Watchers run in this process, on the same processors: what they do with what they get is a part of what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use calamus_client::{Client, Options, ReadFrom, WatchEvent, WatchOptions};
use calamus_proto::v1::{OpenSessionRequest, TxnSession};
use tokio::task::JoinSet;

use crate::Common;
use crate::calamus::{self, Calamus, TREE, kv, put_request};
use crate::workload::{Measured, Target, WORKLOADS, Workload};

/// Until watchers must have caught up with what was written.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Options of `costs`.
#[derive(Clone, Debug, clap::Args)]
pub struct CostsArgs {
    /// How long each kind is measured in each round, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often each kind is run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many watchers of all changes there are, one kind for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    watchers: Vec<usize>,
    #[command(flatten)]
    common: Common,
}

/// How the puts are done.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    InSessions,
    Watched(usize),
}

impl Kind {
    fn name(self) -> String {
        match self {
            Kind::Plain => "plain".to_owned(),
            Kind::InSessions => "in sessions".to_owned(),
            Kind::Watched(1) => "1 watcher".to_owned(),
            Kind::Watched(count) => format!("{count} watchers"),
        }
    }
}

/// Each client puts in a session of its own.
struct InSessions {
    calamus: Arc<Calamus>,
    /// By client: the session, and the last sequence.
    sessions: Vec<(u64, AtomicU64)>,
}

impl InSessions {
    async fn open(calamus: Arc<Calamus>, clients: usize) -> anyhow::Result<InSessions> {
        let mut sessions = Vec::new();
        for client in 0..clients {
            let opened = kv(calamus.leader_channel(client)).open_session(OpenSessionRequest { ttl_ms: 0 }).await?;
            sessions.push((opened.into_inner().session_id, AtomicU64::new(0)));
        }
        Ok(InSessions { calamus, sessions })
    }
}

impl Target for InSessions {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let (id, last) = &self.sessions[client];
        let sequence = last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut request = put_request(key, value);
        // A client is a closed loop: it has its answers to all before.
        request.session = Some(TxnSession { id: *id, sequence, lowest_unanswered: sequence });
        kv(self.calamus.leader_channel(client)).txn(request).await?;
        Ok(())
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<Option<usize>> {
        self.calamus.get(client, key).await
    }
}

/// Programs that take every change with its value, from all nodes in turn.
struct Watchers {
    /// How far each is, as a txn id.
    positions: Arc<[AtomicU64]>,
    /// Transactions that came, of all together.
    events: Arc<AtomicU64>,
    running: JoinSet<anyhow::Result<()>>,
}

impl Watchers {
    async fn begin(calamus: &Calamus, count: usize) -> anyhow::Result<Watchers> {
        let options = Options { read_from: ReadFrom::Spread, ..Options::default() };
        let client = Client::connect(calamus.processes.iter().map(|process| process.address.clone()), options).await?;
        let positions: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let events = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for watcher in 0..count {
            let mut watch = client.watch(TREE, WatchOptions::default());
            // From the first answer on nothing is missed.
            watch.next_event().await?;
            let (positions, events) = (positions.clone(), events.clone());
            running.spawn(async move {
                loop {
                    if let WatchEvent::Txn(_) = watch.next_event().await? {
                        events.fetch_add(1, Ordering::Relaxed);
                    }
                    let position = watch.position().context("it has begun")?;
                    positions[watcher].store(position.txn_id, Ordering::Relaxed);
                }
            });
        }
        Ok(Watchers { positions, events, running })
    }

    /// Waits until all have what is committed up to a transaction. Returns how many transactions came in all.
    async fn end(mut self, txn_id: u64) -> anyhow::Result<u64> {
        let begun = Instant::now();
        while self.positions.iter().any(|position| position.load(Ordering::Relaxed) < txn_id) {
            if let Some(ended) = self.running.try_join_next() {
                ended??;
            }
            ensure!(begun.elapsed() < CATCH_UP, "a watcher is behind txn {txn_id} after {CATCH_UP:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.running.shutdown().await;
        Ok(self.events.load(Ordering::Relaxed))
    }
}

/// What one kind has come to.
struct Line {
    kind: Kind,
    measured: Measured,
    rates: Vec<f64>,
    /// Transactions that watchers got, all rounds together.
    events: u64,
}

impl Line {
    fn median_rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

/// Measures in turn, and prints medians and their ratios to the plain puts.
pub async fn run(args: CostsArgs) -> anyhow::Result<()> {
    let dir = args.common.temp_dir()?;
    let binary = calamus::binary(args.common.binary.as_deref())?;
    let calamus = Arc::new(Calamus::start(&binary, dir.path(), 3).await?);
    let workload = WORKLOADS[1];
    let kinds =
        [Kind::Plain, Kind::InSessions].into_iter().chain(args.watchers.iter().map(|count| Kind::Watched(*count)));
    let empty = |kind| Line { kind, measured: Measured::new(), rates: Vec::new(), events: 0 };
    let mut lines: Vec<Line> = kinds.map(empty).collect();
    let length = Duration::from_secs(args.seconds);
    // The tree is there before anybody watches it.
    calamus.store("warm".into(), "up".into()).await?;
    for round in 0..args.rounds {
        // Each goes first in turn: what one leaves for the background disturbs all alike.
        lines.rotate_left(1);
        for line in &mut lines {
            let (measured, events) = measure(&calamus, line.kind, &workload, length, u64::from(round) + 1).await?;
            ensure!(measured.errors == 0, "{}: {:?}", line.kind.name(), measured.first_error);
            line.rates.push(measured.operations_a_second());
            line.measured.add(&measured);
            line.events += events;
        }
    }
    while !matches!(lines[0].kind, Kind::Plain) {
        lines.rotate_left(1);
    }
    let plain = lines[0].median_rate();
    println!("{}, three nodes, median of {} rounds of {} s", workload.name, args.rounds, args.seconds);
    for line in &lines {
        let (rate, measured) = (line.median_rate(), &line.measured);
        println!(
            "{:<14} {rate:>8.0} op/s   x {:.2}   p50 {:>6.2} ms   p99 {:>6.2} ms   {:>9.0} transactions a second to watchers",
            line.kind.name(),
            rate / plain,
            measured.quantile(0.5),
            measured.quantile(0.99),
            line.events as f64 / measured.seconds,
        );
    }
    Ok(())
}

async fn measure(
    calamus: &Arc<Calamus>,
    kind: Kind,
    workload: &Workload,
    length: Duration,
    seed: u64,
) -> anyhow::Result<(Measured, u64)> {
    calamus.refresh().await?;
    match kind {
        Kind::Plain => Ok((workload.run(calamus, length, seed).await?, 0)),
        Kind::InSessions => {
            let target = Arc::new(InSessions::open(calamus.clone(), workload.clients).await?);
            Ok((workload.run(&target, length, seed).await?, 0))
        }
        Kind::Watched(count) => {
            let watchers = Watchers::begin(calamus, count).await?;
            let measured = workload.run(calamus, length, seed).await?;
            let last = calamus.leader().await?.applied_txn;
            Ok((measured, watchers.end(last).await?))
        }
    }
}
