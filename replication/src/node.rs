//! A node as the server sees it: the part in the consensus, the merger, the reads and the forwarding, in one handle.
//!
//! Stopped in this order: admission ends and what is in flight gets its outcome (for a while); leadership is handed
//! over, if wished; the merger ends; the consensus ends; a last checkpoint; the engine is closed. Whoever waits past one
//! of these is told *unknown* or *not committed* by the part that ended. A merger that ends unasked stops the consensus
//! too.

use std::sync::{Arc, Weak};
use std::time::Duration;

use calamus_engine::{Engine, ReadTxn};
use calamus_proto::raft::v1::ForwardRequest;
use calamus_proto::raft::v1::raft_server::RaftServer;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::session_result::Kind as SessionResultKind;
use calamus_proto::v1::{
    AddRequest, AddResponse, ChangeResponse, CloseSessionRequest, CloseSessionResponse, Consistency, FreezeResponse,
    Member, NodeStatus, ObserveRequest, OpenSessionRequest, OpenSessionResponse, Operation, Position, PromoteRequest,
    ReadPoint, RemoveRequest, RemoveResponse, ReplaceRequest, ResolveRequest, ResolveResponse, SeenTxn,
    SessionOperation, SessionResult, TransferRequest, TransferResponse, TxnRequest, TxnResponse,
};
use futures::FutureExt;
use tokio::sync::watch;
use tonic::Status;

use crate::error::{TxnError, reason};
use crate::forward::{self, Forwarding};
use crate::merger::{Merger, MergerStats};
use crate::network::service::RaftService;
use crate::node_error::NodeError;
use crate::options::NodeConfig;
use crate::reads::{Reads, at_least};
use crate::replica::Replica;
use crate::seam::{Consensus, LeaderInfo, Leadership};
use crate::seeding::SeedFrom;
use crate::status;
use crate::succession::unless_succeeded;
use crate::types::NodeInfo;

/// How long transactions that were admitted may run on when the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    replica: Replica,
    merger: Arc<Merger>,
    reads: Reads,
    forwarding: Forwarding,
    config: NodeConfig,
}

impl Node {
    /// Starts a node on an open engine. It takes part as soon as its service is reachable.
    ///
    /// # Errors
    /// When the options contradict each other, or the log cannot be read.
    pub async fn start(engine: Engine, config: NodeConfig) -> Result<Self, NodeError> {
        let identity = engine.identity();
        // Opening the engine has applied all that its journal knows to be committed.
        let known_committed = engine.applied().log_id;
        let replica = Replica::start(engine.clone(), config.clone()).await?;
        let consensus: Arc<dyn Consensus> = Arc::new(replica.clone());
        let merger = Arc::new(Merger::start(engine.clone(), Arc::clone(&consensus), config.merger.clone()));
        tokio::spawn(stop_with_the_merger(merger.ended(), replica.clone()));
        let reads = Reads::start(engine, consensus, known_committed);
        let timeout = config.merger.default_timeout;
        let reach = config.reach.clone();
        let forwarding = Forwarding::new(identity.cluster_id, identity.raft_id, config.connect_limit, timeout, reach);
        // Weak: the merger's task holds the consensus, which holds this.
        let weak = Arc::downgrade(&merger);
        replica.set_forwarder(Arc::new(move |request| serve_forwarded(weak.clone(), request).boxed()));
        let inner = Inner { name: identity.name, replica, merger, reads, forwarding, config };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The service that the other nodes speak with; the server mounts it.
    #[must_use]
    pub fn raft_server(&self) -> RaftServer<RaftService> {
        self.inner.replica.service()
    }

    /// Makes this node the only voter of a new cluster; nothing is done if it was one already.
    ///
    /// # Errors
    /// When its log is not empty, and not that of a cluster in which this node votes.
    pub async fn bootstrap(&self) -> Result<(), NodeError> {
        self.inner.replica.bootstrap().await
    }

    /// Runs a transaction: here if this node leads, else on the leader.
    ///
    /// # Errors
    /// Not committed, or unknown: see [`TxnError`].
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, TxnError> {
        match self.leader_for_txn().await? {
            None => self.inner.merger.submit(request, None).await,
            Some(leader) => {
                let answer = self.inner.forwarding.forward(&leader, request);
                unless_succeeded(self.leadership(), &leader, answer).await
            }
        }
    }

    /// As [`Self::txn`], for what the nodes agree on among each other: it may name the trees of the system.
    ///
    /// # Errors
    /// As there.
    pub async fn system_txn(&self, request: TxnRequest) -> Result<TxnResponse, TxnError> {
        match self.leader_for_txn().await? {
            None => self.inner.merger.submit_system(request, None).await,
            Some(leader) => {
                let answer = self.inner.forwarding.forward_system(&leader, request);
                unless_succeeded(self.leadership(), &leader, answer).await
            }
        }
    }

    /// Opens a session that lives so many milliseconds without being used; 0: the default.
    ///
    /// # Errors
    /// As [`Self::txn`]. After an unknown outcome there may be a session that nobody knows; it expires.
    pub async fn open_session(&self, request: OpenSessionRequest) -> Result<OpenSessionResponse, TxnError> {
        match self.session_txn(SessionKind::Open(request)).await? {
            SessionResultKind::Open(opened) => Ok(opened),
            _ => Err(not_understood()),
        }
    }

    /// Closes a session. None of its transactions runs afterwards.
    ///
    /// # Errors
    /// As [`Self::txn`].
    pub async fn close_session(&self, request: CloseSessionRequest) -> Result<CloseSessionResponse, TxnError> {
        match self.session_txn(SessionKind::Close(request)).await? {
            SessionResultKind::Close(closed) => Ok(closed),
            _ => Err(not_understood()),
        }
    }

    /// Makes the outcome of a session's transaction final.
    ///
    /// # Errors
    /// As [`Self::txn`]; of *not committed* here nothing follows for the transaction.
    pub async fn resolve(&self, request: ResolveRequest) -> Result<ResolveResponse, TxnError> {
        match self.session_txn(SessionKind::Resolve(request)).await? {
            SessionResultKind::Resolve(resolved) => Ok(resolved),
            _ => Err(not_understood()),
        }
    }

    async fn session_txn(&self, kind: SessionKind) -> Result<SessionResultKind, TxnError> {
        let operation = Kind::Session(SessionOperation { kind: Some(kind) });
        let operations = vec![Operation { kind: Some(operation) }];
        let answer = self.system_txn(TxnRequest { operations, ..TxnRequest::default() }).await?;
        match answer.results.into_iter().next().and_then(|result| result.kind) {
            Some(ResultKind::Session(SessionResult { kind: Some(result) })) => Ok(result),
            _ => Err(not_understood()),
        }
    }

    /// Who runs transactions: another node, or `None` for this one.
    async fn leader_for_txn(&self) -> Result<Option<LeaderInfo>, TxnError> {
        match self.some_leader().await {
            Leadership::Leading { .. } => Ok(None),
            Leadership::Following { leader: Some(leader), .. } => Ok(Some(leader)),
            Leadership::Following { leader: None, .. } => Err(TxnError::not_committed(
                reason::NO_LEADER,
                "no leader is known: perhaps a quorum of the nodes is missing; nothing was changed, send it again",
            )),
            Leadership::Stopped { why } => Err(TxnError::not_committed(
                reason::STOPPING,
                format!("the consensus has stopped on this node: {why}; nothing was changed, send it to another node"),
            )),
        }
    }

    /// Who leads; waits about an election's time for somebody to.
    async fn some_leader(&self) -> Leadership {
        let mut leadership = self.leadership();
        let known = leadership.wait_for(|now| !matches!(now, Leadership::Following { leader: None, .. }));
        let limit = self.inner.config.election_timeout.end * 2;
        if let Ok(Ok(known)) = tokio::time::timeout(limit, known).await {
            return known.clone();
        }
        leadership.borrow().clone()
    }

    /// A snapshot to read from. It must not be held longer than needed.
    ///
    /// # Errors
    /// When there is no read point in time, or this node has not caught up with what it knew before it stopped.
    pub async fn read(&self, consistency: Consistency) -> Result<(ReadTxn, ReadPoint), TxnError> {
        self.read_at_least(consistency, SeenTxn::default()).await
    }

    /// A snapshot to read from that is not older than a transaction which the reader knows of: see
    /// [`crate::reads::at_least`]. It must not be held longer than needed.
    ///
    /// # Errors
    /// As [`Self::read`]; when this node has not applied it in time, or it is not one of this database.
    pub async fn read_at_least(
        &self,
        consistency: Consistency,
        seen: SeenTxn,
    ) -> Result<(ReadTxn, ReadPoint), TxnError> {
        if consistency == Consistency::Local {
            let applied = self.inner.replica.core().applied.subscribe();
            at_least::wait(self.engine(), applied, seen, self.inner.config.read_patience).await?;
        }
        let (txn, point) = self.snapshot(consistency).await?;
        at_least::check(seen, &point)?;
        Ok((txn, point))
    }

    async fn snapshot(&self, consistency: Consistency) -> Result<(ReadTxn, ReadPoint), TxnError> {
        let (txn, age) = match consistency {
            Consistency::Linearizable => {
                (self.inner.reads.linearizable(self.inner.config.read_patience).await?, Duration::ZERO)
            }
            Consistency::Local => {
                // The age first: the snapshot is not older than it says.
                let age = self.age();
                (self.inner.reads.local()?, age)
            }
        };
        let point = self.point(txn.txn_id().0, age);
        Ok((txn, point))
    }

    /// How far this node is, and how old that may be, as a local read would say.
    #[must_use]
    pub fn local_point(&self) -> ReadPoint {
        let age = self.age();
        self.point(self.engine().applied().txn_id.0, age)
    }

    fn age(&self) -> Duration {
        self.inner.replica.core().age().unwrap_or(Duration::MAX)
    }

    fn point(&self, txn_id: u64, age: Duration) -> ReadPoint {
        let age_micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        ReadPoint { txn_id, age_micros, node: self.inner.name.clone(), timeline: self.engine().timeline().0 }
    }

    /// Makes a node known. The same request again changes nothing and says how far it is.
    ///
    /// # Errors
    /// When this node does not lead, or the request contradicts the membership.
    pub async fn add(&self, request: AddRequest) -> Result<AddResponse, NodeError> {
        let members = self.inner.replica.add(&request).await?;
        Ok(AddResponse {
            cluster_id: self.engine().identity().cluster_id.to_string(),
            database_id: self.engine().database_id().to_string(),
            members,
        })
    }

    /// Takes a node out of the cluster.
    ///
    /// # Errors
    /// When this node does not lead, there is no such member, or too few live voters would be left.
    pub async fn remove(&self, request: RemoveRequest) -> Result<RemoveResponse, NodeError> {
        Ok(RemoveResponse { members: self.inner.replica.remove(&request).await? })
    }

    /// Makes a voter of a member that is none, once it has caught up; says how far it is.
    ///
    /// # Errors
    /// When this node does not lead, or there is no such member.
    pub async fn promote(&self, request: PromoteRequest) -> Result<ChangeResponse, NodeError> {
        self.inner.replica.promote(&request).await
    }

    /// Makes an observer of a member.
    ///
    /// # Errors
    /// When this node does not lead, there is no such member, or too few live voters would be left.
    pub async fn observe(&self, request: ObserveRequest) -> Result<ChangeResponse, NodeError> {
        self.inner.replica.observe(&request).await
    }

    /// Puts a node in the place of another; says how far it is.
    ///
    /// # Errors
    /// When this node does not lead, or what is asked contradicts the membership or would do harm.
    pub async fn replace(&self, request: ReplaceRequest) -> Result<ChangeResponse, NodeError> {
        self.inner.replica.replace(&request).await
    }

    /// Hands leadership to another voter.
    ///
    /// # Errors
    /// When this node does not lead, or that voter cannot take it now.
    pub async fn transfer(&self, request: TransferRequest) -> Result<TransferResponse, NodeError> {
        Ok(TransferResponse { leader: self.inner.replica.transfer(&request.to).await? })
    }

    /// Stops the admission of transactions here and waits for those in flight, or lets it go on.
    pub async fn freeze(&self, frozen: bool) -> FreezeResponse {
        self.inner.merger.freeze(frozen);
        let limit = self.inner.config.merger.default_timeout;
        if frozen && tokio::time::timeout(limit, self.inner.merger.drained()).await.is_err() {
            tracing::warn!("transactions are in flight without an outcome; the node is frozen all the same");
        }
        let last = self.engine().log_state().last;
        FreezeResponse { last_log: last.map(|last| Position { term: last.term.0, index: last.index.0 }) }
    }

    /// How this node is.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus { frozen: self.inner.merger.is_frozen(), ..status::of(&self.inner.replica) }
    }

    /// Says what this node is to be seeded from, if it has to be: see [`Replica::seed_from`].
    pub fn seed_from(&self, from: SeedFrom, on_seeded: Box<dyn Fn() + Send + Sync>) {
        self.inner.replica.seed_from(from, on_seeded);
    }

    /// What the merger has counted.
    #[must_use]
    pub fn merger_stats(&self) -> MergerStats {
        self.inner.merger.stats()
    }

    /// This node's part in the consensus, as it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.replica.leadership()
    }

    /// The members as this node knows them.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.inner.replica.members()
    }

    /// What the membership says of this node, as far as it knows; `None` if it is no member.
    #[must_use]
    pub fn own_entry(&self) -> Option<NodeInfo> {
        self.inner.replica.own_entry()
    }

    /// Where this node reaches the node of this name, which advertises that address.
    #[must_use]
    pub fn address_of<'a>(&'a self, name: &str, advertised: &'a str) -> &'a str {
        self.inner.config.reach.address(name, advertised)
    }

    /// Waits until a leader is known and this node has caught up with it.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the consensus stops.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), NodeError> {
        self.inner.replica.wait_ready(limit).await
    }

    /// Stops the node, see the module. With `hand_over`, another voter leads before this one goes.
    ///
    /// # Errors
    /// When the last checkpoint fails; everything is stopped all the same.
    pub async fn shutdown(&self, hand_over: bool) -> Result<(), NodeError> {
        self.inner.merger.freeze(true);
        if tokio::time::timeout(DRAIN, self.inner.merger.drained()).await.is_err() {
            tracing::warn!("transactions are in flight without an outcome");
        }
        if hand_over {
            self.inner.replica.hand_over().await;
        }
        self.inner.merger.stop().await;
        self.inner.replica.shutdown().await
    }

    #[cfg(test)]
    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    #[cfg(test)]
    pub(crate) fn replica(&self) -> &Replica {
        &self.inner.replica
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.inner.replica.engine()
    }
}

/// The answer to an operation on sessions is not of its kind: a defect, or a leader of another version.
fn not_understood() -> TxnError {
    TxnError::unknown(reason::OTHER, "the leader's answer about a session is not understood; is it of another version?")
}

/// A merger that ended unasked has panicked. A node without one must not lead: it would answer every write with a refusal
/// while its heartbeats keep the others from electing.
async fn stop_with_the_merger(ended: impl Future<Output = bool>, replica: Replica) {
    if !ended.await {
        replica.stop("the merger ended by itself, which is a defect: its panic stands in the log").await;
    }
}

async fn serve_forwarded(merger: Weak<Merger>, request: ForwardRequest) -> Result<TxnResponse, Status> {
    match merger.upgrade() {
        Some(merger) => forward::serve(&merger, request).await,
        None => Err(Status::unavailable("this node is stopping")),
    }
}
