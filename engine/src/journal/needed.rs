//! How much space the journal is still to take.

use crate::ids::{JournalPosition, LogId, LogIndex};
use crate::journal::format::UNIT_BYTES;
use crate::journal::state::State;

impl State {
    /// How many bytes of segments are still to be made for all that waits and `bytes` of frames behind it, at most.
    ///
    /// Each frame takes its bytes, a group block and padding. If all of that fits behind what is written, no segment is
    /// begun; else one is, and further ones where frames do not fit: of any two segments one behind the other, the first
    /// frame of the later one did not fit in the earlier, so together they are more than full, and there are no more of
    /// them than twice as many as the bytes fill.
    pub fn space_needed(&self, bytes: u64) -> u64 {
        let around = 2 * UNIT_BYTES * (self.pending_frames() as u64 + 1);
        let all = self.pending_bytes() as u64 + bytes + around;
        if all <= self.geometry.room(self.end_offset) {
            return 0;
        }
        let begun = 1 + 2 * all / self.geometry.fresh_room();
        let missing = begun.saturating_sub(self.spares.ready() as u64);
        (missing * self.geometry.segment_bytes).saturating_sub(self.spares.made_bytes())
    }

    /// How many bytes the frames behind `last` take, at most, those that wait included.
    pub fn bytes_behind(&self, last: Option<LogId>) -> u64 {
        let next = last.map_or(LogIndex(0), |last| last.index.next());
        if next >= self.index.next_index() {
            return 0;
        }
        // Of frames that are not written yet the position is not known; they are counted as waiting.
        let first = self.index.get(next).map_or(JournalPosition(0), |entry| entry.position);
        let end = self.geometry.position(self.segments[self.segments.len() - 1].number, self.end_offset);
        let written = if first == JournalPosition(0) { 0 } else { end.0.saturating_sub(first.0) };
        written + self.pending_bytes() as u64
    }
}
