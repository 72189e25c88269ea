//! A node's part in the consensus: the core, its network and the tasks that watch over them. No transactions yet.
//!
//! Started in this order: the core (openraft re-reads vote, log and membership from the engine), then leadership,
//! trimming, promotion, the watchdog and the failover, each of which ends when the core stops. Stopped in the
//! opposite one: leadership is handed over while the log can still be served, then the core ends, and only then a
//! last checkpoint is made and the engine closed; nothing is appended behind it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::{LogId, RaftId, Term};
use calamus_engine::journal::frame::Payload;
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::raft_server::RaftServer;
use calamus_proto::v1::{
    AddRequest, ChangeResponse, Member, ObserveRequest, PromoteRequest, RemoveRequest, ReplaceRequest,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::core::{Core, Standing};
use crate::failover::{self, Lost};
use crate::handover;
use crate::leadership;
use crate::membership;
use crate::network::client::Network;
use crate::network::commit_notes::CommitNotes;
use crate::network::convert;
use crate::network::introduce::introduce;
use crate::network::peers::{Lane, Peers};
use crate::network::service::{Forwarder, RaftService};
use crate::node_error::NodeError;
use crate::options::NodeConfig;
use crate::repair;
use crate::seam::{Consensus, LeaderInfo, Leadership, Proposed, ReadIndexError};
use crate::seeding::order::SeedFrom;
use crate::seeding::pace::Pace;
use crate::seeding::seat::Seeding;
use crate::silence;
use crate::space::QuorumSpace;
use crate::state_machine::StopReason;
use crate::trimming::{self, SeedHolds};
use crate::types::NodeInfo;
use crate::watchdog;

/// How long applying may take behind a read point.
const APPLY_LIMIT: Duration = Duration::from_secs(10);

/// A running part in the consensus. Clones share it.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    core: Core,
    peers: Arc<Peers>,
    leadership: watch::Receiver<Leadership>,
    forwarder: Arc<OnceLock<Forwarder>>,
    seeding: Arc<Seeding>,
    seed_pace: Arc<Pace>,
    lost: Lost,
    notes: CommitNotes,
    tasks: Mutex<JoinSet<()>>,
}

impl Replica {
    /// Starts on an open engine.
    ///
    /// # Errors
    /// When the options contradict each other, or the log cannot be read; [`NodeError::RolledBack`] if another node knows
    /// that the directory was put back to an earlier state.
    pub async fn start(engine: Engine, config: NodeConfig) -> Result<Self, NodeError> {
        let identity = engine.identity();
        let peers = Peers::new(identity.cluster_id, identity.raft_id, config.connect_limit, config.reach.clone());
        let peers = Arc::new(peers);
        let holds = SeedHolds::default();
        let notes = CommitNotes::default();
        let network = Network::new(engine.clone(), Arc::clone(&peers), config.clone(), holds.clone(), notes.clone());
        let core = Core::start(&engine, &config, network, Arc::clone(&peers), StopReason::default()).await;
        let core = core.map_err(NodeError::Stopped)?;
        // Its own service is not there yet, and it stands for no election: nothing that it promises can be under way.
        let membership = core.effective_membership().await.map_err(NodeError::Stopped)?;
        if let Some(why) = introduce(&engine, &peers, membership.membership()).await {
            core.shutdown("its directory was put back to an earlier state").await;
            return Err(NodeError::RolledBack(why));
        }
        core.stand();
        let (sender, leadership) = watch::channel(Leadership::Following { term: Term(0), leader: None });
        let lost = Lost::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(leadership::run(core.clone(), Arc::clone(&peers), sender));
        tasks.spawn(trimming::run(engine.clone(), core.clone(), holds));
        tasks.spawn(membership::promote_learners(core.clone()));
        tasks.spawn(membership::removal::watch(core.clone()));
        tasks.spawn(watchdog::run(engine.clone(), core.clone()));
        tasks.spawn(silence::run(core.clone()));
        tasks.spawn(failover::run(core.clone(), Arc::clone(&peers), lost.clone()));
        tasks.spawn(repair::run(engine.clone(), core.clone(), Arc::clone(&peers)));
        let inner = Inner {
            engine,
            core,
            peers,
            leadership,
            forwarder: Arc::default(),
            seeding: Arc::default(),
            seed_pace: Arc::new(Pace::new(config.seed_bytes_per_second)),
            lost,
            notes,
            tasks: Mutex::new(tasks),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Who runs transactions that other nodes forward. Said once, by whoever owns the merger.
    pub fn set_forwarder(&self, forwarder: Forwarder) {
        // A second one would mean two mergers on one engine.
        assert!(self.inner.forwarder.set(forwarder).is_ok(), "the forwarder is set twice");
    }

    /// The gRPC service that the other nodes speak with.
    #[must_use]
    pub fn service(&self) -> RaftServer<RaftService> {
        let slot = Arc::clone(&self.inner.forwarder);
        let forwarder: Forwarder = Arc::new(move |request: wire::ForwardRequest| match slot.get() {
            Some(forwarder) => forwarder(request),
            None => async { Err(Status::unavailable("this node runs no transactions")) }.boxed(),
        });
        let service = RaftService {
            engine: self.inner.engine.clone(),
            core: self.inner.core.clone(),
            cluster: self.inner.peers.cluster(),
            this: self.inner.peers.this(),
            forwarder,
            seeding: Arc::clone(&self.inner.seeding),
            seed_pace: Arc::clone(&self.inner.seed_pace),
            lost: self.inner.lost.clone(),
            notes: self.inner.notes.clone(),
        };
        RaftServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Makes this node the only voter of a new cluster. If its log shows that this was done before, nothing is left to do:
    /// whoever asked may have been cut off before it could note the answer.
    ///
    /// # Errors
    /// When its log is not empty, and not that of a cluster in which this node votes.
    pub async fn bootstrap(&self) -> Result<(), NodeError> {
        let identity = self.inner.engine.identity();
        let info = NodeInfo { name: identity.name, address: identity.advertise, ..NodeInfo::default() };
        let membership = membership::of_one(identity.raft_id, info);
        let Err(error) = self.inner.core.initialize(&membership).await else { return Ok(()) };
        // The core has answered, so what it shows is what its log holds.
        if self.inner.core.membership().voter_ids().any(|voter| voter == identity.raft_id.0) {
            return Ok(());
        }
        Err(NodeError::Refused(format!("only a node with an empty log can begin a cluster: {error}")))
    }

    /// See `membership::add`.
    ///
    /// # Errors
    /// When this node does not lead, or the request contradicts the membership.
    pub async fn add(&self, request: &AddRequest) -> Result<Vec<Member>, NodeError> {
        membership::add(&self.inner.core, self.inner.peers.cluster(), request).await?;
        Ok(self.members())
    }

    /// Takes a node out of the cluster.
    ///
    /// # Errors
    /// When this node does not lead, there is no such member, or too few live voters would be left.
    pub async fn remove(&self, request: &RemoveRequest) -> Result<Vec<Member>, NodeError> {
        membership::remove(&self.inner.core, self.inner.peers.cluster(), request).await?;
        Ok(self.members())
    }

    /// Makes a voter of a member that is none, once it has caught up; says how far it is.
    ///
    /// # Errors
    /// When this node does not lead, or there is no such member.
    pub async fn promote(&self, request: &PromoteRequest) -> Result<ChangeResponse, NodeError> {
        Ok(self.progress_of(membership::promote(&self.inner.core, request).await?))
    }

    /// Makes an observer of a member. A leader that is to become one hands over first, and the next one is to be asked.
    ///
    /// # Errors
    /// When this node does not lead, there is no such member, or too few live voters would be left.
    pub async fn observe(&self, request: &ObserveRequest) -> Result<ChangeResponse, NodeError> {
        let core = &self.inner.core;
        if membership::is_called(core, &request.name) && self.members().iter().filter(|member| member.voter).count() > 1
        {
            // A leader that stops voting in its own change would lead on for a while, as nobody's voter.
            let to = self.transfer("").await?;
            tracing::info!(to, "leadership was handed over, so that this node can become an observer");
            return Err(NodeError::NotLeader { leader: self.leader() });
        }
        Ok(self.progress_of(membership::observe(core, self.inner.peers.cluster(), request).await?))
    }

    /// Puts a node in the place of a member of another name; says how far it is.
    ///
    /// # Errors
    /// When this node does not lead, there is no such member, the old one answers and nobody said that it may, or too few
    /// live voters would be left.
    pub async fn replace(&self, request: &ReplaceRequest) -> Result<ChangeResponse, NodeError> {
        let progress = membership::replace(&self.inner.core, self.inner.peers.cluster(), request).await?;
        Ok(self.progress_of(progress))
    }

    fn progress_of(&self, progress: membership::Progress) -> ChangeResponse {
        ChangeResponse { done: progress.done, behind: progress.behind, members: self.members() }
    }

    /// The members of the newest membership that this node knows to be committed.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        membership::members(self.inner.core.metrics().committed_membership_config.membership())
    }

    /// What the newest membership that this node knows to be committed says of this node; `None` if it is no member.
    #[must_use]
    pub fn own_entry(&self) -> Option<NodeInfo> {
        let metrics = self.inner.core.metrics();
        metrics.committed_membership_config.membership().get_node(&metrics.id).cloned()
    }

    /// Hands leadership to the voter called `to`, or if that is empty to the one that holds most. Returns its name.
    ///
    /// # Errors
    /// When this node does not lead, or that voter does not answer or is behind.
    pub async fn transfer(&self, to: &str) -> Result<String, NodeError> {
        let core = &self.inner.core;
        let Standing::Elected { .. } = core.standing() else {
            return Err(NodeError::NotLeader { leader: self.leader() });
        };
        let members = self.members();
        let target = if to.is_empty() {
            core.successor().ok_or_else(|| NodeError::Refused("no other voter answers".to_owned()))?
        } else {
            let named = members.iter().find(|member| member.name == to && member.voter);
            named.ok_or_else(|| NodeError::Refused(format!("no voter is called {to:?}")))?.raft_id
        };
        let name = members.iter().find(|member| member.raft_id == target).map_or_else(String::new, |m| m.name.clone());
        if target == self.inner.peers.this().0 {
            return Ok(name);
        }
        let progress = core.progress(target);
        let able = handover::may_take_over(progress, core.last_log_index(), &core.config);
        if !core.config.transfers_blindly() {
            able.map_err(|why| NodeError::Refused(format!("{name} {why}")))?;
        }
        let limit = core.config.election_timeout.end * 3;
        let moved = core.transfer(target, limit).await;
        moved.map_err(|_| NodeError::Timeout { waited: limit, what: format!("{name} has not taken over") })?;
        Ok(name)
    }

    /// The leader, this node included, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<LeaderInfo> {
        let core = &self.inner.core;
        match core.standing() {
            Standing::Elected { term } => leadership::leader_info(core, term, self.inner.peers.this().0),
            Standing::Following { term, leader } => leader.and_then(|id| leadership::leader_info(core, term, id)),
            Standing::Stopped { .. } => None,
        }
    }

    /// The core, for a status.
    pub(crate) fn core(&self) -> &Core {
        &self.inner.core
    }

    /// The bytes that a running seeding of this node has received, and how long the source's data file is; 0 before that is
    /// known.
    #[must_use]
    pub fn seeding_progress(&self) -> Option<(u64, u64)> {
        self.inner.seeding.progress()
    }

    /// Whom a running seeding of this node is fed from: the name of a node, or of a place with backups.
    #[must_use]
    pub fn seeding_source(&self) -> Option<String> {
        self.inner.seeding.source()
    }

    /// How many seedings of this node were begun since it started, from the first page on.
    #[must_use]
    pub fn seedings_begun(&self) -> u64 {
        self.inner.seeding.begun()
    }

    /// How many streams this node has begun to send to nodes that are seeded, since it started.
    #[must_use]
    pub fn seedings_served(&self) -> u64 {
        self.inner.seed_pace.streams()
    }

    /// How often a seeding of this node went on where it had been cut, since it started.
    #[must_use]
    pub fn seedings_resumed(&self) -> u64 {
        self.inner.seeding.resumed()
    }

    /// Says what this node is to be seeded from, if it has to be: now, and until it was. Then `on_seeded` is called, once.
    /// Sources that the leader names remain for when that one fails.
    pub fn seed_from(&self, from: SeedFrom, on_seeded: Box<dyn Fn() + Send + Sync>) {
        self.inner.seeding.wish(from, on_seeded);
    }

    /// Waits until a leader is known and this node has caught up with it.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the consensus stops.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), NodeError> {
        let ready = async {
            let mut leadership = self.leadership();
            loop {
                match &*leadership.borrow_and_update() {
                    Leadership::Leading { .. } => return Ok(()),
                    Leadership::Following { leader: Some(_), .. } => break,
                    Leadership::Stopped { why } => return Err(NodeError::Stopped(why.clone())),
                    Leadership::Following { .. } => {}
                }
                if leadership.changed().await.is_err() {
                    return Err(NodeError::Stopped("shut down".to_owned()));
                }
            }
            loop {
                if let Ok(read) = self.read_index(None).await
                    && self.wait_applied(read).await.is_ok()
                {
                    return Ok(());
                }
                if let Leadership::Stopped { why } = &*leadership.borrow() {
                    return Err(NodeError::Stopped(why.clone()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let timeout =
            || NodeError::Timeout { waited: limit, what: "no leader is known, or this node is behind".to_owned() };
        tokio::time::timeout(limit, ready).await.map_err(|_| timeout())?
    }

    /// If this node leads: takes no more proposals and hands leadership over to whoever can have it. Best effort.
    pub async fn hand_over(&self) {
        let core = &self.inner.core;
        if !matches!(core.standing(), Standing::Elected { .. }) {
            return;
        }
        core.refuse.store(true, Ordering::Release);
        core.doubt.notify_one();
        if let Some(successor) = core.successor()
            && let Err(error) = core.transfer(successor, core.config.election_timeout.end).await
        {
            tracing::warn!(error, "leadership was not handed over");
        }
    }

    /// Ends this node's part because of a failure; local reads go on.
    pub(crate) async fn stop(&self, why: &str) {
        tracing::error!(why, "the consensus stops");
        self.inner.core.shutdown(why).await;
    }

    /// Ends this node's part, makes a last checkpoint of what it may, and closes the engine.
    ///
    /// # Errors
    /// When the checkpoint fails; everything is stopped all the same.
    pub async fn shutdown(&self) -> Result<(), NodeError> {
        self.inner.core.shutdown("shut down").await;
        // Whoever looks at a node that has ended must not see it leading. The task that says so waits for nothing.
        let mut leadership = self.leadership();
        let _ = leadership.wait_for(|shown| matches!(shown, Leadership::Stopped { .. })).await;
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.shutdown().await;
        let kept = self.inner.seeding.end();
        let engine = self.inner.engine.clone();
        let closing = tokio::task::spawn_blocking(move || {
            drop(kept);
            let result = engine.checkpoint();
            engine.close();
            result
        });
        let result = closing.await.map_err(|panic| NodeError::Stopped(panic.to_string()))?;
        result.map(|_| ()).map_err(NodeError::from)
    }
}

impl Consensus for Replica {
    fn propose(&self, term: Term, payload: Payload) -> oneshot::Receiver<Proposed> {
        self.inner.core.propose(term, payload)
    }

    fn read_index(&self, term: Option<Term>) -> BoxFuture<'static, Result<Option<LogId>, ReadIndexError>> {
        let replica = self.clone();
        async move {
            let core = &replica.inner.core;
            match core.standing() {
                Standing::Elected { .. } => core.lead_read_index(term).await.map(Some),
                Standing::Stopped { why } => Err(ReadIndexError::Stopped { why }),
                Standing::Following { .. } if term.is_some() => {
                    Err(ReadIndexError::NotLeading { leader: replica.leader() })
                }
                Standing::Following { .. } => match replica.leader() {
                    Some(leader) => replica.ask_leader(leader).await,
                    None => Err(ReadIndexError::NoLeader),
                },
            }
        }
        .boxed()
    }

    fn wait_applied(&self, log_id: Option<LogId>) -> BoxFuture<'static, Result<(), ReadIndexError>> {
        let core = self.inner.core.clone();
        async move {
            match log_id {
                Some(log_id) => core.wait_applied(log_id, APPLY_LIMIT).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    fn quorum_space(&self) -> QuorumSpace {
        self.inner.core.quorum_space()
    }
}

impl Replica {
    async fn ask_leader(&self, leader: LeaderInfo) -> Result<Option<LogId>, ReadIndexError> {
        let peers = &self.inner.peers;
        let limit = self.inner.core.config.election_timeout.end;
        let unreachable = |leader: LeaderInfo, why: String| ReadIndexError::Unreachable { leader, why };
        let to: RaftId = leader.raft_id;
        let mut client = match peers.client(to, Lane::Control) {
            Ok(client) => client,
            Err(error) => return Err(unreachable(leader, error.to_string())),
        };
        let request = wire::ReadIndexRequest { envelope: peers.envelope(to) };
        match tokio::time::timeout(limit, client.read_index(request)).await {
            Ok(Ok(response)) => match response.into_inner().read_log_id {
                Some(read) => Ok(Some(convert::plain_log_id_from_wire(read))),
                None => Err(unreachable(leader, "it answered without a log id".to_owned())),
            },
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                peers.note_refusal(&status);
                Err(ReadIndexError::NotLeading { leader: self.leader().filter(|now| now.raft_id != to) })
            }
            Ok(Err(status)) => Err(unreachable(leader, status.message().to_owned())),
            Err(_) => Err(ReadIndexError::Timeout { waited: limit }),
        }
    }
}
