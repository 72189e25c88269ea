//! A node as the source of another's seeding: read by a thread for blocking work, as fast as the receiver takes it and the
//! node's own limit lets it.
//!
//! Memory: a chunk being read, one that waits, and the transport's window, for each receiver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calamus_engine::Engine;
use calamus_engine::ids::LogId;
use calamus_engine::seed::{SeedError, SeedSource};
use calamus_proto::raft::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::Pace;
use super::wire::{resume_from_wire, to_wire};
use crate::core::Core;
use crate::network::convert::plain_log_id_from_wire;

/// The default size of a chunk, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait between the disk and the network.
const CHUNKS_WAITING: usize = 1;
/// A source that is behind what it is asked for waits so long until it has applied it.
const BEHIND_LIMIT: Duration = Duration::from_secs(2);
/// A source that waits for its turn looks so often whether its receiver is still there.
const LOOK: Duration = Duration::from_millis(200);

/// The stream for a request.
///
/// # Errors
/// When this node is not far enough, and does not become so in a moment.
pub(crate) async fn stream(
    engine: Engine,
    core: &Core,
    pace: Arc<Pace>,
    request: wire::SeedRequest,
) -> Result<ReceiverStream<Result<wire::SeedChunk, Status>>, Status> {
    let resume = request.resume.as_ref();
    let needed = [request.at_least, resume.and_then(|resume| resume.target), resume.and_then(|resume| resume.last)];
    if let Some(needed) = needed.into_iter().flatten().map(plain_log_id_from_wire).max_by_key(|at| at.index) {
        reach(core, needed).await?;
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let hold_bytes = core.config.seed_hold_bytes;
    tokio::task::spawn_blocking(move || {
        let pumped = begin(&engine, hold_bytes, &request).and_then(|source| pump(source, &pace, &request, &sender));
        if let Err(error) = pumped {
            tracing::warn!(%error, "seeding another node ended");
            // The receiver may be gone; then there is nobody to tell.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Waits until this node has applied an entry.
async fn reach(core: &Core, needed: LogId) -> Result<(), Status> {
    core.wait_applied(needed, BEHIND_LIMIT).await.map_err(|error| {
        Status::unavailable(format!("this node has not applied {needed}, which the seeding needs: {error}"))
    })
}

/// What the receiver is told.
fn refusal(error: &SeedError) -> Status {
    match error {
        SeedError::CannotResume(why) => Status::out_of_range(why.clone()),
        error => Status::internal(error.to_string()),
    }
}

fn begin(engine: &Engine, hold_bytes: u64, request: &wire::SeedRequest) -> Result<SeedSource, Status> {
    let Some(resume) = &request.resume else {
        return Ok(engine.seed_source(hold_bytes).map_err(|error| refusal(&error))?.frames_beside());
    };
    let resume = resume_from_wire(engine, resume).map_err(Status::invalid_argument)?;
    // Its pages must not be older than those that were copied. What it has applied is new enough, or it refuses.
    let old = engine.checkpointed().log_id < resume.checkpoint.log_id;
    if old && resume.next_page.0 < resume.page_count && engine.applied().log_id >= resume.checkpoint.log_id {
        engine.checkpoint().map_err(|error| Status::internal(error.to_string()))?;
    }
    let source = engine.resume_seed_source(resume, hold_bytes).map_err(|error| refusal(&error))?;
    Ok(source.frames_beside())
}

fn pump(
    mut source: SeedSource,
    pace: &Pace,
    request: &wire::SeedRequest,
    sender: &mpsc::Sender<Result<wire::SeedChunk, Status>>,
) -> Result<(), Status> {
    let chunk_bytes = match request.chunk_bytes as usize {
        0 => CHUNK_BYTES,
        wished => wished.clamp(64 << 10, 4 << 20),
    };
    pace.begins();
    while let Some(chunk) = source.next(chunk_bytes).map_err(|error| refusal(&error))? {
        let until = Instant::now() + pace.wait(chunk.carried_bytes(), Instant::now());
        loop {
            if sender.is_closed() {
                return Ok(()); // the pin goes with `source`
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK));
        }
        if sender.blocking_send(Ok(to_wire(chunk))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
