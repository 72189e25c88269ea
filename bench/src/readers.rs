//! What it costs to open a read transaction and to drop it: each apart, over batches that are open at once, and both
//! together, one reader at a time.

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
    rounds: usize,
    /// How many each thread has open at once, where opening and dropping are measured apart.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// How many readers are open meanwhile.
    #[arg(long, default_value_t = 0)]
    held: usize,
}

/// What opening and dropping cost, in nanoseconds a reader.
#[derive(Clone, Copy)]
struct Nanos {
    /// One opened and dropped, then the next.
    both: f64,
    /// Of a batch that is open at once: opening each into a place that is there already.
    open: f64,
    /// Dropping them, in the same order.
    drop: f64,
}

impl Nanos {
    fn slower(self, other: Self) -> Self {
        Self { both: self.both.max(other.both), open: self.open.max(other.open), drop: self.drop.max(other.drop) }
    }
}

fn nanos_each(started: Instant, count: usize) -> f64 {
    started.elapsed().as_nanos() as f64 / count as f64
}

/// Measures one thread. The clock is read once a batch, so that it costs a reader next to nothing.
fn measure(database: &Database, rounds: usize, batch: usize) -> Nanos {
    let started = Instant::now();
    for _ in 0..rounds {
        drop(black_box(database.read()));
    }
    let both = nanos_each(started, rounds);
    let mut readers = Vec::with_capacity(batch);
    let (mut open, mut drop) = (0.0, 0.0);
    let batches = (rounds / batch).max(1);
    // The first is not counted: it makes the places.
    for number in 0..=batches {
        let started = Instant::now();
        for _ in 0..batch {
            readers.push(black_box(database.read()));
        }
        let opened = nanos_each(started, batch);
        let started = Instant::now();
        readers.clear();
        if number > 0 {
            open += opened;
            drop += nanos_each(started, batch);
        }
    }
    Nanos { both, open: open / batches as f64, drop: drop / batches as f64 }
}

/// The slowest of `threads` threads that begin together.
fn measure_threads(database: &Database, threads: usize, rounds: usize, batch: usize) -> Nanos {
    let start = Barrier::new(threads);
    let run = || {
        start.wait();
        measure(database, rounds, batch)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let each = running.into_iter().map(|thread| thread.join().expect("a thread that measures"));
        each.reduce(Nanos::slower).expect("there is one")
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
    println!("{:<8} {:>12} {:>12} {:>12} {:>14}", "threads", "open at once", "open ns", "drop ns", "one by one ns");
    for threads in [1, 2] {
        let nanos = measure_threads(&database, threads, args.rounds, args.batch.max(1));
        let at_once = held.len() + threads * args.batch.max(1);
        println!("{threads:<8} {at_once:>12} {:>12.0} {:>12.0} {:>14.0}", nanos.open, nanos.drop, nanos.both);
    }
    Ok(())
}
