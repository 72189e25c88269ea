//! Writers beside killed leaders: what `kill-leader` does to Calamus, done to etcd.
//!
//! The writers are as many as those of a drill's load, send as often, give an attempt up after as long, wait as long before the
//! next one, and go to the next member then. Each write is of a key of its own, so sending it twice does no harm. What is measured is the
//! same: how long no write was acknowledged, by kill.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::etcd::Etcd;
use super::wire::{self, PutRequest};
use crate::timeline::{Call, Ending, Gap, MarkKind, Timeline, gaps};
use crate::trouble::Trouble;

/// As the clients of a drill's load.
const ATTEMPT: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MOST_PAUSE: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(1_000);
const STEADY: Duration = Duration::from_millis(400);
const LOOK: Duration = Duration::from_millis(2);
/// No write for so long, and the comparison is given up.
const WRITES: Duration = Duration::from_secs(60);

/// Kills the leader of a scratch cluster of etcd `rounds` times under `writers` writers, who send `rate` writes a second
/// together. Returns how long no write was acknowledged, by kill.
///
/// # Errors
/// When etcd is not installed, or does not go on.
pub async fn kill_leaders(rounds: u32, writers: usize, rate: u32, within: Option<&Path>) -> Result<Gap, Trouble> {
    let mut etcd = Etcd::start(within).await?;
    let timeline = Arc::new(Timeline::default());
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let pace = Duration::from_secs(1) * u32::try_from(writers).expect("a handful") / rate.max(1);
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let writer = Writer {
            channels: etcd.channels(),
            at: writer,
            timeline: Arc::clone(&timeline),
            stop: Arc::clone(&stop),
            next: Arc::clone(&next),
        };
        running.spawn(writer.run(pace));
    }
    tokio::time::sleep(QUIET).await;
    for _ in 0..rounds {
        let leader = etcd.leader().await?;
        let since = timeline.mark(MarkKind::Fault, format!("kill -9 {}, the leader", etcd.name(leader)));
        etcd.kill(leader);
        writes_go_on(&timeline, since).await?;
        etcd.restart(leader)?;
        etcd.redundant().await?;
        writes_go_on(&timeline, timeline.now_us()).await?;
        timeline.mark(MarkKind::Whole, "all members have caught up");
        tokio::time::sleep(STEADY).await;
    }
    stop.store(true, Ordering::Relaxed);
    while running.join_next().await.is_some() {}
    Ok(gaps(&timeline.recorded(), Call::Write))
}

async fn writes_go_on(timeline: &Timeline, since_us: u64) -> Result<(), Trouble> {
    let waited = async {
        while !timeline.wrote_since(since_us) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(WRITES, waited).await;
    waited.map_err(|_| Trouble::new(format!("etcd acknowledged no write for {} s", WRITES.as_secs())))
}

struct Writer {
    channels: Vec<Channel>,
    /// Which member it speaks with.
    at: usize,
    timeline: Arc<Timeline>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
}

impl Writer {
    async fn run(mut self, pace: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = tokio::time::Instant::now();
            let key = Bytes::from(format!("{:012}", self.next.fetch_add(1, Ordering::Relaxed)));
            self.write(key).await;
            tokio::time::sleep_until(began + pace).await;
        }
    }

    async fn write(&mut self, key: Bytes) {
        let began_us = self.timeline.now_us();
        let mut pause = FIRST_PAUSE;
        loop {
            let channel = self.channels[self.at % self.channels.len()].clone();
            let request = PutRequest { key: key.clone(), value: key.clone() };
            if let Ok(Ok(())) = tokio::time::timeout(ATTEMPT, wire::put(channel, request)).await {
                self.timeline.answered(Call::Write, Ending::Done, began_us);
                return;
            }
            if self.stop.load(Ordering::Relaxed) {
                self.timeline.answered(Call::Write, Ending::Unknown, began_us);
                return;
            }
            self.at += 1;
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(MOST_PAUSE);
        }
    }
}
