//! The group block: what one write begins with, where a cut stands, and how the end is attested. Local to a node, no
//! part of any frame.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CGRP"
//!      4     2  format version (2)
//!      6     1  kind: 1 append, 2 cut, 3 attest
//!      7     1  zero
//!      8     8  group number
//!     16     8  cut epoch
//!     24     8  attested: the journal position up to which everything was durable when this block was written
//!     32     8  own position
//!     40     4  length, in units of 64 bytes: up to behind the last frame, padding included; of the block if it has none
//!     44     4  low half of the chain value after the group's last frame; if it has none, of the frame that stands before
//!     48     8  index of the first frame (of a cut: of the first frame it removed; of an attest: of the next frame)
//!     56     4  number of frames
//!     60     4  CRC-32 of bytes 0..60
//! ```

use crate::ids::{JournalPosition, LogIndex};
use crate::journal::format::UNIT_BYTES;

/// The size of a group block, in bytes.
pub const GROUP_BLOCK_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"CGRP";
const FORMAT_VERSION: u16 = 2;
/// No block has an epoch or a number this far above one that was written before it: bytes that say so are none.
const MAX_AHEAD: u64 = 1 << 40;
const CRC_OFFSET: usize = 60;
const _: () = assert!(CRC_OFFSET + 4 == GROUP_BLOCK_BYTES && GROUP_BLOCK_BYTES as u64 == UNIT_BYTES);

/// What a group block does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GroupKind {
    /// Frames follow.
    Append = 1,
    /// Everything that stood from here on is gone.
    Cut = 2,
    /// Nothing follows yet; what stands before is durable. The next group is written over it.
    Attest = 3,
}

/// A decoded group block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupBlock {
    /// What it does.
    pub kind: GroupKind,
    /// Its number. (epoch, number) only ever grows.
    pub number: u64,
    /// How many cuts were made before, and by, this block.
    pub epoch: u64,
    /// Up to where the journal was durable when it was written.
    pub attested: JournalPosition,
    /// Where it stands itself: bytes elsewhere that look like a block are none.
    pub position: JournalPosition,
    /// Where the next group may stand.
    pub end: JournalPosition,
    /// The index of its first frame.
    pub first_index: LogIndex,
    /// How many frames follow.
    pub frames: u32,
    /// [`chain_low`] of its last frame, or of the one before if it has none.
    pub chain_low: u32,
}

/// As much of a chain value as a block names.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the low half")]
pub fn chain_low(chain: u64) -> u32 {
    chain as u32
}

impl GroupBlock {
    /// The block as bytes.
    ///
    /// # Panics
    /// When its end is not a number of units behind it.
    #[must_use]
    pub fn encode(&self) -> [u8; GROUP_BLOCK_BYTES] {
        let length = self.end.0 - self.position.0;
        assert!(length.is_multiple_of(UNIT_BYTES), "a group of {length} bytes");
        let units = u32::try_from(length / UNIT_BYTES).expect("groups are bounded");
        let mut bytes = [0; GROUP_BLOCK_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.attested.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&units.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.chain_low.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_index.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.frames.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a block that should stand at `position`; `None` if there is none.
    #[must_use]
    pub fn decode(bytes: &[u8], position: JournalPosition) -> Option<Self> {
        let bytes = bytes.first_chunk::<GROUP_BLOCK_BYTES>()?;
        if bytes[0..4] != MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(bytes[CRC_OFFSET..].try_into().expect("4 bytes"));
        if crc32fast::hash(&bytes[..CRC_OFFSET]) != crc || u16::from_le_bytes([bytes[4], bytes[5]]) != FORMAT_VERSION {
            return None;
        }
        let kind = match bytes[6] {
            1 => GroupKind::Append,
            2 => GroupKind::Cut,
            3 => GroupKind::Attest,
            _ => return None,
        };
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("8 bytes"));
        let u32_at = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"));
        let block = Self {
            kind,
            number: u64_at(8),
            epoch: u64_at(16),
            attested: JournalPosition(u64_at(24)),
            position: JournalPosition(u64_at(32)),
            end: JournalPosition(u64_at(32).checked_add(u64::from(u32_at(40)) * UNIT_BYTES)?),
            first_index: LogIndex(u64_at(48)),
            frames: u32_at(56),
            chain_low: u32_at(44),
        };
        (block.position == position).then_some(block)
    }

    /// Whether epoch and number are at most as far above these as those of a later block can be.
    #[must_use]
    pub fn is_near(&self, epoch: u64, number: u64) -> bool {
        self.epoch.saturating_sub(epoch) <= MAX_AHEAD && self.number.saturating_sub(number) <= MAX_AHEAD
    }
}
