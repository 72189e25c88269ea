//! A leader's instruction to seed this node, carried out.
//!
//! One at a time, and as long as the leader listens and leads, as far as this node knows. What was received is not lost
//! with a leader that has gone, nor with a source: it is kept, and whoever instructs this node next has it go on
//! ([`crate::seeding`]). While a generation is verified, or is with the core, nobody can take it over: a leader that asks meanwhile is told that this node is busy, and
//! backs off, as from any node that is unavailable.
//!
//! Before the core is told, only a generation that is not switched in was touched; after that the core goes on by itself.
//!
//! The sources are asked in their order. One that fails after it has sent something is no reason to pass over those before
//! it, so the next round begins with the first again: that ends, because each round brings something. When nothing more
//! comes, and all said that they cannot go on from what was received, that is dropped, and a seeding begun anew: once in
//! an instruction. Is one of them silent, the next instructions ask it again, and only then.
//!
//! Verifying what was received takes long where there is much of it, so the leader is told as long as it makes progress.
//! One that hangs is given up by the leader, as a stream that hangs is.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use calamus_engine::ids::{LogId, RaftId};
use calamus_engine::seed::{SeedChunk, SeedResume};
use calamus_proto::raft::v1 as wire;
use futures::{Stream, StreamExt};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::service::RaftService;
use super::{convert, peers};
use crate::seeding::archive::SeedArchive;
use crate::seeding::filling::{Filling, Watch};
use crate::seeding::order::{Origin, SeedFrom, origins};
use crate::seeding::seat::Running;
use crate::seeding::{self, SeedingError};
use crate::state_machine::Ticket;
use crate::types::{RaftVote, TypeConfig};

/// Between two messages that say how far the seeding is, in bytes received.
const REPORT_BYTES: u64 = 8 << 20;
/// At least so many of them in each stall limit, as long as there is progress: a leader that hears nothing gives up.
const REPORTS: u32 = 4;
/// After so many instructions in a row in which a source could not go on, and nothing came, those that said nothing count
/// for no more.
const REFUSALS: u64 = 3;
/// Chunks of an archive that wait for the receiver.
const CHUNKS_WAITING: usize = 1;

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
    // A member that was lost may stand there under the address of this one, which replaces it.
    let own = service.engine.identity().advertise;
    let sources = message.sources.iter().filter(|source| source.address != own).cloned().collect();
    let (service, report) = (service.clone(), Report::new(sender));
    let job = Job { service, from, vote, at_least, sources, running, report };
    // It ends soon after the leader has gone, and not in the middle of what must not be cut.
    tokio::spawn(job.carry_out());
    Ok(ReceiverStream::new(receiver).boxed())
}

/// What the leader hears.
struct Report {
    sender: mpsc::Sender<Result<wire::InstallSnapshotResponse, Status>>,
    last: Mutex<(u64, Instant)>,
}

impl Report {
    fn new(sender: mpsc::Sender<Result<wire::InstallSnapshotResponse, Status>>) -> Self {
        Self { sender, last: Mutex::new((0, Instant::now())) }
    }

    /// Says that there is progress. A leader that reads slowly loses reports, not the seeding.
    fn progress(&self, bytes_done: u64) {
        *self.last.lock() = (bytes_done, Instant::now());
        drop(self.sender.try_send(Ok(wire::InstallSnapshotResponse { vote: None, installed: None, bytes_done })));
    }

    /// Says so now and then.
    fn sometimes(&self, bytes_done: u64, limit: std::time::Duration) {
        let (last_bytes, last) = *self.last.lock();
        if bytes_done >= last_bytes + REPORT_BYTES || last.elapsed() >= limit / REPORTS {
            self.progress(bytes_done);
        }
    }
}

struct Job {
    service: RaftService,
    from: RaftId,
    vote: RaftVote,
    at_least: LogId,
    sources: Vec<wire::SeedSource>,
    running: Running,
    report: Report,
}

impl Job {
    async fn carry_out(self) {
        let result = self.run().await;
        // Whoever hears of the end may ask for the next one at once.
        let Self { running, report, .. } = self;
        drop(running);
        // The leader may have gone.
        let _ = report.sender.send(result).await;
    }

    async fn run(&self) -> Result<wire::InstallSnapshotResponse, Status> {
        let outvoted = self.outvoted();
        let applied = self.service.engine.applied().log_id;
        // A later leader is known, or all of it is here: nothing to seed.
        if outvoted.is_some() || applied.is_some_and(|applied| applied.index >= self.at_least.index) {
            return Ok(answer(&outvoted.unwrap_or(self.vote), applied, 0));
        }
        let mut filling = self.filling().await.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!(from = %self.from, at_least = %self.at_least, received = filling.received(), "this node seeds itself");
        let filled = self.fill(&mut filling).await;
        let later = filling.term().is_some_and(|term| term > self.vote.leader_id.term);
        if filled.is_err() || later || self.outvoted().is_some() || self.report.sender.is_closed() {
            self.running.keep(filling, self.service.core.config.seed_keep);
            let why = filled.err().unwrap_or(SeedingError::Unwanted);
            return Err(Status::unavailable(format!("the seeding is not complete: {why}")));
        }
        let seeded = filling.finish().map_err(|error| Status::unavailable(error.to_string()))?;
        self.install(seeded).await
    }

    async fn install(&self, seeded: seeding::Seeded) -> Result<wire::InstallSnapshotResponse, Status> {
        let (bytes, last) = (seeded.bytes, seeded.meta.last_log_id);
        let snapshot: SnapshotOf<TypeConfig, Ticket> =
            openraft::Snapshot { meta: seeded.meta.clone(), snapshot: Ticket::Seeded(Box::new(seeded)) };
        let installed = self.service.core.raft.install_full_snapshot(self.vote, snapshot).await;
        let response = installed.map_err(|error| Status::unavailable(format!("the consensus stopped: {error}")))?;
        let applied = self.service.engine.applied().log_id;
        // A later leader's vote may have come first: then nothing was switched in.
        let wanted = last.map(|last| last.index());
        if response.vote == self.vote && applied.map(|applied| applied.index.0) >= wanted {
            tracing::info!(bytes, ?last, "seeded");
            self.service.seeding.installed();
        }
        Ok(answer(&response.vote, applied, bytes))
    }

    /// What an earlier instruction left, or a new one.
    async fn filling(&self) -> Result<Filling, SeedingError> {
        match self.running.take_kept() {
            Some(kept) => Ok(kept),
            None => Filling::begin(&self.service.engine).await,
        }
    }

    /// Receives and verifies until it reaches as far as the leader wants.
    async fn fill(&self, filling: &mut Filling) -> Result<(), SeedingError> {
        let limit = self.service.core.config.seed_stall_limit;
        let progress = |bytes: u64, total: u64| {
            self.running.received(bytes, total);
            self.report.sometimes(bytes, limit);
        };
        // Before the leader gives this node up: it began to wait earlier.
        let watch = Watch { at_least: self.at_least, stall_limit: limit / 2, progress: &progress };
        let mut anew = false;
        while !filling.reaches(self.at_least) {
            let error = match self.ask_all(filling, &watch, !anew).await {
                Ok(()) => match filling.verify(&watch).await {
                    Ok(()) => continue,
                    Err(error) => {
                        // One of them sent what is not right; which, nobody knows.
                        filling.sources().for_each(|source| self.running.doubt(source));
                        error
                    }
                },
                Err(error) => error,
            };
            let useless = filling.is_gone() || matches!(error, SeedingError::CannotResume(_));
            if !useless || filling.received() == 0 || std::mem::replace(&mut anew, true) {
                return Err(error);
            }
            tracing::warn!(why = %error, "what was received is of no use, and the seeding begins anew");
            *filling = self.anew(std::mem::replace(filling, Filling::gone())).await?;
        }
        Ok(())
    }

    /// Drops what was received, which frees the engine's receiver, and begins another.
    async fn anew(&self, filling: Filling) -> Result<Filling, SeedingError> {
        drop(tokio::task::spawn_blocking(move || drop(filling)).await);
        Filling::begin(&self.service.engine).await
    }

    /// Asks the sources until one has sent all of it. Backups are left out where they were of no use before.
    async fn ask_all(&self, filling: &mut Filling, watch: &Watch<'_>, backups: bool) -> Result<(), SeedingError> {
        let mut wished = self.service.seeding.wished();
        loop {
            let (mut last, mut refused, mut again) = (None, None, false);
            let wish = wished.borrow_and_update().clone();
            let mut origins = origins(&self.sources, self.from, &wish);
            origins.sort_by_key(|origin| origin.raft_id().is_some_and(|source| self.running.is_doubted(source)));
            for origin in origins.iter().filter(|origin| backups || matches!(origin, Origin::Node(_))) {
                let before = filling.received();
                // A try may take as long as connecting does.
                self.report.progress(before);
                let error = match self.ask(filling, origin, watch, self.cut(&mut wished)).await {
                    Ok(true) => return Ok(()),
                    // The backups are through; the rest comes from a node.
                    Ok(false) => continue,
                    Err(error) => error,
                };
                if filling.is_gone() || matches!(error, SeedingError::Unwanted) {
                    return Err(error);
                }
                tracing::warn!(source = origin.name(), %error, "seeding was cut");
                if matches!(error, SeedingError::Stalled(_) | SeedingError::Source(_))
                    && let Some(source) = origin.raft_id()
                {
                    self.running.doubt(source);
                }
                again = filling.received() > before || matches!(error, SeedingError::Rerouted);
                match error {
                    SeedingError::CannotResume(_) => refused = Some(error),
                    error => last = Some(error),
                }
                if again {
                    break;
                }
            }
            if !again {
                let none = || SeedingError::Unusable("no node was named as a source".to_owned());
                let refusals = self.running.refused(refused.is_some());
                let all_refuse = last.is_none() || refusals >= REFUSALS;
                return Err(if all_refuse { refused.or(last) } else { last }.unwrap_or_else(none));
            }
            self.running.refused(false);
        }
    }

    /// Asks one source. Returns whether it has sent all of it.
    async fn ask(
        &self,
        filling: &mut Filling,
        origin: &Origin,
        watch: &Watch<'_>,
        cut: impl Future<Output = SeedingError>,
    ) -> Result<bool, SeedingError> {
        self.running.from(&origin.name());
        let resume = filling.resume().await?;
        match origin {
            Origin::Node(source) => {
                let stream = self.open(source, resume.as_ref()).await?;
                // The leader waits from here on for the first piece, not for the connection.
                self.report.progress(filling.received());
                filling.fed_by(source.raft_id);
                match &resume {
                    Some(_) => self.running.resumes(),
                    None => self.running.begins(),
                }
                if filling.feed(stream, watch, cut).await? {
                    return Ok(true);
                }
                let ended = Status::aborted("the stream ended before it was done");
                Err(SeedingError::Source(Box::new(ended)))
            }
            Origin::Archive(archive) => filling.feed(pieces_of(Arc::clone(archive), resume), watch, cut).await,
        }
    }

    /// Returns when the leader has gone, when this node ends, or when it is to be seeded from elsewhere.
    async fn cut(&self, wished: &mut watch::Receiver<SeedFrom>) -> SeedingError {
        tokio::select! {
            () = self.report.sender.closed() => SeedingError::Unwanted,
            () = self.service.core.stopped() => SeedingError::Unwanted,
            () = self.until_outvoted() => SeedingError::Unwanted,
            // The sender lives as long as `self`.
            _ = wished.changed() => SeedingError::Rerouted,
        }
    }

    /// The vote of this node, if it is above that of the leader.
    fn outvoted(&self) -> Option<RaftVote> {
        Some(self.service.core.metrics().vote).filter(|own| *own > self.vote)
    }

    async fn until_outvoted(&self) {
        let core = &self.service.core;
        let mut seen = core.watch();
        while self.outvoted().is_none() && core.changed(&mut seen).await {}
    }

    async fn open(
        &self,
        source: &wire::SeedSource,
        resume: Option<&SeedResume>,
    ) -> Result<impl Stream<Item = Result<SeedChunk, SeedingError>> + use<>, SeedingError> {
        let service = &self.service;
        let config = &service.core.config;
        let address = config.reach.address(&source.name, &source.address);
        let mut client = peers::client_at(address, config.connect_limit).map_err(SeedingError::Unusable)?;
        let request = wire::SeedRequest {
            envelope: Some(convert::envelope(service.cluster, service.this, RaftId(source.raft_id))),
            chunk_bytes: 0,
            resume: resume.map(|resume| seeding::resume_to_wire(&service.engine, resume)),
            at_least: Some(convert::plain_log_id_to_wire(self.at_least)),
        };
        let opened = tokio::time::timeout(config.seed_stall_limit / 2, client.seed(request)).await;
        let stream = opened.map_err(|_| SeedingError::Stalled(config.seed_stall_limit / 2))??.into_inner();
        Ok(stream.map(|chunk| seeding::from_wire(chunk?)))
    }
}

/// The pieces of an archive as a stream: a thread for blocking work reads them, and ends with the stream.
fn pieces_of(
    archive: Arc<SeedArchive>,
    received: Option<SeedResume>,
) -> impl Stream<Item = Result<SeedChunk, SeedingError>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut on_piece = |piece| match sender.blocking_send(Ok(piece)) {
            Ok(()) => ControlFlow::Continue(()),
            // Nobody wants it any more.
            Err(_) => ControlFlow::Break(()),
        };
        if let Err(why) = archive.seed(received.as_ref(), &mut on_piece) {
            let _ = sender.blocking_send(Err(SeedingError::Archive(why.to_string())));
        }
    });
    ReceiverStream::new(receiver)
}

fn answer(vote: &RaftVote, installed: Option<LogId>, bytes_done: u64) -> wire::InstallSnapshotResponse {
    wire::InstallSnapshotResponse {
        vote: Some(convert::vote_to_wire(vote)),
        installed: installed.map(convert::plain_log_id_to_wire),
        bytes_done,
    }
}
