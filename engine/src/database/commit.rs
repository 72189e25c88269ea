//! From a batch to the applied state: the frame of a group.

use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Durability, WriteError};
use crate::engine::Engine;
use crate::error::StorageError;
use crate::ids::LogId;
use crate::journal::Done;
use crate::journal::frame::{Frame, FrameKind};
use crate::txn::Batch;

/// Alone, there is one term: this one, or that of the cluster whose backup the database was restored from.
const TERM: u64 = 1;

/// Where deferred commits wait for the disk after all, in bytes of frames that are not durable: the journal's thread
/// does not keep up, and they take memory.
const DEFERRED_BYTES: usize = 32 << 20;

/// Commits what ran in `batch`. One call at a time, so that frames are applied in the order in which they were staged.
pub(super) fn commit(engine: &Engine, batch: Batch, durability: Durability) -> Result<(), WriteError> {
    let Some(staged) = batch.seal(now_micros())? else { return Ok(()) };
    let applied = engine.applied();
    let last = engine.log_state().last;
    let (term, index) = last.map_or((TERM, 0), |last| (last.term.0.max(TERM), last.index.0 + 1));
    let commit = applied.log_id.map(|log_id| log_id.index);
    let frame = Frame::encode(FrameKind::Record, LogId::new(term, index), commit, engine.last_chain(), staged.payload);
    if durability == Durability::EachCommit || engine.queued_bytes() > DEFERRED_BYTES {
        let (done, synced) = mpsc::channel();
        let done: Done = Box::new(move |outcome| {
            // The receiver waits just below.
            let _ = done.send(outcome);
        });
        engine.append_here(vec![frame.clone()], done).map_err(WriteError::NotCommitted)?;
        let closed = || Err(StorageError::Poisoned("the journal was closed".into()));
        synced.recv().unwrap_or_else(|_| closed()).map_err(WriteError::Unknown)?;
    } else {
        // A failure of the write is found by the next commit or sync: the journal is stopped then.
        engine.append(vec![frame.clone()], Box::new(drop)).map_err(WriteError::NotCommitted)?;
    }
    engine.apply(&frame)?;
    Ok(())
}

pub(super) fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
