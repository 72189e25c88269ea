//! Writes that go past the page cache (`O_DIRECT`), for a log that is synced after each write, and reads that do, for
//! whoever wants to know what the disk holds.
//!
//! A write through the page cache makes pages dirty, and the sync then looks for them, locks them, writes them and waits.
//! Past the cache the write itself is the disk's work, and the sync only flushes. With three writers on one machine, 1 MiB
//! and its sync took 0.6 ms so and 1.5 ms through the cache; 4 KiB 74 to 129 us so and 126 to 137 us through it.
//!
//! The kernel wants offset, length and memory to be aligned, so the bytes are copied once into a buffer that is. Files
//! stay coherent for those who read them through the page cache: the kernel drops what it holds of the range.
//! File systems that have no such writes refuse them, at opening or at the first write: then nothing is lost but speed.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::BLOCK_BYTES;

/// What is written by one call at most; larger writes are written in several.
const CALL_BYTES: usize = 2 << 20;
const BLOCK: usize = BLOCK_BYTES as usize;

/// A second handle of a file.
pub(super) struct DirectFile {
    file: File,
    buffer: Mutex<Vec<u8>>,
    refused: AtomicBool,
}

/// Opens a file past the page cache; `None` where the file system cannot.
fn open_direct(options: &mut OpenOptions, path: &Path) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    options.custom_flags(flags).open(path).ok()
}

/// Reads as much of `buffer` as the file has from `offset`, which is a multiple of the block. The kernel writes what is
/// dirty of the range first. `None` where the file cannot be read so.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    let mut memory = vec![0; buffer.len().next_multiple_of(BLOCK) + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let length = memory.len() - BLOCK;
    let aligned = &mut memory[start..start + length];
    let mut got = 0;
    while got < length {
        match file.read_at(&mut aligned[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another alignment is wanted, or the file ended within a block and the rest of it is asked for.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && got == 0 => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    let got = got.min(buffer.len());
    buffer[..got].copy_from_slice(&aligned[..got]);
    Ok(Some(got))
}

/// A handle to read so.
pub(super) fn open_to_read(path: &Path) -> Option<File> {
    open_direct(OpenOptions::new().read(true), path)
}

impl DirectFile {
    /// `None` where the file system has no such writes.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = open_direct(OpenOptions::new().write(true), path)?;
        Some(Self { file, buffer: Mutex::default(), refused: AtomicBool::new(false) })
    }

    /// The handle.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `parts` from `offset`. `false` where it cannot be written so: nothing of it counts then, and it
    /// is to be written otherwise.
    pub(super) fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<bool> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let aligned = offset.is_multiple_of(BLOCK_BYTES) && length.is_multiple_of(BLOCK);
        if !aligned || self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut buffer = self.buffer.lock();
        let room = length.min(CALL_BYTES);
        if buffer.len() < room + BLOCK {
            buffer.resize(room + BLOCK, 0);
        }
        let start = buffer.as_ptr().align_offset(BLOCK);
        let bytes = &mut buffer[start..start + room];
        let (mut filled, mut offset) = (0, offset);
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(room - filled));
                bytes[filled..filled + now.len()].copy_from_slice(now);
                (filled, rest) = (filled + now.len(), later);
                if filled == room {
                    if !self.write(&bytes[..filled], offset)? {
                        return Ok(false);
                    }
                    (offset, filled) = (offset + filled as u64, 0);
                }
            }
        }
        Ok(filled == 0 || self.write(&bytes[..filled], offset)?)
    }

    /// One call; `false` where this file cannot be written so.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        match self.file.write_all_at(bytes, offset) {
            Ok(()) => Ok(true),
            // This device wants another alignment, or the file system only let itself be opened so.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
