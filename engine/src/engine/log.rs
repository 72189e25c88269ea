//! The consensus' view of the directory: its vote and its log.

use std::sync::atomic::Ordering;

use super::Engine;
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex, RaftId, Term, Timeline};
use crate::journal::frame::Frame;
use crate::journal::{Done, Journal, Who};

/// The size of a slot of `vote`, in bytes.
pub(crate) const VOTE_SLOT_BYTES: u64 = 4096;

/// A vote: for whom in which term, and whether a quorum has granted it. Exhaustive: a consensus makes
/// it, and must fill in all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// Whom the vote is for; `None` for nobody.
    pub node: Option<RaftId>,
    /// Whether that node leads the term.
    pub committed: bool,
}

impl Vote {
    /// `term` u64, mark of node u8, node u64, committed u8; little endian.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(18);
        bytes.extend_from_slice(&self.term.0.to_le_bytes());
        bytes.push(u8::from(self.node.is_some()));
        bytes.extend_from_slice(&self.node.unwrap_or_default().0.to_le_bytes());
        bytes.push(u8::from(self.committed));
        bytes
    }

    /// Reads a vote; an empty value is "none yet".
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes: &[u8; 18] = bytes.try_into().map_err(|_| "a vote of a wrong length")?;
        if bytes[8] > 1 || bytes[17] > 1 {
            return Err("a mark that is neither 0 nor 1");
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let node = (bytes[8] == 1).then(|| RaftId(number(9)));
        Ok(Some(Self { term: Term(number(0)), node, committed: bytes[17] == 1 }))
    }
}

/// How far the log reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogState {
    /// The consensus may no longer ask for entries up to here.
    pub last_purged: Option<LogId>,
    /// The last entry, durable or not; the last purged one if there is none.
    pub last: Option<LogId>,
    /// The last entry that is durable here.
    pub durable: Option<LogId>,
}

impl Engine {
    /// The vote as it was last saved.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        *self.core.vote.lock()
    }

    /// Saves a vote, in one order with the frames queued before and after it; durable before `done` runs.
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), StorageError> {
        *self.core.vote.lock() = Some(vote);
        let file = self.core.vote_file.clone();
        let write = move || file.lock().write(&vote.encode());
        self.core.store().journal.run_in_order(Box::new(write), done)
    }

    /// Queues frames behind the last one. They can be read at once; they are durable when `done` runs.
    ///
    /// # Panics
    /// When they do not continue the log.
    pub fn append(&self, frames: Vec<Frame>, done: Done) -> Result<(), StorageError> {
        let journal = self.queue(|journal| journal.queue_append(frames, done))?;
        journal.work_off(Who::Thread);
        Ok(())
    }

    /// As [`Self::append`], for a caller that waits for `done`: it writes what is queued itself, unless somebody is at it.
    pub(crate) fn append_here(&self, frames: Vec<Frame>, done: Done) -> Result<(), StorageError> {
        let journal = self.queue(|journal| journal.queue_append(frames, done))?;
        journal.work_off(Who::Caller);
        Ok(())
    }

    /// Queues something to the journal in use, which is returned. A new generation takes along what the old journal holds,
    /// and would miss what came to it behind the copy: so the store is held until this is queued, and no longer, as
    /// callbacks ask for the store too.
    fn queue(&self, put: impl FnOnce(&Journal) -> Result<(), StorageError>) -> Result<Journal, StorageError> {
        self.core.store.with(|store| {
            put(&store.journal)?;
            Ok(store.journal.clone())
        })
    }

    /// Returns when every frame queued so far is durable.
    pub(crate) fn sync_journal(&self) -> Result<(), StorageError> {
        self.core.store().journal.sync()
    }

    /// Bytes of frames that are queued and not durable.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.core.store().journal.pending_bytes()
    }

    /// No consensus reads the journal: from here on it is purged up to what checkpoint, pins and retention need.
    pub(crate) fn purge_unasked(&self) {
        self.core.purge_unasked.store(true, Ordering::Relaxed);
    }

    /// The chain value after the last frame, which the next one is encoded with.
    #[must_use]
    pub fn last_chain(&self) -> u64 {
        self.core.store().journal.last_chain()
    }

    /// The chain value after the frame of an index, if the journal still knows it.
    #[must_use]
    pub fn chain_at(&self, index: LogIndex) -> Option<u64> {
        self.core.store().journal.chain(index)
    }

    /// Removes every frame behind `last`; unreadable at once, gone for good when `done` runs.
    ///
    /// # Panics
    /// When an applied frame would go.
    pub fn cut_after(&self, last: Option<LogId>, done: Done) -> Result<(), StorageError> {
        let applied = self.applied().log_id;
        let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
        assert!(index(last) >= index(applied), "a cut behind {last:?} would remove applied frames up to {applied:?}");
        let journal = self.queue(|journal| journal.queue_cut(last, done))?;
        journal.work_off(Who::Thread);
        Ok(())
    }

    /// Notes that the consensus needs no frames up to `upto`. They go in the background, never above the checkpoint, a
    /// pin, or what the retention keeps.
    pub fn purge(&self, upto: LogId) -> Result<(), StorageError> {
        let mut wish = self.core.purge_wish.lock();
        if wish.is_none_or(|old| old.index < upto.index) {
            *wish = Some(upto);
        }
        Ok(())
    }

    /// How far the log reaches.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        let journal = &self.core.store().journal;
        let newer = |a: Option<LogId>, b: Option<LogId>| if a.map(|a| a.index) >= b.map(|b| b.index) { a } else { b };
        let last_purged = newer(journal.first_kept().previous, *self.core.purge_wish.lock());
        LogState { last_purged, last: newer(journal.last(), last_purged), durable: journal.durable() }
    }

    /// How many bytes of journal there are from the frame of `index` on; 0 if it is not on disk yet, or there is none.
    #[must_use]
    pub fn journal_bytes_from(&self, index: LogIndex) -> u64 {
        let store = self.core.store();
        let last = store.journal.last().and_then(|last| store.journal.position(last.index));
        match (store.journal.position(index), last) {
            (Some(from), Some(to)) => to.0.saturating_sub(from.0),
            _ => 0,
        }
    }

    /// The log id of an index, if the journal still knows it.
    #[must_use]
    pub fn log_id(&self, index: LogIndex) -> Option<LogId> {
        self.core.store().journal.log_id(index)
    }

    /// The first frame that could still go: those before it are applied here, so that no cut takes them, and durable here,
    /// so that no power cut does.
    pub(crate) fn stays_until(&self) -> LogIndex {
        self.core.store.with(|store| {
            let applied = store.head.lock().view.applied.log_id;
            let stays = applied.map(|applied| applied.index).min(store.journal.durable().map(|durable| durable.index));
            stays.map_or(LogIndex(0), LogIndex::next)
        })
    }

    /// The timeline of the database.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.core.store().head.lock().view.superblock.timeline
    }

    /// Frames from `from` on, below `until_exclusive`: at least one if there is one, and no more than about `max_bytes`.
    pub fn read_frames(
        &self,
        from: LogIndex,
        until_exclusive: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Frame>, StorageError> {
        let read = self.core.store().journal.read(from, until_exclusive, max_bytes);
        read.inspect_err(|error| self.core.note_damage(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_18_bytes() {
        let vote = Vote { term: Term(3), node: Some(RaftId(0x0102)), committed: true };
        let bytes = vote.encode();
        assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Vote::decode(&bytes), Ok(Some(vote)));
        assert_eq!(Vote::decode(&[]), Ok(None));
        assert!(Vote::decode(&bytes[1..]).is_err());
        let mut bad = bytes;
        bad[8] = 2;
        assert!(Vote::decode(&bad).is_err());
    }
}
