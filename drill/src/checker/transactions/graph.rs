//! Dependencies as edges.

use super::anomaly::Dependency;
use super::facts::{Facts, TransactionNumber};
use super::versions::{KeyVersions, Versions};
use crate::history::{Key, Moment, Outcome};

/// A node: a transaction, or behind them one for each key, behind the end of its list.
pub(super) type Node = u32;

/// How many of those who read a longest list, and appended what no list shows, get an edge to each other one of that kind.
/// Two of them are a cycle already.
const DIRECT_BEHIND: usize = 2;

/// Kinds of edges, as bits.
pub(super) mod kinds {
    pub(in super::super) const WRITE_WRITE: u8 = 1;
    pub(in super::super) const WRITE_READ: u8 = 2;
    pub(in super::super) const READ_WRITE: u8 = 4;
    pub(in super::super) const REAL_TIME: u8 = 8;
    /// From behind the end of a list to one who appended there: part of any dependency.
    pub(in super::super) const BEHIND: u8 = 16;
    pub(in super::super) const ALL: u8 = 31;
}

/// An edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) from: Node,
    pub(super) to: Node,
    /// One of `kinds`.
    pub(super) kind: u8,
    /// The key that it is about; of no meaning for real time.
    pub(super) key: Key,
}

/// All dependencies of those that happened.
#[derive(Debug)]
pub(super) struct Graph {
    /// How many nodes are transactions; the others stand behind the end of a list.
    transactions: u32,
    /// Where the edges of each node begin; and their end.
    begin: Vec<u32>,
    edges: Vec<Edge>,
}

impl Graph {
    pub(super) fn of(facts: &Facts<'_>, versions: &Versions) -> Graph {
        let transactions = u32::try_from(facts.operations.len()).expect("fewer than 2^32 transactions are in memory");
        let mut edges = Vec::new();
        for (node, key) in (transactions..).zip(&versions.keys) {
            add_versions(&mut edges, key);
            add_behind(&mut edges, key, node);
        }
        add_real_time(&mut edges, facts, &versions.happened);
        let nodes = transactions + u32::try_from(versions.keys.len()).expect("fewer than 2^32 keys are in memory");
        Graph::from_edges(transactions, nodes, edges)
    }

    /// The graph of these edges but those from a node to itself. The first nodes are transactions.
    pub(super) fn from_edges(transactions: u32, nodes: u32, mut edges: Vec<Edge>) -> Graph {
        edges.retain(|edge| edge.from != edge.to);
        edges.sort_by_key(|edge| edge.from);
        let nodes = nodes as usize;
        let mut begin = vec![0u32; nodes + 1];
        for edge in &edges {
            begin[edge.from as usize + 1] += 1;
        }
        for node in 0..nodes {
            begin[node + 1] += begin[node];
        }
        Graph { transactions, begin, edges }
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> u32 {
        u32::try_from(self.begin.len() - 1).expect("nodes are numbered by 32 bits")
    }

    /// Whether a node is a transaction.
    pub(super) fn is_transaction(&self, node: Node) -> bool {
        node < self.transactions
    }

    /// The edges of a node.
    pub(super) fn from(&self, node: Node) -> &[Edge] {
        &self.edges[self.begin[node as usize] as usize..self.begin[node as usize + 1] as usize]
    }

    /// All edges.
    pub(super) fn edges(&self) -> &[Edge] {
        &self.edges
    }
}

impl Edge {
    /// What it says.
    ///
    /// # Panics
    /// If it comes from behind the end of a list: it says nothing alone.
    pub(super) fn dependency(&self) -> Dependency {
        match self.kind {
            kinds::WRITE_WRITE => Dependency::WriteWrite(self.key),
            kinds::WRITE_READ => Dependency::WriteRead(self.key),
            kinds::READ_WRITE => Dependency::ReadWrite(self.key),
            kinds::REAL_TIME => Dependency::RealTime,
            kind => panic!("an edge of kind {kind} is only part of a dependency"),
        }
    }
}

/// Among those that a list shows.
fn add_versions(edges: &mut Vec<Edge>, of_key: &KeyVersions) {
    let key = of_key.key;
    for pair in of_key.writers.windows(2) {
        edges.push(Edge { from: pair[0], to: pair[1], kind: kinds::WRITE_WRITE, key });
    }
    for (reader, length) in &of_key.reads {
        if let Some(last) = length.checked_sub(1) {
            edges.push(Edge { from: of_key.writers[last], to: *reader, kind: kinds::WRITE_READ, key });
        }
        // If the next one is its own, whoever is behind that comes after it as a writer anyway.
        if let Some(next) = of_key.writers.get(*length) {
            edges.push(Edge { from: *reader, to: *next, kind: kinds::READ_WRITE, key });
        }
    }
}

/// To those whose appends no list shows. Whoever has an edge to the node behind the end comes before all of them, so it must
/// not be one of them itself.
fn add_behind(edges: &mut Vec<Edge>, of_key: &KeyVersions, node: Node) {
    let (key, behind) = (of_key.key, &of_key.behind);
    if behind.is_empty() {
        return;
    }
    edges.extend(behind.iter().map(|to| Edge { from: node, to: *to, kind: kinds::BEHIND, key }));
    if let Some(last) = of_key.writers.last() {
        assert!(!behind.contains(last), "a list shows all that a transaction appended, or nothing");
        edges.push(Edge { from: *last, to: node, kind: kinds::WRITE_WRITE, key });
    }
    let end = of_key.writers.len();
    let at_end = of_key.reads.iter().filter(|(_, length)| *length == end).map(|(reader, _)| *reader);
    let (among_them, others): (Vec<TransactionNumber>, Vec<_>) = at_end.partition(|reader| behind.contains(reader));
    edges.extend(others.iter().map(|from| Edge { from: *from, to: node, kind: kinds::READ_WRITE, key }));
    for from in among_them.iter().take(DIRECT_BEHIND) {
        edges.extend(behind.iter().map(|to| Edge { from: *from, to: *to, kind: kinds::READ_WRITE, key }));
    }
}

/// Real time, without what follows from two other edges of it.
///
/// `last` are those that ended and that nobody who ended is wholly after: they ran at the same time, so there are no more of
/// them than clients.
fn add_real_time(edges: &mut Vec<Edge>, facts: &Facts<'_>, happened: &[bool]) {
    let mut last: Vec<(Moment, TransactionNumber)> = Vec::new();
    for (moment, number, is_end) in moments(facts, happened) {
        let invoked = facts.operations[number as usize].invoked;
        if is_end {
            last.retain(|(ended, _)| *ended > invoked);
            last.push((moment, number));
        } else {
            // Real time is of no key; zero stands for that.
            let edge = |from| Edge { from, to: number, kind: kinds::REAL_TIME, key: Key(0) };
            edges.extend(last.iter().map(|(_, from)| edge(*from)));
        }
    }
}

/// Beginnings and ends of those that happened, in their order: the moment, who, and whether it is an end. Those of which the
/// outcome is unknown have no end.
pub(super) fn moments(facts: &Facts<'_>, happened: &[bool]) -> Vec<(Moment, TransactionNumber, bool)> {
    let mut moments = Vec::with_capacity(2 * facts.operations.len());
    for (number, operation) in (0u32..).zip(facts.operations) {
        if happened[number as usize] {
            moments.push((operation.invoked, number, false));
            if let (Outcome::Ok(_), Some(ended)) = (&operation.outcome, operation.ended) {
                moments.push((ended, number, true));
            }
        }
    }
    moments.sort_by_key(|(moment, ..)| *moment);
    moments
}
