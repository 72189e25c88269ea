//! How fast the scrub goes: so that a pass takes as long as it is meant to, and never faster than it may.
//!
//! It gives way to the journal and to checkpoints, which somebody waits for: while they have something to write it reads
//! nothing, unless it has fallen behind by [`LAG_PERMILLE`]. Where someone waits for the end of a pass it goes as fast as
//! it can. [`Pace`] is told what is and says what to do: it looks at nothing itself.

use std::time::Duration;

/// How far it may fall behind for others' sake, in thousandths of a pass.
const LAG_PERMILLE: u64 = 100;
/// How long it waits before it looks again whether others are done.
const BREATH: Duration = Duration::from_millis(20);

/// What is, as the scrub sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Since the pass began.
    pub(crate) time: Duration,
    /// The journal or a checkpoint has something to write.
    pub(crate) busy: bool,
    /// Somebody waits for the end of the pass.
    pub(crate) awaited: bool,
}

/// The pace of one pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    total_bytes: u64,
    /// How long the pass takes.
    length: Duration,
}

impl Pace {
    /// For a pass over so many bytes, which is to take `wished`, and goes at `most` bytes a second at most.
    pub(crate) fn new(total_bytes: u64, wished: Duration, most: u64) -> Self {
        let least = u128::from(total_bytes) * 1_000_000_000 / u128::from(most.max(1));
        let least = Duration::from_nanos(u64::try_from(least).unwrap_or(u64::MAX));
        Self { total_bytes: total_bytes.max(1), length: wished.max(least) }
    }

    /// How long a pass takes.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// When so many bytes are due.
    fn due_at(&self, done_bytes: u64) -> Duration {
        let done = done_bytes.min(self.total_bytes);
        let nanos = self.length.as_nanos() * u128::from(done) / u128::from(self.total_bytes);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long to wait when so much is done, before the next piece or the end; nothing if it is to go on now. After a
    /// wait, to be asked again.
    pub(crate) fn wait(&self, done_bytes: u64, seen: &Seen) -> Option<Duration> {
        if seen.awaited {
            return None;
        }
        let due_at = self.due_at(done_bytes);
        if let Some(early) = due_at.checked_sub(seen.time).filter(|early| !early.is_zero()) {
            return Some(early);
        }
        let lag = seen.time - due_at;
        let may_lag = lag.as_nanos() < self.length.as_nanos() * u128::from(LAG_PERMILLE) / 1000;
        (seen.busy && may_lag && done_bytes < self.total_bytes).then_some(BREATH)
    }
}
