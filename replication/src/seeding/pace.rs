//! How fast a node sends: as a source, all of its streams together, so that whoever is seeded leaves the writers their disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A bound on bytes a second, shared by whoever asks.
pub struct Pace {
    /// 0: none.
    bytes_per_second: u64,
    /// When what was let through so far may have gone.
    due: Mutex<Option<Instant>>,
    streams: AtomicU64,
}

impl Pace {
    /// Lets so many bytes a second through; any number with 0.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, due: Mutex::default(), streams: AtomicU64::new(0) }
    }

    /// Counts a stream that begins, or goes on.
    pub(crate) fn begins(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// How many streams there were.
    pub(crate) fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// How long whoever has `bytes` must wait before it sends them. What was not used is not saved up.
    #[must_use]
    pub fn wait(&self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut due = self.due.lock();
        let from = due.map_or(now, |due| due.max(now));
        *due = Some(from + takes);
        from - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_the_rate_and_nothing_is_saved_up() {
        let pace = Pace::new(1_000);
        let now = Instant::now();
        let seconds = Duration::from_secs;
        assert_eq!(pace.wait(2_000, now), seconds(0));
        assert_eq!(pace.wait(1_000, now), seconds(2), "behind the first");
        assert_eq!(pace.wait(1_000, now + seconds(1)), seconds(2), "behind both");
        assert_eq!(pace.wait(1_000, now + seconds(100)), seconds(0));
        assert_eq!(pace.wait(1_000, now + seconds(100)), seconds(1), "the pause before was not saved up");
        assert_eq!(Pace::new(0).wait(u64::MAX, now), seconds(0));
    }
}
