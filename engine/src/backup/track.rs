//! Frames in order: each follows the one before by index and chain value, and the state goes along.

use crate::ids::{LogIndex, Timeline};
use crate::journal::frame::Frame;
use crate::recovery::replay::advance;
use crate::store::AppliedState;
use crate::txn::record::Record;

/// A state that is moved on by frames, going by their own words.
pub(super) struct Track {
    pub(super) state: AppliedState,
    timeline: Timeline,
}

impl Track {
    /// From a state on, which is of `timeline`.
    pub(super) fn new(state: AppliedState, timeline: Timeline) -> Self {
        Self { state, timeline }
    }

    /// The index of the next frame.
    pub(super) fn next_index(&self) -> LogIndex {
        self.state.log_id.map_or(LogIndex(0), |log_id| log_id.index.next())
    }

    /// Moves on by a frame. Returns its record if that changes the state; the error says why the frame does not follow.
    pub(super) fn take(&mut self, frame: &Frame) -> Result<Option<Record>, String> {
        let (next, last_term) = (self.next_index(), self.state.log_id.map(|log_id| log_id.term));
        let log_id = frame.log_id();
        if log_id.index != next || Some(log_id.term) < last_term || !frame.follows(self.state.chain) {
            return Err(format!("frame {log_id} does not follow {:?}", self.state.log_id));
        }
        advance(&mut self.state, self.timeline, frame).map_err(|error| format!("frame {log_id}: {error}"))
    }
}
