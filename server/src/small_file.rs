//! Small files beside the engine's in a node's directory: `first-start`, `home`, `pid` and `seed-from`.
//!
//! A small file is replaced as a whole: written under another name, synced, renamed, and its directory synced. So a
//! crash leaves the old content or the new, never a part.

use std::io::IoSlice;
use std::path::Path;

use calamus_engine::env::{Disk, OpenMode};
use calamus_engine::error::StorageError;

/// More is not read: these files have a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Writes `DIR/name`, replacing what was there; durable on return.
pub fn write(disk: &dyn Disk, directory: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
    let fresh = directory.join(format!("{name}.new"));
    if disk.exists(&fresh)? {
        disk.remove_file(&fresh)?;
    }
    let file = disk.open(&fresh, OpenMode::CreateNew)?;
    file.write_at(&[IoSlice::new(content)], 0)?;
    file.sync_data()?;
    disk.rename(&fresh, &directory.join(name))?;
    disk.sync_dir(directory)
}

/// Reads `DIR/name`, or `None` if it is not there.
pub fn read(disk: &dyn Disk, directory: &Path, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let path = directory.join(name);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let file = disk.open(&path, OpenMode::Read)?;
    let length = file.len()?;
    if length > MAX_BYTES {
        return Err(StorageError::corrupted(path, 0, format!("it has {length} bytes, more than {MAX_BYTES}")));
    }
    let mut content = vec![0; length as usize];
    file.read_exact_at(&mut content, 0)?;
    Ok(Some(content))
}

/// Removes `DIR/name` if it is there; durable on return.
pub fn remove(disk: &dyn Disk, directory: &Path, name: &str) -> Result<(), StorageError> {
    let path = directory.join(name);
    if !disk.exists(&path)? {
        return Ok(());
    }
    disk.remove_file(&path)?;
    disk.sync_dir(directory)
}
