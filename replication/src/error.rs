//! What a client learns when its transaction or read did not succeed: never a guess.
//!
//! Outcomes are three and typed. A [`TxnError`] is one of two of them, the third is an answer:
//! - *not committed*: nothing was changed, and never will be by this request;
//! - *unknown*: it may have been committed, or may still be.
//!
//! Who is not sure says unknown. A read has changed nothing, so its errors are always *not committed*.

use std::fmt;

use calamus_proto::v1::ErrorDetail;
use calamus_proto::v1::error_detail::OutcomeClass;

use crate::seam::{LeaderInfo, ReadIndexError};

/// Stable words for programs: see [`TxnError::reason`].
pub mod reason {
    macro_rules! words {
        ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $word;)*
            const ALL: &[&str] = &[$($name),*];
        };
    }
    words! {
        /// Nobody is known to lead, or a quorum is missing.
        NO_LEADER = "no_leader";
        /// This node does not lead (any more), or not the term that was named.
        NOT_LEADER = "not_leader";
        /// The leader was asked and its answer was lost.
        LEADER_LOST = "leader_lost";
        /// The leader could not be reached; nothing was sent to it.
        UNREACHABLE = "unreachable";
        /// The time given was over.
        TIMEOUT = "timeout";
        /// The node takes no writes because an operator froze it.
        FROZEN = "frozen";
        /// The node stops, or its consensus has.
        STOPPING = "stopping";
        /// Too much waits already.
        OVERLOADED = "overloaded";
        /// The leader refused the entry before it was appended.
        REFUSED = "refused";
        /// The record was void: see `merger`.
        VOID = "void";
        /// A key of 0 bytes.
        KEY_EMPTY = "key_empty";
        /// A key over the limit.
        KEY_TOO_LONG = "key_too_long";
        /// A value over the limit.
        VALUE_TOO_LARGE = "value_too_large";
        /// A transaction over the limit, as a request or as a record.
        TXN_TOO_LARGE = "txn_too_large";
        /// An empty or too long tree name.
        BAD_TREE_NAME = "bad_tree_name";
        /// A name that begins with `$`, which are the system's.
        SYSTEM_TREE = "system_tree";
        /// A range that cannot hold a key.
        BAD_RANGE = "bad_range";
        /// A guard without a condition, or with an unknown comparison.
        BAD_GUARD = "bad_guard";
        /// An operation without a kind, or with an impossible argument.
        BAD_OPERATION = "bad_operation";
        /// The tree is not there.
        NO_SUCH_TREE = "no_such_tree";
        /// The tree holds another number of values under a key than the operation is for.
        TREE_KIND = "tree_kind";
        /// The new name of a tree is taken.
        TREE_EXISTS = "tree_exists";
        /// An integer operation on a value that is not an integer.
        NOT_AN_INTEGER = "not_an_integer";
        /// A number would leave its range.
        OVERFLOW = "overflow";
        /// An answer over the limit.
        RESULT_TOO_LARGE = "result_too_large";
        /// The disks of a quorum are short of space.
        DISK_FULL = "disk_full";
        /// The disk, or damage on it.
        STORAGE = "storage";
        /// The reader was expired to free memory.
        READER_EXPIRED = "reader_expired";
        /// The node has not caught up yet with what it knew before it was started.
        RECOVERING = "recovering";
        /// The node has not applied yet what the read asks for.
        BEHIND = "behind";
        /// The txn id that the read asks for is of another timeline.
        OTHER_TIMELINE = "other_timeline";
        /// The txn id that the read asks for was never given.
        NO_SUCH_TXN = "no_such_txn";
        /// The session is not there (any more).
        NO_SUCH_SESSION = "no_such_session";
        /// The client has said that it has the answer to this sequence of its session.
        SEQUENCE_ANSWERED = "sequence_answered";
        /// The sequence was used for another transaction.
        SEQUENCE_REUSED = "sequence_reused";
        /// Sequence and lowest unanswered sequence that cannot be.
        BAD_SEQUENCE = "bad_sequence";
        /// The transaction was resolved as not committed.
        RESOLVED = "resolved";
        /// The session has stored as many answers as it may that its client does not have.
        SESSION_FULL = "session_full";
        /// There are as many sessions as there may be.
        TOO_MANY_SESSIONS = "too_many_sessions";
        /// Another node said something that this version does not know.
        OTHER = "other";
    }

    /// The word as this program knows it; [`OTHER`] if it does not.
    #[must_use]
    pub fn known(word: &str) -> &'static str {
        ALL.iter().find(|known| **known == word).copied().unwrap_or(OTHER)
    }
}

/// What is certain about a transaction that was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing was changed, and never will be by this request.
    NotCommitted,
    /// It may have been committed, or may still be.
    Unknown,
}

/// A transaction or read that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnError {
    /// What is certain.
    pub outcome: Outcome,
    /// A stable word for programs, of [`reason`].
    pub reason: &'static str,
    /// What happened, why, and what to do.
    pub message: String,
    /// The leader's advertised address, if it is another node and known.
    pub leader: Option<String>,
    /// Whether the same request may be sent again at once.
    pub retryable: bool,
}

impl std::error::Error for TxnError {}

impl fmt::Display for TxnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl TxnError {
    /// The request itself is at fault: nothing happened, and sending it again is of no use.
    pub fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotCommitted, reason, message: message.into(), leader: None, retryable: false }
    }

    /// Nothing happened for a reason that passes: the same request may be sent again.
    pub fn not_committed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::invalid(reason, message) }
    }

    /// It may have been committed. Not retryable: a second copy could be a second execution.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::invalid(reason, message) }
    }

    /// Names the leader.
    #[must_use]
    pub fn with_leader(mut self, leader: Option<&LeaderInfo>) -> Self {
        self.leader = leader.map(|leader| leader.address.clone());
        self
    }

    /// This node does not lead, and nothing was sent to the one that does.
    #[must_use]
    pub fn not_leader(leader: Option<&LeaderInfo>) -> Self {
        match leader {
            Some(known) => Self::not_committed(
                reason::NOT_LEADER,
                format!(
                    "this node does not lead; {} at {} leads term {}: send it there",
                    known.name, known.address, known.term
                ),
            )
            .with_leader(leader),
            None => Self::not_committed(
                reason::NO_LEADER,
                "no leader is known to this node: an election may be running, or a quorum is missing; send it again shortly",
            ),
        }
    }

    /// The error of a read, or of an answer that changes nothing, whose read point could not be confirmed.
    #[must_use]
    pub fn from_read_index(error: &ReadIndexError) -> Self {
        match error {
            ReadIndexError::NotLeading { leader } => Self::not_leader(leader.as_ref()),
            ReadIndexError::NoLeader => Self::not_leader(None),
            ReadIndexError::Unreachable { leader, .. } => Self::not_committed(
                reason::UNREACHABLE,
                format!("there is no read point: {error}; nothing was changed, send it again"),
            )
            .with_leader(Some(leader)),
            ReadIndexError::Timeout { .. } => Self::not_committed(
                reason::TIMEOUT,
                format!("there is no read point: {error}; nothing was changed, send it again when a quorum is up"),
            ),
            ReadIndexError::Stopped { .. } => {
                Self::not_committed(reason::STOPPING, format!("{error}; nothing was changed, ask another node"))
            }
        }
    }

    /// The same as a message.
    #[must_use]
    pub fn to_detail(&self) -> ErrorDetail {
        let outcome = match self.outcome {
            Outcome::NotCommitted => OutcomeClass::NotCommitted,
            Outcome::Unknown => OutcomeClass::Unknown,
        };
        ErrorDetail {
            outcome: outcome.into(),
            message: self.message.clone(),
            reason: self.reason.to_owned(),
            leader: self.leader.clone().unwrap_or_default(),
            retryable: self.retryable,
        }
    }

    /// The error that a message stands for. An outcome that is not known is unknown.
    #[must_use]
    pub fn from_detail(detail: ErrorDetail) -> Self {
        let outcome = match OutcomeClass::try_from(detail.outcome) {
            Ok(OutcomeClass::NotCommitted) => Outcome::NotCommitted,
            Ok(OutcomeClass::Unknown) | Err(_) => Outcome::Unknown,
        };
        Self {
            outcome,
            reason: reason::known(&detail.reason),
            message: detail.message,
            leader: (!detail.leader.is_empty()).then_some(detail.leader),
            retryable: detail.retryable && outcome == Outcome::NotCommitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let errors = [
            TxnError::invalid(reason::KEY_TOO_LONG, "too long"),
            TxnError::not_committed(reason::FROZEN, "frozen"),
            TxnError::unknown(reason::TIMEOUT, "late"),
        ];
        for error in errors {
            assert_eq!(TxnError::from_detail(error.to_detail()), error);
        }
    }

    #[test]
    fn what_is_not_understood_is_unknown_and_never_retryable() {
        let detail =
            ErrorDetail { outcome: 77, reason: "of a later version".to_owned(), retryable: true, ..Default::default() };
        let error = TxnError::from_detail(detail);
        assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::Unknown, reason::OTHER, false));
    }
}
