//! An open file of a simulated disk.

use std::io::{Error, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::world::{Inode, World, failed};
use crate::env::{DiskFile, FileMap};
use crate::error::StorageError;

pub(super) struct SimFile {
    pub world: Arc<Mutex<World>>,
    pub inode: u64,
    pub path: PathBuf,
    pub writable: bool,
}

/// A file is at most this long, in bytes: it is held in memory.
const MAX_FILE_BYTES: u64 = 1 << 32;

impl SimFile {
    fn place(&self, offset: u64) -> Result<usize, StorageError> {
        let fits = if offset <= MAX_FILE_BYTES { usize::try_from(offset).ok() } else { None };
        fits.ok_or_else(|| failed(&self.path, "access", ErrorKind::FileTooLarge))
    }

    /// Changes the file, counted as one operation.
    fn change(&self, length: u64, change: impl FnOnce(&mut Inode)) -> Result<(), StorageError> {
        let mut world = self.world.lock();
        if !self.writable {
            return Err(failed(&self.path, "write", ErrorKind::PermissionDenied));
        }
        world.operate(&self.path)?;
        world.check_space(&self.path, self.inode, length)?;
        change(world.inodes.get_mut(&self.inode).expect("an open file is there"));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let world = self.world.lock();
        world.powered(&self.path)?;
        let content = &world.inodes[&self.inode].current;
        let from = self.place(offset)?.min(content.len());
        let got = buffer.len().min(content.len() - from);
        buffer[..got].copy_from_slice(&content[from..from + got]);
        Ok(got)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let end = offset.saturating_add(bytes.len() as u64);
        self.place(end)?;
        let at = self.place(offset)?;
        self.change(end, |inode| inode.write(at, &bytes))
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        let mut world = self.world.lock();
        world.operate(&self.path)?;
        let named = world.fail_next_sync_of.take_if(|path| *path == self.path).is_some();
        let fails = std::mem::take(&mut world.fail_next_sync) || named;
        let inode = world.inodes.get_mut(&self.inode).expect("an open file is there");
        if fails {
            inode.fail_sync();
            return Err(StorageError::io(&self.path, 0, "sync", &Error::other("injected")));
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> Result<u64, StorageError> {
        let world = self.world.lock();
        world.powered(&self.path)?;
        Ok(world.inodes[&self.inode].current.len() as u64)
    }

    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        let at = self.place(length)?;
        self.change(length, |inode| inode.set_len(at))
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let from = self.place(offset)?;
        let to = self.place(offset.saturating_add(length).min(MAX_FILE_BYTES))?;
        self.change(0, |inode| inode.zero(from, to))
    }

    fn map(&self, _length: u64) -> Result<Option<FileMap>, StorageError> {
        Ok(None)
    }
}
