//! The frame's bytes, and what is made of wrong ones.

use bytes::Bytes;
use proptest::prelude::*;

use super::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameKind, Payload, frame_bytes};
use crate::ids::{LogId, LogIndex};

fn sample() -> Frame {
    let payload = Payload::new(Bytes::from_static(b"the payload of a frame"));
    Frame::encode(FrameKind::Record, LogId::new(0x0102, 0x0304_0506), Some(LogIndex(0xFF)), 0xABCD, payload)
}

fn decode(header: &[u8], payload: &[u8]) -> Result<Frame, FrameError> {
    FrameHeader::parse(header)?.with_payload(Bytes::copy_from_slice(payload))
}

/// Replicas of different versions must agree on every one of these.
#[test]
fn golden_bytes() {
    let frame = sample();
    #[rustfmt::skip]
    let golden: [u8; FRAME_HEADER_BYTES] = [
        b'C', b'F', b'R', b'1', 1, 0, 3, 0,
        96, 0, 0, 0, 22, 0, 0, 0,
        0x02, 0x01, 0, 0, 0, 0, 0, 0,
        0x06, 0x05, 0x04, 0x03, 0, 0, 0, 0,
        0x00, 0x01, 0, 0, 0, 0, 0, 0,
        69, 125, 43, 141, 46, 223, 26, 154,
        191, 27, 50, 72, 0, 0, 0, 0,
        114, 204, 200, 121, 54, 206, 181, 63,
        0, 0, 0, 0, 21, 24, 117, 128,
    ];
    assert_eq!(*frame.header(), golden);
    assert_eq!(decode(frame.header(), frame.payload().bytes()), Ok(frame));
}

#[test]
fn fields_come_back() {
    for (kind, commit) in [(FrameKind::Blank, None), (FrameKind::Membership, Some(LogIndex(0)))] {
        let frame = Frame::encode(kind, LogId::new(7, 8), commit, 9, Payload::new(Bytes::new()));
        assert_eq!((frame.kind(), frame.commit(), frame.log_id()), (kind, commit, LogId::new(7, 8)));
        assert!(frame.follows(9) && !frame.follows(10));
        assert_eq!(decode(frame.header(), b"").expect("it is one"), frame);
    }
}

#[test]
fn lengths_are_padded() {
    assert_eq!([0, 1, 7, 8, 9].map(frame_bytes), [72, 80, 80, 80, 88]);
    assert_eq!(sample().frame_bytes(), 96);
}

/// Every single bit.
#[test]
fn a_flipped_bit_is_found() {
    let frame = sample();
    let payload = frame.payload().bytes();
    for bit in 0..FRAME_HEADER_BYTES * 8 {
        let mut header = *frame.header();
        header[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(FrameHeader::parse(&header), Err(FrameError::Header(_))), "bit {bit} of the header");
    }
    for bit in 0..payload.len() * 8 {
        let mut changed = payload.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(frame.header(), &changed), Err(FrameError::Payload(frame.log_id())), "bit {bit}");
    }
}

#[test]
fn short_bytes_are_told_as_such() {
    let frame = sample();
    for length in 0..FRAME_HEADER_BYTES {
        let short = FrameHeader::parse(&frame.header()[..length]).expect_err("too short");
        assert_eq!(short, FrameError::Short { got: length, needed: FRAME_HEADER_BYTES });
    }
    let payload = frame.payload().bytes();
    let short = decode(frame.header(), &payload[..10]).expect_err("too short");
    assert_eq!(short, FrameError::Short { got: 10, needed: 22 });
}

/// A header whose checksum is right but whose fields are nonsense: made by a broken or hostile peer.
#[test]
fn nonsense_under_a_right_checksum_is_refused() {
    let with = |offset: usize, bytes: &[u8]| {
        let mut header = *sample().header();
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        let crc = crc32fast::hash(&header[..68]);
        header[68..].copy_from_slice(&crc.to_le_bytes());
        FrameHeader::parse(&header).expect_err("nonsense").to_string()
    };
    assert!(with(0, b"CFR2").contains("magic"));
    assert!(with(4, &[2, 0]).contains("format version"));
    assert!(with(6, &[0]).contains("kind"));
    assert!(with(6, &[4]).contains("kind"));
    assert!(with(8, &[104, 0, 0, 0]).contains("lengths"));
    assert!(with(12, &[0xFF, 0xFF, 0xFF, 0xFF]).contains("lengths"));
}

/// The chain value covers everything before it.
#[test]
fn the_chain_depends_on_all_of_the_history() {
    let next = |chain, text: &'static [u8]| {
        Frame::encode(FrameKind::Record, LogId::new(1, 1), None, chain, Payload::new(Bytes::from_static(text)))
    };
    let chains = [next(0, b"a"), next(1, b"a"), next(0, b"b")].map(|frame| frame.chain());
    assert!(chains[0] != chains[1] && chains[0] != chains[2] && chains[1] != chains[2]);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(FrameHeader::parse(&bytes).is_err());
    }

    #[test]
    fn any_payload_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..2000), term in 0_u64..1 << 62, chain in any::<u64>()) {
        let id = LogId::new(term, term / 2);
        let frame = Frame::encode(FrameKind::Record, id, None, chain, Payload::new(Bytes::from(bytes.clone())));
        prop_assert_eq!(decode(frame.header(), &bytes), Ok(frame));
    }
}

#[test]
fn numbers_that_no_log_reaches_are_refused() {
    for (id, commit) in
        [(LogId::new(1 << 62, 3), None), (LogId::new(1, 1 << 62), None), (LogId::new(1, 3), Some(1 << 62))]
    {
        let frame = Frame::encode(FrameKind::Blank, id, commit.map(LogIndex), 0, Payload::new(Bytes::new()));
        let refused = decode(frame.header(), &[]);
        assert_eq!(refused, Err(FrameError::Header("a term or an index that no log reaches")), "{id} {commit:?}");
    }
}
