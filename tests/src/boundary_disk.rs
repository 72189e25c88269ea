//! A door that calls a hook before every operation that changes something: one place for each point at which the power
//! can go.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use calamus_engine::env::{Disk, DiskFile, DiskInFront, FileInFront, OpenMode};
use calamus_engine::error::StorageError;

/// What is about to be done to which file or directory: `create`, `write`, `extend` (a write past the end), `sync`, `grow`,
/// `shrink`, `punch`, `rename`, `remove`, and the same of directories.
pub type Hook = Arc<dyn Fn(&'static str, &Path) + Send + Sync>;

/// Calls the hook, then passes on.
pub struct BoundaryDisk {
    inner: Arc<dyn Disk>,
    hook: Hook,
}

impl BoundaryDisk {
    /// Wraps a door.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>, hook: Hook) -> Self {
        Self { inner, hook }
    }
}

impl DiskInFront for BoundaryDisk {
    fn behind(&self) -> &dyn Disk {
        &*self.inner
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        if mode == OpenMode::CreateNew {
            (self.hook)("create", path);
        }
        Ok(Arc::new(BoundaryFile { inner: self.inner.open(path, mode)?, hook: self.hook.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        (self.hook)("create directory", path);
        self.inner.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        (self.hook)("rename", from);
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        (self.hook)("remove", path);
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        (self.hook)("remove directory", path);
        self.inner.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        (self.hook)("sync directory", path);
        self.inner.sync_dir(path)
    }
}

struct BoundaryFile {
    inner: Arc<dyn DiskFile>,
    hook: Hook,
}

impl FileInFront for BoundaryFile {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let extends = offset.saturating_add(length as u64) > self.inner.len().unwrap_or(u64::MAX);
        (self.hook)(if extends { "extend" } else { "write" }, self.path());
        self.inner.write_at(parts, offset)
    }
    fn sync_data(&self) -> Result<(), StorageError> {
        (self.hook)("sync", self.path());
        self.inner.sync_data()
    }
    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        let shrinks = length < self.inner.len().unwrap_or(0);
        (self.hook)(if shrinks { "shrink" } else { "grow" }, self.path());
        self.inner.set_len(length)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        (self.hook)("punch", self.path());
        self.inner.punch(offset, length)
    }
}
