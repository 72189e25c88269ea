//! What all clients of this node share, and what they note of answers.

use std::sync::Arc;

use calamus_engine::ids::RaftId;
use calamus_engine::{Engine, Vote};
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::append_response;
use openraft::errors::RPCError;
use tonic::Status;

use super::{C, rpc_error};
use crate::network::commit_notes::CommitNotes;
use crate::network::convert;
use crate::network::peers::Peers;
use crate::options::NodeConfig;
use crate::space::level_of;
use crate::trimming::SeedHolds;

/// What all clients of this node share.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) peers: Arc<Peers>,
    pub(super) config: NodeConfig,
    pub(super) holds: SeedHolds,
    pub(super) notes: CommitNotes,
}

impl Shared {
    /// Takes note of what an answer says of its sender.
    pub(super) fn heard(&self, peer: RaftId, response: &wire::AppendResponse) {
        self.peers.spaces.heard(peer.0, level_of(response.space_level));
        if let Some(append_response::Result::Matching(matching)) = &response.result {
            let matching = matching.log_id.map(convert::plain_log_id_from_wire);
            self.peers.answers.heard(peer, matching, tokio::time::Instant::now());
        }
    }

    /// The vote of this node, if it is for itself: while it sends appends, that is so.
    pub(super) fn own_vote(&self) -> Option<Vote> {
        self.engine.vote().filter(|vote| vote.node == Some(self.peers.this()))
    }

    /// Takes note of what an answer to an append promises: it is durable there.
    pub(super) fn note_promise(&self, peer: RaftId, response: &wire::AppendResponse) {
        if let Some(append_response::Result::Matching(matching)) = &response.result
            && let (Some(vote), Some(matched)) = (self.own_vote(), matching.log_id)
        {
            let matched = convert::plain_log_id_from_wire(matched);
            self.peers.heard.acknowledged(peer, vote.term, matched, self.engine.applied().log_id);
        }
    }

    /// Refuses an answer that denies what its sender has acknowledged: openraft must not see it.
    pub(super) fn check_denial(&self, peer: RaftId, response: &wire::AppendResponse) -> Result<(), RPCError<C>> {
        let Some(append_response::Result::Conflict(missing)) = &response.result else { return Ok(()) };
        let missing = convert::plain_log_id_from_wire(*missing);
        let denied = |vote: Vote| self.peers.heard.is_denied(peer, vote.term, missing);
        if !self.own_vote().is_some_and(denied) {
            return Ok(());
        }
        Err(rpc_error(&Status::data_loss(format!(
            "{peer} denies the entry {missing}, which it has acknowledged in this term: its directory was put back to an \
             earlier state; wipe it, and let it join anew"
        ))))
    }
}
