//! What the clients were told, against what is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::checker::{self, Bounds};
use crate::history::{
    ClientId, Element, Key, KeyHistory, Outcome, Step, TransactionCall, TransactionHistory, TransactionResult, file,
};
use crate::load::{LISTS, Noted, Told, element, list};
use crate::scratch::Scratch;
use crate::timeline::{Call, Ending, Gap, MarkKind, Recorded, gaps};
use crate::trouble::Trouble;
use crate::verdict::{Judgement, Verdict};

/// Nobody of the load has this number.
const LAST_READER: ClientId = ClientId(u32::MAX);

/// What was found out about a load.
pub(super) struct Judged {
    appends: Appends,
    keys: KeyHistory,
    transactions: TransactionHistory,
    of_keys: Judgement,
    of_transactions: Judgement,
}

/// What is wrong with the appends, by how many elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Appends {
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There more than once.
    pub(super) doubled: u64,
    /// There, although the client was told that it was not done.
    pub(super) risen: u64,
}

/// Lists by number, as they stand at the end.
pub(super) type Lists = BTreeMap<u64, Vec<u64>>;

/// Judges all that a load has noted by the lists that are there at the end. Where these could not be read, which is a finding
/// of its own, nothing is said of what is lost.
pub(super) async fn all(noted: Noted, lists: Option<Lists>) -> Judged {
    let appends = lists.as_ref().map(|lists| appends(&noted.appends, lists)).unwrap_or_default();
    if let Some(lists) = lists {
        // As a transaction that reads all lists, behind everything.
        let steps = lists.keys().map(|list| Step::Read(Key(*list))).collect();
        let read = noted.transactions.invoke(LAST_READER, TransactionCall { steps });
        let lists = lists.into_values().map(|list| list.into_iter().map(Element).collect()).collect();
        read.complete(Outcome::Ok(TransactionResult { txn_id: None, lists }));
    }
    let (keys, transactions) = (noted.registers.history(), noted.transactions.history());
    let checked = tokio::task::spawn_blocking(move || {
        let (of_keys, of_transactions) = check(&keys, &transactions);
        Judged { appends, keys, transactions, of_keys, of_transactions }
    });
    checked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Judged {
    /// What is known so far.
    pub(super) fn verdict(&self, scenario: &str, seed: u64, recorded: &Recorded, started: Instant) -> Verdict {
        let count = |call, ending| {
            let of = recorded.answers.iter().filter(|answer| answer.call == call && answer.ending == ending);
            of.count() as u64
        };
        let writes = |ending| count(Call::Write, ending);
        Verdict {
            scenario: scenario.to_owned(),
            seed,
            faults: recorded.marks.iter().filter(|mark| mark.kind == MarkKind::Fault).count(),
            acknowledged: writes(Ending::Done),
            refused: writes(Ending::Refused),
            unknown: writes(Ending::Unknown),
            reads: count(Call::Read, Ending::Done),
            lost: self.appends.lost,
            doubled: self.appends.doubled,
            risen: self.appends.risen,
            registers: self.of_keys.clone(),
            transactions: self.of_transactions.clone(),
            write_gap: gaps(recorded, Call::Write),
            read_gap: gaps(recorded, Call::Read),
            redundancy: Gap::default(),
            identical: Judgement::Skipped("the nodes go on".to_owned()),
            findings: Vec::new(),
            notes: Vec::new(),
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Writes the histories into a directory, so that they can be checked again.
    pub(super) fn keep(&self, directory: &Path) -> Result<(), Trouble> {
        let cannot = |error: std::io::Error| Trouble::during("the histories could not be written", error);
        let create = |name: &str| std::fs::File::create(directory.join(name)).map(std::io::BufWriter::new);
        file::write(&self.keys, create("keys.history.jsonl").map_err(cannot)?).map_err(cannot)?;
        file::write(&self.transactions, create("transactions.history.jsonl").map_err(cannot)?).map_err(cannot)
    }
}

/// The lists as a node holds them.
pub(super) async fn lists_of(cluster: &Scratch, node: usize) -> Result<Lists, Trouble> {
    let mut lists = Lists::new();
    for entry in cluster.scan(node, LISTS).await? {
        lists.entry(list(&entry)?).or_default().push(element(&entry)?);
    }
    Ok(lists)
}

/// Compares what the clients were told with what is there.
pub(super) fn appends(told: &BTreeMap<u64, Told>, lists: &Lists) -> Appends {
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for element in lists.values().flatten() {
        *times.entry(*element).or_default() += 1;
    }
    let mut found = Appends::default();
    for (element, told) in told {
        let there = times.get(element).copied().unwrap_or(0);
        found.doubled += u64::from(there > 1);
        match told {
            Told::Done => found.lost += u64::from(there == 0),
            Told::NotDone => found.risen += u64::from(there > 0),
            Told::Unknown => {}
        }
    }
    found
}

/// What the checkers say of the histories of single keys and of transactions.
fn check(keys: &KeyHistory, transactions: &TransactionHistory) -> (Judgement, Judgement) {
    let bounds = Bounds::default();
    (judgement(checker::linearizable(keys, &bounds)), judgement(checker::transactions(transactions)))
}

fn judgement<V: std::fmt::Display>(verdict: checker::Verdict<V>) -> Judgement {
    match verdict {
        checker::Verdict::Ok => Judgement::Good,
        checker::Verdict::Violation(why) => Judgement::Bad(why.to_string()),
        checker::Verdict::Undecided(why) => Judgement::Undecided(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_is_judged_by_what_its_client_was_told() {
        let told = BTreeMap::from([
            (1, Told::Done),
            (2, Told::Done),
            (3, Told::Done),
            (4, Told::NotDone),
            (5, Told::NotDone),
            (6, Told::Unknown),
            (7, Told::Unknown),
        ]);
        let lists = Lists::from([(0, vec![1, 2, 5]), (1, vec![2, 6])]);
        let found = appends(&told, &lists);
        let wanted = Appends { lost: 1, doubled: 1, risen: 1 };
        assert_eq!(found, wanted);
    }
}
