//! Seeding: a whole database as a stream, pages first, then frames; no state is ever held whole in memory.
//!
//! ```text
//! manifest, pages..., pages done(target), frames..., done
//! ```
//! On request frames come between the pages, too, as they are committed ([`SeedSource::frames_beside`]).
//!
//! For nodes that are replicas of one another: not covered by [what is promised](crate#what-is-stable).
//!
//! Why the receiver ends with the source's bytes, although the source's file changes while it is copied:
//! - The source pins its journal behind the finished checkpoint `c` *before* it reads which one that is, and copies the
//!   pages up to `c`'s page count. Each page it reads is of some version from `c` on; what a running checkpoint writes
//!   may be torn. Pages beyond that count were allocated behind `c`, so the frames hold them whole.
//! - After the last page it reads the target of the newest checkpoint. Whatever it copied is of a version up to that
//!   target. Then it sends the frames from `c` to the target.
//! - So the receiver has a mixture of page versions between `c` and the target, and every frame between: the same as a
//!   directory after a crash in a checkpoint. It is opened by the same recovery, as a generation of its own, and
//!   verified: every page's checksum, and the digest of all.
//! - Only then does one slot write switch the receiver to it. A crash before leaves the old generation, after it the new
//!   one; what is left of the other is removed at the next start.
//!
//! The pin has a bound in bytes. A source whose receiver is too slow says so instead of filling the disk, and the
//! receiver begins again. Frames that go beside the pages let the pin go forward.
//!
//! Why a stream that was cut goes on from any node of the same history, and nothing that was received is sent again:
//! - With each piece of pages the source says what the newest checkpoint's target was *after* it had read them. So a
//!   receiver whose source is gone knows how new its pages may be: `target`. It knows the checkpoint `c` that they started
//!   from, and the last frame that it has, by the chain value.
//! - Another source takes over if its journal has that frame, with that chain value, and all behind it: so both have one
//!   history up to there; if it has applied `target`, and holds it durably, so that the frames that it sends go at least
//!   that far; and, where pages are missing, if its own finished checkpoint is not before `c`: its pages are of versions
//!   from `c` on, as those before.
//! - What the receiver has then is pages of versions between `c` and the target of whichever source read them, and every
//!   frame from `c` to an end that is behind all of these targets: the mixture of above.
//! - Frames that went beside the pages are why the other source need not reach back to `c`: a source that dies takes
//!   nothing with it but the frames since the last piece.
//! - A source that cannot take over says why ([`SeedError::CannotResume`]); what was received stays as it is, for another.
//!
//! A generation that was verified, but whose end is not far enough any more, becomes a receiver again
//! ([`VerifiedSeed::reopen`]): opening it may have replayed its frames into its data file, as the recovery from a crash in a
//! checkpoint does, and the same recovery goes over it once more.
//!
//! Why a receiver never takes another's files away, whoever holds it and for however long:
//! - There is one receiver of an engine at a time. It holds the engine's seat from its beginning until it is dropped,
//!   and hands it on to the [`VerifiedSeed`] that it becomes; until that is switched in or dropped, a second receiver is
//!   refused as [`SeedError::Busy`]. A task that was given up may leave either with somebody who is still at it: the
//!   seat goes with them.
//! - It builds where nothing stands, under the number after the highest of `node.meta`'s generation and of those on disk.
//! - A receiver that is dropped removes what it built, unless `node.meta` may name it by then.

mod manifest;
mod receiver;
mod source;

#[cfg(test)]
mod resume_test;
#[cfg(test)]
mod seed_test;

use bytes::Bytes;

pub use manifest::SeedManifest;
pub use receiver::{SeedProgress, SeedReceiver, VerifiedSeed};
pub use source::{SeedResume, SeedSource};

use crate::engine::OpenError;
use crate::error::StorageError;
use crate::ids::{Digest, LogId, PageNumber, TxnId};
use crate::journal::frame::Frame;

/// A piece of the stream.
#[derive(Clone, Debug)]
pub enum SeedChunk {
    /// What the stream is of: an encoded [`SeedManifest`]. The first piece, and only that.
    Manifest(Bytes),
    /// Pages that follow each other, from `first` on, as the file has them. Pages of zeros are left out.
    Pages {
        /// The first page.
        first: PageNumber,
        /// Whole pages.
        bytes: Bytes,
        /// The target of the newest checkpoint after they were read: they are of versions up to it.
        target: Option<LogId>,
    },
    /// The pages are complete; frames up to this target follow.
    PagesDone {
        /// The last entry that must be replayed.
        target: Option<LogId>,
        /// The state of the newest checkpoint's target: they lead there, or further.
        target_txn: TxnId,
        /// How many pages were sent.
        pages_sent: u64,
    },
    /// Frames, in log order, without a gap to those before.
    Frames(Vec<Frame>),
    /// The end.
    Done {
        /// The last entry.
        last: Option<LogId>,
        /// The chain value after it.
        chain: u64,
    },
}

impl SeedChunk {
    /// The bytes of the database that it carries.
    #[must_use]
    pub fn carried_bytes(&self) -> u64 {
        match self {
            Self::Pages { bytes, .. } => bytes.len() as u64,
            Self::Frames(frames) => frames.iter().map(|frame| frame.frame_bytes() as u64).sum(),
            Self::Manifest(_) | Self::PagesDone { .. } | Self::Done { .. } => 0,
        }
    }
}

/// Why seeding failed. The receiver's old state is untouched.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stream is not what it should be.
    #[error("bad seed stream: {0}")]
    Stream(String),
    /// The stream is of another database.
    #[error("the seed is of database {found}, and this node's is {expected}; seed it from a node of its own cluster")]
    OtherDatabase {
        /// This node's.
        expected: String,
        /// The stream's.
        found: String,
    },
    /// The receiver took what it was sent so slowly that the journal could not be kept for it.
    #[error("the journal behind the seed grew beyond {hold_bytes} bytes before it was taken; begin again")]
    TooSlow {
        /// How much would have been kept.
        hold_bytes: u64,
    },
    /// The source has switched to another generation meanwhile, because it was seeded itself.
    #[error("the source was seeded itself meanwhile; begin again")]
    Switched,
    /// A stream that was broken off cannot go on from this source.
    #[error("the stream cannot go on from this node: {0}; begin again, or take another node")]
    CannotResume(String),
    /// Another receiver is at work, or has not been dropped yet.
    #[error("this node is being seeded already; try again when that has ended")]
    Busy,
    /// The new state did not open.
    #[error("the seeded state cannot be opened: {0}")]
    Open(Box<OpenError>),
    /// The new state is not the source's.
    #[error("the seeded state has digest {found} and should have {expected}")]
    Digest {
        /// The source's.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
}

impl From<OpenError> for SeedError {
    fn from(error: OpenError) -> Self {
        Self::Open(Box::new(error))
    }
}
