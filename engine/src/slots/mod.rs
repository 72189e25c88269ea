//! A small file that is replaced as a whole, atomically: two slots, each of which holds the payload. `node.meta` and
//! `vote` are such files.
//!
//! ```text
//! file:   slot 0, slot 1; each of the slot size (a multiple of 4096 bytes)
//! slot:   parts of 512 bytes, a sector each; a payload takes as many as it needs, from the first on
//! part:   offset  size  field (little endian)
//!              0     4  magic "CSLT"
//!              4     2  format version (3)
//!              6     2  number of the part in the file: those of slot 1 follow those of slot 0
//!              8     8  sequence: 1 for the first payload, one more with each write; 0 in a part that was never written
//!             16     4  payload bytes, of all parts together
//!             20     4  CRC-32 of the payload, of all parts together
//!             24     4  CRC-32 of the other 508 bytes of the part
//!             28   484  that part of the payload, then zeros
//! ```
//!
//! A write goes to slot 0 and is synced, and then to slot 1 and is synced; only then it counts. So while nothing is
//! written both slots hold the newest payload. Where the payload and the one before it take one part each, as votes do,
//! both slots are written and then synced once: an election waits for that sync, on the candidate and on each voter.
//!
//! # Crash by crash
//!
//! - *While slot 0 is written.* It may be torn; slot 1 holds the payload before, which is the newest that counts.
//! - *While slot 1 is written.* It may be torn; slot 0 holds the new payload, which is durable and does not count yet.
//!   Taking it is right: it is the write that was under way.
//! - *While both are written, of one part each.* A part is a sector, and neither can be torn. Each slot holds the payload
//!   before or the new one, whole, in any of the four ways; the higher sequence is taken, which is right as above. Were a
//!   disk to tear a sector after all, and both of them, then the file would not open: nothing is forgotten then either.
//!
//! # Torn or damaged
//!
//! A sector is written whole or not at all. So a write that a crash tore leaves parts that are sound, each by itself, and
//! not of one write; a part that is not sound is damage. What a slot tells:
//!
//! | slot 0 | slot 1 | the payload |
//! | --- | --- | --- |
//! | whole | whole | the one of the higher sequence; if one sequence stands for two payloads, the file is damaged |
//! | whole | torn or damaged | that of the whole one, and the same the other way round |
//! | torn or damaged | torn or damaged | the file is damaged: it does not open |
//!
//! Why one slot is enough, where two that are written in turn would not be: a payload that counted was durable in both.
//! So a whole slot holds the newest payload that counted, or the one after it, unless that very slot lost a write; and
//! then the other one is whole, and has the higher sequence. Only two faults at once, one in each slot, go beyond that,
//! and they are told unless both slots lost the same writes. Were each payload in one slot only, a bad slot could have
//! held the newest one, and to go on from the other would be to forget what was acknowledged: a vote, so that the node
//! could vote twice in a term; a checkpoint's target, with pages written up to it; a generation, which would be removed.
//! The price is a second sync for each step of a checkpoint, where `node.meta` takes more than one part.
//!
//! # Opening
//!
//! Opening finds the newest payload, writes it over itself and syncs it, and then does the same with the other slot, which
//! mends that one. What is read may come from the page cache of a process that died before its sync, or whose sync failed,
//! which leaves pages that no later sync writes; and what is done with the payload rests on it: files are removed that an
//! older payload needs, pages are written up to a target, a vote is repeated without being saved. Until the newest is
//! durable, the other slot may hold the only payload that is: so that one comes second. Written over itself a slot
//! changes nothing on a disk that has it, and is the write that was under way on one that does not.

mod part;
mod survey;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;
use part::{PART_BYTES, PART_HEADER_BYTES, PART_PAYLOAD_BYTES, Part, encode};
pub use survey::{SlotsSurvey, UnsoundPart};

const SLOT_UNIT_BYTES: u64 = 4096;
const _: () = assert!(SLOT_UNIT_BYTES.is_multiple_of(PART_BYTES as u64));

/// A slot that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SlotDamage {
    /// The file.
    pub file: PathBuf,
    /// Where the slot begins in it, in bytes.
    pub offset: u64,
    /// Which slot, and what is wrong with it.
    pub what: String,
}

/// The newest payload of a file, and how the file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The payload.
    pub payload: Vec<u8>,
    /// A slot that is damaged; the other one has the payload.
    pub damage: Option<SlotDamage>,
    sequence: u64,
    /// The slot that has the payload.
    slot: u64,
}

/// An open file of two slots.
pub struct SlotFile {
    file: Arc<dyn DiskFile>,
    slot_bytes: u64,
    /// Of the newest payload.
    sequence: u64,
    payload: Vec<u8>,
    mended: Option<SlotDamage>,
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
        Self::replace(disk, path, slot_bytes, first_payload)
    }

    /// As [`Self::create`], and what stands under the name is replaced, whatever it is: it is there until the new file is
    /// whole.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Panics
    /// As [`Self::create`].
    pub fn replace(disk: &dyn Disk, path: &Path, slot_bytes: u64, first_payload: &[u8]) -> Result<Self, StorageError> {
        check_slot_size(slot_bytes);
        let unnamed = path.with_added_extension("new");
        if disk.exists(&unnamed)? {
            disk.remove_file(&unnamed)?;
        }
        let file = disk.open(&unnamed, OpenMode::CreateNew)?;
        // All of it is written once, so that later writes change no metadata, and so that a part that is not sound is
        // never one that was not written yet.
        let parts = (0..2 * parts_of(slot_bytes)).flat_map(|number| Part::NEVER_WRITTEN.encode(number, &[]));
        let empty: Vec<u8> = parts.collect();
        file.write_at(&[IoSlice::new(&empty)], 0)?;
        let mut slots = Self { file, slot_bytes, sequence: 0, payload: Vec::new(), mended: None, failed: None };
        slots.write(first_payload)?;
        disk.rename(&unnamed, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(Self { file: disk.open(path, OpenMode::Write)?, ..slots })
    }

    /// Opens the file and returns its newest payload, which is durable then, in both slots: one that was damaged is mended.
    /// The file's name is not durable: that is up to a sync of the directory.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if the newest payload may be lost.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn open(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<(Self, Vec<u8>), StorageError> {
        check_slot_size(slot_bytes);
        let file = disk.open(path, OpenMode::Write)?;
        let Look { payload, damage, sequence, slot } = look(&*file, slot_bytes)?;
        let slots = Self { file, slot_bytes, sequence, payload: payload.clone(), mended: damage, failed: None };
        slots.put(slot, sequence, &payload)?;
        slots.put(1 - slot, sequence, &payload)?;
        Ok((slots, payload))
    }

    /// Reads the newest payload and changes nothing, for a look at a directory that no node has open.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if the newest payload may be lost.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn look(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<Look, StorageError> {
        check_slot_size(slot_bytes);
        look(&*disk.open(path, OpenMode::Read)?, slot_bytes)
    }

    /// The payload of [`Self::look`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn read(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<Vec<u8>, StorageError> {
        Ok(Self::look(disk, path, slot_bytes)?.payload)
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
        self.put_both(sequence, payload).inspect_err(|error| self.failed = Some(error.clone()))?;
        self.sequence = sequence;
        self.payload = payload.to_vec();
        Ok(())
    }

    /// Reads both slots anew, past what is cached where that can be, and mends one that does not hold the newest payload:
    /// what this file holds is known here, so both may be bad.
    ///
    /// # Errors
    /// Those of the disk; `Poisoned` after a write that failed.
    pub fn scrub(&mut self) -> Result<Vec<SlotDamage>, StorageError> {
        self.check()?;
        let mut found = Vec::new();
        for slot in [0, 1] {
            let what = match Slot::read(&*self.file, slot, self.slot_bytes, true)? {
                Slot::Whole(sequence, payload) if sequence == self.sequence && payload == self.payload => continue,
                Slot::Whole(sequence, _) => format!("it holds sequence {sequence} and should hold {}", self.sequence),
                Slot::Torn => "its parts are not of one write".into(),
                Slot::Damaged(what) => what,
            };
            found.push(damaged(&*self.file, slot, self.slot_bytes, &what));
            let (sequence, payload) = (self.sequence, self.payload.clone());
            self.put(slot, sequence, &payload).inspect_err(|error| self.failed = Some(error.clone()))?;
        }
        Ok(found)
    }

    /// The slot that opening found damaged, and mended.
    #[must_use]
    pub fn mended(&self) -> Option<&SlotDamage> {
        self.mended.as_ref()
    }

    /// Whether it is known which payload the file holds.
    ///
    /// # Errors
    /// `Poisoned` after a write that failed.
    pub fn check(&self) -> Result<(), StorageError> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(StorageError::Poisoned(error.to_string())))
    }

    fn put_both(&self, sequence: u64, payload: &[u8]) -> Result<(), StorageError> {
        self.put_unsynced(0, sequence, payload)?;
        // Of one part each, neither slot can be torn: both may be under way at once.
        if payload.len().max(self.payload.len()) > PART_PAYLOAD_BYTES {
            self.file.sync_data()?;
        }
        self.put(1, sequence, payload)
    }

    fn put(&self, slot: u64, sequence: u64, payload: &[u8]) -> Result<(), StorageError> {
        self.put_unsynced(slot, sequence, payload)?;
        self.file.sync_data()
    }

    fn put_unsynced(&self, slot: u64, sequence: u64, payload: &[u8]) -> Result<(), StorageError> {
        let bytes = encode(first_part(slot, self.slot_bytes), sequence, payload);
        self.file.write_at(&[IoSlice::new(&bytes)], slot * self.slot_bytes)
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

/// The number of a slot's first part.
fn first_part(slot: u64, slot_bytes: u64) -> u16 {
    u16::try_from(slot).expect("0 or 1") * parts_of(slot_bytes)
}

/// What a slot is.
enum Slot {
    /// It holds the payload of this sequence.
    Whole(u64, Vec<u8>),
    /// All of its parts are sound, and not of one write.
    Torn,
    /// Not what was written, and why.
    Damaged(String),
}

impl Slot {
    fn read(file: &dyn DiskFile, slot: u64, slot_bytes: u64, past_cache: bool) -> Result<Self, StorageError> {
        let mut bytes = vec![0; usize::try_from(slot_bytes).expect("slots are small")];
        let offset = slot * slot_bytes;
        let got = if past_cache { file.read_past_cache(&mut bytes, offset) } else { file.read_at(&mut bytes, offset) }?;
        bytes.truncate(got);
        Ok(Self::of(&bytes, first_part(slot, slot_bytes)))
    }

    fn of(bytes: &[u8], first_number: u16) -> Self {
        let first = match Part::decode(bytes, first_number) {
            Ok(first) => first,
            Err(what) => return Self::Damaged(format!("part 0: {what}")),
        };
        let length = first.payload_bytes as usize;
        let parts = length.div_ceil(PART_PAYLOAD_BYTES);
        // What lies behind the parts of a payload is of no interest, and neither is a length that no slot has room for.
        if parts * PART_BYTES > bytes.len() {
            return Self::Damaged("part 0: the file ends too early".into());
        }
        let mut payload = Vec::with_capacity(length);
        let mut torn = false;
        for (number, bytes) in (first_number..).zip(bytes.chunks(PART_BYTES)).take(parts) {
            match Part::decode(bytes, number) {
                Ok(part) if part == first => {
                    let piece = PART_PAYLOAD_BYTES.min(length - payload.len());
                    payload.extend_from_slice(&bytes[PART_HEADER_BYTES..PART_HEADER_BYTES + piece]);
                }
                Ok(_) => torn = true,
                Err(what) => return Self::Damaged(format!("part {}: {what}", number - first_number)),
            }
        }
        if torn {
            Self::Torn
        } else if crc32fast::hash(&payload) == first.payload_crc {
            Self::Whole(first.sequence, payload)
        } else {
            Self::Damaged("its parts do not match the checksum of the payload".into())
        }
    }
}

fn damaged(file: &dyn DiskFile, slot: u64, slot_bytes: u64, what: &str) -> SlotDamage {
    SlotDamage { file: file.path().to_path_buf(), offset: slot * slot_bytes, what: format!("slot {slot}: {what}") }
}

/// The newest payload, by the table above.
fn look(file: &dyn DiskFile, slot_bytes: u64) -> Result<Look, StorageError> {
    let damaged = |slot, what: &str| Some(damaged(file, slot, slot_bytes, what));
    let corrupted = |what: &str| Err(StorageError::corrupted(file.path(), 0, what));
    let (slot, sequence, payload, damage) =
        match (Slot::read(file, 0, slot_bytes, false)?, Slot::read(file, 1, slot_bytes, false)?) {
            (Slot::Whole(zero, payload), Slot::Whole(one, other)) => {
                if zero == one && payload != other {
                    return corrupted(&format!("both slots say sequence {zero}, and hold different payloads"));
                }
                let lost = |slot, has, newest: u64| {
                    let what = format!("it holds sequence {has} beside {newest}: it lost a write");
                    (newest - has > 1).then(|| damaged(slot, &what)).flatten()
                };
                if one > zero { (1, one, other, lost(0, zero, one)) } else { (0, zero, payload, lost(1, one, zero)) }
            }
            (Slot::Whole(sequence, payload), Slot::Torn) => (0, sequence, payload, None),
            (Slot::Torn, Slot::Whole(sequence, payload)) => (1, sequence, payload, None),
            (Slot::Whole(sequence, payload), Slot::Damaged(what)) => (0, sequence, payload, damaged(1, &what)),
            (Slot::Damaged(what), Slot::Whole(sequence, payload)) => (1, sequence, payload, damaged(0, &what)),
            (zero, one) => {
                let words = |slot| match slot {
                    Slot::Damaged(what) => what,
                    _ => "its parts are not of one write".into(),
                };
                return corrupted(&format!("both slots are bad: slot 0: {}; slot 1: {}", words(zero), words(one)));
            }
        };
    if sequence == 0 {
        return corrupted("no slot holds a payload that was ever written");
    }
    Ok(Look { payload, damage, sequence, slot })
}
