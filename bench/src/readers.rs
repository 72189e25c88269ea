//! What it costs to open a read transaction and to drop it.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::Result;
use calamus_engine::Database;

#[derive(Clone, Debug, clap::Args)]
pub struct ReadersArgs {
    /// The folder for data; a new one within it is used and removed.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How often each thread opens and drops one.
    #[arg(long, default_value_t = 2_000_000)]
    rounds: u32,
    /// How many readers are open meanwhile.
    #[arg(long, default_value_t = 0)]
    held: usize,
}

/// Nanoseconds for one open and drop, as the slowest of `threads` threads sees it.
fn open_and_drop(database: &Database, threads: usize, rounds: u32) -> f64 {
    let start = Barrier::new(threads);
    let time = || {
        start.wait();
        let started = Instant::now();
        for _ in 0..rounds {
            drop(black_box(database.read()));
        }
        started.elapsed().as_nanos() as f64 / f64::from(rounds)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(time)).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread that measures")).fold(0.0, f64::max)
    })
}

pub fn run(args: ReadersArgs) -> Result<()> {
    let home = match args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let database = Database::open(home.path())?;
    database.write(|txn| txn.create_tree("t"))?;
    let held: Vec<_> = (0..args.held).map(|_| database.read()).collect();
    for threads in [1, 2] {
        let nanos = open_and_drop(&database, threads, args.rounds);
        println!("{threads} thread(s), {} readers held: {nanos:.0} ns to open and drop a reader", held.len());
    }
    Ok(())
}
