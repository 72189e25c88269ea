//! Segment files: their header, and how a file of the right size comes to be.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CSEG"
//!      4     2  format version (2: that of the group blocks behind it)
//!      6     1  1 if there is a frame before the first one, else 0
//!      7     1  zero
//!      8     8  segment number
//!     16     8  segment bytes
//!     24     8  number of the first group
//!     32     8  cut epoch
//!     40     8  term of the frame before
//!     48     8  index of the frame before
//!     56     8  chain value of the frame before
//!     64     4  zero
//!     68     4  CRC-32 of bytes 0..68
//!     72        zeros up to 4096, but for the second attest at 2048: a group block, see writer.rs
//! ```

use std::path::Path;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{LogId, NEVER_REACHED};
use crate::journal::format::{LogStart, SEGMENT_HEADER_BYTES};

const MAGIC: [u8; 4] = *b"CSEG";
const FORMAT_VERSION: u16 = 2;
const CRC_OFFSET: usize = 68;
const USED_BYTES: usize = CRC_OFFSET + 4;
const _: () = assert!(USED_BYTES <= 512, "the header is written whole or not at all: it stays within a sector");

/// Zeros are written in pieces of this many bytes, each synced: a sync of a whole segment would hold up the journal's.
const ZERO_PIECE_BYTES: usize = 1 << 20;

/// A decoded segment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The segment's number; a recycled file has an older one until its first group is written.
    pub number: u64,
    /// The size of every segment of this journal, in bytes.
    pub segment_bytes: u64,
    /// The number its first group has.
    pub first_group: u64,
    /// The cut epoch its first group has.
    pub epoch: u64,
    /// The frame before its first one.
    pub start: LogStart,
}

impl SegmentHeader {
    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; SEGMENT_HEADER_BYTES as usize]> {
        let mut bytes = Box::new([0; SEGMENT_HEADER_BYTES as usize]);
        let previous = self.start.previous.unwrap_or_default();
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[6] = u8::from(self.start.previous.is_some());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_group.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[40..48].copy_from_slice(&previous.term.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&previous.index.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.start.chain.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..USED_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; the reason in words if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.first_chunk::<USED_BYTES>() else {
            return Err("the segment ends within its header");
        };
        if bytes[0..4] != MAGIC {
            return Err("no segment magic");
        }
        let crc = u32::from_le_bytes(bytes[CRC_OFFSET..].try_into().expect("4 bytes"));
        if crc32fast::hash(&bytes[..CRC_OFFSET]) != crc {
            return Err("the segment header does not match its checksum");
        }
        if u16::from_le_bytes([bytes[4], bytes[5]]) != FORMAT_VERSION {
            return Err("unknown format version of a segment");
        }
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"));
        let previous = (bytes[6] != 0).then(|| LogId::new(u64_at(40), u64_at(48)));
        let header = Self {
            number: u64_at(8),
            segment_bytes: u64_at(16),
            first_group: u64_at(24),
            epoch: u64_at(32),
            start: LogStart { previous, chain: u64_at(56) },
        };
        let (term, index) = previous.map_or((0, 0), |previous| (previous.term.0, previous.index.0));
        let end = header.number.saturating_mul(header.segment_bytes);
        if [term, index, header.first_group, header.epoch, end].iter().any(|number| *number >= NEVER_REACHED) {
            return Err("a number or a place that no journal reaches");
        }
        Ok(header)
    }
}

/// How a file of zeros goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zeroing {
    /// With another piece of zeros.
    GoOn,
    /// The rest gets its space and is not written: whoever needs the file cannot wait.
    AllocateTheRest,
    /// Not at all: it is left unfinished.
    Stop,
}

/// Makes a file of `bytes` zeros, all of them written and synced, so that later writes change no metadata. `next` is asked
/// between pieces, and told how many bytes are done; after [`Zeroing::Stop`] the file is unfinished and `false` comes back. The name is not durable yet.
/// After an error the file is taken away again, if the disk lets it: a full disk must not get fuller.
pub(super) fn make_zeroed(
    disk: &dyn Disk,
    path: &Path,
    bytes: u64,
    next: &dyn Fn(u64) -> Zeroing,
) -> Result<bool, StorageError> {
    if disk.exists(path)? {
        disk.remove_file(path)?;
    }
    let file = disk.open(path, OpenMode::CreateNew)?;
    let written = write_zeros(&*file, bytes, next);
    if written.is_err() {
        disk.remove_file(path).unwrap_or(());
    }
    written
}

fn write_zeros(file: &dyn DiskFile, bytes: u64, next: &dyn Fn(u64) -> Zeroing) -> Result<bool, StorageError> {
    let mut done = 0;
    while done < bytes {
        let piece = match next(done) {
            Zeroing::Stop => return Ok(false),
            Zeroing::GoOn => {
                let piece = (bytes - done).min(ZERO_PIECE_BYTES as u64);
                file.write_zeros(done, piece)?;
                piece
            }
            Zeroing::AllocateTheRest => {
                file.allocate(done, bytes - done)?;
                bytes - done
            }
        };
        file.sync_data()?;
        done += piece;
    }
    Ok(true)
}
