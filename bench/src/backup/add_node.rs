//! The time to add an empty node to a cluster of two that holds some data, beside etcd.
//!
//! It begins with the asking to be a member (the rival's command, our node's first act) and the start of the process, and ends
//! when the new node itself has applied what the leader had, and answers a read of the last key from what it has itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::task::JoinSet;

use super::BackupArgs;
use super::node::{LIMIT, Node, free_address, take_out};
use crate::calamus::Calamus;
use crate::etcd::Etcd;
use crate::report::Mark;
use crate::workload::Target;

const CLIENTS: u64 = 32;
/// Between two questions of how far the new node is.
const LOOK: Duration = Duration::from_millis(20);

/// What the cluster holds.
#[derive(Clone, Copy)]
struct Entries {
    count: u64,
    value_bytes: usize,
}

/// Measures within `home`, and adds the mark.
pub async fn run(args: &BackupArgs, home: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    let count = ((args.add_node_mib << 20) / args.value_bytes as u64).max(1);
    let entries = Entries { count, value_bytes: args.value_bytes };
    let ours = Arc::new(Calamus::start(binary, home, 2).await?);
    entries.put_into(&ours).await?;
    let rival = match args.vs {
        None => None,
        Some(_) => Some(Arc::new(Etcd::start(home, 2, args.rival_snapshot_count).await?)),
    };
    if let Some(rival) = &rival {
        entries.put_into(rival).await?;
    }
    let (mut our_seconds, mut rivals) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // In turn one and the other goes first.
        for turn in 0..2 {
            // What was written before is on the disk, and in nobody's way.
            tokio::task::spawn_blocking(rustix::fs::sync).await?;
            if (turn + round) % 2 == 0 {
                our_seconds.push(add_ours(&ours, home, binary, entries).await?);
            } else if let Some(rival) = &rival {
                rivals.push(add_rival(rival, home, entries).await?);
            }
        }
    }
    let ours = line("calamus, a third node", args.add_node_mib, &mut our_seconds);
    if rival.is_some() {
        let found = ours / line("etcd, a third node", args.add_node_mib, &mut rivals);
        let what = "adding a third node, time against etcd".to_owned();
        marks.push(Mark { what, found, at_least: false, bound: 0.5 });
    }
    Ok(())
}

/// The median, after it was printed.
fn line(what: &str, mib: u64, all: &mut [f64]) -> f64 {
    let each: Vec<String> = all.iter().map(|seconds| format!("{seconds:.2}")).collect();
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    println!("{what:<30} {median:>7.2} s for {mib} MiB   (in turn: {} s)", each.join(", "));
    median
}

impl Entries {
    fn key(self, number: u64) -> Bytes {
        format!("entry-{number:010}").into()
    }

    fn last_key(self) -> Bytes {
        self.key(self.count - 1)
    }

    /// Puts them all, in the order of their keys, about.
    async fn put_into<T: Target>(self, target: &Arc<T>) -> Result<()> {
        let mut putting = JoinSet::new();
        for client in 0..CLIENTS.min(self.count) {
            let target = target.clone();
            putting.spawn(async move {
                for number in (client..self.count).step_by(CLIENTS as usize) {
                    let mut value = vec![0; self.value_bytes];
                    SmallRng::seed_from_u64(number).fill_bytes(&mut value);
                    target.put(client as usize, self.key(number), value.into()).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = putting.join_next().await {
            done??;
        }
        Ok(())
    }

    fn is_whole(self, length: Option<usize>) -> Result<()> {
        ensure!(length == Some(self.value_bytes), "the value of the last key has {length:?} bytes");
        Ok(())
    }
}

/// Adds a node, and takes it out again. Returns how long the first took, in seconds.
async fn add_ours(cluster: &Calamus, home: &Path, binary: &Path, entries: Entries) -> Result<f64> {
    let leader = cluster.leader().await?.address;
    let (directory, address) = (home.join("n3"), free_address()?);
    let began = Instant::now();
    let mut node = Node::start(binary, &directory, "n3", &address, &["--join", &leader])?;
    node.catches_up(async || cluster.leader().await).await?;
    entries.is_whole(cluster.get_local(&address, entries.last_key()).await?)?;
    let seconds = began.elapsed().as_secs_f64();
    take_out(node, &leader).await?;
    Ok(seconds)
}

/// The same of the rival.
async fn add_rival(cluster: &Etcd, home: &Path, entries: Entries) -> Result<f64> {
    let directory = home.join("e3");
    let (mut node, began) = cluster.add(&directory).await?;
    loop {
        node.process.check()?;
        let wanted = cluster.leader_applied().await?;
        // It may not answer yet.
        let read = async {
            let applied = node.applied().await?;
            ensure!(applied >= wanted, "{applied} of {wanted} are applied");
            node.get_local(entries.last_key()).await
        };
        match read.await {
            Ok(length) => break entries.is_whole(length)?,
            Err(error) => ensure!(began.elapsed() < LIMIT, "{error:#}\n{}", node.process.log_end()),
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    cluster.take_out(node).await.context("the new member cannot be taken out")?;
    std::fs::remove_dir_all(directory)?;
    Ok(seconds)
}
