//! Sizes and places of the journal's files, in one place.
//!
//! A position in the journal is `segment number * segment bytes + offset in the segment`. Blocks and frames stand at
//! multiples of [`UNIT_BYTES`], so that a group block never straddles a sector of 512 bytes: written over anything, it
//! is there whole or not at all. That is what makes a cut atomic.
//!
//! ```text
//! segment:  0     header (72 bytes used, see segment.rs)
//!           2048  an attest block that says the same as the last one behind the frames, see writer.rs
//!           4096  first group block, its frames, the next group block, ...
//!           ...
//!           end-64  used by no frame: room for the cut block that follows the segment's last frame
//! ```

use std::path::{Path, PathBuf};

use crate::ids::{JournalPosition, LogId, LogIndex};

/// Blocks and frames start at multiples of this many bytes.
pub const UNIT_BYTES: u64 = 64;
/// The size of a segment's header, in bytes; the first group stands behind it.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Where in a segment's header the second attest stands, in bytes: in no block of the disk that has frames.
pub const SECOND_ATTEST_OFFSET: u64 = 2048;
/// The smallest segment, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// The largest segment, in bytes: far above any use, it only keeps nonsense from disk or options out of the arithmetic.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 40;
/// The number of a journal's first segment. Not 0, so that position 0 is nowhere.
pub const FIRST_SEGMENT: u64 = 1;

pub(super) const SECTOR_BYTES: u64 = 512;
const _: () = assert!(SECTOR_BYTES.is_multiple_of(UNIT_BYTES) && SEGMENT_HEADER_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(MIN_SEGMENT_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(SECOND_ATTEST_OFFSET.is_multiple_of(SECTOR_BYTES) && SECOND_ATTEST_OFFSET < SEGMENT_HEADER_BYTES);

/// The frame before a journal's (or a segment's) first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogStart {
    /// Its log id; `None` for an empty log.
    pub previous: Option<LogId>,
    /// The chain value after it; [`super::CHAIN_START`] for an empty log.
    pub chain: u64,
}

impl LogStart {
    /// The index of the frame that follows.
    #[must_use]
    pub fn next_index(&self) -> LogIndex {
        self.previous.map_or(LogIndex(0), |previous| previous.index.next())
    }
}

/// Whether segments may have this size.
pub(super) fn is_segment_size(bytes: u64) -> bool {
    (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes) && bytes.is_multiple_of(SECTOR_BYTES)
}

/// Turns positions into places in segments, and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// The size of every segment, in bytes; fixed for the life of a journal.
    pub segment_bytes: u64,
}

impl Geometry {
    pub fn position(self, segment: u64, offset: u64) -> JournalPosition {
        JournalPosition(segment.checked_mul(self.segment_bytes).expect("journal positions exhausted") + offset)
    }

    /// The segment and the offset in it, in bytes.
    pub fn place(self, position: JournalPosition) -> (u64, u64) {
        (position.0 / self.segment_bytes, position.0 % self.segment_bytes)
    }

    /// Where groups end at the latest: the last unit stays free for a cut block.
    pub fn limit(self) -> u64 {
        self.segment_bytes - UNIT_BYTES
    }

    /// How many bytes of frames fit behind a group block at `offset`.
    pub fn room(self, offset: u64) -> u64 {
        self.limit().saturating_sub(offset + UNIT_BYTES)
    }

    /// How many bytes of frames fit in a fresh segment.
    pub fn fresh_room(self) -> u64 {
        self.room(SEGMENT_HEADER_BYTES)
    }
}

/// The bytes a frame takes in a segment, up to where the next may start.
pub(super) fn span(frame_bytes: usize) -> u64 {
    (frame_bytes as u64).next_multiple_of(UNIT_BYTES)
}

/// The path of a segment.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.seg"))
}

/// The path of a spare: a file of a segment's size that holds nothing of value.
pub(super) fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("spare-{number}"))
}

/// The number in a segment's name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// The number in a spare's name.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.parse().ok()
}
