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
//!
//! A part is megabytes that nobody reads soon, written beside a node that syncs its journal all the time. So whole pieces of
//! it go past the page cache, by a thread that writes one while the next one is filled ([`WriteBehind`]); its last piece,
//! and any object that is smaller than one, is written by whoever finishes it. All of it is written before the sync.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{BackupStore, ObjectInfo, ObjectWriter, StoreError};
use crate::env::{BLOCK_BYTES, Disk, DiskFile, OpenMode, WriteBehind, create_dir_durable};
use crate::error::StorageError;

const PARTIAL: &str = "partial";
/// What is written at a time, in bytes. The journal's sync may have to wait for one of these: a disk that took 2.3 GB a second
/// in pieces of 1 MiB took 1.6 in these, in a quarter of the time each. In tests so little that their
/// small parts too have several.
const PIECE_BYTES: usize = if cfg!(test) { 8 << 10 } else { 256 << 10 };
const _: () = assert!((PIECE_BYTES as u64).is_multiple_of(BLOCK_BYTES), "whole blocks go past the page cache");

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
        Ok(Box::new(Writer {
            disk: self.disk.clone(),
            behind: WriteBehind::new(file.clone()),
            file,
            partial,
            place,
            folder,
            piece: Vec::new(),
            handed_over: 0,
            finished: false,
        }))
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
    behind: WriteBehind,
    partial: PathBuf,
    place: PathBuf,
    folder: PathBuf,
    /// What is not handed over yet: less than a piece.
    piece: Vec<u8>,
    /// How many bytes are before it.
    handed_over: u64,
    finished: bool,
}

impl ObjectWriter for Writer {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_BYTES {
                let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
                self.behind.write(piece.into(), self.handed_over)?;
                self.handed_over += PIECE_BYTES as u64;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.behind.wait()?;
        let blocks = self.piece.len() - self.piece.len() % BLOCK_BYTES as usize;
        let (blocks, rest) = self.piece.split_at(blocks);
        if !blocks.is_empty() {
            self.file.write_past_cache(blocks, self.handed_over)?;
        }
        if !rest.is_empty() {
            self.file.write_at(&[IoSlice::new(rest)], self.handed_over + blocks.len() as u64)?;
        }
        self.file.sync_data()?;
        self.finished = true;
        self.disk.rename(&self.partial, &self.place)?;
        self.disk.sync_dir(&self.folder)?;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whatever is not written yet is wanted by nobody. Whether it was, either: the file goes.
        let _ = self.behind.wait();
        if !self.finished
            && let Err(error) = self.disk.remove_file(&self.partial)
        {
            tracing::warn!(%error, "what an unfinished object left goes with the next one of its name");
        }
    }
}
