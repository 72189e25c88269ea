//! What becomes of a copy of a transaction: see the table in the module's documentation.

use calamus_engine::txn::Batch;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::{Operation, TxnRequest, TxnResponse, TxnSession};

use super::Sessions;
use super::layout::{Final, SessionId, StoredOutcome, TREE, fingerprint};
use super::limits::MAX_AHEAD;
use super::table::{CopyOf, TableError};
use crate::error::{TxnError, reason};

/// A copy may be executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    pub(crate) copy: CopyOf,
    pub(super) fingerprint: u64,
    /// What the client says, or has said in this term: what is below needs no outcome.
    pub(super) floor: u64,
}

/// What becomes of a copy.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is executed.
    Run(Permit),
    /// It is not, and this is its answer, once it is confirmed.
    Answer(Result<TxnResponse, TxnError>),
}

/// Whether these numbers can name a transaction; else what is wrong with them.
pub(crate) fn is_valid(session: &TxnSession) -> Result<(), String> {
    let TxnSession { sequence, lowest_unanswered: lowest, .. } = *session;
    if lowest == 0 || lowest > sequence {
        return Err(format!(
            "sequence {sequence} with {lowest} as the lowest that is unanswered: it is 1 or more, and at most the sequence"
        ));
    }
    if sequence - lowest > MAX_AHEAD {
        return Err(format!(
            "sequence {sequence} is more than {MAX_AHEAD} above {lowest}, the lowest that is unanswered; wait for answers \
             first, or resolve that one"
        ));
    }
    Ok(())
}

/// The operation on sessions that a transaction consists of, if it is one.
pub(crate) fn session_operation(request: &TxnRequest) -> Option<&SessionKind> {
    let alone = request.guards.is_empty() && request.otherwise.is_empty() && request.session.is_none();
    match &request.operations[..] {
        [Operation { kind: Some(Kind::Session(operation)) }] if alone => operation.kind.as_ref(),
        _ => None,
    }
}

pub(super) fn no_such_session(id: SessionId) -> TxnError {
    TxnError::unknown(
        reason::NO_SUCH_SESSION,
        format!(
            "there is no session {}: it was closed, or not used for as long as it lives, or the database was restored; \
             nothing was run now, and what was sent in it before may be committed or not: read to find out",
            id.0
        ),
    )
}

pub(super) fn already_answered(sequence: u64, floor: u64) -> TxnError {
    TxnError::unknown(
        reason::SEQUENCE_ANSWERED,
        format!(
            "the client has said that it has its answers to all below sequence {floor}, and so to {sequence}; nothing was run \
             now; what became of it then is not kept"
        ),
    )
}

fn another_transaction(sequence: u64) -> TxnError {
    TxnError::invalid(
        reason::SEQUENCE_REUSED,
        format!(
            "another transaction was sent as sequence {sequence} of this session; this one was not run; take the next \
             sequence for it"
        ),
    )
}

fn resolved(sequence: u64) -> TxnError {
    TxnError::invalid(
        reason::RESOLVED,
        format!("sequence {sequence} was resolved as not committed, for ever; send the transaction as a new one"),
    )
}

impl Sessions {
    /// Decides on a copy. Says nothing of terms: whoever calls has refused copies that name another one.
    pub(crate) fn judge(
        &mut self,
        batch: &Batch,
        request: &TxnRequest,
        session: TxnSession,
        now_micros: u64,
    ) -> Result<Verdict, TableError> {
        let TxnSession { sequence, lowest_unanswered: lowest, .. } = session;
        let copy = CopyOf { session: SessionId(session.id), sequence };
        if !self.table.find(batch, copy.session)? {
            return Ok(Verdict::Answer(Err(no_such_session(copy.session))));
        }
        let floor = self.table.used(copy.session, lowest, now_micros);
        if sequence < floor {
            return Ok(Verdict::Answer(Err(already_answered(sequence, floor))));
        }
        let fingerprint = fingerprint(request);
        if let Some(stored) = self.stored_outcome(batch, copy)? {
            return Ok(Verdict::Answer(repeat(stored, fingerprint, sequence)));
        }
        if let Some(told) = self.table.memory.get(&copy.session).and_then(|memory| memory.told.get(&sequence)) {
            let same = told.fingerprint == fingerprint;
            let answer = if same { told.answer.clone() } else { Err(another_transaction(sequence)) };
            return Ok(Verdict::Answer(answer));
        }
        let limits = self.table.limits;
        let held = self.table.stored(copy.session).held_bytes(floor);
        if held >= limits.stored_bytes {
            let text = format!(
                "the session has {held} bytes of answers of which its client has not said that they arrived, and {} are the \
                 limit; nothing was changed; answer lower sequences first",
                limits.stored_bytes
            );
            return Ok(Verdict::Answer(Err(TxnError::not_committed(reason::SESSION_FULL, text))));
        }
        if !self.table.has_room() {
            let text =
                "the leader remembers as many answers of sessions as it can; nothing was changed, send it again later";
            return Ok(Verdict::Answer(Err(TxnError::not_committed(reason::OVERLOADED, text))));
        }
        Ok(Verdict::Run(Permit { copy, fingerprint, floor }))
    }

    /// The outcome of a transaction in the staged state.
    pub(super) fn stored_outcome(&mut self, batch: &Batch, copy: CopyOf) -> Result<Option<StoredOutcome>, TableError> {
        if !self.table.stored(copy.session).outcomes.contains_key(&copy.sequence) {
            return Ok(None);
        }
        let Some(entry) = batch.get(TREE, &copy.session.outcome_key(copy.sequence))? else { return Ok(None) };
        Ok(Some(StoredOutcome::decode(&entry.value.to_vec()?)?))
    }
}

fn repeat(stored: StoredOutcome, fingerprint: u64, sequence: u64) -> Result<TxnResponse, TxnError> {
    match stored.outcome {
        Final::Never => Err(resolved(sequence)),
        Final::Committed(_) if stored.fingerprint != fingerprint => Err(another_transaction(sequence)),
        Final::Committed(response) => Ok(response),
    }
}
