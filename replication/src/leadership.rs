//! Whether this node leads, as the merger may rely on it.
//!
//! openraft shows a node as leader as soon as it is elected, and goes on showing it when the quorum is lost. Proposing
//! on that would stage on a state that misses what earlier leaders committed, and go on staging while nothing commits.
//! So *leading* is shown only after a quorum round of this very term and once its read point is applied here (which
//! includes this leader's own first entry); and on any doubt — the metrics change, a proposal is refused or lost, the
//! disk hangs, the node hands over — *following* is shown first and asked after.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use calamus_engine::ids::{RaftId, Term};
use tokio::sync::watch;

use crate::core::{Core, Standing};
use crate::network::peers::Peers;
use crate::seam::{LeaderInfo, Leadership};

/// Between the first two tries to confirm a leadership. The first one often comes before the core is ready for it, and all
/// transactions wait for the next one.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Pauses double up to this: a leadership that no quorum answers is asked for again and again.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Runs until the core stops; the last state is `Stopped`.
pub(crate) async fn run(core: Core, peers: Arc<Peers>, leadership: watch::Sender<Leadership>) {
    let mut seen = core.watch();
    let mut doubted = false;
    let mut pause = FIRST_PAUSE;
    loop {
        peers.learn(core.membership().membership());
        let standing = core.standing();
        let wanted = match &standing {
            Standing::Stopped { why } => {
                leadership.send_replace(Leadership::Stopped { why: why.clone() });
                return;
            }
            Standing::Following { term, leader } => following(&core, *term, *leader),
            Standing::Elected { term } => {
                let shown = leadership.borrow().leading() == Some(*term);
                let held = core.refuse.load(Ordering::Acquire);
                if shown && !doubted && !held {
                    Leadership::Leading { term: *term }
                } else {
                    following(&core, *term, None)
                }
            }
        };
        doubted = false;
        show(&leadership, wanted);
        if let Standing::Elected { term } = standing
            && leadership.borrow().leading().is_none()
            && !core.refuse.load(Ordering::Acquire)
        {
            // A leadership that is lost meanwhile is never shown.
            let confirmed = decided(confirm(&core, term), pause, lost(&core, term)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if !confirmed || core.standing() != (Standing::Elected { term }) {
                continue;
            }
            show(&leadership, Leadership::Leading { term });
        }
        pause = FIRST_PAUSE;
        tokio::select! {
            more = core.changed(&mut seen) => {
                if !more && !matches!(core.standing(), Standing::Stopped { .. }) {
                    leadership.send_replace(Leadership::Stopped { why: "the consensus ended".to_owned() });
                    return;
                }
            }
            () = core.doubt.notified() => doubted = true,
            () = core.stop.given() => {}
        }
    }
}

/// Whether a leadership is confirmed. One that is not is asked for again after a pause, unless it is lost: then who leads
/// now is to be shown at once, because transactions wait for that.
async fn decided(confirmed: impl Future<Output = bool>, pause: Duration, lost: impl Future<Output = ()>) -> bool {
    let asked = async {
        let confirmed = confirmed.await;
        if !confirmed {
            tokio::time::sleep(pause).await;
        }
        confirmed
    };
    tokio::select! {
        confirmed = asked => confirmed,
        () = lost => false,
    }
}

fn show(leadership: &watch::Sender<Leadership>, wanted: Leadership) {
    leadership.send_if_modified(|shown| {
        let changes = *shown != wanted;
        if changes {
            tracing::info!(?wanted, "leadership");
            *shown = wanted.clone();
        }
        changes
    });
}

fn following(core: &Core, term: Term, leader: Option<u64>) -> Leadership {
    Leadership::Following { term, leader: leader.and_then(|id| leader_info(core, term, id)) }
}

/// What the membership says of a leader.
pub(crate) fn leader_info(core: &Core, term: Term, id: u64) -> Option<LeaderInfo> {
    let membership = core.membership();
    let node = membership.get_node(&id)?;
    Some(LeaderInfo { raft_id: RaftId(id), name: node.name.clone(), address: node.address.clone(), term })
}

async fn confirm(core: &Core, term: Term) -> bool {
    // Each asks a quorum, and neither needs to wait for the other's answers.
    let takes_proposals = async { core.takes_proposals().await.then_some(()).ok_or(()) };
    let read_point = async { core.lead_read_index(Some(term)).await.map_err(drop) };
    let Ok(((), read)) = tokio::try_join!(takes_proposals, read_point) else {
        return false;
    };
    core.wait_applied(read, core.config.election_timeout.end).await.is_ok()
}

/// Waits until this node is not the elected leader of `term`.
async fn lost(core: &Core, term: Term) {
    let mut seen = core.watch();
    while core.standing() == (Standing::Elected { term }) {
        tokio::select! {
            more = core.changed(&mut seen) => if !more { return },
            () = core.stop.given() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const LIMIT: Duration = Duration::from_secs(60);

    async fn soon(work: impl Future<Output = bool>) -> bool {
        tokio::time::timeout(LIMIT, work).await.expect("nothing is waited for")
    }

    #[tokio::test]
    async fn a_leadership_that_is_lost_is_waited_for_no_longer() {
        assert!(!soon(decided(ready(false), HOUR, tokio::task::yield_now())).await, "in the pause");
        assert!(!soon(decided(pending(), HOUR, tokio::task::yield_now())).await, "while it is asked for");
        assert!(soon(decided(ready(true), HOUR, pending())).await);
        assert!(!soon(decided(ready(false), Duration::ZERO, pending())).await, "asked for again after the pause");
    }
}
