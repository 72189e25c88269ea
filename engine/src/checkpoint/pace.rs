//! How fast a checkpoint writes: as fast as the journal grows, so that it ends before the next one is due, and no faster.
//!
//! A checkpoint that writes at full speed keeps the disk busy, and each commit waits behind its pages; then the disk is
//! idle until the next one. Spread over the interval between two checkpoints, the same pages cost each commit little. So
//! of its pages, a checkpoint has written such a share as the larger of these says:
//! - how far the journal has grown of what makes the next checkpoint due, with a quarter to spare;
//! - how far page versions have grown towards the bound at which writers would wait for this very checkpoint;
//! - how much of [`LONGEST`] has passed: a journal that grows by a trickle needs no such care.
//!
//! Ahead of that it waits. Where the journal's syncs take longer than before the checkpoint began, it waits as well, but
//! never so long that it falls behind by more than [`LAG_PERMILLE`]. Where the journal stands still there is nobody to
//! make room for, and where somebody waits for the end of the checkpoint, that is what counts: then it goes on at once.
//!
//! [`Pacer`] is told what is, time included, and says what to do: it looks at nothing itself.

use std::time::Duration;

/// How much of the next checkpoint's interval a checkpoint takes, in thousandths.
const SHARE_PERMILLE: u64 = 750;
/// How much of the bound on versions may be reached when a checkpoint ends, in thousandths.
const VERSIONS_PERMILLE: u64 = 900;
/// How far behind it may fall for the journal's sake, in thousandths of its pages.
const LAG_PERMILLE: u64 = 100;
/// A checkpoint takes no longer than this for the journal's sake.
const LONGEST: Duration = Duration::from_secs(60);
/// A journal that has not grown for so long stands still.
const STILL: Duration = Duration::from_millis(20);
/// How long it waits before it looks again.
const BREATH: Duration = Duration::from_millis(2);
/// Syncs that take this many times as long as before, in percent, are slow.
const SLOW_PERCENT: u32 = 150;

/// What is, as a checkpoint sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Since the checkpoint began.
    pub(crate) time: Duration,
    /// Bytes that the journal has written, ever.
    pub(crate) journal_bytes: u64,
    /// How long the journal's syncs take at the moment.
    pub(crate) sync: Duration,
    /// Bytes of page versions.
    pub(crate) version_bytes: usize,
    /// Somebody waits for the end of the checkpoint, or the disk does.
    pub(crate) awaited: bool,
}

/// What bounds a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The next checkpoint is due when the journal has grown by so many bytes.
    pub(crate) interval_bytes: u64,
    /// Writers wait when versions take more bytes than this.
    pub(crate) version_bytes: usize,
}

/// Paces one checkpoint.
#[derive(Debug)]
pub(crate) struct Pacer {
    bounds: Bounds,
    start: Seen,
    grown: Seen,
}

impl Pacer {
    /// For a checkpoint that begins.
    pub(crate) fn new(bounds: Bounds, start: Seen) -> Self {
        Self { bounds, start, grown: start }
    }

    /// How much of its pages the checkpoint ought to have written, in thousandths.
    fn due(&self, seen: &Seen) -> u64 {
        let share = |grown: u64, room: u64| (grown.saturating_mul(1000) / room.max(1)).min(1000);
        let journal = seen.journal_bytes.saturating_sub(self.start.journal_bytes);
        let versions = seen.version_bytes.saturating_sub(self.start.version_bytes) as u64;
        let bound = self.bounds.version_bytes as u64 * VERSIONS_PERMILLE / 1000;
        share(journal, self.bounds.interval_bytes * SHARE_PERMILLE / 1000)
            .max(share(versions, bound.saturating_sub(self.start.version_bytes as u64)))
            .max(share(seen.time.as_millis() as u64, LONGEST.as_millis() as u64))
            .max(if seen.version_bytes as u64 >= bound { 1000 } else { 0 })
    }

    /// How long to wait before the next piece, when so many of all pages are written; nothing if it is to be written now.
    /// After a wait, to be asked again.
    pub(crate) fn wait(&mut self, written: usize, all: usize, seen: &Seen) -> Option<Duration> {
        if seen.journal_bytes != self.grown.journal_bytes {
            self.grown = *seen;
        }
        if seen.awaited || seen.time.saturating_sub(self.grown.time) >= STILL {
            return None;
        }
        let (due, done) = (self.due(seen), written as u64 * 1000 / all.max(1) as u64);
        let slow = seen.sync > self.start.sync * SLOW_PERCENT / 100;
        let ahead = done >= due;
        let may_lag = due < 1000 && due - done.min(due) < LAG_PERMILLE;
        (ahead && due < 1000 || slow && may_lag).then_some(BREATH)
    }
}
