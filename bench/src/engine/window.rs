//! One window of one row on one engine, in a process of its own: so what the kernel counts belongs to it alone, and no
//! engine's threads are beside another's.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::data::{Values, ascending_key, key};
use super::device::Written;
use super::rows::{Checkpoints, DATASETS, Dataset, ROWS, Row, SMALL, Work};
use super::store::{Entry, OpenOptions, Rival, Store};

/// Entries of a commit where a database is filled.
const LOAD_BATCH: usize = 2000;
/// The most bytes of values in such a commit.
const LOAD_BATCH_BYTES: usize = 4 << 20;
/// Journal between checkpoints where a window is to hold some. Less of it favours nobody but the rivals: a page is
/// written once a checkpoint, however often it was changed.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// The same where a commit is one small entry: with more of it, three checkpoints take minutes.
const SMALL_CHECKPOINT_BYTES: u64 = 16 << 20;
/// Where it is to hold none.
const NO_CHECKPOINT_BYTES: u64 = 64 << 30;
const CHECKPOINTS_WANTED: u64 = 3;
/// A window that waits for checkpoints ends after so long anyway.
const LONGEST: Duration = Duration::from_secs(90);

/// What a window came to.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub operations_a_second: f64,
    /// Microseconds of a commit; 0 where nothing is committed.
    pub p50: f64,
    pub p99: f64,
    pub written_per_user_byte: f64,
    pub checkpoints: Option<u64>,
}

impl Measured {
    fn to_json(&self) -> Value {
        json!({ "operations_a_second": self.operations_a_second, "p50_us": self.p50, "p99_us": self.p99,
            "written_per_user_byte": self.written_per_user_byte, "checkpoints": self.checkpoints })
    }

    pub fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let number = |name: &str| value.get(name)?.as_f64();
        Some(Self {
            operations_a_second: number("operations_a_second")?,
            p50: number("p50_us")?,
            p99: number("p99_us")?,
            written_per_user_byte: number("written_per_user_byte")?,
            checkpoints: value.get("checkpoints")?.as_u64(),
        })
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct WindowArgs {
    #[arg(long)]
    pub rival: Rival,
    /// The database's folder.
    #[arg(long)]
    pub dir: PathBuf,
    /// Fill this data set instead of measuring.
    #[arg(long)]
    pub fill: Option<String>,
    /// The row, by its name.
    #[arg(long, default_value = "")]
    pub row: String,
    #[arg(long)]
    pub entries: u64,
    #[arg(long)]
    pub seconds: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What the child process does. Prints one line of JSON.
pub fn run(args: &WindowArgs) -> Result<()> {
    if let Some(name) = &args.fill {
        let dataset = DATASETS.into_iter().find(|dataset| dataset.name == name).context("no such data set")?;
        return fill(args, dataset);
    }
    let row = ROWS.into_iter().find(|row| row.name == args.row).context("no such row")?;
    let checkpoint_bytes = match row.checkpoints {
        Checkpoints::Default => None,
        Checkpoints::Without => Some(NO_CHECKPOINT_BYTES),
        Checkpoints::With => Some(match row.work {
            Work::Put { batch: 1, .. } if row.dataset == SMALL => SMALL_CHECKPOINT_BYTES,
            _ => CHECKPOINT_BYTES,
        }),
    };
    let store = args.rival.open(&args.dir, OpenOptions { checkpoint_bytes })?;
    let window = Window { args, row, store: &*store, entries: (args.entries / row.dataset.share).max(1) };
    let measured = match row.work {
        Work::Put { threads, batch } => window.put(threads, batch)?,
        Work::BulkLoad => window.bulk_load()?,
        Work::Get { threads } => window.get(threads)?,
        Work::Scan => window.scan()?,
    };
    println!("{}", measured.to_json());
    Ok(())
}

/// Fills a data set in an order that has nothing to do with the keys'; an aged one is then written over at random.
fn fill(args: &WindowArgs, dataset: Dataset) -> Result<()> {
    let store = args.rival.open(&args.dir, OpenOptions { checkpoint_bytes: None })?;
    let (entries, values) = ((args.entries / dataset.share).max(1), Values::new(dataset.value_bytes));
    let mut rng = SmallRng::seed_from_u64(args.seed);
    let batch = LOAD_BATCH.min(LOAD_BATCH_BYTES / dataset.value_bytes) as u64;
    for first in (0..entries).step_by(batch as usize) {
        let numbers = first..(first + batch).min(entries);
        let some: Vec<Entry<'_>> = numbers.map(|number| (key(number), values.any(&mut rng))).collect();
        store.put(&some)?;
    }
    if args.rival == Rival::LmdbAged {
        for _ in (0..entries).step_by(batch as usize) {
            let some: Vec<Entry<'_>> =
                (0..batch).map(|_| (key(rng.random_range(0..entries)), values.any(&mut rng))).collect();
            store.put(&some)?;
        }
    }
    store.settle()?;
    drop(store);
    if args.rival == Rival::Lmdb {
        super::lmdb::make_fresh(&args.dir)?;
    }
    println!("{{}}");
    Ok(())
}

struct Window<'a> {
    args: &'a WindowArgs,
    row: Row,
    store: &'a dyn Store,
    entries: u64,
}

/// What one thread counted.
struct Counted {
    /// Nanoseconds of each commit.
    latency: Histogram<u64>,
    /// Within the window.
    operations: u64,
    /// In the warm-up and in the window.
    all: u64,
}

impl Counted {
    fn new() -> Result<Self> {
        Ok(Self { latency: Histogram::new(3)?, operations: 0, all: 0 })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.latency.add(&other.latency)?;
        self.operations += other.operations;
        self.all += other.all;
        Ok(())
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

impl Window<'_> {
    fn rng(&self, thread: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.args.seed << 32 | thread)
    }

    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.args.seconds)
    }

    /// Commits from several threads, first for a fifth of the time to warm up. Bytes are counted for all of it, and for what
    /// the engine had put off.
    fn put(&self, threads: usize, batch: usize) -> Result<Measured> {
        self.store.settle()?;
        let values = Values::new(self.row.dataset.value_bytes);
        let written = Written::below(&self.args.dir)?;
        let written_before = written.bytes()?;
        let begin = Instant::now() + self.length() / 5;
        let ended = AtomicBool::new(false);
        let mut all = Counted::new()?;
        let mut seconds = 0.0;
        let mut checkpoints = None;
        std::thread::scope(|scope| -> Result<()> {
            let writers: Vec<_> = (0..threads as u64)
                .map(|thread| {
                    let (values, ended) = (&values, &ended);
                    scope.spawn(move || self.put_until(ended, begin, batch, values, self.rng(thread)))
                })
                .collect();
            std::thread::sleep(begin.saturating_duration_since(Instant::now()));
            let checkpoints_before = self.store.checkpoints();
            let taken = || self.store.checkpoints().zip(checkpoints_before).map(|(now, before)| now - before);
            let wanted = self.row.checkpoints == Checkpoints::With;
            while !writers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                let passed = begin.elapsed();
                let enough = !wanted || taken().is_none_or(|taken| taken >= CHECKPOINTS_WANTED);
                if passed >= self.length() && (enough || passed >= LONGEST) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            ended.store(true, Ordering::Release);
            seconds = begin.elapsed().as_secs_f64();
            checkpoints = taken();
            for writer in writers {
                all.add(&writer.join().expect("a writer does not panic")?)?;
            }
            Ok(())
        })?;
        self.store.settle()?;
        Ok(self.writes(&all, seconds, written.bytes()? - written_before, checkpoints))
    }

    fn writes(&self, counted: &Counted, seconds: f64, bytes: u64, checkpoints: Option<u64>) -> Measured {
        const KEY_BYTES: usize = 16;
        let user = counted.all as f64 * (self.row.dataset.value_bytes + KEY_BYTES) as f64;
        Measured {
            operations_a_second: counted.operations as f64 / seconds,
            p50: counted.micros(0.5),
            p99: counted.micros(0.99),
            written_per_user_byte: bytes as f64 / user,
            checkpoints,
        }
    }

    fn put_until(
        &self,
        ended: &AtomicBool,
        begin: Instant,
        batch: usize,
        values: &Values,
        mut rng: SmallRng,
    ) -> Result<Counted> {
        let mut counted = Counted::new()?;
        let mut some: Vec<Entry<'_>> = Vec::with_capacity(batch);
        while !ended.load(Ordering::Acquire) {
            some.clear();
            some.extend((0..batch).map(|_| (key(rng.random_range(0..self.entries)), values.any(&mut rng))));
            let sent = Instant::now();
            self.store.put(&some)?;
            let answered = Instant::now();
            counted.all += batch as u64;
            if answered >= begin {
                counted.operations += batch as u64;
                counted.latency.record((answered - sent).as_nanos() as u64)?;
            }
        }
        Ok(counted)
    }

    fn bulk_load(&self) -> Result<Measured> {
        let values = Values::new(self.row.dataset.value_bytes);
        let mut rng = self.rng(0);
        let written = Written::below(&self.args.dir)?;
        let written_before = written.bytes()?;
        let (mut counted, begun) = (Counted::new()?, Instant::now());
        for first in (0..self.entries).step_by(LOAD_BATCH) {
            let numbers = first..(first + LOAD_BATCH as u64).min(self.entries);
            let some: Vec<Entry<'_>> = numbers.map(|number| (ascending_key(number), values.any(&mut rng))).collect();
            let sent = Instant::now();
            self.store.append(&some)?;
            counted.latency.record(sent.elapsed().as_nanos() as u64)?;
            counted.operations += some.len() as u64;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let checkpoints = self.store.checkpoints();
        self.store.settle()?;
        counted.all = counted.operations;
        Ok(self.writes(&counted, seconds, written.bytes()? - written_before, checkpoints))
    }

    /// Everything is read once before the window begins.
    fn get(&self, threads: usize) -> Result<Measured> {
        self.warm()?;
        let begin = Instant::now() + self.length() / 5;
        let end = begin + self.length();
        let mut operations = 0;
        std::thread::scope(|scope| -> Result<()> {
            let readers: Vec<_> =
                (0..threads as u64).map(|thread| scope.spawn(move || self.get_until(begin, end, thread))).collect();
            for reader in readers {
                operations += reader.join().expect("a reader does not panic")?;
            }
            Ok(())
        })?;
        Ok(self.reads(operations as f64 / self.args.seconds))
    }

    fn get_until(&self, begin: Instant, end: Instant, thread: u64) -> Result<u64> {
        /// The clock is read once for so many.
        const AT_ONCE: u64 = 256;
        let mut rng = self.rng(thread);
        let (mut operations, mut sum) = (0, 0);
        self.store.read(&mut |snapshot| {
            loop {
                for _ in 0..AT_ONCE {
                    let number = rng.random_range(0..self.entries);
                    let (length, ends) = snapshot.get(&key(number))?.context("a key that was loaded is missing")?;
                    ensure!(length == self.row.dataset.value_bytes, "a value of {length} bytes was read");
                    sum += ends;
                }
                let now = Instant::now();
                if now >= end {
                    break;
                }
                operations += if now >= begin { AT_ONCE } else { 0 };
            }
            Ok(())
        })?;
        std::hint::black_box(sum);
        Ok(operations)
    }

    fn warm(&self) -> Result<()> {
        self.store.read(&mut |snapshot| {
            let (count, sum) = snapshot.scan()?;
            std::hint::black_box(sum);
            ensure!(count == self.entries, "{count} entries are there, not {}", self.entries);
            Ok(())
        })
    }

    fn scan(&self) -> Result<Measured> {
        self.warm()?;
        let (begun, mut scans) = (Instant::now(), 0);
        while begun.elapsed() < self.length() {
            self.warm()?;
            scans += 1;
        }
        Ok(self.reads((scans * self.entries) as f64 / begun.elapsed().as_secs_f64()))
    }

    fn reads(&self, operations_a_second: f64) -> Measured {
        Measured { operations_a_second, checkpoints: self.store.checkpoints(), ..Measured::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_prints_is_read_back() {
        let measured = Measured { operations_a_second: 2.5, p50: 1.0, p99: 3.0, ..Measured::default() };
        let back = Measured::from_json(&measured.to_json().to_string()).unwrap();
        assert_eq!((back.operations_a_second, back.p99, back.checkpoints), (2.5, 3.0, None));
        assert!(Measured::from_json("{}").is_none());
    }

    #[test]
    fn every_engine_keeps_what_it_is_given() {
        use clap::ValueEnum;
        for rival in Rival::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            let args = |fill: Option<&str>, row: &str| WindowArgs {
                rival: *rival,
                dir: dir.path().join("db"),
                fill: fill.map(str::to_owned),
                row: row.to_owned(),
                entries: 2000,
                seconds: 0.05,
                seed: 1,
            };
            run(&args(Some("256B"), "")).unwrap();
            // Reading counts the entries, and looks for each key.
            for row in ROWS.iter().filter(|row| row.dataset.name == "256B" && !row.work.writes()) {
                run(&args(None, row.name)).unwrap();
            }
            run(&args(None, "put 256 B, 1 thread, no checkpoint")).unwrap();
            run(&args(None, "scan 256 B")).unwrap();
        }
    }
}
