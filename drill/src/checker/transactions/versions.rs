//! The order of the versions of each key, and what is wrong already there.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::anomaly::Anomaly;
use super::facts::{Facts, KeyFacts, Read, TransactionNumber};
use crate::history::{Element, Key, Operation, Outcome, TransactionCall};

/// The versions of a key.
#[derive(Debug)]
pub(super) struct KeyVersions {
    pub(super) key: Key,
    /// Who appended each element of the longest list.
    pub(super) writers: Vec<TransactionNumber>,
    /// Who read, and how many elements.
    pub(super) reads: Vec<(TransactionNumber, usize)>,
    /// Those that happened and appended what no list shows, each once.
    pub(super) behind: BTreeSet<TransactionNumber>,
}

/// The versions of all keys.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) keys: Vec<KeyVersions>,
    /// Whether a transaction has happened: it was acknowledged, or a list shows something of it.
    pub(super) happened: Vec<bool>,
}

impl Versions {
    /// The versions of all keys.
    ///
    /// # Errors
    /// What needs no cycle to be wrong.
    pub(super) fn of(facts: &Facts<'_>) -> Result<Versions, Anomaly> {
        let acknowledged = |operation: &Operation<TransactionCall>| matches!(operation.outcome, Outcome::Ok(_));
        let mut happened: Vec<bool> = facts.operations.iter().map(acknowledged).collect();
        let mut orders = Vec::with_capacity(facts.keys.len());
        for (key, of_key) in &facts.keys {
            let longest = of_key.reads.iter().max_by_key(|read| read.list.len());
            let writers = match longest {
                Some(longest) => {
                    let writers = writers(facts, *key, of_key, longest)?;
                    check_beginnings(facts, *key, of_key, longest)?;
                    writers
                }
                None => Vec::new(),
            };
            for writer in &writers {
                happened[*writer as usize] = true;
            }
            orders.push((writers, longest));
        }
        let mut keys = Vec::with_capacity(facts.keys.len());
        for ((key, of_key), (writers, longest)) in facts.keys.iter().zip(orders) {
            let shown = longest.map_or(&[][..], |read| read.list);
            check_whole(facts, *key, of_key, shown)?;
            let behind = behind(facts, *key, of_key, shown, &happened)?;
            let reads = of_key.reads.iter().map(|read| (read.reader, read.list.len())).collect();
            keys.push(KeyVersions { key: *key, writers, reads, behind });
        }
        Ok(Versions { keys, happened })
    }
}

/// Who appended each element of a list: somebody who did not fail, and each element once.
fn writers(
    facts: &Facts<'_>,
    key: Key,
    of_key: &KeyFacts<'_>,
    read: &Read<'_>,
) -> Result<Vec<TransactionNumber>, Anomaly> {
    let mut seen = HashSet::with_capacity(read.list.len());
    let mut writers = Vec::with_capacity(read.list.len());
    for element in read.list {
        let (element, reader) = (*element, || facts.transaction(read.reader));
        if !seen.insert(element) {
            return Err(Anomaly::DoubledAppend { key, element, reader: reader() });
        }
        let Some(writer) = of_key.appender.get(&element).copied() else {
            return Err(Anomaly::NeverAppended { key, element, reader: reader() });
        };
        if facts.operations[writer as usize].outcome == Outcome::Failed {
            let writer = facts.transaction(writer);
            return Err(Anomaly::FailedAppendSeen { key, element, writer, reader: reader() });
        }
        writers.push(writer);
    }
    Ok(writers)
}

/// Every list is a beginning of the longest one.
fn check_beginnings(facts: &Facts<'_>, key: Key, of_key: &KeyFacts<'_>, longest: &Read<'_>) -> Result<(), Anomaly> {
    for read in &of_key.reads {
        if !longest.list.starts_with(read.list) {
            // What is wrong with this list alone says more.
            writers(facts, key, of_key, read)?;
            let (one, other) = (facts.transaction(read.reader), facts.transaction(longest.reader));
            return Err(Anomaly::DifferentOrders { key, one, other });
        }
    }
    Ok(())
}

/// Of what a transaction appended to the key, each list shows nothing, or all in its order.
///
/// That nothing of others is between is left to the cycles.
fn check_whole(facts: &Facts<'_>, key: Key, of_key: &KeyFacts<'_>, shown: &[Element]) -> Result<(), Anomaly> {
    let torn = |writer: TransactionNumber, reader: TransactionNumber| Anomaly::TornAppends {
        key,
        writer: facts.transaction(writer),
        reader: facts.transaction(reader),
    };
    let mut next: HashMap<TransactionNumber, usize> = HashMap::new();
    // For each length of a list, a transaction that has been appended in part there.
    let mut in_part: Vec<Option<TransactionNumber>> = vec![None];
    let mut unfinished: BTreeSet<TransactionNumber> = BTreeSet::new();
    for element in shown {
        let writer = of_key.appender[element];
        let appended = &of_key.appended[&writer];
        let next = next.entry(writer).or_default();
        if appended[*next] != *element {
            unfinished.insert(writer);
            // Never to be finished: its order is wrong.
            *next = 0;
        } else {
            *next += 1;
            if *next == appended.len() {
                unfinished.remove(&writer);
            } else {
                unfinished.insert(writer);
            }
        }
        in_part.push(unfinished.first().copied());
    }
    for read in &of_key.reads {
        if let Some(writer) = in_part[read.list.len()] {
            return Err(torn(writer, read.reader));
        }
    }
    Ok(())
}

/// Those that happened and appended what no list shows.
///
/// An acknowledged one is lost if a list was read after it had ended.
fn behind(
    facts: &Facts<'_>,
    key: Key,
    of_key: &KeyFacts<'_>,
    shown: &[Element],
    happened: &[bool],
) -> Result<BTreeSet<TransactionNumber>, Anomaly> {
    let shown: HashSet<Element> = shown.iter().copied().collect();
    let last_begun = of_key.reads.iter().max_by_key(|read| facts.operations[read.reader as usize].invoked);
    let mut behind = BTreeSet::new();
    for (writer, appended) in &of_key.appended {
        if happened[*writer as usize] && !shown.contains(&appended[0]) {
            behind.insert(*writer);
        }
    }
    let Some(last_begun) = last_begun else { return Ok(behind) };
    for writer in &behind {
        let operation = &facts.operations[*writer as usize];
        let acknowledged = matches!(operation.outcome, Outcome::Ok(_));
        let begun = facts.operations[last_begun.reader as usize].invoked;
        if acknowledged && operation.ended.is_some_and(|ended| ended < begun) {
            let element = of_key.appended[writer][0];
            let (writer, reader) = (facts.transaction(*writer), facts.transaction(last_begun.reader));
            return Err(Anomaly::LostAppend { key, element, writer, reader });
        }
    }
    Ok(behind)
}
