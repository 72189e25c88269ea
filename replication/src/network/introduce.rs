//! What a node that starts says of its directory, before it takes part: see [`super::heard`].
//!
//! It asks all members that it knows at once, before its own service is there: so nothing that it promises can be
//! under way. Who does not answer in a moment is not waited for: after the stop of a whole cluster nobody does.

use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::RaftId;
use calamus_proto::raft::v1 as wire;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::convert;
use super::peers::{Lane, Peers};
use crate::types::Membership;

/// How long a member may take to answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Asks the members; the first contradiction that one of them knows, in words.
pub(crate) async fn introduce(engine: &Engine, peers: &Peers, membership: &Membership) -> Option<String> {
    peers.learn(membership);
    let others = membership.nodes().filter(|(id, _)| **id != peers.this().0);
    let asked = others.map(|(id, node)| async move {
        let contradiction = ask(engine, peers, RaftId(*id)).await?;
        Some(format!("{} says: {contradiction}", node.name))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    while let Some(said) = asked.next().await {
        // One is enough: who hangs must not leave this node the time to stand for election.
        if said.is_some() {
            return said;
        }
    }
    None
}

async fn ask(engine: &Engine, peers: &Peers, id: RaftId) -> Option<String> {
    let mut client = peers.client(id, Lane::Control).ok()?;
    let request = wire::IntroduceRequest {
        envelope: peers.envelope(id),
        vote: engine.vote().map(|vote| convert::vote_to_wire(&convert::to_raft_vote(vote))),
        last_log: engine.log_state().last.map(convert::plain_log_id_to_wire),
    };
    let answer = tokio::time::timeout(LIMIT, client.introduce(request)).await.ok()?.ok()?.into_inner();
    (!answer.contradiction.is_empty()).then_some(answer.contradiction)
}
