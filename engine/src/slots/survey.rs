//! All of a file of two slots, for a look at a directory that no node has open: every part of both, in use or not.
//!
//! All parts are written when the file is made, and each is written whole or not at all. So every part is sound at any
//! time, those too that no payload reaches; one that is not was changed by the disk.

use std::path::Path;

use super::part::{PART_BYTES, Part};
use super::{Look, check_slot_size, first_part, look, parts_of};
use crate::env::{Disk, OpenMode};
use crate::error::StorageError;

/// A part that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsoundPart {
    /// Where its slot begins in the file, in bytes.
    pub slot_offset: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Which slot, and what is wrong with it.
    pub what: String,
}

/// What stands in a file of two slots.
#[derive(Clone, Debug)]
pub struct SlotsSurvey {
    /// The newest payload, or why it is lost.
    pub newest: Result<Look, StorageError>,
    /// Parts that are not sound.
    pub unsound: Vec<UnsoundPart>,
}

impl SlotsSurvey {
    /// Reads the file, and changes nothing.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Panics
    /// When the slot size is not a multiple of 4096.
    pub fn read(disk: &dyn Disk, path: &Path, slot_bytes: u64) -> Result<Self, StorageError> {
        check_slot_size(slot_bytes);
        let file = disk.open(path, OpenMode::Read)?;
        let mut unsound = Vec::new();
        for slot in 0..2 {
            let slot_offset = slot * slot_bytes;
            for number in 0..parts_of(slot_bytes) {
                let mut bytes = [0; PART_BYTES];
                let offset = slot_offset + u64::from(number) * PART_BYTES as u64;
                let got = file.read_at(&mut bytes, offset)?;
                if let Err(what) = Part::decode(&bytes[..got], first_part(slot, slot_bytes) + number) {
                    let what = format!("slot {slot}: part {number}: {what}");
                    unsound.push(UnsoundPart { slot_offset, offset, what });
                }
            }
        }
        let (end, slot_offset) = (file.len()?, 2 * slot_bytes);
        if end > slot_offset {
            unsound.push(UnsoundPart { slot_offset, offset: slot_offset, what: format!("the file has {end} bytes") });
        }
        Ok(Self { newest: look(&*file, slot_bytes), unsound })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SlotFile;
    use super::*;
    use crate::env::SimDisk;

    #[test]
    fn every_byte_of_both_slots_is_looked_at() {
        const SLOT_BYTES: u64 = 4096;
        let (disk, path) = (SimDisk::new(1), Path::new("/slots"));
        let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, b"first").expect("works");
        slots.write(&[7; 1000]).expect("works");
        let survey = || SlotsSurvey::read(&disk, path, SLOT_BYTES).expect("the disk works");
        assert_eq!(survey().unsound, Vec::new());
        for offset in (0..2 * SLOT_BYTES).step_by(97) {
            disk.flip_bit(path, offset, 3);
            let found = survey();
            assert_eq!(found.unsound.len(), 1, "byte {offset}");
            let part = &found.unsound[0];
            assert!(offset - part.offset < 512, "byte {offset}: {part:?}");
            assert_eq!(part.slot_offset, offset / SLOT_BYTES * SLOT_BYTES, "byte {offset}: {part:?}");
            let newest = found.newest.expect("the other slot has it");
            assert_eq!(newest.payload, [7; 1000]);
            // The payload has three parts.
            assert_eq!(newest.damage.is_some(), offset % SLOT_BYTES < 3 * 512, "byte {offset}");
            disk.flip_bit(path, offset, 3);
        }
    }
}
