//! How old the state of a follower may be, for local reads.
//!
//! A heartbeat says what was committed when the leader sent it. Once that is applied here, this node was up to date at
//! the moment when the heartbeat arrived; nothing is known of what was committed since.

use calamus_engine::ids::LogId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The newest moment at which this node is known to have been up to date.
#[derive(Default)]
pub(crate) struct Freshness(Mutex<Moments>);

#[derive(Default)]
struct Moments {
    /// Committed by this moment, and not applied here when it was heard of.
    awaited: Option<(LogId, Instant)>,
    fresh: Option<Instant>,
}

impl Freshness {
    /// A leader says at `now` what is committed; `applied` is where this node is.
    pub(crate) fn heard(&self, committed: Option<LogId>, applied: Option<LogId>, now: Instant) {
        let Some(committed) = committed else { return };
        let reached = |log_id: LogId| applied.is_some_and(|applied| applied.index >= log_id.index);
        let mut moments = self.0.lock();
        if let Some((log_id, heard)) = moments.awaited
            && reached(log_id)
        {
            moments.fresh = Some(heard);
            moments.awaited = None;
        }
        if reached(committed) {
            moments.fresh = Some(now);
        } else if moments.awaited.is_none() {
            moments.awaited = Some((committed, now));
        }
    }

    /// That moment.
    pub(crate) fn newest(&self) -> Option<Instant> {
        self.0.lock().fresh
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_age_counts_from_the_heartbeat_whose_commit_is_applied() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let freshness = Freshness::default();
        let at = |index| Some(LogId::new(1, index));
        freshness.heard(None, None, start);
        assert_eq!(freshness.newest(), None, "nothing was committed, so nothing is known");
        freshness.heard(at(5), at(3), start);
        assert_eq!(freshness.newest(), None);
        freshness.heard(at(9), at(5), start + second);
        assert_eq!(freshness.newest(), Some(start), "index 5 was all there was, a second ago");
        freshness.heard(at(9), at(9), start + second * 2);
        assert_eq!(freshness.newest(), Some(start + second * 2));
    }
}
