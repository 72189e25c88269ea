//! Keeps what the cluster believes of this node's address true.
//!
//! The others send to where the membership says that a node is. So a node that was moved (`--listen`, `--advertise`) hears
//! of nothing that is committed until they know better, and telling them must wait for nothing: not for readiness, which
//! waits for what was committed meanwhile, and not for a leader, of whom it hears nothing either. Nor does it matter at
//! which start the node was moved: what the membership says is compared with where the node is, for as long as it runs, so
//! that one which was ended before it could tell anybody tells it the next time.
//!
//! It tells itself first (it may lead, or know who does), then every other member: each sends the request on to the
//! leader. A member that hangs or is gone costs a few seconds, and the next one is told. It goes on until the change is
//! committed here too; telling what is known already changes nothing.

use std::convert::Infallible;
use std::time::Duration;

use calamus_proto::v1::{AddRequest, Aim};
use calamus_replication::{Node, NodeError};
use tracing::{info, warn};

use crate::peer;

/// How often the membership is compared with the address.
const LOOK: Duration = Duration::from_millis(250);
/// How long one member may take: a change of the membership waits for a quorum.
const TELL_LIMIT: Duration = Duration::from_secs(5);
/// So many rounds in vain are told once.
const COMPLAIN_EVERY: u32 = 40;

/// Runs beside the node, for as long as that does.
pub async fn keep_known(node: &Node) -> Infallible {
    let mut rounds = 0;
    loop {
        if let Some(request) = outdated(node) {
            match tell(node, &request).await {
                Ok(()) if rounds == 0 => info!(address = request.address, "the cluster was told of the new address"),
                Ok(()) => {}
                Err(why) if rounds % COMPLAIN_EVERY == 0 => {
                    warn!(why, address = request.address, "nobody could be told of the new address yet; trying on");
                }
                Err(_) => {}
            }
            rounds += 1;
        } else {
            rounds = 0;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is to be told, if the membership says something else. A member that does not vote stays one that does not.
fn outdated(node: &Node) -> Option<AddRequest> {
    let (identity, entry) = (node.engine().identity(), node.own_entry()?);
    (entry.address != identity.advertise).then(|| AddRequest {
        name: identity.name,
        raft_id: identity.raft_id.0,
        address: identity.advertise,
        aim: Aim::Unspecified.into(),
        replace: false,
        cluster_id: identity.cluster_id.to_string(),
    })
}

async fn tell(node: &Node, request: &AddRequest) -> Result<(), String> {
    let mut last = match node.add(request.clone()).await {
        Ok(_) => return Ok(()),
        Err(NodeError::NotLeader { .. }) => "there is no other member".to_owned(),
        Err(error) => error.to_string(),
    };
    for member in node.members().iter().filter(|member| member.raft_id != request.raft_id) {
        match peer::add(node.address_of(&member.name, &member.address), request.clone(), TELL_LIMIT).await {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{}: {}", member.name, error.message()),
        }
    }
    Err(last)
}
