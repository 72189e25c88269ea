//! What checkpoints do to the latency of commits: one put a commit, one thread, first without a checkpoint, then with
//! checkpoints as the engine paces them, then with checkpoints at full speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use calamus_engine::env::RealDisk;
use calamus_engine::{Database, EngineOptions};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const TREE: &str = "t";

#[derive(Clone, Debug, clap::Args)]
pub struct PacingArgs {
    /// The folder for data; a new one within it is used and removed. By default the build's target folder.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Entries of 256 B that are there before.
    #[arg(long, default_value_t = 200_000)]
    entries: u64,
    /// The length of each part.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// A checkpoint is due when the journal has grown by so many bytes.
    #[arg(long, default_value_t = 8 << 20)]
    interval_bytes: u64,
}

/// How checkpoints are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checkpoints {
    None,
    Paced,
    FullSpeed,
}

pub fn run(args: &PacingArgs) -> Result<()> {
    ensure!(args.entries > 0 && args.seconds > 0.0, "entries and seconds are above 0");
    println!(
        "{:<34} {:>9} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "commits", "number", "p50 us", "p99 us", "p99.9 us", "most ms", "checkpoints"
    );
    for (name, checkpoints) in
        [("no checkpoint", Checkpoints::None), ("paced", Checkpoints::Paced), ("at full speed", Checkpoints::FullSpeed)]
    {
        part(args, name, checkpoints)?;
    }
    Ok(())
}

fn part(args: &PacingArgs, name: &str, checkpoints: Checkpoints) -> Result<()> {
    let within = args.dir.clone().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    let dir = tempfile::Builder::new().prefix("calamus-bench-").tempdir_in(within)?;
    let interval = if checkpoints == Checkpoints::Paced { args.interval_bytes } else { u64::MAX };
    let mut options = EngineOptions::default();
    options.checkpoint_journal_bytes = interval;
    options.version_bytes_limit = 1 << 30;
    let database = Database::open_with(Arc::new(RealDisk::new()), dir.path(), options)?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut value = [0; 256];
    random.fill_bytes(&mut value);
    let keys: Vec<[u8; 16]> = (0..args.entries).map(|_| random.random()).collect();
    database.write(|txn| txn.create_tree(TREE))?;
    for part in keys.chunks(1000) {
        database.write(|txn| part.iter().try_for_each(|key| txn.put(TREE, key, &value).map(drop)))?;
    }
    database.engine().checkpoint()?;
    let before = database.engine().status().checkpoints;

    let stop = AtomicBool::new(false);
    let (mut beside, mut apart) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    std::thread::scope(|scope| -> Result<()> {
        let hasty = scope.spawn(|| -> Result<()> {
            let written = || database.engine().status().journal_bytes_written;
            let mut last = written();
            while checkpoints == Checkpoints::FullSpeed && !stop.load(Ordering::Relaxed) {
                if written() - last >= args.interval_bytes {
                    last = written();
                    database.engine().checkpoint()?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let began = Instant::now();
        let mut put = || -> Result<()> {
            while began.elapsed().as_secs_f64() < args.seconds {
                let key = &keys[random.random_range(0..keys.len())];
                random.fill_bytes(&mut value[..16]);
                let running = database.engine().is_checkpointing();
                let commit = Instant::now();
                database.write(|txn| txn.put(TREE, key, &value).map(drop))?;
                let micros = u64::try_from(commit.elapsed().as_micros())?;
                if running || database.engine().is_checkpointing() { &mut beside } else { &mut apart }
                    .record(micros)?;
            }
            Ok(())
        };
        let done = put();
        stop.store(true, Ordering::Relaxed);
        hasty.join().expect("the thread of checkpoints does not panic")?;
        done
    })?;
    let finished = database.engine().status().checkpoints - before;
    for (what, times) in [("", &apart), (", beside a checkpoint", &beside)] {
        if !times.is_empty() {
            println!(
                "{:<34} {:>9} {:>10} {:>10} {:>10} {:>10.1} {:>12}",
                format!("{name}{what}"),
                times.len(),
                times.value_at_quantile(0.5),
                times.value_at_quantile(0.99),
                times.value_at_quantile(0.999),
                times.max() as f64 / 1e3,
                finished
            );
        }
    }
    Ok(())
}
