//! Writing a file while the next bytes of it are made: a thread writes, past the page cache, what its owner hands over.
//!
//! Past the cache a write takes as long as the disk does, so whoever also reads and hashes would do nothing meanwhile; and
//! through the cache it would only look faster: gigabytes are collected in memory, and the sync at the end, and with it
//! the sync of everybody else on this disk, waits until they are written.
//!
//! What is promised: pieces are written in the order in which they were handed over, none behind one that failed. What was
//! handed over is written once [`WriteBehind::wait`] has returned without an error, and durable after a sync that begins
//! behind that, not before. Memory: [`WAITING`] pieces, the one that is being written, and the one that its owner fills.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::DiskFile;
use crate::error::StorageError;

/// So many pieces wait for the thread at most.
const WAITING: usize = 2;

/// A piece of a file, and where it goes.
type Piece = (Bytes, u64);

/// A file that is written from another thread.
pub(crate) struct WriteBehind {
    file: Arc<dyn DiskFile>,
    /// There since the first piece, until it is waited for.
    thread: Option<Thread>,
    failed: Option<StorageError>,
}

struct Thread {
    pieces: SyncSender<Piece>,
    handle: JoinHandle<Result<(), StorageError>>,
}

impl WriteBehind {
    /// Nothing is written, and no thread started, before the first piece comes.
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, thread: None, failed: None }
    }

    /// Hands over a piece, of whole blocks, as [`DiskFile::write_past_cache`] wants them. Waits while others wait. The
    /// error may be that of an earlier piece; after one, nothing more is written.
    pub(crate) fn write(&mut self, bytes: Bytes, offset: u64) -> Result<(), StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => Thread::start(self.file.clone())?,
        };
        let taken = thread.pieces.send((bytes, offset)).is_ok();
        self.thread = Some(thread);
        if taken {
            return Ok(());
        }
        self.wait()?;
        unreachable!("the thread takes pieces until one fails, or until it is waited for");
    }

    /// Waits until all that was handed over is written.
    pub(crate) fn wait(&mut self) -> Result<(), StorageError> {
        if let Some(Thread { pieces, handle }) = self.thread.take() {
            drop(pieces);
            let written = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.failed = written.err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }
}

impl Thread {
    fn start(file: Arc<dyn DiskFile>) -> Result<Self, StorageError> {
        let path = file.path().to_path_buf();
        let (pieces, handed_over) = sync_channel::<Piece>(WAITING);
        let write = move || handed_over.iter().try_for_each(|(bytes, offset)| file.write_past_cache(&bytes, offset));
        let started = std::thread::Builder::new().name("write-behind".into()).spawn(write);
        let handle = started.map_err(|error| StorageError::io(path, 0, "start a thread to write", &error))?;
        Ok(Self { pieces, handle })
    }
}

impl Drop for WriteBehind {
    /// What is dropped without having been waited for is wanted by nobody, but the thread must not outlive its owner: he
    /// removes the file, and may begin another under its name.
    fn drop(&mut self) {
        if let Some(Thread { pieces, handle }) = self.thread.take() {
            drop(pieces);
            // Nobody wants to know whether it was written.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{BLOCK_BYTES, Disk, Fault, OpenMode, RealDisk, SimDisk, Trouble};

    fn pieces(count: u8) -> impl Iterator<Item = Piece> {
        let block = |number: u8| Bytes::from(vec![number + 1; BLOCK_BYTES as usize]);
        (0..count).map(move |number| (block(number), u64::from(number) * BLOCK_BYTES))
    }

    fn contents(file: &dyn DiskFile) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().expect("known")).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("readable");
        bytes
    }

    #[test]
    fn what_was_handed_over_is_there_once_it_was_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let real: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let simulated: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        for (disk, path) in [(real, folder.path().join("file")), (simulated, Path::new("/file").to_path_buf())] {
            let file = disk.open(&path, OpenMode::CreateNew).expect("made");
            let mut behind = WriteBehind::new(file.clone());
            behind.wait().expect("nothing was handed over");
            let expected: Vec<u8> = pieces(20).flat_map(|(bytes, _)| bytes).collect();
            for (bytes, offset) in pieces(20) {
                behind.write(bytes, offset).expect("taken");
            }
            behind.wait().expect("written");
            assert!(contents(&*file) == expected);
            // And it goes on.
            behind.write(Bytes::from(vec![77; BLOCK_BYTES as usize]), 0).expect("taken");
            behind.wait().expect("written");
            assert_eq!(contents(&*file)[0], 77);
        }
    }

    #[test]
    fn nothing_is_written_behind_a_piece_that_failed_and_the_error_stays() {
        for failing in 0..6 {
            let disk = SimDisk::new(1);
            let file = disk.open(Path::new("/file"), OpenMode::CreateNew).expect("made");
            file.set_len(6 * BLOCK_BYTES).expect("works");
            disk.plan(Trouble::new(Fault::FailWrite).after(failing));
            let mut behind = WriteBehind::new(file.clone());
            let refused = pieces(6).any(|(bytes, offset)| behind.write(bytes, offset).is_err());
            behind.wait().expect_err("a piece failed");
            behind.wait().expect_err("it did");
            behind.write(Bytes::from(vec![9; BLOCK_BYTES as usize]), 0).expect_err("nothing more is written");
            assert!(!refused || failing < 5, "a refusal says that an earlier one failed");
            let found = contents(&*file);
            let behind_it = &found[(failing as usize + 1) * BLOCK_BYTES as usize..];
            assert!(behind_it.iter().all(|byte| *byte == 0), "written behind piece {failing}");
            let before_it = &found[..failing as usize * BLOCK_BYTES as usize];
            assert!(before_it.iter().all(|byte| *byte != 0), "not written before piece {failing}");
        }
    }

    #[test]
    fn nothing_is_written_once_it_was_dropped() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/file"), OpenMode::CreateNew).expect("made");
        let mut behind = WriteBehind::new(file.clone());
        for (bytes, offset) in pieces(3) {
            behind.write(bytes, offset).expect("taken");
        }
        drop(behind);
        assert_eq!(Arc::strong_count(&file), 1, "the thread has ended");
    }
}
