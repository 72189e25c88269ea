//! The bytes of group blocks, segment headers and of a whole small journal.

use std::sync::Arc;

use super::format::{Geometry, LogStart, SEGMENT_HEADER_BYTES, segment_number, segment_path, span, spare_number};
use super::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use super::journal_test::{EMPTY, done, frames_after, small};
use super::segment::SegmentHeader;
use super::{Journal, JournalMode};
use crate::env::RealDisk;
use crate::ids::{JournalPosition, LogId, LogIndex};

fn block() -> GroupBlock {
    GroupBlock {
        kind: GroupKind::Cut,
        number: 0x11,
        epoch: 0x22,
        attested: JournalPosition(0x3333),
        position: JournalPosition(0x4440),
        end: JournalPosition(0x5540),
        first_index: LogIndex(0x66),
        frames: 0x77,
        chain_low: 0x8888_8888,
    }
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

#[test]
fn golden_group_block() {
    #[rustfmt::skip]
    let fields = vec![
        b'C', b'G', b'R', b'P', 2, 0, 2, 0,
        0x11, 0, 0, 0, 0, 0, 0, 0,
        0x22, 0, 0, 0, 0, 0, 0, 0,
        0x33, 0x33, 0, 0, 0, 0, 0, 0,
        0x40, 0x44, 0, 0, 0, 0, 0, 0,
        0x44, 0, 0, 0, 0x88, 0x88, 0x88, 0x88,
        0x66, 0, 0, 0, 0, 0, 0, 0,
        0x77, 0, 0, 0,
    ];
    let golden = with_crc(fields);
    assert_eq!(golden[GROUP_BLOCK_BYTES - 4..], [0x86, 0x66, 0x03, 0x24], "the checksum");
    assert_eq!(block().encode().to_vec(), golden);
    assert_eq!(GroupBlock::decode(&golden, JournalPosition(0x4440)), Some(block()));
}

#[test]
fn a_block_elsewhere_or_with_a_flipped_bit_is_none() {
    let bytes = block().encode();
    assert_eq!(GroupBlock::decode(&bytes, JournalPosition(0x4480)), None);
    assert_eq!(GroupBlock::decode(&bytes[..63], block().position), None);
    for bit in 0..GROUP_BLOCK_BYTES * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(GroupBlock::decode(&changed, block().position), None, "bit {bit}");
    }
}

#[test]
fn golden_segment_header() {
    let header = SegmentHeader {
        number: 0x11,
        segment_bytes: 0x1_0000,
        first_group: 0x22,
        epoch: 0x33,
        start: LogStart { previous: Some(LogId::new(0x44, 0x55)), chain: 0x66 },
    };
    #[rustfmt::skip]
    let fields = vec![
        b'C', b'S', b'E', b'G', 2, 0, 1, 0,
        0x11, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 1, 0, 0, 0, 0, 0,
        0x22, 0, 0, 0, 0, 0, 0, 0,
        0x33, 0, 0, 0, 0, 0, 0, 0,
        0x44, 0, 0, 0, 0, 0, 0, 0,
        0x55, 0, 0, 0, 0, 0, 0, 0,
        0x66, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0,
    ];
    let mut golden = with_crc(fields);
    assert_eq!(golden[68..], [0x86, 0x09, 0x77, 0x00], "the checksum");
    golden.resize(SEGMENT_HEADER_BYTES as usize, 0);
    assert_eq!(header.encode().to_vec(), golden);
    assert_eq!(SegmentHeader::decode(&golden), Ok(header));
    let empty = SegmentHeader { start: EMPTY, ..header };
    assert_eq!(SegmentHeader::decode(&empty.encode()[..]), Ok(empty));
    for bit in 0..72 * 8 {
        let mut changed = golden.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&changed).is_err(), "bit {bit}");
    }
    assert!(SegmentHeader::decode(&golden[..71]).is_err());
}

#[test]
fn a_segment_header_with_numbers_that_no_journal_reaches_is_none() {
    let sound = SegmentHeader { number: 1, segment_bytes: 1 << 20, first_group: 1, epoch: 0, start: EMPTY };
    let far = LogStart { previous: Some(LogId::new(1, u64::MAX)), chain: 1 };
    for header in [
        SegmentHeader { start: far, ..sound },
        SegmentHeader { epoch: u64::MAX, ..sound },
        SegmentHeader { first_group: u64::MAX, ..sound },
        SegmentHeader { number: 1 << 50, ..sound },
    ] {
        let refused = SegmentHeader::decode(&header.encode()[..]);
        assert_eq!(refused, Err("a number or a place that no journal reaches"), "{header:?}");
    }
}

#[test]
fn names_and_sizes() {
    let path = segment_path("/j".as_ref(), 42);
    assert_eq!(path.to_str(), Some("/j/00000000000000000042.seg"));
    assert_eq!(segment_number("00000000000000000042.seg"), Some(42));
    for other in ["42.seg", "0000000000000000004x.seg", "00000000000000000042.seq", "spare-3"] {
        assert_eq!(segment_number(other), None, "{other}");
    }
    assert_eq!((spare_number("spare-3"), spare_number("spare-"), spare_number("spar")), (Some(3), None, None));
    assert_eq!([1, 64, 65].map(span), [64, 64, 128]);
    let geometry = Geometry { segment_bytes: 1 << 16 };
    assert_eq!(geometry.place(geometry.position(3, 0x4440)), (3, 0x4440));
    assert_eq!(geometry.fresh_room(), (1 << 16) - 4096 - 64 - 64);
}

/// What two groups, a cut and an attest leave in the first segment, by hand.
#[test]
fn a_small_journal_byte_by_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = small(JournalMode::Inline);
    let journal = Journal::create(Arc::new(RealDisk::new()), folder.path(), EMPTY, options).expect("create");
    let frames = frames_after(EMPTY, 5, &[10, 100, 0]);
    let at = |index: usize| LogStart { previous: Some(frames[index].log_id()), chain: frames[index].chain() };
    journal.append(frames[..2].to_vec(), done().0).expect("append");
    journal.append(frames[2..].to_vec(), done().0).expect("append");
    journal.cut_after(at(1).previous, done().0).expect("cut");
    let other = frames_after(at(1), 6, &[3]);
    journal.append(other.clone(), done().0).expect("append");
    journal.close();
    let bytes = std::fs::read(segment_path(folder.path(), 1)).expect("read");
    assert_eq!(bytes.len() as u64, options.segment_bytes);
    let base = options.segment_bytes;
    let mut expected =
        SegmentHeader { number: 1, segment_bytes: base, first_group: 1, epoch: 0, start: EMPTY }.encode().to_vec();
    let mut chain = 0;
    let mut put = |kind, number, epoch, attested, end, first_index, frames: &[crate::journal::frame::Frame]| {
        let position = JournalPosition(base + expected.len() as u64);
        let (attested, end) = (JournalPosition(base + attested), JournalPosition(base + end));
        chain = frames.last().map_or(chain, |frame| frame.chain());
        let count = u32::try_from(frames.len()).expect("few");
        let block = GroupBlock {
            kind,
            number,
            epoch,
            attested,
            position,
            end,
            first_index: LogIndex(first_index),
            frames: count,
            chain_low: chain_low(chain),
        };
        expected.extend(block.encode());
        for frame in frames {
            expected.extend(frame.header());
            expected.extend(frame.payload().bytes());
            expected.resize(expected.len().next_multiple_of(64), 0);
        }
    };
    // Two frames of 88 and 176 bytes, padded to 128 and 192.
    put(GroupKind::Append, 1, 0, 4096, 4480, 0, &frames[..2]);
    // The second group, of one frame, was at 4480; the cut block stands over its block, the third group over its frame.
    put(GroupKind::Cut, 3, 1, 4480, 4544, 2, &[]);
    put(GroupKind::Append, 4, 1, 4544, 4736, 2, &other);
    put(GroupKind::Attest, 5, 1, 4736, 4800, 3, &[]);
    // The same once more, in the header.
    let again = GroupBlock {
        kind: GroupKind::Attest,
        number: 5,
        epoch: 1,
        attested: JournalPosition(base + 4736),
        position: JournalPosition(base + 2048),
        end: JournalPosition(base + 2112),
        first_index: LogIndex(3),
        frames: 0,
        chain_low: chain_low(other[0].chain()),
    };
    expected[2048..2112].copy_from_slice(&again.encode());
    expected.resize(bytes.len(), 0);
    assert!(bytes == expected, "first difference at {:?}", bytes.iter().zip(&expected).position(|(a, b)| a != b));
}
