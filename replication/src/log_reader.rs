//! Reads entries from the journal for the consensus: a frame per entry, its bytes shared.
//!
//! - Everything from the logical purge point up that was appended is readable at once, whether it has reached the
//!   disk or not: the journal keeps a frame in memory until it is written.
//! - A replication task of a leader that was deposed may read while the new leader's entries cut the ones it wants, or a
//!   purge takes them. What is not there any more is not an error, which would end the node: the answer ends there.
//! - Requests to followers and chunks to apply are bounded in bytes, not in entries: 300 entries of 16 MiB are not a
//!   request.
//! - Start-up needs only where terms end. That comes from log ids, which the journal has in memory; no frame is read.

use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use calamus_engine::Engine;
use calamus_engine::error::StorageError;
use calamus_engine::ids::{LogId, LogIndex};
use futures::Stream;
use openraft::OptionalSend;
use openraft::RaftLogReader;

use crate::log_store::storage_error;
use crate::network::convert::{to_log_id, to_raft_log_id, to_raft_vote};
use crate::repair::when_repaired;
use crate::types::{Entry, RaftLogId, RaftVote, TypeConfig};

/// The most that one request to a follower, or one chunk of entries to apply, holds, in bytes of payload (a single
/// larger frame goes alone).
pub const READ_BYTES: usize = 1 << 20;

/// Reads the journal.
#[derive(Clone)]
pub struct LogReader {
    engine: Engine,
}

impl LogReader {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// `range` as [start, end), without what is purged or not there.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> (LogIndex, LogIndex) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.engine.log_state();
        let first = state.last_purged.map_or(0, |purged| purged.index.0 + 1);
        let past_last = state.last.map_or(0, |last| last.index.0 + 1);
        (LogIndex(start.max(first)), LogIndex(end.min(past_last)))
    }

    fn holds(&self, index: LogIndex) -> bool {
        let (start, end) = self.clamp(&(index.0..=index.0));
        start < end
    }

    /// Some of the entries [start, end) from the front: at least one if there is one.
    fn read_some(&self, start: LogIndex, end: LogIndex) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let frames = match self.engine.read_frames(start, end, READ_BYTES) {
            Ok(frames) if frames.first().is_some_and(|first| first.log_id().index == start) => frames,
            _ if !self.holds(start) => return Ok(Vec::new()),
            Ok(frames) => {
                let found = frames.first().map(|frame| frame.log_id().to_string());
                return Err(io::Error::other(format!("the journal gives {found:?} where entry {start} must be")));
            }
            Err(error) => return Err(storage_error(error)),
        };
        frames.into_iter().map(|frame| Entry::from_frame(frame).map_err(io::Error::other)).collect()
    }

    /// As [`Self::read_some`], but where a frame is damaged it waits for the repair.
    async fn read_repaired(&self, start: LogIndex, end: LogIndex) -> Result<Vec<Entry>, io::Error> {
        let damage = |error: &io::Error| error.get_ref()?.downcast_ref::<StorageError>().cloned();
        when_repaired(|| self.read_some(start, end), damage).await
    }

    fn last_of_term(&self, first: LogId, last: LogId) -> Result<LogId, io::Error> {
        let (mut low, mut high) = (first, last.index.0);
        // `low` is of the term; everything above `high` is not.
        while low.index.0 < high {
            let middle = low.index.0 + (high - low.index.0).div_ceil(2);
            let log_id = self.log_id(middle)?;
            if log_id.term == first.term {
                low = log_id;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    fn log_id(&self, index: u64) -> Result<LogId, io::Error> {
        self.engine
            .log_id(LogIndex(index))
            .ok_or_else(|| io::Error::other(format!("the journal has no entry {index} between its first and its last")))
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.clamp(&range);
        let mut entries = Vec::new();
        while start < end {
            let part = self.read_repaired(start, end).await?;
            if part.is_empty() {
                break;
            }
            start = LogIndex(start.0 + part.len() as u64);
            entries.extend(part);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.engine.vote().map(to_raft_vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = self.clamp(&(start..end));
        self.read_repaired(start, end).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (start, end) = self.clamp(&range);
        let reader = self.clone();
        let state = (reader, start, end, Vec::new().into_iter(), false);
        futures::stream::unfold(state, |(reader, mut start, end, mut chunk, failed)| async move {
            if failed {
                return None;
            }
            loop {
                if let Some(entry) = chunk.next() {
                    return Some((Ok(entry), (reader, start, end, chunk, false)));
                }
                if start >= end {
                    return None;
                }
                match reader.read_repaired(start, end).await {
                    Ok(part) if part.is_empty() => return None,
                    Ok(part) => {
                        start = LogIndex(start.0 + part.len() as u64);
                        chunk = part.into_iter();
                    }
                    Err(error) => return Some((Err(error), (reader, start, end, chunk, true))),
                }
            }
        })
    }

    /// The last log id of each leader in the range: a binary search for the end of each term.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<RaftLogId>) -> Result<Vec<RaftLogId>, io::Error> {
        let last = to_log_id(range.end());
        let mut first = to_log_id(range.start());
        let mut keys = Vec::new();
        loop {
            let end = self.last_of_term(first, last)?;
            keys.push(to_raft_log_id(end));
            if end.index >= last.index {
                return Ok(keys);
            }
            first = self.log_id(end.index.0 + 1)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calamus_engine::env::RealDisk;
    use calamus_engine::journal::frame::{Frame, FrameKind, Payload};

    use super::*;
    use crate::tests::support;

    fn wait(queue: impl FnOnce(calamus_engine::journal::Done)) {
        let (done, durable) = std::sync::mpsc::channel();
        queue(Box::new(move |result| drop(done.send(result))));
        durable.recv().expect("called").expect("durable");
    }

    #[tokio::test]
    async fn what_was_cut_between_two_looks_is_left_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = support::identity(1, "n", "h:1");
        let engine = support::create(Arc::new(RealDisk::new()), &directory.path().join("n"), &identity);
        let mut chain = engine.last_chain();
        let frames = (0..4).map(|index| {
            let payload = Payload::new(bytes::Bytes::new());
            let frame = Frame::encode(FrameKind::Blank, LogId::new(1, index), None, chain, payload);
            chain = frame.chain();
            frame
        });
        let frames: Vec<Frame> = frames.collect();
        wait(|done| engine.append(frames, done).expect("queued"));
        let mut reader = LogReader::new(engine.clone());
        let (start, end) = reader.clamp(&(2..4));
        assert_eq!(reader.read_some(start, end).expect("there").len(), 2);
        let mut streaming = reader.clone();
        let stream = streaming.entries_stream(2..4).await;
        wait(|done| engine.cut_after(Some(LogId::new(1, 1)), done).expect("queued"));
        // Those who looked before the cut go on behind it.
        assert_eq!(reader.read_some(start, end).expect("no error").len(), 0);
        assert_eq!(futures::StreamExt::count(stream).await, 0);
        assert_eq!(reader.try_get_log_entries(1..4).await.expect("readable").len(), 1);
    }
}
