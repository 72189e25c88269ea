//! Backups of one engine and restores from them, beside a copy of the same bytes on the same disk; what an increment takes; and
//! what a backup does to those who write meanwhile.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use calamus_engine::Database;
use calamus_engine::backup::{BackupOptions, Backups, DirectoryStore, Manifest, NewNode, RestoreOptions};
use calamus_engine::env::RealDisk;

use super::memory::Peak;
use super::{BackupArgs, Took, data, fill_apart, growth_mark, line, writers};
use crate::report::Mark;

/// Measures them within `home`, and adds the marks.
pub fn run(args: &BackupArgs, home: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    let directory = home.join("database");
    fill_apart(args, &directory)?;
    let mut data = data::Data::open(&directory, args.data_mib << 20, args.value_bytes)?;
    println!("{} MB of data in {} entries of {} bytes", data.file_bytes()? / 1_000_000, data.entries, args.value_bytes);

    let (mut copies, mut fulls, mut restores) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds {
        copies.push(measured(|| data.copy(&home.join("copy")))?);
        let place = home.join(format!("backups-{round}"));
        fulls.push(measured(|| Ok(full(&data.database, &backups(&place, None))?.raw_bytes))?);
        let restored = home.join("restored");
        restores.push(measured(|| restore(&backups(&place, None), &restored))?);
        std::fs::remove_dir_all(&restored)?;
        if round + 1 < args.rounds {
            std::fs::remove_dir_all(&place)?;
        }
    }
    let copy = line("copy and sync", &mut copies);
    let mut ratio = |what: &str, found| {
        marks.push(Mark { what: what.to_owned(), found, at_least: true, bound: 0.6 });
    };
    ratio("full backup, MB/s against the copy", line("full backup, not compressed", &mut fulls) / copy);
    ratio("restore, MB/s against the copy", line("restore, verified", &mut restores) / copy);
    for (what, all) in [("full backup", &fulls), ("restore", &restores)] {
        marks.push(growth_mark(what, all.iter().map(|took| took.rss_growth)));
    }
    marks.push(increment(&mut data, &backups(&home.join(format!("backups-{}", args.rounds - 1)), None))?);
    if args.writers > 0 {
        marks.extend(beside_writers(args, &data, &home.join("beside"))?);
    }
    Ok(())
}

/// Measures time and memory of what says how many bytes it was.
fn measured(work: impl FnOnce() -> Result<u64>) -> Result<Took> {
    let peak = Peak::of(std::process::id())?;
    let began = Instant::now();
    let bytes = work()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Took { bytes, seconds, rss_growth: peak.growth() })
}

fn backups(place: &Path, bytes_per_second: Option<u64>) -> Backups {
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
fn restore(backups: &Backups, to: &Path) -> Result<u64> {
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
fn beside_writers(args: &BackupArgs, data: &data::Data, place: &Path) -> Result<Vec<Mark>> {
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
