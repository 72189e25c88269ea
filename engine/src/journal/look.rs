//! Looks behind a place where the journal cannot be read on, for a block that could only have been written after what
//! stood there was durable.

use std::path::Path;

use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::JournalPosition;
use crate::journal::format::{Geometry, SECOND_ATTEST_OFFSET, SEGMENT_HEADER_BYTES, UNIT_BYTES, segment_path};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock};
use crate::journal::window::{WINDOW_BYTES, Window};

/// What was found.
pub(super) struct Found {
    /// A block that attests the place in question, if there is one: then the place is damaged.
    pub witness: Option<GroupBlock>,
    /// The highest epoch and number of all blocks, and of the walk so far.
    pub epoch: u64,
    pub number: u64,
}

/// Searches from `from` (segment, offset) through all later segments, at every place a block can stand, and in their
/// headers.
///
/// A block bears witness if it stands where it says, its epoch is not below the current one (a cut would have raised
/// it), its number is above the current one, both are near enough to be of this journal, and it attests more than
/// `position`.
pub(super) fn look_further(
    disk: &dyn Disk,
    directory: &Path,
    geometry: Geometry,
    segments: &[u64],
    from: (u64, u64),
    current: (u64, u64),
    position: JournalPosition,
) -> Result<Found, StorageError> {
    let mut found = Found { witness: None, epoch: current.0, number: current.1 };
    for segment in segments.iter().copied().filter(|segment| *segment >= from.0) {
        let mut window =
            Window::new(disk.open(&segment_path(directory, segment), OpenMode::Read)?, geometry, WINDOW_BYTES);
        let mut offset = SECOND_ATTEST_OFFSET;
        let begin = if segment == from.0 { from.1 } else { SEGMENT_HEADER_BYTES };
        loop {
            let bytes = window.bytes(offset, GROUP_BLOCK_BYTES as u64)?;
            if bytes.len() < GROUP_BLOCK_BYTES {
                break;
            }
            let block = GroupBlock::decode(&bytes, geometry.position(segment, offset));
            if let Some(block) = block.filter(|block| block.is_near(current.0, current.1)) {
                let newer = block.epoch >= current.0 && block.number > current.1;
                if newer && block.attested > position && found.witness.is_none() {
                    found.witness = Some(block);
                }
                found.epoch = found.epoch.max(block.epoch);
                found.number = found.number.max(block.number);
            }
            offset = if offset == SECOND_ATTEST_OFFSET { begin } else { offset + UNIT_BYTES };
        }
    }
    Ok(found)
}
