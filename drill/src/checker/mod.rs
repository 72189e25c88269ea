//! Whether a history can be what a correct database answered.
//!
//! Contract:
//!
//! 1. **A violation is a proof.** It is said only when no order of the operations explains what was answered; it comes with
//!    what a person needs to see it.
//! 2. **Good is a proof, too**, of the history, not of the database: an order exists that explains every answer, and that
//!    contradicts no moment.
//! 3. **What was not decided is not good.** When a bound of time or memory is reached, the verdict says so.
//!
//! Two checkers. [`linearizable`] takes operations on single keys, each key by itself, since linearizability is local (Herlihy
//! and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS 1990). [`transactions`] takes
//! transactions over several lists and asks for strict serializability.
//!
//! | file | role |
//! | --- | --- |
//! | `verdict` | what a checker says, and its bounds |
//! | `keys/` | linearizability by search |
//! | `transactions/` | strict serializability by cycles |

mod keys;
mod transactions;
mod verdict;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stateright_test;

pub use keys::{KeyViolation, Stuck, linearizable};
pub use transactions::{Anomaly, CycleEdge, CycleKind, Dependency, TransactionViolation, transactions};
pub use verdict::{Bounds, Undecided, Verdict};
