//! Finding out which records of the journal's older part were not void, from its end to its beginning.
//!
//! Forwards that cannot be told: a record is void or not by the state before it, and nobody remembers the state before the
//! journal's first frame. Backwards it can: a state that was applied is known, and the record that led to it is the one that
//! says so. Its own base is the state before, and so on. What lies between two of them was void.
//!
//! Two records that lead to one state, by txn id and digest, are the same: the digest covers page 0, which holds the wall
//! time of the batch. If one was proposed twice and only one of them counted, either may be taken for it: they have the same
//! bytes.
//!
//! It is done a stretch at a time, and only as far back as somebody asks. Of a frame, only the record's fixed part is kept.

use crate::error::StorageError;
use crate::ids::LogIndex;
use crate::journal::frame::FrameKind;
use crate::store::{Mark, Store};
use crate::txn::record::{Record, RecordHeader};

/// So many frames are looked at before the state before them becomes a mark.
const STRETCH_FRAMES: u64 = 2048;
/// How much of the journal is read at a time, in bytes.
const READ_BYTES: usize = 4 << 20;

/// Adds a mark before `oldest`, which is the oldest one, in a journal that begins with `first`. Nothing if a purge came in
/// between.
pub(super) fn one_further_back(store: &Store, first: LogIndex, oldest: Mark) -> Result<(), StorageError> {
    let from = LogIndex(first.0.max(oldest.next.0.saturating_sub(STRETCH_FRAMES)));
    let start = store.journal.first_kept();
    let chain = if from == start.next_index() { Some(start.chain) } else { store.journal.chain(LogIndex(from.0 - 1)) };
    let headers = match read(store, from, oldest.next) {
        Ok(headers) => headers,
        Err(_) if store.journal.first_kept().next_index() > from => return Ok(()),
        Err(error) => return Err(error),
    };
    // Without one, it is purged.
    let Some(chain) = chain else { return Ok(()) };
    let (mut txn_id, mut digest) = (oldest.txn_id, oldest.digest);
    for header in headers.iter().rev() {
        if (header.last_txn, header.digest) == (txn_id, digest) {
            (txn_id, digest) = (header.builds_on, header.base_digest);
        }
    }
    store.marks.add(Mark { next: from, chain, txn_id, digest });
    Ok(())
}

/// The fixed parts of the records in a stretch, in order.
fn read(store: &Store, from: LogIndex, until: LogIndex) -> Result<Vec<RecordHeader>, StorageError> {
    let mut headers = Vec::new();
    let mut next = from;
    while next < until {
        let frames = store.journal.read(next, until, READ_BYTES)?;
        assert!(!frames.is_empty(), "frames before an applied one stay, or are purged");
        for frame in frames {
            next = frame.log_id().index.next();
            if frame.kind() == FrameKind::Record {
                let header = Record::decode_header(frame.payload().bytes()).map_err(|error| {
                    let what = format!("frame {}: {error}", frame.log_id());
                    StorageError::corrupted(&store.directory, 0, what)
                })?;
                headers.push(header);
            }
        }
    }
    Ok(headers)
}
