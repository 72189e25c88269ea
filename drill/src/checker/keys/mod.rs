//! Linearizability of operations on single keys.
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC 1993): take an operation that no
//! other one wholly precedes, see whether its answer is right in the state so far, go on with the rest, and come back if
//! there is no way. With Lowe's memory of what was tried ("Testing for linearizability", CCPE 2017): the same set of
//! operations done, in the same state, is not tried twice. For each key by itself.
//!
//! Three rules make it fast and lose nothing. Let an operation be *open* if no operation that is not yet placed ended before
//! it began.
//!
//! 1. **What changes nothing is placed at once.** An open operation whose answer is right in the state so far and that leaves
//!    the state as it is (a read; a swap that was refused): from any order of the rest, one with it moved to the front follows.
//! 2. **An unknown operation is placed only for somebody.** It may be left out, so take an order with as few of them as
//!    possible. What follows such an operation then needs the state that it makes; else it could be left out. So it is tried
//!    only while an open operation would be right after it that looks at the state. (It has no end, so placing it opens none.)
//! 3. **Definite operations first, by their ends**: only an order of trying.
//!
//! A failed operation and an unknown read are not looked at: they have no effect and say nothing. An unknown operation has no
//! end: it precedes nothing.
//!
//! Whether the search can pass an end depends on what began before it alone. So the furthest end that it could not pass is the
//! end of the shortest part of the history that cannot be explained, and the operation that ended there is named.
//!
//! | file | role |
//! | --- | --- |
//! | `entry` | what an operation does to the state |
//! | `timeline` | beginnings and ends that are not placed yet, as a linked list |
//! | `placed` | which operations are placed, in few bytes |
//! | `search` | the search |
//! | `explain` | a violation, for a person |

mod entry;
mod explain;
mod placed;
mod search;
mod timeline;

#[cfg(test)]
mod keys_test;
#[cfg(test)]
mod speed_test;

use std::collections::BTreeMap;

use super::{Bounds, Undecided, Verdict};
use crate::history::{KeyCall, KeyHistory, Operation};
use entry::Entry;
use search::{Found, Search};

pub use explain::{KeyViolation, Stuck};

/// Whether every operation can have taken effect at one moment between its beginning and its end, by what was answered.
///
/// All keys are absent at the beginning. Of several keys with a violation, the smallest is named; a violation of one key
/// counts, also if another key could not be decided.
pub fn linearizable(history: &KeyHistory, bounds: &Bounds) -> Verdict<KeyViolation> {
    let mut keys: BTreeMap<_, Vec<Operation<KeyCall>>> = BTreeMap::new();
    for operation in history.operations() {
        keys.entry(operation.call.key).or_default().push(operation.clone());
    }
    let deadline = bounds.deadline();
    let mut undecided = None;
    for (key, operations) in keys {
        let entries: Vec<Entry> =
            operations.iter().enumerate().filter_map(|(source, operation)| Entry::of(operation, source)).collect();
        match Search::new(&entries, bounds.memory_bytes, deadline).run() {
            Found::Order => {}
            Found::None(stuck) => {
                return Verdict::Violation(Box::new(KeyViolation::new(key, &operations, &entries, &stuck)));
            }
            Found::TimeIsUp => {
                undecided.get_or_insert(Undecided::Time { key, allowed: bounds.time });
            }
            Found::MemoryIsFull => {
                undecided.get_or_insert(Undecided::Memory { key, allowed_bytes: bounds.memory_bytes });
            }
        }
    }
    undecided.map_or(Verdict::Ok, Verdict::Undecided)
}
