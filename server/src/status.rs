//! The one place where errors become gRPC codes.
//!
//! | class | code |
//! | --- | --- |
//! | the request itself is wrong | INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE |
//! | nothing happened, for a reason that passes | UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED, DEADLINE_EXCEEDED |
//! | the outcome is unknown | DEADLINE_EXCEEDED when the time was over, NOT_FOUND when its session is gone, else UNKNOWN |
//! | the disk | INTERNAL |
//!
//! A code only says the class. What is certain stands in the [`ErrorDetail`], which goes with every error as binary
//! metadata under `calamus-error-bin`.

use calamus_engine::backup::{BackupError, ChainError, StoreError};
use calamus_proto::ERROR_DETAIL_METADATA;
use calamus_proto::v1::ErrorDetail;
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_replication::NodeError;
use calamus_replication::error::{Outcome, TxnError, reason};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::backup::error::RunError;

/// The status of a transaction or read that did not succeed.
#[must_use]
pub fn of_txn_error(error: &TxnError) -> Status {
    with_detail(code_of(error), error.to_detail())
}

/// The status of an operation on the cluster that did not succeed.
#[must_use]
pub fn of_node_error(error: &NodeError) -> Status {
    let (code, reason, outcome, retryable) = match error {
        NodeError::NotLeader { leader: Some(_) } => (Code::Unavailable, reason::NOT_LEADER, NOT_COMMITTED, true),
        NodeError::NotLeader { leader: None } => (Code::Unavailable, reason::NO_LEADER, NOT_COMMITTED, true),
        NodeError::Invalid(_) => (Code::InvalidArgument, "invalid", NOT_COMMITTED, false),
        NodeError::Refused(_) => (Code::FailedPrecondition, reason::REFUSED, NOT_COMMITTED, false),
        NodeError::Busy(_) => (Code::Aborted, reason::REFUSED, NOT_COMMITTED, true),
        NodeError::Timeout { .. } => (Code::DeadlineExceeded, reason::TIMEOUT, OutcomeClass::Unknown, false),
        NodeError::Stopped(_) => (Code::Unavailable, reason::STOPPING, NOT_COMMITTED, true),
        NodeError::Storage(_) => (Code::Internal, reason::STORAGE, OutcomeClass::Unknown, false),
        _ => (Code::Unknown, reason::OTHER, OutcomeClass::Unknown, false),
    };
    let leader = match error {
        NodeError::NotLeader { leader: Some(leader) } => leader.address.clone(),
        _ => String::new(),
    };
    let detail = ErrorDetail {
        outcome: outcome.into(),
        message: error.to_string(),
        reason: reason.to_owned(),
        leader,
        retryable,
    };
    with_detail(code, detail)
}

/// The status of what was asked about backups and did not succeed. No data of the cluster was changed in any case.
#[must_use]
pub fn of_run_error(error: &RunError) -> Status {
    let (code, reason, retryable) = match error {
        RunError::Invalid(_) => (Code::InvalidArgument, "invalid", false),
        RunError::NoTarget { .. } => (Code::NotFound, "no_such_target", false),
        RunError::Busy { .. } => (Code::Aborted, reason::REFUSED, true),
        RunError::Place(_) => (Code::FailedPrecondition, reason::REFUSED, false),
        RunError::Ending => (Code::Unavailable, reason::STOPPING, true),
        RunError::Broken => (Code::Internal, reason::OTHER, false),
        RunError::Chain(error) => code_of_chain(error),
        RunError::Backup(BackupError::Chain(error)) => code_of_chain(error),
        RunError::Backup(BackupError::Storage(_)) => (Code::Internal, reason::STORAGE, false),
        RunError::Backup(BackupError::Seed(_) | BackupError::Pin(_) | BackupError::Tail(_) | BackupError::Stopped) => {
            (Code::Aborted, reason::OTHER, true)
        }
        RunError::Backup(_) => (Code::FailedPrecondition, reason::REFUSED, false),
    };
    let detail = ErrorDetail {
        outcome: NOT_COMMITTED.into(),
        message: error.to_string(),
        reason: reason.to_owned(),
        leader: String::new(),
        retryable,
    };
    with_detail(code, detail)
}

fn code_of_chain(error: &ChainError) -> (Code, &'static str, bool) {
    match error {
        ChainError::Store(StoreError::Storage(_)) => (Code::Internal, reason::STORAGE, false),
        ChainError::Store(_) => (Code::Unavailable, reason::UNREACHABLE, true),
        _ => (Code::FailedPrecondition, reason::REFUSED, false),
    }
}

const NOT_COMMITTED: OutcomeClass = OutcomeClass::NotCommitted;

/// A status with its detail.
#[must_use]
pub fn with_detail(code: Code, detail: ErrorDetail) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(ERROR_DETAIL_METADATA, MetadataValue::from_bytes(&detail.encode_to_vec()));
    Status::with_metadata(code, detail.message, metadata)
}

fn code_of(error: &TxnError) -> Code {
    if error.outcome == Outcome::Unknown {
        return match error.reason {
            reason::TIMEOUT => Code::DeadlineExceeded,
            reason::NO_SUCH_SESSION => Code::NotFound,
            _ => Code::Unknown,
        };
    }
    match error.reason {
        reason::NO_SUCH_TREE => Code::NotFound,
        reason::OTHER_TIMELINE | reason::NO_SUCH_TXN => Code::FailedPrecondition,
        reason::TREE_EXISTS => Code::AlreadyExists,
        reason::NOT_AN_INTEGER | reason::TREE_KIND => Code::FailedPrecondition,
        reason::OVERFLOW | reason::RESULT_TOO_LARGE => Code::OutOfRange,
        reason::SYSTEM_TREE => Code::PermissionDenied,
        reason::RESOLVED | reason::SEQUENCE_REUSED => Code::FailedPrecondition,
        reason::SESSION_FULL | reason::TOO_MANY_SESSIONS => Code::ResourceExhausted,
        reason::OVERLOADED | reason::DISK_FULL => Code::ResourceExhausted,
        reason::VOID | reason::READER_EXPIRED => Code::Aborted,
        reason::TIMEOUT => Code::DeadlineExceeded,
        reason::STORAGE => Code::Internal,
        _ if error.retryable => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_for_another_passes_and_one_that_is_refused_does_not() {
        let said = |error: NodeError| {
            let status = of_node_error(&error);
            let bytes = status.metadata().get_bin(ERROR_DETAIL_METADATA).unwrap().to_bytes().unwrap();
            (status.code(), ErrorDetail::decode(bytes).unwrap().retryable)
        };
        assert_eq!(said(NodeError::Busy("b".to_owned())), (Code::Aborted, true));
        assert_eq!(said(NodeError::Refused("r".to_owned())), (Code::FailedPrecondition, false));
    }

    #[test]
    fn what_cannot_be_backed_up_now_passes_and_what_was_asked_wrongly_does_not() {
        let busy = RunError::Busy { target: "a".to_owned() };
        let stranger = RunError::NoTarget { name: "b".to_owned(), known: vec!["a".to_owned()] };
        let place = StoreError::Other { operation: "the writing", name: "x".to_owned(), message: "503".to_owned() };
        let cases = [
            (busy, Code::Aborted, true),
            (stranger, Code::NotFound, false),
            (RunError::Ending, Code::Unavailable, true),
            (RunError::Backup(place.into()), Code::Unavailable, true),
            (RunError::Backup(BackupError::Taken("x".to_owned())), Code::FailedPrecondition, false),
        ];
        for (error, code, retryable) in cases {
            let status = of_run_error(&error);
            let bytes = status.metadata().get_bin(ERROR_DETAIL_METADATA).unwrap().to_bytes().unwrap();
            let detail = ErrorDetail::decode(bytes).unwrap();
            assert_eq!((status.code(), detail.retryable, detail.message), (code, retryable, error.to_string()));
        }
    }

    #[test]
    fn the_detail_survives_and_the_code_says_the_class() {
        let cases = [
            (TxnError::invalid(reason::KEY_TOO_LONG, "k"), Code::InvalidArgument),
            (TxnError::invalid(reason::NO_SUCH_TREE, "t"), Code::NotFound),
            (TxnError::invalid(reason::DISK_FULL, "d"), Code::ResourceExhausted),
            (TxnError::not_committed(reason::FROZEN, "f"), Code::Unavailable),
            (TxnError::not_committed(reason::TIMEOUT, "f"), Code::DeadlineExceeded),
            (TxnError::unknown(reason::TIMEOUT, "u"), Code::DeadlineExceeded),
            (TxnError::unknown(reason::LEADER_LOST, "u"), Code::Unknown),
        ];
        for (error, code) in cases {
            let status = of_txn_error(&error);
            assert_eq!(status.code(), code, "{error:?}");
            let bytes = status.metadata().get_bin(ERROR_DETAIL_METADATA).unwrap().to_bytes().unwrap();
            assert_eq!(TxnError::from_detail(ErrorDetail::decode(bytes).unwrap()), error);
        }
    }
}
