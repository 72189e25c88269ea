//! Writing the parts of a backup.
//!
//! ```text
//! part
//! offset  size  field (little endian)
//!      0     8  magic "CALPART1"
//!      8    32  the backup's name
//!     40     4  number of the part, from 1
//!     44     4  zero
//!     48        chunks, one behind the other: see `backup/chunk.rs`
//! ```
//!
//! A part ends at a chunk's end, once it is as long as it should be. Its hash stands in the manifest; what its own
//! beginning says is for people, and for whoever finds a part that no manifest names.

use xxhash_rust::xxh3::Xxh3;

use super::chunk::{self, ChunkKind, Raw};
use super::id::BackupId;
use super::manifest::PartInfo;
use super::store::{BackupStore, ObjectWriter, StoreError};

/// The size of what stands before a part's chunks, in bytes.
pub(super) const PART_HEADER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"CALPART1";

/// The name of a backup's manifest.
pub(super) fn manifest_name(id: &BackupId) -> String {
    format!("{id}/manifest")
}

/// The name of what says how far an unfinished backup is.
pub(super) fn progress_name(id: &BackupId) -> String {
    format!("{id}/progress")
}

/// The name of what says that a backup is being removed.
pub(super) fn expired_name(id: &BackupId) -> String {
    format!("{id}/expired")
}

/// The name of a part, of which there are from 1 on.
pub(super) fn part_name(id: &BackupId, number: usize) -> String {
    format!("{id}/part-{number:06}")
}

/// What stands before a part's chunks.
pub(super) fn part_header(id: &BackupId, number: usize) -> [u8; PART_HEADER_BYTES] {
    let mut header = [0; PART_HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..40].copy_from_slice(id.as_str().as_bytes());
    header[40..44].copy_from_slice(&u32::try_from(number).expect("parts are few").to_le_bytes());
    header
}

struct OpenPart {
    writer: Box<dyn ObjectWriter>,
    hash: Xxh3,
    bytes: u64,
}

/// The parts of a backup that is being written.
pub(super) struct Output<'o> {
    store: &'o dyn BackupStore,
    id: BackupId,
    part_bytes: u64,
    compress: bool,
    open: Option<OpenPart>,
    pub(super) parts: Vec<PartInfo>,
    pub(super) raw_bytes: u64,
}

impl<'o> Output<'o> {
    /// Goes on behind `parts`.
    pub(super) fn new(
        store: &'o dyn BackupStore,
        id: BackupId,
        part_bytes: u64,
        compress: bool,
        parts: Vec<PartInfo>,
    ) -> Self {
        Self { store, id, part_bytes, compress, open: None, parts, raw_bytes: 0 }
    }

    /// Writes a chunk. Returns whether a part is complete with it.
    pub(super) fn chunk(&mut self, kind: ChunkKind, raw: Raw) -> Result<bool, StoreError> {
        let raw_bytes = raw.len() as u64;
        let bytes = chunk::encode(kind, raw, self.compress);
        if self.open.is_none() {
            let number = self.parts.len() + 1;
            let mut part =
                OpenPart { writer: self.store.create(&part_name(&self.id, number))?, hash: Xxh3::new(), bytes: 0 };
            part.write(&part_header(&self.id, number))?;
            self.open = Some(part);
        }
        let part = self.open.as_mut().expect("opened just now");
        part.write(&bytes)?;
        self.raw_bytes += raw_bytes;
        if part.bytes < self.part_bytes {
            return Ok(false);
        }
        self.end_part()?;
        Ok(true)
    }

    /// Ends the part that is being written, if there is one.
    pub(super) fn end_part(&mut self) -> Result<(), StoreError> {
        let Some(part) = self.open.take() else { return Ok(()) };
        part.writer.finish()?;
        self.parts.push(PartInfo { bytes: part.bytes, hash: part.hash.digest128() });
        Ok(())
    }

    /// The length of all parts that are complete, in bytes.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl OpenPart {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.write(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let id = BackupId::parse("20261126t222254.123456z-1a2b3c4d").expect("a name");
        let header = part_header(&id, 0x0102);
        assert_eq!(&header, b"CALPART120261126t222254.123456z-1a2b3c4d\x02\x01\0\0\0\0\0\0");
        assert_eq!(part_name(&id, 7), "20261126t222254.123456z-1a2b3c4d/part-000007");
    }
}
