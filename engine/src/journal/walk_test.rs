//! The walk over segments made by hand: it goes on exactly where something continues what it walked over.
//!
//! Each case changes one thing that no crash or rot would leave under a right checksum, so that every check stands
//! alone here; in the files of a real journal several would fail together.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use super::format::{FIRST_SEGMENT, LogStart, SEGMENT_HEADER_BYTES, segment_path};
use super::frame::Frame;
use super::group::{GroupBlock, GroupKind, chain_low};
use super::journal_test::{EMPTY, frames_after};
use super::rig_test::end_of;
use super::segment::SegmentHeader;
use super::walk::Walker;
use crate::env::{Disk, OpenMode, SimDisk};
use crate::ids::{JournalPosition, LogIndex};

const SEGMENT_BYTES: u64 = 64 << 10;
const DIRECTORY: &str = "/";

fn header(number: u64, first_group: u64, epoch: u64, start: LogStart) -> SegmentHeader {
    SegmentHeader { number, segment_bytes: SEGMENT_BYTES, first_group, epoch, start }
}

/// A segment's bytes.
struct Bytes {
    number: u64,
    bytes: Vec<u8>,
    /// After the last frame.
    chain: u64,
}

impl Bytes {
    fn new(number: u64, header: &SegmentHeader) -> Self {
        Self { number, bytes: header.encode().to_vec(), chain: header.start.chain }
    }

    fn position(&self) -> JournalPosition {
        JournalPosition(self.number * SEGMENT_BYTES + self.bytes.len() as u64)
    }

    /// Adds a group of frames, with a block as it should be but for what `change` does to it.
    fn group(&mut self, number: u64, epoch: u64, frames: &[Frame], change: impl FnOnce(&mut GroupBlock)) -> &mut Self {
        let position = self.position();
        let length: usize = frames.iter().map(|frame| frame.frame_bytes().next_multiple_of(64)).sum();
        self.chain = frames.last().map_or(self.chain, Frame::chain);
        let mut block = GroupBlock {
            kind: GroupKind::Append,
            number,
            epoch,
            attested: position,
            position,
            end: JournalPosition(position.0 + 64 + length as u64),
            first_index: frames.first().map_or(LogIndex(0), |frame| frame.log_id().index),
            frames: u32::try_from(frames.len()).expect("few"),
            chain_low: chain_low(self.chain),
        };
        change(&mut block);
        self.bytes.extend(block.encode());
        for frame in frames {
            self.bytes.extend(frame.header());
            self.bytes.extend(frame.payload().bytes());
            self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        }
        self
    }

    fn write(&self, disk: &SimDisk) {
        let file = disk.open(&segment_path(DIRECTORY.as_ref(), self.number), OpenMode::CreateNew).expect("create");
        file.write_at(&[IoSlice::new(&self.bytes)], 0).expect("write");
        file.set_len(SEGMENT_BYTES).expect("length");
    }
}

/// How many frames the walk finds, and whether it ends in damage.
fn walk(segments: &[&Bytes]) -> (usize, bool) {
    let disk = SimDisk::new(1);
    segments.iter().for_each(|segment| segment.write(&disk));
    let mut walker = Walker::new(Arc::new(disk), Path::new(DIRECTORY)).expect("a first segment");
    let mut found = 0;
    while walker.next_frame().expect("no trouble").is_some() {
        found += 1;
    }
    (found, walker.ending().damage.is_some())
}

/// Two frames in the first group, then one that may follow them or not.
fn first_segment(frames: &[Frame]) -> Bytes {
    let mut bytes = Bytes::new(FIRST_SEGMENT, &header(FIRST_SEGMENT, 8, 3, EMPTY));
    bytes.group(8, 3, &frames[..2], |_| ());
    bytes
}

#[test]
fn a_group_follows_by_all_of_its_fields() {
    let frames = frames_after(EMPTY, 1, &[10, 20, 30, 40]);
    let found = |number, epoch, frames_of: &[Frame], change: fn(&mut GroupBlock)| {
        walk(&[first_segment(&frames).group(number, epoch, frames_of, change)])
    };
    let next = &frames[2..];
    assert_eq!(found(9, 3, next, |_| ()), (4, false));
    assert_eq!(found(9, 4, next, |_| ()), (2, false), "a later epoch");
    assert_eq!(found(9, 2, next, |_| ()), (2, false), "an earlier epoch");
    assert_eq!(found(8, 3, next, |_| ()), (2, false), "the same number");
    assert_eq!(found(10, 3, next, |_| ()), (2, false), "a number left out");
    assert_eq!(found(9, 3, next, |block| block.first_index = LogIndex(3)), (2, false), "another index");
    assert_eq!(found(9, 3, next, |block| block.kind = GroupKind::Attest), (2, false), "no group");
    assert_eq!(found(9, 3, next, |block| block.position.0 += 64), (2, false), "written for another place");
    assert_eq!(found(9, 3, next, |block| block.end.0 += SEGMENT_BYTES), (2, false), "beyond the segment");
    assert_eq!(found(9, 3, next, |block| block.end.0 += 64), (2, false), "longer than its frames");
    assert_eq!(found(9, 3, next, |block| block.end.0 -= 64), (2, false), "shorter than its frames");
    assert_eq!(found(9, 3, next, |block| block.frames = 1), (2, false), "fewer frames than fill it");
    assert_eq!(found(9, 3, next, |block| block.frames = 3), (2, false), "more frames than fill it");
    let mut empty = first_segment(&frames);
    empty.group(9, 3, &[], |block| block.first_index = LogIndex(2));
    empty.group(10, 3, next, |block| block.attested = JournalPosition(0));
    assert_eq!(walk(&[&empty]), (2, false), "without a frame that would prove it");
    assert_eq!(found(9, 3, next, |block| block.chain_low ^= 1), (2, false), "written with other frames");
    assert_eq!(found(9, 3, &frames[2..3], |block| block.chain_low ^= 1), (2, false), "written with another frame");
    assert_eq!(found(9, 3, &frames[3..], |block| block.first_index = LogIndex(2)), (2, false), "a frame left out");
}

#[test]
fn a_frame_follows_by_chain_and_term() {
    let frames = frames_after(EMPTY, 5, &[10, 20, 30]);
    let start = end_of(&frames[..2]);
    let found = |next: &[Frame]| walk(&[first_segment(&frames).group(9, 3, next, |_| ())]);
    assert_eq!(found(&frames_after(start, 5, &[30])), (3, false));
    assert_eq!(
        found(&frames_after(LogStart { chain: start.chain + 1, ..start }, 5, &[30])),
        (2, false),
        "another past"
    );
    assert_eq!(found(&frames_after(start, 4, &[30])), (2, false), "a lower term");
}

#[test]
fn a_cut_follows_with_a_higher_epoch_and_number_only() {
    let frames = frames_after(EMPTY, 1, &[10, 20, 30]);
    let found_behind = |number, epoch, index: u64, change: u32| {
        let mut bytes = first_segment(&frames);
        bytes.group(number, epoch, &[], |block| {
            block.kind = GroupKind::Cut;
            block.first_index = LogIndex(index);
            block.chain_low ^= change;
        });
        walk(&[bytes.group(number + 1, epoch, &frames[2..], |block| block.attested = JournalPosition(0))])
    };
    let found = |number, epoch, index| found_behind(number, epoch, index, 0);
    assert_eq!(found(9, 4, 2), (3, false));
    assert_eq!(found_behind(9, 4, 2, 1), (2, false), "behind another frame");
    assert_eq!(found(9, 3 + (1 << 40), 2), (3, false), "as far ahead as can be");
    assert_eq!(found(9, 4 + (1 << 40), 2), (2, false), "further");
    assert_eq!(found(9 + (1 << 40), 4, 2), (2, false), "the number, too");
    assert_eq!(found(20, 9, 2), (3, false), "numbers may be left out");
    assert_eq!(found(9, 3, 2), (2, false), "the same epoch");
    assert_eq!(found(8, 4, 2), (2, false), "the same number");
    assert_eq!(found(9, 4, 3), (2, false), "for another index");
}

#[test]
fn a_segment_follows_by_all_of_its_header() {
    let frames = frames_after(EMPTY, 1, &[10, 20, 30]);
    let found = |change: fn(&mut SegmentHeader)| {
        let mut header = header(FIRST_SEGMENT + 1, 9, 3, end_of(&frames[..2]));
        change(&mut header);
        let mut second = Bytes::new(FIRST_SEGMENT + 1, &header);
        walk(&[&first_segment(&frames), second.group(9, 3, &frames[2..], |block| block.attested = JournalPosition(0))])
    };
    assert_eq!(found(|_| ()), (3, false));
    assert_eq!(found(|header| header.number += 1), (2, false));
    assert_eq!(found(|header| header.epoch += 1), (2, false));
    assert_eq!(found(|header| header.epoch -= 1), (2, false));
    assert_eq!(found(|header| header.first_group += 1), (2, false));
    assert_eq!(found(|header| header.segment_bytes += 512), (2, false));
    assert_eq!(found(|header| header.start.chain += 1), (2, false));
    assert_eq!(found(|header| header.start.previous = None), (2, false));
}

/// A bad place is damage if, and only if, a later block that counts attests it.
#[test]
fn who_bears_witness() {
    let frames = frames_after(EMPTY, 1, &[10, 20]);
    let found = |number, epoch, attested_behind: bool, elsewhere: u64| {
        let mut bytes = first_segment(&frames);
        let end = bytes.position();
        bytes.bytes.extend([0xEE; 640]);
        bytes.group(number, epoch, &[], |block| {
            block.kind = GroupKind::Attest;
            block.attested = JournalPosition(end.0 + u64::from(attested_behind));
            block.position.0 += elsewhere;
        });
        walk(&[&bytes])
    };
    assert_eq!(found(9, 3, true, 0), (2, true));
    assert_eq!(found(99, 8, true, 0), (2, true), "numbers and epochs go on");
    assert_eq!(found(9, 3, false, 0), (2, false), "it attests only what is before");
    assert_eq!(found(9, 2, true, 0), (2, false), "cut since");
    assert_eq!(found(8, 3, true, 0), (2, false), "not later");
    assert_eq!(found(9, 3, true, 64), (2, false), "written for another place");
    // In a later segment too.
    let mut later = Bytes::new(FIRST_SEGMENT + 3, &header(0, 0, 0, EMPTY));
    let attested = first_segment(&frames).position().0 + 1;
    later.group(30, 3, &[], |block| block.attested = JournalPosition(attested));
    assert_eq!(walk(&[&first_segment(&frames), &later]), (2, true));
    assert_eq!(later.bytes.len() as u64, SEGMENT_HEADER_BYTES + 64);
}
