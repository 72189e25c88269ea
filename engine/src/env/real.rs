//! The real file system.
//!
//! A file opened to be read is opened read-only: no code path can write through it. A write that the kernel takes in
//! pieces is carried on until all of it is taken, so that callers see one positioned write.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::direct::{self, DirectFile};
use super::whole;
use crate::env::{Disk, DiskFile, FileMap, OpenMode, write_in_folios};
use crate::error::StorageError;

/// How many parts one `pwritev` takes (Linux' `IOV_MAX`).
const PARTS_PER_WRITE: usize = 1024;

/// The operating system's files.
#[derive(Clone, Copy, Default, Debug)]
#[non_exhaustive]
pub struct RealDisk;

impl RealDisk {
    /// The door to the real disk.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Opens a file with its own type, for doors that wrap this one.
    pub(super) fn open_file(path: &Path, mode: OpenMode) -> Result<RealFile, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write | OpenMode::WriteBlocks => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let operation = if mode == OpenMode::CreateNew { "create" } else { "open" };
        let file = options.open(path).map_err(|error| StorageError::io(path, 0, operation, &error))?;
        let direct = if mode == OpenMode::WriteBlocks { DirectFile::open(path) } else { None };
        Ok(RealFile {
            file,
            path: path.to_path_buf(),
            may_write: mode != OpenMode::Read,
            direct,
            past_cache: OnceLock::new(),
            write_past_cache: OnceLock::new(),
        })
    }
}

/// The lock of a directory; freed when dropped, or when the process ends in any way.
struct DirectoryLock {
    _file: File,
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        Ok(Arc::new(Self::open_file(path, mode)?))
    }

    fn exists(&self, path: &Path) -> Result<bool, StorageError> {
        path.try_exists().map_err(|error| StorageError::io(path, 0, "look-up", &error))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        std::fs::create_dir_all(path).map_err(|error| StorageError::io(path, 0, "create directory", &error))
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, StorageError> {
        let failed = |error: io::Error| StorageError::io(path, 0, "list", &error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        std::fs::rename(from, to).map_err(|error| StorageError::io(from, 0, "rename", &error))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        std::fs::remove_file(path).map_err(|error| StorageError::io(path, 0, "remove", &error))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        std::fs::remove_dir_all(path).map_err(|error| StorageError::io(path, 0, "remove", &error))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        let failed = |error: io::Error| StorageError::io(path, 0, "sync directory", &error);
        File::open(path).map_err(failed)?.sync_all().map_err(failed)
    }

    /// For a directory the lock is the file `lock` in it; for any other path it is that file. It is made if missing.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, StorageError> {
        let path = if path.is_dir() { path.join("lock") } else { path.to_path_buf() };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| StorageError::io(&path, 0, "lock", &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(DirectoryLock { _file: file }))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(StorageError::io(path, 0, "lock", &error.into())),
        }
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StorageError> {
        let stat = rustix::fs::statvfs(path).map_err(|error| StorageError::io(path, 0, "statvfs", &error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A file of the operating system.
pub(super) struct RealFile {
    file: File,
    path: PathBuf,
    may_write: bool,
    /// For writes of whole blocks.
    direct: Option<DirectFile>,
    /// To read past the page cache: opened when it is first asked for.
    past_cache: OnceLock<Option<File>>,
    /// To write past it, the same.
    write_past_cache: OnceLock<Option<DirectFile>>,
}

impl RealFile {
    fn failed(&self, offset: u64, operation: &'static str, error: &io::Error) -> StorageError {
        StorageError::io(&self.path, offset, operation, error)
    }

    /// The file's identity (device and inode), the same whatever name it was opened by.
    pub(super) fn identity(&self) -> Result<(u64, u64), StorageError> {
        identity(&self.file).map_err(|error| self.failed(0, "stat", &error))
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn same_file(one: &File, other: &File) -> bool {
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

impl DiskFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        whole::read(buffer, offset, |buffer, offset| self.file.read_at(buffer, offset))
            .map_err(|(at, error)| self.failed(at, "read", &error))
    }

    /// The name may belong to another file by now (a recycled segment, a new generation): then this one is read as usual.
    fn read_past_cache(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let open = || direct::open_to_read(&self.path).filter(|file| same_file(file, &self.file));
        if let Some(file) = self.past_cache.get_or_init(open)
            && let Some(got) =
                direct::read_at(file, buffer, offset).map_err(|error| self.failed(offset, "read", &error))?
        {
            return Ok(got);
        }
        self.read_at(buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        if let Some(direct) = &self.direct
            && direct.write_at(parts, offset).map_err(|error| self.failed(offset, "write", &error))?
        {
            return Ok(());
        }
        let some = |parts: &[IoSlice<'_>], offset| {
            let parts = &parts[..parts.len().min(PARTS_PER_WRITE)];
            rustix::io::pwritev(&self.file, parts, offset).map_err(io::Error::from)
        };
        whole::write(parts, offset, some).map_err(|(at, error)| self.failed(at, "write", &error))
    }

    /// The name may belong to another file by now, as for reads. A file that was opened to be read is not opened again to
    /// be written: the usual write says what is wrong with that.
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let open = || {
            let direct = if self.may_write { DirectFile::open(&self.path) } else { None };
            direct.filter(|direct| same_file(direct.file(), &self.file))
        };
        if let Some(direct) = self.write_past_cache.get_or_init(open)
            && direct.write_at(&[IoSlice::new(bytes)], offset).map_err(|error| self.failed(offset, "write", &error))?
        {
            return Ok(());
        }
        write_in_folios(bytes, offset, |parts, at| self.write_at(parts, at))
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        // Not repeated on EINTR: after any failure the kernel may have dropped the dirty pages.
        rustix::fs::fdatasync(&self.file).map_err(|error| self.failed(0, "sync", &error.into()))
    }

    fn len(&self) -> Result<u64, StorageError> {
        Ok(self.file.metadata().map_err(|error| self.failed(0, "stat", &error))?.len())
    }

    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        self.file.set_len(length).map_err(|error| self.failed(length, "set length", &error))
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, offset, length)
            .map_err(|error| self.failed(offset, "punch", &error.into()))
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            Ok(()) => Ok(()),
            // A file system that cannot.
            Err(rustix::io::Errno::OPNOTSUPP) => self.write_zeros(offset, length),
            Err(error) => Err(self.failed(offset, "allocate", &error.into())),
        }
    }

    /// Past the page cache where that is possible, else in pieces of 4 KiB: the page cache keeps what one call wrote in
    /// one folio, as large as the call, and a sync after a small write into a folio writes all of it. A journal zeroed in
    /// pieces of 1 MiB wrote 1 MiB for each sync.
    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        const PIECE_BYTES: u64 = 4096;
        const DIRECT_PIECE_BYTES: u64 = 1 << 20;
        static ZEROS: [u8; DIRECT_PIECE_BYTES as usize] = [0; DIRECT_PIECE_BYTES as usize];
        let mut direct = DirectFile::open(&self.path);
        let mut done = 0;
        while done < length {
            let zeros = |most: u64| {
                let piece = (length - done).min(most);
                [IoSlice::new(&ZEROS[..usize::try_from(piece).expect("a piece fits memory")])]
            };
            if let Some(file) = &direct {
                let parts = zeros(DIRECT_PIECE_BYTES);
                let written = file.write_at(&parts, offset + done);
                if written.map_err(|error| self.failed(offset + done, "write", &error))? {
                    done += parts[0].len() as u64;
                    continue;
                }
                direct = None;
            }
            let parts = zeros(PIECE_BYTES);
            self.write_at(&parts, offset + done)?;
            done += parts[0].len() as u64;
        }
        Ok(())
    }

    fn map(&self, length: u64) -> Result<Option<FileMap>, StorageError> {
        FileMap::new(&self.file, length).map(Some).map_err(|error| self.failed(0, "map", &error))
    }
}
