//! What is written of sessions: outcomes, and the sessions themselves. All of it within batches of the merger.

use std::ops::Bound;
use std::time::Duration;

use calamus_engine::txn::{Batch, BatchError};
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::session_result::Kind as SessionResultKind;
use calamus_proto::v1::{
    CloseSessionResponse, OpenSessionResponse, OperationResult, Outcome, ResolveResponse, SessionResult, TxnResponse,
    TxnSession,
};
use prost::Message;

use super::Sessions;
use super::judge::{Permit, already_answered, no_such_session};
use super::layout::{COUNTER_KEY, Final, SessionId, SessionRecord, StoredOutcome, TREE};
use super::table::{CopyOf, Known, Stored, TableError};
use crate::error::{TxnError, reason};

/// Sessions that one batch expires at most: each may have some hundred outcomes to drop.
const EXPIRED_AT_ONCE: usize = 64;

/// What an operation on sessions has done.
#[derive(Debug)]
pub(crate) enum Done {
    /// It changed something: its transaction is open on the batch.
    Changed(SessionResultKind),
    /// It did not, and this is its answer, once it is confirmed.
    Same(Result<SessionResultKind, TxnError>),
}

/// The answer of an operation on sessions.
pub(crate) fn response(result: SessionResultKind, txn_id: u64) -> TxnResponse {
    let result = SessionResult { kind: Some(result) };
    TxnResponse {
        outcome: Outcome::Committed.into(),
        guards_held: true,
        txn_id,
        results: vec![OperationResult { kind: Some(ResultKind::Session(result)) }],
        // Clients see the result alone.
        ..TxnResponse::default()
    }
}

/// An answer that is kept: without its results, if they make it larger than `most_bytes`.
pub(super) fn within(response: TxnResponse, most_bytes: usize) -> TxnResponse {
    if response.results.is_empty() || response.encoded_len() <= most_bytes {
        return response;
    }
    TxnResponse { results: Vec::new(), results_dropped: true, ..response }
}

/// Begins a transaction and leaves it open, if all went well.
fn in_txn<T>(batch: &mut Batch, run: impl FnOnce(&mut Batch) -> Result<T, TableError>) -> Result<T, TableError> {
    batch.begin_txn();
    let done = run(batch);
    if done.is_err() {
        batch.rollback_txn();
    }
    done
}

/// How many sessions were opened so far.
fn opened(batch: &Batch) -> Result<u64, TableError> {
    let Some(entry) = batch.get(TREE, &COUNTER_KEY)? else { return Ok(0) };
    let bytes: Result<[u8; 8], _> = entry.value.to_vec()?.try_into();
    Ok(u64::from_le_bytes(bytes.map_err(|_| "the counter of sessions has not 8 bytes".to_owned())?))
}

impl Sessions {
    /// Stores the outcome of a transaction that is open on the batch and has changed something. If it fails, or the
    /// transaction is rolled back later, [`Self::not_stored`] must be told.
    pub(crate) fn store(
        &mut self,
        batch: &mut Batch,
        permit: &Permit,
        answer: &TxnResponse,
        in_this_batch: bool,
    ) -> Result<(), BatchError> {
        let (id, sequence) = (permit.copy.session, permit.copy.sequence);
        self.drop_answered(batch, id, permit.floor)?;
        let outcome = StoredOutcome {
            lowest_unanswered: permit.floor,
            fingerprint: permit.fingerprint,
            outcome: Final::Committed(within(answer.clone(), self.table.limits.answer_bytes)),
        };
        let bytes = outcome.encode();
        if in_this_batch {
            batch.put(TREE, &id.outcome_key(sequence), &bytes)?;
        } else {
            self.plant_late(id.outcome_key(sequence), &bytes);
        }
        let stored = self.table.stored(id);
        stored.floor = stored.floor.max(permit.floor);
        stored.outcomes.insert(sequence, bytes.len());
        Ok(())
    }

    /// The transaction whose outcome was stored is rolled back: what the session has stored is read again.
    pub(crate) fn not_stored(&mut self, permit: &Permit) {
        self.table.known.remove(&permit.copy.session);
        // Else it would count as one that is not there.
        self.table.unlist();
    }

    /// Drops the outcomes below the floor, if there are many.
    fn drop_answered(&mut self, batch: &mut Batch, id: SessionId, floor: u64) -> Result<(), BatchError> {
        let limits = self.table.limits;
        let stored = self.table.stored(id);
        let (count, bytes) = stored.below(floor);
        if count < limits.drop_every && bytes < limits.stored_bytes / 4 {
            return Ok(());
        }
        batch.delete_range(TREE, Bound::Included(&id.outcome_key(0)), Bound::Excluded(&id.outcome_key(floor)))?;
        stored.outcomes = stored.outcomes.split_off(&floor);
        Ok(())
    }

    /// Runs an operation on sessions. If it changed something, its transaction is open on the batch.
    pub(crate) fn run(
        &mut self,
        batch: &mut Batch,
        operation: &SessionKind,
        now_micros: u64,
    ) -> Result<Done, TableError> {
        match operation {
            SessionKind::Open(open) => self.open(batch, open.ttl_ms, now_micros),
            SessionKind::Close(close) => {
                let id = SessionId(close.session_id);
                let closed = self.table.find(batch, id)?;
                let result = SessionResultKind::Close(CloseSessionResponse { closed });
                if !closed {
                    return Ok(Done::Same(Ok(result)));
                }
                in_txn(batch, |batch| Ok(self.remove(batch, id)?))?;
                Ok(Done::Changed(result))
            }
            SessionKind::Resolve(resolve) => self.resolve(batch, resolve.transaction.unwrap_or_default(), now_micros),
        }
    }

    fn open(&mut self, batch: &mut Batch, ttl_millis: u64, now_micros: u64) -> Result<Done, TableError> {
        let limits = self.table.limits;
        let ttl = if ttl_millis == 0 { limits.default_ttl } else { Duration::from_millis(ttl_millis) };
        if !(limits.least_ttl..=limits.most_ttl).contains(&ttl) {
            let text = format!(
                "a session that lives {} ms is not opened: {} ms to {} ms are possible",
                ttl.as_millis(),
                limits.least_ttl.as_millis(),
                limits.most_ttl.as_millis()
            );
            return Ok(Done::Same(Err(TxnError::invalid(reason::BAD_OPERATION, text))));
        }
        self.table.list(batch)?;
        if self.table.known.len() >= limits.sessions {
            let text = format!(
                "there are {} sessions, and no more are possible; close some, or wait until some expire that are not used",
                limits.sessions
            );
            return Ok(Done::Same(Err(TxnError::invalid(reason::TOO_MANY_SESSIONS, text))));
        }
        let ttl_millis = u64::try_from(ttl.as_millis()).expect("checked against a bound");
        let record = SessionRecord { ttl_millis, opened_micros: now_micros };
        let id = in_txn(batch, |batch| {
            batch.create_tree(TREE)?;
            let count = 1 + opened(batch)?;
            let id = SessionId::new(batch.timeline(), count);
            batch.put(TREE, &COUNTER_KEY, &count.to_le_bytes())?;
            batch.put(TREE, &id.key(), &record.encode())?;
            Ok(id)
        })?;
        self.table.known.insert(id, Known { ttl_millis, stored: Some(Stored::default()) });
        self.table.used(id, 0, now_micros);
        Ok(Done::Changed(SessionResultKind::Open(OpenSessionResponse { session_id: id.0, ttl_ms: ttl_millis })))
    }

    /// Removes a session with all it has stored, within the open transaction.
    fn remove(&mut self, batch: &mut Batch, id: SessionId) -> Result<(), BatchError> {
        let all = id.outcome_key(0)..=id.outcome_key(u64::MAX);
        batch.delete_range(TREE, Bound::Included(all.start()), Bound::Included(all.end()))?;
        batch.delete(TREE, &id.key())?;
        self.table.known.remove(&id);
        Ok(())
    }

    fn resolve(&mut self, batch: &mut Batch, transaction: TxnSession, now_micros: u64) -> Result<Done, TableError> {
        let TxnSession { id, sequence, lowest_unanswered: lowest } = transaction;
        let copy = CopyOf { session: SessionId(id), sequence };
        if !self.table.find(batch, copy.session)? {
            return Ok(Done::Same(Err(no_such_session(copy.session))));
        }
        let floor = self.table.used(copy.session, lowest, now_micros);
        if sequence < floor {
            return Ok(Done::Same(Err(already_answered(sequence, floor))));
        }
        if let Some(stored) = self.stored_outcome(batch, copy)? {
            let committed = match stored.outcome {
                Final::Committed(response) => Some(response),
                Final::Never => None,
            };
            return Ok(Done::Same(Ok(SessionResultKind::Resolve(ResolveResponse { committed }))));
        }
        let never = StoredOutcome { lowest_unanswered: floor, fingerprint: 0, outcome: Final::Never }.encode();
        in_txn(batch, |batch| {
            self.drop_answered(batch, copy.session, floor)?;
            Ok(batch.put(TREE, &copy.session.outcome_key(sequence), &never)?)
        })?;
        let stored = self.table.stored(copy.session);
        stored.floor = stored.floor.max(floor);
        stored.outcomes.insert(sequence, never.len());
        Ok(Done::Changed(SessionResultKind::Resolve(ResolveResponse { committed: None })))
    }

    /// Whether a look at all sessions is due: some have expired, or they were not listed yet.
    pub(crate) fn may_expire(&mut self, now_micros: u64) -> bool {
        !self.table.is_listed() || self.table.expired(now_micros).next().is_some()
    }

    /// Removes sessions that nobody uses any more, each by a transaction of its own, as long as `may` the open one stay.
    pub(crate) fn expire(
        &mut self,
        batch: &mut Batch,
        now_micros: u64,
        may: impl Fn(&Batch) -> bool,
    ) -> Result<usize, TableError> {
        self.table.list(batch)?;
        let mut expired: Vec<SessionId> = self.table.expired(now_micros).collect();
        expired.sort_unstable();
        expired.truncate(EXPIRED_AT_ONCE);
        let mut removed = 0;
        for id in expired {
            batch.begin_txn();
            let done = self.remove(batch, id);
            if done.is_err() || !may(batch) {
                batch.rollback_txn();
                self.forget_staged();
                done?;
                break;
            }
            batch.commit_txn();
            removed += 1;
        }
        Ok(removed)
    }

    #[cfg(not(feature = "mutants"))]
    #[allow(clippy::unused_self, reason = "with planted faults it has something to do")]
    fn plant_late(&mut self, _: [u8; 17], _: &[u8]) {
        unreachable!("only a planted fault stores an outcome later");
    }

    #[cfg(feature = "mutants")]
    fn plant_late(&mut self, key: [u8; 17], value: &[u8]) {
        self.late.push((key, value.to_vec()));
    }

    /// The planted fault *the outcome is stored by a batch of its own*: this is that batch.
    #[cfg(feature = "mutants")]
    pub(crate) fn store_late(&mut self, batch: &mut Batch) {
        for (key, value) in self.late.drain(..) {
            batch.begin_txn();
            batch.put(TREE, &key, &value).expect("a small value");
            batch.commit_txn();
        }
    }
}
