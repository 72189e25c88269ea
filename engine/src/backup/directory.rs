//! Backups in a directory.
//!
//! ```text
//! ROOT/<backup id>/manifest
//! ROOT/<backup id>/part-000001 ...
//! ROOT/<backup id>/NAME.partial      being written
//! ```
//!
//! An object is written under `NAME.partial`, synced, renamed and its folder synced. A crash before the rename is durable
//! leaves the old object or none, and behind it the new one; what is called `.partial` is listed to nobody, is overwritten
//! by the next writer of that name and goes when the object is deleted. The folder itself is durable before anything in it
//! is begun, and goes with its last object; an empty one, as a crash may leave it, says nothing.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{BackupStore, ObjectInfo, ObjectWriter, StoreError};
use crate::env::{Disk, DiskFile, OpenMode, create_dir_durable};
use crate::error::StorageError;

const PARTIAL: &str = "partial";

/// A directory of backups, behind the door that all files go through.
#[derive(Clone)]
pub struct DirectoryStore {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl DirectoryStore {
    /// The backups in `root`, which is made when the first one is.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, root: root.to_path_buf() }
    }

    fn place(&self, name: &str) -> PathBuf {
        name.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The names in a directory; none if it is not there, or no directory.
    fn names(&self, path: &Path) -> Result<Option<Vec<String>>, StoreError> {
        match self.disk.list_dir(path) {
            Ok(names) => Ok(Some(names)),
            Err(StorageError::Io { kind: ErrorKind::NotFound | ErrorKind::NotADirectory, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StoreError> {
        match self.disk.open(&self.place(name), OpenMode::Read) {
            Err(StorageError::Io { kind: ErrorKind::NotFound, .. }) => {
                Err(StoreError::NotFound { name: name.to_owned() })
            }
            opened => Ok(opened?),
        }
    }

    fn list_in(&self, path: &Path, within: &str, found: &mut Vec<ObjectInfo>) -> Result<(), StoreError> {
        for entry in self.names(path)?.unwrap_or_default() {
            let (place, name) = (path.join(&entry), format!("{within}{entry}"));
            if self.names(&place)?.is_some() {
                self.list_in(&place, &format!("{name}/"), found)?;
            } else if place.extension().is_none_or(|extension| extension != PARTIAL) {
                let bytes = self.open(&name)?.len()?;
                found.push(ObjectInfo { name, bytes });
            }
        }
        Ok(())
    }
}

impl BackupStore for DirectoryStore {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let place = self.place(name);
        let folder = place.parent().expect("an object stands in the root").to_path_buf();
        create_dir_durable(&*self.disk, &folder)?;
        let partial = place.with_added_extension(PARTIAL);
        if self.disk.exists(&partial)? {
            self.disk.remove_file(&partial)?;
        }
        let file = self.disk.open(&partial, OpenMode::CreateNew)?;
        Ok(Box::new(Writer { disk: self.disk.clone(), file, partial, place, folder, written: 0, finished: false }))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.create(name)?;
        writer.write(bytes)?;
        writer.finish()
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut buffer = vec![0; length];
        let got = self.open(name)?.read_at(&mut buffer, offset)?;
        buffer.truncate(got);
        Ok(buffer)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = Vec::new();
        match prefix.rsplit_once('/') {
            Some((folder, _)) => self.list_in(&self.place(folder), &format!("{folder}/"), &mut found)?,
            None => self.list_in(&self.root, "", &mut found)?,
        }
        found.retain(|object| object.name.starts_with(prefix));
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let place = self.place(name);
        let folder = place.parent().expect("an object stands in the root");
        for path in [place.with_added_extension(PARTIAL), place.clone()] {
            if self.disk.exists(&path)? {
                self.disk.remove_file(&path)?;
            }
        }
        let Some(left) = self.names(folder)? else { return Ok(()) };
        self.disk.sync_dir(folder)?;
        if left.iter().all(|name| name.ends_with(".partial")) && folder != self.root {
            self.disk.remove_dir_all(folder)?;
            self.disk.sync_dir(folder.parent().expect("a folder stands in the root"))?;
        }
        Ok(())
    }
}

struct Writer {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    partial: PathBuf,
    place: PathBuf,
    folder: PathBuf,
    written: u64,
    finished: bool,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(&[IoSlice::new(bytes)], self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.file.sync_data()?;
        self.finished = true;
        self.disk.rename(&self.partial, &self.place)?;
        self.disk.sync_dir(&self.folder)?;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.disk.remove_file(&self.partial)
        {
            tracing::warn!(%error, "what an unfinished object left goes with the next one of its name");
        }
    }
}
