//! The part of the handle that the scrub uses: looking at what the disk has, and writing again what is damaged there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::error::StorageError;
use crate::ids::LogIndex;
use crate::journal::Journal;
use crate::journal::frame::Frame;
use crate::journal::run::Shared;
use crate::journal::scrub::{Piece, Rebuilt, is_ours, look, write_again, write_rebuilt};

impl Journal {
    /// Looks at durable frames from `from` on as the disk has them, of about `max_bytes` together; `None` behind the last.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn look_at_disk(&self, from: LogIndex, max_bytes: u64) -> Result<Option<Piece>, StorageError> {
        look(self.shared(), from, max_bytes)
    }

    /// Writes a frame again where it must stand, durable when this returns; `false` if it is not the one that must stand
    /// there.
    ///
    /// # Errors
    /// If the journal is stopped or closed. An error of the disk stops it.
    pub(crate) fn write_again(&self, frame: &Frame) -> Result<bool, StorageError> {
        if !is_ours(&self.shared().state.lock(), frame) {
            return Ok(false);
        }
        let frame = frame.clone();
        self.run_here(move |shared| write_again(shared, &frame))
    }

    /// The same for a block or a header that was made anew.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn write_rebuilt(&self, rebuilt: Rebuilt) -> Result<bool, StorageError> {
        self.run_here(move |shared| write_rebuilt(shared, &rebuilt))
    }

    /// Runs a job on the journal's thread, in order, and waits for what it says.
    fn run_here(
        &self,
        job: impl FnOnce(&Shared) -> Result<bool, StorageError> + Send + 'static,
    ) -> Result<bool, StorageError> {
        let shared = self.shared().clone();
        let said = Arc::new(AtomicBool::new(false));
        let (told, (done, heard)) = (said.clone(), mpsc::channel());
        let job = move || {
            told.store(job(&shared)?, Ordering::Release);
            Ok(())
        };
        // Nobody listens any more only if this function has failed already.
        self.run_in_order(Box::new(job), Box::new(move |result| drop(done.send(result))))?;
        heard.recv().unwrap_or_else(|_| Err(StorageError::Poisoned("the journal was closed".into())))?;
        Ok(said.load(Ordering::Acquire))
    }
}
