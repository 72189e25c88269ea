//! How long this node's disk takes to save a vote.
//!
//! The core saves a vote and waits for it, in one queue with the frames: meanwhile it hears nobody and shows what it was.
//! How long that takes says more of an election's length than anything else does, and [`mod@crate::failover`] goes by it.
//! The last few saves count, since a disk changes; and one that is under way counts with the age it has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many saves are remembered: an election that is tried again and again has some three on each node.
const REMEMBERED: usize = 8;

/// The latest saves of this node. Clones show the same.
#[derive(Clone, Default, Debug)]
pub(crate) struct VoteSaves(Arc<Mutex<Saves>>);

#[derive(Default, Debug)]
struct Saves {
    done: VecDeque<Duration>,
    /// The core saves one vote at a time.
    under_way: Option<Instant>,
}

/// Held while a vote is saved.
pub(crate) struct Saving<'a>(&'a VoteSaves);

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        let since = self.0.0.lock().under_way.take();
        if let Some(since) = since {
            self.0.note(since.elapsed());
        }
    }
}

impl VoteSaves {
    /// A save begins.
    pub(crate) fn begin(&self) -> Saving<'_> {
        self.0.lock().under_way = Some(Instant::now());
        Saving(self)
    }

    /// A save took so long.
    pub(crate) fn note(&self, took: Duration) {
        let done = &mut self.0.lock().done;
        done.push_back(took);
        if done.len() > REMEMBERED {
            done.pop_front();
        }
    }

    /// Whether a vote is being saved.
    pub(crate) fn is_saving(&self) -> bool {
        self.0.lock().under_way.is_some()
    }

    /// The longest of the latest saves, the one under way among them.
    pub(crate) fn longest(&self) -> Duration {
        let saves = self.0.lock();
        let under_way = saves.under_way.map(|since| since.elapsed());
        saves.done.iter().copied().chain(under_way).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_save_is_forgotten_after_a_few_short_ones() {
        let saves = VoteSaves::default();
        assert_eq!(saves.longest(), Duration::ZERO);
        let millis = Duration::from_millis;
        saves.note(millis(700));
        for count in 1..REMEMBERED as u64 {
            saves.note(millis(count));
            assert_eq!(saves.longest(), millis(700));
        }
        saves.note(millis(3));
        assert_eq!(saves.longest(), millis(REMEMBERED as u64 - 1));
    }
}
