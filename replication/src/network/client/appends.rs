//! The stream of appends to a peer, and its answers.
//!
//! Rules kept here:
//! - openraft's stream of requests is never handed to the transport. It holds a lock of the replication task while it
//!   waits; a transport that outlives our time limit would keep it and stop the peer until TCP dies. A task of ours
//!   pumps it and is aborted when the answers are dropped.
//! - What is sent and not answered is bounded in bytes (`Budget`); one request may always be under way, however large.
//! - Opening a stream and every answer have a time limit. A peer that is silent while it owes nothing is only idle.

use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::RaftId;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::append_response;
use futures::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::shared::Shared;
use super::{Answer, C, Peer, rpc_error, unreachable};
use crate::network::budget::{AbortOnDrop, Budget};
use crate::network::commit_notes::next_request;
use crate::network::convert;
use crate::network::peers::Lane;

impl Peer {
    /// Opens the stream, and begins to send what `input` gives.
    pub(super) async fn open_stream<S>(&self, input: S) -> Result<Answers, RPCError<C>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        self.check_silence()?;
        let mut client = self.shared.peers.client(self.target, Lane::Data).map_err(|e| unreachable(&e))?;
        let (sender, receiver) = mpsc::channel(4);
        let budget = Arc::new(Budget::new(self.shared.config.unacknowledged_bytes));
        let pump = pump(input, sender, Arc::clone(&budget), Arc::clone(&self.shared), self.target);
        let pump = AbortOnDrop(tokio::spawn(pump));
        let limit = self.shared.config.connect_limit + self.shared.config.answer_limit;
        let call = client.append(ReceiverStream::new(receiver));
        let responses = self.limited(RPCTypes::AppendEntries, limit, call).await?;
        let (target, shared) = (self.target, Arc::clone(&self.shared));
        Ok(Answers {
            target,
            shared,
            responses,
            budget,
            limit: self.shared.config.answer_limit,
            _pump: pump,
            ended: false,
        })
    }
}

pub(super) fn append_to_wire(
    shared: &Shared,
    target: RaftId,
    request: &AppendEntriesRequest<C>,
) -> wire::AppendRequest {
    let previous = request.prev_log_id.as_ref().map(convert::to_log_id);
    wire::AppendRequest {
        envelope: shared.peers.envelope(target),
        vote: Some(convert::vote_to_wire(&request.vote)),
        previous: previous.map(convert::plain_log_id_to_wire),
        previous_chain: previous.and_then(|log_id| shared.engine.chain_at(log_id.index)),
        frames: request
            .entries
            .iter()
            .map(|entry| convert::frame_to_wire(entry.frame.as_ref().expect("entries are read from the journal")))
            .collect(),
        committed: request.leader_commit.as_ref().map(convert::log_id_to_wire),
    }
}

async fn pump<S>(
    input: S,
    sender: mpsc::Sender<wire::AppendRequest>,
    budget: Arc<Budget>,
    shared: Arc<Shared>,
    target: RaftId,
) where
    S: Stream<Item = AppendEntriesRequest<C>> + Unpin,
{
    let wanted = shared.notes.of(target);
    let mut input = input.fuse();
    while let Some(request) = next_request(&mut input, &wanted).await {
        let message = append_to_wire(&shared, target, &request);
        let bytes = message.frames.iter().map(|frame| frame.header.len() + frame.payload.len()).sum();
        drop(request);
        budget.take(bytes).await;
        if shared.peers.silence.is_kept() {
            return;
        }
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

/// The answers of a peer, in the order of the requests.
pub(super) struct Answers {
    target: RaftId,
    shared: Arc<Shared>,
    responses: Streaming<wire::AppendResponse>,
    budget: Arc<Budget>,
    pub(super) limit: Duration,
    _pump: AbortOnDrop,
    /// No more answers are to be taken.
    pub(super) ended: bool,
}

impl Answers {
    pub(super) async fn next(&mut self, timeout: &RPCError<C>) -> Option<Answer> {
        loop {
            let next = tokio::time::timeout(self.limit, self.responses.message()).await;
            let Ok(next) = next else {
                let silent = self.shared.peers.silence.is_kept();
                if silent || self.budget.oldest().is_some_and(|sent| sent.elapsed() >= self.limit) {
                    return Some(Err(timeout.clone()));
                }
                continue;
            };
            return match next {
                Ok(None) => None,
                Ok(Some(response)) if self.budget.answered() => {
                    self.shared.heard(self.target, &response);
                    self.shared.note_promise(self.target, &response);
                    if let Err(denial) = self.shared.check_denial(self.target, &response) {
                        return Some(Err(denial));
                    }
                    Some(append_from_wire(response))
                }
                Ok(Some(_)) => Some(Err(rpc_error(&Status::data_loss("an answer that nobody asked for")))),
                Err(status) => {
                    if is_full(&status) {
                        tracing::warn!(peer = %self.target, why = status.message(), "a peer takes no frames");
                        self.shared.peers.spaces.refused(self.target.0);
                    }
                    Some(Err(rpc_error(&status)))
                }
            };
        }
    }
}

/// A peer says that it has no room.
fn is_full(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
}

pub(super) fn append_from_wire(response: wire::AppendResponse) -> Answer {
    Ok(match response.result {
        Some(append_response::Result::Matching(matching)) => Ok(matching.log_id.map(convert::log_id_from_wire)),
        Some(append_response::Result::Conflict(log_id)) => {
            Err(StreamAppendError::Conflict(convert::log_id_from_wire(log_id)))
        }
        Some(append_response::Result::HigherVote(vote)) => Err(StreamAppendError::HigherVote(
            convert::vote_from_wire(Some(vote)).map_err(|status| rpc_error(&status))?,
        )),
        None => return Err(rpc_error(&Status::data_loss("an answer without a result"))),
    })
}
