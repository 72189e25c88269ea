//! A disk in memory that behaves as badly as the door's contract allows, from a seed.
//!
//! Every file has a durable image and a list of sector writes (512 bytes each, whole contents) that no `sync_data` has
//! made durable yet. After a power cut each of these may have reached the disk or not, independently; of several
//! writes to one sector the last that reached it counts. So a write of many sectors may be torn between any two of
//! them. Changes of a file's length are such entries too. Names (made, renamed, removed, directories too) become
//! durable with `sync_dir` of their directory; until then each change may be lost, independently, but a rename is
//! there as a whole or not at all.
//!
//! A process that dies is less than a power cut ([`SimDisk::kill`]): the next one finds everything as it was written,
//! synced or not. And a sync that fails is as on Linux: what it should have written is clean from then on. It can be
//! read, no later sync writes it again (unless somebody writes those sectors anew), and a power cut may lose it.
//!
//! Operations that change something (writes, syncs, lengths, punches, names) are counted; [`SimDisk::crash_after`]
//! lets the power go after a given number of them, so that a test can visit every boundary.

mod crash;
mod file;
mod world;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::SimFile;
use self::world::{Node, World};
use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashChoice {
    /// Nothing.
    LoseAll,
    /// Everything.
    KeepAll,
    /// Each sector write, length and name or not, at random from this seed (and the disk's own).
    Seeded(u64),
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty disk: only `/` is there.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed))) }
    }

    /// The disk as after a power cut now. This one stays as it is (a test would not use it any more); open files of it
    /// do not reach the new one. Injected errors and limits do not carry over.
    #[must_use]
    pub fn crash(&self, choice: CrashChoice) -> Self {
        Self { world: Arc::new(Mutex::new(self.world.lock().crash(choice))) }
    }

    /// The disk as the next process finds it if this one is killed now: every change can be read, and what was not
    /// synced still is not. This one stays as it is, as with [`Self::crash`].
    #[must_use]
    pub fn kill(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.world.lock().kill())) }
    }

    /// Lets the power go after `operations` more operations: every later call fails.
    pub fn crash_after(&self, operations: u64) {
        let mut world = self.world.lock();
        world.power_ends_at = Some(world.operations + operations);
    }

    /// How many operations have changed something, or tried to while the power was on.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.world.lock().operations
    }

    /// The next `sync_data` fails. What it should have made durable can be read until the power goes; the syncs after it
    /// know nothing of it.
    pub fn fail_next_sync(&self) {
        self.world.lock().fail_next_sync = true;
    }

    /// The same for the next `sync_data` of a file that was opened by this name.
    pub fn fail_next_sync_of(&self, path: &Path) {
        self.world.lock().fail_next_sync_of = Some(path.to_path_buf());
    }

    /// The whole disk holds this many bytes (of file lengths); growing beyond fails with `StorageFull`. `None`: no
    /// limit.
    pub fn set_space_limit(&self, bytes: Option<u64>) {
        self.world.lock().space_limit = bytes;
    }

    /// Flips one bit (0 to 7) of a file, durably: the disk rots.
    ///
    /// # Panics
    /// When the file is not there, or not that long.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        self.world.lock().flip_bit(path, offset, bit);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        let inode = self.world.lock().open(path, mode)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { world: self.world.clone(), inode, path: path.to_path_buf(), writable }))
    }

    fn exists(&self, path: &Path) -> Result<bool, StorageError> {
        let world = self.world.lock();
        world.powered(path)?;
        Ok(world.names.contains_key(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.world.lock().create_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, StorageError> {
        let world = self.world.lock();
        world.powered(path)?;
        if world.names.get(path) != Some(&Node::Directory) {
            return Err(world::failed(path, "list", std::io::ErrorKind::NotFound));
        }
        let inside = world.names.keys().filter(|name| name.parent() == Some(path));
        let names = inside.filter_map(|name| name.file_name()?.to_str().map(String::from));
        Ok(names.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.world.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.world.lock().remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.world.lock().remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.world.lock().sync_dir(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, StorageError> {
        {
            let mut world = self.world.lock();
            world.powered(path)?;
            if !world.locks.insert(path.to_path_buf()) {
                return Ok(None);
            }
        }
        Ok(Some(Box::new(SimLock { world: self.world.clone(), path: path.to_path_buf() })))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StorageError> {
        let world = self.world.lock();
        world.powered(path)?;
        Ok(world.space_limit.map_or(1 << 50, |limit| limit.saturating_sub(world.used_bytes())))
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
    path: std::path::PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.world.lock().locks.remove(&self.path);
    }
}
