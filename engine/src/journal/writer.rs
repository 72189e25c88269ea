//! Writes groups: one positioned write and one sync each, the header of a fresh segment included.
//!
//! Only one writer exists; it is the only one that writes to segments. Its position pointers:
//! `attested <= durable = the end of what is written`, since nothing but an attest is written without a sync, and an
//! attest does not move the end.

use std::io::IoSlice;
use std::sync::Arc;

use crate::env::{DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::JournalPosition;
use crate::journal::format::{Geometry, LogStart, SEGMENT_HEADER_BYTES, UNIT_BYTES, segment_path, span};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use crate::journal::run::Shared;
use crate::journal::segment::SegmentHeader;
use crate::journal::spare;
use crate::journal::state::{Segment, Written};

static PADDING: [u8; 2 * UNIT_BYTES as usize] = [0; 2 * UNIT_BYTES as usize];

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
        let bytes = write_parts(&*self.file, header.as_ref().map(|header| &header[..]), &block, frames, begin)?;
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
        self.file = shared.disk.open(&path, OpenMode::Write)?;
        self.segment = number;
        self.offset = SEGMENT_HEADER_BYTES;
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
        let block = GroupBlock {
            kind: GroupKind::Attest,
            number: self.number + 1,
            epoch: self.epoch,
            attested: position,
            position,
            end: JournalPosition(position.0 + UNIT_BYTES),
            first_index: self.last.next_index(),
            frames: 0,
            chain_low: chain_low(self.last.chain),
        };
        self.file.write_at(&[IoSlice::new(&block.encode())], self.offset)?;
        self.attested = position;
        Ok(())
    }
}

/// One positioned write of a group; with `header`, of a segment from its start. Payloads are not copied.
fn write_parts(
    file: &dyn DiskFile,
    header: Option<&[u8]>,
    block: &GroupBlock,
    frames: &[Frame],
    offset: u64,
) -> Result<u64, StorageError> {
    let block: [u8; GROUP_BLOCK_BYTES] = block.encode();
    let mut parts = Vec::with_capacity(frames.len() * 3 + 2);
    let offset = if header.is_some() { 0 } else { offset };
    parts.extend(header.map(IoSlice::new));
    parts.push(IoSlice::new(&block));
    for frame in frames {
        let payload = frame.payload().bytes();
        let padding = span(frame.frame_bytes()) - (FRAME_HEADER_BYTES + payload.len()) as u64;
        parts.push(IoSlice::new(frame.header()));
        if !payload.is_empty() {
            parts.push(IoSlice::new(payload));
        }
        if padding > 0 {
            parts.push(IoSlice::new(&PADDING[..usize::try_from(padding).expect("less than two units")]));
        }
    }
    file.write_at(&parts, offset)?;
    Ok(parts.iter().map(|part| part.len() as u64).sum())
}
