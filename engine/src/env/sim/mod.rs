//! A disk in memory that behaves as badly as the door's contract allows, and worse where a test plans it, from a seed.
//!
//! # Power cuts
//!
//! Every file has a durable image and a list of writes that no `sync_data` has made durable yet, unit by unit. A unit
//! is what the disk writes whole or not at all: 512 bytes, or 4 KiB as on disks that are made so ([`SimDisk::with_unit`];
//! a unit of which a write covers a part goes to the disk with what stands beside it). After a power cut each of these
//! may have reached the disk or not, independently; of several writes to one unit the last that reached it counts. So a
//! write of many units may be torn between any two of them, and writes may be lost or reordered. Changes of a file's
//! length are such entries too. Names (made, renamed, removed, directories too) become durable with `sync_dir` of their
//! directory; until then each change may be lost, independently, but a rename is there as a whole or not at all.
//!
//! [`SimDisk::crash`] draws one of these disks; [`SimDisk::pending`] and [`SimDisk::crash_keeping`] let a test go through
//! them: prefixes of the operations, torn ones, reorderings. [`SimDisk::image_hash`] tells whether it has seen one. Images
//! share the blocks in which they do not differ.
//!
//! A process that dies is less than a power cut ([`SimDisk::kill`]): the next one finds everything as it was written,
//! synced or not. And a sync that fails is as on Linux: what it should have written is clean from then on. It can be
//! read, no later sync writes it again (unless somebody writes those units anew), and a power cut may lose it.
//!
//! Operations that change something (writes, syncs, lengths, punches, names) are counted; [`SimDisk::crash_after`]
//! lets the power go after a given number of them, so that a test can visit every boundary.
//!
//! # Troubles
//!
//! | trouble | how |
//! | --- | --- |
//! | `EIO` of a read, write, sync, or sync of a directory | [`Fault`], [`SimDisk::plan`]: by file, by count of calls, by odds |
//! | `ENOSPC` | [`Fault::NoSpace`] for a call, [`SimDisk::set_space_limit`] for the whole disk |
//! | short reads and writes | [`SimDisk::set_short_io`]: the loops behind the door (`env/whole.rs`) go round |
//! | bit rot | [`SimDisk::flip_bit`] |
//! | stale blocks, misdirected writes | [`Fault::LostWrite`], [`Fault::MisdirectedWrite`]: acknowledged all the same |
//! | a call that hangs | [`SimDisk::stall`], until it is let go |

mod chance;
mod content;
mod crash;
mod file;
mod inode;
mod trouble;
mod world;

#[cfg(test)]
mod sim_test;

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::file::SimFile;
pub use self::trouble::{Call, Fault, Trouble};
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
    /// Each unit of a write, length and name or not, at random from this seed (and the disk's own).
    Seeded(u64),
}

/// A sector: what any disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// What a disk of larger sectors writes whole, in bytes.
pub const LARGE_SECTOR_BYTES: usize = 4096;

/// An operation of which something is not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingOperation {
    /// Its number: later ones are higher.
    pub operation: u64,
    /// How many parts it has that a power cut may keep or lose: units of a write, a length, a name.
    pub parts: usize,
}

struct Shared {
    world: Mutex<World>,
    /// Whoever stalls waits here, and whoever waits for somebody to stall.
    stalls: Condvar,
}

impl Shared {
    /// The world, once nothing stalls this call.
    fn enter(&self, call: Call, path: &Path) -> MutexGuard<'_, World> {
        let mut world = self.world.lock();
        while world.troubles.blocks(call, path) {
            world.troubles.stalled += 1;
            self.stalls.notify_all();
            self.stalls.wait(&mut world);
            world.troubles.stalled -= 1;
        }
        world
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

/// Calls that block until this is dropped.
pub struct Stall {
    shared: Arc<Shared>,
    number: u64,
}

impl Stall {
    /// Returns when a call blocks.
    pub fn wait_for_somebody(&self) {
        let mut world = self.shared.world.lock();
        while world.troubles.stalled == 0 {
            self.shared.stalls.wait(&mut world);
        }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.shared.world.lock().troubles.stalls.retain(|(number, ..)| *number != self.number);
        self.shared.stalls.notify_all();
    }
}

impl SimDisk {
    /// An empty disk of sectors of 512 bytes: only `/` is there.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_unit(seed, SECTOR_BYTES)
    }

    /// An empty disk that writes so many bytes whole or not at all: [`SECTOR_BYTES`] or [`LARGE_SECTOR_BYTES`].
    ///
    /// # Panics
    /// When it is another number.
    #[must_use]
    pub fn with_unit(seed: u64, unit_bytes: usize) -> Self {
        assert!([SECTOR_BYTES, LARGE_SECTOR_BYTES].contains(&unit_bytes), "sectors of {unit_bytes} bytes");
        Self::of(World::new(seed, unit_bytes))
    }

    fn of(world: World) -> Self {
        Self { shared: Arc::new(Shared { world: Mutex::new(world), stalls: Condvar::new() }) }
    }

    /// The disk as after a power cut now. This one stays as it is (a test would not use it any more); open files of it
    /// do not reach the new one. Planned troubles and limits do not carry over.
    #[must_use]
    pub fn crash(&self, choice: CrashChoice) -> Self {
        Self::of(self.shared.world.lock().crash(choice))
    }

    /// The operations of which something is not durable, in their order.
    #[must_use]
    pub fn pending(&self) -> Vec<PendingOperation> {
        let pending = self.shared.world.lock().pending();
        pending.into_iter().map(|(operation, parts)| PendingOperation { operation, parts }).collect()
    }

    /// As [`Self::crash`], where `keeps` says what reached the disk: it is asked once for each part of each operation of
    /// [`Self::pending`], with the operation's number and the part's, from 0 on.
    #[must_use]
    pub fn crash_keeping(&self, keeps: &mut dyn FnMut(u64, usize) -> bool) -> Self {
        Self::of(self.shared.world.lock().crash_keeping(keeps))
    }

    /// Of all that is durable: names, lengths and bytes. Equal disks have equal hashes.
    #[must_use]
    pub fn image_hash(&self) -> u128 {
        self.shared.world.lock().hash()
    }

    /// The disk as the next process finds it if this one is killed now: every change can be read, and what was not
    /// synced still is not. This one stays as it is, as with [`Self::crash`].
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::of(self.shared.world.lock().kill())
    }

    /// Lets the power go after `operations` more operations: every later call fails.
    pub fn crash_after(&self, operations: u64) {
        let mut world = self.shared.world.lock();
        world.power_ends_at = Some(world.operations + operations);
    }

    /// How many operations have changed something, or tried to while the power was on.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.shared.world.lock().operations
    }

    /// Plans a trouble. Of several that fit a call, the one that was planned first happens.
    pub fn plan(&self, trouble: Trouble) {
        self.shared.world.lock().troubles.plan(trouble);
    }

    /// Forgets what is planned and has not happened.
    pub fn forget_troubles(&self) {
        self.shared.world.lock().troubles.forget();
    }

    /// How many faults have happened.
    #[must_use]
    pub fn faults_happened(&self) -> u64 {
        self.shared.world.lock().troubles.struck
    }

    /// Half of all calls that read or write take a part of what they could, as a kernel may: reads any part, writes up
    /// to the end of a unit. Each counts as an operation. It stays so after a power cut.
    pub fn set_short_io(&self, short: bool) {
        self.shared.world.lock().troubles.short = short;
    }

    /// Calls of this kind, of files whose path has this part, block until what is returned is dropped.
    #[must_use]
    pub fn stall(&self, call: Call, part: &str) -> Stall {
        let mut world = self.shared.world.lock();
        let number = world.troubles.next_stall;
        world.troubles.next_stall += 1;
        world.troubles.stalls.push((number, call, part.into()));
        Stall { shared: self.shared.clone(), number }
    }

    /// The next `sync_data` fails. What it should have made durable can be read until the power goes; the syncs after it
    /// know nothing of it.
    pub fn fail_next_sync(&self) {
        self.plan(Trouble::new(Fault::FailSync));
    }

    /// The same for the next `sync_data` of a file that was opened by this name.
    ///
    /// # Panics
    /// When the path ends in no name.
    pub fn fail_next_sync_of(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a file has a name");
        self.plan(Trouble::new(Fault::FailSync).of(name));
    }

    /// The whole disk holds this many bytes (of file lengths); growing beyond fails with `StorageFull`. `None`: no
    /// limit.
    pub fn set_space_limit(&self, bytes: Option<u64>) {
        self.shared.world.lock().space_limit = bytes;
    }

    /// Flips one bit (0 to 7) of a file, durably: the disk rots.
    ///
    /// # Panics
    /// When the file is not there, or not that long.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        self.shared.world.lock().flip_bit(path, offset, bit);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        let inode = self.shared.world.lock().open(path, mode)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { shared: self.shared.clone(), inode, path: path.to_path_buf(), writable }))
    }

    fn exists(&self, path: &Path) -> Result<bool, StorageError> {
        let world = self.shared.world.lock();
        world.powered(path)?;
        Ok(world.names.contains_key(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.shared.world.lock().create_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, StorageError> {
        let world = self.shared.world.lock();
        world.powered(path)?;
        if world.names.get(path) != Some(&Node::Directory) {
            return Err(world::failed(path, "list", std::io::ErrorKind::NotFound));
        }
        let inside = world.names.keys().filter(|name| name.parent() == Some(path));
        let names = inside.filter_map(|name| name.file_name()?.to_str().map(String::from));
        Ok(names.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.shared.world.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.shared.world.lock().remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.shared.world.lock().remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.shared.enter(Call::SyncDirectory, path).sync_dir(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, StorageError> {
        {
            let mut world = self.shared.world.lock();
            world.powered(path)?;
            if !world.locks.insert(path.to_path_buf()) {
                return Ok(None);
            }
        }
        Ok(Some(Box::new(SimLock { shared: self.shared.clone(), path: path.to_path_buf() })))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StorageError> {
        let world = self.shared.world.lock();
        world.powered(path)?;
        Ok(world.space_limit.map_or(1 << 50, |limit| limit.saturating_sub(world.used_bytes())))
    }
}

struct SimLock {
    shared: Arc<Shared>,
    path: std::path::PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.world.lock().locks.remove(&self.path);
    }
}
