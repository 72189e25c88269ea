//! What clients asked for and what they were told, in real-time order.
//!
//! Contract:
//!
//! 1. **Moments are unique and in order.** Each beginning and each end of an operation has a [`Moment`] of one [`Clock`],
//!    which never shows the same one twice. An operation that ended before another one was begun has the smaller moment:
//!    the beginning is noted before the request leaves, the end after the answer came.
//! 2. **What is not known stays unknown.** An operation is noted as unknown when it begins, and becomes something else
//!    only by being told. So a client that is killed, and a history that is taken in the middle, guess nothing.
//! 3. **Three outcomes.** *Ok*: it took effect once between its moments, with this result. *Failed*: it never takes effect.
//!    *Unknown*: it may take effect once, at any moment after its beginning, also long after the client gave up; or never.
//! 4. **A file says all of it**: one line a operation, read back strictly. See [`mod@file`].
//!
//! Two kinds of histories: operations on single keys ([`KeyHistory`]), and transactions that append to lists and read them
//! ([`TransactionHistory`]).
//!
//! | file | role |
//! | --- | --- |
//! | `moment` | moments, and the clock that gives them |
//! | `operation` | one operation, whatever is called, and its outcome |
//! | `keys`, `transactions` | the two kinds of calls with their results |
//! | `recorder` | where clients note what they do, from any thread |
//! | `file` | a history as JSON lines |

pub mod file;
mod keys;
mod moment;
mod operation;
mod recorder;
mod transactions;

#[cfg(test)]
mod file_test;
#[cfg(test)]
mod recorder_test;

pub(crate) use keys::shown as shown_value;
pub use keys::{Key, KeyAction, KeyCall, KeyResult, Value};
pub use moment::{Clock, Moment};
pub use operation::{Call, ClientId, History, MalformedOperation, Operation, Outcome};
pub use recorder::{Pending, Recorder};
pub use transactions::{Element, Step, TransactionCall, TransactionResult, TxnId};

/// A history of operations on single keys.
pub type KeyHistory = History<KeyCall>;
/// A history of transactions on lists.
pub type TransactionHistory = History<TransactionCall>;
