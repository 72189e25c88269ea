//! How far it is, how fast it goes, and how fast it may.

use std::ops::ControlFlow;
use std::time::Duration;

use super::surroundings::Surroundings;

/// How far a backup, a restore or a check is.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct BackupProgress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done, of all stages.
    pub done_bytes: u64,
    /// Bytes to do, as far as is known; grows while others write.
    pub total_bytes: u64,
    /// Since it began.
    pub elapsed: Duration,
    /// Bytes a second, since it began.
    pub bytes_per_second: u64,
    /// Time left at that rate; `None` before there is one.
    pub left: Option<Duration>,
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// Pages are copied.
    Pages,
    /// Frames are copied, or replayed.
    Frames,
    /// Pages are compared with their checksums.
    Verify,
}

/// Is told of progress; ends the work by [`ControlFlow::Break`].
pub type OnProgress<'p> = &'p mut dyn FnMut(BackupProgress) -> ControlFlow<()>;

/// Time in which nothing was moved is made up for up to so much of it, which a sleep may well oversleep. More would be a
/// burst at full speed behind each stall, beside writers whose syncs then wait: the limit would be kept on average, and by
/// nobody who looks.
const MADE_UP_FOR: Duration = Duration::from_millis(20);

/// Whoever hears of progress wants it to end.
pub(super) struct Stopped;

/// Counts what is done, tells of it, and waits where it goes too fast.
pub(super) struct Meter<'m> {
    surroundings: &'m dyn Surroundings,
    on_progress: OnProgress<'m>,
    began: Duration,
    most_bytes_per_second: Option<u64>,
    done_bytes: u64,
    total_bytes: u64,
    /// What the bound on the rate is for: bytes that were moved, not those that were passed over.
    moved_bytes: u64,
    /// When they may all have been moved, since it began.
    due: Duration,
}

impl<'m> Meter<'m> {
    pub(super) fn new(
        surroundings: &'m dyn Surroundings,
        most_bytes_per_second: Option<u64>,
        total_bytes: u64,
        on_progress: OnProgress<'m>,
    ) -> Self {
        let began = surroundings.elapsed();
        Self {
            surroundings,
            on_progress,
            began,
            most_bytes_per_second,
            done_bytes: 0,
            total_bytes,
            moved_bytes: 0,
            due: Duration::ZERO,
        }
    }

    /// There is more to do than was known.
    pub(super) fn more(&mut self, bytes: u64) {
        self.total_bytes += bytes;
    }

    /// So much was passed over: it is done, and cost nothing.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.done_bytes += bytes;
    }

    /// So much was moved. Waits until it may have been, and tells how far it is.
    pub(super) fn moved(&mut self, stage: Stage, bytes: u64) -> Result<(), Stopped> {
        self.done_bytes += bytes;
        self.moved_bytes += bytes;
        if let Some(most) = self.most_bytes_per_second {
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(most.max(1));
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            let now = self.elapsed();
            self.due = self.due.max(now.saturating_sub(MADE_UP_FOR)).saturating_add(takes);
            let early = self.due.saturating_sub(now);
            if !early.is_zero() {
                self.surroundings.sleep(early);
            }
        }
        self.tell(stage)
    }

    fn elapsed(&self) -> Duration {
        self.surroundings.elapsed().saturating_sub(self.began)
    }

    fn tell(&mut self, stage: Stage) -> Result<(), Stopped> {
        let elapsed = self.elapsed();
        let nanos = elapsed.as_nanos();
        let rate = (u128::from(self.moved_bytes) * 1_000_000_000).checked_div(nanos).unwrap_or(0);
        let bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
        let total_bytes = self.total_bytes.max(self.done_bytes);
        let left = (total_bytes - self.done_bytes).checked_div(bytes_per_second).map(Duration::from_secs);
        let done_bytes = self.done_bytes;
        let told = BackupProgress { stage, done_bytes, total_bytes, elapsed, bytes_per_second, left };
        match (self.on_progress)(told) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stopped),
        }
    }
}
