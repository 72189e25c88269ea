//! The leader's merger: makes batches of the transactions that wait, stages them ahead of the quorum, and answers.
//!
//! One task does all of it, so that nothing in here is locked but the queue that transactions arrive in. It is a task
//! of the runtime and not a thread of its own, because a lone client waits for every change of threads on its way: on
//! two cores the two it cost were an eighth of a write. What might hold up a worker for long (large batches, ranges,
//! whole trees; see `stage`) runs on a thread that may be held up. What it keeps:
//!
//! 1. **It never waits to collect.** A batch takes what waits at that moment, up to a byte limit. While the pipeline
//!    is full, transactions gather by themselves.
//! 2. **Proposals are a chain.** Each record builds on the one before. The consensus may refuse one of them and accept
//!    the next. So at the first outcome that is not *applied*, of whatever kind, every staged version is dropped,
//!    nothing more is staged until all that is in flight has its outcome and a quorum round has succeeded, and staging
//!    starts again from the applied state alone. See `chain`.
//! 3. **The first batch after that goes alone.** A proposal whose outcome was unknown may still stand in the log, not
//!    yet committed, and would be applied before ours, under the very txn ids that ours uses. A batch behind ours would
//!    then build on the wrong transaction of the right number. Alone, ours is applied or void when its outcome comes,
//!    and all before it in the log has been decided too.
//! 4. **Outcomes.** *Refused* was never appended: not committed. *Applied* is committed. *Void* stands in the log at a
//!    place that is applied, where by a decision that depends on the log alone it changed nothing on any node, and it
//!    stands nowhere else: not committed, and provably so. All else, and whoever waited longer than it wished, is
//!    unknown.
//! 5. **An answer that changes nothing** (failed guards, reads, an error found by looking at the state) proposes
//!    nothing. It is sent when every staged frame it saw has committed, and a quorum round begun after the evaluation
//!    has confirmed the term; one round serves all who wait. See `confirm`.
//! 6. **Wall time never goes back**, nor does it when the leader changes: it goes on from the newest applied record.
//!
//! 7. **Too large is said only of who is alone.** A transaction that does not fit behind others begins the next batch.
//!    How large a record is shows when its batch ends: if it is too large then, nothing of it was proposed and nobody
//!    has been answered, so its transactions run again one by one.
//! 8. **A copy of a session's transaction** is executed only if nothing is known of the transaction: see `sessions`. An
//!    answer without an entry is remembered before it may be told.
//! 9. **Short of space**: see `shortage`. Whether a transaction grows is known when it has run, so it runs first, and is taken
//!    back, alone, if the disks of a quorum do not take it. Nothing of it was proposed.
//!
//! | file | role |
//! | --- | --- |
//! | `inbox` | where transactions arrive; bounds, freezing |
//! | `worker` | the task: what happens, and what is done about it |
//! | `stage` | one batch: from the queue to the proposal |
//! | `chain` | the batches in flight, and when the next may be staged |
//! | `confirm` | answers that change nothing |
//! | `shortage` | what is taken when disks are short of space |
//! | `options`, `stats` | what can be set, what is counted |

mod chain;
mod confirm;
mod inbox;
mod options;
mod shortage;
mod stage;
mod stats;
mod worker;

#[cfg(test)]
mod chain_test;
#[cfg(test)]
mod confirm_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod session_limits_test;
#[cfg(test)]
mod session_model_test;
#[cfg(test)]
mod session_rig_test;
#[cfg(test)]
mod session_test;
#[cfg(test)]
mod shortage_test;
#[cfg(test)]
mod stage_test;
#[cfg(test)]
mod submit_test;
#[cfg(test)]
pub(crate) mod test_consensus;

use std::sync::Arc;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::ids::Term;
use calamus_proto::v1::{TxnRequest, TxnResponse};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::error::{TxnError, reason};
use crate::execute::{Limits, validate};
use crate::seam::{Consensus, Leadership};
use inbox::{Inbox, Waiting};
#[cfg(feature = "mutants")]
pub use options::Mutants;
pub use options::{MergerOptions, WallClock};
use stats::Counters;
pub use stats::MergerStats;
use worker::Worker;

/// What a client gets.
pub(crate) type Answer = Result<TxnResponse, TxnError>;
/// Where it goes.
pub(crate) type Reply = oneshot::Sender<Answer>;

/// A node's merger. It works while the node leads; otherwise it refuses.
pub struct Merger {
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    leadership: watch::Receiver<Leadership>,
    options: MergerOptions,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Merger {
    /// Starts the merger's task.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(engine: Engine, consensus: Arc<dyn Consensus>, options: MergerOptions) -> Self {
        let inbox = Arc::new(Inbox::new(options.queue_bytes));
        let counters = Arc::new(Counters::default());
        let leadership = consensus.leadership();
        let worker = Worker::new(engine, consensus, options.clone(), inbox.clone(), counters.clone());
        let task = tokio::spawn(worker.run());
        Self { inbox, counters, leadership, options, task: Mutex::new(Some(task)) }
    }

    /// Runs a transaction, if this node leads, and leads `term` if one is named. Waits for room in the queue.
    ///
    /// Dropping the future does not take the transaction back.
    pub async fn submit(&self, request: TxnRequest, term: Option<Term>) -> Answer {
        self.submit_within(request, term, &self.options.limits).await
    }

    /// The same for a transaction of a node itself, which may name the trees of the system.
    pub async fn submit_system(&self, request: TxnRequest, term: Option<Term>) -> Answer {
        let limits = Limits { system_trees: true, ..self.options.limits };
        self.submit_within(request, term, &limits).await
    }

    async fn submit_within(&self, request: TxnRequest, term: Option<Term>, limits: &Limits) -> Answer {
        let bytes = validate(&request, limits)?;
        self.check_leading(term)?;
        let timeout = self.timeout(&request);
        let deadline = Instant::now() + timeout;
        if !self.inbox.try_reserve(bytes) {
            match timeout_at(deadline, self.inbox.reserve(bytes)).await {
                Ok(true) => {}
                Ok(false) => return Err(stopping()),
                Err(_) => return Err(overloaded(timeout)),
            }
        }
        let (reply, answer) = oneshot::channel();
        self.inbox.push(Waiting { request, term, bytes, reply })?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(TxnError::unknown(
                reason::STOPPING,
                "the node stopped while the transaction ran; whether it is committed is not known: read to find out",
            )),
            Err(_) => Err(TxnError::unknown(
                reason::TIMEOUT,
                format!(
                    "the transaction has no outcome after {} ms, perhaps for want of a quorum; it may still be committed: \
                     read to find out",
                    timeout.as_millis()
                ),
            )),
        }
    }

    fn timeout(&self, request: &TxnRequest) -> Duration {
        match request.timeout_ms {
            0 => self.options.default_timeout,
            millis => Duration::from_millis(millis.into()),
        }
    }

    fn check_leading(&self, term: Option<Term>) -> Result<(), TxnError> {
        match &*self.leadership.borrow() {
            Leadership::Leading { term: leading } if term.is_none_or(|term| term == *leading) => Ok(()),
            Leadership::Leading { .. } if !self.options.minds_the_term() => Ok(()),
            Leadership::Leading { term: leading } => Err(other_term(term, *leading)),
            Leadership::Following { leader, .. } => Err(TxnError::not_leader(leader.as_ref())),
            Leadership::Stopped { why } => Err(consensus_stopped(why)),
        }
    }

    /// Stops the admission of transactions, or lets it go on. What was admitted before still runs: see
    /// [`Self::drained`].
    pub fn freeze(&self, frozen: bool) {
        self.inbox.freeze(frozen);
    }

    /// Whether the admission is stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.inbox.is_frozen()
    }

    /// Waits until nothing waits and nothing is in flight.
    pub async fn drained(&self) {
        self.inbox.drained().await;
    }

    /// Waits until the merger has ended; whether it was asked to. Keeps nothing of the merger.
    pub fn ended(&self) -> impl Future<Output = bool> + Send + 'static {
        let mut ended = self.inbox.ended();
        // An inbox that is gone was stopped before.
        async move { ended.wait_for(Option::is_some).await.map_or(true, |ended| *ended != Some(false)) }
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> MergerStats {
        self.counters.read()
    }

    /// Stops the task and waits for its end. Transactions that wait are not committed; those in flight are unknown.
    /// Takes as long as a batch that is being executed.
    pub async fn stop(&self) {
        self.inbox.stop();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(panic) = task.await
        {
            // All its clients were answered by dropping.
            tracing::error!(%panic, "the merger ended badly");
        }
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

fn stopping() -> TxnError {
    TxnError::not_committed(reason::STOPPING, "the node is stopping; nothing was changed, send it to another node")
}

fn consensus_stopped(why: &str) -> TxnError {
    TxnError::not_committed(
        reason::STOPPING,
        format!("the consensus has stopped on this node: {why}; nothing was changed, send it to another node"),
    )
}

fn other_term(named: Option<Term>, leading: Term) -> TxnError {
    let named = named.map_or_else(|| "none".to_owned(), |term| term.to_string());
    TxnError::not_committed(
        reason::NOT_LEADER,
        format!(
            "the transaction was forwarded to the leader of term {named} and this node leads term {leading}; nothing \
             was changed, send it again"
        ),
    )
}

fn overloaded(timeout: Duration) -> TxnError {
    TxnError::not_committed(
        reason::OVERLOADED,
        format!(
            "the queue of transactions was full for {} ms; nothing was changed, send it again, and less at a time",
            timeout.as_millis()
        ),
    )
}
