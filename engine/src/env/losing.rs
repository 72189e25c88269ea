//! A door that forgets what was not synced when the process is killed.
//!
//! The kernel keeps what a killed process wrote, so `kill -9` alone proves nothing about syncs. Behind this door
//! writes, lengths and punches stay in this process' memory and reach the real file only in `sync_data`, which then
//! really syncs. Names pass straight through. There are no maps, so that every read sees what was written.
//!
//! It also plays a full, slow, hanging or failing disk.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::overlay::Overlay;
use crate::env::real::{RealDisk, RealFile};
use crate::env::{Disk, DiskFile, DiskInFront, FileClass, FileMap, OpenMode};
use crate::error::StorageError;

#[derive(Default)]
struct Trouble {
    /// Bytes by which files may still grow.
    space_left: Option<u64>,
    sync_delay: Duration,
    syncs_hang: bool,
    syncs_fail: bool,
    data_syncs_fail: bool,
    /// Reads of files below it do not return.
    reads_hang: Option<PathBuf>,
    reads_hanging: usize,
    /// Reads of files below it take so long.
    read_delay: Option<(PathBuf, Duration)>,
}

/// Changes of files, by device and inode.
type Overlays = HashMap<(u64, u64), Arc<Mutex<Overlay>>>;

#[derive(Default)]
struct Shared {
    trouble: Mutex<Trouble>,
    trouble_changed: Condvar,
    /// Those of files with changes, and of open files.
    overlays: Mutex<Overlays>,
}

/// The door. Clones are the same door; two doors to one directory would not see each other's changes.
#[derive(Clone, Default)]
pub struct LosingDisk {
    real: RealDisk,
    shared: Arc<Shared>,
}

impl LosingDisk {
    /// A door to the real disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on files may grow by this many bytes together (removing and shortening files gives bytes back);
    /// growing beyond fails with `StorageFull`. `None`: no limit.
    pub fn set_space_limit(&self, bytes: Option<u64>) {
        self.shared.trouble.lock().space_left = bytes;
    }

    /// Every `sync_data` takes this much longer.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.shared.trouble.lock().sync_delay = delay;
    }

    /// While set, `sync_data` does not return.
    pub fn hang_syncs(&self, hang: bool) {
        self.shared.trouble.lock().syncs_hang = hang;
        self.shared.trouble_changed.notify_all();
    }

    /// While set, `sync_data` fails. As on Linux, what it should have synced can still be read, and no later sync brings
    /// it to the real file unless it is written anew.
    pub fn fail_syncs(&self, fail: bool) {
        self.shared.trouble.lock().syncs_fail = fail;
    }

    /// As [`Self::fail_syncs`], of data files only.
    pub fn fail_data_syncs(&self, fail: bool) {
        self.shared.trouble.lock().data_syncs_fail = fail;
    }

    /// While set, reads of files below this directory do not return.
    pub fn hang_reads(&self, below: Option<&Path>) {
        self.shared.trouble.lock().reads_hang = below.map(Path::to_path_buf);
        self.shared.trouble_changed.notify_all();
    }

    /// From now on a read of a file below this directory takes this long.
    pub fn delay_reads(&self, below: &Path, delay: Duration) {
        self.shared.trouble.lock().read_delay = Some((below.to_path_buf(), delay));
    }

    /// How many reads hang now.
    #[must_use]
    pub fn reads_hanging(&self) -> usize {
        self.shared.trouble.lock().reads_hanging
    }

    /// Forgets the changes of a file that is going away: its inode may come back as another file.
    fn forget(&self, path: &Path) -> Result<(), StorageError> {
        if !self.real.exists(path)? {
            return Ok(());
        }
        let file = RealDisk::open_file(path, OpenMode::Read)?;
        let overlay = self.shared.overlays.lock().remove(&file.identity()?);
        let length = overlay.map_or_else(|| file.len(), |overlay| Ok(overlay.lock().length()))?;
        self.shared.give_back(length);
        Ok(())
    }

    fn forget_all(&self, path: &Path) -> Result<(), StorageError> {
        if path.is_dir() {
            for name in self.real.list_dir(path)? {
                self.forget_all(&path.join(name))?;
            }
            return Ok(());
        }
        self.forget(path)
    }
}

impl Shared {
    fn give_back(&self, bytes: u64) {
        if let Some(left) = &mut self.trouble.lock().space_left {
            *left = left.saturating_add(bytes);
        }
    }

    /// Takes space for growing from one length to another, or gives it back.
    fn resize(&self, path: &Path, from: u64, to: u64) -> Result<(), StorageError> {
        if to <= from {
            self.give_back(from - to);
            return Ok(());
        }
        if let Some(left) = &mut self.trouble.lock().space_left {
            let Some(rest) = left.checked_sub(to - from) else {
                return Err(StorageError::io(path, from, "write", &ErrorKind::StorageFull.into()));
            };
            *left = rest;
        }
        Ok(())
    }

    /// What a read goes through before it is done.
    fn before_read(&self, path: &Path) {
        let delay = self.trouble.lock().read_delay.as_ref().filter(|(below, _)| path.starts_with(below)).map(|it| it.1);
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
        let mut trouble = self.trouble.lock();
        while trouble.reads_hang.as_ref().is_some_and(|below| path.starts_with(below)) {
            trouble.reads_hanging += 1;
            self.trouble_changed.wait(&mut trouble);
            trouble.reads_hanging -= 1;
        }
    }

    /// What a sync goes through before it is done.
    fn before_sync(&self, path: &Path) -> Result<(), StorageError> {
        let delay = self.trouble.lock().sync_delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut trouble = self.trouble.lock();
        while trouble.syncs_hang {
            self.trouble_changed.wait(&mut trouble);
        }
        if trouble.syncs_fail || (trouble.data_syncs_fail && FileClass::of(path) == FileClass::Data) {
            return Err(StorageError::io(path, 0, "sync", &Error::other("the disk was told to fail")));
        }
        Ok(())
    }
}

impl DiskInFront for LosingDisk {
    fn behind(&self) -> &dyn Disk {
        &self.real
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        let real = RealDisk::open_file(path, mode)?;
        let identity = real.identity()?;
        let length = real.len()?;
        let mut overlays = self.shared.overlays.lock();
        // Overlays that nobody has open and that hold nothing need not be kept.
        overlays.retain(|_, overlay| Arc::strong_count(overlay) > 1 || !overlay.lock().is_clean());
        let overlay = overlays.entry(identity).or_insert_with(|| Arc::new(Mutex::new(Overlay::new(length)))).clone();
        Ok(Arc::new(LosingFile { real, overlay, writable: mode != OpenMode::Read, shared: self.shared.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.forget(to)?;
        self.real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.forget(path)?;
        self.real.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.forget_all(path)?;
        self.real.remove_dir_all(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StorageError> {
        let real = self.real.free_bytes(path)?;
        Ok(self.shared.trouble.lock().space_left.map_or(real, |left| left.min(real)))
    }
}

struct LosingFile {
    real: RealFile,
    overlay: Arc<Mutex<Overlay>>,
    writable: bool,
    shared: Arc<Shared>,
}

impl LosingFile {
    fn check_writable(&self) -> Result<(), StorageError> {
        if self.writable {
            return Ok(());
        }
        Err(StorageError::io(self.path(), 0, "write", &ErrorKind::PermissionDenied.into()))
    }
}

impl DiskFile for LosingFile {
    fn path(&self) -> &Path {
        self.real.path()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.shared.before_read(self.path());
        self.overlay.lock().read(&self.real, buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        self.check_writable()?;
        let mut overlay = self.overlay.lock();
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let length = overlay.length();
        self.shared.resize(self.path(), length, length.max(offset + bytes))?;
        let mut at = offset;
        for part in parts {
            overlay.write(&self.real, part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.check_writable()?;
        let failed = self.shared.before_sync(self.path()).err();
        let mut overlay = self.overlay.lock();
        if let Some(error) = failed {
            overlay.give_up();
            return Err(error);
        }
        overlay.flush(&self.real)?;
        drop(overlay);
        self.real.sync_data()
    }

    fn len(&self) -> Result<u64, StorageError> {
        Ok(self.overlay.lock().length())
    }

    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        self.check_writable()?;
        let mut overlay = self.overlay.lock();
        self.shared.resize(self.path(), overlay.length(), length)?;
        overlay.set_len(&self.real, length)
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.check_writable()?;
        self.overlay.lock().zero(&self.real, offset, length)
    }

    fn map(&self, _length: u64) -> Result<Option<FileMap>, StorageError> {
        Ok(None)
    }
}
