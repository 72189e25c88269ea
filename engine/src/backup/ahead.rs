//! Reading the parts of a backup ahead: a thread reads and hashes them while what it read before is checked and used.
//!
//! A place answers after a while, a bucket after tens of milliseconds; and the hash of a whole part is of no use before its
//! end. So neither waits for the other. What is promised to the one who uses the bytes: they come in order, all bytes of a
//! part before its end, each part once, and nothing behind an error. Whether a part is what was written is known at its
//! end, not before ([`super::input`]).
//!
//! Memory: [`WAITING`] pieces of [`READ_BYTES`], the one that is being read, and the one that is used.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::error::ChainError;
use super::manifest::Manifest;
use super::output::part_name;
use super::store::{BackupStore, StoreError};

/// How much is read at a time, in bytes. In tests so little that their small chunks too are shared by several reads.
const READ_BYTES: usize = if cfg!(test) { 5_000 } else { 4 << 20 };
/// So many pieces are read ahead at most.
const WAITING: usize = 1;

/// What comes next of the parts.
pub(super) enum Ahead {
    /// Some bytes; of a part that has none, nothing.
    Bytes(Bytes),
    /// The part has ended; this is the hash of its bytes.
    End(u128),
}

/// The parts of a backup, read by another thread.
pub(super) struct ReadAhead {
    /// There until it is dropped.
    pieces: Option<Receiver<Result<Ahead, ChainError>>>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Begins to read.
    pub(super) fn begin(store: Arc<dyn BackupStore>, manifest: &Manifest) -> Result<Self, ChainError> {
        let id = manifest.backup_id();
        let parts: Vec<(String, u64)> =
            (1..).zip(&manifest.parts).map(|(number, part)| (part_name(&id, number), part.bytes)).collect();
        let (send, pieces) = sync_channel(WAITING);
        let read = move || {
            let ended = parts.iter().try_for_each(|(name, bytes)| read_part(&*store, name, *bytes, &send));
            if let Err(Stopped::Failed(error)) = ended {
                // Who is not there any more does not want to know.
                let _ = send.send(Err(error));
            }
        };
        let started = std::thread::Builder::new().name("read-ahead".into()).spawn(read);
        let thread = started.map_err(|error| {
            let (operation, name) = ("reading", manifest.id.clone());
            StoreError::Other { operation, name, message: format!("cannot start a thread: {error}") }
        })?;
        Ok(Self { pieces: Some(pieces), thread: Some(thread) })
    }

    /// What comes next.
    ///
    /// # Panics
    /// Behind the end of the last part, and behind an error.
    pub(super) fn next(&mut self) -> Result<Ahead, ChainError> {
        let pieces = self.pieces.as_ref().expect("there until it is dropped");
        pieces.recv().unwrap_or_else(|_| {
            let thread = self.thread.take().expect("nobody asks behind the end, or behind an error");
            match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => panic!("nothing comes behind the last part, nor behind an error"),
            }
        })
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        drop(self.pieces.take());
        if let Some(thread) = self.thread.take() {
            // It ends with the piece that it reads. If it panicked, nobody has waited for what it would have read.
            let _ = thread.join();
        }
    }
}

/// Why reading ended before the end.
enum Stopped {
    Failed(ChainError),
    NobodyListens,
}

impl<E: Into<ChainError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn read_part(
    store: &dyn BackupStore,
    name: &str,
    bytes: u64,
    send: &SyncSender<Result<Ahead, ChainError>>,
) -> Result<(), Stopped> {
    let (mut at, mut hash) = (0, Xxh3::new());
    let send = |ahead: Ahead| send.send(Ok(ahead)).map_err(|_| Stopped::NobodyListens);
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(READ_BYTES);
        let read = store.read(name, at, wanted)?;
        if read.is_empty() {
            return Err(ChainError::damaged(name, format!("it ends after {at} of {bytes} bytes")).into());
        }
        hash.update(&read);
        at += read.len() as u64;
        send(Ahead::Bytes(read.into()))?;
    }
    send(Ahead::End(hash.digest128()))
}
