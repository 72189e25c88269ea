//! What is put and read, by how many clients: one program for every system, so that only the systems differ.
//!
//! Clients are closed loops: each sends its next call when the last one is answered. A measurement begins after a warm-up with
//! the same load.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// Values are cut from so many different ones: enough that no page or frame holds many of a kind.
const DISTINCT_VALUES: usize = 64;

/// A system that can be put to and read from. `client` chooses the connection.
pub trait Target: Send + Sync + 'static {
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// A linearizable read; the length of the value, `None` if the key is not there.
    fn get(&self, client: usize, key: Bytes) -> impl Future<Output = anyhow::Result<Option<usize>>> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    Get,
}

/// One load.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub operation: Operation,
    pub value_bytes: usize,
    pub clients: usize,
    /// Keys are drawn evenly from so many.
    pub keys: u64,
}

/// The loads that are measured, in their order.
pub const WORKLOADS: [Workload; 5] = [
    Workload { name: "put 256 B, 1 client", operation: Operation::Put, value_bytes: 256, clients: 1, keys: 100_000 },
    Workload { name: "put 256 B, 64 clients", operation: Operation::Put, value_bytes: 256, clients: 64, keys: 100_000 },
    Workload {
        name: "put 256 B, 256 clients",
        operation: Operation::Put,
        value_bytes: 256,
        clients: 256,
        keys: 100_000,
    },
    Workload {
        name: "put 64 KiB, 64 clients",
        operation: Operation::Put,
        value_bytes: 64 << 10,
        clients: 64,
        keys: 2_000,
    },
    Workload { name: "get 256 B, 64 clients", operation: Operation::Get, value_bytes: 256, clients: 64, keys: 10_000 },
];

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub seconds: f64,
    pub errors: u64,
    pub first_error: Option<String>,
}

impl Measured {
    pub fn new() -> Measured {
        let latency = Histogram::new(3).expect("three digits are allowed");
        Measured { latency, seconds: 0.0, errors: 0, first_error: None }
    }

    pub fn add(&mut self, other: &Measured) {
        self.latency.add(&other.latency).expect("histograms of one form");
        self.seconds += other.seconds;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
    }

    pub fn operations_a_second(&self) -> f64 {
        self.latency.len() as f64 / self.seconds
    }

    /// Milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

impl Workload {
    /// Reads find their keys: puts have a name space of their own for each size.
    fn key(&self, number: u64) -> Bytes {
        let kind = if self.operation == Operation::Get { "read" } else { "put" };
        format!("{kind}-{}-{number:010}", self.value_bytes).into()
    }

    /// Writes every key that will be read.
    pub async fn prepare<T: Target>(&self, target: &Arc<T>) -> anyhow::Result<()> {
        if self.operation == Operation::Put {
            return Ok(());
        }
        let values = values(self.value_bytes);
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..self.clients {
            let (target, workload, values) = (target.clone(), *self, values.clone());
            tasks.spawn(async move {
                for number in (client as u64..workload.keys).step_by(workload.clients) {
                    let value = values[number as usize % values.len()].clone();
                    target.put(client, workload.key(number), value).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Runs the load: a warm-up, then `length` that counts.
    pub async fn run<T: Target>(&self, target: &Arc<T>, length: Duration, seed: u64) -> anyhow::Result<Measured> {
        let warm_up = (length / 5).clamp(Duration::from_millis(200), Duration::from_secs(2));
        let begin = Instant::now() + warm_up;
        let end = begin + length;
        let values = values(self.value_bytes);
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..self.clients {
            let rng = SmallRng::seed_from_u64(seed ^ (client as u64) << 32);
            tasks.spawn(one_client(*self, target.clone(), client, values.clone(), rng, begin, end));
        }
        let mut all = Measured::new();
        while let Some(measured) = tasks.join_next().await {
            all.add(&measured?);
        }
        all.seconds = length.as_secs_f64();
        Ok(all)
    }
}

async fn one_client<T: Target>(
    workload: Workload,
    target: Arc<T>,
    client: usize,
    values: Arc<Vec<Bytes>>,
    mut rng: SmallRng,
    begin: Instant,
    end: Instant,
) -> Measured {
    let mut measured = Measured::new();
    loop {
        let key = workload.key(rng.random_range(0..workload.keys));
        let sent = Instant::now();
        if sent >= end {
            return measured;
        }
        let result = match workload.operation {
            Operation::Put => target.put(client, key, values[rng.random_range(0..values.len())].clone()).await,
            Operation::Get => match target.get(client, key).await {
                Ok(Some(length)) if length == workload.value_bytes => Ok(()),
                Ok(found) => Err(anyhow::anyhow!("a value of {found:?} bytes was read")),
                Err(error) => Err(error),
            },
        };
        let answered = Instant::now();
        match result {
            // What is answered within the time counts, wherever it began.
            Ok(()) if answered >= begin && answered < end => {
                let micros = (answered - sent).as_micros() as u64;
                measured.latency.record(micros).expect("the histogram grows as needed");
            }
            Ok(()) => {}
            Err(error) => {
                measured.errors += 1;
                measured.first_error.get_or_insert_with(|| format!("{error:#}"));
                // No busy loop against a system that refuses.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Random bytes: nothing to gain by compressing them.
fn values(length: usize) -> Arc<Vec<Bytes>> {
    let mut rng = SmallRng::seed_from_u64(length as u64);
    let one = |_| {
        let mut value = vec![0; length];
        rng.fill_bytes(&mut value);
        value.into()
    };
    Arc::new((0..DISTINCT_VALUES).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Map {
        map: Mutex<HashMap<Bytes, Bytes>>,
        fail: bool,
    }

    impl Target for Map {
        async fn put(&self, _: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
            anyhow::ensure!(!self.fail, "refused");
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.map.lock().unwrap().insert(key, value);
            Ok(())
        }
        async fn get(&self, _: usize, key: Bytes) -> anyhow::Result<Option<usize>> {
            tokio::task::yield_now().await;
            Ok(self.map.lock().unwrap().get(&key).map(Bytes::len))
        }
    }

    #[tokio::test]
    async fn operations_are_counted_and_their_latency_is_right() {
        let target = Arc::new(Map::default());
        let workload = Workload { name: "", operation: Operation::Put, value_bytes: 10, clients: 4, keys: 50 };
        let measured = workload.run(&target, Duration::from_millis(300), 1).await.unwrap();
        let most = 4 * 300;
        assert!((10..=most).contains(&measured.latency.len()), "{}", measured.latency.len());
        assert!(measured.quantile(0.5) >= 1.0 && measured.errors == 0);
        assert!(target.map.lock().unwrap().values().all(|value| value.len() == 10));
    }

    #[tokio::test]
    async fn reads_find_what_was_prepared_and_errors_are_counted() {
        let target = Arc::new(Map::default());
        let workload = Workload { name: "", operation: Operation::Get, value_bytes: 10, clients: 3, keys: 50 };
        let measured = workload.run(&target, Duration::from_millis(50), 1).await.unwrap();
        assert!(measured.errors > 0 && measured.latency.is_empty(), "nothing is there yet");
        workload.prepare(&target).await.unwrap();
        assert_eq!(target.map.lock().unwrap().len(), 50);
        let measured = workload.run(&target, Duration::from_millis(50), 1).await.unwrap();
        assert!(measured.errors == 0 && !measured.latency.is_empty());
        let broken = Arc::new(Map { fail: true, ..Map::default() });
        let puts = Workload { operation: Operation::Put, ..workload };
        let measured = puts.run(&broken, Duration::from_millis(50), 1).await.unwrap();
        assert!(measured.errors > 0 && measured.first_error.unwrap().contains("refused"));
    }
}
