//! Strict serializability of transactions that append to lists and read them.
//!
//! The longest list that was read of a key is the order of its versions; every other list must be a beginning of it. From
//! that, who depends on whom is known (Adya, "Weak Consistency", MIT 1999; Kingsbury and Alvaro, "Elle", VLDB 2020):
//!
//! | dependency | from | to |
//! | --- | --- | --- |
//! | write-write | who appended an element | who appended the next one |
//! | write-read | who appended the last element of a list | who read that list |
//! | read-write | who read a list | who appended the first element that it does not show |
//! | real time | who ended | who began after that |
//!
//! Nothing can be wrong without a cycle, and the other way round: without one, take any order that goes along all
//! dependencies. Then each transaction reads exactly what those before it have appended. So the verdict is exact, not a
//! rule of thumb. What needs no cycle to be wrong is looked for before, and named more simply (`versions`).
//!
//! Appends that no list shows come behind all that the longest list shows: those who read the longest list, and who appended
//! its last element, come before all of them. These are dependencies of many to many, so they go through one node for each
//! key, which stands *behind the end* of the list.
//!
//! A transaction whose outcome is unknown counts as committed if a list shows something of it, and then all of it counts. It
//! has no end, so nothing comes after it by real time. A failed transaction must not be seen at all.
//!
//! Where txn ids are known they must ascend along every dependency (`txn_ids`).
//!
//! All of it takes a time that is linear in the history, but for sorting: real time gives an edge only from those that ended
//! last, at most one for each client that ran at the same time.
//!
//! | file | role |
//! | --- | --- |
//! | `facts` | the transactions that count, what they append and what they read of others |
//! | `versions` | the order of the versions of each key; what is wrong already there |
//! | `graph` | dependencies as edges |
//! | `components` | Tarjan's strongly connected components |
//! | `cycles` | which kind of cycle there is, and a short one of it |
//! | `txn_ids` | txn ids against dependencies and real time |
//! | `anomaly` | what can be wrong, for a person |

mod anomaly;
mod components;
mod cycles;
mod facts;
mod graph;
mod txn_ids;
mod versions;

#[cfg(test)]
mod components_test;
#[cfg(test)]
mod speed_test;
#[cfg(test)]
mod transactions_test;
#[cfg(test)]
mod txn_ids_test;

use super::Verdict;
use crate::history::TransactionHistory;
use facts::{Facts, NoFacts};
use graph::Graph;
use versions::Versions;

pub use anomaly::{Anomaly, CycleEdge, CycleKind, Dependency, TransactionViolation};

/// Whether all transactions can have happened one after the other, each between its beginning and its end, by what was
/// answered.
///
/// All lists are empty at the beginning.
pub fn transactions(history: &TransactionHistory) -> Verdict<TransactionViolation> {
    match examine(history) {
        Ok(()) => Verdict::Ok,
        Err(NoFacts::Wrong(anomaly)) => Verdict::Violation(Box::new(TransactionViolation { anomaly: *anomaly })),
        Err(NoFacts::Undecided(why)) => Verdict::Undecided(why),
    }
}

fn examine(history: &TransactionHistory) -> Result<(), NoFacts> {
    let facts = Facts::of(history)?;
    let versions = Versions::of(&facts)?;
    let graph = Graph::of(&facts, &versions);
    if let Some(anomaly) = cycles::find(&facts, &graph) {
        return Err(anomaly.into());
    }
    Ok(txn_ids::check(&facts, &versions, &graph)?)
}
