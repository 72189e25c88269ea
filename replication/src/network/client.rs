//! This node as the client of its peers, as openraft uses it.
//!
//! | file | role |
//! | --- | --- |
//! | `appends` | the stream of appends, and its answers |
//! | `search` | where a peer's log stops being this leader's |
//! | `shared` | what all clients share, and what they note of answers |

mod appends;
mod search;
mod shared;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::{RaftId, Term};
use calamus_proto::raft::v1 as wire;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use tonic::{Code, Status};

use appends::{append_from_wire, append_to_wire};
use search::Search;
use shared::Shared;

use super::commit_notes::CommitNotes;
use super::convert;
use super::peers::{Lane, PeerError, Peers};
use crate::options::NodeConfig;
use crate::state_machine::Ticket;
use crate::trimming::{SeedHold, SeedHolds};
use crate::types::{NodeInfo, RaftLogId, RaftVote, TypeConfig};

type C = TypeConfig;
type Answer = Result<StreamAppendResult<C>, RPCError<C>>;

/// Makes the clients.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

impl Network {
    /// On these connections.
    #[must_use]
    pub fn new(engine: Engine, peers: Arc<Peers>, config: NodeConfig, holds: SeedHolds, notes: CommitNotes) -> Self {
        Self { shared: Arc::new(Shared { engine, peers, config, holds, notes }) }
    }

    fn peer(&self, target: u64, node: &NodeInfo, lane: Lane) -> Peer {
        self.shared.peers.note_address(RaftId(target), node);
        Peer { target: RaftId(target), lane, shared: Arc::clone(&self.shared), failed_opens: 0, search: Search::Begins }
    }
}

impl RaftNetworkFactory<C> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &NodeInfo) -> Peer {
        self.peer(target, node, Lane::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeInfo) -> Peer {
        self.peer(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeInfo) -> Peer {
        self.peer(target, node, Lane::Data)
    }
}

/// One peer.
pub struct Peer {
    target: RaftId,
    /// The lane of append requests; everything else has a fixed one.
    lane: Lane,
    shared: Arc<Shared>,
    /// How often in a row no stream of appends could be opened.
    failed_opens: u32,
    /// What is known of the peer's log, so that it need not be searched.
    search: Search,
}

/// The pause before a stream is opened again: this much, doubled by each failure, up to the most. openraft's own backoff
/// holds back requests, and a stream that cannot be opened never asks for one: it was tried thousands of times a second.
const REOPEN_PAUSE: Duration = Duration::from_millis(10);
const REOPEN_PAUSE_MOST: Duration = Duration::from_millis(160);

fn reopen_pause(failed_opens: u32) -> Duration {
    match failed_opens {
        0 => Duration::ZERO,
        failed => REOPEN_PAUSE_MOST.min(REOPEN_PAUSE * 2u32.pow((failed - 1).min(10))),
    }
}

fn unreachable(error: &PeerError) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// A peer that refuses us, or cannot be reached, is left alone for a while; anything else is tried again at once.
fn rpc_error(status: &Status) -> RPCError<C> {
    match status.code() {
        Code::Cancelled | Code::Unknown | Code::Aborted | Code::DeadlineExceeded => {
            RPCError::Network(NetworkError::from_string(status))
        }
        Code::FailedPrecondition | Code::DataLoss | Code::InvalidArgument => {
            tracing::warn!(%status, "a peer refuses this node");
            RPCError::Unreachable(Unreachable::from_string(status))
        }
        _ => RPCError::Unreachable(Unreachable::from_string(status)),
    }
}

impl Peer {
    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<C> {
        RPCError::Timeout(Timeout { action, id: self.shared.peers.this().0, target: self.target.0, timeout })
    }

    async fn limited<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<C>> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.shared.peers.note_refusal(&status);
                Err(rpc_error(&status))
            }
            Err(_) => Err(self.timeout(action, limit)),
        }
    }

    /// Refuses to send what a leader sends while this node keeps silent.
    fn check_silence(&self) -> Result<(), RPCError<C>> {
        if !self.shared.peers.silence.is_kept() {
            return Ok(());
        }
        Err(RPCError::Unreachable(Unreachable::from_string("no quorum answers this leader: it keeps silent")))
    }

    fn append_request(&self, request: &AppendEntriesRequest<C>) -> wire::AppendRequest {
        append_to_wire(&self.shared, self.target, request)
    }

    async fn ask_for_vote(
        &self,
        rpc: VoteRequest<C>,
        pre: bool,
        limit: Duration,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let mut client = self.shared.peers.client(self.target, Lane::Control).map_err(|e| unreachable(&e))?;
        let request = wire::VoteRequest {
            envelope: self.shared.peers.envelope(self.target),
            vote: Some(convert::vote_to_wire(&rpc.vote)),
            last_log: rpc.last_log_id.as_ref().map(convert::log_id_to_wire),
            leader_transfer: rpc.leadership_transfer,
        };
        let response = if pre {
            self.limited(RPCTypes::Vote, limit, client.pre_vote(request)).await?
        } else {
            self.limited(RPCTypes::Vote, limit, client.vote(request)).await?
        };
        let vote = convert::vote_from_wire(response.vote).map_err(|status| rpc_error(&status))?;
        let theirs = response.last_log.map(convert::log_id_from_wire);
        if response.granted && !pre {
            let term = Term(rpc.vote.leader_id.term);
            let of = |log_id: &Option<RaftLogId>| log_id.as_ref().map(convert::to_log_id);
            self.shared.peers.heard.voted(self.target, term);
            self.shared.peers.ends.voted(term, of(&rpc.last_log_id), self.target, of(&theirs));
        }
        Ok(VoteResponse { vote, vote_granted: response.granted, last_log_id: theirs })
    }
}

impl RaftNetworkV2<C> for Peer {
    type SnapshotData = Ticket;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        self.check_silence()?;
        let mut client = self.shared.peers.client(self.target, Lane::Control).map_err(|e| unreachable(&e))?;
        let request = self.append_request(&rpc);
        let response = self.limited(RPCTypes::AppendEntries, option.hard_ttl(), client.heartbeat(request)).await?;
        self.shared.heard(self.target, &response);
        self.shared.check_denial(self.target, &response)?;
        Ok(match append_from_wire(response)? {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let mut input = input.fuse();
            let first = match self.search {
                Search::Over => None,
                // Steps of a search come at once.
                Search::Begins | Search::Has { .. } => {
                    match tokio::time::timeout(self.shared.config.heartbeat_interval, input.next()).await {
                        Ok(Some(first)) => Some(first),
                        Ok(None) => return Ok(futures::stream::empty().boxed()),
                        Err(_) => {
                            self.search = Search::Over;
                            None
                        }
                    }
                }
            };
            if let Some(request) = &first
                && let Some(matching) = self.has_all_of(request).await
            {
                return Ok(futures::stream::iter([Ok(Ok(Some(matching)))]).boxed());
            }
            let input = futures::stream::iter(first).chain(input);
            let pause = reopen_pause(self.failed_opens).max(self.shared.peers.spaces.pause(self.target.0));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let opened = self.open_stream(input).await;
            self.failed_opens = if opened.is_ok() { 0 } else { self.failed_opens.saturating_add(1) };
            let answers = opened?;
            let timeout = self.timeout(RPCTypes::AppendEntries, answers.limit);
            let stream = futures::stream::unfold((answers, timeout), |(mut answers, timeout)| async move {
                if answers.ended {
                    return None;
                }
                let answer = answers.next(&timeout).await?;
                // After anything but a success the order of what follows means nothing.
                answers.ended = !matches!(answer, Ok(Ok(_)));
                Some((answer, (answers, timeout)))
            });
            Ok(stream.boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_for_vote(rpc, false, option.soft_ttl()).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_for_vote(rpc, true, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<C, Ticket>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let at_least = snapshot.meta.last_log_id.as_ref().map(convert::to_log_id);
        let Some(at_least) = at_least else {
            return Err(StreamingError::Network(NetworkError::from_string("an empty snapshot is never sent")));
        };
        // Whoever is seeded goes on from this log id: it must not be purged before that.
        let hold = self.shared.holds.hold(at_least);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = self.instruct(vote, at_least, &hold) => result.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let mut client = self.shared.peers.client(self.target, Lane::Control).map_err(|e| unreachable(&e))?;
        let request = wire::TransferLeaderRequest {
            envelope: self.shared.peers.envelope(self.target),
            from_leader: Some(convert::vote_to_wire(req.from_leader())),
            to_node: *req.to_node_id(),
            last_log: req.last_log_id().map(convert::log_id_to_wire),
        };
        let limit = option.soft_ttl();
        let response = self.limited(RPCTypes::TransferLeader, limit, client.transfer_leader(request)).await?;
        if response.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(match response.vote {
            Some(vote) => TransferLeaderError::VoteChanged {
                expected: *req.from_leader(),
                actual: convert::vote_from_wire(Some(vote)).map_err(|status| rpc_error(&status))?,
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().copied(),
                actual: response.last_log.map(convert::log_id_from_wire),
            },
        }))
    }
}

impl Peer {
    /// Whom the peer may seed itself from, best first. This node has all of it, and knows best where it is.
    fn seed_sources(&self, at_least: calamus_engine::ids::LogId) -> Vec<wire::SeedSource> {
        let (shared, identity) = (&self.shared, self.shared.engine.identity());
        let since = tokio::time::Instant::now() - shared.config.election_timeout.end * 2;
        let mut sources = shared.peers.seed_sources(self.target, at_least, since);
        let this = wire::SeedSource { raft_id: identity.raft_id.0, name: identity.name, address: identity.advertise };
        match sources.iter_mut().find(|source| source.raft_id == this.raft_id) {
            Some(source) => *source = this,
            None => sources.push(this),
        }
        sources
    }

    /// Tells the peer to seed itself, and waits as long as it makes progress.
    async fn instruct(
        &self,
        vote: RaftVote,
        at_least: calamus_engine::ids::LogId,
        hold: &SeedHold,
    ) -> Result<SnapshotResponse<C>, RPCError<C>> {
        let shared = &self.shared;
        let mut client = shared.peers.client(self.target, Lane::Data).map_err(|e| unreachable(&e))?;
        let request = wire::InstallSnapshotRequest {
            envelope: shared.peers.envelope(self.target),
            vote: Some(convert::vote_to_wire(&vote)),
            at_least: Some(convert::plain_log_id_to_wire(at_least)),
            sources: self.seed_sources(at_least),
        };
        let limit = shared.config.seed_stall_limit;
        let call = client.install_snapshot(request);
        let mut progress = self.limited(RPCTypes::InstallSnapshot, limit, call).await?;
        loop {
            let next = tokio::time::timeout(limit, progress.message()).await;
            let message = match next {
                Err(_) => return Err(self.timeout(RPCTypes::InstallSnapshot, limit)),
                // Never at once: the next try starts a whole seeding.
                Ok(Err(status)) => return Err(RPCError::Unreachable(Unreachable::from_string(status))),
                Ok(Ok(None)) => {
                    return Err(RPCError::Unreachable(Unreachable::from_string("the seeding ended without a result")));
                }
                Ok(Ok(Some(message))) => message,
            };
            if message.vote.is_some() {
                if let Some(installed) = message.installed {
                    hold.reached(convert::plain_log_id_from_wire(installed));
                }
                let vote = convert::vote_from_wire(message.vote).map_err(|status| rpc_error(&status))?;
                return Ok(SnapshotResponse::new(vote));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_gone_is_tried_at_once_then_less_and_less_often() {
        let pauses: Vec<u128> = (0..8).map(|failed| reopen_pause(failed).as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 160, 160]);
        assert_eq!(reopen_pause(u32::MAX), REOPEN_PAUSE_MOST);
    }
}
