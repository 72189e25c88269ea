//! One batch: from the queue to the proposal.

use calamus_engine::ids::Term;
use calamus_engine::txn::Batch;
use calamus_proto::v1::{Outcome, TxnResponse};

use super::inbox::Waiting;
use super::worker::Worker;
use super::{Answer, Reply, other_term};
use crate::error::{TxnError, reason};
use crate::execute::{self, batch_fault};

/// What the transactions of an open batch are answered, if all goes well.
#[derive(Default)]
struct Answers {
    /// Those that changed something.
    changed: Vec<(Reply, TxnResponse)>,
    /// Those that did not, or failed on the state they met.
    unchanged: Vec<(Reply, Answer)>,
    /// Bytes of the requests that were taken from the queue.
    taken_bytes: usize,
    /// Bytes of what the transactions read.
    result_bytes: usize,
}

impl Worker {
    /// Stages and proposes one batch, if one may be begun and something waits. Returns whether it did anything.
    pub(super) fn stage(&mut self) -> bool {
        let Some(term) = self.staging_term() else { return false };
        if self.queue.is_empty()
            || !self.chain.has_room(term, self.options.pipeline_batches, self.options.pipeline_bytes)
            || self.confirm.held_bytes() >= self.options.held_result_bytes
        {
            return false;
        }
        self.options.panic_if_planted();
        let mut batch = match self.engine.begin_batch() {
            Ok(batch) => batch,
            Err(error) => {
                self.refuse_queue(&batch_fault(error));
                return true;
            }
        };
        let mut answers = Answers::default();
        while let Some(waiting) = self.queue.pop_front() {
            if waiting.term.is_some_and(|named| named != term) {
                answers.taken_bytes += waiting.bytes;
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
        self.inbox.release(answers.taken_bytes);
        self.propose(term, batch, answers);
        true
    }

    /// Whether the batch is large enough, or so near to what a record can hold that the next transaction would likely
    /// be executed in vain.
    fn is_full(&self, batch: &Batch, answers: &Answers) -> bool {
        answers.taken_bytes >= self.options.batch_bytes
            || answers.result_bytes >= self.options.limits.result_bytes
            || batch.record_bytes_bound() >= self.options.record_bytes / 4 * 3
    }

    /// Executes a transaction as a part of the batch. Gives it back if it belongs into the next one.
    fn execute(&self, batch: &mut Batch, waiting: Waiting, answers: &mut Answers) -> Option<Waiting> {
        if waiting.reply.is_closed() {
            // Its client has gone, or no longer waits: it was told that the outcome is unknown.
            answers.taken_bytes += waiting.bytes;
            return None;
        }
        if !batch.is_empty() && batch.record_bytes_bound() + waiting.bytes > self.options.record_bytes {
            return Some(waiting);
        }
        let executed = match execute::run(batch, &waiting.request, &self.options.limits) {
            Ok(executed) => executed,
            Err(error) => {
                answers.taken_bytes += waiting.bytes;
                answers.unchanged.push((waiting.reply, Err(error)));
                return None;
            }
        };
        let bound = batch.record_bytes_bound();
        if bound > self.options.record_bytes {
            batch.rollback_txn();
            if !batch.is_empty() {
                return Some(waiting);
            }
            answers.taken_bytes += waiting.bytes;
            answers.unchanged.push((waiting.reply, Err(too_large(bound, self.options.record_bytes))));
            return None;
        }
        let txn_id = batch.commit_txn();
        answers.taken_bytes += waiting.bytes;
        answers.result_bytes += executed.result_bytes;
        let response = TxnResponse {
            outcome: Outcome::Committed.into(),
            guards_held: executed.guards_held,
            txn_id: txn_id.map_or(0, |id| id.0),
            results: executed.results,
        };
        match txn_id {
            Some(_) => answers.changed.push((waiting.reply, response)),
            None => answers.unchanged.push((waiting.reply, Ok(response))),
        }
        None
    }

    /// Ends the batch and proposes its record, if it has one.
    fn propose(&mut self, term: Term, batch: Batch, answers: Answers) {
        let now = self.options.clock.micros().max(self.last_wall_time_micros);
        self.last_wall_time_micros = now;
        match batch.seal(now) {
            Ok(Some(staged)) => {
                let number = self.chain.next_number();
                let bytes = staged.payload.bytes().len();
                let outcome = self.consensus.propose(term, staged.payload);
                self.chain.push(number, term, bytes, answers.changed, outcome);
                self.confirm.hold(Some(number), answers.result_bytes, answers.unchanged);
                self.counters.batches.add(1);
                self.counters.record_bytes.add(bytes);
            }
            Ok(None) => {
                assert!(answers.changed.is_empty(), "a batch without a record has changed nothing");
                self.confirm.hold(self.chain.newest(term), answers.result_bytes, answers.unchanged);
            }
            Err(error) => fail(answers, &batch_fault(error)),
        }
    }
}

/// The batch could not be ended: all of it is as if it had not been there.
fn fail(answers: Answers, error: &TxnError) {
    for (reply, _) in answers.changed {
        let _ = reply.send(Err(error.clone()));
    }
    for (reply, _) in answers.unchanged {
        let _ = reply.send(Err(error.clone()));
    }
}

fn too_large(bound: usize, limit: usize) -> TxnError {
    TxnError::invalid(
        reason::TXN_TOO_LARGE,
        format!(
            "the transaction's changes may take {bound} bytes in the journal and at most {limit} fit one entry; split \
             it; nothing was changed"
        ),
    )
}
