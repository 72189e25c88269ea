//! The one place where errors become gRPC codes.
//!
//! | class | code |
//! | --- | --- |
//! | the request itself is wrong | INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE |
//! | nothing happened, for a reason that passes | UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED, DEADLINE_EXCEEDED |
//! | the outcome is unknown | DEADLINE_EXCEEDED when the time was over, else UNKNOWN |
//! | the disk | INTERNAL |
//!
//! A code only says the class. What is certain stands in the [`ErrorDetail`], which goes with every error as binary
//! metadata under `calamus-error-bin`.

use calamus_proto::ERROR_DETAIL_METADATA;
use calamus_proto::v1::ErrorDetail;
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_replication::NodeError;
use calamus_replication::error::{Outcome, TxnError, reason};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

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
        return if error.reason == reason::TIMEOUT { Code::DeadlineExceeded } else { Code::Unknown };
    }
    match error.reason {
        reason::NO_SUCH_TREE => Code::NotFound,
        reason::TREE_EXISTS => Code::AlreadyExists,
        reason::NOT_AN_INTEGER | reason::TREE_KIND => Code::FailedPrecondition,
        reason::OVERFLOW | reason::RESULT_TOO_LARGE => Code::OutOfRange,
        reason::SYSTEM_TREE => Code::PermissionDenied,
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
