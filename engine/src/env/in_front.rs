//! A disk in front of another: it says what it does differently, and the rest goes to the one behind.
//!
//! [`DiskInFront`] and [`FileInFront`] have the methods of [`Disk`] and [`DiskFile`], with bodies, and whatever implements
//! them is a disk or a file. Zeros, and what is written past the page cache, go through the `write_at` of the file in front,
//! in parts, as those of a file without a better way do: what looks at writes sees them all, unless it says otherwise.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, FileMap, OpenMode, write_in_folios, write_zeros_in_parts};
use crate::error::StorageError;

type Result<T> = std::result::Result<T, StorageError>;

/// A [`Disk`] in front of another. See there for the methods.
#[expect(missing_docs, reason = "the trait in front of which it stands has them")]
pub trait DiskInFront: Send + Sync + 'static {
    /// The disk behind.
    fn behind(&self) -> &dyn Disk;

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        self.behind().open(path, mode)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.behind().exists(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.behind().create_dir_all(path)
    }
    fn list_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.behind().list_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.behind().rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.behind().remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.behind().remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.behind().sync_dir(path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        self.behind().lock(path)
    }
    fn free_bytes(&self, path: &Path) -> Result<u64> {
        self.behind().free_bytes(path)
    }
}

/// A [`DiskFile`] in front of another. See there for the methods.
#[expect(missing_docs, reason = "the trait in front of which it stands has them")]
pub trait FileInFront: Send + Sync + 'static {
    /// The file behind.
    fn behind(&self) -> &dyn DiskFile;

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.behind().read_at(buffer, offset)
    }
    fn read_past_cache(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.behind().read_past_cache(buffer, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.behind().write_at(parts, offset)
    }
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_in_folios(bytes, offset, |parts, at| self.write_at(parts, at))
    }
    fn sync_data(&self) -> Result<()> {
        self.behind().sync_data()
    }
    fn set_len(&self, length: u64) -> Result<()> {
        self.behind().set_len(length)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        self.behind().punch(offset, length)
    }
    fn write_zeros(&self, offset: u64, length: u64) -> Result<()> {
        write_zeros_in_parts(offset, length, |parts, at| self.write_at(parts, at))
    }
    fn allocate(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeros(offset, length)
    }
}

impl<D: DiskInFront> Disk for D {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        DiskInFront::open(self, path, mode)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        DiskInFront::exists(self, path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        DiskInFront::create_dir_all(self, path)
    }
    fn list_dir(&self, path: &Path) -> Result<Vec<String>> {
        DiskInFront::list_dir(self, path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        DiskInFront::rename(self, from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        DiskInFront::remove_file(self, path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        DiskInFront::remove_dir_all(self, path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        DiskInFront::sync_dir(self, path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        DiskInFront::lock(self, path)
    }
    fn free_bytes(&self, path: &Path) -> Result<u64> {
        DiskInFront::free_bytes(self, path)
    }
}

impl<F: FileInFront> DiskFile for F {
    fn path(&self) -> &Path {
        self.behind().path()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        FileInFront::read_at(self, buffer, offset)
    }
    fn read_past_cache(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        FileInFront::read_past_cache(self, buffer, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<()> {
        FileInFront::write_at(self, parts, offset)
    }
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> Result<()> {
        FileInFront::write_past_cache(self, bytes, offset)
    }
    fn sync_data(&self) -> Result<()> {
        FileInFront::sync_data(self)
    }
    fn len(&self) -> Result<u64> {
        self.behind().len()
    }
    fn set_len(&self, length: u64) -> Result<()> {
        FileInFront::set_len(self, length)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        FileInFront::punch(self, offset, length)
    }
    fn map(&self, length: u64) -> Result<Option<FileMap>> {
        self.behind().map(length)
    }
    fn write_zeros(&self, offset: u64, length: u64) -> Result<()> {
        FileInFront::write_zeros(self, offset, length)
    }
    fn allocate(&self, offset: u64, length: u64) -> Result<()> {
        FileInFront::allocate(self, offset, length)
    }
}
