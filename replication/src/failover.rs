//! Electing at once when the leader's process is gone, instead of waiting for its lease.
//!
//! A leader that is killed takes its listener with it: the append stream breaks and a new connection is refused. A
//! voter that sees both asks the other voters whether they cannot reach that leader either. When a quorum cannot, each
//! of them drops its own lease and they stand for election with a pre-vote, staggered by rank.
//!
//! A leader whose listener refuses but that goes on speaking is not lost.
//!
//! An attempt that was begun is not abandoned for the next while it may only wait for disks. The candidate saves its vote,
//! and then each of the others saves its own, with a sync each. With a fixed limit, disks that take half of it for a sync
//! are never waited for: nodes that have such abandon each other's attempts, and whether one of them is elected is luck. So
//! the limit grows with the longest of the latest saves here: four of them, for the two that an attempt takes, where the
//! other's disk may be twice as slow. It ends at the longest election timeout: then openraft's own timer begins an attempt
//! anew, whatever is done here, so that syncs above half of that need longer timeouts. While this node's own save is
//! under way the core hears nobody; another attempt would lie in its queue and abandon the one that waits, right behind
//! the save. (Three nodes, syncs of 350 ms: another leads 1.8 s after a leader was killed, and 2.5 s with 500 ms for each.)
//!
//! Why it is safe: a lease only keeps voters from deposing a leader that is alive; no read here relies on one, so an
//! election too many costs a leader its office and nothing else. Raft's votes are untouched. A partition, where
//! connections time out instead of being refused, is left to the timers.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::RaftId;
use calamus_proto::raft::v1 as wire;
use futures::future::join_all;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::Core;
use crate::network::convert;
use crate::network::peers::{Lane, Peers};
use crate::types::RaftVote;
use crate::vote_saves::VoteSaves;

/// A dying listener may still accept: one refusal is not enough.
const PROBES: usize = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(4);
const PROBE_LIMIT: Duration = Duration::from_millis(50);
/// How long a listener may outlive its connections.
const GONE_ROUNDS: usize = 10;
const GONE_PAUSE: Duration = Duration::from_millis(10);
/// How long the others may take to find out too.
const ASK_ROUNDS: usize = 20;
const ASK_PAUSE: Duration = Duration::from_millis(10);
/// The second in rank stands this much later than the first: a pre-vote round fits in it.
const STAGGER: Duration = Duration::from_millis(15);
/// How long a candidacy that was begun may take at least, where disks are quick.
const CANDIDACY_LIMIT: Duration = Duration::from_millis(500);
/// In longest saves of a vote: how long a candidacy may take where disks are slow.
const CANDIDACY_SAVES: u32 = 4;
const ELECTION_ROUNDS: usize = 8;
const ELECTION_PAUSE: Duration = Duration::from_millis(40);
/// No raft id is 0 outside openraft's own tests: nobody takes leadership over by this name.
const NOBODY: u64 = 0;

/// Tells when a stream from a leader ended, and when a leader was last heard of.
#[derive(Clone)]
pub struct Lost(Arc<Notify>, Arc<Mutex<Instant>>);

impl Default for Lost {
    fn default() -> Self {
        Self(Arc::default(), Arc::new(Mutex::new(Instant::now())))
    }
}

/// Held while a leader's stream is open.
pub(crate) struct Connected(Arc<Notify>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Lost {
    /// A leader's stream is open.
    pub(crate) fn connected(&self) -> Connected {
        self.heard();
        Connected(Arc::clone(&self.0))
    }

    /// A leader has sent something.
    pub(crate) fn heard(&self) {
        *self.1.lock() = Instant::now();
    }

    fn silent_for(&self) -> Duration {
        self.1.lock().elapsed()
    }

    fn heard_since(&self, moment: Instant) -> bool {
        *self.1.lock() > moment
    }

    /// Whether this node follows the leader of `vote`, cannot connect to it, and hears nothing of it meanwhile.
    pub(crate) async fn also_lost(&self, core: &Core, vote: &RaftVote) -> bool {
        if core.metrics().vote != *vote {
            return false;
        }
        let began = Instant::now();
        match leader_address(core, vote) {
            Some(address) => refused(&address).await && !self.heard_since(began),
            None => false,
        }
    }
}

fn leader_address(core: &Core, vote: &RaftVote) -> Option<String> {
    let membership = core.membership();
    membership.get_node(&vote.leader_id.voted_for).map(|node| core.peers.address_of(node).to_owned())
}

/// Whether every try to connect is refused.
async fn refused(address: &str) -> bool {
    for probe in 0..PROBES {
        if probe > 0 {
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        let tried = tokio::time::timeout(PROBE_LIMIT, TcpStream::connect(address)).await;
        if !matches!(tried, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused) {
            return false;
        }
    }
    true
}

/// Runs until the core stops. Silence is looked into too: a stream may have been broken before the leader was lost, and
/// whoever stood first may not have been elected.
pub(crate) async fn run(core: Core, peers: Arc<Peers>, lost: Lost) {
    let silence = core.config.heartbeat_interval * 3;
    loop {
        let ended = tokio::select! {
            () = lost.0.notified() => true,
            () = tokio::time::sleep(silence) => false,
            () = core.stopped() => return,
        };
        if core.config.fast_failover && (ended || lost.silent_for() > silence) {
            replace_leader(&core, &peers, &lost).await;
        }
    }
}

async fn replace_leader(core: &Core, peers: &Peers, lost: &Lost) {
    let began = Instant::now();
    let metrics = core.metrics();
    let vote = metrics.vote;
    let leader = vote.leader_id.voted_for;
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    if core.was_removed() || !voters.contains(&metrics.id) || (vote.committed && leader == metrics.id) {
        return;
    }
    if vote.committed {
        let Some(address) = leader_address(core, &vote) else { return };
        if !is_gone(core, &address, &vote).await || !quorum_lost(core, peers, &vote, &voters).await {
            return;
        }
        // Nobody reaches its listener, but it speaks: the way to it is broken, not the leader.
        if lost.heard_since(began) && matches!(now(core, &vote), Now::Same) {
            return;
        }
        tracing::info!(leader, "a quorum has lost the leader: electing at once");
        // "Leadership goes to nobody" drops this node's lease and changes nothing else.
        // It is refused where the vote has changed; that vote gave no lease.
        let drop_lease = TransferLeaderRequest::new(vote, NOBODY, None);
        if core.raft.handle_transfer_leader(drop_lease).await.is_err() {
            return;
        }
    } else {
        // Another stands for election already. If its log is shorter than this node's, it is not elected: after giving
        // it the time it needs, this node stands too.
        tokio::time::sleep(ELECTION_PAUSE).await;
    }
    let mut ranks: Vec<u64> = voters.into_iter().filter(|id| *id != leader).collect();
    ranks.sort_unstable();
    let rank = ranks.iter().position(|id| *id == metrics.id).unwrap_or(0);
    tokio::time::sleep(STAGGER * u32::try_from(rank).unwrap_or(u32::MAX).min(8)).await;
    stand(core, &vote).await;
}

/// Stands for election until there is a leader, or it was tried often enough.
async fn stand(core: &Core, vote: &RaftVote) {
    let mut candidacy = Candidacy::default();
    let mut attempts = 0;
    while attempts < ELECTION_ROUNDS {
        if matches!(now(core, vote), Now::Led) {
            return;
        }
        // Asked before the vote is looked at: of a save that ends in between the vote is shown.
        let limit = candidacy_limit(&core.config.election_timeout, &core.vote_saves);
        let metrics = core.metrics();
        if candidacy.may_stand(&metrics.vote, metrics.id, Instant::now(), limit) {
            attempts += 1;
            if core.raft.trigger().elect(true).await.is_err() {
                return;
            }
        }
        // Two that stood against each other must not do so again at the same moment.
        tokio::time::sleep(ELECTION_PAUSE + rand::random_range(Duration::ZERO..STAGGER)).await;
    }
}

/// How long a candidacy may take; `None` while a vote is being saved: as long as that does.
fn candidacy_limit(election: &Range<Duration>, saves: &VoteSaves) -> Option<Duration> {
    let slow = saves.longest().saturating_mul(CANDIDACY_SAVES).min(election.end);
    (!saves.is_saving()).then(|| election.start.min(CANDIDACY_LIMIT).max(slow))
}

/// This node's own candidacy, as it was last seen.
#[derive(Default)]
struct Candidacy(Option<(u64, Instant)>);

impl Candidacy {
    /// Whether a new attempt may be made: not while one of this node's is younger than `limit`, nor while there is none.
    fn may_stand(&mut self, vote: &RaftVote, id: u64, now: Instant, limit: Option<Duration>) -> bool {
        let Some(limit) = limit else { return false };
        if vote.committed || vote.leader_id.voted_for != id {
            self.0 = None;
            return true;
        }
        match self.0 {
            Some((term, since)) if term == vote.leader_id.term => now - since >= limit,
            _ => {
                self.0 = Some((vote.leader_id.term, now));
                false
            }
        }
    }
}

/// What has become of the vote for the leader that seems lost.
enum Now {
    Same,
    /// Another stands for election already: whoever let it has found the leader lost too.
    Electing,
    /// There is a leader.
    Led,
}

fn now(core: &Core, vote: &RaftVote) -> Now {
    match core.metrics().vote {
        current if current == *vote => Now::Same,
        current if current.committed => Now::Led,
        _ => Now::Electing,
    }
}

/// Whether the leader of `vote` is gone. A stream also breaks when the leader only ends it; and a process that dies may
/// close its connections before its listener.
async fn is_gone(core: &Core, address: &str, vote: &RaftVote) -> bool {
    for _ in 0..GONE_ROUNDS {
        match now(core, vote) {
            Now::Same => {}
            Now::Electing => return true,
            Now::Led => return false,
        }
        if refused(address).await {
            return true;
        }
        tokio::time::sleep(GONE_PAUSE).await;
    }
    false
}

/// Whether this node and enough others have lost the leader of `vote`.
async fn quorum_lost(core: &Core, peers: &Peers, vote: &RaftVote, voters: &[u64]) -> bool {
    let id = core.metrics().id;
    let others: Vec<u64> =
        voters.iter().copied().filter(|other| *other != id && *other != vote.leader_id.voted_for).collect();
    for _ in 0..ASK_ROUNDS {
        // Were this node to give up now, and the one that stands have a shorter log, nobody would be elected.
        match now(core, vote) {
            Now::Same => {}
            Now::Electing => return true,
            Now::Led => return false,
        }
        let answers = join_all(others.iter().map(|other| ask(peers, RaftId(*other), vote))).await;
        let lost = 1 + answers.into_iter().filter(|lost| *lost).count();
        if lost > voters.len() / 2 {
            return true;
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
    false
}

async fn ask(peers: &Peers, other: RaftId, vote: &RaftVote) -> bool {
    let Ok(mut client) = peers.client(other, Lane::Control) else { return false };
    let request = wire::LeaderLostRequest { envelope: peers.envelope(other), vote: Some(convert::vote_to_wire(vote)) };
    let limit = PROBE_LIMIT * 2;
    matches!(tokio::time::timeout(limit, client.leader_lost(request)).await, Ok(Ok(answer)) if answer.get_ref().lost)
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftVote as _;

    use super::*;
    use crate::types::LeaderId;

    fn vote(term: u64, node: u64) -> RaftVote {
        RaftVote::from_leader_id(LeaderId { term, voted_for: node }, false)
    }

    #[test]
    fn a_candidacy_that_waits_is_left_alone_for_its_time() {
        let (mut candidacy, start) = (Candidacy::default(), Instant::now());
        let limit = Some(Duration::from_millis(500));
        let mut may =
            |vote: &RaftVote, millis| candidacy.may_stand(vote, 7, start + Duration::from_millis(millis), limit);
        assert!(may(&vote(4, 3), 0), "another's");
        assert!(!may(&vote(5, 7), 40), "its own, new");
        assert!(!may(&vote(5, 7), 539));
        assert!(may(&vote(5, 7), 540), "it took too long");
        assert!(!may(&vote(6, 7), 580), "the next is new again");
        assert!(may(&vote(7, 3), 600), "another stands");
        assert!(!may(&vote(6, 7), 620));
    }

    #[test]
    fn a_candidacy_may_take_as_long_as_the_disks_make_it() {
        let millis = Duration::from_millis;
        let limit = |election: Range<u64>, save| {
            let saves = VoteSaves::default();
            saves.note(millis(save));
            candidacy_limit(&(millis(election.start)..millis(election.end)), &saves).expect("nothing is saved now")
        };
        assert_eq!(limit(500..1000, 1), millis(500));
        assert_eq!(limit(500..1000, 125), millis(500));
        assert_eq!(limit(500..1000, 200), millis(800));
        assert_eq!(limit(500..1000, 400), millis(1000), "openraft waits no longer");
        assert_eq!(limit(2000..4000, 20), millis(500), "long timeouts are no reason to wait");
        assert_eq!(limit(2000..4000, 700), millis(2800));
        assert_eq!(limit(100..200, 20), millis(100));
    }

    #[test]
    fn nobody_stands_while_a_vote_is_saved() {
        let (saves, election) = (VoteSaves::default(), Duration::from_millis(500)..Duration::from_millis(1000));
        let (mut candidacy, start) = (Candidacy::default(), Instant::now());
        let hour = Duration::from_secs(3600);
        let mut may = |vote: &RaftVote, now| candidacy.may_stand(vote, 7, now, candidacy_limit(&election, &saves));
        assert!(may(&vote(4, 3), start), "another's");
        let saving = saves.begin();
        assert!(!may(&vote(4, 3), start + hour), "the core shows what it was, and this node's own vote is under way");
        drop(saving);
        assert!(!may(&vote(5, 7), start + hour), "its own, which is shown now");
        assert!(may(&vote(5, 7), start + hour * 2));
    }

    #[test]
    fn who_speaks_or_connects_is_heard() {
        let (lost, began) = (Lost::default(), Instant::now());
        assert!(!lost.heard_since(began));
        lost.heard();
        assert!(lost.heard_since(began));
        let again = Instant::now();
        drop(lost.connected());
        assert!(lost.heard_since(again));
    }
}
