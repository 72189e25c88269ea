//! A chunk: about a MiB of pages or of frames, compressed by itself, under a checksum.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CCK1"
//!      4     1  kind: 1 pages, 2 frames
//!      5     1  coding: 0 as it is, 1 one LZ4 block
//!      6     2  zero
//!      8     4  stored bytes
//!     12     4  raw bytes
//!     16     8  XXH3-64 of bytes 0..16 and the stored bytes
//!     24        stored bytes
//!
//! raw bytes of kind pages
//!      0     4  count of runs, at least 1
//!      4     4  zero
//!      8     8  each run: first page u32, count u32; ascending
//!               the pages of all runs, 8192 bytes each, as the data file had them
//!
//! raw bytes of kind frames
//!               whole frames as in the journal, padding included (see [`crate::journal::frame`])
//! ```
//!
//! A chunk that LZ4 would make longer is stored as it is. A chunk of frames is longer than a MiB only if one frame is.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::ids::PageNumber;
use crate::journal::frame::{FRAME_ALIGNMENT_BYTES, Frame, FrameHeader, MAX_PAYLOAD_BYTES, frame_bytes};
use crate::page::PAGE_BYTES;

/// The size of a chunk's header, in bytes.
pub(super) const CHUNK_HEADER_BYTES: usize = 24;
/// The most that a chunk holds, in bytes: the longest frame, or pages up to a bound of the caller, which is less.
pub(super) const MAX_RAW_BYTES: usize = (MAX_PAYLOAD_BYTES + 4096).next_multiple_of(4096);

const MAGIC: [u8; 4] = *b"CCK1";
const SUM_OFFSET: usize = 16;
const _: () = assert!(SUM_OFFSET + 8 == CHUNK_HEADER_BYTES && frame_bytes(MAX_PAYLOAD_BYTES) <= MAX_RAW_BYTES);

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChunkKind {
    Pages = 1,
    Frames = 2,
}

/// The header of a chunk that was read, checked as far as it can be alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkHeader {
    pub(super) kind: ChunkKind,
    compressed: bool,
    pub(super) stored_bytes: usize,
    raw_bytes: usize,
    sum: u64,
}

/// The raw bytes of a chunk, behind the room for its header: those that are stored as they are need no other place.
pub(super) struct Raw(Vec<u8>);

impl Default for Raw {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Raw {
    fn with_capacity(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(CHUNK_HEADER_BYTES + bytes);
        room.resize(CHUNK_HEADER_BYTES, 0);
        Self(room)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len() - CHUNK_HEADER_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Adds zeros, up to a multiple of `bytes`.
    fn pad_to(&mut self, bytes: usize) {
        self.0.resize(CHUNK_HEADER_BYTES + self.len().next_multiple_of(bytes), 0);
    }

    fn bytes(&self) -> &[u8] {
        &self.0[CHUNK_HEADER_BYTES..]
    }
}

/// Encodes a chunk.
pub(super) fn encode(kind: ChunkKind, raw: Raw, compress: bool) -> Vec<u8> {
    let raw_bytes = raw.len();
    assert!(raw_bytes <= MAX_RAW_BYTES, "a chunk of {raw_bytes} bytes");
    let shorter = if compress { shorter(&raw) } else { None };
    let compressed = shorter.is_some();
    let mut bytes = shorter.unwrap_or(raw.0);
    let (header, stored) = bytes.split_at_mut(CHUNK_HEADER_BYTES);
    let length = |bytes: usize| u32::try_from(bytes).expect("bounded").to_le_bytes();
    header[..4].copy_from_slice(&MAGIC);
    (header[4], header[5]) = (kind as u8, u8::from(compressed));
    header[8..12].copy_from_slice(&length(stored.len()));
    header[12..16].copy_from_slice(&length(raw_bytes));
    let sum = sum_of(&header[..SUM_OFFSET], stored);
    header[SUM_OFFSET..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bytes compressed, behind the room for a header, if that makes them shorter.
fn shorter(raw: &Raw) -> Option<Vec<u8>> {
    let most = lz4_flex::block::get_maximum_output_size(raw.len());
    let mut bytes = vec![0; CHUNK_HEADER_BYTES + most];
    let compressed = lz4_flex::block::compress_into(raw.bytes(), &mut bytes[CHUNK_HEADER_BYTES..]);
    let length = compressed.expect("it has the room");
    bytes.truncate(CHUNK_HEADER_BYTES + length);
    (length < raw.len()).then_some(bytes)
}

fn sum_of(header: &[u8], stored: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(header);
    sum.update(stored);
    sum.digest()
}

impl ChunkHeader {
    /// Reads a header. Whether it is the one that was written, [`Self::open`] tells.
    pub(super) fn parse(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Result<Self, &'static str> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
        if bytes[..4] != MAGIC {
            return Err("no chunk begins here");
        }
        let kind = match bytes[4] {
            1 => ChunkKind::Pages,
            2 => ChunkKind::Frames,
            _ => return Err("a chunk of an unknown kind"),
        };
        let (stored_bytes, raw_bytes) = (u32_at(8), u32_at(12));
        let lengths_fit = match bytes[5] {
            0 => stored_bytes == raw_bytes,
            1 => stored_bytes < raw_bytes,
            _ => return Err("a chunk of an unknown coding"),
        };
        if !lengths_fit || raw_bytes > MAX_RAW_BYTES || raw_bytes == 0 || bytes[6..8] != [0; 2] {
            return Err("a chunk of impossible lengths");
        }
        let sum = u64::from_le_bytes(bytes[SUM_OFFSET..].try_into().expect("8 bytes"));
        Ok(Self { kind, compressed: bytes[5] == 1, stored_bytes, raw_bytes, sum })
    }

    /// What the chunk holds, once it is known to be what was written.
    pub(super) fn open(&self, header: &[u8; CHUNK_HEADER_BYTES], stored: &Bytes) -> Result<Bytes, String> {
        assert_eq!(stored.len(), self.stored_bytes, "the caller reads as much as the header says");
        if sum_of(&header[..SUM_OFFSET], stored) != self.sum {
            return Err("a chunk does not match its checksum".into());
        }
        if !self.compressed {
            return Ok(stored.clone());
        }
        let mut raw = vec![0; self.raw_bytes];
        match lz4_flex::block::decompress_into(stored, &mut raw) {
            Ok(length) if length == raw.len() => Ok(raw.into()),
            Ok(length) => Err(format!("a chunk has {length} bytes and should have {}", raw.len())),
            Err(error) => Err(format!("a chunk cannot be decompressed: {error}")),
        }
    }
}

/// Runs of pages, as they are collected for a chunk.
#[derive(Default)]
pub(super) struct PagesRaw {
    runs: Vec<(PageNumber, u32)>,
    pages: Vec<Bytes>,
    bytes: usize,
}

impl PagesRaw {
    /// Adds pages that stand behind those that are there.
    pub(super) fn push(&mut self, first: PageNumber, bytes: Bytes) {
        let count = u32::try_from(bytes.len() / PAGE_BYTES).expect("a piece of a file");
        match self.runs.last_mut() {
            Some((start, length)) if start.0 + *length == first.0 => *length += count,
            last => {
                assert!(last.is_none_or(|(start, length)| start.0 + *length < first.0), "pages ascend");
                self.runs.push((first, count));
            }
        }
        self.bytes += bytes.len();
        self.pages.push(bytes);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The page behind the last one.
    pub(super) fn end(&self) -> Option<PageNumber> {
        self.runs.last().map(|(first, count)| PageNumber(first.0 + count))
    }

    /// The raw bytes, and none are left.
    pub(super) fn take(&mut self) -> Raw {
        let Self { runs, pages, bytes } = std::mem::take(self);
        let mut raw = Raw::with_capacity(8 + runs.len() * 8 + bytes);
        raw.push(&u32::try_from(runs.len()).expect("bounded").to_le_bytes());
        raw.push(&[0; 4]);
        for (first, count) in runs {
            raw.push(&first.0.to_le_bytes());
            raw.push(&count.to_le_bytes());
        }
        pages.iter().for_each(|some| raw.push(some));
        raw
    }
}

/// Runs of pages: the first one, and the pages' bytes.
pub(super) type PageRuns = Vec<(PageNumber, Bytes)>;

/// The runs of a chunk of pages.
pub(super) fn pages_of(raw: &Bytes) -> Result<PageRuns, &'static str> {
    const BAD: &str = "a chunk of pages whose runs do not fit";
    let u32_at = |at: usize| raw.get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().expect("4 bytes")));
    let count = u32_at(0).filter(|count| *count > 0 && u32_at(4) == Some(0)).ok_or(BAD)? as usize;
    let mut at = count.checked_mul(8).and_then(|table| table.checked_add(8)).ok_or(BAD)?;
    let (mut runs, mut free_from) = (Vec::new(), 0);
    for run in 0..count {
        let (first, pages) = (u32_at(8 + run * 8).ok_or(BAD)?, u32_at(12 + run * 8).ok_or(BAD)?);
        let end = first.checked_add(pages).filter(|_| pages > 0 && first >= free_from).ok_or(BAD)?;
        let bytes = at..at + pages as usize * PAGE_BYTES;
        if bytes.end > raw.len() {
            return Err(BAD);
        }
        runs.push((PageNumber(first), raw.slice(bytes.clone())));
        (at, free_from) = (bytes.end, end);
    }
    if at == raw.len() { Ok(runs) } else { Err(BAD) }
}

/// Adds a frame to the raw bytes of a chunk of frames.
pub(super) fn push_frame(raw: &mut Raw, frame: &Frame) {
    raw.push(frame.header());
    raw.push(frame.payload().bytes());
    raw.pad_to(FRAME_ALIGNMENT_BYTES);
}

/// The frames of a chunk of frames, each with its own checksums compared.
pub(super) fn frames_of(raw: &Bytes) -> Result<Vec<Frame>, String> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < raw.len() {
        let header = FrameHeader::parse(&raw[at..]).map_err(|error| error.to_string())?;
        let (start, end) = (at + header.bytes().len(), at + header.frame_bytes());
        let payload = start..start + header.payload_bytes();
        if end > raw.len() || raw[payload.end..end].iter().any(|byte| *byte != 0) {
            return Err(format!("frame {} does not end where its chunk does", header.log_id));
        }
        frames.push(header.with_payload(raw.slice(payload)).map_err(|error| error.to_string())?);
        at = end;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogId;
    use crate::journal::frame::{CHAIN_START, FrameKind, Payload};

    fn read(bytes: &[u8]) -> Result<(ChunkKind, Bytes), String> {
        let header = bytes.first_chunk().expect("a header");
        let chunk = ChunkHeader::parse(header)?;
        if bytes.len() != CHUNK_HEADER_BYTES + chunk.stored_bytes {
            return Err("another length".into());
        }
        let stored = Bytes::copy_from_slice(&bytes[CHUNK_HEADER_BYTES..]);
        Ok((chunk.kind, chunk.open(header, &stored)?))
    }

    fn raw_of(bytes: &[u8]) -> Raw {
        let mut raw = Raw::default();
        raw.push(bytes);
        raw
    }

    fn some_pages() -> Bytes {
        let mut pages = PagesRaw::default();
        pages.push(PageNumber(3), Bytes::from_static(&[1; 2 * PAGE_BYTES]));
        pages.push(PageNumber(5), Bytes::from_static(&[2; PAGE_BYTES]));
        pages.push(PageNumber(9), Bytes::from_static(&[3; PAGE_BYTES]));
        assert_eq!((pages.end(), pages.bytes()), (Some(PageNumber(10)), 4 * PAGE_BYTES));
        Bytes::copy_from_slice(pages.take().bytes())
    }

    #[test]
    fn golden_bytes() {
        let frame = Frame::encode(FrameKind::Blank, LogId::new(1, 2), None, CHAIN_START, Payload::new(Bytes::new()));
        let mut raw = Raw::default();
        push_frame(&mut raw, &frame);
        let bytes = encode(ChunkKind::Frames, raw_of(raw.bytes()), false);
        assert_eq!(&bytes[..16], b"CCK1\x02\x00\0\0\x48\0\0\0\x48\0\0\0");
        assert_eq!(&bytes[16..24], &sum_of(&bytes[..16], raw.bytes()).to_le_bytes());
        assert_eq!(&bytes[24..], frame.header());
        let packed = encode(ChunkKind::Pages, raw_of(&some_pages()), true);
        assert_eq!(&packed[..8], b"CCK1\x01\x01\0\0");
        assert_eq!(&packed[12..16], &(8 + 2 * 8 + 4 * 8192_u32).to_le_bytes());
        assert!(packed.len() < 400, "{}", packed.len());
        assert_eq!(&some_pages()[..24], b"\x02\0\0\0\0\0\0\0\x03\0\0\0\x03\0\0\0\x09\0\0\0\x01\0\0\0");
    }

    #[test]
    fn what_went_in_comes_out() {
        for compress in [false, true] {
            let (kind, raw) = read(&encode(ChunkKind::Pages, raw_of(&some_pages()), compress)).expect("sound");
            assert_eq!((kind, &raw), (ChunkKind::Pages, &some_pages()));
            let runs = pages_of(&raw).expect("sound");
            let found: Vec<_> = runs.iter().map(|(first, bytes)| (first.0, bytes.len() / PAGE_BYTES)).collect();
            assert_eq!(found, [(3, 3), (9, 1)]);
        }
        let mut raw = Raw::default();
        let frames: Vec<Frame> = (0..5_usize)
            .map(|index| {
                let payload = Payload::new(vec![index as u8; index * 3].into());
                Frame::encode(FrameKind::Membership, LogId::new(1, index as u64), None, CHAIN_START, payload)
            })
            .collect();
        frames.iter().for_each(|frame| push_frame(&mut raw, frame));
        assert_eq!(frames_of(&Bytes::copy_from_slice(raw.bytes())), Ok(frames));
        // What LZ4 would make longer stays as it is.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(5_000)
        .collect();
        let bytes = encode(ChunkKind::Frames, raw_of(&noise), true);
        assert_eq!((bytes.len(), bytes[5]), (CHUNK_HEADER_BYTES + noise.len(), 0));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let bytes = encode(ChunkKind::Pages, raw_of(&some_pages()), true);
        for place in 0..bytes.len() {
            for bit in [0x01, 0x80] {
                let mut bad = bytes.clone();
                bad[place] ^= bit;
                assert!(read(&bad).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn runs_that_do_not_fit_are_refused() {
        let good = some_pages();
        for cut in [0, 3, 8, 23, 24, good.len() - 1] {
            assert!(pages_of(&good.slice(..cut)).is_err(), "{cut} bytes");
        }
        for (at, byte) in [(0, 0), (0, 1), (0, 3), (3, 255), (4, 1), (12, 0), (15, 255), (16, 5), (20, 2)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert!(pages_of(&bad.into()).is_err(), "byte {at}");
        }
    }
}
