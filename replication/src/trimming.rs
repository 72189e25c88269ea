//! How far the log is purged, and when.
//!
//! After each finished checkpoint: openraft is told of it (a snapshot that copies nothing), and then to purge up to
//! the least of what the checkpoint, the retention, the pins and the running seedings allow. The order matters: openraft
//! silently purges nothing above its newest snapshot, and a purge ahead of openraft would take entries from under a
//! replication stream, which ends the leader. So the journal never recycles on its own: it is asked by
//! [`crate::log_store`], after openraft has waited for its streams.
//!
//! A follower that is slow, dead or frozen holds nothing: it is seeded when it comes back. A running seeding holds the
//! log behind it, up to [`HOLD_BYTES`] of journal: on the leader, which must go on from what it declared, and on the
//! source, which streams it. Beyond, it is given up and begins again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::{LogId, LogIndex};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::Core;

/// A node that was seeded goes on from where its seeding was declared; it gets this long to do so before the log
/// behind it may go.
const HOLD_AFTER_SEEDING: Duration = Duration::from_secs(10);
/// The journal may grow to this many bytes for seedings, on the leader and on the source.
pub(crate) const HOLD_BYTES: u64 = 1 << 30;
/// A purge that was asked for may wait for a stream; it is asked for again at this pace.
const RETRY: Duration = Duration::from_secs(1);

/// The log ids that running seedings still need.
#[derive(Clone, Default)]
pub struct SeedHolds(Arc<Mutex<Holds>>);

#[derive(Default)]
struct Holds {
    next: u64,
    held: HashMap<u64, LogId>,
}

impl SeedHolds {
    /// Holds everything after `log_id` until some time after the guard is dropped.
    #[must_use]
    pub fn hold(&self, log_id: LogId) -> SeedHold {
        let mut holds = self.0.lock();
        holds.next += 1;
        let key = holds.next;
        holds.held.insert(key, log_id);
        SeedHold { holds: self.clone(), key }
    }

    fn lowest(&self) -> Option<LogIndex> {
        self.0.lock().held.values().map(|log_id| log_id.index).min()
    }
}

/// Keeps the log for a seeding.
pub struct SeedHold {
    holds: SeedHolds,
    key: u64,
}

impl Drop for SeedHold {
    fn drop(&mut self) {
        let (holds, key) = (self.holds.clone(), self.key);
        let release = move || {
            holds.0.lock().held.remove(&key);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(HOLD_AFTER_SEEDING).await;
                release();
            })),
            Err(_) => release(),
        }
    }
}

/// Runs until the core stops.
pub(crate) async fn run(engine: Engine, core: Core, holds: SeedHolds) {
    let finished = Arc::new(Notify::new());
    let notify = Arc::clone(&finished);
    engine.on_checkpoint(Box::new(move || notify.notify_one()));
    // A checkpoint that finished before we listened counts too.
    finished.notify_one();
    loop {
        tokio::select! {
            () = finished.notified() => {}
            () = tokio::time::sleep(RETRY) => {}
            () = core.stopped() => return,
        }
        if let Err(why) = trim(&engine, &core, &holds).await {
            tracing::debug!(why, "trimming ends");
            return;
        }
    }
}

async fn trim(engine: &Engine, core: &Core, holds: &SeedHolds) -> Result<(), String> {
    let Some(checkpointed) = engine.checkpointed().log_id else {
        return Ok(());
    };
    if core.declared_snapshot().is_none_or(|declared| declared.index < checkpointed.index) {
        core.declare_snapshot(checkpointed).await?;
    }
    let Some(limit) = engine.purge_limit() else {
        return Ok(());
    };
    let held = holds.lowest().filter(|_| engine.status().journal_bytes <= HOLD_BYTES);
    let limit = held.map_or(limit.index, |held| held.min(limit.index)).min(checkpointed.index);
    if engine.log_state().last_purged.is_none_or(|purged| purged.index < limit) {
        core.purge(limit).await?;
    }
    Ok(())
}
