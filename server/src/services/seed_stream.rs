//! `Backup.Stream`: the state of this node as a stream, for programs.
//!
//! Without an index it is what fills a new replica (`calamus_engine::seed`): pages as they are, of no one state, and then the
//! frames that make one of them. With an index it is the frames from there on, up to what is applied and durable here; or,
//! on request, also those to come. The journal is kept for the stream, up to a bound in bytes: a client that takes it too slowly
//! gets an error that says so, and never holds the node's disk.
//!
//! One message is read ahead, by a thread for blocking work; the channel holds one more.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use calamus_engine::backup::BackupError;
use calamus_engine::ids::LogIndex;
use calamus_engine::page::PAGE_BYTES;
use calamus_engine::seed::SeedChunk;
use calamus_engine::{Engine, Frame, TailNext};
use calamus_proto::v1::backup_stream_chunk::Chunk;
use calamus_proto::v1::{
    BackupFrames, BackupPages, BackupPagesDone, BackupStreamBegin, BackupStreamChunk, BackupStreamEnd,
    BackupStreamRequest,
};
use calamus_replication::seeding::pace::Pace;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::backup::describe::log_id;
use crate::backup::error::RunError;
use crate::status::of_run_error;

/// About how many bytes go into a message; one longer frame goes alone.
const CHUNK_BYTES: usize = 1 << 20;
/// So much journal is kept for a stream, in bytes.
const HOLD_BYTES: u64 = 8 << 30;
/// How often a stream that waits for frames looks whether its client is there.
const LOOK: Duration = Duration::from_millis(200);

/// The answer.
pub type SeedStream = ReceiverStream<Result<BackupStreamChunk, Status>>;

/// Begins a stream.
///
/// # Errors
/// When the request contradicts itself.
pub fn start(engine: Engine, request: BackupStreamRequest) -> Result<SeedStream, RunError> {
    if request.follow && request.from_index.is_none() {
        let why =
            "only frames can be followed: say from_index, for example the first_index that a stream of pages named";
        return Err(RunError::Invalid(why.to_owned()));
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut out = Out { sender, pace: Pace::new(request.bytes_per_second) };
        let ended = match request.from_index {
            None => pages_and_frames(&engine, &mut out),
            Some(from) => frames(&engine, LogIndex(from), request.follow, &mut out),
        };
        if let Err(Ended::Failed(error)) = ended {
            let _ = out.sender.blocking_send(Err(of_run_error(&error)));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Why a stream ended early.
enum Ended {
    /// Its client is gone.
    Gone,
    Failed(RunError),
}

impl<E: Into<BackupError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended::Failed(RunError::Backup(error.into()))
    }
}

/// The way to the client.
struct Out {
    sender: mpsc::Sender<Result<BackupStreamChunk, Status>>,
    pace: Pace,
}

impl Out {
    /// Sends a message of so many bytes, when that may be.
    fn send(&mut self, chunk: Chunk, bytes: usize) -> Result<(), Ended> {
        std::thread::sleep(self.pace.wait(bytes as u64, Instant::now()));
        let message = Ok(BackupStreamChunk { chunk: Some(chunk) });
        self.sender.blocking_send(message).map_err(|_| Ended::Gone)
    }

    fn frames(&mut self, frames: &[Frame]) -> Result<(), Ended> {
        let Some(first) = frames.first() else { return Ok(()) };
        let first_index = first.log_id().index.0;
        let frames: Vec<_> = frames.iter().map(whole).collect();
        let bytes = frames.iter().map(Bytes::len).sum();
        self.send(Chunk::Frames(BackupFrames { first_index, frames }), bytes)
    }
}

/// A frame as it stands in the journal.
fn whole(frame: &Frame) -> Bytes {
    let mut bytes = BytesMut::with_capacity(frame.frame_bytes());
    bytes.extend_from_slice(frame.header());
    bytes.extend_from_slice(frame.payload().bytes());
    bytes.freeze()
}

fn begin(engine: &Engine, first_index: LogIndex) -> BackupStreamBegin {
    BackupStreamBegin {
        database_id: engine.database_id().to_string(),
        cluster_id: engine.identity().cluster_id.to_string(),
        timeline: engine.timeline().0,
        page_bytes: u32::try_from(PAGE_BYTES).expect("a page is small"),
        first_index: first_index.0,
        ..BackupStreamBegin::default()
    }
}

fn pages_and_frames(engine: &Engine, out: &mut Out) -> Result<(), Ended> {
    let mut source = engine.seed_source(HOLD_BYTES)?.until_applied();
    let checkpoint = source.checkpoint();
    let first = checkpoint.log_id.map_or(LogIndex(0), |at| at.index.next());
    let begin = BackupStreamBegin {
        page_count: source.page_count().into(),
        checkpoint: log_id(checkpoint.log_id),
        checkpoint_txn: checkpoint.txn_id.0,
        ..begin(engine, first)
    };
    out.send(Chunk::Begin(begin), 0)?;
    while let Some(chunk) = source.next(CHUNK_BYTES)? {
        match chunk {
            SeedChunk::Manifest(_) => {}
            SeedChunk::Pages { first, bytes, .. } => {
                let length = bytes.len();
                out.send(Chunk::Pages(BackupPages { first: first.0.into(), bytes }), length)?;
            }
            SeedChunk::PagesDone { target, target_txn, pages_sent } => {
                let done = BackupPagesDone { pages: pages_sent, target: log_id(target), target_txn: target_txn.0 };
                out.send(Chunk::PagesDone(done), 0)?;
            }
            SeedChunk::Frames(frames) => out.frames(&frames)?,
            SeedChunk::Done { last, chain } => end(out, last, chain)?,
        }
    }
    Ok(())
}

fn end(out: &mut Out, last: Option<calamus_engine::ids::LogId>, chain: u64) -> Result<(), Ended> {
    out.send(Chunk::End(BackupStreamEnd { last: log_id(last), chain: format!("{chain:016x}") }), 0)
}

fn frames(engine: &Engine, from: LogIndex, follow: bool, out: &mut Out) -> Result<(), Ended> {
    let pin = engine.pin("stream", from, HOLD_BYTES)?;
    // What is applied now is the end of a stream that does not follow.
    let until = engine.applied().log_id.map_or(LogIndex(0), |at| at.index.next());
    let mut tail = engine.tail(from);
    out.send(Chunk::Begin(begin(engine, from)), 0)?;
    let (mut waiting, mut bytes, mut last) = (Vec::new(), 0, None);
    loop {
        let at_end = !follow && tail.position() >= until;
        let next = if at_end {
            TailNext::Closed
        } else {
            tail.next_within(if waiting.is_empty() { LOOK } else { Duration::ZERO })?
        };
        if let TailNext::Frame(frame) = &next {
            last = Some((frame.log_id(), frame.chain()));
            bytes += frame.frame_bytes();
        }
        let (frame, goes_on) = match next {
            TailNext::Frame(frame) => (Some(frame), true),
            TailNext::TimedOut => (None, true),
            TailNext::Closed => (None, false),
        };
        let nothing_more = frame.is_none();
        waiting.extend(frame);
        if nothing_more || bytes >= CHUNK_BYTES {
            out.frames(&waiting)?;
            waiting.clear();
            bytes = 0;
            pin.advance(tail.position())?;
        }
        if out.sender.is_closed() {
            return Err(Ended::Gone);
        }
        if !goes_on {
            let (last, chain) = last.map_or((None, 0), |(last, chain)| (Some(last), chain));
            return end(out, last, chain);
        }
    }
}
