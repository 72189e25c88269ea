//! This node as the server of its peers.
//!
//! Nothing reaches the core before it is checked: cluster, sender and addressee of every message; that a leader's
//! messages carry its own vote; that a vote is not out of all measure, as it is kept for good; and every frame (see [`super::frames`]). What is refused names both sides and changes
//! nothing. What is received and not answered is bounded in bytes: a stream is read no further than that.
//!
//! Records that the disk may have no room for go no further either: openraft could do nothing with an error of the journal
//! but end. Of the first request that has no room only so many frames are taken as have; behind them the stream ends with
//! `RESOURCE_EXHAUSTED`. The leader leaves this node alone for a moment, and sends the others again. Entries of the consensus itself are taken: there is always room for them, and a new
//! leader needs its first one to be anywhere.

use std::pin::Pin;
use std::sync::Arc;

use calamus_engine::Engine;
use calamus_engine::ids::{ClusterId, PageNumber, RaftId};
use calamus_engine::journal::frame::FrameKind;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::append_response;
use calamus_proto::v1::TxnResponse;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::budget::{AbortOnDrop, Budget};
use super::commit_notes::CommitNotes;
use super::frames::ChainCheck;
use super::{convert, install};
use crate::core::Core;
use crate::membership::removal;
use crate::repair;
use crate::seam::ReadIndexError;
use crate::seeding;
use crate::space::number_of;
use crate::types::{Entry, RaftVote, TypeConfig};

type C = TypeConfig;

/// How far a term may be above this node's own.
const MAX_TERMS_AHEAD: u64 = 1 << 32;

/// Runs a transaction that another node forwarded: the merger's.
pub type Forwarder = Arc<dyn Fn(wire::ForwardRequest) -> BoxFuture<'static, Result<TxnResponse, Status>> + Send + Sync>;

/// The `raft.v1.Raft` service of a node.
#[derive(Clone)]
pub struct RaftService {
    pub(crate) engine: Engine,
    pub(crate) core: Core,
    pub(crate) cluster: ClusterId,
    pub(crate) this: RaftId,
    pub(crate) forwarder: Forwarder,
    pub(crate) seeding: Arc<seeding::seat::Seeding>,
    pub(crate) seed_pace: Arc<seeding::pace::Pace>,
    pub(crate) lost: crate::failover::Lost,
    pub(crate) notes: CommitNotes,
}

fn fatal(error: &Fatal<C>) -> Status {
    Status::unavailable(format!("the consensus of this node has stopped: {error}"))
}

fn raft_error(error: &RaftError<C>) -> Status {
    Status::unavailable(format!("the consensus of this node has stopped: {error}"))
}

#[allow(clippy::result_large_err)] // a Status is what gRPC answers with
impl RaftService {
    /// The sender of a message, if it is for us.
    fn check(&self, envelope: Option<&wire::Envelope>) -> Result<RaftId, Status> {
        convert::check_envelope(envelope, self.cluster, self.this)
    }

    /// A vote that this node may take over, which it would keep for good: terms are counted one by one, so none is far
    /// above this node's own. Taking over the last term there is would end all elections.
    fn near_vote(&self, vote: Option<wire::Vote>) -> Result<RaftVote, Status> {
        let vote = convert::vote_from_wire(vote)?;
        let own = self.core.term();
        if vote.leader_id.term > own.0.saturating_add(MAX_TERMS_AHEAD) {
            return Err(Status::invalid_argument(format!("the vote {vote} is too far above term {own} to be one")));
        }
        Ok(vote)
    }

    /// The vote of a leader, which must be the sender's own.
    pub(crate) fn leader_vote(&self, from: RaftId, vote: Option<wire::Vote>) -> Result<RaftVote, Status> {
        let vote = self.near_vote(vote)?;
        if !vote.committed || vote.leader_id.voted_for != from.0 {
            return Err(Status::failed_precondition(format!(
                "raft id {:016x} speaks with the vote {vote}, which does not make it a leader",
                from.0
            )));
        }
        Ok(vote)
    }

    fn append_request(
        &self,
        message: wire::AppendRequest,
        chain: &mut ChainCheck,
    ) -> Result<AppendEntriesRequest<C>, Status> {
        let from = self.check(message.envelope.as_ref())?;
        let vote = self.leader_vote(from, message.vote)?;
        self.lost.heard();
        let previous = message.previous.map(convert::plain_log_id_from_wire);
        let frames = chain.take(previous, message.previous_chain, message.frames)?;
        let newest = frames.last().map(|frame| frame.log_id().term.0);
        let newest = newest.max(previous.map(|log_id| log_id.term.0)).max(message.committed.map(|log_id| log_id.term));
        if newest.is_some_and(|term| term > vote.leader_id.term) {
            return Err(Status::data_loss(format!("the leader of vote {vote} sends an entry of a later term")));
        }
        let entries = frames.into_iter().map(|frame| {
            let log_id = frame.log_id();
            Entry::from_frame(frame).map_err(|error| Status::data_loss(format!("frame {log_id}: {error}")))
        });
        Ok(AppendEntriesRequest {
            vote,
            prev_log_id: previous.map(convert::to_raft_log_id),
            entries: entries.collect::<Result<_, _>>()?,
            leader_commit: message.committed.map(convert::log_id_from_wire),
        })
    }

    fn append_response(&self, result: append_response::Result) -> wire::AppendResponse {
        let space = self.core.peers.spaces.own();
        wire::AppendResponse {
            result: Some(result),
            free_disk_bytes: space.free_bytes.unwrap_or(0),
            space_level: number_of(space.level),
        }
    }

    fn stream_response(&self, result: StreamAppendResult<C>) -> wire::AppendResponse {
        self.append_response(match result {
            Ok(matching) => append_response::Result::Matching(wire::Matching {
                log_id: matching.as_ref().map(convert::log_id_to_wire),
            }),
            Err(StreamAppendError::Conflict(log_id)) => {
                append_response::Result::Conflict(convert::log_id_to_wire(&log_id))
            }
            Err(StreamAppendError::HigherVote(vote)) => {
                append_response::Result::HigherVote(convert::vote_to_wire(&vote))
            }
        })
    }

    fn vote_request(&self, message: &wire::VoteRequest) -> Result<VoteRequest<C>, Status> {
        let from = self.check(message.envelope.as_ref())?;
        let vote = self.near_vote(message.vote)?;
        if vote.leader_id.voted_for != from.0 {
            return Err(Status::failed_precondition(format!(
                "raft id {:016x} asks for votes for raft id {:016x}",
                from.0, vote.leader_id.voted_for
            )));
        }
        removal::check_member(&self.core, from)?;
        // It passes over the lease of a leader, and only a voter can be who that leader hands over to.
        if message.leader_transfer && !self.core.membership().voter_ids().any(|voter| voter == from.0) {
            return Err(Status::failed_precondition(format!(
                "raft id {:016x} is no voter here: nobody hands leadership over to it",
                from.0
            )));
        }
        Ok(VoteRequest {
            vote,
            last_log_id: message.last_log.map(convert::log_id_from_wire),
            leadership_transfer: message.leader_transfer,
        })
    }

    /// Leaves of a request what the disk has room for, beside what was taken and is not answered; and says why, if that is
    /// not all of it.
    fn fit(&self, request: &mut AppendEntriesRequest<C>, under_way: usize) -> Option<Status> {
        let record_bytes = |entry: &Entry| match &entry.frame {
            Some(frame) if frame.kind() == FrameKind::Record => frame.frame_bytes() as u64,
            _ => 0,
        };
        let all: u64 = request.entries.iter().map(record_bytes).sum();
        if all == 0 || self.engine.has_room_for(all + under_way as u64) {
            return None;
        }
        let mut bytes = under_way as u64;
        let fits = request.entries.iter().take_while(|entry| {
            bytes += record_bytes(entry);
            record_bytes(entry) == 0 || self.engine.has_room_for(bytes)
        });
        let fits = fits.count();
        request.entries.truncate(fits);
        let last = request.entries.last().map_or(request.prev_log_id, |entry| Some(entry.log_id));
        request.leader_commit = request.leader_commit.min(last);
        let space = self.engine.space();
        Some(Status::resource_exhausted(format!(
            "the disk of this node has no room for {all} bytes of log: {} bytes are free, {} in the reserve, and {} may be \
             needed for what was taken before",
            space.free_bytes.unwrap_or(0),
            space.reserve_bytes,
            space.needed_bytes
        )))
    }

    /// Reads a stream of requests, checks each and hands it on; the first that is wrong ends it.
    async fn read_requests(
        self,
        mut inbound: Streaming<wire::AppendRequest>,
        checked: mpsc::Sender<AppendEntriesRequest<C>>,
        budget: Arc<Budget>,
    ) -> Result<(), Status> {
        let mut chain = ChainCheck::new(self.engine.clone());
        while let Some(message) = inbound.message().await? {
            let bytes = message.frames.iter().map(|frame| frame.header.len() + frame.payload.len()).sum();
            let mut request = self.append_request(message, &mut chain)?;
            let refusal = self.fit(&mut request, budget.under_way());
            if let Some(refusal) = refusal.as_ref().filter(|_| request.entries.is_empty()) {
                return Err(refusal.clone());
            }
            budget.take(bytes).await;
            if checked.send(request).await.is_err() {
                return Ok(());
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
        }
        Ok(())
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl wire::raft_server::Raft for RaftService {
    type AppendStream = Answers<wire::AppendResponse>;
    type InstallSnapshotStream = Answers<wire::InstallSnapshotResponse>;
    type SeedStream = ReceiverStream<Result<wire::SeedChunk, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (checked, requests) = mpsc::channel(1);
        let budget = Arc::new(Budget::new(self.core.config.unacknowledged_bytes));
        let refusal = Arc::new(Mutex::new(None));
        let reading = {
            let (service, budget, refusal) = (self.clone(), Arc::clone(&budget), Arc::clone(&refusal));
            let connected = self.lost.connected();
            AbortOnDrop(tokio::spawn(async move {
                let _connected = connected;
                let result = service.read_requests(request.into_inner(), checked, budget).await;
                *refusal.lock() = result.err();
            }))
        };
        let results = Box::pin(self.core.raft.stream_append(ReceiverStream::new(requests)));
        let state = (self.clone(), results, budget, refusal, reading);
        let answers = futures::stream::unfold(state, |(service, mut results, budget, refusal, reading)| async move {
            let answer = match results.next().await {
                Some(Ok(result)) => {
                    budget.answered();
                    Ok(service.stream_response(result))
                }
                Some(Err(error)) => Err(fatal(&error)),
                // All that was right is answered; now say what was not.
                None => Err(refusal.lock().take()?),
            };
            Some((answer, (service, results, budget, refusal, reading)))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::AppendResponse>, Status> {
        let message = request.into_inner();
        let request = self.append_request(message, &mut ChainCheck::new(self.engine.clone()))?;
        let is_blank = |entry: &Entry| entry.frame.as_ref().is_some_and(|frame| frame.kind() == FrameKind::Blank);
        // Whatever is large, or needs room on the disk, comes on the stream of appends.
        if request.entries.len() > 1 || !request.entries.iter().all(is_blank) {
            return Err(Status::invalid_argument(
                "a heartbeat carries a blank entry, as a leader's first one is, or none",
            ));
        }
        let (previous, committed) = (request.prev_log_id, request.leader_commit);
        let last = request.entries.last().map_or(previous, |entry| Some(entry.log_id));
        let now = tokio::time::Instant::now();
        let response = self.core.raft.append_entries(request).await.map_err(|error| raft_error(&error))?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            let applied = *self.core.applied.borrow();
            self.core.freshness.heard(committed.as_ref().map(convert::to_log_id), applied, now);
        }
        let result = match response {
            AppendEntriesResponse::Success => Ok(last),
            AppendEntriesResponse::PartialSuccess(matching) => Ok(matching),
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            AppendEntriesResponse::Conflict => {
                let previous = previous.ok_or_else(|| Status::internal("a conflict before the first entry"))?;
                Err(StreamAppendError::Conflict(previous))
            }
        };
        Ok(Response::new(self.stream_response(result)))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = self.vote_request(request.get_ref())?;
        let response = self.core.raft.vote(request).await.map_err(|error| raft_error(&error))?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(convert::vote_to_wire(&response.vote)),
            granted: response.vote_granted,
            last_log: response.last_log_id.as_ref().map(convert::log_id_to_wire),
        }))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = self.vote_request(request.get_ref())?;
        let response = self.core.raft.pre_vote(request).await.map_err(|error| raft_error(&error))?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(convert::vote_to_wire(&response.vote)),
            granted: response.vote_granted,
            last_log: response.last_log_id.as_ref().map(convert::log_id_to_wire),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        let from = self.check(message.envelope.as_ref())?;
        let vote = self.leader_vote(from, message.from_leader)?;
        let last_log = message.last_log.map(convert::log_id_from_wire);
        let request = TransferLeaderRequest::new(vote, message.to_node, last_log);
        let response = self.core.raft.handle_transfer_leader(request).await.map_err(|error| fatal(&error))?;
        Ok(Response::new(match response {
            Ok(()) => wire::TransferLeaderResponse { accepted: true, vote: None, last_log: None },
            Err(TransferLeaderError::VoteChanged { actual, .. }) => wire::TransferLeaderResponse {
                accepted: false,
                vote: Some(convert::vote_to_wire(&actual)),
                last_log: None,
            },
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => wire::TransferLeaderResponse {
                accepted: false,
                vote: None,
                last_log: actual.as_ref().map(convert::log_id_to_wire),
            },
        }))
    }

    async fn leader_lost(
        &self,
        request: Request<wire::LeaderLostRequest>,
    ) -> Result<Response<wire::LeaderLostResponse>, Status> {
        let message = request.into_inner();
        self.check(message.envelope.as_ref())?;
        let vote = convert::vote_from_wire(message.vote)?;
        let lost = self.lost.also_lost(&self.core, &vote).await;
        Ok(Response::new(wire::LeaderLostResponse { lost }))
    }

    async fn introduce(
        &self,
        request: Request<wire::IntroduceRequest>,
    ) -> Result<Response<wire::IntroduceResponse>, Status> {
        let message = request.into_inner();
        let from = self.check(message.envelope.as_ref())?;
        let vote = message.vote.map(|vote| convert::vote_from_wire(Some(vote))).transpose()?;
        let vote = vote.as_ref().map(convert::to_vote);
        let last = message.last_log.map(convert::plain_log_id_from_wire);
        // A candidate's vote is durable before it asks for others.
        let stood = self.engine.vote().filter(|own| own.node == Some(from)).map(|own| own.term);
        let forgot = stood.filter(|term| vote.is_none_or(|vote| vote.term < *term)).map(|term| {
            format!("it stood for election in term {term}, and its directory has a vote of an earlier term")
        });
        let contradiction = forgot.or_else(|| self.core.peers.heard.contradiction(self.this, from, vote, last));
        if let Some(why) = &contradiction {
            tracing::error!(peer = %from, why, "a node starts on a directory that was put back to an earlier state");
        }
        Ok(Response::new(wire::IntroduceResponse { contradiction: contradiction.unwrap_or_default() }))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        let from = self.check(request.get_ref().envelope.as_ref())?;
        removal::check_member(&self.core, from)?;
        let read = self.core.lead_read_index(None).await.map_err(|error| match error {
            ReadIndexError::NotLeading { .. } => Status::failed_precondition("this node does not lead"),
            other => Status::unavailable(other.to_string()),
        })?;
        self.notes.wanted(from);
        Ok(Response::new(wire::ReadIndexResponse { read_log_id: Some(convert::plain_log_id_to_wire(read)) }))
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<TxnResponse>, Status> {
        let message = request.into_inner();
        self.check(message.envelope.as_ref())?;
        (self.forwarder)(message).await.map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<wire::InstallSnapshotRequest>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let message = request.into_inner();
        let from = self.check(message.envelope.as_ref())?;
        let vote = self.leader_vote(from, message.vote)?;
        Ok(Response::new(install::start(self, from, vote, &message)?))
    }

    async fn seed(&self, request: Request<wire::SeedRequest>) -> Result<Response<Self::SeedStream>, Status> {
        let message = request.into_inner();
        self.check(message.envelope.as_ref())?;
        let pace = Arc::clone(&self.seed_pace);
        Ok(Response::new(seeding::source::stream(self.engine.clone(), &self.core, pace, message).await?))
    }

    async fn fetch_page(
        &self,
        request: Request<wire::FetchPageRequest>,
    ) -> Result<Response<wire::FetchPageResponse>, Status> {
        let message = request.into_inner();
        let from = self.check(message.envelope.as_ref())?;
        removal::check_member(&self.core, from)?;
        let copies = repair::copies_of_page(self.engine.clone(), PageNumber(message.page)).await?;
        Ok(Response::new(wire::FetchPageResponse { copies }))
    }

    async fn fetch_frame(
        &self,
        request: Request<wire::FetchFrameRequest>,
    ) -> Result<Response<wire::FetchFrameResponse>, Status> {
        let message = request.into_inner();
        let from = self.check(message.envelope.as_ref())?;
        removal::check_member(&self.core, from)?;
        let log_id = message.log_id.ok_or_else(|| Status::invalid_argument("which frame?"))?;
        let frame = repair::frame(self.engine.clone(), convert::plain_log_id_from_wire(log_id)).await?;
        Ok(Response::new(wire::FetchFrameResponse { frame }))
    }
}
