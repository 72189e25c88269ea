//! Why a transaction that was in order as a request failed on the state it met. It is rolled back, alone.

use calamus_engine::btree::ReadError;
use calamus_engine::txn::BatchError;

use super::RunError;
use crate::error::{TxnError, reason};

/// A failure of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) text: String,
    /// Whether the same request may succeed when it is sent again.
    passes: bool,
    /// Whether it is only too large for the batch: in one of its own it may fit.
    too_large: bool,
}

impl Fault {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), passes: false, too_large: false }
    }

    pub(super) fn at_guard(mut self, at: usize) -> Self {
        self.text = format!("guard {at}: {}", self.text);
        self
    }

    /// Names the list ("operation" or "otherwise"), the place in it and the kind of the operation.
    pub(super) fn at_operation(mut self, list: &str, at: usize, kind: &str) -> Self {
        self.text = format!("{list} {at} ({kind}): {}", self.text);
        self
    }

    pub(super) fn into_run_error(self) -> RunError {
        if self.too_large { RunError::TooLarge(self.into_error()) } else { RunError::Failed(self.into_error()) }
    }

    fn into_error(self) -> TxnError {
        let message = format!("{}; nothing was changed", self.text);
        if self.passes {
            TxnError::not_committed(self.reason, message)
        } else {
            TxnError::invalid(self.reason, message)
        }
    }
}

/// What an error of the engine means for the transaction, and whether it is only too large for the batch.
pub(crate) fn batch_run_error(error: BatchError) -> RunError {
    from_batch(error).into_run_error()
}

/// What an error of the engine means for the transaction.
pub(crate) fn batch_fault(error: BatchError) -> TxnError {
    from_batch(error).into_error()
}

pub(super) fn from_batch(error: BatchError) -> Fault {
    let (word, passes) = match &error {
        BatchError::NoSuchTree(_) => (reason::NO_SUCH_TREE, false),
        BatchError::TreeExists(_) => (reason::TREE_EXISTS, false),
        BatchError::KeyLength(0) => (reason::KEY_EMPTY, false),
        BatchError::KeyLength(_) => (reason::KEY_TOO_LONG, false),
        BatchError::ValueLength(_) | BatchError::SortedValueLength(_) => (reason::VALUE_TOO_LARGE, false),
        BatchError::ManyValues(_) | BatchError::OneValue(_) | BatchError::Read(ReadError::OtherKind(_)) => {
            (reason::TREE_KIND, false)
        }
        BatchError::NameLength(_) => (reason::BAD_TREE_NAME, false),
        BatchError::TooLarge { .. } | BatchError::TooManyTrees | BatchError::TooManyPages(_) => {
            (reason::TXN_TOO_LARGE, false)
        }
        BatchError::DiskFull(_) => (reason::DISK_FULL, false),
        BatchError::Read(ReadError::Expired) => (reason::READER_EXPIRED, true),
        BatchError::ForgottenReader { .. } | BatchError::NoMemory { .. } => (reason::OVERLOADED, true),
        _ => (reason::STORAGE, true),
    };
    Fault { reason: word, text: error.to_string(), passes, too_large: word == reason::TXN_TOO_LARGE }
}
