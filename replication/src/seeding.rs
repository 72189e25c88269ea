//! Filling a node that is new or too far behind: pages, then frames, live, in bounded memory.
//!
//! A snapshot is an instruction. The leader tells the follower to seed itself to at least a log id and from where
//! (`InstallSnapshot`); the follower asks a source (`Seed`) and feeds what comes to the engine, which fills a new
//! generation beside the current one. Nothing of the running generation changes meanwhile, and a crash or a broken
//! stream at any point leaves only a half-filled directory that the engine removes.
//!
//! Only when the source has said *done*, and the new generation is open, replayed and verified page by page, does
//! openraft hear of it, with the meta of what was really received: that is newer than what the leader declared, because
//! frames are streamed until the end. The leader goes on from the older one; the follower skips what it has. From the
//! moment when openraft hears of it, its core does nothing else until the switch is done: no vote is given and no
//! append acknowledged. So nothing that takes long, or can fail for what was received, comes behind it. The switch
//! itself, one slot write, is [`crate::state_machine`]'s.
//!
//! The membership travels beside the stream, because openraft must be told it before the switch: the source takes the
//! newest of its finished checkpoint's (read after the source pinned its journal, so it is at or above the pages) and
//! of the membership frames it streams. The engine finds the same one by applying; a difference stops the follower.

use std::time::Duration;

use bytes::Bytes;
use calamus_engine::Engine;
use calamus_engine::error::StorageError;
use calamus_engine::ids::{LogId, PageNumber, TxnId};
use calamus_engine::journal::frame::FrameKind;
use calamus_engine::seed::{SeedChunk, SeedError, SeedProgress, SeedReceiver, VerifiedSeed};
use calamus_proto::raft::v1 as wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::membership::codec;
use crate::network::convert;
use crate::state_machine::meta_of;
use crate::trimming::HOLD_BYTES;
use crate::types::{Membership, SnapshotMeta, StoredMembership};

/// The default size of a chunk, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait between the disk and the network, on each side.
const CHUNKS_WAITING: usize = 2;
/// Looks at how far a verification is, in each stall limit.
const LOOKS: u32 = 4;
/// Between two of them, at least.
const LOOK_LEAST: Duration = Duration::from_millis(1);

/// A generation that is filled and verified, but not switched in.
pub struct Seeded {
    /// The engine's half.
    pub verified: VerifiedSeed,
    /// What it will be once it is switched in.
    pub meta: SnapshotMeta,
    /// How much was received, in bytes.
    pub bytes: u64,
}

/// Why a seeding came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SeedingError {
    /// The source broke off, said nonsense or could not be reached.
    #[error("the source failed: {0}")]
    Source(Box<Status>),
    /// This node is being seeded already, perhaps for a leader that gave up waiting.
    #[error("this node is being seeded already; try again")]
    Busy,
    /// No progress for too long.
    #[error("no chunk came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// What came is not usable here.
    #[error("what was received is not usable: {0}")]
    Unusable(String),
    /// The source does not reach what the leader asks for.
    #[error("the source ends at {got:?}, at least {wanted} is needed")]
    TooOld {
        /// Where the source ends.
        got: Option<LogId>,
        /// What the leader asks for.
        wanted: LogId,
    },
}

impl From<Status> for SeedingError {
    fn from(status: Status) -> Self {
        Self::Source(Box::new(status))
    }
}

/// Follows the membership while a source streams.
struct MembershipTrail {
    newest: Option<(LogId, Bytes)>,
}

impl MembershipTrail {
    fn observe(&mut self, chunk: &SeedChunk) {
        let SeedChunk::Frames(frames) = chunk else { return };
        for frame in frames.iter().filter(|frame| frame.kind() == FrameKind::Membership) {
            if self.newest.as_ref().is_none_or(|(known, _)| known.index < frame.log_id().index) {
                self.newest = Some((frame.log_id(), frame.payload().bytes().clone()));
            }
        }
    }
}

/// The stream of a source: read by a blocking thread, as fast as the receiver takes it.
#[must_use]
pub fn source(engine: Engine, chunk_bytes: usize) -> ReceiverStream<Result<wire::SeedChunk, Status>> {
    let chunk_bytes = if chunk_bytes == 0 { CHUNK_BYTES } else { chunk_bytes.clamp(64 << 10, 4 << 20) };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pump_source(&engine, chunk_bytes, &sender) {
            tracing::warn!(%error, "seeding another node failed");
            // The receiver may be gone; then there is nobody to tell.
            let _ = sender.blocking_send(Err(Status::internal(error)));
        }
    });
    ReceiverStream::new(receiver)
}

fn pump_source(
    engine: &Engine,
    chunk_bytes: usize,
    sender: &mpsc::Sender<Result<wire::SeedChunk, Status>>,
) -> Result<(), String> {
    let mut source = engine.seed_source(HOLD_BYTES).map_err(|error| error.to_string())?;
    let mut trail = MembershipTrail { newest: engine.checkpointed().membership };
    while let Some(chunk) = source.next(chunk_bytes).map_err(|error| error.to_string())? {
        trail.observe(&chunk);
        if sender.blocking_send(Ok(to_wire(chunk, &trail))).is_err() {
            return Ok(()); // the receiver has gone; the pin goes with `source`
        }
    }
    Ok(())
}

fn to_wire(chunk: SeedChunk, trail: &MembershipTrail) -> wire::SeedChunk {
    use wire::seed_chunk::Kind;
    let kind = match chunk {
        SeedChunk::Manifest(manifest) => Kind::Manifest(wire::SeedManifest { manifest }),
        SeedChunk::Pages { first, bytes } => Kind::Pages(wire::SeedPages { first: first.0, bytes }),
        SeedChunk::PagesDone { target, target_txn, pages_sent } => Kind::PagesDone(wire::SeedPagesDone {
            target: target.map(convert::plain_log_id_to_wire),
            target_txn: target_txn.0,
            pages_sent,
        }),
        SeedChunk::Frames(frames) => {
            Kind::Frames(wire::SeedFrames { frames: frames.iter().map(convert::frame_to_wire).collect() })
        }
        SeedChunk::Done { last, chain } => {
            let (membership_log_id, membership) = trail.newest.clone().unzip();
            Kind::Done(wire::SeedDone {
                last: last.map(convert::plain_log_id_to_wire),
                chain,
                membership_log_id: membership_log_id.map(convert::plain_log_id_to_wire),
                membership: membership.unwrap_or_default(),
            })
        }
    };
    wire::SeedChunk { kind: Some(kind) }
}

fn from_wire(chunk: wire::SeedChunk) -> Result<SeedChunk, SeedingError> {
    use wire::seed_chunk::Kind;
    let unusable = |what: String| SeedingError::Unusable(what);
    Ok(match chunk.kind.ok_or_else(|| unusable("a chunk of no kind".to_owned()))? {
        Kind::Manifest(manifest) => SeedChunk::Manifest(manifest.manifest),
        Kind::Pages(pages) => SeedChunk::Pages { first: PageNumber(pages.first), bytes: pages.bytes },
        Kind::PagesDone(done) => SeedChunk::PagesDone {
            target: done.target.map(convert::plain_log_id_from_wire),
            target_txn: TxnId(done.target_txn),
            pages_sent: done.pages_sent,
        },
        Kind::Frames(frames) => {
            let frames = frames.frames.into_iter().map(convert::frame_from_wire).collect::<Result<Vec<_>, _>>();
            SeedChunk::Frames(frames.map_err(|error| unusable(error.to_string()))?)
        }
        Kind::Done(done) => SeedChunk::Done { last: done.last.map(convert::plain_log_id_from_wire), chain: done.chain },
    })
}

fn meta_of_done(done: &wire::SeedDone, at_least: LogId) -> Result<SnapshotMeta, SeedingError> {
    let last = done.last.map(convert::plain_log_id_from_wire);
    let Some(last) = last.filter(|last| last.index >= at_least.index) else {
        return Err(SeedingError::TooOld { got: last, wanted: at_least });
    };
    let membership = if done.membership.is_empty() {
        Membership::default()
    } else {
        codec::decode(&done.membership).map_err(|error| SeedingError::Unusable(error.to_string()))?
    };
    let log_id = done.membership_log_id.map(convert::log_id_from_wire);
    Ok(SnapshotMeta {
        last_log_id: Some(convert::to_raft_log_id(last)),
        last_membership: StoredMembership::new(log_id, membership),
    })
}

/// Takes the engine's one receiver.
///
/// # Errors
/// [`SeedingError::Busy`] while another seeding has it, perhaps one whose task has gone.
pub async fn take_receiver(engine: &Engine) -> Result<SeedReceiver, SeedingError> {
    let engine = engine.clone();
    let taken = tokio::task::spawn_blocking(move || engine.seed_receiver()).await;
    taken.map_err(|panic| SeedingError::Unusable(panic.to_string()))?.map_err(|error| match error {
        SeedError::Busy => SeedingError::Busy,
        error => SeedingError::Unusable(error.to_string()),
    })
}

/// Feeds the stream of a source to the engine's receiver, and verifies what it made of it. `progress` is told the bytes
/// received so far: with every chunk, and while it is verified several times in each `stall_limit`, as long as there is
/// progress.
///
/// # Errors
/// See [`SeedingError`]; nothing of the running generation has changed then, and the receiver is gone.
pub async fn receive(
    receiver: SeedReceiver,
    stream: Streaming<wire::SeedChunk>,
    at_least: LogId,
    stall_limit: Duration,
    progress: impl Fn(u64),
) -> Result<Seeded, SeedingError> {
    let steps = receiver.progress();
    let (sender, chunks) = mpsc::channel::<SeedChunk>(CHUNKS_WAITING);
    let feeding = tokio::task::spawn_blocking(move || feed(receiver, chunks));
    let (meta, bytes) = match pump_stream(stream, sender, at_least, stall_limit, &progress).await {
        Ok(streamed) => streamed,
        Err(error) => {
            // The next try needs the receiver. Whatever it says, the stream was the reason.
            let _ = feeding.await;
            return Err(error);
        }
    };
    let verified = verified(feeding, &steps, stall_limit, || progress(bytes)).await?;
    let meta = meta.ok_or_else(|| SeedingError::Unusable("the engine stopped taking chunks".to_owned()))?;
    let found = meta_of(&verified.applied()).map_err(|error| SeedingError::Unusable(error.to_string()))?;
    if found != meta {
        return Err(SeedingError::Unusable(format!("it is {found}, and the source promised {meta}")));
    }
    Ok(Seeded { verified, meta, bytes })
}

/// Hands on the chunks of a source until it is done. Returns what it promised then (`None` if nobody takes the chunks)
/// and how many bytes came.
async fn pump_stream(
    mut stream: Streaming<wire::SeedChunk>,
    sender: mpsc::Sender<SeedChunk>,
    at_least: LogId,
    stall_limit: Duration,
    progress: impl Fn(u64),
) -> Result<(Option<SnapshotMeta>, u64), SeedingError> {
    let mut bytes = 0;
    loop {
        let next = tokio::time::timeout(stall_limit, stream.message()).await;
        let chunk = next.map_err(|_| SeedingError::Stalled(stall_limit))??;
        let Some(chunk) = chunk else {
            return Err(SeedingError::Source(Box::new(Status::aborted("the stream ended before it was done"))));
        };
        bytes += prost::Message::encoded_len(&chunk) as u64;
        progress(bytes);
        let meta = match &chunk.kind {
            Some(wire::seed_chunk::Kind::Done(done)) => Some(meta_of_done(done, at_least)?),
            _ => None,
        };
        // A closed channel means that the engine refused a chunk; `feeding` knows why.
        if sender.send(from_wire(chunk)?).await.is_err() {
            return Ok((None, bytes));
        }
        if meta.is_some() {
            return Ok((meta, bytes));
        }
    }
}

/// Waits for the verified generation, and says now and then that there was progress with it, if there was.
async fn verified(
    mut feeding: JoinHandle<Result<VerifiedSeed, SeedingError>>,
    steps: &SeedProgress,
    stall_limit: Duration,
    progress: impl Fn(),
) -> Result<VerifiedSeed, SeedingError> {
    let mut look = tokio::time::interval((stall_limit / LOOKS).max(LOOK_LEAST));
    let mut seen = steps.steps();
    loop {
        tokio::select! {
            fed = &mut feeding => return fed.map_err(|panic| SeedingError::Unusable(panic.to_string()))?,
            _ = look.tick() => {
                let before = std::mem::replace(&mut seen, steps.steps());
                if seen != before {
                    progress();
                }
            }
        }
    }
}

fn feed(mut receiver: SeedReceiver, mut chunks: mpsc::Receiver<SeedChunk>) -> Result<VerifiedSeed, SeedingError> {
    let unusable = |error: SeedError| SeedingError::Unusable(error.to_string());
    while let Some(chunk) = chunks.blocking_recv() {
        receiver.feed(chunk).map_err(unusable)?;
    }
    receiver.verify().map_err(unusable)
}

/// Sees to it that a stream of this node reaches at least `at_least`, which it has applied: a stream ends at the target
/// of its newest checkpoint. Blocks.
///
/// # Errors
/// When the checkpoint fails.
pub fn reach(engine: &Engine, at_least: LogId) -> Result<(), StorageError> {
    if engine.checkpointed().log_id.is_none_or(|reached| reached.index < at_least.index) {
        engine.checkpoint()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calamus_engine::env::RealDisk;

    use super::*;
    use crate::tests::support;

    #[tokio::test]
    async fn a_seeding_is_busy_as_long_as_anybody_holds_the_receiver() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = support::identity(1, "n", "h:1");
        let engine = support::create(Arc::new(RealDisk::new()), &directory.path().join("n"), &identity);
        let held = take_receiver(&engine).await.expect("nobody has it");
        assert!(matches!(take_receiver(&engine).await, Err(SeedingError::Busy)));
        drop(held);
        assert!(take_receiver(&engine).await.is_ok());
    }
}
