//! Quorum rounds: what proves, at some moment after a read began, that no later leader was elected before that moment.
//!
//! Why openraft's own read index is not used. It keeps for each follower the sending time of the newest request that
//! was answered, and takes an answer on the append stream for the answer to every request that ends at the same log
//! id. Behind an append that ends at 100 it sends one without entries, which ends at 100 too, to spread the commit
//! index; the answer to the first then counts for the second. An answer that lay in a broken connection for longer
//! than an election may so be credited with a moment after a read began, when another leader had long committed
//! something that this one never saw.
//!
//! Here a round counts only answers to questions that were asked after it began: one call, one answer, over the
//! control connections. The argument, for a round of the leader of vote *v* begun at *t*:
//! - A follower that takes the question knows no vote above *v* then, after *t*; a vote it gives to another later is
//!   given after *t*. A quorum took it, so no later leader was elected before *t*: all that was committed before *t*
//!   was committed by leaders up to *v*.
//! - What this leader committed by *t* is not above its commit index at *t*. What earlier ones committed is in its log
//!   before its own first entry. The read point is therefore the commit index, or while that is of an earlier term,
//!   the end of the log. Commit index, log and voters are read in one step of the core, at or after *t*.
//!
//! A node is asked one question at a time: rounds that begin meanwhile share the next one. A failed question is asked
//! again as long as a round waits for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::RaftId;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::append_response;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::network::convert;
use crate::network::peers::{Lane, Peers};
use crate::space::level_of;
use crate::types::RaftVote;

/// Before a node that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A leader's vote, and a round of it.
type Round = (RaftVote, u64);

/// The questions to one node.
#[derive(Default)]
struct Asked {
    /// The newest round that waits for it, and until when.
    wanted: Option<(Round, Instant)>,
    /// A task asks.
    asking: bool,
    /// The newest round whose question it took.
    taken: Option<Round>,
    /// The newest vote that it refused, for a later one.
    refused: Option<RaftVote>,
}

#[derive(Default)]
struct State {
    begun: u64,
    nodes: HashMap<u64, Asked>,
}

/// The quorum rounds of this node.
pub(crate) struct Rounds {
    peers: Arc<Peers>,
    state: Mutex<State>,
    /// Changes with every answer.
    answers: watch::Sender<()>,
    /// How long one question may take.
    answer_limit: Duration,
}

/// A later vote is known: this node does not lead any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deposed;

impl Rounds {
    /// Asks over these connections.
    pub(crate) fn new(peers: Arc<Peers>, answer_limit: Duration) -> Self {
        Self { peers, state: Mutex::default(), answers: watch::Sender::new(()), answer_limit }
    }

    /// A round for the leader of `vote`, begun now: waits until a quorum of each of `voter_sets` has taken a question
    /// that was asked after the call. Asks until `deadline`, and then waits in vain: whoever calls gives up by itself.
    pub(crate) async fn confirm(
        self: &Arc<Self>,
        vote: RaftVote,
        voter_sets: &[BTreeSet<u64>],
        deadline: Instant,
    ) -> Result<(), Deposed> {
        let mut answers = self.answers.subscribe();
        let round = self.begin(vote, voter_sets, deadline);
        loop {
            answers.borrow_and_update();
            if let Some(decided) = self.decided(round, voter_sets) {
                return decided;
            }
            // The sender lives as long as `self`.
            let _ = answers.changed().await;
        }
    }

    fn begin(self: &Arc<Self>, vote: RaftVote, voter_sets: &[BTreeSet<u64>], deadline: Instant) -> Round {
        let this = self.peers.this().0;
        let mut state = self.state.lock();
        state.begun += 1;
        let round = (vote, state.begun);
        let others: BTreeSet<u64> = voter_sets.iter().flatten().copied().filter(|id| *id != this).collect();
        for id in others {
            let asked = state.nodes.entry(id).or_default();
            asked.wanted = Some((round, deadline));
            if !asked.asking {
                asked.asking = true;
                tokio::spawn(Arc::clone(self).ask(id));
            }
        }
        round
    }

    fn decided(&self, (vote, number): Round, voter_sets: &[BTreeSet<u64>]) -> Option<Result<(), Deposed>> {
        let this = self.peers.this().0;
        let state = self.state.lock();
        if state.nodes.values().any(|asked| asked.refused == Some(vote)) {
            return Some(Err(Deposed));
        }
        let took = |id: &u64| {
            let taken = state.nodes.get(id).and_then(|asked| asked.taken);
            *id == this || taken.is_some_and(|(of, newest)| of == vote && newest >= number)
        };
        let quorum = |voters: &BTreeSet<u64>| voters.iter().filter(|id| took(id)).count() > voters.len() / 2;
        voter_sets.iter().all(quorum).then_some(Ok(()))
    }

    /// The round to ask node `id` for, if one still waits; else the task ends.
    fn next(&self, id: u64) -> Option<Round> {
        let mut state = self.state.lock();
        let asked = state.nodes.get_mut(&id).expect("it is asked");
        let wanted = asked.wanted.filter(|(_, until)| *until > Instant::now());
        asked.asking = wanted.is_some();
        wanted.map(|(round, _)| round)
    }

    async fn ask(self: Arc<Self>, id: u64) {
        while let Some(round) = self.next(id) {
            let took = timeout(self.answer_limit, self.question(RaftId(id), round.0)).await.ok().flatten();
            let Some(took) = took else {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            };
            {
                let mut state = self.state.lock();
                let asked = state.nodes.get_mut(&id).expect("it is asked");
                if took {
                    asked.taken = Some(round);
                } else {
                    asked.refused = Some(round.0);
                }
                if asked.wanted.is_some_and(|(newest, _)| newest == round) {
                    asked.wanted = None;
                }
            }
            self.answers.send_replace(());
        }
    }

    /// Whether the node takes the leader of `vote` for its leader; `None` if that is not known.
    async fn question(&self, id: RaftId, vote: RaftVote) -> Option<bool> {
        if self.peers.silence.is_kept() {
            return None;
        }
        let mut client = self.peers.client(id, Lane::Control).ok()?;
        // A heartbeat that says nothing of the log: only the vote is compared.
        let request = wire::AppendRequest {
            envelope: self.peers.envelope(id),
            vote: Some(convert::vote_to_wire(&vote)),
            previous: None,
            previous_chain: None,
            frames: Vec::new(),
            committed: None,
        };
        let answer = client.heartbeat(request).await.ok()?.into_inner();
        self.peers.spaces.heard(id.0, level_of(answer.space_level));
        match answer.result? {
            append_response::Result::Matching(_) => Some(true),
            append_response::Result::HigherVote(_) => Some(false),
            append_response::Result::Conflict(_) => None,
        }
    }
}
