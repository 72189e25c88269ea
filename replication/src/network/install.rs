//! A leader's instruction to seed this node, carried out.
//!
//! One at a time. It lives as long as the leader listens: a leader that has gone aborts it, and the next one starts
//! again. Aborting is safe everywhere: before the core is told, only a generation that is not switched in is dropped;
//! after that the core goes on by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use calamus_engine::ids::{LogId, RaftId};
use calamus_proto::raft::v1 as wire;
use futures::{Stream, StreamExt};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::budget::AbortOnDrop;
use super::service::RaftService;
use super::{convert, peers};
use crate::seeding::{self, SeedingError};
use crate::state_machine::Ticket;
use crate::types::{RaftVote, TypeConfig};

/// Between two messages that say how far the seeding is, in bytes received.
const REPORT_BYTES: u64 = 8 << 20;
/// At least so many of them in each stall limit, as long as something happens: a leader that hears nothing gives up.
const REPORTS: u32 = 4;

/// The seeding of this node, if one runs.
#[derive(Default)]
pub struct Seeding {
    running: AtomicBool,
    received: AtomicU64,
    begun: AtomicU64,
}

/// Held by the one seeding that runs: by its task, and by the thread that fills and verifies, which cannot be aborted.
/// Another that began beside that thread would build in the same place.
struct Running(Arc<Seeding>);

impl Running {
    fn begin(seeding: &Arc<Seeding>) -> Option<Self> {
        let free = !seeding.running.swap(true, Ordering::AcqRel);
        free.then(|| {
            seeding.received.store(0, Ordering::Relaxed);
            seeding.begun.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(seeding))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

impl Seeding {
    /// The bytes received by the running seeding.
    #[must_use]
    pub fn received_bytes(&self) -> Option<u64> {
        self.running.load(Ordering::Acquire).then(|| self.received.load(Ordering::Relaxed))
    }

    /// How many seedings were begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<wire::InstallSnapshotResponse, Status>> + Send>>;

#[allow(clippy::result_large_err)]
pub(crate) fn start(
    service: &RaftService,
    from: RaftId,
    vote: RaftVote,
    message: &wire::InstallSnapshotRequest,
) -> Result<Answers, Status> {
    let at_least = message.at_least.ok_or_else(|| Status::invalid_argument("seed to which log id?"))?;
    let at_least = convert::plain_log_id_from_wire(at_least);
    if message.sources.is_empty() {
        return Err(Status::invalid_argument("seed from which node?"));
    }
    let running =
        Running::begin(&service.seeding).ok_or_else(|| Status::unavailable("this node is being seeded already"))?;
    let (sender, receiver) = mpsc::channel(4);
    let job = Job {
        service: service.clone(),
        from,
        vote,
        at_least,
        sources: message.sources.clone(),
        running: Arc::new(running),
    };
    let task = AbortOnDrop(tokio::spawn(async move {
        let result = job.run(&sender).await;
        drop(sender.send(result).await);
    }));
    let answers = ReceiverStream::new(receiver).map(move |answer| {
        // The task ends with the stream.
        let _ = &task;
        answer
    });
    Ok(answers.boxed())
}

struct Job {
    service: RaftService,
    from: RaftId,
    vote: RaftVote,
    at_least: LogId,
    sources: Vec<String>,
    running: Arc<Running>,
}

type Report = mpsc::Sender<Result<wire::InstallSnapshotResponse, Status>>;

impl Job {
    async fn run(&self, report: &Report) -> Result<wire::InstallSnapshotResponse, Status> {
        let own = self.service.core.metrics().vote;
        let applied = self.service.engine.applied().log_id;
        // A later leader is known, or all of it is here: nothing to seed.
        if own > self.vote || applied.is_some_and(|applied| applied.index >= self.at_least.index) {
            let vote = if own > self.vote { own } else { self.vote };
            return Ok(answer(&vote, applied, 0));
        }
        tracing::info!(from = %self.from, at_least = %self.at_least, sources = ?self.sources, "this node seeds itself");
        let seeded = self.seed(report).await?;
        let (bytes, last) = (seeded.bytes, seeded.meta.last_log_id);
        let snapshot: SnapshotOf<TypeConfig, Ticket> =
            openraft::Snapshot { meta: seeded.meta.clone(), snapshot: Ticket::Seeded(Box::new(seeded)) };
        let installed = self.service.core.raft.install_full_snapshot(self.vote, snapshot).await;
        let response = installed.map_err(|error| Status::unavailable(format!("the consensus stopped: {error}")))?;
        tracing::info!(bytes, ?last, "seeded");
        Ok(answer(&response.vote, self.service.engine.applied().log_id, bytes))
    }

    async fn seed(&self, report: &Report) -> Result<seeding::Seeded, Status> {
        let mut last = Status::unavailable("no source");
        for source in &self.sources {
            match self.seed_from(source, report).await {
                Ok(seeded) => return Ok(seeded),
                Err(error) => {
                    tracing::warn!(source, %error, "seeding failed");
                    last = Status::unavailable(format!("seeding from {source}: {error}"));
                }
            }
        }
        Err(last)
    }

    async fn seed_from(&self, source: &str, report: &Report) -> Result<seeding::Seeded, SeedingError> {
        let service = &self.service;
        let config = &service.core.config;
        let mut client = peers::client_at(source, config.connect_limit).map_err(SeedingError::Unusable)?;
        let request = wire::SeedRequest {
            envelope: Some(convert::envelope(service.cluster, service.this, self.from)),
            chunk_bytes: 0,
        };
        let opened = tokio::time::timeout(config.seed_stall_limit, client.seed(request)).await;
        let stream = opened.map_err(|_| SeedingError::Stalled(config.seed_stall_limit))??.into_inner();
        let seeding = &service.seeding;
        let reported = Mutex::new((0, Instant::now()));
        let progress = |bytes: u64| {
            seeding.received.store(bytes, Ordering::Relaxed);
            let mut reported = reported.lock();
            let (last_bytes, last) = *reported;
            if bytes >= last_bytes + REPORT_BYTES || last.elapsed() >= config.seed_stall_limit / REPORTS {
                *reported = (bytes, Instant::now());
                // A leader that reads slowly loses reports, not the seeding.
                drop(report.try_send(Ok(wire::InstallSnapshotResponse {
                    vote: None,
                    installed: None,
                    bytes_done: bytes,
                })));
            }
        };
        let running = Arc::clone(&self.running);
        seeding::receive(&service.engine, stream, self.at_least, config.seed_stall_limit, progress, running).await
    }
}

fn answer(vote: &RaftVote, installed: Option<LogId>, bytes_done: u64) -> wire::InstallSnapshotResponse {
    wire::InstallSnapshotResponse {
        vote: Some(convert::vote_to_wire(vote)),
        installed: installed.map(convert::plain_log_id_to_wire),
        bytes_done,
    }
}
