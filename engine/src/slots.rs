//! A small file that is replaced as a whole, atomically: two slots, written in turn. `node.meta` and `vote` are such
//! files.
//!
//! ```text
//! file:   slot 0, slot 1; each of the slot size (a multiple of 4096 bytes)
//! slot:   offset  size  field (little endian)
//!              0     4  magic "CSLT"
//!              4     2  format version (1)
//!              6     2  zero
//!              8     8  sequence: 1 for the first payload, one more with each write
//!             16     4  payload bytes
//!             20     4  CRC-32 of bytes 0..20 and the payload
//!             24        payload, then whatever an older, longer payload left
//! ```
//!
//! Sequence n stands in slot n modulo 2. A write goes to the slot that does not hold the newest payload and is synced
//! before it counts, so a crash in the middle of it leaves the newest payload as it was. Opening takes the valid slot
//! with the highest sequence, writes it over itself and syncs it. What is read may come from the page cache of a process
//! that died before its sync, or whose sync failed, which leaves pages that no later sync writes; and what is done with
//! the payload rests on it: files are removed that an older payload needs, pages are written up to a target, a vote is
//! repeated without being saved. The other slot is left alone: until the newest is durable, it is the only payload that
//! is. Written over itself a slot changes nothing on a disk that has it, and is the write that was under way on one
//! that does not.
//!
//! A single bad slot is either such a torn write or damage of the newest payload; nothing
//! tells the two apart here, so [`SlotFile::damaged_slot`] says that there is one.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;

const MAGIC: [u8; 4] = *b"CSLT";
const FORMAT_VERSION: u16 = 1;
/// The size of a slot's header, in bytes.
pub const SLOT_HEADER_BYTES: usize = 24;
const CRC_OFFSET: usize = 20;
const _: () = assert!(CRC_OFFSET + 4 == SLOT_HEADER_BYTES);
const SLOT_UNIT_BYTES: u64 = 4096;

/// An open file of two slots.
pub struct SlotFile {
    file: Arc<dyn DiskFile>,
    slot_bytes: u64,
    /// Of the newest payload.
    sequence: u64,
    damaged_slot: Option<u8>,
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
        // All of it is written once, so that later writes change no metadata.
        let zeros = vec![0; usize::try_from(2 * slot_bytes).expect("slots are small")];
        file.write_at(&[IoSlice::new(&zeros)], 0)?;
        Self { file, slot_bytes, sequence: 0, damaged_slot: None, failed: None }.write(first_payload)?;
        disk.rename(&unnamed, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(Self { file: disk.open(path, OpenMode::Write)?, slot_bytes, sequence: 1, damaged_slot: None, failed: None })
    }

    /// Opens the file and returns its newest payload, which is durable then. Its name is not: that is up to a sync of the
    /// directory.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if neither slot is valid.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn open(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<(Self, Vec<u8>), StorageError> {
        let (slots, payload) = Self::find(disk, path, slot_bytes, OpenMode::Write)?;
        slots.put(slots.sequence, &payload)?;
        Ok((slots, payload))
    }

    /// Reads the newest payload and changes nothing, for a look at a directory that no node has open.
    ///
    /// # Errors
    /// Those of the disk; `Corrupted` if neither slot is valid.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn read(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<Vec<u8>, StorageError> {
        Ok(Self::find(disk, path, slot_bytes, OpenMode::Read)?.1)
    }

    fn find(disk: &dyn Disk, path: &Path, slot_bytes: u64, mode: OpenMode) -> Result<(Self, Vec<u8>), StorageError> {
        check_slot_size(slot_bytes);
        let file = disk.open(path, mode)?;
        let slots = [0, 1].map(|slot| read_slot(&*file, slot, slot_bytes));
        let (sequence, payload, damaged_slot) = match slots {
            [Err(SlotError::Disk(error)), _] | [_, Err(SlotError::Disk(error))] => return Err(error),
            [Err(SlotError::Bad(first)), Err(SlotError::Bad(second))] => {
                let what = format!("neither slot is valid: slot 0: {first}; slot 1: {second}");
                return Err(StorageError::corrupted(path, 0, what));
            }
            [Ok(Some(first)), Ok(Some(second))] => {
                let newest = if first.0 > second.0 { first } else { second };
                (newest.0, newest.1, None)
            }
            // The second slot is empty until the second write.
            [Ok(first), Ok(second)] => {
                let Some((sequence, payload)) = first.or(second) else {
                    return Err(StorageError::corrupted(path, 0, "both slots are empty"));
                };
                (sequence, payload, None)
            }
            [Ok(first), Err(SlotError::Bad(what))] => only(path, first, 1, &what)?,
            [Err(SlotError::Bad(what)), Ok(second)] => only(path, second, 0, &what)?,
        };
        Ok((Self { file, slot_bytes, sequence, damaged_slot, failed: None }, payload))
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
        let room = self.slot_bytes as usize - SLOT_HEADER_BYTES;
        assert!(payload.len() <= room, "a payload of {} bytes in a slot for {room}", payload.len());
        self.check()?;
        let sequence = self.sequence.checked_add(1).expect("sequences exhausted");
        self.put(sequence, payload).inspect_err(|error| self.failed = Some(error.clone()))?;
        self.sequence = sequence;
        // A bad slot was never the newest valid one, so it is the one just written.
        self.damaged_slot = None;
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
        let header = encode_header(sequence, payload);
        let offset = (sequence % 2) * self.slot_bytes;
        self.file.write_at(&[IoSlice::new(&header), IoSlice::new(payload)], offset)?;
        self.file.sync_data()
    }

    /// The number of the newest payload.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The slot (0 or 1) that did not verify when the file was opened, until it is written again.
    #[must_use]
    pub fn damaged_slot(&self) -> Option<u8> {
        self.damaged_slot
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }
}

fn check_slot_size(slot_bytes: u64) {
    let valid = slot_bytes > 0 && slot_bytes.is_multiple_of(SLOT_UNIT_BYTES) && u32::try_from(slot_bytes).is_ok();
    assert!(valid, "slots of {slot_bytes} bytes");
}

/// The sequence and the payload of a valid slot.
type Slot = (u64, Vec<u8>);

/// The valid slot of the two, if the other (`damaged`) is bad.
fn only(path: &Path, valid: Option<Slot>, damaged: u8, what: &str) -> Result<(u64, Vec<u8>, Option<u8>), StorageError> {
    match valid {
        Some((sequence, payload)) => Ok((sequence, payload, Some(damaged))),
        None => Err(StorageError::corrupted(path, 0, format!("slot {damaged}: {what}; the other slot is empty"))),
    }
}

enum SlotError {
    Disk(StorageError),
    Bad(String),
}

/// Reads a slot; `None` if it was never written.
fn read_slot(file: &dyn DiskFile, slot: u64, slot_bytes: u64) -> Result<Option<Slot>, SlotError> {
    let mut bytes = vec![0; usize::try_from(slot_bytes).expect("slots are small")];
    let got = file.read_at(&mut bytes, slot * slot_bytes).map_err(SlotError::Disk)?;
    if got < bytes.len() {
        return Err(SlotError::Bad(format!("it has {got} of {slot_bytes} bytes")));
    }
    if bytes[..SLOT_HEADER_BYTES].iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (sequence, payload) = decode(&bytes).map_err(|what| SlotError::Bad(what.into()))?;
    if sequence % 2 != slot {
        return Err(SlotError::Bad(format!("it holds sequence {sequence}, which stands in the other slot")));
    }
    Ok(Some((sequence, payload.to_vec())))
}

fn encode_header(sequence: u64, payload: &[u8]) -> [u8; SLOT_HEADER_BYTES] {
    let mut header = [0; SLOT_HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..20].copy_from_slice(&u32::try_from(payload.len()).expect("slots are small").to_le_bytes());
    let crc = sum(&header, payload);
    header[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn sum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CRC_OFFSET]);
    hasher.update(payload);
    hasher.finalize()
}

fn decode(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let (header, rest) = bytes.split_at(SLOT_HEADER_BYTES);
    if header[0..4] != MAGIC {
        return Err("no slot magic");
    }
    let length = u32::from_le_bytes(header[16..20].try_into().expect("4 bytes")) as usize;
    let Some(payload) = rest.get(..length) else { return Err("its length is more than a slot holds") };
    if sum(header, payload) != u32::from_le_bytes(header[CRC_OFFSET..].try_into().expect("4 bytes")) {
        return Err("it does not match its checksum");
    }
    if u16::from_le_bytes([header[4], header[5]]) != FORMAT_VERSION {
        return Err("unknown format version");
    }
    Ok((u64::from_le_bytes(header[8..16].try_into().expect("8 bytes")), payload))
}
