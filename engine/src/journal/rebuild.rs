//! Blocks and segment headers that are damaged, made anew from what is in memory.
//!
//! A block is this node's own: no other node has it. All that it says is known, but for two numbers: which frames follow,
//! where they end and the chain value of the last stand in the index; the place up to which the journal was durable may
//! be the block's own, since everything before it is durable by now. The block's number and cut epoch come from its
//! neighbours:
//! - between two frames that do not follow each other at once there stands the block of a group, and before that, if the
//!   journal was cut there or opened, one of a cut;
//! - a group has the number after that of the block before it, and the same epoch. So has a group behind its cut.
//!
//! So of a run of blocks one tells the others, but never backwards over a cut, before which the epoch was another. Where
//! the neighbours do not say it, or contradict each other, nothing is made. A segment's header has the number of its first
//! group, where no cut stands before that; a journal's very first segment begins with group 1.
//!
//! What is made is written on the journal's thread, within one sector: it is there whole or not at all. *Crash before:* as
//! if nobody had found it.

use crate::ids::{JournalPosition, LogIndex};
use crate::journal::format::{FIRST_SEGMENT, UNIT_BYTES, span};
use crate::journal::group::{GroupBlock, GroupKind, chain_low};
use crate::journal::segment::SegmentHeader;
use crate::journal::state::State;

/// A place between frames where a block must stand.
pub(super) struct Unit {
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// Which of the run's frames follows.
    pub of: usize,
    /// What must stand there.
    pub kind: GroupKind,
    /// What stands there.
    pub block: Option<GroupBlock>,
}

/// Number and epoch of the block at `units[at]`, by what stands around it.
pub(super) fn numbered(units: &[Unit], at: usize, header: Option<&SegmentHeader>) -> Option<(u64, u64)> {
    match (by_those_before(units, at, header), by_those_behind(units, at)) {
        (Some(before), Some(behind)) => (before == behind).then_some(before),
        (before, behind) => before.or(behind),
    }
}

fn by_those_before(units: &[Unit], at: usize, header: Option<&SegmentHeader>) -> Option<(u64, u64)> {
    for (distance, unit) in (0..).zip(units[..=at].iter().rev()) {
        if let Some(block) = &unit.block {
            return Some((block.number + distance, block.epoch));
        }
        if unit.kind == GroupKind::Cut {
            return None;
        }
    }
    header.map(|header| (header.first_group + at as u64, header.epoch))
}

fn by_those_behind(units: &[Unit], at: usize) -> Option<(u64, u64)> {
    for (distance, unit) in (0..).zip(&units[at..]) {
        if distance > 0 && unit.kind == GroupKind::Cut {
            return None;
        }
        if let Some(block) = &unit.block {
            return Some((block.number.checked_sub(distance)?, block.epoch));
        }
    }
    None
}

/// Number of the first group and epoch of a segment, by the blocks at its beginning.
pub(super) fn of_segment(segment: u64, units: &[Unit]) -> Option<(u64, u64)> {
    match units.first()? {
        Unit { kind: GroupKind::Append, block: Some(block), .. } => Some((block.number, block.epoch)),
        Unit { kind: GroupKind::Append, .. } => numbered(units, 0, None),
        _ => (segment == FIRST_SEGMENT).then_some((1, 0)),
    }
}

/// The block at `offset` of the segment in which the frame at `next` stands, which is the first behind it.
pub(super) fn block(
    state: &State,
    kind: GroupKind,
    offset: u64,
    next: LogIndex,
    (number, epoch): (u64, u64),
) -> Option<GroupBlock> {
    let (segment, _) = state.geometry.place(state.index.get(next)?.position);
    let position = state.geometry.position(segment, offset);
    let own = GroupBlock {
        kind,
        number,
        epoch,
        attested: position,
        position,
        end: JournalPosition(position.0 + UNIT_BYTES),
        first_index: next,
        frames: 0,
        chain_low: chain_low(chain_before(state, next)?),
    };
    Some(if kind == GroupKind::Append { with_frames(state, own) } else { own })
}

fn chain_before(state: &State, next: LogIndex) -> Option<u64> {
    if state.index.first_index() == next {
        return Some(state.index.start().chain);
    }
    state.index.chain(LogIndex(next.0.checked_sub(1)?))
}

/// The block with the frames that stand behind it, one at the end of the other.
fn with_frames(state: &State, mut block: GroupBlock) -> GroupBlock {
    for index in (block.first_index.0..).map(LogIndex) {
        let Some(entry) = state.index.get(index).filter(|entry| entry.position == block.end) else { break };
        block.end.0 += span(entry.bytes as usize);
        block.frames += 1;
        block.chain_low = chain_low(entry.chain);
    }
    block
}
