//! Backups of one engine and restores from them, beside a copy of the same bytes on the same disk; what an increment takes; and
//! what a backup does to those who write meanwhile.
//!
//! ```text
//! data       the database, and the copy
//! writers    threads that commit until they are told to stop
//! ```
//!
//! Everything is in one folder, the place of the backups too: a second disk would make backups look faster than a copy.

mod data;
mod writers;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use calamus_engine::Database;
use calamus_engine::backup::{BackupOptions, Backups, DirectoryStore, Manifest, NewNode, RestoreOptions};
use calamus_engine::env::RealDisk;

use crate::process::rss_anon;
use crate::report::Mark;

/// Anonymous memory that a backup or a restore may add, in bytes.
const RSS_MARK_BYTES: f64 = (96 << 20) as f64;

#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// The folder for data; a new one within it is used and removed, three times the data in size. By default the build's
    /// target folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Data that is there before, in MiB.
    #[arg(long, default_value_t = 4096)]
    data_mib: u64,
    /// The size of a value, in bytes; values cannot be compressed.
    #[arg(long, default_value_t = 16_000)]
    value_bytes: usize,
    /// How often copy, backup and restore are measured, in turn; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writers beside a backup; none are measured with 0.
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// The limits of the backups that are to leave the writers their throughput, in MiB a second. With less than the writers
    /// journal it never ends, and is given up.
    #[arg(long, default_value = "200", value_delimiter = ',')]
    limit_mib_s: Vec<u64>,
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
    let within = args.dir.clone().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    let home = tempfile::Builder::new().prefix("calamus-bench-").tempdir_in(within)?;
    let directory = home.path().join("database");
    fill_apart(args, &directory)?;
    let mut data = data::Data::open(&directory, args.data_mib << 20, args.value_bytes)?;
    println!("{} MB of data in {} entries of {} bytes", data.file_bytes()? / 1_000_000, data.entries, args.value_bytes);

    let (mut copies, mut fulls, mut restores) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds {
        copies.push(measured(|| data.copy(&home.path().join("copy")))?);
        let place = home.path().join(format!("backups-{round}"));
        fulls.push(measured(|| Ok(full(&data.database, &backups(&place, None))?.raw_bytes))?);
        let restored = home.path().join("restored");
        restores.push(measured(|| restore(&backups(&place, None), &restored))?);
        std::fs::remove_dir_all(&restored)?;
        if round + 1 < args.rounds {
            std::fs::remove_dir_all(&place)?;
        }
    }
    let mut marks = Vec::new();
    let copy = line("copy and sync", &mut copies);
    let ratio = |marks: &mut Vec<Mark>, what: &str, found| {
        marks.push(Mark { what: what.to_owned(), found, at_least: true, bound: 0.6 });
    };
    ratio(&mut marks, "full backup, MB/s against the copy", line("full backup, not compressed", &mut fulls) / copy);
    ratio(&mut marks, "restore, MB/s against the copy", line("restore, verified", &mut restores) / copy);
    for (what, all) in [("full backup", &fulls), ("restore", &restores)] {
        let found = all.iter().map(|took| took.rss_growth).max().unwrap_or_default() as f64 / RSS_MARK_BYTES;
        marks.push(Mark {
            what: format!("{what}, growth of RssAnon against 96 MiB"),
            found,
            at_least: false,
            bound: 1.0,
        });
    }
    marks.push(increment(&mut data, &backups(&home.path().join(format!("backups-{}", args.rounds - 1)), None))?);
    if args.writers > 0 {
        marks.extend(beside_writers(args, &data, &home.path().join("beside"))?);
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
fn fill_apart(args: &BackupArgs, directory: &std::path::Path) -> Result<()> {
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

/// Measures time and memory of what says how many bytes it was.
fn measured(work: impl FnOnce() -> Result<u64>) -> Result<Took> {
    let pid = std::process::id();
    let before = rss_anon(pid)?;
    let (ended, most) = (AtomicBool::new(false), AtomicU64::new(before));
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<()> {
            while !ended.load(Ordering::Acquire) {
                most.fetch_max(rss_anon(pid)?, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let began = Instant::now();
        let bytes = work();
        let seconds = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Release);
        watching.join().expect("reading a number does not panic")?;
        let rss_growth = most.load(Ordering::Relaxed) - before;
        Ok(Took { bytes: bytes?, seconds, rss_growth })
    })
}

fn backups(place: &std::path::Path, bytes_per_second: Option<u64>) -> Backups {
    let mut options = BackupOptions::default();
    options.compress = false;
    options.bytes_per_second = bytes_per_second;
    Backups::new(Arc::new(DirectoryStore::new(Arc::new(RealDisk::new()), place)), options)
}

fn full(database: &Database, backups: &Backups) -> Result<Manifest> {
    let report = backups.full(database.engine(), &mut |_| ControlFlow::Continue(()))?;
    report.backup.context("a full backup is made")
}

/// Restores to the end, verified, and returns how large the new data file is.
fn restore(backups: &Backups, to: &std::path::Path) -> Result<u64> {
    let node = NewNode { name: "restored", listen: "127.0.0.1:0", advertise: "127.0.0.1:0", membership: None };
    let disk: Arc<dyn calamus_engine::env::Disk> = Arc::new(RealDisk::new());
    backups.restore(&disk, to, node, &RestoreOptions::default(), &mut |_| ControlFlow::Continue(()))?;
    data::file_bytes(to)
}

/// What an increment takes after one of a hundred entries has changed, against the full backup.
fn increment(data: &mut data::Data, backups: &Backups) -> Result<Mark> {
    let stored = full(&data.database, backups)?.stored_bytes;
    data.change_one_in(100)?;
    let report = backups.incremental(data.database.engine(), &mut |_| ControlFlow::Continue(()))?;
    ensure!(report.full_because.is_none(), "the increment became a full backup: {:?}", report.full_because);
    let moved = report.backup.context("something was committed")?.stored_bytes;
    println!("increment after 1 % changed      {} MB, the full backup {} MB", moved / 1_000_000, stored / 1_000_000);
    let what = "increment after 1 % changed, bytes against the full backup".to_owned();
    Ok(Mark { what, found: moved as f64 / stored as f64, at_least: false, bound: 0.03 })
}

/// Writers beside a full backup at full speed, and beside limited ones; alone before each limited one, for as long as that
/// takes at least: what writers do in their first seconds, before a checkpoint has anything to do, they do not go on with.
fn beside_writers(args: &BackupArgs, data: &data::Data, place: &std::path::Path) -> Result<Vec<Mark>> {
    let backup = |limit: Option<u64>| full(&data.database, &backups(place, limit)).map(drop);
    let beside = |limit: Option<u64>| -> Result<writers::Written> {
        let written = writers::beside(data, args.writers, || backup(limit))?;
        std::fs::remove_dir_all(place)?;
        Ok(written)
    };
    beside(None)?.print("beside a full backup");
    let mut marks = Vec::new();
    for mib_a_second in &args.limit_mib_s {
        let limit = mib_a_second << 20;
        let pages = Duration::from_secs((data.file_bytes()? / limit.max(1)).max(1));
        let alone = writers::beside(data, args.writers, || {
            std::thread::sleep(pages);
            Ok(())
        })?;
        alone.print("writers alone");
        let name = format!("beside one of {mib_a_second} MiB/s");
        let limited = beside(Some(limit))?;
        limited.print(&name);
        let what = format!("writers {name}, commits against alone");
        marks.push(Mark { what, found: limited.a_second() / alone.a_second(), at_least: true, bound: 0.8 });
    }
    Ok(marks)
}
