//! The one seeding of this node: it runs, or what it received waits for whoever goes on with it.
//!
//! One runs at a time. What it leaves behind when nobody waits for it any more (its leader has gone, or all sources have)
//! is kept for the next one, for [`NodeConfig::seed_keep`](crate::options::NodeConfig); then it goes, with the space
//! that it takes. When the node ends, it goes at once, and nothing is kept any more: what is left of it holds the directory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::filling::Filling;
use super::order::SeedFrom;

/// The seeding of this node, if one runs, and what one left behind.
#[derive(Default)]
pub struct Seeding {
    running: AtomicBool,
    received: AtomicU64,
    total: AtomicU64,
    begun: AtomicU64,
    resumed: AtomicU64,
    source: Mutex<Option<String>>,
    kept: Mutex<Kept>,
    wished: watch::Sender<SeedFrom>,
    /// The raft ids of sources that failed.
    doubted: Mutex<BTreeSet<u64>>,
    /// Instructions in a row that brought nothing, because a source could not go on.
    refused: AtomicU64,
    on_installed: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct Kept {
    filling: Option<Filling>,
    /// How often something was kept or taken: what is to be dropped after a while may have been taken and kept anew.
    count: u64,
    ended: bool,
}

/// Held by the one seeding that runs.
pub(crate) struct Running(Arc<Seeding>);

impl Running {
    /// `None` while another one runs.
    pub(crate) fn begin(seeding: &Arc<Seeding>) -> Option<Self> {
        let free = !seeding.running.swap(true, Ordering::AcqRel);
        free.then(|| {
            seeding.received.store(0, Ordering::Relaxed);
            seeding.total.store(0, Ordering::Relaxed);
            Self(Arc::clone(seeding))
        })
    }

    /// Notes whom it is filled from.
    pub(crate) fn from(&self, source: &str) {
        *self.0.source.lock() = Some(source.to_owned());
    }

    /// Notes that pages are received from the beginning on.
    pub(crate) fn begins(&self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a stream goes on where another one ended.
    pub(crate) fn resumes(&self) {
        self.0.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how much was received, and how long the source's data file is, in bytes.
    pub(crate) fn received(&self, bytes: u64, total: u64) {
        self.0.received.store(bytes, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// A source failed: it is asked last from now on.
    pub(crate) fn doubt(&self, source: u64) {
        self.0.doubted.lock().insert(source);
    }

    /// Whether a source failed before.
    pub(crate) fn is_doubted(&self, source: u64) -> bool {
        self.0.doubted.lock().contains(&source)
    }

    /// Notes that an instruction brought something, or nothing because a source could not go on. Returns how often in a row
    /// the latter was so.
    pub(crate) fn refused(&self, again: bool) -> u64 {
        if again {
            return self.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.0.refused.store(0, Ordering::Relaxed);
        0
    }

    /// Takes what an earlier one left.
    pub(crate) fn take_kept(&self) -> Option<Filling> {
        let mut kept = self.0.kept.lock();
        kept.count += 1;
        kept.filling.take()
    }

    /// Leaves something for a later one.
    pub(crate) fn keep(&self, filling: Filling, keep: Duration) {
        let count = {
            let mut kept = self.0.kept.lock();
            if kept.ended || filling.is_gone() {
                return;
            }
            kept.count += 1;
            kept.filling = Some(filling);
            kept.count
        };
        let seeding = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(keep).await;
            let Some(seeding) = seeding.upgrade() else { return };
            let dropped = {
                let mut kept = seeding.kept.lock();
                if kept.count == count { kept.filling.take() } else { None }
            };
            if dropped.is_some() {
                tracing::info!("nobody has gone on with a seeding: what was received goes");
                // It removes files.
                drop(tokio::task::spawn_blocking(move || drop(dropped)).await);
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.source.lock() = None;
        self.0.running.store(false, Ordering::Release);
    }
}

impl Seeding {
    /// The bytes received by the running seeding, and how long the source's data file is; 0 before that is known.
    #[must_use]
    pub fn progress(&self) -> Option<(u64, u64)> {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        self.running.load(Ordering::Acquire).then(|| (read(&self.received), read(&self.total)))
    }

    /// Whom this node is being filled from.
    #[must_use]
    pub fn source(&self) -> Option<String> {
        self.source.lock().clone()
    }

    /// How many seedings were begun, from the first page on.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// How often one went on where it had been cut.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// What the operator wishes this node to be seeded from, and each change of it.
    pub(crate) fn wished(&self) -> watch::Receiver<SeedFrom> {
        self.wished.subscribe()
    }

    /// Takes a wish. It holds until the node is seeded: then `on_installed` is called, and there is none any more.
    pub(crate) fn wish(&self, from: SeedFrom, on_installed: Box<dyn Fn() + Send + Sync>) {
        *self.on_installed.lock() = Some(on_installed);
        self.wished.send_replace(from);
    }

    /// A seeding was switched in.
    pub(crate) fn installed(&self) {
        self.wished.send_replace(SeedFrom::Any);
        self.doubted.lock().clear();
        if let Some(on_installed) = self.on_installed.lock().take() {
            on_installed();
        }
    }

    /// Keeps nothing from now on. Returns what was kept, to be dropped where that may block.
    #[must_use]
    pub(crate) fn end(&self) -> Option<Filling> {
        let mut kept = self.kept.lock();
        kept.ended = true;
        kept.filling.take()
    }
}
