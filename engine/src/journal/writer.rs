//! Writes groups: one positioned write and one sync each, the header of a fresh segment included.
//!
//! Only one writer exists; it is the only one that writes to segments. Its position pointers:
//! `attested <= durable = the end of what is written`, since nothing but an attest is written without a sync, and an
//! attest does not move the end.
//!
//! Every write covers whole blocks of [`BLOCK_BYTES`]: it begins with the bytes that stand in its first block before it,
//! as they are, and ends with zeros up to the end of its last block (or of the segment). So it can go past the page
//! cache, and the disk never has to read a block to change a part of it. What this changes for a crash:
//! - The bytes before it are durable and written again as they are, so whichever sectors arrive, they stay the same.
//! - The zeros go over bytes behind the end of the journal. Nothing there is ever needed: an attest of this very end,
//!   which the block of the group replaces, or leftovers that only have to stay worthless.
//!
//! # Attested twice
//!
//! An attest stands right behind the last frame, mostly in the same block of the disk as the last groups. A disk that
//! loses that block, or puts an older one in its place, loses frames together with the only witness of them, and the
//! journal would end earlier without a trace. So the same is said a second time in the header of the segment. That one
//! says as much of cuts: of the end that a cut leaves. It bears witness as any other block does: its place, its epoch
//! and its number must fit, so that one from before a cut, or from an earlier life of the file, says nothing. Crash by
//! crash: it is written after what it attests is durable, and not synced; absent, a witness is missing, which is no more
//! than if the journal had never been idle. The rest of its block of the disk is the header, written as it is.

use std::io::IoSlice;
use std::sync::Arc;

use crate::env::{BLOCK_BYTES, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::JournalPosition;
use crate::journal::format::{
    Geometry, LogStart, SECOND_ATTEST_OFFSET, SEGMENT_HEADER_BYTES, UNIT_BYTES, segment_path, span,
};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use crate::journal::run::Shared;
use crate::journal::segment::SegmentHeader;
use crate::journal::spare;
use crate::journal::state::{Segment, Written};

static PADDING: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(BLOCK_BYTES) && UNIT_BYTES <= BLOCK_BYTES);

pub(super) struct Writer {
    pub geometry: Geometry,
    /// The segment being written.
    pub segment: u64,
    /// Opened to be written.
    pub file: Arc<dyn DiskFile>,
    /// Where the next block goes, in bytes of the segment.
    pub offset: u64,
    /// The number of the last group.
    pub number: u64,
    pub epoch: u64,
    /// Up to where a block on disk says that the journal is durable.
    pub attested: JournalPosition,
    /// The last frame on disk.
    pub last: LogStart,
    /// Bytes behind the end are not known to be worthless: the next cut may not be left out.
    pub must_cut: bool,
    /// What stands in the block of `offset` before it, if that is known.
    pub tail: Option<Vec<u8>>,
}

impl Writer {
    /// Up to where the journal is written and durable.
    pub fn durable(&self) -> JournalPosition {
        self.geometry.position(self.segment, self.offset)
    }

    /// Writes `frames` as one group and syncs it; in a fresh segment if `fresh`.
    ///
    /// # Panics
    /// When they do not follow the last frame, or do not fit.
    pub fn write_group(&mut self, shared: &Shared, frames: &[Frame], fresh: bool) -> Result<Written, StorageError> {
        let first = frames.first().expect("a group has frames").log_id();
        assert_eq!(first.index, self.last.next_index(), "frame {first} does not follow {:?}", self.last.previous);
        assert!(frames[0].follows(self.last.chain), "frame {first} does not follow the chain of {:?}", self.last);
        assert!(!self.must_cut, "nothing is appended before a cut");
        let attested = self.durable();
        let segment = if fresh { Some(self.begin_segment(shared)?) } else { None };
        let begin = self.offset;
        let mut end = begin + UNIT_BYTES;
        let mut positions = Vec::with_capacity(frames.len());
        for frame in frames {
            positions.push(self.geometry.position(self.segment, end));
            end += span(frame.frame_bytes());
        }
        assert!(end <= self.geometry.limit(), "a group stays within its segment");
        let block = GroupBlock {
            kind: GroupKind::Append,
            number: self.number + 1,
            epoch: self.epoch,
            attested,
            position: self.durable(),
            end: self.geometry.position(self.segment, end),
            first_index: first.index,
            frames: u32::try_from(frames.len()).expect("groups are bounded"),
            chain_low: chain_low(frames.last().expect("a group has frames").chain()),
        };
        let header = fresh.then(|| self.header().encode());
        let encoded = block.encode();
        let parts = group_parts(&encoded, frames);
        let bytes = match header {
            Some(header) => self.write_blocks(0, &header[..], parts, end)?,
            None => {
                let before = self.take_tail()?;
                self.write_blocks(begin - before.len() as u64, &before, parts, end)?
            }
        };
        if !shared.options.acknowledges_before_sync() {
            self.file.sync_data()?;
        }
        let last = frames.last().expect("a group has frames");
        self.last = LogStart { previous: Some(last.log_id()), chain: last.chain() };
        self.number = block.number;
        self.offset = end;
        self.attested = attested;
        Ok(Written { positions, segment, bytes, end_offset: end })
    }

    /// The header of the segment being begun.
    fn header(&self) -> SegmentHeader {
        SegmentHeader {
            number: self.segment,
            segment_bytes: self.geometry.segment_bytes,
            first_group: self.number + 1,
            epoch: self.epoch,
            start: self.last,
        }
    }

    /// Gives a spare the next segment's name, durably. Its header is written together with its first group.
    fn begin_segment(&mut self, shared: &Shared) -> Result<Segment, StorageError> {
        let spare = spare::take(shared)?;
        let number = self.segment + 1;
        let path = segment_path(&shared.directory, number);
        shared.disk.rename(&spare, &path)?;
        shared.disk.sync_dir(&shared.directory)?;
        self.file = shared.disk.open(&path, OpenMode::WriteBlocks)?;
        self.segment = number;
        self.offset = SEGMENT_HEADER_BYTES;
        self.tail = None;
        Ok(Segment { number, start: self.last, file: shared.disk.open(&path, OpenMode::Read)? })
    }

    /// Whether an attest block has something to say, and room to say it.
    pub fn can_attest(&self) -> bool {
        !self.must_cut && self.attested < self.durable() && self.offset + UNIT_BYTES <= self.geometry.segment_bytes
    }

    /// Says on disk that everything so far is durable. Not synced: if it is lost, nothing else is. The next group is
    /// written over it.
    pub fn attest(&mut self) -> Result<(), StorageError> {
        let position = self.durable();
        let (encoded, offset) = (self.attest_block(position, position).encode(), self.offset);
        let before = self.take_tail()?;
        self.write_blocks(offset - before.len() as u64, &before, vec![&encoded], offset + UNIT_BYTES)?;
        self.tail = Some(before);
        self.attested = position;
        self.attest_again(position)
    }

    /// Says in the segment's header, too, that everything up to `attested` is durable. Not synced either.
    pub fn attest_again(&self, attested: JournalPosition) -> Result<(), StorageError> {
        let position = self.geometry.position(self.segment, SECOND_ATTEST_OFFSET);
        let mut header = vec![0; usize::try_from(SEGMENT_HEADER_BYTES).expect("a block")];
        self.file.read_exact_at(&mut header, 0)?;
        let at = usize::try_from(SECOND_ATTEST_OFFSET).expect("within a block");
        header[at..at + GROUP_BLOCK_BYTES].copy_from_slice(&self.attest_block(position, attested).encode());
        self.file.write_at(&[IoSlice::new(&header)], 0)
    }

    /// A block that stands at `position` and attests everything up to `attested`.
    fn attest_block(&self, position: JournalPosition, attested: JournalPosition) -> GroupBlock {
        GroupBlock {
            kind: GroupKind::Attest,
            number: self.number + 1,
            epoch: self.epoch,
            attested,
            position,
            end: JournalPosition(position.0 + UNIT_BYTES),
            first_index: self.last.next_index(),
            frames: 0,
            chain_low: chain_low(self.last.chain),
        }
    }

    /// What stands in the block of `offset` before it.
    fn take_tail(&mut self) -> Result<Vec<u8>, StorageError> {
        if let Some(tail) = self.tail.take() {
            return Ok(tail);
        }
        let length = self.offset % BLOCK_BYTES;
        let mut tail = vec![0; usize::try_from(length).expect("less than a block")];
        self.file.read_exact_at(&mut tail, self.offset - length)?;
        Ok(tail)
    }

    /// Writes `before`, from the start of a block at `offset`, and `parts` behind it up to `end`, and zeros up to the end
    /// of the block. Returns the bytes written.
    fn write_blocks(&mut self, offset: u64, before: &[u8], parts: Vec<&[u8]>, end: u64) -> Result<u64, StorageError> {
        let full = end.next_multiple_of(BLOCK_BYTES).min(self.geometry.segment_bytes);
        let zeros = &PADDING[..usize::try_from(full - end).expect("less than a block")];
        let slices: Vec<IoSlice<'_>> = [before].into_iter().chain(parts).chain([zeros]).map(IoSlice::new).collect();
        self.file.write_at(&slices, offset)?;
        let written = &slices[..slices.len() - 1];
        self.tail = Some(last_bytes(written, usize::try_from(end % BLOCK_BYTES).expect("less than a block")));
        Ok(full - offset)
    }
}

/// A group's block and frames. Payloads are not copied.
fn group_parts<'a>(block: &'a [u8; GROUP_BLOCK_BYTES], frames: &'a [Frame]) -> Vec<&'a [u8]> {
    let mut parts = Vec::with_capacity(frames.len() * 3 + 1);
    parts.push(&block[..]);
    for frame in frames {
        let payload = frame.payload().bytes();
        let padding = span(frame.frame_bytes()) - (FRAME_HEADER_BYTES + payload.len()) as u64;
        parts.push(&frame.header()[..]);
        if !payload.is_empty() {
            parts.push(payload);
        }
        if padding > 0 {
            parts.push(&PADDING[..usize::try_from(padding).expect("less than a unit")]);
        }
    }
    parts
}

/// The last `count` bytes of `parts`, which have at least as many.
fn last_bytes(parts: &[IoSlice<'_>], count: usize) -> Vec<u8> {
    let mut missing = count;
    let mut ends: Vec<&[u8]> = Vec::new();
    for part in parts.iter().rev() {
        let taken = part.len().min(missing);
        ends.push(&part[part.len() - taken..]);
        missing -= taken;
        if missing == 0 {
            break;
        }
    }
    assert_eq!(missing, 0, "fewer than {count} bytes were written");
    ends.into_iter().rev().flatten().copied().collect()
}
