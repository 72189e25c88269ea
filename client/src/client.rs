//! The handle that an application holds: transactions, reads, and the retry loop around both.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1 as proto;
use calamus_proto::v1::{Entry, GetRequest, GetResponse, ListTreesRequest, ListTreesResponse, TxnRequest, TxnResponse};
use prost::Message;
use rand::SeedableRng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::cluster::Cluster;
use crate::discovery::{ConnectError, Discovery};
use crate::nodes::Node;
use crate::outcome::{Committed, Failure, ReadError, TxnError};
use crate::read::ReadAs;
use crate::retry::{Backoff, Refusal, TIMEOUT, UNREACHABLE};
use crate::topology::Topology;
use crate::txn::Txn;

/// How often in a row a node's word on who leads is followed at once, without a wait.
const REDIRECTS: u32 = 3;

/// The least time that another attempt is begun with.
const LEAST_ATTEMPT: Duration = Duration::from_millis(250);

/// Which node a read is asked of first. Reads are linearizable on every node, so this is about load and distance only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader: one hop less.
    #[default]
    Leader,
    /// All nodes in turn.
    Spread,
    /// The addresses that the client was started with, in that order: the first that works.
    Endpoints,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take, with all its attempts.
    pub deadline: Duration,
    /// How long the first attempt may take, if another one may follow it; after each that took too long the next may take
    /// twice as long, up to what is left of the deadline: work that needs longer is not begun again for ever. Also the
    /// longest gap within a scan.
    pub attempt_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// Which node reads go to.
    pub read_from: ReadFrom,
    /// Where to keep the last known topology; `None`: nowhere.
    pub topology_file: Option<PathBuf>,
    /// Connections to each node; more than one helps only at tens of thousands of calls a second.
    pub connections_per_node: usize,
}

impl Default for Options {
    /// 15 s a call, 3 s an attempt, 2 s to connect; reads from the leader.
    fn default() -> Self {
        Options {
            deadline: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            backoff: Backoff::default(),
            read_from: ReadFrom::Leader,
            topology_file: None,
            connections_per_node: 1,
        }
    }
}

/// A client of one cluster. Cheap to clone; clones share connections and what is known of the cluster.
#[derive(Clone, Debug)]
pub struct Client {
    discovery: Arc<Discovery>,
    options: Arc<Options>,
}

/// What may be done when the outcome of an attempt is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfUnknown {
    Repeat,
    Stop,
}

/// How many attempts a call took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    pub attempts: u32,
    pub unknown: u32,
    /// Attempts that came as far as a node which answered for itself, or was lost.
    pub sent: u32,
}

/// What is too large for a message is not sent.
pub(crate) fn check_size(bytes: usize) -> Result<(), TxnError> {
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    let message = format!("the transaction takes {bytes} bytes, the limit is {MAX_MESSAGE_BYTES}; split it");
    Err(TxnError::NotCommitted(Failure::new("txn_too_large", message, Code::InvalidArgument)))
}

/// A request that is sent with so much time for its answer.
pub(crate) fn with_timeout(request: &TxnRequest, budget: Duration) -> TxnRequest {
    // The node gives up a little before this client does, so that its answer says what it knows.
    let wait = budget.saturating_sub((budget / 10).min(Duration::from_millis(100)));
    TxnRequest { timeout_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1), ..request.clone() }
}

/// The answer of a node, if it says that it is committed.
pub(crate) fn committed(response: TxnResponse, tries: Tries) -> Result<Committed, TxnError> {
    let TxnResponse { guards_held, txn_id, timeline, results, outcome, results_dropped } = response;
    if outcome != i32::from(proto::Outcome::Committed) {
        return Err(unknown("bad_answer", "the node answered, and did not say that it is committed", tries));
    }
    let (attempts, unknown_attempts) = (tries.attempts, tries.unknown);
    Ok(Committed { txn_id, timeline, guards_held, results, results_dropped, attempts, unknown_attempts })
}

fn unknown(reason: &str, message: &str, tries: Tries) -> TxnError {
    let failure = Failure::new(reason, message, Code::Unknown);
    TxnError::Unknown(Failure { attempts: tries.attempts, ..failure })
}

impl Client {
    /// Finds the cluster from these addresses (HOST:PORT): any one that answers is enough.
    ///
    /// # Errors
    /// If an address is malformed, none is known, or none answers within the deadline.
    pub async fn connect<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client, ConnectError> {
        let seeds = endpoints.into_iter().map(Into::into).collect();
        let discovery = Discovery::start(seeds, &options).await?;
        Ok(Client { discovery, options: Arc::new(options) })
    }

    /// What is known of the cluster now.
    pub fn topology(&self) -> Topology {
        self.discovery.topology()
    }

    /// Status of the cluster, and changes to it.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// [`TxnError::NotCommitted`] if it changed nothing and never will; [`TxnError::Unknown`] if that is not known. The
    /// latter also if guards did not hold at an attempt after one that ended unknown: that one may have run, and its own
    /// writes may be why they do not.
    pub async fn txn(&self, txn: Txn) -> Result<Committed, TxnError> {
        let deadline = txn.own_deadline().unwrap_or(self.options.deadline);
        let if_unknown = if txn.may_run_twice() { IfUnknown::Repeat } else { IfUnknown::Stop };
        let request = txn.request;
        check_size(request.encoded_len())?;
        let call = |node: Node, budget: Duration| {
            let request = with_timeout(&request, budget);
            async move { node.kv().txn(request).await.map(tonic::Response::into_inner) }
        };
        let (response, tries) = self.change(ReadFrom::Leader, if_unknown, deadline, call).await?;
        let done = committed(response, tries)?;
        if !done.guards_held && tries.unknown > 0 {
            return Err(unknown(
                "guards_after_unknown",
                "the guards do not hold now, and that may be the work of an earlier attempt whose outcome is unknown; \
                 read what it would have written",
                tries,
            ));
        }
        Ok(done)
    }

    /// Writes one value; the tree is made if it is not there. Not repeated after an unknown outcome: see [`Txn::idempotent`].
    ///
    /// # Errors
    /// As [`Client::txn`].
    pub async fn put(
        &self,
        tree: impl Into<String>,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Committed, TxnError> {
        self.txn(Txn::new().put(tree, key, value)).await
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// As [`Client::txn`].
    pub async fn delete(&self, tree: impl Into<String>, key: impl Into<Bytes>) -> Result<Committed, TxnError> {
        self.txn(Txn::new().delete(tree, key)).await
    }

    /// Reads one key, linearizably; `None` if it is not there.
    ///
    /// # Errors
    /// If no node could answer within the deadline, or the request is refused.
    pub async fn get(&self, tree: impl Into<String>, key: impl Into<Bytes>) -> Result<Option<Entry>, ReadError> {
        Ok(self.get_with(tree, key, ReadAs::default()).await?.entry)
    }

    /// Reads one key in the way that `read` says ([`ReadAs`], or just a [`proto::Consistency`]); the answer says where the
    /// read stood.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_with(
        &self,
        tree: impl Into<String>,
        key: impl Into<Bytes>,
        read: impl Into<ReadAs>,
    ) -> Result<GetResponse, ReadError> {
        let ReadAs { consistency, at_least } = read.into();
        let (tree, key, consistency) = (tree.into(), key.into(), consistency.into());
        let request = GetRequest { tree, key, consistency, at_least: Some(at_least) };
        let call = |node: Node, _| {
            let request = request.clone();
            async move { node.kv().get(request).await.map(tonic::Response::into_inner) }
        };
        self.read(call).await
    }

    /// Lists the trees; the system's (`$...`) only on request.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn trees(&self, read: impl Into<ReadAs>, include_system: bool) -> Result<ListTreesResponse, ReadError> {
        let ReadAs { consistency, at_least } = read.into();
        let request = ListTreesRequest { consistency: consistency.into(), include_system, at_least: Some(at_least) };
        self.read(|node: Node, _| async move { node.kv().list_trees(request).await.map(tonic::Response::into_inner) })
            .await
    }

    /// A call that changes nothing.
    pub(crate) async fn read<T, F, C>(&self, call: C) -> Result<T, ReadError>
    where
        C: Fn(Node, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let run = self.run(self.options.read_from, IfUnknown::Repeat, self.options.deadline, call).await;
        run.map(|(value, _)| value).map_err(|(refusal, _)| ReadError(refusal.failure))
    }

    /// A call that may change something.
    pub(crate) async fn change<T, F, C>(
        &self,
        from: ReadFrom,
        if_unknown: IfUnknown,
        deadline: Duration,
        call: C,
    ) -> Result<(T, Tries), TxnError>
    where
        C: Fn(Node, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        // An attempt that ended unknown may still commit: what a later one was told does not change that.
        let told = |(refusal, tries): (Refusal, Tries)| match tries.unknown {
            0 => TxnError::NotCommitted(refusal.failure),
            _ => TxnError::Unknown(refusal.failure),
        };
        self.run(from, if_unknown, deadline, call).await.map_err(told)
    }

    /// Calls until it worked, cannot work, must not be repeated, or the deadline is over.
    pub(crate) async fn run<T, F, C>(
        &self,
        from: ReadFrom,
        if_unknown: IfUnknown,
        deadline: Duration,
        call: C,
    ) -> Result<(T, Tries), (Refusal, Tries)>
    where
        C: Fn(Node, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let end = Instant::now() + deadline;
        // A last attempt with no time for an answer would make an unknown outcome out of a known one.
        let least = LEAST_ATTEMPT.min(deadline / 4);
        let mut rng = rand::rngs::SmallRng::from_os_rng();
        let (mut tries, mut failed, mut redirects, mut failures) = (Tries::default(), None, 0, 0);
        let mut attempt_timeout = self.options.attempt_timeout;
        self.discovery.keep_fresh();
        loop {
            let address = self.discovery.pick(from, failed.as_deref());
            let left = end.saturating_duration_since(Instant::now());
            let budget = match if_unknown {
                IfUnknown::Repeat => left.min(attempt_timeout),
                IfUnknown::Stop => left,
            };
            tries.attempts += 1;
            let mut refusal = match self.attempt(&address, budget, &call).await {
                Ok(value) => return Ok((value, tries)),
                Err(refusal) => refusal,
            };
            tracing::debug!(address, reason = refusal.failure.reason, unknown = refusal.unknown, "attempt failed");
            refusal.failure.attempts = tries.attempts;
            tries.unknown += u32::from(refusal.unknown);
            tries.sent += u32::from(refusal.failure.reason != UNREACHABLE);
            if refusal.failure.reason == TIMEOUT {
                attempt_timeout = attempt_timeout.saturating_mul(2);
            }
            if refusal.broken {
                self.discovery.failed(&address);
            }
            let named = refusal.leader.as_deref().filter(|leader| **leader != *address);
            // A node that forwards names the leader also when it got no answer from it: that one is not to be asked next.
            let elsewhere = named.is_some() && !refusal.leader_is_silent();
            match named {
                Some(leader) if elsewhere => self.discovery.hint(leader),
                Some(leader) => self.discovery.failed(leader),
                None => {}
            }
            if !refusal.retryable || (refusal.unknown && if_unknown == IfUnknown::Stop) {
                return Err((refusal, tries));
            }
            // A leader that refuses for a moment is the one to ask again; after worse, another node has to forward.
            failed = (refusal.broken || refusal.unknown).then_some(address);
            if elsewhere && redirects < REDIRECTS {
                redirects += 1;
                continue;
            }
            redirects = 0;
            failures += 1;
            let wait = self.options.backoff.wait(failures, &mut rng);
            if Instant::now() + wait + least >= end {
                return Err((refusal, tries));
            }
            // The round of questions is left at the end of the wait if it hangs: the next attempt tells more.
            let asked = timeout(wait.max(Duration::from_millis(100)), self.discovery.refresh());
            let _ = tokio::join!(sleep(wait), asked);
            if Instant::now() + least >= end {
                return Err((refusal, tries));
            }
        }
    }

    async fn attempt<T, F, C>(&self, address: &str, budget: Duration, call: &C) -> Result<T, Refusal>
    where
        C: Fn(Node, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let connecting = Instant::now();
        let node = match timeout(budget, self.discovery.nodes.connect(address)).await {
            Ok(node) => node?,
            Err(elapsed) => return Err(Refusal::unreachable(address, &elapsed)),
        };
        let budget = budget.saturating_sub(connecting.elapsed());
        let refusal = match timeout(budget, call(node.clone(), budget)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(status)) => Refusal::of(&status, address),
            Err(_) => Refusal::silent(address, budget),
        };
        if refusal.broken {
            self.discovery.nodes.forget(&node);
        }
        Err(refusal)
    }
}
