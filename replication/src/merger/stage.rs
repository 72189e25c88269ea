//! One batch: from the queue to the proposal.
//!
//! Executing runs on a worker of the runtime, which must not be held up for long: heartbeats and followers' answers
//! wait for it. What is known to be short (a few puts and gets) runs at once; anything else runs on a thread for such
//! work, and the merger with it.

use calamus_engine::Footprint;
use calamus_engine::ids::{Term, TxnId};
use calamus_engine::txn::{Batch, BatchError};
use calamus_proto::v1::session_result::Kind as SessionResultKind;
use calamus_proto::v1::{Outcome, TxnRequest, TxnResponse, TxnSession};
use prost::Message;

use super::confirm::{BatchNumber, Held};
use super::inbox::Waiting;
use super::shortage::Shortage;
use super::worker::Worker;
use super::{Answer, Reply, other_term};
use crate::error::{TxnError, reason};
use crate::execute::{self, RunError, batch_fault, batch_run_error};
use crate::sessions::{self, CopyOf, Done, Permit, TableError, Verdict};

/// A batch of so many bytes of requests is executed in about a quarter of a millisecond.
const SHORT_BATCH_BYTES: usize = 256 << 10;

/// A transaction that ran in an open batch, or was answered in it.
struct Ran {
    /// Whole, for if it must run again: the batch may turn out too large when it ends.
    waiting: Waiting,
    answer: Answer,
    /// Whether it changed something.
    changed: bool,
    /// What its results take, in bytes.
    result_bytes: usize,
    /// The transaction of a session that it is, ...
    copy: Option<CopyOf>,
    /// ... and whether its answer is that of an earlier copy.
    repeated: bool,
}

impl Ran {
    /// One that changed nothing, and belongs to no session.
    fn unchanged(waiting: Waiting, answer: Answer) -> Self {
        let result_bytes = answer.as_ref().map_or(0, Message::encoded_len);
        Self { waiting, answer, changed: false, result_bytes, copy: None, repeated: false }
    }
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
        let may = (!self.queue.is_empty() || self.expiry_due)
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
        self.sessions.begin_batch(&batch);
        self.shortage = Shortage::look(self);
        let mut answers = Answers::default();
        #[cfg(feature = "mutants")]
        self.sessions.store_late(&mut batch);
        if std::mem::take(&mut self.expiry_due) {
            self.expire_sessions(&mut batch);
        }
        while let Some(waiting) = self.queue.pop_front() {
            if waiting.term.is_some_and(|named| named != term) && self.options.minds_the_term() {
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

    fn expire_sessions(&mut self, batch: &mut Batch) {
        let now = self.now_micros();
        let shortage = self.shortage.as_ref();
        let may = |batch: &Batch| shortage.is_none_or(|shortage| shortage.check(batch).is_ok());
        match self.sessions.expire(batch, now, may) {
            Ok(0) => {}
            Ok(count) => self.counters.expired_sessions.add(count),
            Err(error) => tracing::error!(error = %table_fault(error), "expired sessions cannot be removed"),
        }
    }

    /// Executes a transaction as a part of the batch. Gives it back if it belongs into the next one.
    pub(super) fn execute(&mut self, batch: &mut Batch, waiting: Waiting, answers: &mut Answers) -> Option<Waiting> {
        if waiting.reply.is_closed() {
            // Its client has gone, or no longer waits: it was told that the outcome is unknown.
            answers.done_bytes += waiting.bytes;
            return None;
        }
        if !batch.is_empty() && batch.record_bytes_bound() + waiting.bytes > self.options.record_bytes {
            return Some(waiting);
        }
        if let Some(operation) = sessions::session_operation(&waiting.request) {
            let now = self.now_micros();
            let done = self.sessions.run(batch, operation, now);
            return self.session_ran(batch, done, waiting, answers);
        }
        let permit = match waiting.request.session {
            None => None,
            Some(session) => match self.judge(batch, &waiting.request, session) {
                Ok(Verdict::Run(permit)) => Some(permit),
                Ok(Verdict::Answer(answer)) => {
                    let copy = CopyOf::from(session);
                    // What says nothing of an earlier copy is certain, confirmed or not.
                    let repeated = !answer.as_ref().is_err_and(|error| error.retryable);
                    answers.push(Ran { copy: Some(copy), repeated, ..Ran::unchanged(waiting, answer) });
                    return None;
                }
                Err(error) => {
                    answers.push(Ran::unchanged(waiting, Err(table_fault(error))));
                    return None;
                }
            },
        };
        self.run_permitted(batch, waiting, permit, answers)
    }

    /// Runs a transaction that may run.
    fn run_permitted(
        &mut self,
        batch: &mut Batch,
        waiting: Waiting,
        permit: Option<Permit>,
        answers: &mut Answers,
    ) -> Option<Waiting> {
        let copy = permit.as_ref().map(|permit| permit.copy);
        let executed = match execute::run(batch, &waiting.request, &self.options.limits) {
            Ok(executed) => executed,
            Err(RunError::TooLarge(_)) if !batch.is_empty() => return Some(waiting),
            Err(error) => {
                let answer = Err(error.into_error());
                self.remember(permit.as_ref(), &answer);
                answers.push(Ran { copy, ..Ran::unchanged(waiting, answer) });
                return None;
            }
        };
        // Before the outcome is stored: a session's deletes are taken when other deletes are.
        if let Some(Err(error)) = self.shortage.as_ref().map(|shortage| shortage.check(batch)) {
            batch.rollback_txn();
            return self.refuse_for_space(waiting, permit.as_ref(), error, answers);
        }
        let changes = batch.footprint() != Footprint::Nothing;
        let response = TxnResponse {
            outcome: Outcome::Committed.into(),
            guards_held: executed.guards_held,
            txn_id: if changes { batch.builds_on().0 + batch.txns() + 1 } else { 0 },
            results: executed.results,
            timeline: batch.timeline().0,
            results_dropped: false,
        };
        if let Some(permit) = permit.as_ref().filter(|_| changes)
            && let Err(error) = self.store_outcome(batch, permit, &response)
        {
            batch.rollback_txn();
            self.sessions.not_stored(permit);
            if !batch.is_empty() && matches!(error, RunError::TooLarge(_)) {
                return Some(waiting);
            }
            let answer = Err(error.into_error());
            self.remember(Some(permit), &answer);
            answers.push(Ran { copy, ..Ran::unchanged(waiting, answer) });
            return None;
        }
        let txn_id = batch.commit_txn();
        assert_eq!(txn_id.map_or(0, |id| id.0), response.txn_id, "the txn id was known before");
        let (answer, result_bytes) = (Ok(response), executed.result_bytes);
        if !changes {
            self.remember(permit.as_ref(), &answer);
        }
        answers.push(Ran { waiting, answer, changed: changes, result_bytes, copy, repeated: false });
        None
    }

    /// Stores the outcome of the open transaction of a session.
    fn store_outcome(&mut self, batch: &mut Batch, permit: &Permit, answer: &TxnResponse) -> Result<(), RunError> {
        let alone = batch.is_empty();
        let stored = self.sessions.store(batch, permit, answer, self.options.stores_in_the_batch());
        stored.and_then(|()| if alone { Ok(()) } else { batch.check_record_bound() }).map_err(batch_run_error)
    }

    fn judge(&mut self, batch: &Batch, request: &TxnRequest, session: TxnSession) -> Result<Verdict, TableError> {
        let now = self.now_micros();
        self.sessions.judge(batch, request, session, now)
    }

    fn remember(&mut self, permit: Option<&Permit>, answer: &Answer) {
        if let Some(permit) = permit {
            self.sessions.remember(permit, answer);
        }
    }

    /// The disks do not take a transaction, which is rolled back.
    fn refuse_for_space(
        &mut self,
        waiting: Waiting,
        permit: Option<&Permit>,
        error: TxnError,
        answers: &mut Answers,
    ) -> Option<Waiting> {
        self.counters.refused_for_space.add(1);
        // It says nothing of what it saw, so it waits for nothing.
        answers.done_bytes += waiting.bytes;
        let answer = Err(error);
        self.remember(permit, &answer);
        let _ = waiting.reply.send(answer);
        None
    }

    /// What an operation on sessions has done becomes a part of the batch.
    fn session_ran(
        &mut self,
        batch: &mut Batch,
        done: Result<Done, TableError>,
        waiting: Waiting,
        answers: &mut Answers,
    ) -> Option<Waiting> {
        match done {
            Ok(Done::Changed(result)) => {
                let opens = matches!(result, SessionResultKind::Open(_));
                if let Some(Err(error)) = self.shortage.as_ref().map(|shortage| shortage.check_session(batch, opens)) {
                    batch.rollback_txn();
                    self.sessions.forget_staged();
                    return self.refuse_for_space(waiting, None, error, answers);
                }
                let txn_id = batch.commit_txn().expect("it has changed something");
                let answer = Ok(sessions::response(result, txn_id.0));
                answers.push(Ran { changed: true, ..Ran::unchanged(waiting, answer) });
            }
            Ok(Done::Same(answer)) => {
                let answer = answer.map(|result| sessions::response(result, 0));
                // What stands there may not stay there: then nothing is known.
                answers.push(Ran { repeated: true, ..Ran::unchanged(waiting, answer) });
            }
            Err(error) => {
                self.sessions.forget_staged();
                let error = table_run_error(error);
                if !batch.is_empty() && matches!(error, RunError::TooLarge(_)) {
                    return Some(waiting);
                }
                answers.push(Ran::unchanged(waiting, Err(error.into_error())));
            }
        }
        None
    }

    /// Ends the batch and proposes its record, if it has one.
    pub(super) fn propose(&mut self, term: Term, batch: Batch, answers: Answers) {
        let now = self.now_micros();
        self.sessions.staged(TxnId(batch.builds_on().0 + batch.txns()));
        let staged = match batch.seal(now) {
            Err(BatchError::TooLarge { .. }) if answers.ran.len() > 1 => {
                self.forget_batch(&answers);
                return self.run_one_by_one(answers);
            }
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
            Err(error) => {
                self.forget_batch(&answers);
                fail(answers, &batch_fault(error));
            }
        }
    }

    /// Nothing of a batch is told, and nothing that it staged is there.
    fn forget_batch(&mut self, answers: &Answers) {
        self.sessions.forget_staged();
        let first = answers.ran.iter().filter(|ran| !ran.repeated);
        self.sessions.forget(first.filter_map(|ran| ran.copy));
    }

    /// Holds the answers that changed nothing until they may be sent. Returns the others.
    fn hold_unchanged(&mut self, saw: Option<BatchNumber>, answers: Answers) -> Vec<(Reply, TxnResponse)> {
        let (mut changed, mut unchanged, mut held_bytes) = (Vec::new(), Vec::new(), 0);
        for Ran { waiting, answer, changed: has_changed, result_bytes, copy, repeated } in answers.ran {
            match answer {
                Ok(response) if has_changed => changed.push((waiting.reply, response)),
                answer if self.options.answers_from_staged_state() => drop(waiting.reply.send(answer)),
                answer => {
                    held_bytes += result_bytes;
                    unchanged.push(Held { reply: waiting.reply, answer, copy, repeated });
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

fn table_run_error(error: TableError) -> RunError {
    match error {
        TableError::Batch(error) => batch_run_error(error),
        TableError::Bad(what) => RunError::Failed(TxnError::not_committed(
            reason::STORAGE,
            format!("the tree {} cannot be read: {what}; was it written by a later version?", sessions::layout::TREE),
        )),
    }
}

fn table_fault(error: TableError) -> TxnError {
    table_run_error(error).into_error()
}

/// The batch could not be ended: all of it is as if it had not been there.
fn fail(answers: Answers, error: &TxnError) {
    for ran in answers.ran {
        let _ = ran.waiting.reply.send(Err(error.clone()));
    }
}
