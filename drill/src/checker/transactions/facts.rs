//! The transactions that count, what they append, and what they read of others.
//!
//! A transaction sees its own appends at the end of a list. They are cut off here, so a [`Read`] is the state that the
//! transaction found.

use std::collections::HashMap;

use super::anomaly::Anomaly;
use crate::checker::Undecided;
use crate::history::{Element, Key, Operation, Outcome, Step, TransactionCall, TransactionHistory, TransactionResult};

/// A transaction of the history, by its place.
pub(super) type TransactionNumber = u32;

/// Why there are no facts: an anomaly, or a history that says nothing.
pub(super) enum NoFacts {
    Wrong(Box<Anomaly>),
    Undecided(Undecided),
}

impl From<Anomaly> for NoFacts {
    fn from(anomaly: Anomaly) -> NoFacts {
        NoFacts::Wrong(Box::new(anomaly))
    }
}

/// What a transaction found in a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) reader: TransactionNumber,
    pub(super) list: &'a [Element],
}

/// What is known of a key.
#[derive(Debug, Default)]
pub(super) struct KeyFacts<'a> {
    /// At most one for each transaction.
    pub(super) reads: Vec<Read<'a>>,
    /// Who appended what, failed transactions included.
    pub(super) appender: HashMap<Element, TransactionNumber>,
    /// What each transaction appended, in its order.
    pub(super) appended: HashMap<TransactionNumber, Vec<Element>>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) operations: &'a [Operation<TransactionCall>],
    /// In the order of the keys, so that what is found does not depend on the run.
    pub(super) keys: Vec<(Key, KeyFacts<'a>)>,
}

impl<'a> Facts<'a> {
    /// Collects what the history says.
    ///
    /// # Errors
    /// What a transaction says against itself; an element that two transactions appended.
    pub(super) fn of(history: &'a TransactionHistory) -> Result<Facts<'a>, NoFacts> {
        let operations = history.operations();
        let mut keys: HashMap<Key, KeyFacts<'a>> = HashMap::new();
        for (number, operation) in (0u32..).zip(operations) {
            for (key, element) in operation.call.appends() {
                let facts = keys.entry(key).or_default();
                if facts.appender.insert(element, number).is_some() {
                    return Err(NoFacts::Undecided(Undecided::SameElementTwice { key, element: element.0 }));
                }
                facts.appended.entry(number).or_default().push(element);
            }
        }
        for (number, operation) in (0u32..).zip(operations) {
            if let Outcome::Ok(returned) = &operation.outcome {
                for (key, list) in found(operation, returned)? {
                    keys.entry(key).or_default().reads.push(Read { reader: number, list });
                }
            }
        }
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by_key(|(key, _)| *key);
        Ok(Facts { operations, keys })
    }

    /// A copy of a transaction, for an explanation.
    pub(super) fn transaction(&self, number: TransactionNumber) -> Box<Operation<TransactionCall>> {
        Box::new(self.operations[number as usize].clone())
    }
}

/// What a transaction found in each key that it read.
fn found<'a>(
    operation: &'a Operation<TransactionCall>,
    returned: &'a TransactionResult,
) -> Result<Vec<(Key, &'a [Element])>, Anomaly> {
    let not_one_state = |key| Anomaly::NotOneState { key, transaction: Box::new(operation.clone()) };
    let mut own: HashMap<Key, Vec<Element>> = HashMap::new();
    let mut found: Vec<(Key, &[Element])> = Vec::new();
    let mut lists = returned.lists.iter();
    for step in &operation.call.steps {
        match *step {
            Step::Append(key, element) => own.entry(key).or_default().push(element),
            Step::Read(key) => {
                let list = lists.next().expect("a history holds a list for each read");
                let own = own.get(&key).map_or(&[][..], Vec::as_slice);
                let list = list.strip_suffix(own).ok_or_else(|| not_one_state(key))?;
                // Its own appends are nowhere else in it, neither earlier ones nor later ones.
                if operation.call.appends().any(|(other, element)| other == key && list.contains(&element)) {
                    return Err(not_one_state(key));
                }
                match found.iter().find(|(other, _)| *other == key) {
                    Some((_, before)) if *before != list => return Err(not_one_state(key)),
                    Some(_) => {}
                    None => found.push((key, list)),
                }
            }
        }
    }
    Ok(found)
}
