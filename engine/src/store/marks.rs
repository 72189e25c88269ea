//! States that the journal passed through, by the index of the frame behind each: so that a reader who knows a txn id finds
//! the frame that comes next, and the state that it must build on.
//!
//! A mark is made with about every [`MARK_EVERY_BYTES`] that are applied, so what is in memory is small beside the journal,
//! and what has to be read to find a place in between is little. Marks are not on disk. After a start there are those of
//! what recovery applied; older ones are made when somebody asks (`feed/survey.rs`). Those whose next frame is purged are of no
//! use, and go when the next one is made: so there are no more than the journal has mebibytes, whether anybody asks or not.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::AppliedState;
use crate::ids::{Digest, LogIndex, TxnId};

/// So many bytes of frames are applied between two marks.
const MARK_EVERY_BYTES: u64 = 1 << 20;

/// A state, and the frame behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// The frame that comes next.
    pub(crate) next: LogIndex,
    /// The chain value after the frame before it.
    pub(crate) chain: u64,
    /// The txn id of the state.
    pub(crate) txn_id: TxnId,
    /// Its digest.
    pub(crate) digest: Digest,
}

impl Mark {
    /// Of the applied state.
    pub(crate) fn of(state: &AppliedState) -> Self {
        let next = state.log_id.map_or(LogIndex(0), |log_id| log_id.index.next());
        Self { next, chain: state.chain, txn_id: state.txn_id, digest: state.digest }
    }
}

#[derive(Default)]
struct Inner {
    by_next: BTreeMap<LogIndex, Mark>,
    bytes_since: u64,
}

/// The marks of a generation.
#[derive(Default)]
pub(crate) struct Marks(Mutex<Inner>);

impl Marks {
    /// A frame of so many bytes was applied. When a mark is due, `state` is asked for it, and for the first frame that the
    /// journal holds.
    pub(super) fn note(&self, frame_bytes: usize, state: impl FnOnce() -> (Mark, LogIndex)) {
        let mut inner = self.0.lock();
        inner.bytes_since += frame_bytes as u64;
        if inner.bytes_since >= MARK_EVERY_BYTES {
            inner.bytes_since = 0;
            let (mark, first) = state();
            inner.by_next = inner.by_next.split_off(&first);
            inner.by_next.insert(mark.next, mark);
        }
    }

    /// Adds one.
    pub(crate) fn add(&self, mark: Mark) {
        self.0.lock().by_next.insert(mark.next, mark);
    }

    /// The marks whose next frame is there, where the journal begins with `first`: the last one of a state not behind
    /// `txn_id`, and the oldest. Those whose next frame is purged are forgotten.
    pub(crate) fn around(&self, txn_id: TxnId, first: LogIndex) -> (Option<Mark>, Option<Mark>) {
        let mut inner = self.0.lock();
        inner.by_next = inner.by_next.split_off(&first);
        let before = inner.by_next.values().rev().find(|mark| mark.txn_id <= txn_id).copied();
        (before, inner.by_next.values().next().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(next: u64, txn_id: u64) -> Mark {
        Mark { next: LogIndex(next), chain: next, txn_id: TxnId(txn_id), digest: Digest(0) }
    }

    #[test]
    fn the_last_mark_that_is_not_behind_is_found_and_those_of_purged_frames_are_forgotten() {
        let marks = Marks::default();
        for (next, txn_id) in [(3, 10), (7, 20), (9, 20), (12, 40)] {
            marks.add(mark(next, txn_id));
        }
        let around = |txn_id, first| marks.around(TxnId(txn_id), LogIndex(first));
        assert_eq!(around(9, 0), (None, Some(mark(3, 10))));
        assert_eq!(around(10, 0), (Some(mark(3, 10)), Some(mark(3, 10))));
        assert_eq!(around(39, 3), (Some(mark(9, 20)), Some(mark(3, 10))));
        assert_eq!(around(19, 4), (None, Some(mark(7, 20))));
        assert_eq!(around(19, 0), (None, Some(mark(7, 20))), "it was forgotten");
        assert_eq!(around(99, 13), (None, None));
    }

    #[test]
    fn a_mark_is_made_with_every_so_many_bytes() {
        let marks = Marks::default();
        for next in 1..=10 {
            marks.note(300 << 10, || (mark(next, next), LogIndex(0)));
        }
        let (last, oldest) = marks.around(TxnId(99), LogIndex(0));
        assert_eq!((last, oldest), (Some(mark(8, 8)), Some(mark(4, 4))));
    }

    #[test]
    fn a_node_that_nobody_watches_keeps_no_marks_of_purged_frames() {
        let marks = Marks::default();
        for next in 1..=100_u64 {
            marks.note(1 << 20, || (mark(next, next), LogIndex(next.saturating_sub(3))));
        }
        assert_eq!(marks.0.lock().by_next.len(), 4);
    }
}
