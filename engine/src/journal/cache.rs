//! The newest frames, kept in memory for followers that keep up, for applying, and because a queued frame is readable
//! before it is on disk.
//!
//! Invariants: the cached frames are consecutive and end with the last appended frame; a frame that is not durable is
//! never evicted, whatever the bound says.

use std::collections::VecDeque;

use crate::ids::LogIndex;
use crate::journal::frame::Frame;

pub(super) struct Cache {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// In bytes of whole frames.
    bound_bytes: usize,
}

impl Cache {
    pub fn new(bound_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, bound_bytes }
    }

    /// The index of the oldest cached frame.
    pub fn first_index(&self) -> Option<LogIndex> {
        self.frames.front().map(|frame| frame.log_id().index)
    }

    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.frame_bytes();
        self.frames.push_back(frame);
    }

    pub fn get(&self, index: LogIndex) -> Option<&Frame> {
        let slot = index.0.checked_sub(self.first_index()?.0)?;
        self.frames.get(usize::try_from(slot).ok()?)
    }

    /// Drops all frames from `first_gone` on: they were cut.
    pub fn truncate_from(&mut self, first_gone: LogIndex) {
        while let Some(frame) = self.frames.pop_back_if(|frame| frame.log_id().index >= first_gone) {
            self.bytes -= frame.frame_bytes();
        }
    }

    /// Drops all frames below `first_kept`: they were purged.
    pub fn drop_below(&mut self, first_kept: LogIndex) {
        while let Some(frame) = self.frames.pop_front_if(|frame| frame.log_id().index < first_kept) {
            self.bytes -= frame.frame_bytes();
        }
    }

    /// Comes back under the bound, at the cost of the oldest durable frames. `durable` is the last durable index.
    pub fn evict(&mut self, durable: Option<LogIndex>) {
        while self.bytes > self.bound_bytes {
            let Some(frame) = self.frames.pop_front_if(|frame| Some(frame.log_id().index) <= durable) else { return };
            self.bytes -= frame.frame_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::LogId;
    use crate::journal::frame::{FrameKind, Payload};

    fn cache_of(indexes: std::ops::Range<u64>, bound_bytes: usize) -> Cache {
        let mut cache = Cache::new(bound_bytes);
        for index in indexes {
            cache.push(Frame::encode(FrameKind::Blank, LogId::new(1, index), None, 0, Payload::new(Bytes::new())));
        }
        cache
    }

    #[test]
    fn evicts_the_oldest_durable_frames_only() {
        let mut cache = cache_of(5..10, 72 * 2);
        cache.evict(None);
        assert_eq!(cache.first_index(), Some(LogIndex(5)));
        cache.evict(Some(LogIndex(6)));
        assert_eq!(cache.first_index(), Some(LogIndex(7)));
        cache.evict(Some(LogIndex(9)));
        assert_eq!(cache.first_index(), Some(LogIndex(8)));
        assert_eq!(cache.get(LogIndex(7)), None);
        assert_eq!(cache.get(LogIndex(9)).map(Frame::log_id), Some(LogId::new(1, 9)));
        assert_eq!(cache.bytes, 144);
    }

    #[test]
    fn cut_and_purge() {
        let mut cache = cache_of(5..10, 1 << 20);
        cache.truncate_from(LogIndex(8));
        cache.drop_below(LogIndex(6));
        assert_eq!((cache.first_index(), cache.bytes), (Some(LogIndex(6)), 144));
        cache.truncate_from(LogIndex(0));
        assert_eq!((cache.first_index(), cache.bytes), (None, 0));
    }
}
