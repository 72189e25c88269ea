//! How fast a node is back: after a clean stop with 1 GiB of data, and after kill -9 with 256 MiB of journal to replay.
//!
//! *Back* is when the node itself answers a linearizable get of a key that was written before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use calamus_proto::v1::{NodeStatus, Role};
use rustix::process::Signal;

use crate::Common;
use crate::calamus::{self, Calamus, get_request, kv};

/// Options of `restart`.
#[derive(Clone, Debug, clap::Args)]
pub struct RestartArgs {
    /// How much data the nodes hold, in MiB.
    #[arg(long, default_value_t = 1024)]
    data_mib: u64,
    /// How much is written right before the kill, in MiB.
    #[arg(long, default_value_t = 256)]
    journal_mib: u64,
    #[command(flatten)]
    common: Common,
}

const VALUE_BYTES: usize = 64 << 10;
const CLIENTS: u64 = 32;
/// The node is started again so that it begins no checkpoint before this much journal: what is written then has to be replayed.
const NO_CHECKPOINT_MIB: u64 = 4096;
const BACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs both restarts and prints them.
pub async fn run(args: RestartArgs) -> anyhow::Result<()> {
    let dir = args.common.temp_dir()?;
    let binary = calamus::binary(args.common.binary.as_deref())?;
    let mut calamus = std::sync::Arc::new(Calamus::start(&binary, dir.path(), 3).await?);
    let values = |mib: u64| (mib << 20) / VALUE_BYTES as u64;
    fill(&calamus, 0, values(args.data_mib)).await?;
    let follower = follower(&calamus).await?;
    settle(&calamus, &follower).await?;

    let cluster = std::sync::Arc::get_mut(&mut calamus).context("nothing is under way")?;
    let node = cluster.take(&follower)?;
    let (node_dir, address) = (node.dir.clone(), node.address.clone());
    let (status, stopping) = node.terminate(BACK_TIMEOUT)?;
    anyhow::ensure!(status.success(), "{follower} ended with {status} after SIGTERM");
    let back = start_again(cluster, &follower, &node_dir, &address, NO_CHECKPOINT_MIB).await?;
    print_line("clean restart", args.data_mib, "of data", back, 2.0);
    println!("         the stop before it took {:.2} s", stopping.as_secs_f64());

    fill(&calamus, values(args.data_mib), values(args.journal_mib)).await?;
    let checkpointed = checkpointed(&calamus, &follower).await?;
    let cluster = std::sync::Arc::get_mut(&mut calamus).context("nothing is under way")?;
    let node = cluster.take(&follower)?;
    node.signal(Signal::KILL)?;
    drop(node);
    let replayed = journal_bytes(&binary, &node_dir, checkpointed + 1)?;
    anyhow::ensure!(replayed >= args.journal_mib << 20, "only {replayed} bytes of journal are left to replay");
    let back = start_again(cluster, &follower, &node_dir, &address, NO_CHECKPOINT_MIB).await?;
    print_line("restart after kill -9", replayed >> 20, "of journal to replay", back, 5.0);
    Ok(())
}

fn print_line(what: &str, mib: u64, of: &str, took: Duration, mark: f64) {
    let seconds = took.as_secs_f64();
    let word = if seconds < mark { "reached" } else { "MISSED " };
    println!("{word}  {what}, {mib} MiB {of}: {seconds:.2} s, to be below {mark} s");
}

/// Writes values of 64 KiB under these numbers.
async fn fill(calamus: &std::sync::Arc<Calamus>, from: u64, count: u64) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let calamus = calamus.clone();
        tasks.spawn(async move {
            for number in (from + client..from + count).step_by(CLIENTS as usize) {
                // Different bytes in each, and nothing to compress.
                let mut rng = <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(number);
                let mut value = vec![0; VALUE_BYTES];
                rand::RngCore::fill_bytes(&mut rng, &mut value);
                calamus.store(key(number), value.into()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn key(number: u64) -> Bytes {
    format!("restart-{number:010}").into()
}

async fn follower(calamus: &Calamus) -> anyhow::Result<String> {
    let statuses = calamus.statuses().await?;
    let follower = statuses.iter().find(|status| status.role() == Role::Follower && !status.unreachable);
    Ok(follower.context("no node follows")?.name.clone())
}

async fn status_of(calamus: &Calamus, name: &str) -> anyhow::Result<NodeStatus> {
    let statuses = calamus.statuses().await?;
    statuses.into_iter().find(|status| status.name == name && !status.unreachable).context("the node is not there")
}

/// The log index of a node's last finished checkpoint.
async fn checkpointed(calamus: &Calamus, name: &str) -> anyhow::Result<u64> {
    Ok(status_of(calamus, name).await?.checkpointed.map_or(0, |position| position.index))
}

/// How many bytes of frames from this log index on the journal of an ended node holds.
fn journal_bytes(binary: &Path, dir: &Path, from: u64) -> anyhow::Result<u64> {
    let mut command = std::process::Command::new(binary);
    command.arg("journal").arg(dir).args(["--json", "--from", &from.to_string()]);
    let out = command.output()?;
    // A group that the kill cut off is damage to the offline reader; what stands before it counts.
    let frames = String::from_utf8(out.stdout)?;
    let bytes = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["bytes"].as_u64();
    frames.lines().map(|line| bytes(line).with_context(|| format!("not a frame: {line}"))).sum()
}

/// Waits until a node's checkpoints have caught up, as far as they do by themselves.
async fn settle(calamus: &Calamus, name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut last = u64::MAX;
    while begun.elapsed() < BACK_TIMEOUT {
        let status = status_of(calamus, name).await?;
        let now = status.applied.map_or(0, |position| position.index) - checkpointed(calamus, name).await?;
        // No checkpoint begins for less than some journal: so there may always be a rest.
        if now == 0 || now == last {
            return Ok(());
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("{name} has not caught up with its checkpoints within {BACK_TIMEOUT:?}")
}

/// Starts a node again; the time until it answers a linearizable get by itself.
async fn start_again(
    cluster: &mut Calamus,
    name: &str,
    dir: &Path,
    address: &str,
    checkpoint_mib: u64,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    cluster.start_again(name, dir, address, checkpoint_mib)?;
    let mut last = String::new();
    while begun.elapsed() < BACK_TIMEOUT {
        match calamus::connect(address, 1).await {
            Ok(channels) => match kv(channels[0].clone()).get(get_request(key(0))).await {
                Ok(answer) => {
                    let length = answer.into_inner().entry.map(|entry| entry.value.len());
                    anyhow::ensure!(length == Some(VALUE_BYTES), "the value of the first key is {length:?} bytes");
                    return Ok(begun.elapsed());
                }
                Err(status) => last = status.to_string(),
            },
            Err(error) => last = format!("{error:#}"),
        }
        cluster.processes.iter_mut().try_for_each(crate::process::Process::check)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("{name} is not back after {BACK_TIMEOUT:?}: {last}")
}
