//! Transactions that append to lists and read them.
//!
//! Each element is appended at most once to a key in a whole history. So a list that was read names the transactions that
//! made it, in their order, and a history says nearly all about the order of its versions (Kingsbury and Alvaro, "Elle:
//! Inferring Isolation Anomalies from Experimental Observations", VLDB 2020).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Call, Key};

/// What is appended; unique for its key in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Element(pub u64);

/// The number that the database gave to a transaction that changed something; for one that only read, the number of the
/// last transaction that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxnId(pub u64);

/// One step of a transaction. Steps are done in order, and see those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Append an element to the list of a key.
    Append(Key, Element),
    /// Read the list of a key.
    Read(Key),
}

/// A transaction: all of its steps happen at one moment, or none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionCall {
    /// Its steps in order.
    pub steps: Vec<Step>,
}

/// What a committed transaction returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionResult {
    /// Its txn id, if the database said it.
    pub txn_id: Option<TxnId>,
    /// One list for each read, in their order.
    pub lists: Vec<Vec<Element>>,
}

impl TransactionCall {
    /// What it appends, in order.
    pub fn appends(&self) -> impl Iterator<Item = (Key, Element)> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Append(key, element) => Some((*key, *element)),
            Step::Read(_) => None,
        })
    }

    /// The keys that it reads, in order.
    pub fn reads(&self) -> impl Iterator<Item = Key> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Append(..) => None,
            Step::Read(key) => Some(*key),
        })
    }
}

impl Call for TransactionCall {
    type Returned = TransactionResult;
    const KIND: &'static str = "transactions";

    fn fits(&self, returned: &TransactionResult) -> bool {
        self.reads().count() == returned.lists.len()
    }

    fn describe(&self, returned: &TransactionResult) -> String {
        let lists: Vec<String> =
            self.reads().zip(&returned.lists).map(|(key, list)| format!("{key} = {}", shown(list))).collect();
        let id = returned.txn_id.map_or_else(String::new, |id| format!(" as txn {}", id.0));
        let read = if lists.is_empty() { String::new() } else { format!(": {}", lists.join(", ")) };
        format!("committed{id}{read}")
    }
}

impl fmt::Display for TransactionCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = |step: &Step| match step {
            Step::Append(key, element) => format!("append {} to {key}", element.0),
            Step::Read(key) => format!("read {key}"),
        };
        write!(f, "{}", self.steps.iter().map(step).collect::<Vec<_>>().join(", "))
    }
}

/// A list, for a person: its end, if it is long.
fn shown(list: &[Element]) -> String {
    const SHOWN: usize = 12;
    let from = list.len().saturating_sub(SHOWN);
    let elements: Vec<String> = list[from..].iter().map(|element| element.0.to_string()).collect();
    let before = if from > 0 { format!("{from} more, ") } else { String::new() };
    format!("[{before}{}]", elements.join(" "))
}
