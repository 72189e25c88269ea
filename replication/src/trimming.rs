//! How far the log is purged, and when.
//!
//! After each finished checkpoint: openraft is told of it (a snapshot that copies nothing), and then to purge up to
//! the least of what the checkpoint, the retention, the pins and the running seedings allow. The order matters: openraft
//! silently purges nothing above its newest snapshot, and a purge ahead of openraft would take entries from under a
//! replication stream, which ends the leader. So the journal never recycles on its own: it is asked by
//! [`crate::log_store`], after openraft has waited for its streams.
//!
//! A follower that is slow, dead or frozen holds nothing: it is seeded when it comes back. A running seeding holds the
//! log behind it, up to [`NodeConfig::seed_hold_bytes`](crate::options::NodeConfig) of journal behind what it holds: on the
//! leader, which must go on from where the seeding was declared, and on the source, which streams it. Where more than that is
//! committed while a node is filled, the leader cannot go on from there, and the node is filled once more: the bound must
//! be above what is written in the time of a seeding, which is why it is gigabytes. It gives way when the disk is short
//! of space. How much is kept before that, for the retention, has
//! nothing to do with it. A source gives a receiver up that falls further behind, and it begins again. Is where the
//! seeding was declared too far back when it is done, then at least what stands behind its end is held, so that what it
//! was for is not purged at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::{Engine, SpaceLevel};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::Core;

/// A node that was seeded goes on from where its seeding was declared; it gets this long to do so before the log
/// behind it may go.
const HOLD_AFTER_SEEDING: Duration = Duration::from_secs(10);
/// A purge that was asked for may wait for a stream; it is asked for again at this pace.
const RETRY: Duration = Duration::from_secs(1);

/// The log ids that running seedings still need.
#[derive(Clone, Default)]
pub struct SeedHolds(Arc<Mutex<Holds>>);

#[derive(Default)]
struct Holds {
    next: u64,
    held: HashMap<u64, Vec<LogIndex>>,
}

impl SeedHolds {
    /// Holds everything after `log_id` until some time after the guard is dropped.
    #[must_use]
    pub fn hold(&self, log_id: LogId) -> SeedHold {
        let mut holds = self.0.lock();
        holds.next += 1;
        let key = holds.next;
        holds.held.insert(key, vec![log_id.index]);
        SeedHold { holds: self.clone(), key }
    }

    /// The least of what is held, without what has more than `most` bytes of journal behind it. `bytes_from` says how much
    /// that is.
    fn lowest(&self, most: u64, bytes_from: impl Fn(LogIndex) -> u64) -> Option<LogIndex> {
        let holds = self.0.lock();
        holds.held.values().flatten().copied().filter(|held| bytes_from(*held) <= most).min()
    }
}

/// Keeps the log for a seeding.
pub struct SeedHold {
    holds: SeedHolds,
    key: u64,
}

impl SeedHold {
    /// The seeding has reached `log_id`.
    pub fn reached(&self, log_id: LogId) {
        if let Some(held) = self.holds.0.lock().held.get_mut(&self.key) {
            held.push(log_id.index);
        }
    }
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
    // A seeding is begun again; what was accepted needs the space.
    let most = if engine.space().level == SpaceLevel::Normal { core.config.seed_hold_bytes } else { 0 };
    let held = holds.lowest(most, |held| engine.journal_bytes_from(LogIndex(held.0.saturating_add(1))));
    let limit = held.map_or(limit.index, |held| held.min(limit.index)).min(checkpointed.index);
    if engine.log_state().last_purged.is_none_or(|purged| purged.index < limit) {
        core.purge(limit).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_counts_until_too_much_stands_behind_it() {
        let holds = SeedHolds::default();
        let hold = holds.hold(LogId::new(1, 10));
        // A journal of any length, of which so much is kept for the retention.
        let from = |end: u64| move |held: LogIndex| end - held.0;
        assert_eq!(holds.lowest(100, from(110)), Some(LogIndex(10)));
        assert_eq!(holds.lowest(100, from(111)), None);
        hold.reached(LogId::new(1, 90));
        assert_eq!(holds.lowest(100, from(110)), Some(LogIndex(10)), "the leader goes on from there");
        assert_eq!(holds.lowest(100, from(111)), Some(LogIndex(90)));
        drop(hold);
        assert_eq!(holds.lowest(100, from(90)), None);
    }
}
