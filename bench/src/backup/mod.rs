//! Everything that copies a whole database, each beside what it can be at best, or beside a rival.
//!
//! ```text
//! alone      backups of one engine and restores, beside a copy; increments; writers beside a backup
//! seeding    a node that fills another one, beside the same bytes through a connection; writers beside it
//! add_node   the time to add an empty node to a cluster of two, beside etcd
//!
//! data       the database of one engine, and its copy
//! node       a `calamus serve` process of a small cluster
//! tcp        a file's way through a connection
//! writers    threads that commit until they are told to stop
//! clients    the same, clients of a node
//! memory     the most memory that a process has meanwhile
//! ```
//!
//! Everything is in one folder, the place of the backups and the other nodes too: a second disk would make backups look faster
//! than a copy.

mod add_node;
mod alone;
mod clients;
mod data;
mod memory;
mod node;
mod seeding;
mod tcp;
mod writers;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::report::Mark;
use crate::{Common, calamus, until_ended};

/// Anonymous memory that a backup, a restore or a side of a seeding may add, in bytes.
const RSS_MARK_BYTES: f64 = (96 << 20) as f64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Backup,
    Seeding,
    AddNode,
}

#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// Measure only this. Without it, all is measured, but `add-node` only with a rival.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Add a node to a cluster of this system too, alternating.
    #[arg(long, value_parser = ["etcd"])]
    vs: Option<String>,
    /// Data that is there before, in MiB. The folder needs three times as much.
    #[arg(long, default_value_t = 4096)]
    data_mib: u64,
    /// Data that the cluster holds to which a node is added, in MiB.
    #[arg(long, default_value_t = 1024)]
    add_node_mib: u64,
    /// After so many entries the rival takes a snapshot and shortens its log; by default as many as it takes by itself.
    #[arg(long, requires = "vs")]
    rival_snapshot_count: Option<u64>,
    /// The size of a value, in bytes; values cannot be compressed.
    #[arg(long, default_value_t = 16_000)]
    value_bytes: usize,
    /// How often each is measured, in turn; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writers beside a backup, and beside a seeding; none are measured with 0.
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// The limits of the backups that are to leave the writers their throughput, in MiB a second. With less than the writers
    /// journal it never ends, and is given up.
    #[arg(long, default_value = "200", value_delimiter = ',')]
    limit_mib_s: Vec<u64>,
    /// The limit of the seeding that is to leave the writers their throughput, in MiB a second; without it none is
    /// measured. The node that seeds is started with `--seed-mib-s`.
    #[arg(long)]
    seed_limit_mib_s: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// One measurement.
struct Took {
    bytes: u64,
    seconds: f64,
    /// The most anonymous memory, above what it was before, in bytes.
    rss_growth: u64,
}

impl Took {
    fn mb_a_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

pub fn run(args: &BackupArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.data_mib > 0 && args.value_bytes > 0, "rounds, data and values are above 0");
    let home = args.common.temp_dir()?;
    // A part's data goes before the next one's comes.
    let folder = |part: &str| -> Result<PathBuf> {
        let folder = home.path().join(part);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    };
    let wanted = |part: Part| args.only.map_or(part != Part::AddNode || args.vs.is_some(), |only| only == part);
    let mut marks = Vec::new();
    if wanted(Part::Backup) {
        let folder = folder("alone")?;
        alone::run(args, &folder, &mut marks)?;
        std::fs::remove_dir_all(folder)?;
    }
    if wanted(Part::Seeding) || wanted(Part::AddNode) {
        let binary = calamus::binary(args.common.binary.as_deref())?;
        until_ended(async {
            if wanted(Part::Seeding) {
                let folder = folder("seeding")?;
                seeding::run(args, &folder, &binary, &mut marks).await?;
                std::fs::remove_dir_all(folder)?;
            }
            if wanted(Part::AddNode) {
                add_node::run(args, &folder("add-node")?, &binary, &mut marks).await?;
            }
            Ok(())
        })?;
    }
    marks.iter().for_each(|mark| println!("{}", mark.text()));
    Ok(())
}

/// What the child process that fills the database is told.
#[derive(Clone, Debug, clap::Args)]
pub struct FillArgs {
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    data_mib: u64,
    #[arg(long)]
    value_bytes: usize,
}

/// What the child process does.
pub fn run_fill(args: &FillArgs) -> Result<()> {
    data::Data::open(&args.directory, args.data_mib << 20, args.value_bytes)?.fill()
}

/// Fills the database in a process of its own: the memory that this takes, and keeps for later, would hide what a backup takes.
fn fill_apart(args: &BackupArgs, directory: &Path) -> Result<()> {
    let status = std::process::Command::new(std::env::current_exe()?)
        .arg("backup-fill")
        .arg("--directory")
        .arg(directory)
        .args(["--data-mib", &args.data_mib.to_string(), "--value-bytes", &args.value_bytes.to_string()])
        .status()?;
    ensure!(status.success(), "filling the database failed: {status}");
    Ok(())
}

/// The median's rate in MB a second, after it was printed.
fn line(what: &str, all: &mut [Took]) -> f64 {
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let median = &all[all.len() / 2];
    let most = all.iter().map(|took| took.rss_growth).max().unwrap_or_default();
    println!(
        "{what:<30} {:>7.2} s {:>8.0} MB/s   RssAnon grew by at most {} MB",
        median.seconds,
        median.mb_a_second(),
        most / 1_000_000
    );
    median.mb_a_second()
}

/// The mark of a process's memory.
fn growth_mark(what: &str, growths: impl Iterator<Item = u64>) -> Mark {
    let what = format!("{what}, growth of RssAnon against 96 MiB");
    let found = growths.max().unwrap_or_default() as f64 / RSS_MARK_BYTES;
    Mark { what, found, at_least: false, bound: 1.0 }
}
