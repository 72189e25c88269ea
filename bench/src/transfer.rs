//! What a transfer of leadership does to writers at half of the load that the cluster can carry.
//!
//! First, closed loops say how much that is. Then the same clients put at half of that rate, and leadership moves to another
//! node once a second. A *stall* is the longest time in which no put was acknowledged, from when the transfer was asked for until
//! half a second after it was answered; beside it stands the same of equally long times without a transfer, which the machine
//! alone is to blame for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use calamus_client::{Client, Options, Txn};
use calamus_proto::v1::Role;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::Common;
use crate::calamus::{self, Calamus, TREE};

/// Clients of the load, and the connections that they share.
const CLIENTS: usize = 64;
const CONNECTIONS: usize = 4;
const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 256;
/// After an answer, so long still belongs to the transfer.
const AFTER: Duration = Duration::from_millis(500);
/// From one transfer to the next; the second half of it is without one.
const EVERY: Duration = Duration::from_millis(1_500);

/// Options of `transfer`.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// How often leadership moves.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// How long the whole load is measured, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

/// Clients that put, each at its pace, until told to stop; they say when each put was acknowledged.
struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<anyhow::Result<Vec<Instant>>>,
}

impl Load {
    /// `pace`: from the beginning of a client's put to that of its next one, at least.
    fn begin(clients: &[Client], pace: Duration) -> Load {
        let (stop, _) = watch::channel(false);
        let mut running = JoinSet::new();
        for number in 0..CLIENTS {
            let (client, stopped) = (clients[number % clients.len()].clone(), stop.subscribe());
            // Each begins at another time of the pace.
            let first = Instant::now() + pace.mul_f64(number as f64 / CLIENTS as f64);
            running.spawn(async move {
                let mut acknowledged = Vec::new();
                let (mut next, mut key) = (first, number);
                while !*stopped.borrow() {
                    sleep_until(next.into()).await;
                    let began = Instant::now();
                    let value = Bytes::from_owner([number as u8; VALUE_BYTES]);
                    client.txn(Txn::new().put(TREE, key.to_be_bytes().to_vec(), value).idempotent()).await?;
                    acknowledged.push(Instant::now());
                    key = (key + CLIENTS) % KEYS;
                    // What was late is not made up for at once: that would be another load.
                    next = (next + pace).max(began);
                }
                Ok(acknowledged)
            });
        }
        Load { stop, clients: running }
    }

    /// When puts were acknowledged, in order.
    async fn end(mut self) -> anyhow::Result<Vec<Instant>> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            all.extend(ended??);
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// The longest time without an acknowledgement that touches a window, in milliseconds. There must be one before and one after.
fn longest_gap(acknowledged: &[Instant], from: Instant, until: Instant) -> Option<f64> {
    let first = acknowledged.partition_point(|at| *at <= from).checked_sub(1)?;
    let last = acknowledged.partition_point(|at| *at < until);
    let within = acknowledged.get(first..=last)?;
    within.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).max_by(f64::total_cmp)
}

/// The value that so large a share does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Measures, and prints stalls and marks.
pub async fn run(args: TransferArgs) -> anyhow::Result<()> {
    let dir = args.common.temp_dir()?;
    let binary = calamus::binary(args.common.binary.as_deref())?;
    let calamus = Calamus::start(&binary, dir.path(), 3).await?;
    let addresses: Vec<String> = calamus.processes.iter().map(|process| process.address.clone()).collect();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(addresses.clone(), Options::default()).await?);
    }
    let clients: Arc<[Client]> = clients.into();

    let length = Duration::from_secs(args.seconds);
    let load = Load::begin(&clients, Duration::ZERO);
    tokio::time::sleep(length).await;
    let whole = load.end().await?.len() as f64 / length.as_secs_f64();
    let pace = Duration::from_secs_f64(CLIENTS as f64 / (whole / 2.0));

    let load = Load::begin(&clients, pace);
    tokio::time::sleep(AFTER).await;
    let (begun, mut windows) = (Instant::now(), Vec::new());
    for _ in 0..args.count {
        let next = Instant::now() + EVERY;
        let statuses = calamus.statuses().await?;
        let other = statuses.iter().find(|status| status.voter && status.role() != Role::Leader);
        let name = &other.context("there is no other voter")?.name;
        let asked = Instant::now();
        clients[0].cluster().transfer(name).await?;
        windows.push((asked, Instant::now() + AFTER, next));
        sleep_until(next.into()).await;
    }
    let took = begun.elapsed();
    tokio::time::sleep(AFTER).await;
    let acknowledged = load.end().await?;
    let rate =
        acknowledged.iter().filter(|at| **at >= begun && **at < begun + took).count() as f64 / took.as_secs_f64();

    let mut stalls = Vec::new();
    let mut others = Vec::new();
    for (asked, after, next) in windows {
        stalls.push(longest_gap(&acknowledged, asked, after).context("no put was acknowledged around a transfer")?);
        ensure!(after < next, "a transfer took {:?}", after - asked);
        others.extend(longest_gap(&acknowledged, after, next));
    }
    println!("{whole:.0} puts a second at most, {rate:.0} a second while leadership moved {} times", args.count);
    for (what, mut found) in [("stall by a transfer", stalls), ("without one", others)] {
        found.sort_by(f64::total_cmp);
        println!(
            "{what:<20} p50 {:>7.1} ms   p99 {:>7.1} ms   most {:>7.1} ms",
            quantile(&found, 0.5),
            quantile(&found, 0.99),
            quantile(&found, 1.0)
        );
    }
    println!("marks: p50 at most 20 ms, p99 at most 200 ms");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_of_a_window_is_found_also_when_it_begins_before_or_ends_behind_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let acknowledged: Vec<Instant> = [0, 10, 60, 65, 200].map(at).to_vec();
        let gap = |from, until| longest_gap(&acknowledged, at(from), at(until)).map(f64::round);
        assert_eq!(gap(1, 64), Some(50.0));
        assert_eq!(gap(20, 61), Some(50.0), "it began before");
        assert_eq!(gap(61, 90), Some(135.0), "it ends behind");
        assert_eq!(gap(61, 300), None, "nobody knows how long it is");
    }

    #[test]
    fn quantiles_are_those_of_the_ranks() {
        let sorted: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&sorted, share)), [1.0, 25.0, 50.0, 50.0]);
    }
}
