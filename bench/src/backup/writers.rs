//! Threads that commit as long as something else goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::data::{Data, TREE};

/// What they came to.
pub struct Written {
    pub seconds: f64,
    /// Nanoseconds of each commit.
    pub latency: Histogram<u64>,
}

impl Written {
    pub fn a_second(&self) -> f64 {
        self.latency.len() as f64 / self.seconds
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub fn print(&self, name: &str) {
        println!(
            "{name:<30} {:>7.2} s {:>8.0} commits/s   p50 {:.0} us   p99 {:.0} us",
            self.seconds,
            self.a_second(),
            self.micros(0.5),
            self.micros(0.99)
        );
    }
}

/// Each thread replaces one entry a commit, drawn evenly, until `work` is done.
pub fn beside(data: &Data, threads: usize, work: impl FnOnce() -> Result<()>) -> Result<Written> {
    let ended = AtomicBool::new(false);
    let mut latency = Histogram::new(3)?;
    let began = Instant::now();
    let seconds = std::thread::scope(|scope| -> Result<f64> {
        let ended = &ended;
        let writers: Vec<_> =
            (0..threads as u64).map(|thread| scope.spawn(move || write_until(ended, data, thread))).collect();
        let worked = work();
        let seconds = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Release);
        for writer in writers {
            latency.add(writer.join().expect("a writer does not panic")?)?;
        }
        worked.map(|()| seconds)
    })?;
    Ok(Written { seconds, latency })
}

fn write_until(ended: &AtomicBool, data: &Data, thread: u64) -> Result<Histogram<u64>> {
    let mut random = SmallRng::seed_from_u64(thread);
    let mut latency = Histogram::new(3)?;
    while !ended.load(Ordering::Acquire) {
        let key = random.random_range(0..data.entries).to_be_bytes();
        let value = data.value(&mut random);
        let sent = Instant::now();
        data.database.write(|txn| txn.put(TREE, &key, value))?;
        latency.record(sent.elapsed().as_nanos() as u64)?;
    }
    Ok(latency)
}
