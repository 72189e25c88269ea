//! A peer at the level of messages: it grants every vote and answers as a test lets it. It keeps no log, only a number of
//! entries that it says it has.

use std::pin::Pin;
use std::sync::Arc;

use calamus_engine::ids::LogId;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::append_response;
use calamus_proto::raft::v1::raft_server::{Raft, RaftServer};
use calamus_proto::v1::TxnResponse;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::network::convert;

const PLENTY: usize = 1 << 40;

/// An append as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Where it ends.
    pub(super) last: Option<LogId>,
    pub(super) frames: usize,
}

#[derive(Clone)]
pub(super) struct ScriptedPeer {
    pub(super) address: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    /// How many of the appends that arrived may be answered, from the first on.
    answered: watch::Sender<usize>,
    /// Where its log ends, as it says with its vote.
    voted_end: Arc<Mutex<Option<LogId>>>,
    /// How many entries it has; what follows them becomes more.
    entries: Arc<Mutex<u64>>,
    /// Answers to heartbeats that may be given; one is taken by each.
    heartbeats: Arc<Semaphore>,
}

impl ScriptedPeer {
    /// Answers everything until it is told otherwise. Lives as long as the runtime that calls.
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let peer = Self {
            address: listener.local_addr().expect("bound").to_string(),
            arrived: Arc::default(),
            answered: watch::Sender::new(PLENTY),
            voted_end: Arc::default(),
            entries: Arc::new(Mutex::new(u64::MAX)),
            heartbeats: Arc::new(Semaphore::new(PLENTY)),
        };
        let server = tonic::transport::Server::builder().add_service(RaftServer::new(peer.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        peer
    }

    /// Nothing that arrives from here on is answered but votes.
    pub(super) fn hold(&self) {
        let arrived = self.arrived.lock();
        self.answered.send_replace(arrived.len());
        self.heartbeats.forget_permits(PLENTY);
    }

    /// Lets the answers go to all appends up to and with this one, which has arrived.
    pub(super) fn let_appends_to(&self, append: Arrived) {
        let place = self.arrived.lock().iter().position(|arrived| *arrived == append);
        self.answered.send_replace(place.expect("it has arrived") + 1);
    }

    /// Lets all heartbeats be answered again.
    pub(super) fn let_heartbeats(&self) {
        self.heartbeats.add_permits(PLENTY);
    }

    /// From here on it says with its votes that its log ends there, and has so many entries. At first it has all there are.
    pub(super) fn set_log(&self, voted_end: Option<LogId>, entries: u64) {
        *self.voted_end.lock() = voted_end;
        *self.entries.lock() = entries;
    }

    pub(super) fn entries(&self) -> u64 {
        *self.entries.lock()
    }

    /// The appends that have arrived, in order.
    pub(super) fn appends(&self) -> Vec<Arrived> {
        self.arrived.lock().clone()
    }

    pub(super) fn arrived(&self, wanted: Arrived) -> bool {
        self.arrived.lock().contains(&wanted)
    }
}

/// What a peer that has so many entries answers.
fn answer(request: &wire::AppendRequest, entries: &Mutex<u64>) -> wire::AppendResponse {
    let (mut entries, count) = (entries.lock(), |log_id: LogId| log_id.index.0 + 1);
    let last = last_of(request);
    let result = match request.previous {
        Some(previous) if *entries < count(convert::plain_log_id_from_wire(previous)) => {
            append_response::Result::Conflict(previous)
        }
        _ => {
            *entries = (*entries).max(last.map_or(0, count));
            append_response::Result::Matching(wire::Matching { log_id: last.map(convert::plain_log_id_to_wire) })
        }
    };
    wire::AppendResponse { result: Some(result), free_disk_bytes: 0, space_level: 0 }
}

fn last_of(request: &wire::AppendRequest) -> Option<LogId> {
    let frame = request.frames.last().cloned().map(|raw| convert::frame_from_wire(raw).expect("a frame"));
    frame.map(|frame| frame.log_id()).or_else(|| request.previous.map(convert::plain_log_id_from_wire))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Raft for ScriptedPeer {
    type AppendStream = Answers<wire::AppendResponse>;
    type InstallSnapshotStream = Answers<wire::InstallSnapshotResponse>;
    type SeedStream = ReceiverStream<Result<wire::SeedChunk, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (sender, answers) = mpsc::channel(1000);
        let (arrived, entries, mut inbound) =
            (Arc::clone(&self.arrived), Arc::clone(&self.entries), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = inbound.message().await {
                let last = last_of(&request);
                let number = {
                    let mut arrived = arrived.lock();
                    arrived.push(Arrived { last, frames: request.frames.len() });
                    arrived.len()
                };
                if sender.send((number, answer(&request, &entries))).await.is_err() {
                    return;
                }
            }
        });
        let answered = self.answered.subscribe();
        let answers = ReceiverStream::new(answers).then(move |(number, answer)| {
            let mut answered = answered.clone();
            async move {
                answered.wait_for(|answered| *answered >= number).await.expect("it lives as long as the runtime");
                Ok(answer)
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::AppendResponse>, Status> {
        self.heartbeats.acquire().await.expect("never closed").forget();
        let request = request.get_ref();
        if !request.frames.is_empty() {
            self.arrived.lock().push(Arrived { last: last_of(request), frames: request.frames.len() });
        }
        Ok(Response::new(answer(request, &self.entries)))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let last_log = self.voted_end.lock().map(convert::plain_log_id_to_wire);
        Ok(Response::new(wire::VoteResponse { vote: request.get_ref().vote, granted: true, last_log }))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        self.vote(request).await
    }

    async fn transfer_leader(
        &self,
        _: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        Err(Status::unavailable("a scripted peer never leads"))
    }

    async fn leader_lost(
        &self,
        _: Request<wire::LeaderLostRequest>,
    ) -> Result<Response<wire::LeaderLostResponse>, Status> {
        Ok(Response::new(wire::LeaderLostResponse { lost: false }))
    }

    async fn introduce(&self, _: Request<wire::IntroduceRequest>) -> Result<Response<wire::IntroduceResponse>, Status> {
        Ok(Response::new(wire::IntroduceResponse::default()))
    }

    async fn read_index(
        &self,
        _: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        Err(Status::failed_precondition("a scripted peer never leads"))
    }

    async fn forward(&self, _: Request<wire::ForwardRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::failed_precondition("a scripted peer never leads"))
    }

    async fn install_snapshot(
        &self,
        _: Request<wire::InstallSnapshotRequest>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        Err(Status::unavailable("a scripted peer has no pages"))
    }

    async fn seed(&self, _: Request<wire::SeedRequest>) -> Result<Response<Self::SeedStream>, Status> {
        Err(Status::unavailable("a scripted peer has no pages"))
    }

    async fn fetch_page(
        &self,
        _: Request<wire::FetchPageRequest>,
    ) -> Result<Response<wire::FetchPageResponse>, Status> {
        Err(Status::unavailable("a scripted peer has no pages"))
    }

    async fn fetch_frame(
        &self,
        _: Request<wire::FetchFrameRequest>,
    ) -> Result<Response<wire::FetchFrameResponse>, Status> {
        Err(Status::unavailable("a scripted peer has no frames"))
    }
}
