//! A read-only walk over a journal's directory, for the command line.

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::env::Disk;
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, LogIndex};
use crate::journal::frame::{Frame, FrameKind};
use crate::journal::walk::Walker;

/// A frame as the command line lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrameInfo {
    /// The log id.
    pub log_id: LogId,
    /// What the payload is.
    pub kind: FrameKind,
    /// The commit index in its header.
    pub commit: Option<LogIndex>,
    /// Where it stands, on this node.
    pub position: JournalPosition,
    /// Its length, in bytes.
    pub bytes: usize,
    /// XXH3-64 of the header and the payload: equal on all nodes that hold the frame.
    pub hash: u64,
}

impl FrameInfo {
    /// What is listed of a frame that stands at `position`.
    #[must_use]
    pub fn of(frame: &Frame, position: JournalPosition) -> Self {
        Self {
            log_id: frame.log_id(),
            kind: frame.kind(),
            commit: frame.commit(),
            position,
            bytes: frame.frame_bytes(),
            hash: frame_hash(frame),
        }
    }
}

/// XXH3-64 of a whole frame without its padding.
#[must_use]
pub fn frame_hash(frame: &Frame) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(frame.header());
    hasher.update(frame.payload().bytes());
    hasher.digest()
}

/// Reads all frames of the journal in `directory`, verified, with their places, without writing anything. Damage comes
/// as the last item, as an error.
///
/// # Errors
/// Those of the disk, and a first segment whose header cannot be read.
pub fn frames(
    disk: Arc<dyn Disk>,
    directory: &Path,
) -> Result<impl Iterator<Item = Result<(Frame, JournalPosition), StorageError>> + use<>, StorageError> {
    let mut walker = Walker::new(disk, directory)?;
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        match walker.next_frame() {
            Ok(Some(found)) => Some(Ok(found)),
            Ok(None) => {
                over = true;
                walker.ending().damage.as_ref().map(|damage| Err(damage.error()))
            }
            Err(error) => {
                over = true;
                Some(Err(error))
            }
        }
    }))
}

/// Lists all frames as [`frames`] reads them.
///
/// # Errors
/// As [`frames`].
pub fn inspect(
    disk: Arc<dyn Disk>,
    directory: &Path,
) -> Result<impl Iterator<Item = Result<FrameInfo, StorageError>> + use<>, StorageError> {
    let describe = |(frame, position): (Frame, JournalPosition)| FrameInfo::of(&frame, position);
    Ok(frames(disk, directory)?.map(move |found| found.map(describe)))
}
