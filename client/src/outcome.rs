//! Committed, not committed, unknown: as types, so that no caller mixes them up.

use std::fmt;

use bytes::Bytes;
use calamus_proto::v1::{Entry, OperationResult, operation_result::Kind};
use tonic::Code;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is durable on a quorum.
    Committed,
    /// It changed nothing, and never will.
    NotCommitted,
    /// It may have been committed, or may still be.
    Unknown,
}

impl Outcome {
    /// The outcome of a transaction from what [`crate::Client::txn`] returned.
    pub fn of<T>(result: &Result<T, TxnError>) -> Outcome {
        result.as_ref().map_or_else(TxnError::outcome, |_| Outcome::Committed)
    }
}

/// A transaction that is committed (or that changed nothing, and whose answer is linearizable).
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The transaction's number, if it changed something; else 0.
    pub txn_id: u64,
    /// The timeline that it is of.
    pub timeline: u64,
    /// Whether all guards held, and so the operations ran, not those of `otherwise`.
    pub guards_held: bool,
    /// One for each operation that ran, in order.
    pub results: Vec<OperationResult>,
    /// Whether they are left out: asked for again, in a session, after they were too large to be kept.
    pub results_dropped: bool,
    /// How often it was sent, at least 1.
    pub attempts: u32,
    /// How many of these ended unknown before one committed; more than 0 only for transactions that are idempotent.
    pub unknown_attempts: u32,
}

impl Committed {
    /// What the get at this place of the operations found; `None` as well if the operation there is not a get.
    pub fn entry(&self, operation: usize) -> Option<&Entry> {
        match self.results.get(operation)?.kind.as_ref()? {
            Kind::Get(got) => got.entry.as_ref(),
            _ => None,
        }
    }

    /// The value that the get at this place of the operations found.
    pub fn value(&self, operation: usize) -> Option<&Bytes> {
        self.entry(operation).map(|entry| &entry.value)
    }

    /// What the scan at this place of the operations found; `None` if the operation there is not a scan.
    pub fn entries(&self, operation: usize) -> Option<&[Entry]> {
        match self.results.get(operation)?.kind.as_ref()? {
            Kind::Scan(scan) => Some(&scan.entries),
            _ => None,
        }
    }

    /// The integer after the add at this place of the operations; `None` if the operation there is not an add.
    pub fn added(&self, operation: usize) -> Option<i64> {
        match self.results.get(operation)?.kind.as_ref()? {
            Kind::Add(add) => Some(add.value),
            _ => None,
        }
    }

    /// The key and number that the put-next at this place of the operations chose; `None` if there is none there.
    pub fn numbered(&self, operation: usize) -> Option<(&Bytes, u64)> {
        match self.results.get(operation)?.kind.as_ref()? {
            Kind::PutNext(next) => Some((&next.key, next.number)),
            _ => None,
        }
    }
}

/// What went wrong, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable word: `timeout`, `no_leader`, `value_too_large`, `unreachable`, ...
    pub reason: String,
    /// What happened, why, and what to do next.
    pub message: String,
    /// The class of the error as gRPC names it.
    pub code: Code,
    /// The node that said so, or that could not be asked; `None` if no node was asked.
    pub node: Option<String>,
    /// How often the call was sent or tried to be sent.
    pub attempts: u32,
}

impl Failure {
    pub(crate) fn new(reason: &str, message: impl Into<String>, code: Code) -> Failure {
        Failure { reason: reason.to_owned(), message: message.into(), code, node: None, attempts: 0 }
    }

    pub(crate) fn at(mut self, node: &str) -> Failure {
        self.node = Some(node.to_owned());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}", self.message, self.reason)?;
        if let Some(node) = &self.node {
            write!(f, ", from {node}")?;
        }
        match self.attempts {
            0 | 1 => f.write_str("]"),
            n => write!(f, ", after {n} attempts]"),
        }
    }
}

/// Why a transaction (or a change to the cluster) is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// It changed nothing, and never will: it may be sent again.
    #[error("not committed: {0}")]
    NotCommitted(Failure),
    /// It may have been committed, or may still be: read before sending it again.
    #[error("outcome unknown: {0}")]
    Unknown(Failure),
}

impl TxnError {
    /// The outcome as a word.
    pub fn outcome(&self) -> Outcome {
        match self {
            TxnError::NotCommitted(_) => Outcome::NotCommitted,
            TxnError::Unknown(_) => Outcome::Unknown,
        }
    }

    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        match self {
            TxnError::NotCommitted(failure) | TxnError::Unknown(failure) => failure,
        }
    }
}

/// Why a read could not be answered. It changed nothing and may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub Failure);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_from_any_result() {
        let failure = Failure::new("timeout", "no answer", Code::DeadlineExceeded).at("n1:1");
        assert_eq!(Outcome::of::<()>(&Ok(())), Outcome::Committed);
        assert_eq!(Outcome::of::<()>(&Err(TxnError::NotCommitted(failure.clone()))), Outcome::NotCommitted);
        let unknown = TxnError::Unknown(Failure { attempts: 3, ..failure });
        assert_eq!(unknown.outcome(), Outcome::Unknown);
        assert_eq!(unknown.to_string(), "outcome unknown: no answer [timeout, from n1:1, after 3 attempts]");
    }
}
