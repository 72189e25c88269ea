//! A small file that is replaced as a whole, atomically: two slots, written in turn. `node.meta` and `vote` are such
//! files.
//!
//! ```text
//! file:   slot 0, slot 1; each of the slot size (a multiple of 4096 bytes)
//! slot:   parts of 512 bytes, a sector each; a payload takes as many as it needs, from the first on
//! part:   offset  size  field (little endian)
//!              0     4  magic "CSLT"
//!              4     2  format version (2)
//!              6     2  number of the part in its slot
//!              8     8  sequence: 1 for the first payload, one more with each write; 0 in a part that was never written
//!             16     4  payload bytes, of all parts together
//!             20     4  CRC-32 of the payload, of all parts together
//!             24     4  CRC-32 of the other 508 bytes of the part
//!             28   484  that part of the payload, then zeros
//! ```
//!
//! Sequence n stands in slot n modulo 2. A write goes to the slot that does not hold the newest payload and is synced
//! before it counts, so a crash in the middle of it leaves the newest payload as it was.
//!
//! # Torn or damaged
//!
//! A sector is written whole or not at all. So a write that a crash tore leaves parts that are sound, each by itself, and
//! not of one write; a part that is not sound is damage, never a torn write. A write that was acknowledged has its
//! sequence in the first part of its slot; therefore:
//!
//! - the slot whose first part has the higher sequence holds the newest payload, if its parts are all sound and of one
//!   write. If they are sound and not of one write, it is torn, was never acknowledged, and the other slot has the
//!   newest payload. If one is not sound, the file is damaged;
//! - if the first part of either slot is not sound, the file is damaged: that slot may have held the newest payload. The
//!   same if the two sequences do not follow each other: then a write was lost;
//! - anything else about the older slot is of no interest.
//!
//! A damaged file does not open. To go on from the older payload would be to forget one that was acknowledged: a vote,
//! so that the node could vote twice in a term; a checkpoint's target, with pages written up to it; a generation, which
//! would be removed.
//!
//! # Opening
//!
//! Opening finds the newest payload, writes it over itself and syncs it. What is read may come from the page cache of a
//! process that died before its sync, or whose sync failed, which leaves pages that no later sync writes; and what is
//! done with the payload rests on it: files are removed that an older payload needs, pages are written up to a target, a
//! vote is repeated without being saved. The other slot is left alone: until the newest is durable, it is the only
//! payload that is. Written over itself a slot changes nothing on a disk that has it, and is the write that was under
//! way on one that does not.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;

const MAGIC: [u8; 4] = *b"CSLT";
const FORMAT_VERSION: u16 = 2;
/// The size of a part, in bytes: what a disk writes whole or not at all.
const PART_BYTES: usize = 512;
const PART_HEADER_BYTES: usize = 28;
/// How much of a payload a part holds, in bytes.
const PART_PAYLOAD_BYTES: usize = PART_BYTES - PART_HEADER_BYTES;
const CRC_OFFSET: usize = 24;
const _: () = assert!(CRC_OFFSET + 4 == PART_HEADER_BYTES);
const SLOT_UNIT_BYTES: u64 = 4096;
const _: () = assert!(SLOT_UNIT_BYTES.is_multiple_of(PART_BYTES as u64));

/// An open file of two slots.
pub struct SlotFile {
    file: Arc<dyn DiskFile>,
    slot_bytes: u64,
    /// Of the newest payload.
    sequence: u64,
    /// Why a write failed: the next payload would be numbered as that one was, and which of them is there is not known.
    failed: Option<StorageError>,
}

impl SlotFile {
    /// Makes the file with its first payload, durably: it gets its name only when it is whole.
    ///
    /// # Errors
    /// Those of the disk; `AlreadyExists` if a file of this name is there.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096, or the payload does not fit.
    pub fn create(disk: &dyn Disk, path: &Path, slot_bytes: u64, first_payload: &[u8]) -> Result<Self, StorageError> {
        check_slot_size(slot_bytes);
        if disk.exists(path)? {
            let error = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already");
            return Err(StorageError::io(path, 0, "create", &error));
        }
        let unnamed = path.with_added_extension("new");
        if disk.exists(&unnamed)? {
            disk.remove_file(&unnamed)?;
        }
        let file = disk.open(&unnamed, OpenMode::CreateNew)?;
        // All of it is written once, so that later writes change no metadata, and so that a part that is not sound is
        // never one that was not written yet.
        let parts = (0..parts_of(slot_bytes)).flat_map(|number| Part::NEVER_WRITTEN.encode(number, &[]));
        let empty: Vec<u8> = parts.collect();
        file.write_at(&[IoSlice::new(&empty), IoSlice::new(&empty)], 0)?;
        Self { file, slot_bytes, sequence: 0, failed: None }.write(first_payload)?;
        disk.rename(&unnamed, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(Self { file: disk.open(path, OpenMode::Write)?, slot_bytes, sequence: 1, failed: None })
    }

    /// Opens the file and returns its newest payload, which is durable then. Its name is not: that is up to a sync of the
    /// directory.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if the newest payload may be lost.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn open(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<(Self, Vec<u8>), StorageError> {
        check_slot_size(slot_bytes);
        let file = disk.open(path, OpenMode::Write)?;
        let (sequence, payload) = newest(&*file, slot_bytes)?;
        let slots = Self { file, slot_bytes, sequence, failed: None };
        slots.put(sequence, &payload)?;
        Ok((slots, payload))
    }

    /// Reads the newest payload and changes nothing, for a look at a directory that no node has open.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if the newest payload may be lost.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn read(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<Vec<u8>, StorageError> {
        check_slot_size(slot_bytes);
        Ok(newest(&*disk.open(path, OpenMode::Read)?, slot_bytes)?.1)
    }

    /// Replaces the payload; durable when this returns. After an error the file must be opened anew: which payload it
    /// holds is not known.
    ///
    /// # Errors
    /// Those of the disk; `Poisoned` ever after.
    ///
    /// # Panics
    /// When the payload does not fit.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), StorageError> {
        let room = room_bytes(self.slot_bytes);
        assert!(payload.len() <= room, "a payload of {} bytes in a slot for {room}", payload.len());
        self.check()?;
        let sequence = self.sequence.checked_add(1).expect("sequences exhausted");
        self.put(sequence, payload).inspect_err(|error| self.failed = Some(error.clone()))?;
        self.sequence = sequence;
        Ok(())
    }

    /// Whether it is known which payload the file holds.
    ///
    /// # Errors
    /// `Poisoned` after a write that failed.
    pub fn check(&self) -> Result<(), StorageError> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(StorageError::Poisoned(error.to_string())))
    }

    fn put(&self, sequence: u64, payload: &[u8]) -> Result<(), StorageError> {
        let offset = (sequence % 2) * self.slot_bytes;
        self.file.write_at(&[IoSlice::new(&encode(sequence, payload))], offset)?;
        self.file.sync_data()
    }

    /// The number of the newest payload.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }
}

fn check_slot_size(slot_bytes: u64) {
    let valid = slot_bytes > 0 && slot_bytes.is_multiple_of(SLOT_UNIT_BYTES) && slot_bytes <= 1 << 20;
    assert!(valid, "slots of {slot_bytes} bytes");
}

/// The longest payload that a slot of this size holds, in bytes.
#[must_use]
pub const fn room_bytes(slot_bytes: u64) -> usize {
    slot_bytes as usize / PART_BYTES * PART_PAYLOAD_BYTES
}

fn parts_of(slot_bytes: u64) -> u16 {
    u16::try_from(slot_bytes / PART_BYTES as u64).expect("slots are small")
}

/// What a part says of the write that it belongs to: equal in all parts of one write.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part {
    sequence: u64,
    payload_bytes: u32,
    payload_crc: u32,
}

impl Part {
    const NEVER_WRITTEN: Self = Self { sequence: 0, payload_bytes: 0, payload_crc: 0 };

    fn encode(&self, number: u16, payload: &[u8]) -> [u8; PART_BYTES] {
        let mut bytes = [0; PART_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[PART_HEADER_BYTES..PART_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let crc = part_crc(&bytes);
        bytes[CRC_OFFSET..PART_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], number: u16) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.first_chunk::<PART_BYTES>() else { return Err("the file ends too early") };
        let u32_at = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"));
        if bytes[0..4] != MAGIC {
            return Err("no slot magic");
        }
        if u16::from_le_bytes([bytes[4], bytes[5]]) != FORMAT_VERSION {
            return Err("unknown format version");
        }
        if part_crc(bytes) != u32_at(CRC_OFFSET) {
            return Err("it does not match its checksum");
        }
        if u16::from_le_bytes([bytes[6], bytes[7]]) != number {
            return Err("it belongs elsewhere");
        }
        let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
        Ok(Self { sequence, payload_bytes: u32_at(16), payload_crc: u32_at(20) })
    }
}

fn part_crc(bytes: &[u8; PART_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_OFFSET]);
    hasher.update(&bytes[PART_HEADER_BYTES..]);
    hasher.finalize()
}

/// The parts of a payload, one behind the other; one part at least.
fn encode(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = u32::try_from(payload.len()).expect("slots are small");
    let part = Part { sequence, payload_bytes, payload_crc: crc32fast::hash(payload) };
    if payload.is_empty() {
        return part.encode(0, payload).to_vec();
    }
    (0..).zip(payload.chunks(PART_PAYLOAD_BYTES)).flat_map(|(number, piece)| part.encode(number, piece)).collect()
}

/// A slot whose first part is sound.
struct Slot {
    first: Part,
    bytes: Vec<u8>,
}

impl Slot {
    fn read(file: &dyn DiskFile, slot: u64, slot_bytes: u64) -> Result<Self, StorageError> {
        let mut bytes = vec![0; usize::try_from(slot_bytes).expect("slots are small")];
        let got = file.read_at(&mut bytes, slot * slot_bytes)?;
        bytes.truncate(got);
        let damaged = |what| damage(file, slot * slot_bytes, &format!("slot {slot}: {what}; it may be the newest"));
        let first = Part::decode(&bytes, 0).map_err(damaged)?;
        if first.sequence != 0 && first.sequence % 2 != slot {
            return Err(damaged("it stands in the other's place"));
        }
        Ok(Self { first, bytes })
    }

    /// The payload; `None` if its write was torn. An error says which part is not sound.
    fn payload(&self) -> Result<Option<Vec<u8>>, String> {
        let length = self.first.payload_bytes as usize;
        let mut payload = Vec::with_capacity(length);
        for number in 0..u16::try_from(length.div_ceil(PART_PAYLOAD_BYTES)).map_err(|_| "its length")? {
            let at = usize::from(number) * PART_BYTES;
            let bytes = self.bytes.get(at..).unwrap_or_default();
            match Part::decode(bytes, number) {
                Ok(part) if part == self.first => {
                    let piece = PART_PAYLOAD_BYTES.min(length - payload.len());
                    payload.extend_from_slice(&bytes[PART_HEADER_BYTES..PART_HEADER_BYTES + piece]);
                }
                Ok(_) => return Ok(None),
                Err(what) => return Err(format!("part {number}: {what}")),
            }
        }
        if crc32fast::hash(&payload) == self.first.payload_crc { Ok(Some(payload)) } else { Err("its checksum".into()) }
    }
}

fn damage(file: &dyn DiskFile, offset: u64, what: &str) -> StorageError {
    StorageError::corrupted(file.path(), offset, what)
}

/// The newest payload and its sequence.
fn newest(file: &dyn DiskFile, slot_bytes: u64) -> Result<(u64, Vec<u8>), StorageError> {
    let slots = [Slot::read(file, 0, slot_bytes)?, Slot::read(file, 1, slot_bytes)?];
    let [zero, one] = [&slots[0].first, &slots[1].first].map(|part| part.sequence);
    if zero.abs_diff(one) != 1 {
        return Err(damage(file, 0, &format!("the slots hold sequences {zero} and {one}: a write was lost")));
    }
    let newest = usize::from(one > zero);
    for slot in [newest, 1 - newest] {
        let sequence = slots[slot].first.sequence;
        match slots[slot].payload() {
            Ok(Some(payload)) if sequence > 0 => return Ok((sequence, payload)),
            Ok(_) => {}
            Err(what) => return Err(damage(file, slot as u64 * slot_bytes, &format!("slot {slot}: {what}"))),
        }
    }
    Err(damage(file, 0, "both slots are torn"))
}
