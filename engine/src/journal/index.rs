//! Where each kept frame stands: 24 bytes a frame, in memory, for all frames from the first kept one to the last
//! appended.
//!
//! Invariants: entries are consecutive; a position of 0 means *queued, not yet written*, and is never followed by a
//! position other than 0; terms never go down.

use std::collections::VecDeque;

use crate::ids::{JournalPosition, LogId, LogIndex, Term};
use crate::journal::format::LogStart;

/// What is known of a frame without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Where it stands; 0 until it is written.
    pub position: JournalPosition,
    /// The chain value after it.
    pub chain: u64,
    /// Its length, without the padding to the next unit.
    pub bytes: u32,
}

pub(super) struct Index {
    start: LogStart,
    entries: VecDeque<Entry>,
    /// (first index of the term, term), ascending.
    terms: VecDeque<(LogIndex, Term)>,
}

impl Index {
    pub fn new(start: LogStart) -> Self {
        Self { start, entries: VecDeque::new(), terms: VecDeque::new() }
    }

    /// The frame before the first kept one.
    pub fn start(&self) -> LogStart {
        self.start
    }

    /// The index of the first kept frame, if there is one.
    pub fn first_index(&self) -> LogIndex {
        self.start.next_index()
    }

    /// The index the next frame gets.
    pub fn next_index(&self) -> LogIndex {
        LogIndex(self.first_index().0 + self.entries.len() as u64)
    }

    /// The last frame: of those kept, else the one before.
    pub fn end(&self) -> LogStart {
        match (self.entries.back(), self.terms.back()) {
            (Some(entry), Some((_, term))) => {
                let index = LogIndex(self.next_index().0 - 1);
                LogStart { previous: Some(LogId { term: *term, index }), chain: entry.chain }
            }
            _ => self.start,
        }
    }

    fn slot(&self, index: LogIndex) -> Option<usize> {
        let slot = usize::try_from(index.0.checked_sub(self.first_index().0)?).ok()?;
        (slot < self.entries.len()).then_some(slot)
    }

    pub fn get(&self, index: LogIndex) -> Option<Entry> {
        self.slot(index).map(|slot| self.entries[slot])
    }

    /// The log id of a kept frame, or of the one before the first.
    pub fn log_id(&self, index: LogIndex) -> Option<LogId> {
        if let Some(previous) = self.start.previous.filter(|previous| previous.index == index) {
            return Some(previous);
        }
        self.slot(index)?;
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        Some(LogId { term: self.terms[run - 1].1, index })
    }

    /// The chain value after a kept frame, or after the one before the first.
    pub fn chain(&self, index: LogIndex) -> Option<u64> {
        if self.start.previous.is_some_and(|previous| previous.index == index) {
            return Some(self.start.chain);
        }
        self.get(index).map(|entry| entry.chain)
    }

    /// Adds the frame that follows the last.
    ///
    /// # Panics
    /// When it does not follow.
    pub fn push(&mut self, log_id: LogId, entry: Entry) {
        let end = self.end();
        assert_eq!(log_id.index, self.next_index(), "frame {log_id} does not follow {:?}", end.previous);
        let last_term = end.previous.map(|previous| previous.term);
        assert!(last_term <= Some(log_id.term), "the term of frame {log_id} is below that of {:?}", end.previous);
        if self.terms.back().is_none_or(|(_, term)| *term != log_id.term) {
            self.terms.push_back((log_id.index, log_id.term));
        }
        self.entries.push_back(entry);
    }

    /// Says where a queued frame was written.
    pub fn set_position(&mut self, index: LogIndex, position: JournalPosition) {
        let slot = self.slot(index).expect("a frame being written is in the index");
        self.entries[slot].position = position;
    }

    /// Forgets everything after `last`.
    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let kept = LogStart { previous: last, chain: 0 }.next_index().0 - self.first_index().0;
        self.entries.truncate(usize::try_from(kept).expect("no more than there are"));
        while self.terms.back().is_some_and(|(first, _)| last.is_none_or(|last| *first > last.index)) {
            self.terms.pop_back();
        }
    }

    /// Forgets everything up to the frame before the new first one.
    pub fn purge(&mut self, start: LogStart) {
        let gone = start.next_index().0 - self.first_index().0;
        self.entries.drain(..usize::try_from(gone).expect("no more than there are"));
        self.start = start;
        while self.terms.len() > 1 && self.terms[1].0 <= start.next_index() {
            self.terms.pop_front();
        }
        if self.entries.is_empty() {
            self.terms.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Index {
        let mut index = Index::new(LogStart { previous: Some(LogId::new(1, 9)), chain: 90 });
        for (term, at) in [(1, 10), (1, 11), (3, 12), (3, 13), (7, 14)] {
            index.push(LogId::new(term, at), Entry { position: JournalPosition(at * 64), chain: at * 10, bytes: 72 });
        }
        index
    }

    #[test]
    fn terms_chains_and_ends() {
        let mut index = filled();
        let ids = |index: &Index| (8..16).filter_map(|at| index.log_id(LogIndex(at))).collect::<Vec<_>>();
        let all: Vec<LogId> =
            [(1, 9), (1, 10), (1, 11), (3, 12), (3, 13), (7, 14)].map(|(t, i)| LogId::new(t, i)).into();
        assert_eq!(ids(&index), all);
        assert_eq!(index.chain(LogIndex(9)), Some(90));
        index.purge(LogStart { previous: Some(LogId::new(3, 12)), chain: 120 });
        assert_eq!(ids(&index), all[3..]);
        index.truncate_after(Some(LogId::new(3, 13)));
        assert_eq!(ids(&index), all[3..5]);
        assert_eq!(index.end(), LogStart { previous: Some(LogId::new(3, 13)), chain: 130 });
        index.truncate_after(Some(LogId::new(3, 12)));
        assert_eq!(index.end(), index.start());
        assert_eq!(index.log_id(LogIndex(13)), None);
        index.push(LogId::new(4, 13), Entry { position: JournalPosition(0), chain: 1, bytes: 72 });
        assert_eq!(index.log_id(LogIndex(13)), Some(LogId::new(4, 13)));
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_is_a_broken_invariant() {
        filled().push(LogId::new(7, 16), Entry { position: JournalPosition(0), chain: 0, bytes: 72 });
    }

    #[test]
    #[should_panic(expected = "is below that of")]
    fn a_term_never_goes_down() {
        filled().push(LogId::new(6, 15), Entry { position: JournalPosition(0), chain: 0, bytes: 72 });
    }
}
