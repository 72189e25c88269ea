//! Txn ids against dependencies and real time.
//!
//! The id of one that appended is above the ids of all that come before it. The id of one that only read is that of the last
//! transaction that it saw, so it is not below them. Transactions without an id are passed over.

use std::collections::HashMap;

use super::anomaly::{Anomaly, Dependency};
use super::facts::{Facts, TransactionNumber};
use super::graph::{Edge, Graph, Node, kinds, moments};
use super::versions::Versions;
use crate::history::{Outcome, TxnId};

/// Whether the txn ids that are known agree with the order.
///
/// # Errors
/// Two transactions that do not.
pub(super) fn check(facts: &Facts<'_>, versions: &Versions, graph: &Graph) -> Result<(), Anomaly> {
    let ids = Ids { facts };
    ids.check_unique()?;
    ids.check_dependencies(graph)?;
    ids.check_real_time(versions)
}

struct Ids<'a> {
    facts: &'a Facts<'a>,
}

impl Ids<'_> {
    fn of(&self, number: TransactionNumber) -> Option<TxnId> {
        match &self.facts.operations[number as usize].outcome {
            Outcome::Ok(returned) => returned.txn_id,
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    fn appends(&self, number: TransactionNumber) -> bool {
        self.facts.operations[number as usize].call.appends().next().is_some()
    }

    fn check_unique(&self) -> Result<(), Anomaly> {
        let mut who: HashMap<TxnId, TransactionNumber> = HashMap::new();
        for number in (0u32..).take(self.facts.operations.len()).filter(|number| self.appends(*number)) {
            if let Some(other) = self.of(number).and_then(|id| who.insert(id, number)) {
                let (one, other) = (self.facts.transaction(other), self.facts.transaction(number));
                return Err(Anomaly::SameTxnId { one, other });
            }
        }
        Ok(())
    }

    fn check_dependencies(&self, graph: &Graph) -> Result<(), Anomaly> {
        // Behind the end of a list, the one with the least id stands for all.
        let mut least: HashMap<Node, TransactionNumber> = HashMap::new();
        for edge in graph.edges().iter().filter(|edge| edge.kind == kinds::BEHIND && self.of(edge.to).is_some()) {
            let least = least.entry(edge.from).or_insert(edge.to);
            if self.of(edge.to) < self.of(*least) {
                *least = edge.to;
            }
        }
        let of_versions = |edge: &&Edge| edge.kind != kinds::BEHIND && edge.kind != kinds::REAL_TIME;
        for edge in graph.edges().iter().filter(of_versions) {
            let to = if graph.is_transaction(edge.to) { Some(edge.to) } else { least.get(&edge.to).copied() };
            if let Some(to) = to {
                self.check_pair(edge.from, to, edge.dependency())?;
            }
        }
        Ok(())
    }

    /// Not by the edges of real time: they lead through transactions that have no id.
    fn check_real_time(&self, versions: &Versions) -> Result<(), Anomaly> {
        let mut greatest: Option<TransactionNumber> = None;
        for (_, number, is_end) in moments(self.facts, &versions.happened) {
            if !is_end {
                if let Some(before) = greatest {
                    self.check_pair(before, number, Dependency::RealTime)?;
                }
            } else if self.of(number).is_some() && greatest.is_none_or(|greatest| self.of(greatest) < self.of(number)) {
                greatest = Some(number);
            }
        }
        Ok(())
    }

    fn check_pair(
        &self,
        before: TransactionNumber,
        after: TransactionNumber,
        dependency: Dependency,
    ) -> Result<(), Anomaly> {
        let (Some(first), Some(second)) = (self.of(before), self.of(after)) else { return Ok(()) };
        if first < second || (first == second && !self.appends(after)) {
            return Ok(());
        }
        let (before, after) = (self.facts.transaction(before), self.facts.transaction(after));
        Err(Anomaly::TxnIdsAgainstOrder { before, after, dependency })
    }
}
