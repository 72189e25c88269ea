//! A frame: one Raft entry as bytes. Encoded once, by the leader; every replica holds the same bytes.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CFR1"
//!      4     2  format version (1)
//!      6     1  kind: 1 blank, 2 membership, 3 record
//!      7     1  zero
//!      8     4  frame bytes: header, payload and padding
//!     12     4  payload bytes
//!     16     8  term
//!     24     8  log index
//!     32     8  commit index: the highest index the leader knew committed when it encoded the frame, plus 1; 0 for none
//!     40     8  payload hash: XXH3-64 of the payload
//!     48     4  payload CRC-32
//!     52     4  zero
//!     56     8  chain: XXH3-64 of bytes 0..56, seeded with the chain value of the frame before
//!     64     4  zero
//!     68     4  header CRC-32 of bytes 0..68
//!     72        payload, then zeros up to a multiple of 8
//! ```

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::ids::{LogId, LogIndex, NEVER_REACHED, Term};

/// The size of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 72;
/// Frames start at multiples of this, in bytes.
pub const FRAME_ALIGNMENT_BYTES: usize = 8;
/// The largest payload a frame can carry, in bytes (limits may be configured downwards).
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// The chain value before the first frame of a database.
pub const CHAIN_START: u64 = 0;

const MAGIC: u32 = u32::from_le_bytes(*b"CFR1");
const FORMAT_VERSION: u16 = 1;
const CHAIN_OFFSET: usize = 56;
const HEADER_CRC_OFFSET: usize = 68;
const _: () = assert!(CHAIN_OFFSET + 8 + 4 == HEADER_CRC_OFFSET && HEADER_CRC_OFFSET + 4 == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT_BYTES));

/// What a frame's payload is. Exhaustive: a node that met another kind could not apply its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Nothing: a new leader's first entry.
    Blank = 1,
    /// A membership, opaque to the engine.
    Membership = 2,
    /// A record: see [`crate::txn::record`].
    Record = 3,
}

/// A payload with its sums, computed once by whoever makes it (outside the consensus core).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    crc: u32,
    hash: u64,
}

impl Payload {
    /// Sums up `bytes`.
    ///
    /// # Panics
    /// When they are more than [`MAX_PAYLOAD_BYTES`].
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        assert!(bytes.len() <= MAX_PAYLOAD_BYTES, "a payload of {} bytes", bytes.len());
        Self { crc: crc32fast::hash(&bytes), hash: xxh3_64(&bytes), bytes }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// XXH3-64 of the bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// A frame: a decoded header with the header's bytes, and the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    header: [u8; FRAME_HEADER_BYTES],
    kind: FrameKind,
    log_id: LogId,
    commit: Option<LogIndex>,
    chain: u64,
    payload: Payload,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Fewer bytes than the header says, or than a header has.
    #[error("the frame ends after {got} of {needed} bytes")]
    Short {
        /// How many are there.
        got: usize,
        /// How many there should be.
        needed: usize,
    },
    /// The header's checksum, magic, version, kind or lengths are wrong.
    #[error("bad frame header: {0}")]
    Header(&'static str),
    /// The payload does not match its checksums.
    #[error("the payload of frame {0} does not match its checksum")]
    Payload(LogId),
}

/// A frame header taken from bytes, checked, with the payload still to come.
#[derive(Clone, Debug)]
pub struct FrameHeader {
    bytes: [u8; FRAME_HEADER_BYTES],
    kind: FrameKind,
    payload_bytes: usize,
    /// The log id.
    pub log_id: LogId,
    /// The highest index known committed by the leader when it encoded the frame.
    pub commit: Option<LogIndex>,
    /// The chain value after this frame.
    pub chain: u64,
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"))
}

/// The bytes a frame with a payload of this length takes, padding included.
#[must_use]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGNMENT_BYTES)
}

impl FrameHeader {
    /// Reads a header. Nothing is said of the payload yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err(FrameError::Short { got: bytes.len(), needed: FRAME_HEADER_BYTES });
        };
        if u32_at(bytes, 0) != MAGIC {
            return Err(FrameError::Header("no frame magic"));
        }
        if crc32fast::hash(&bytes[..HEADER_CRC_OFFSET]) != u32_at(bytes, HEADER_CRC_OFFSET) {
            return Err(FrameError::Header("checksum"));
        }
        if u16::from_le_bytes([bytes[4], bytes[5]]) != FORMAT_VERSION {
            return Err(FrameError::Header("unknown format version"));
        }
        let kind = match bytes[6] {
            1 => FrameKind::Blank,
            2 => FrameKind::Membership,
            3 => FrameKind::Record,
            _ => return Err(FrameError::Header("unknown kind")),
        };
        let payload_bytes = u32_at(bytes, 12) as usize;
        if payload_bytes > MAX_PAYLOAD_BYTES || u32_at(bytes, 8) as usize != frame_bytes(payload_bytes) {
            return Err(FrameError::Header("lengths"));
        }
        let [term, index, commit] = [16, 24, 32].map(|offset| u64_at(bytes, offset));
        if [term, index, commit].iter().any(|number| *number >= NEVER_REACHED) {
            return Err(FrameError::Header("a term or an index that no log reaches"));
        }
        Ok(Self {
            bytes: *bytes,
            kind,
            payload_bytes,
            log_id: LogId { term: Term(term), index: LogIndex(index) },
            commit: commit.checked_sub(1).map(LogIndex),
            chain: u64_at(bytes, CHAIN_OFFSET),
        })
    }

    /// The length of the payload, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The length of the whole frame, in bytes, padding included.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes)
    }

    /// Whether this is the header of a frame that follows one with chain value `previous_chain`.
    #[must_use]
    pub fn follows(&self, previous_chain: u64) -> bool {
        xxh3_64_with_seed(&self.bytes[..CHAIN_OFFSET], previous_chain) == self.chain
    }

    /// The frame's header as bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; FRAME_HEADER_BYTES] {
        &self.bytes
    }

    /// Joins the header with its payload (without padding), whose checksums are compared.
    pub fn with_payload(self, bytes: Bytes) -> Result<Frame, FrameError> {
        if bytes.len() != self.payload_bytes {
            return Err(FrameError::Short { got: bytes.len(), needed: self.payload_bytes });
        }
        let payload = Payload::new(bytes);
        if payload.hash != u64_at(&self.bytes, 40) || payload.crc != u32_at(&self.bytes, 48) {
            return Err(FrameError::Payload(self.log_id));
        }
        let Self { bytes: header, kind, log_id, commit, chain, .. } = self;
        Ok(Frame { header, kind, log_id, commit, chain, payload })
    }
}

impl Frame {
    /// Encodes a frame that follows one with chain value `previous_chain`. Costs no look at the payload.
    #[must_use]
    pub fn encode(
        kind: FrameKind,
        log_id: LogId,
        commit: Option<LogIndex>,
        previous_chain: u64,
        payload: Payload,
    ) -> Self {
        let mut header = [0; FRAME_HEADER_BYTES];
        let payload_bytes = payload.bytes.len();
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[6] = kind as u8;
        header[8..12].copy_from_slice(&u32::try_from(frame_bytes(payload_bytes)).expect("bounded").to_le_bytes());
        header[12..16].copy_from_slice(&u32::try_from(payload_bytes).expect("bounded").to_le_bytes());
        header[16..24].copy_from_slice(&log_id.term.0.to_le_bytes());
        header[24..32].copy_from_slice(&log_id.index.0.to_le_bytes());
        header[32..40].copy_from_slice(&commit.map_or(0, |index| index.0 + 1).to_le_bytes());
        header[40..48].copy_from_slice(&payload.hash.to_le_bytes());
        header[48..52].copy_from_slice(&payload.crc.to_le_bytes());
        let chain = xxh3_64_with_seed(&header[..CHAIN_OFFSET], previous_chain);
        header[CHAIN_OFFSET..CHAIN_OFFSET + 8].copy_from_slice(&chain.to_le_bytes());
        let crc = crc32fast::hash(&header[..HEADER_CRC_OFFSET]);
        header[HEADER_CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        Self { header, kind, log_id, commit, chain, payload }
    }

    /// Whether this frame follows one with chain value `previous_chain`.
    #[must_use]
    pub fn follows(&self, previous_chain: u64) -> bool {
        xxh3_64_with_seed(&self.header[..CHAIN_OFFSET], previous_chain) == self.chain
    }

    /// The header as bytes.
    #[must_use]
    pub fn header(&self) -> &[u8; FRAME_HEADER_BYTES] {
        &self.header
    }

    /// What the payload is.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The log id.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The highest index known committed by the leader when it encoded the frame.
    #[must_use]
    pub fn commit(&self) -> Option<LogIndex> {
        self.commit
    }

    /// The chain value after this frame.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The length of the whole frame, in bytes, padding included.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload.bytes.len())
    }
}
