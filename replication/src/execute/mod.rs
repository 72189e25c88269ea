//! Executing one transaction on a batch: guards, then operations. Knows nothing of consensus, time or clients.
//!
//! - Guards and operations see the newest staged state and the transaction's own earlier writes.
//! - A transaction that fails is rolled back alone; the batch goes on as if it had not been there.
//! - Nothing here decides to commit: [`run`] leaves a transaction that succeeded open, so that the merger can still
//!   take it back when it makes the record too large.
//!
//! | file | concern |
//! | --- | --- |
//! | `validate` | what can be refused without looking at a tree |
//! | `range` | ranges of keys as bounds |
//! | `guards` | conditions |
//! | `operations` | reads and writes |
//! | `fault`, `text` | what errors say |

use calamus_engine::txn::Batch;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{Operation, OperationResult, TxnRequest};

use crate::error::TxnError;

mod fault;
mod guards;
mod operations;
pub mod range;
pub mod text;
pub mod validate;

#[cfg(test)]
mod execute_test;
#[cfg(test)]
mod validate_test;

pub(crate) use fault::{batch_fault, batch_run_error};
pub use validate::{Limits, validate};

/// What a transaction that ran returns, but for its txn id.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// Whether all guards held, and so `operations` ran, not `otherwise`.
    pub guards_held: bool,
    /// One for each operation that ran, in order.
    pub results: Vec<OperationResult>,
    /// How many bytes the results take at most.
    pub result_bytes: usize,
}

/// Whether a transaction touches a few keys only, so that its execution takes no longer than its bytes let expect.
#[must_use]
pub fn is_short(request: &TxnRequest) -> bool {
    const MOST: usize = 64;
    let touches_one_key = |operation: &Operation| {
        matches!(operation.kind, Some(Kind::Put(_) | Kind::Delete(_) | Kind::Get(_) | Kind::Add(_)))
    };
    request.guards.len() + request.operations.len() + request.otherwise.len() <= MOST
        && request.operations.iter().chain(&request.otherwise).all(touches_one_key)
}

/// Why a transaction did not run. It is rolled back.
#[derive(Debug, Clone, PartialEq)]
pub enum RunError {
    /// It cannot, on the state that it met.
    Failed(TxnError),
    /// The batch has no room for all of it. In a batch of its own it may fit.
    TooLarge(TxnError),
}

impl RunError {
    /// What the client is told if it is not run again.
    #[must_use]
    pub fn into_error(self) -> TxnError {
        match self {
            Self::Failed(error) | Self::TooLarge(error) => error,
        }
    }
}

/// Begins a transaction on the batch and runs it. It is open afterwards if it succeeded, else rolled back.
///
/// The request must have passed [`validate()`].
///
/// # Panics
/// When a transaction is open on the batch, or the request is not valid.
pub fn run(batch: &mut Batch, request: &TxnRequest, limits: &Limits) -> Result<Executed, RunError> {
    batch.begin_txn();
    run_open(batch, request, limits).map_err(|fault| {
        batch.rollback_txn();
        fault.into_run_error()
    })
}

fn run_open(batch: &mut Batch, request: &TxnRequest, limits: &Limits) -> Result<Executed, fault::Fault> {
    let guards_held = guards::all_hold(batch, &request.guards)?;
    let (list, operations) =
        if guards_held { ("operation", &request.operations) } else { ("otherwise", &request.otherwise) };
    let mut budget = operations::Budget::new(limits.result_bytes);
    let results = operations::run_all(batch, list, operations, &mut budget)?;
    Ok(Executed { guards_held, results, result_bytes: budget.taken() })
}
