//! The merger's task: waits for anything to happen, and does what follows from it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use calamus_engine::Engine;
use calamus_engine::ids::Term;
use calamus_engine::txn::BatchError;
use calamus_proto::v1::TxnResponse;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::WatchStream;

use super::chain::{Chain, InFlight};
use super::confirm::Confirm;
use super::inbox::{Inbox, Waiting};
use super::options::MergerOptions;
use super::shortage::Shortage;
use super::stats::Counters;
use super::{Reply, consensus_stopped, stopping};
use crate::error::{TxnError, reason};
use crate::execute::batch_fault;
use crate::seam::{Consensus, Leadership, Proposed};
use crate::sessions::{Sessions, layout};

/// What the task may do now.
enum Mode {
    /// This node does not lead.
    Following,
    /// A chain broke: nothing is staged until all of it is decided and this is done.
    Settling { confirmed: Option<BoxFuture<'static, ()>> },
    /// Batches are staged one on the other.
    Staging,
}

pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) options: MergerOptions,
    pub(super) inbox: Arc<Inbox>,
    pub(super) counters: Arc<Counters>,
    /// Taken from the inbox, in order.
    pub(super) queue: VecDeque<Waiting>,
    pub(super) chain: Chain,
    pub(super) confirm: Confirm,
    pub(super) last_wall_time_micros: u64,
    pub(super) sessions: Sessions,
    /// When to look for expired sessions.
    expiry: Option<Pin<Box<Sleep>>>,
    /// Some may have expired: the next batch removes them.
    pub(super) expiry_due: bool,
    /// Page versions take too much memory for a batch: the wait for some to go.
    memory: Option<BoxFuture<'static, Result<(), BatchError>>>,
    /// So many transactions at the head of the queue run in batches of their own.
    pub(super) one_by_one: usize,
    /// Disks are short of space: looked at for each batch.
    pub(super) shortage: Option<Shortage>,
    changes: WatchStream<Leadership>,
    leadership: Leadership,
    mode: Mode,
}

/// Whatever ends the task, nobody waits for it any more.
struct CloseOnExit(Arc<Inbox>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

impl Worker {
    pub(super) fn new(
        engine: Engine,
        consensus: Arc<dyn Consensus>,
        options: MergerOptions,
        inbox: Arc<Inbox>,
        counters: Arc<Counters>,
    ) -> Self {
        let changes = WatchStream::new(consensus.leadership());
        let sessions = Sessions::new(options.sessions);
        Self {
            engine,
            consensus,
            options,
            inbox,
            counters,
            queue: VecDeque::new(),
            chain: Chain::default(),
            confirm: Confirm::default(),
            last_wall_time_micros: 0,
            sessions,
            expiry: None,
            expiry_due: false,
            memory: None,
            one_by_one: 0,
            shortage: None,
            changes,
            leadership: Leadership::Following { term: Term(0), leader: None },
            mode: Mode::Following,
        }
    }

    /// Works until the inbox says stop.
    pub(super) async fn run(mut self) {
        let _close = CloseOnExit(self.inbox.clone());
        while let Some(term) = poll_fn(|cx| self.poll(cx)).await {
            let staged = tokio::task::spawn_blocking(move || {
                self.stage_batch(term);
                self
            });
            self = match staged.await {
                Ok(worker) => worker,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime is ending, and everything that the worker held is dropped.
                Err(_) => return,
            };
        }
        self.end();
    }

    /// Does what can be done at once; ready with the term of a batch that may take long, or with `None` to stop.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Term>> {
        loop {
            self.inbox.register(cx.waker());
            if self.inbox.is_stopping() {
                return Poll::Ready(None);
            }
            if self.advance(cx) {
                continue;
            }
            return match self.long_batch() {
                Some(term) => Poll::Ready(Some(term)),
                None => Poll::Pending,
            };
        }
    }

    /// One look at everything. Returns whether anything happened, and so may follow.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.queue.is_empty() && self.chain.is_empty() && self.confirm.is_empty();
        let mut happened = self.inbox.take(&mut self.queue, idle);
        // After the inbox: who was admitted because this node leads must not meet a merger that has not heard of it.
        happened |= self.poll_leadership(cx);
        while let Some((batch, outcome)) = self.chain.poll_outcome(cx) {
            self.decided(batch, outcome);
            happened = true;
        }
        happened |= self.poll_settling(cx);
        happened |= self.poll_memory(cx);
        happened |= self.poll_expiry(cx);
        happened |= self.stage();
        if let Some(untold) = self.confirm.poll_round(cx) {
            self.sessions.forget(untold);
            happened = true;
        }
        if let Some(term) = self.leadership.leading()
            && self.confirm.begin_round(&*self.consensus, term)
        {
            self.counters.confirm_rounds.add(1);
            happened = true;
        }
        self.counters.answered_without_entry.add(self.confirm.send_ready());
        self.counters.in_flight.set(self.chain.len());
        self.counters.queued.set(self.queue.len());
        self.counters.held.set(self.confirm.held());
        self.counters.remembered.set(self.sessions.remembered());
        happened
    }

    /// The term in which batches may be staged now.
    pub(super) fn staging_term(&self) -> Option<Term> {
        let may = matches!(self.mode, Mode::Staging) && self.memory.is_none();
        may.then(|| self.leadership.leading()).flatten()
    }

    /// Stages nothing before page versions have left memory.
    pub(super) fn wait_for_memory(&mut self) {
        let engine = self.engine.clone();
        self.memory = Some(Box::pin(async move {
            let waited = tokio::task::spawn_blocking(move || engine.wait_for_memory()).await;
            // The runtime is ending: so is this task.
            waited.unwrap_or(Ok(()))
        }));
    }

    fn poll_memory(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(waited)) = self.memory.as_mut().map(|memory| memory.as_mut().poll(cx)) else {
            return false;
        };
        self.memory = None;
        if let Err(error) = waited {
            self.refuse_queue(&batch_fault(error));
        }
        true
    }

    /// Looks now and then whether sessions have expired. They are removed by a batch, which is none if none has.
    fn poll_expiry(&mut self, cx: &mut Context<'_>) -> bool {
        if self.staging_term().is_none() {
            self.expiry = None;
            self.expiry_due = false;
            return false;
        }
        let interval = self.options.expiry_interval;
        let expiry = self.expiry.get_or_insert_with(|| Box::pin(sleep(interval)));
        if expiry.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.expiry = None;
        let applied = self.engine.read();
        // One that cannot be read stays: the error is told where it matters.
        self.sessions.sweep(|id| applied.get(layout::TREE, &id.key()).map_or(true, |found| found.is_some()));
        drop(applied);
        let now = self.now_micros();
        self.expiry_due = self.sessions.may_expire(now);
        true
    }

    /// The wall time, which never goes back.
    pub(super) fn now_micros(&mut self) -> u64 {
        self.last_wall_time_micros = self.options.clock.micros().max(self.last_wall_time_micros);
        self.last_wall_time_micros
    }

    fn poll_leadership(&mut self, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        while let Poll::Ready(change) = Pin::new(&mut self.changes).poll_next(cx) {
            let now = change.unwrap_or_else(|| Leadership::Stopped { why: "it was shut down".to_owned() });
            let ended = matches!(now, Leadership::Stopped { .. });
            if now.leading() != self.leadership.leading() {
                self.leave_term(&now);
                if let Some(term) = now.leading() {
                    self.enter_term(term);
                }
            }
            happened |= now != self.leadership;
            self.leadership = now;
            if ended {
                break;
            }
        }
        if self.leadership.leading().is_none() && !self.queue.is_empty() {
            self.refuse_queue(&not_leading(&self.leadership));
            happened = true;
        }
        happened
    }

    fn leave_term(&mut self, now: &Leadership) {
        if self.leadership.leading().is_none() {
            return;
        }
        // What is in flight keeps its clients: it may have been committed, and the consensus will say so or not.
        self.drop_staged();
        self.mode = Mode::Following;
        let untold = self.confirm.fail_all(&not_leading(now));
        self.sessions.forget(untold);
        self.counters.broken_chains.add(usize::from(!self.chain.is_empty()));
    }

    fn drop_staged(&mut self) {
        self.engine.drop_staged();
        self.sessions.forget_staged();
    }

    fn enter_term(&mut self, term: Term) {
        self.drop_staged();
        self.sessions.begin_term(term);
        if self.chain.newest(term).is_some() {
            // It led the same term before, and not all of that is decided.
            self.mode = Mode::Settling { confirmed: None };
        } else {
            self.begin_chain();
        }
    }

    /// Stages from here on, from the applied state.
    fn begin_chain(&mut self) {
        let applied = self.engine.applied().wall_time_micros;
        self.last_wall_time_micros = self.last_wall_time_micros.max(applied);
        self.chain.begin();
        self.mode = Mode::Staging;
    }

    /// A batch has its outcome.
    fn decided(&mut self, batch: InFlight, outcome: Proposed) {
        let error = match outcome {
            Proposed::Applied { void: false, .. } => {
                self.chain.proved();
                self.confirm.applied(batch.number);
                self.counters.committed.add(batch.answers.len());
                for (reply, response) in batch.answers {
                    let _ = reply.send(Ok(response));
                }
                return;
            }
            Proposed::Applied { void: true, log_id } => {
                self.counters.void_batches.add(1);
                TxnError::not_committed(
                    reason::VOID,
                    format!(
                        "the record of the transaction at log id {log_id} did not build on the committed state and \
                         changed nothing on any node; send it again"
                    ),
                )
            }
            Proposed::Refused { why } => {
                self.counters.refused_batches.add(1);
                TxnError::not_committed(
                    reason::REFUSED,
                    format!("the leader refused the transaction before it was in the log: {why}; send it again"),
                )
                .with_leader(self.leadership.leader())
            }
            Proposed::Unknown { why } => {
                self.counters.unknown_batches.add(1);
                TxnError::unknown(
                    reason::LEADER_LOST,
                    format!(
                        "the transaction was in the log of a leader that was lost, or may have been: {why}; whether it \
                         is committed is not known: read to find out"
                    ),
                )
                .with_leader(self.leadership.leader())
            }
        };
        let untold = self.confirm.not_applied(batch.number);
        self.sessions.forget(untold);
        send_all(batch.answers, &error);
        if self.leadership.leading() == Some(batch.term) {
            self.break_chain();
        }
    }

    /// At the first outcome that is not *applied*: what was staged after it builds on nothing.
    fn break_chain(&mut self) {
        if !matches!(self.mode, Mode::Staging) || self.options.keeps_staged_after_refusal() {
            return;
        }
        self.drop_staged();
        self.counters.broken_chains.add(1);
        self.mode = Mode::Settling { confirmed: None };
    }

    fn poll_settling(&mut self, cx: &mut Context<'_>) -> bool {
        let (Mode::Settling { confirmed }, Some(term)) = (&mut self.mode, self.leadership.leading()) else {
            return false;
        };
        if self.chain.newest(term).is_some() {
            return false;
        }
        let confirmed = confirmed.get_or_insert_with(|| {
            let (consensus, pause) = (self.consensus.clone(), self.options.settle_pause);
            Box::pin(async move {
                while let Err(error) = confirm_applied(&*consensus, term).await {
                    tracing::debug!(%error, "no quorum round after a refusal");
                    tokio::time::sleep(pause).await;
                }
            })
        });
        if confirmed.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.begin_chain();
        true
    }

    /// Refuses all that waits.
    pub(super) fn refuse_queue(&mut self, error: &TxnError) {
        self.one_by_one = 0;
        for waiting in self.queue.drain(..) {
            self.inbox.release(waiting.bytes);
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    fn end(&mut self) {
        self.queue.extend(self.inbox.close());
        self.refuse_queue(&stopping());
        let _ = self.confirm.fail_all(&stopping());
        let unknown = TxnError::unknown(
            reason::STOPPING,
            "the node was stopped while the transaction was in its log; whether it is committed is not known: read to \
             find out",
        );
        for batch in self.chain.abandon() {
            send_all(batch.answers, &unknown);
        }
    }
}

async fn confirm_applied(consensus: &dyn Consensus, term: Term) -> Result<(), crate::seam::ReadIndexError> {
    let log_id = consensus.read_index(Some(term)).await?;
    consensus.wait_applied(log_id).await
}

fn send_all(answers: Vec<(Reply, TxnResponse)>, error: &TxnError) {
    for (reply, _) in answers {
        let _ = reply.send(Err(error.clone()));
    }
}

fn not_leading(leadership: &Leadership) -> TxnError {
    match leadership {
        Leadership::Stopped { why } => consensus_stopped(why),
        Leadership::Following { .. } | Leadership::Leading { .. } => TxnError::not_leader(leadership.leader()),
    }
}
