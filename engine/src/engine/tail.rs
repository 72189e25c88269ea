//! A reader that follows the journal's end: it waits for committed frames, and shows each once, in order.
//!
//! It shows no frame that could still go: only those that are applied here, so that no cut takes them, and durable here, so
//! that no power cut does. It reads through the journal's index like everybody else, so segments that are begun, recycled
//! or cut behind its back are no business of its own; and when the node is seeded it goes on in the journal of the new
//! generation, at the frame where it was, if that one has it and is of the history that it read.
//!
//! It keeps nothing: frames that are purged before it has read them are gone, and it says so. Whoever must not miss one
//! pins the journal at its place, and advances the pin as he reads ([`Engine::pin`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Core, Engine};
use crate::error::StorageError;
use crate::ids::LogIndex;
use crate::journal::frame::Frame;
use crate::journal::{Journal, Waited};

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Follows the journal's end. See [`Engine::tail`].
pub struct JournalTail {
    core: Arc<Core>,
    next: LogIndex,
    /// The chain value after the frame before `next`, once one was read.
    chain: Option<u64>,
    ready: VecDeque<Frame>,
    closed: Arc<AtomicBool>,
}

/// Ends a [`JournalTail`] that may be waiting, from any thread.
#[derive(Clone)]
pub struct TailCloser {
    core: Arc<Core>,
    closed: Arc<AtomicBool>,
}

/// What a [`JournalTail`] has to say. Exhaustive: a wait for a frame ends in no fourth way.
#[derive(Clone, Debug)]
pub enum TailNext {
    /// The next frame.
    Frame(Frame),
    /// There was none in time.
    TimedOut,
    /// It was closed, or the engine was: there will be none.
    Closed,
}

/// Why a [`JournalTail`] cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The frame was purged before it was read.
    #[error(
        "frame {next} is no longer in the journal, which begins with frame {oldest}; begin again from a copy of the data, \
         and pin the journal before it is made"
    )]
    Purged {
        /// The frame that was next.
        next: LogIndex,
        /// The first one that there is.
        oldest: LogIndex,
    },
    /// The node was seeded with another history than the one that was read.
    #[error(
        "the node was seeded, and frame {next} does not follow what was read before; begin again from a copy of the data"
    )]
    OtherHistory {
        /// The frame that was next.
        next: LogIndex,
    },
    /// The journal failed, or cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Engine {
    /// A reader of the committed frames from `from` on, that waits for those to come. It reads what a batch of
    /// transactions became: see [`crate::txn::record`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// use calamus_engine::LogIndex;
    ///
    /// database.write(|txn| txn.create_tree("birds"))?;
    /// let mut tail = database.engine().tail(LogIndex(0));
    /// assert!(tail.next()?.is_some());
    /// // On another thread it waits for the next one, until it is closed.
    /// let closer = tail.closer();
    /// let reader = std::thread::spawn(move || {
    ///     while let Some(frame) = tail.next()? {
    ///         println!("{} bytes of changes", frame.payload().bytes().len());
    ///     }
    ///     Ok::<_, calamus_engine::TailError>(tail.position())
    /// });
    /// database.write(|txn| txn.put("birds", b"heron", b"grey"))?;
    /// closer.close();
    /// let position = reader.join().expect("no panic")?;
    /// assert!(position == LogIndex(1) || position == LogIndex(2), "it may have been closed before it had read it");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tail(&self, from: LogIndex) -> JournalTail {
        JournalTail { core: self.core.clone(), next: from, chain: None, ready: VecDeque::new(), closed: Arc::default() }
    }
}

impl JournalTail {
    /// The index of the frame that comes next.
    #[must_use]
    pub fn position(&self) -> LogIndex {
        self.next
    }

    /// What ends this reader from another thread.
    #[must_use]
    pub fn closer(&self) -> TailCloser {
        TailCloser { core: self.core.clone(), closed: self.closed.clone() }
    }

    /// The next frame; waits until it is committed. `None` when this reader was closed, or the engine and all its frames
    /// were read.
    ///
    /// # Errors
    /// When the frame is gone; when the journal has failed, and all frames that stay were read.
    #[expect(clippy::should_implement_trait, reason = "it fails, and where it can go on says the error")]
    pub fn next(&mut self) -> Result<Option<Frame>, TailError> {
        match self.wait(None)? {
            TailNext::Frame(frame) => Ok(Some(frame)),
            TailNext::Closed => Ok(None),
            TailNext::TimedOut => unreachable!("it waits for ever"),
        }
    }

    /// As [`Self::next`], but waits no longer than that. Not at all with a timeout of zero.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_within(&mut self, timeout: Duration) -> Result<TailNext, TailError> {
        self.wait(Instant::now().checked_add(timeout))
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<TailNext, TailError> {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Ok(TailNext::Closed);
            }
            if let Some(frame) = self.ready.pop_front() {
                self.next = frame.log_id().index.next();
                self.chain = Some(frame.chain());
                return Ok(TailNext::Frame(frame));
            }
            let journal = self.journal();
            match journal.wait_for(self.next, deadline, || self.closed.load(Ordering::Acquire)) {
                Waited::UpTo(end) => self.read(&journal, end)?,
                Waited::TimedOut => return Ok(TailNext::TimedOut),
                // A new generation is in use by now.
                Waited::CalledOff | Waited::Replaced => {}
                Waited::Ended(None) => return Ok(TailNext::Closed),
                Waited::Ended(Some(error)) => return Err(error.into()),
            }
        }
    }

    /// The journal in use.
    fn journal(&self) -> Journal {
        let store = self.core.store();
        // What was applied when it was opened, or seeded, nobody has told it.
        let applied = store.head.lock().view.applied.log_id;
        if let Some(applied) = applied {
            store.journal.note_committed(applied.index);
        }
        store.journal.clone()
    }

    fn read(&mut self, journal: &Journal, end: LogIndex) -> Result<(), TailError> {
        let (next, first) = (self.next, journal.first_kept());
        if next < first.next_index() {
            return Err(TailError::Purged { next, oldest: first.next_index() });
        }
        let frames = match journal.read(next, end.next(), READ_BYTES) {
            Ok(frames) => frames,
            // A purge came in between.
            Err(error) => {
                let oldest = journal.first_kept().next_index();
                return Err(if next < oldest { TailError::Purged { next, oldest } } else { error.into() });
            }
        };
        let follows = |chain: u64| frames.first().is_some_and(|frame| frame.follows(chain));
        if self.chain.is_some_and(|chain| !follows(chain)) {
            return Err(TailError::OtherHistory { next });
        }
        assert_eq!(frames.first().map(|frame| frame.log_id().index), Some(next), "a frame that stays is there");
        self.ready.extend(frames);
        Ok(())
    }
}

impl TailCloser {
    /// Ends the reader: it says so at its next call, and at once if it waits.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.core.store().journal.wake_followers();
    }
}
