//! Whether a node is there, and whether it has been taken out.
//!
//! A node that is replaced, or whose address changes, must not be there any more under its raft id: two nodes of one
//! name would both believe to be it. So it is asked, at the address that the membership has.
//!
//! A node that was removed while it did not run, or whose last entries did not reach it, is never told by the log: it
//! is not fed any more, and stands for election in a cluster that goes on without it. It is told when it asks: a leader
//! that a quorum answers refuses a vote, or a read index, to whoever its committed membership does not name, and says
//! as of which log id. The node believes that only if its own newest membership names it and is older: a node that has
//! just been added, and a leader that does not know yet that it was replaced, both fall out.
//!
//! Sometimes it does get that last entry, from a stream that was about to be closed. Then it knows by itself: a committed
//! membership named it, and a later one does not. A raft id is never added again. (That a committed one does not name it
//! says nothing alone: a new node goes through all that there were before it.)

use std::time::Duration;

use calamus_engine::ids::{LogId, RaftId};
use calamus_proto::raft::v1 as wire;
use tonic::Status;

use crate::core::Core;
use crate::network::convert;
use crate::network::peers::{Peers, client_at};
use crate::types::NodeInfo;

/// How long a node may take to say that it is there.
const PROBE_LIMIT: Duration = Duration::from_millis(500);

/// Whether the node of raft id `id` answers where `node` says that it is.
pub(super) async fn answers_at(peers: &Peers, id: RaftId, node: &NodeInfo) -> bool {
    if id == peers.this() {
        return true;
    }
    let Ok(mut client) = client_at(peers.address_of(node), PROBE_LIMIT) else { return false };
    // Refused by every node but that one. The answer is of no interest.
    let request = wire::LeaderLostRequest { envelope: peers.envelope(id), vote: Some(wire::Vote::default()) };
    matches!(tokio::time::timeout(PROBE_LIMIT, client.leader_lost(request)).await, Ok(Ok(_)))
}

/// What a node is told that is not a member any more.
pub(crate) fn text(id: RaftId) -> String {
    format!(
        "raft id {:016x} was removed or replaced, and takes no part any more; to come back: end this node, remove its \
         directory, and start it with its --name and --join",
        id.0
    )
}

/// Refuses whoever this node, as a leader that a quorum answers, knows not to be a member.
#[allow(clippy::result_large_err)] // a Status is what gRPC answers with
pub(crate) fn check_member(core: &Core, id: RaftId) -> Result<(), Status> {
    let Some(as_of) = core.missing_in_committed(id.0) else { return Ok(()) };
    if !core.leads_a_quorum() {
        return Ok(());
    }
    Err(convert::removed_status(text(id), as_of))
}

/// Takes note of what a leader says of this node, and its own log from the call on. Runs until the core stops.
pub(crate) fn watch(core: Core) -> impl Future<Output = ()> + Send {
    let mut was_member = core.is_committed_member();
    async move {
        let (mut told, mut seen) = (core.peers.told_removed(), core.watch());
        loop {
            tokio::select! {
                told = told.changed() => if told.is_err() { return },
                more = core.changed(&mut seen) => if !more { return },
                () = core.stopped() => return,
            }
            let is_member = core.is_committed_member();
            let as_of: Option<LogId> = *told.borrow_and_update();
            if (was_member && !is_member) || as_of.is_some_and(|as_of| core.believes_removal(as_of)) {
                core.leave();
            }
            was_member |= is_member;
        }
    }
}
