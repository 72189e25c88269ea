//! Filling a node that has nothing, while clients write and the source makes checkpoints, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use calamus_tests::acknowledged::{Load, values};
use calamus_tests::cluster::{Cluster, Setup};
use calamus_tests::process::anonymous_bytes;
use calamus_tests::wait::share;

/// The most anonymous memory that any node may have at any time, in bytes.
const MEMORY_LIMIT_BYTES: u64 = 256 << 20;
const VALUE_BYTES: usize = 256 << 10;
const LIMIT: Duration = Duration::from_secs(1_800);

/// The highest anonymous memory of the nodes' processes, looked at every few milliseconds from a thread of its own.
struct Watch {
    highest: Arc<Vec<AtomicU64>>,
    processes: Arc<Vec<AtomicU32>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn begin(nodes: usize) -> Self {
        let highest: Arc<Vec<AtomicU64>> = Arc::new((0..nodes).map(|_| AtomicU64::new(0)).collect());
        let processes: Arc<Vec<AtomicU32>> = Arc::new((0..nodes).map(|_| AtomicU32::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let run = {
            let (highest, processes, stop) = (highest.clone(), processes.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for (process, highest) in processes.iter().zip(highest.iter()) {
                        let bytes = anonymous_bytes(process.load(Ordering::Relaxed));
                        highest.fetch_max(bytes, Ordering::Relaxed);
                    }
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        };
        Self { highest, processes, stop, thread: Some(std::thread::spawn(run)) }
    }

    fn look_at(&self, cluster: &Cluster, node: usize) {
        self.processes[node].store(cluster.process(node).id(), Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// 1 GiB in the long run, 384 MiB by default: more than the limit in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_data_than_memory_while_writes_and_checkpoints_go_on() {
    let data_bytes: usize = share(384 << 20, 1 << 30);
    // Real disks: the door that loses unsynced writes keeps them in memory, which is what is measured here.
    let setup = Setup::new(env!("CARGO_BIN_EXE_calamus-fault"));
    let setup = setup.flag("--checkpoint-mib", 16).flag("--retention-mib", 16);
    let mut cluster = Cluster::start(setup).await;
    let watch = Watch::begin(cluster.len());
    for node in 0..cluster.len() {
        watch.look_at(&cluster, node);
    }
    let count = (data_bytes / VALUE_BYTES) as u64;
    let mut load = Load::begin(&cluster.addresses(), 4, values("large", VALUE_BYTES)).await;
    load.reach(count, LIMIT).await;

    let node = cluster.follower().await;
    let sources = cluster.others(node);
    cluster.wipe(node);
    let host = cluster.leader().await;
    let mut before = Vec::new();
    for source in &sources {
        before.push(cluster.status_now(*source).await.checkpoints);
    }
    cluster.rejoin(node, host);
    watch.look_at(&cluster, node);
    cluster.ready(node).await;
    cluster.voters().await;
    let mut finished = Vec::new();
    for (source, before) in sources.iter().zip(&before) {
        finished.push(cluster.status_now(*source).await.checkpoints - before);
    }
    let ledger = load.stop(LIMIT).await;

    let seeded = cluster.status_now(node).await;
    assert!(seeded.generation > 1, "it was not seeded");
    assert!(seeded.page_count * 8192 >= data_bytes as u64, "{} pages are too few to show anything", seeded.page_count);
    assert!(finished.iter().all(|count| *count >= 3), "checkpoints finished meanwhile on the others: {finished:?}");
    let highest: Vec<u64> = watch.highest.iter().map(|bytes| bytes.load(Ordering::Relaxed) >> 20).collect();
    eprintln!("highest anonymous memory of the nodes, in MiB: {highest:?}; checkpoints meanwhile: {finished:?}");
    drop(watch);
    assert!(highest.iter().all(|mib| *mib > 0), "nothing was measured");
    assert!(highest.iter().all(|mib| mib << 20 <= MEMORY_LIMIT_BYTES), "more than 256 MiB: {highest:?}");
    cluster.close(&ledger).await;
}
