//! Where a reader of changes stands.

use crate::Engine;
use crate::engine::{TailError, TailNext};
use crate::error::StorageError;
use crate::ids::{LogIndex, Timeline, TxnId};
use crate::journal::frame::Frame;
use crate::store::{Mark, Store};

use super::changes::{Change, FrameChanges};
use super::survey;

/// Where a reader stands: what it has seen, and what comes next. See [`Engine::feed_after`].
#[derive(Clone, Debug)]
pub struct FeedPlace {
    timeline: Timeline,
    /// Transactions up to this one are known to the reader.
    after: TxnId,
    /// The next frame, and the state before it.
    at: Mark,
}

/// Why a reader of changes cannot go on. [`FeedError::NotHeld`] is what happens to one that was away for long.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// What comes next is no longer in the journal.
    #[error(
        "the journal of this node holds what was committed behind txn {oldest}, and no longer what follows txn {after}; \
         another node may still hold it, else begin from a copy of the data"
    )]
    NotHeld {
        /// What the reader knows.
        after: TxnId,
        /// Whoever knows everything up to here can go on.
        oldest: TxnId,
    },
    /// The node was seeded with another history than the one that was read, or the frame is not the next one.
    #[error("frame {next} does not follow what was read before; begin from a copy of the data")]
    OtherHistory {
        /// The frame that was next.
        next: LogIndex,
    },
    /// The journal failed, or cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FeedPlace {
    /// The frame that comes next.
    #[must_use]
    pub fn next(&self) -> LogIndex {
        self.at.next
    }

    /// The reader knows everything up to here, once it has what [`Self::take`] gave it.
    #[must_use]
    pub fn through(&self) -> TxnId {
        self.after.max(self.at.txn_id)
    }

    /// The timeline that is read.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Moves on by the next frame. Returns its changes that are new to the reader: none if the record is void.
    ///
    /// # Errors
    /// [`FeedError::OtherHistory`] if it is not the next one, or does not follow what came before.
    pub fn take<'c>(&mut self, changes: &'c FrameChanges) -> Result<&'c [Change], FeedError> {
        let (frame, next) = (changes.frame(), self.at.next);
        if frame.log_id().index != next || !frame.follows(self.at.chain) {
            return Err(FeedError::OtherHistory { next });
        }
        (self.at.next, self.at.chain) = (next.next(), frame.chain());
        let Some(header) = changes.header() else { return Ok(&[]) };
        // The same as `AppliedState::is_changed_by`.
        let state = (self.at.txn_id, self.at.digest, self.timeline);
        if (header.builds_on, header.base_digest, header.timeline) != state {
            return Ok(&[]);
        }
        (self.at.txn_id, self.at.digest) = (header.last_txn, header.digest);
        let all = changes.all();
        Ok(&all[all.partition_point(|change| change.txn <= self.after)..])
    }
}

impl Engine {
    /// The place of a reader that knows everything up to `after`. That may be a transaction that this node does not have
    /// yet: then it is passed over to there.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// use calamus_engine::TxnId;
    /// use calamus_engine::feed::{ChangeKind, FrameChanges};
    ///
    /// database.write(|txn| txn.create_tree("birds"))?;
    /// database.write(|txn| txn.put("birds", b"heron", b"grey"))?;
    /// let engine = database.engine();
    /// let mut place = engine.feed_after(TxnId(1))?;
    /// for frame in engine.committed_frames(&place, 1 << 20)? {
    ///     let frame = FrameChanges::decode(frame)?;
    ///     for change in place.take(&frame)? {
    ///         if let ChangeKind::Put { key, value } = &change.kind {
    ///             assert_eq!((&key[..], &value.to_bytes()[..]), (&b"heron"[..], &b"grey"[..]));
    ///         }
    ///     }
    /// }
    /// assert_eq!(place.through(), TxnId(2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It may read the journal, all of it at worst, the first time after a start: not for a thread that must not wait.
    ///
    /// # Errors
    /// [`FeedError::NotHeld`] if the journal begins behind that; when it cannot be read.
    pub fn feed_after(&self, after: TxnId) -> Result<FeedPlace, FeedError> {
        let store = self.core.store();
        let timeline = self.timeline();
        loop {
            let first = start_with_applied(&store);
            let (before, oldest) = store.marks.around(after, first);
            if let Some(at) = before {
                return Ok(FeedPlace { timeline, after, at });
            }
            // None, if a purge came behind what is applied now: there is a newer mark the next time.
            let Some(oldest) = oldest else { continue };
            if oldest.next == first {
                return Err(FeedError::NotHeld { after, oldest: oldest.txn_id });
            }
            survey::one_further_back(&store, first, oldest)?;
        }
    }

    /// The place of a reader that wants all that the journal holds.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn feed_oldest(&self) -> Result<FeedPlace, FeedError> {
        loop {
            match self.feed_after(TxnId(0)) {
                Err(FeedError::NotHeld { oldest, .. }) => match self.feed_after(oldest) {
                    // A purge came in between.
                    Err(FeedError::NotHeld { .. }) => {}
                    done => return done,
                },
                done => return done,
            }
        }
    }

    /// Frames from a place on that are committed, applied here and durable here: at least one if there is one, and no more
    /// than about `max_bytes`. None if there are none yet.
    ///
    /// # Errors
    /// [`FeedError::NotHeld`] if they are purged; when the journal cannot be read.
    pub fn committed_frames(&self, place: &FeedPlace, max_bytes: usize) -> Result<Vec<Frame>, FeedError> {
        let mut tail = self.tail(place.next());
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes {
            match tail.next_within(std::time::Duration::ZERO) {
                Ok(TailNext::Frame(frame)) => {
                    bytes += frame.frame_bytes();
                    frames.push(frame);
                }
                Ok(TailNext::TimedOut | TailNext::Closed) => break,
                // What was read before is still good, and the error comes again.
                Err(_) if !frames.is_empty() => break,
                Err(TailError::Storage(error)) => return Err(error.into()),
                Err(TailError::Purged { .. }) => {
                    let oldest = self.feed_oldest()?.through();
                    return Err(FeedError::NotHeld { after: place.through(), oldest });
                }
                Err(TailError::OtherHistory { next }) => return Err(FeedError::OtherHistory { next }),
            }
        }
        Ok(frames)
    }
}

/// The first frame that the journal holds; there is a mark of what is applied now, which is not before that.
fn start_with_applied(store: &Store) -> LogIndex {
    let applied = Mark::of(&store.head.lock().view.applied);
    store.marks.add(applied);
    store.journal.first_kept().next_index()
}
