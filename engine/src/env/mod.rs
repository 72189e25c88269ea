//! The one door to the disk. Nothing else in the workspace touches a file of a node's directory.
//!
//! What is assumed of a disk: a sector of 512 bytes is written whole or not at all; what was written before a
//! successful `sync_data` is there after a crash; anything written since may be there, or not, in any mixture of
//! sectors. After a `sync_data` that failed, a later one that succeeds says nothing of what was written before the
//! failure, in the next process neither: bytes can be read that no sync will ever write. A name made, removed or
//! renamed is durable after `sync_dir` of its directory.
//!
//! The disks for tests are not covered by [what is promised](crate#what-is-stable).

mod behind;
mod counting;
mod direct;
mod in_front;
mod losing;
mod overlay;
mod real;
pub mod sim;
mod whole;

#[cfg(test)]
mod disks_test;
#[cfg(test)]
mod past_cache_test;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StorageError;
pub use crate::raw::FileMap;
pub(crate) use behind::WriteBehind;
pub use counting::{Count, CountingDisk, DiskCounts, FileClass};
pub use in_front::{DiskInFront, FileInFront};
pub use losing::LosingDisk;
pub use real::RealDisk;
pub use sim::{CrashChoice, Fault, SimDisk, Trouble};

/// The block that a disk, or the page cache, writes as one, in bytes. Only a sector of it is sure to be written whole.
pub const BLOCK_BYTES: u64 = 4096;

/// What one call writes at most of bytes that change in parts later, where it goes through the page cache: a page of the
/// data file.
pub const FOLIO_BYTES: usize = 8192;

/// How to open a file. Exhaustive: a [`Disk`] must know each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// It must exist; it is never written.
    Read,
    /// It must exist.
    Write,
    /// It must exist. Writes of whole blocks ([`BLOCK_BYTES`]) at a time may go past the page cache.
    WriteBlocks,
    /// It must not exist.
    CreateNew,
}

/// A file system as the engine uses it.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError>;
    /// Whether a file or directory of this name is there.
    fn exists(&self, path: &Path) -> Result<bool, StorageError>;
    /// Makes a directory and its parents; one that is there is fine.
    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError>;
    /// The names in a directory, sorted.
    fn list_dir(&self, path: &Path) -> Result<Vec<String>, StorageError>;
    /// Renames a file, replacing what stands under the new name.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<(), StorageError>;
    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError>;
    /// Takes the exclusive lock of a directory, or `None` if another process has it. Dropping the guard frees it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, StorageError>;
    /// Free bytes on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> Result<u64, StorageError>;
}

/// An open file. All positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + 'static {
    /// The name it was opened by.
    fn path(&self) -> &Path;
    /// Fills as much of `buffer` as the file has from `offset`; returns how much. Short only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError>;
    /// As [`Self::read_at`], from the disk itself where that can be: what the page cache holds says nothing of what the
    /// disk does. The offset is a multiple of [`BLOCK_BYTES`]. Where a disk cannot read so, it reads as usual.
    fn read_past_cache(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.read_at(buffer, offset)
    }
    /// Writes all of `parts`, one behind the other, from `offset`: one positioned write.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError>;
    /// Writes megabytes that nobody reads again soon: to the disk itself where that can be, so that they are not collected
    /// in memory and then written all at once before somebody else's sync, and push nothing out of the page cache. Offset
    /// and length are multiples of [`BLOCK_BYTES`]. Where a disk cannot write so, it writes as usual, in pieces of
    /// [`FOLIO_BYTES`]: the page cache keeps what one call wrote in one folio, and a later change of a part of it would
    /// write all of it again. It is durable after a sync, as every write.
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        write_in_folios(bytes, offset, |parts, at| self.write_at(parts, at))
    }
    /// Makes what was written, and the length, durable (`fdatasync`).
    fn sync_data(&self) -> Result<(), StorageError>;
    /// The file's length.
    fn len(&self) -> Result<u64, StorageError>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> Result<bool, StorageError> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends; an extension reads as zeros.
    fn set_len(&self, length: u64) -> Result<(), StorageError>;
    /// Gives the space of a range back; it reads as zeros. The length stays.
    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError>;
    /// A shared read-only map of the first `length` bytes, which may reach beyond the end of the file (bytes beyond
    /// it must not be touched). `None` where this disk has no maps: then all reads go through [`Self::read_at`].
    fn map(&self, length: u64) -> Result<Option<FileMap>, StorageError>;

    /// Writes zeros, in the way that later small writes to the range cost least.
    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        write_zeros_in_parts(offset, length, |parts, at| self.write_at(parts, at))
    }

    /// Gives a range behind the end of the file its space, without writing it; it reads as zeros, and the file has the
    /// length. Later writes to it cost more than where zeros were written, and never fail for want of space.
    fn allocate(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.write_zeros(offset, length)
    }

    /// Fills `buffer`, or reports that the file ends too early.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let got = self.read_at(buffer, offset)?;
        if got == buffer.len() {
            return Ok(());
        }
        Err(StorageError::corrupted(
            self.path().to_path_buf(),
            offset + got as u64,
            format!("the file ends {} bytes too early", buffer.len() - got),
        ))
    }
}

/// Writes zeros by a `write_at`, a piece at a time.
fn write_zeros_in_parts(
    offset: u64,
    length: u64,
    write_at: impl Fn(&[IoSlice<'_>], u64) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    const PIECE_BYTES: u64 = 1 << 20;
    static ZEROS: [u8; PIECE_BYTES as usize] = [0; PIECE_BYTES as usize];
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE_BYTES);
        let zeros = &ZEROS[..usize::try_from(piece).expect("a piece fits memory")];
        write_at(&[IoSlice::new(zeros)], offset + done)?;
        done += piece;
    }
    Ok(())
}

/// Writes bytes by a `write_at`, a folio at a time.
fn write_in_folios(
    bytes: &[u8],
    offset: u64,
    write_at: impl Fn(&[IoSlice<'_>], u64) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for (at, piece) in (offset..).step_by(FOLIO_BYTES).zip(bytes.chunks(FOLIO_BYTES)) {
        write_at(&[IoSlice::new(piece)], at)?;
    }
    Ok(())
}

/// The path of a file in a directory of a node, by parts.
#[must_use]
pub fn join(directory: &Path, parts: &[&str]) -> PathBuf {
    parts.iter().fold(directory.to_path_buf(), |path, part| path.join(part))
}

/// Makes a directory and its missing parents, all of them durable when this returns. So is the one that the first of
/// them is made in, or the directory itself if it is there: a process that was killed may have made it a moment ago.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let mut unsynced = Vec::new();
    for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        unsynced.push(ancestor);
        if disk.exists(ancestor)? {
            break;
        }
    }
    // One by one: that one of them is there says that those above it are durable.
    for directory in unsynced.iter().rev() {
        disk.create_dir_all(directory)?;
        let Some(parent) = directory.parent() else { continue };
        // A relative path of one part stands in the current directory.
        disk.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}
