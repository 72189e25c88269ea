//! Measures Calamus, and a rival beside it.
//!
//! ```text
//! cluster    the load on three nodes, alternating with a rival; the marks to reach
//! restart    how fast a node is back
//! engine     the engine alone, beside other embedded ones
//! readers    opening and dropping read transactions
//! space      how large the data file gets under random changes
//! backup     backups, restores, seedings beside a copy of the same bytes; adding a node, beside a rival
//! pacing     what checkpoints do to the latency of commits
//! costs      what sessions and watchers cost those who write
//! transfer   what a transfer of leadership does to writers
//! workload   what is put and read, by how many: one program for every system
//! calamus    three `calamus serve` processes and how they are spoken to
//! etcd       three etcd processes and how they are spoken to
//! process    child processes, and what the kernel says of them
//! report     lines, ratios, marks
//! ```

mod backup;
mod calamus;
mod cluster;
mod costs;
mod engine;
mod etcd;
mod pacing;
mod process;
mod readers;
mod report;
mod restart;
mod space;
mod transfer;
mod workload;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "calamus-bench", about = "Measures Calamus, and a rival beside it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts and gets on three nodes: operations a second, latencies, and what they cost.
    Cluster(cluster::ClusterArgs),
    /// A clean restart with 1 GiB of data, and one after kill -9 with 256 MiB of journal to replay.
    Restart(restart::RestartArgs),
    /// The engine alone, beside LMDB, redb and fjall.
    Engine(engine::EngineArgs),
    /// What it costs to open a read transaction and to drop it.
    Readers(readers::ReadersArgs),
    /// How large the data file gets under random changes, and how fast free runs are found in a large one.
    Space(space::SpaceArgs),
    /// Backups, restores and seedings beside a copy of the same bytes, and what they do to writers; adding a node.
    Backup(backup::BackupArgs),
    /// The latency of commits without a checkpoint, and beside one.
    Pacing(pacing::PacingArgs),
    /// Puts on three nodes: plain, in sessions, and beside watchers.
    Costs(costs::CostsArgs),
    /// Transfers of leadership at half of the load that the cluster can carry: how long writers stall.
    Transfer(transfer::TransferArgs),
    #[command(hide = true)]
    EngineWindow(engine::WindowArgs),
    #[command(hide = true)]
    BackupFill(backup::FillArgs),
}

/// What commands that start nodes need.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The folder for data; a new one within it is used and removed. By default the build's target folder: it is on a disk, as
    /// /tmp may not be.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The `calamus` binary; by default it is built from this source.
    #[arg(long)]
    binary: Option<PathBuf>,
}

impl Common {
    fn temp_dir(&self) -> anyhow::Result<tempfile::TempDir> {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target");
        let within = self.dir.clone().unwrap_or(target);
        Ok(tempfile::Builder::new().prefix("calamus-bench-").tempdir_in(within)?)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its numbers mean nothing (cargo run --release -p calamus-bench -- ...)");
    }
    // These have no use for a runtime, nor should one's threads be beside them; what a part of them needs it makes.
    let command = match cli.command {
        Command::Engine(args) => return engine::run(args),
        Command::EngineWindow(args) => return engine::run_window(&args),
        Command::Readers(args) => return readers::run(args),
        Command::Space(args) => return space::run(&args),
        Command::Pacing(args) => return pacing::run(&args),
        Command::Backup(args) => return backup::run(&args),
        Command::BackupFill(args) => return backup::run_fill(&args),
        command => command,
    };
    until_ended(async {
        match command {
            Command::Cluster(args) => cluster::run(args).await,
            Command::Restart(args) => restart::run(args).await,
            Command::Costs(args) => costs::run(args).await,
            Command::Transfer(args) => transfer::run(args).await,
            Command::Engine(_)
            | Command::EngineWindow(_)
            | Command::Readers(_)
            | Command::Space(_)
            | Command::Backup(_)
            | Command::BackupFill(_)
            | Command::Pacing(_) => unreachable!("done above"),
        }
    })
}

/// Runs what starts processes. Ended from outside, everything is dropped too: so the children end.
fn until_ended(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            done = run => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}
