//! An open file of a simulated disk.

use std::io::{Error, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::Shared;
use super::inode::Inode;
use super::trouble::{Call, Fault};
use super::world::{World, failed};
use crate::env::{DiskFile, FileMap, whole};
use crate::error::StorageError;

pub(super) struct SimFile {
    pub shared: Arc<Shared>,
    pub inode: u64,
    pub path: PathBuf,
    pub writable: bool,
}

/// A file is at most this long, in bytes: it is held in memory.
const MAX_FILE_BYTES: u64 = 1 << 32;

fn injected() -> Error {
    Error::other("injected")
}

fn full() -> Error {
    ErrorKind::StorageFull.into()
}

impl SimFile {
    fn place(&self, offset: u64) -> Result<usize, StorageError> {
        let fits = if offset <= MAX_FILE_BYTES { usize::try_from(offset).ok() } else { None };
        fits.ok_or_else(|| failed(&self.path, "access", ErrorKind::FileTooLarge))
    }

    fn enter(&self, call: Call) -> MutexGuard<'_, World> {
        self.shared.enter(call, &self.path)
    }

    fn may_write(&self) -> Result<(), StorageError> {
        if self.writable { Ok(()) } else { Err(failed(&self.path, "write", ErrorKind::PermissionDenied)) }
    }

    /// A change of length, or zeros: counted as one operation.
    fn change(
        &self,
        operation: &'static str,
        length: u64,
        change: impl FnOnce(&mut Inode, u64),
    ) -> Result<(), StorageError> {
        self.may_write()?;
        let mut world = self.enter(Call::Change);
        let number = world.operate(&self.path)?;
        match world.troubles.strike(Call::Change, &self.path) {
            Some(Fault::FailWrite) => return Err(StorageError::io(&self.path, 0, operation, &injected())),
            Some(Fault::NoSpace) => return Err(StorageError::io(&self.path, 0, operation, &full())),
            _ => {}
        }
        if !world.has_space(self.inode, length) {
            return Err(failed(&self.path, operation, ErrorKind::StorageFull));
        }
        change(world.inode_mut(self.inode), number);
        Ok(())
    }

    /// One call to read: as much as it takes.
    fn read_some(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let mut world = self.enter(Call::Read);
        if world.power_is_gone() {
            return Err(World::gone());
        }
        if world.troubles.strike(Call::Read, &self.path).is_some() {
            return Err(injected());
        }
        let length = world.inodes[&self.inode].current.len();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
        let most = buffer.len().min(length - from);
        let got = world.troubles.piece(most);
        world.inodes[&self.inode].current.read(from, &mut buffer[..got]);
        Ok(got)
    }

    /// One call to write: as much as it takes, which ends where a unit does. Counted as one operation.
    fn write_some(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<usize, Error> {
        let mut world = self.enter(Call::Write);
        let Some(number) = world.count() else { return Err(World::gone()) };
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let at = usize::try_from(offset).expect("checked before");
        let fault = world.troubles.strike(Call::Write, &self.path);
        let unit = world.unit_bytes;
        // Down to where a unit of the file ends.
        let whole = |taken: usize| ((at + taken) / unit * unit).saturating_sub(at);
        let mut taken = world.troubles.piece(bytes.len());
        if taken < bytes.len() && whole(taken) > 0 {
            taken = whole(taken);
        } else {
            taken = bytes.len();
        }
        let no_space = !world.has_space(self.inode, offset + taken as u64);
        match fault {
            Some(Fault::FailWrite | Fault::NoSpace) => {
                let part = world.troubles.chance.below(bytes.len() + 1);
                if whole(part) > 0 && !no_space {
                    world.inode_mut(self.inode).write(number, at, &bytes[..whole(part)]);
                }
                Err(if fault == Some(Fault::NoSpace) { full() } else { injected() })
            }
            _ if no_space => Err(full()),
            Some(Fault::LostWrite) => Ok(bytes.len()),
            Some(Fault::MisdirectedWrite(by)) => {
                let length = world.inodes[&self.inode].current.len();
                let place = at.saturating_add(usize::try_from(by).expect("within memory")).min(length);
                let fits = bytes.len().min(length - place);
                world.inode_mut(self.inode).write(number, place, &bytes[..fits]);
                Ok(bytes.len())
            }
            _ => {
                world.inode_mut(self.inode).write(number, at, &bytes[..taken]);
                Ok(taken)
            }
        }
    }
}

impl DiskFile for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        whole::read(buffer, offset, |buffer, offset| self.read_some(buffer, offset))
            .map_err(|(at, error)| StorageError::io(&self.path, at, "read", &error))
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.place(offset.saturating_add(length as u64))?;
        self.may_write()?;
        whole::write(parts, offset, |parts, offset| self.write_some(parts, offset))
            .map_err(|(at, error)| StorageError::io(&self.path, at, "write", &error))
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        let mut world = self.enter(Call::Sync);
        world.operate(&self.path)?;
        let fails = world.troubles.strike(Call::Sync, &self.path).is_some();
        let inode = world.inode_mut(self.inode);
        if fails {
            inode.fail_sync();
            return Err(StorageError::io(&self.path, 0, "sync", &injected()));
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> Result<u64, StorageError> {
        let world = self.shared.world.lock();
        world.powered(&self.path)?;
        Ok(world.inodes[&self.inode].current.len() as u64)
    }

    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        let at = self.place(length)?;
        self.change("set length", length, |inode, number| inode.set_len(number, at))
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let from = self.place(offset)?;
        let to = self.place(offset.saturating_add(length).min(MAX_FILE_BYTES))?;
        self.change("punch", 0, |inode, number| inode.zero(number, from, to))
    }

    fn map(&self, _length: u64) -> Result<Option<FileMap>, StorageError> {
        Ok(None)
    }
}
