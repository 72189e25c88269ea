//! The consensus core, behind plain types: the only file that calls openraft's `Raft` for this node's own sake (the
//! service calls it for the peers'). Everything generic of openraft is compiled with this crate and nowhere else.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calamus_engine::ids::{LogId, LogIndex, RaftId, Term};
use calamus_engine::journal::frame::Payload;
use calamus_engine::{Engine, SpaceLevel};
use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, LinearizerOption, Raft, RaftState, ServerState};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::time::Instant;

use crate::freshness::Freshness;
use crate::log_store::{Early, LogStore, SwitchGate};
use crate::membership::removal;
use crate::network::client::Network;
use crate::network::convert::to_log_id;
use crate::network::peers::Peers;
use crate::options::{NodeConfig, openraft_config};
use crate::quorum::{Deposed, Rounds};
use crate::seam::{Proposed, ReadIndexError};
use crate::space::QuorumSpace;
use crate::state_machine::{StateMachine, StopReason};
use crate::types::{
    CommittedLeaderId, Membership, Outcome, Proposal, RaftVote, Responder, StoredMembership, TypeConfig, WriteResult,
};
use crate::vote_saves::VoteSaves;

/// How long the end of the core is waited for.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A handle of the running consensus.
#[derive(Clone)]
pub struct Core {
    /// This node's raft id.
    id: u64,
    /// Where others reach this node, as it says itself; the membership may not know yet.
    pub(crate) own_address: Arc<str>,
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) applied: watch::Sender<Option<LogId>>,
    pub(crate) stop: StopReason,
    /// No proposal is taken while it is set: the disk hangs, or the node hands over.
    pub(crate) refuse: Arc<AtomicBool>,
    /// Something happened that leadership must be confirmed again for.
    pub(crate) doubt: Arc<Notify>,
    pub(crate) config: Arc<NodeConfig>,
    /// Held while this node changes the membership.
    pub(crate) changing: Arc<Mutex<()>>,
    /// When this node last knew that it was up to date.
    pub(crate) freshness: Arc<Freshness>,
    /// How long this node's votes take to be saved.
    pub(crate) vote_saves: VoteSaves,
    rounds: Arc<Rounds>,
    pub(crate) peers: Arc<Peers>,
    /// This node was told that it is not a member any more.
    removed: Arc<AtomicBool>,
}

/// Where a node stands, by its own metrics. Leading here means elected, not yet confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Elected { term: Term },
    Following { term: Term, leader: Option<u64> },
    Stopped { why: String },
}

/// What a read point is made of, as the core has it at one moment.
struct Leading {
    vote: RaftVote,
    point: Option<LogId>,
    voter_sets: Vec<BTreeSet<u64>>,
}

impl Leading {
    fn of(state: &RaftState<TypeConfig>, this: u64) -> Option<Self> {
        let vote = *state.vote_ref();
        if !vote.committed || vote.leader_id.voted_for != this || state.server_state != ServerState::Leader {
            return None;
        }
        let committed = state.local_committed().map(to_log_id);
        let own = committed.filter(|log_id| log_id.term.0 == vote.leader_id.term);
        Some(Self {
            vote,
            point: own.or_else(|| state.log_ids.last().map(to_log_id)),
            voter_sets: state.membership_state.effective().membership().get_joint_config().clone(),
        })
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub matched: Option<LogIndex>,
    pub last_answer: Option<Duration>,
}

impl Core {
    /// Starts the consensus on an engine.
    pub(crate) async fn start(
        engine: &Engine,
        config: &NodeConfig,
        network: Network,
        peers: Arc<Peers>,
        stop: StopReason,
    ) -> Result<Self, String> {
        let identity = engine.identity();
        peers.spaces.set_own(engine.space());
        let options = openraft_config(config, &identity.cluster_id.to_string()).map_err(|error| error.to_string())?;
        let applied = watch::Sender::new(engine.applied().log_id);
        let gate = SwitchGate::default();
        let log_store = LogStore::new(engine.clone(), gate.clone(), Early::of(config));
        let vote_saves = log_store.vote_saves().clone();
        let machine = StateMachine::new(engine.clone(), applied.clone(), gate, stop.clone());
        let raft = Raft::new(identity.raft_id.0, Arc::new(options), network, log_store, machine)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            id: identity.raft_id.0,
            own_address: identity.advertise.into(),
            raft,
            applied,
            stop,
            refuse: Arc::default(),
            doubt: Arc::default(),
            config: Arc::new(config.clone()),
            freshness: Arc::default(),
            vote_saves,
            changing: Arc::default(),
            rounds: Arc::new(Rounds::new(Arc::clone(&peers), config.election_timeout.start)),
            peers,
            removed: Arc::default(),
        })
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Why the core does not run any more, or is not relied on any more: see [`Self::shutdown`].
    fn ended(&self) -> Option<String> {
        if let Some(why) = self.stop.get() {
            return Some(why);
        }
        let metrics = self.raft.metrics();
        let fatal = metrics.borrow_watched().running_state.clone().err()?;
        Some(fatal.to_string())
    }

    /// Where this node stands now.
    pub(crate) fn standing(&self) -> Standing {
        if let Some(why) = self.ended() {
            return Standing::Stopped { why };
        }
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        let term = Term(server.vote.leader_id.term);
        let own = server.vote.committed && server.vote.leader_id.voted_for == server.id;
        if own && server.state == ServerState::Leader {
            return Standing::Elected { term };
        }
        Standing::Following { term, leader: server.current_leader.filter(|leader| *leader != server.id) }
    }

    /// The term of this node's vote.
    pub(crate) fn term(&self) -> Term {
        Term(self.raft.server_metrics().borrow_watched().vote.leader_id.term)
    }

    /// Waits for the next change of role, vote, leader or membership; `false` when there will be none.
    pub(crate) async fn changed(&self, seen: &mut ServerWatch) -> bool {
        seen.0.changed().await.is_ok()
    }

    pub(crate) fn watch(&self) -> ServerWatch {
        ServerWatch(self.raft.server_metrics())
    }

    /// Waits until the core has stopped, for whatever reason.
    pub(crate) async fn stopped(&self) {
        let mut seen = self.watch();
        while self.ended().is_none() {
            tokio::select! {
                more = self.changed(&mut seen) => if !more { return },
                () = self.stop.given() => return,
            }
        }
    }

    /// Whether this node leads for certain: it is elected, and a quorum answered it within an election timeout, or it is
    /// one by itself. A core that hangs goes on showing itself as elected.
    pub(crate) fn leads_a_quorum(&self) -> bool {
        if !matches!(self.standing(), Standing::Elected { .. }) {
            return false;
        }
        let metrics = self.metrics();
        let alone = metrics.membership_config.voter_ids().all(|id| id == self.id);
        alone || metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < self.config.election_timeout.end)
    }

    /// The members as this node knows them, committed or not.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        Arc::clone(&self.raft.server_metrics().borrow_watched().membership_config)
    }

    /// The newest membership and where it stands, as the core has it now; the metrics may be older.
    pub(crate) async fn effective_membership(&self) -> Result<Arc<StoredMembership>, String> {
        let effective = self.raft.with_raft_state(|state| Arc::clone(state.membership_state.effective())).await;
        effective.map_err(|fatal| fatal.to_string())
    }

    /// Where the committed membership stands, if it does not name `id`.
    pub(crate) fn missing_in_committed(&self, id: u64) -> Option<LogId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = &metrics.committed_membership_config;
        let as_of = committed.log_id().as_ref().map(to_log_id)?;
        committed.get_node(&id).is_none().then_some(as_of)
    }

    /// Whether the newest membership that this node knows to be committed names it.
    pub(crate) fn is_committed_member(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.committed_membership_config.get_node(&self.id).is_some()
    }

    /// Whether this node's own newest membership names it, and is older than one that does not.
    pub(crate) fn believes_removal(&self, as_of: LogId) -> bool {
        let own = self.membership();
        let older = own.log_id().as_ref().is_none_or(|log_id| to_log_id(log_id) < as_of);
        older && own.get_node(&self.id).is_some()
    }

    /// From here on this node stands for election, if it hears of no leader.
    pub(crate) fn stand(&self) {
        self.raft.runtime_config().elect(true);
    }

    /// Stands for no election any more: this node was taken out of the cluster.
    pub(crate) fn leave(&self) {
        if !self.removed.swap(true, Ordering::AcqRel) {
            tracing::error!("{}", removal::text(RaftId(self.id)));
            self.raft.runtime_config().elect(false);
        }
    }

    /// Whether this node was taken out of the cluster, and knows it.
    pub(crate) fn was_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// See [`crate::seam::Consensus::propose`].
    pub(crate) fn propose(&self, term: Term, payload: Payload) -> oneshot::Receiver<Proposed> {
        let (sender, receiver) = oneshot::channel();
        if self.refuse.load(Ordering::Acquire) {
            let why = "this node takes no proposals: its disk hangs, or it hands leadership over".to_owned();
            drop(sender.send(Proposed::Refused { why }));
            return receiver;
        }
        let doubt = Arc::clone(&self.doubt);
        let responder = Responder::new(move |result: WriteResult| {
            let proposed = proposed(result);
            if !matches!(proposed, Proposed::Applied { .. }) {
                doubt.notify_one();
            }
            drop(sender.send(proposed));
        });
        let leader = CommittedLeaderId::new(term.0);
        let request = self.raft.write(Proposal(payload)).responder(responder).with_leader(leader);
        // Queues at the first poll: the channel holds far more than the merger lets be in flight. Were it full, or the
        // core gone, the request is dropped and with it the sender: unknown.
        let queued = tokio::task::unconstrained(request.into_future()).now_or_never();
        if !matches!(queued, Some(Ok(()))) {
            self.doubt.notify_one();
        }
        receiver
    }

    /// One quorum round begun now, by this node as the leader of `term`: see [`crate::quorum`]. Takes as long as the
    /// longest election timeout at most.
    pub(crate) async fn lead_read_index(&self, term: Option<Term>) -> Result<LogId, ReadIndexError> {
        let limit = self.config.election_timeout.end;
        let round = self.round(term, Instant::now() + limit);
        tokio::time::timeout(limit, round).await.map_err(|_| ReadIndexError::Timeout { waited: limit })?
    }

    async fn round(&self, term: Option<Term>, deadline: Instant) -> Result<LogId, ReadIndexError> {
        let not_leading = || ReadIndexError::NotLeading { leader: None };
        let this = self.id;
        let leading = self.raft.with_raft_state(move |state| Leading::of(state, this)).await;
        let leading = leading.map_err(|fatal| ReadIndexError::Stopped { why: fatal.to_string() })?;
        let Some(Leading { vote, point, voter_sets }) = leading else { return Err(not_leading()) };
        if term.is_some_and(|term| term.0 != vote.leader_id.term) {
            return Err(not_leading());
        }
        if !self.config.reads_without_quorum() {
            self.rounds.confirm(vote, &voter_sets, deadline).await.map_err(|Deposed| not_leading())?;
        }
        Ok(point.expect("a leader has at least its own first entry"))
    }

    /// Whether openraft takes proposals of this leader: it refuses them while it has not heard of a quorum for an
    /// election timeout. Asks the quorum if that is so.
    pub(crate) async fn takes_proposals(&self) -> bool {
        // What openraft looks at when a proposal comes: how old the newest answer of a quorum is.
        let heard = self.raft.get_read_linearizer(LinearizerOption::new(None, true));
        matches!(tokio::time::timeout(self.config.election_timeout.end, heard).await, Ok(Ok(_)))
    }

    /// Waits until `log_id` is applied on this node.
    pub(crate) async fn wait_applied(&self, log_id: LogId, limit: Duration) -> Result<(), ReadIndexError> {
        if self.applied.borrow().is_some_and(|applied| applied.index >= log_id.index) {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied.index >= log_id.index));
        tokio::select! {
            biased;
            reached = reached => reached.map(|_| ()).map_err(|_| ReadIndexError::Stopped { why: "shut down".to_owned() }),
            () = self.stopped() => {
                let why = self.stop.get().unwrap_or_else(|| "the consensus ended".to_owned());
                Err(ReadIndexError::Stopped { why })
            }
            () = tokio::time::sleep(limit) => Err(ReadIndexError::Timeout { waited: limit }),
        }
    }

    /// How long ago this node knew that it was up to date; `None` if it never did.
    pub(crate) fn age(&self) -> Option<Duration> {
        let answered = match self.standing() {
            Standing::Elected { .. } => self.metrics().last_quorum_acked.map(|acked| acked.elapsed()),
            Standing::Following { .. } | Standing::Stopped { .. } => None,
        };
        let before = |age| Instant::now().checked_sub(age).map(|acked| self.peers.credit.before(acked));
        let answered = answered.map(|age| age + before(age).unwrap_or_default());
        // Whom no quorum has answered yet still has what it knew before it was elected.
        let heard = self.freshness.newest().map(|fresh| fresh.elapsed());
        answered.into_iter().chain(heard).min()
    }

    /// The log id that the newest declared snapshot stands for.
    pub(crate) fn declared_snapshot(&self) -> Option<LogId> {
        self.metrics().snapshot.as_ref().map(to_log_id)
    }

    /// Tells openraft of a finished checkpoint, and waits until it knows.
    pub(crate) async fn declare_snapshot(&self, checkpointed: LogId) -> Result<(), String> {
        self.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        let known = |metrics: &RaftMetrics<TypeConfig>| {
            metrics.snapshot.as_ref().is_some_and(|snapshot| snapshot.index() >= checkpointed.index.0)
        };
        // Not in time: the next round tries again. openraft leaves out a trigger while it builds.
        let _ = self.raft.wait(Some(Duration::from_secs(2))).metrics(known, "checkpoint declared").await;
        Ok(())
    }

    /// Lets openraft purge up to and with `upto`.
    pub(crate) async fn purge(&self, upto: LogIndex) -> Result<(), String> {
        self.raft.trigger().purge_log(upto.0).await.map_err(|error| error.to_string())
    }

    /// How far each member but this one is, as the leader.
    pub(crate) fn progress(&self, id: u64) -> Progress {
        let metrics = self.metrics();
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
        let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(&id).copied().flatten());
        Progress {
            matched: matched.map(|log_id| LogIndex(log_id.index())),
            last_answer: answered.map(|at| at.elapsed()),
        }
    }

    /// The last log index of this node.
    pub(crate) fn last_log_index(&self) -> Option<LogIndex> {
        self.metrics().last_log_index.map(LogIndex)
    }

    /// Hands leadership to `to` and waits until this node does not lead any more.
    pub(crate) async fn transfer(&self, to: u64, limit: Duration) -> Result<(), String> {
        self.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())?;
        self.doubt.notify_one();
        let id = self.metrics().id;
        let moved = |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader.is_some_and(|leader| leader != id);
        let waited = self.raft.wait(Some(limit)).metrics(moved, "leadership handed over").await;
        waited.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The voter that leadership may move to: answered the newest heartbeats and, of those, holds the most.
    pub(crate) fn successor(&self) -> Option<u64> {
        let metrics = self.metrics();
        let fresh = self.config.heartbeat_interval * 3;
        metrics
            .membership_config
            .voter_ids()
            .filter(|id| *id != metrics.id)
            .map(|id| (self.progress(id), id))
            .filter(|(progress, _)| progress.last_answer.is_some_and(|age| age <= fresh))
            .max_by_key(|(progress, id)| (progress.matched, *id))
            .map(|(_, id)| id)
    }

    /// A voter that is not short of space and could lead at once, if there is one.
    pub(crate) fn successor_with_room(&self) -> Option<u64> {
        let last = self.last_log_index()?.0;
        let fresh = self.config.heartbeat_interval * 3;
        let could = |id: &u64| {
            let progress = self.progress(*id);
            let matched = progress.matched.map_or(0, |matched| matched.0);
            progress.last_answer.is_some_and(|age| age <= fresh)
                && last.saturating_sub(matched) <= self.config.promotion_lag_entries
                && self.peers.spaces.level(*id, fresh) == Some(SpaceLevel::Normal)
        };
        let metrics = self.metrics();
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.id);
        others.filter(could).max_by_key(|id| (self.progress(*id).matched, *id))
    }

    /// Which transactions the disks of a quorum take.
    pub(crate) fn quorum_space(&self) -> QuorumSpace {
        let membership = self.membership();
        let membership = membership.membership();
        let fresh = self.config.election_timeout.end * 2;
        let (level, id) = self.peers.spaces.of_quorum(self.id, membership.get_joint_config(), fresh);
        if level == SpaceLevel::Normal {
            return QuorumSpace::default();
        }
        let name = membership.get_node(&id).map_or_else(|| format!("{id:016x}"), |node| node.name.clone());
        QuorumSpace { level, node: name }
    }

    /// Makes this node, whose log is empty, the only voter of a new cluster.
    pub(crate) async fn initialize(&self, membership: &Membership) -> Result<(), String> {
        let nodes: std::collections::BTreeMap<u64, crate::types::NodeInfo> =
            membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        self.raft.initialize(nodes).await.map_err(|error| error.to_string())
    }

    /// Stops the consensus. It counts as stopped at once; the core is waited for, and left alone if a disk that hangs
    /// keeps it.
    pub(crate) async fn shutdown(&self, why: &str) {
        self.stop.set(why);
        match tokio::time::timeout(SHUTDOWN_LIMIT, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the consensus ended badly"),
            Err(_) => tracing::error!("the consensus does not end: an operation on the disk hangs"),
        }
    }
}

/// A view of what changes seldom, that remembers what was seen: under load the full metrics change with every entry.
pub(crate) struct ServerWatch(WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>);

fn proposed(result: WriteResult) -> Proposed {
    match result {
        Ok(response) => Proposed::Applied { log_id: to_log_id(&response.log_id), void: response.data == Outcome::Void },
        // openraft answers so only before an entry gets its log id.
        Err(ClientWriteError::ForwardToLeader(forward)) => Proposed::Refused { why: format!("{:?}", forward.reason) },
        Err(error) => Proposed::Unknown { why: error.to_string() },
    }
}
