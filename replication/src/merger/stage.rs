//! One batch: from the queue to the proposal.
//!
//! Executing runs on a worker of the runtime, which must not be held up for long: heartbeats and followers' answers
//! wait for it. What is known to be short (a few puts and gets) runs at once; anything else runs on a thread for such
//! work, and the merger with it.

use calamus_engine::ids::Term;
use calamus_engine::txn::{Batch, BatchError};
use calamus_proto::v1::{Outcome, TxnResponse};

use super::confirm::BatchNumber;
use super::inbox::Waiting;
use super::shortage::Shortage;
use super::worker::Worker;
use super::{Answer, Reply, other_term};
use crate::error::TxnError;
use crate::execute::{self, RunError, batch_fault};

/// A batch of so many bytes of requests is executed in about a quarter of a millisecond.
const SHORT_BATCH_BYTES: usize = 256 << 10;

/// A transaction that ran in an open batch.
struct Ran {
    /// Whole, for if it must run again: the batch may turn out too large when it ends.
    waiting: Waiting,
    answer: Answer,
    /// Whether it changed something.
    changed: bool,
    /// What its results take, in bytes.
    result_bytes: usize,
}

/// The transactions of an open batch, in the order in which they ran.
#[derive(Default)]
pub(super) struct Answers {
    ran: Vec<Ran>,
    /// Bytes of the requests that were taken from the queue and are done with, whatever becomes of the batch.
    done_bytes: usize,
    /// Bytes of the requests that ran.
    taken_bytes: usize,
    /// Bytes of their results.
    result_bytes: usize,
}

impl Answers {
    fn push(&mut self, ran: Ran) {
        self.taken_bytes += ran.waiting.bytes;
        self.result_bytes += ran.result_bytes;
        self.ran.push(ran);
    }

    fn bytes(&self) -> usize {
        self.done_bytes + self.taken_bytes
    }
}

impl Worker {
    /// Stages and proposes one batch that is known to be short, if one may be begun. Returns whether it did anything.
    pub(super) fn stage(&mut self) -> bool {
        match self.may_stage() {
            Some(term) if self.next_is_short() => {
                self.stage_batch(term);
                true
            }
            _ => false,
        }
    }

    /// The term in which the next batch is to be staged, if it may be long.
    pub(super) fn long_batch(&self) -> Option<Term> {
        self.may_stage().filter(|_| !self.next_is_short())
    }

    /// The term, if a batch may be begun and something waits.
    fn may_stage(&self) -> Option<Term> {
        let term = self.staging_term()?;
        let may = !self.queue.is_empty()
            && self.chain.has_room(term, self.options.pipeline_batches, self.options.pipeline_bytes)
            && self.confirm.held_bytes() < self.options.held_result_bytes;
        may.then_some(term)
    }

    /// Whether the transactions that a batch would take now are known to run in well under a millisecond.
    fn next_is_short(&self) -> bool {
        let mut bytes = 0;
        self.queue.iter().all(|waiting| {
            bytes += waiting.bytes;
            bytes <= SHORT_BATCH_BYTES && execute::is_short(&waiting.request)
        })
    }

    /// Stages and proposes one batch.
    pub(super) fn stage_batch(&mut self, term: Term) {
        self.options.panic_if_planted();
        let mut batch = match self.engine.try_begin_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return self.wait_for_memory(),
            Err(error) => return self.refuse_queue(&batch_fault(error)),
        };
        batch.limit_record(self.options.record_bytes);
        self.shortage = Shortage::look(self);
        let mut answers = Answers::default();
        while let Some(waiting) = self.queue.pop_front() {
            if waiting.term.is_some_and(|named| named != term) {
                answers.done_bytes += waiting.bytes;
                let _ = waiting.reply.send(Err(other_term(waiting.term, term)));
                continue;
            }
            if let Some(later) = self.execute(&mut batch, waiting, &mut answers) {
                self.queue.push_front(later);
                break;
            }
            if self.is_full(&batch, &answers) {
                break;
            }
        }
        self.propose(term, batch, answers);
    }

    /// Whether the batch is large enough, or so near to what a record can hold that the next transaction would likely
    /// be executed in vain.
    fn is_full(&self, batch: &Batch, answers: &Answers) -> bool {
        answers.bytes() >= self.options.batch_bytes
            || answers.result_bytes >= self.options.limits.result_bytes
            || batch.record_bytes_bound() >= self.options.record_bytes / 4 * 3
            || (self.one_by_one > 0 && !answers.ran.is_empty())
    }

    /// Executes a transaction as a part of the batch. Gives it back if it belongs into the next one.
    pub(super) fn execute(&self, batch: &mut Batch, waiting: Waiting, answers: &mut Answers) -> Option<Waiting> {
        if waiting.reply.is_closed() {
            // Its client has gone, or no longer waits: it was told that the outcome is unknown.
            answers.done_bytes += waiting.bytes;
            return None;
        }
        if !batch.is_empty() && batch.record_bytes_bound() + waiting.bytes > self.options.record_bytes {
            return Some(waiting);
        }
        let executed = match execute::run(batch, &waiting.request, &self.options.limits) {
            Ok(executed) => executed,
            Err(RunError::TooLarge(_)) if !batch.is_empty() => return Some(waiting),
            Err(error) => {
                let answer = Err(error.into_error());
                answers.push(Ran { waiting, answer, changed: false, result_bytes: 0 });
                return None;
            }
        };
        if let Some(Err(error)) = self.shortage.as_ref().map(|shortage| shortage.check(batch)) {
            batch.rollback_txn();
            self.counters.refused_for_space.add(1);
            // It says nothing of what it saw, so it waits for nothing.
            answers.done_bytes += waiting.bytes;
            let _ = waiting.reply.send(Err(error));
            return None;
        }
        let txn_id = batch.commit_txn();
        let response = TxnResponse {
            outcome: Outcome::Committed.into(),
            guards_held: executed.guards_held,
            txn_id: txn_id.map_or(0, |id| id.0),
            results: executed.results,
            timeline: batch.timeline().0,
        };
        answers.push(Ran {
            waiting,
            answer: Ok(response),
            changed: txn_id.is_some(),
            result_bytes: executed.result_bytes,
        });
        None
    }

    /// Ends the batch and proposes its record, if it has one.
    pub(super) fn propose(&mut self, term: Term, batch: Batch, answers: Answers) {
        let now = self.options.clock.micros().max(self.last_wall_time_micros);
        self.last_wall_time_micros = now;
        let staged = match batch.seal(now) {
            Err(BatchError::TooLarge { .. }) if answers.ran.len() > 1 => return self.run_one_by_one(answers),
            staged => staged,
        };
        self.inbox.release(answers.bytes());
        self.one_by_one = self.one_by_one.saturating_sub(answers.ran.len());
        match staged {
            Ok(Some(staged)) => {
                let number = self.chain.next_number();
                let bytes = staged.payload.bytes().len();
                let outcome = self.consensus.propose(term, staged.payload);
                let changed = self.hold_unchanged(Some(number), answers);
                self.chain.push(number, term, bytes, changed, outcome);
                self.counters.batches.add(1);
                self.counters.record_bytes.add(bytes);
            }
            Ok(None) => {
                let changed = self.hold_unchanged(self.chain.newest(term), answers);
                assert!(changed.is_empty(), "a batch without a record has changed nothing");
            }
            Err(error) => fail(answers, &batch_fault(error)),
        }
    }

    /// Holds the answers that changed nothing until they may be sent. Returns the others.
    fn hold_unchanged(&mut self, saw: Option<BatchNumber>, answers: Answers) -> Vec<(Reply, TxnResponse)> {
        let (mut changed, mut unchanged, mut held_bytes) = (Vec::new(), Vec::new(), 0);
        for Ran { waiting, answer, changed: has_changed, result_bytes } in answers.ran {
            match answer {
                Ok(response) if has_changed => changed.push((waiting.reply, response)),
                answer => {
                    held_bytes += result_bytes;
                    unchanged.push((waiting.reply, answer));
                }
            }
        }
        self.confirm.hold(saw, held_bytes, unchanged);
        changed
    }

    /// The batch came out larger than its bound said. Nothing of it was proposed, and nobody has an answer of it: its
    /// transactions run again, each in a batch of its own, so that only one that is too large by itself is refused.
    fn run_one_by_one(&mut self, answers: Answers) {
        self.inbox.release(answers.done_bytes);
        self.one_by_one = answers.ran.len();
        for ran in answers.ran.into_iter().rev() {
            self.queue.push_front(ran.waiting);
        }
    }
}

/// The batch could not be ended: all of it is as if it had not been there.
fn fail(answers: Answers, error: &TxnError) {
    for ran in answers.ran {
        let _ = ran.waiting.reply.send(Err(error.clone()));
    }
}
