//! What can be wrong with transactions, for a person. The names in brackets are Adya's.

use std::fmt;

use crate::history::{Element, Key, Operation, TransactionCall};

type Transaction = Box<Operation<TransactionCall>>;

/// A history of transactions that no order of them explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionViolation {
    /// What is wrong.
    pub anomaly: Anomaly,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// A list shows what nobody appended to this key.
    NeverAppended { key: Key, element: Element, reader: Transaction },
    /// A list shows an append of a transaction that failed (G1a).
    FailedAppendSeen { key: Key, element: Element, writer: Transaction, reader: Transaction },
    /// A list shows one append twice.
    DoubledAppend { key: Key, element: Element, reader: Transaction },
    /// A list shows some of what a transaction appended to this key and not all of it, or in another order (G1b).
    TornAppends { key: Key, writer: Transaction, reader: Transaction },
    /// A transaction does not see its own appends where they belong, or two of its reads see different states.
    NotOneState { key: Key, transaction: Transaction },
    /// Two lists of a key of which none is the beginning of the other.
    DifferentOrders { key: Key, one: Transaction, other: Transaction },
    /// An acknowledged append is in no list, and a list was read after it was acknowledged.
    LostAppend { key: Key, element: Element, writer: Transaction, reader: Transaction },
    /// Transactions of which each must come before the next, and the last one before the first.
    Cycle { kind: CycleKind, real_time: bool, edges: Vec<CycleEdge> },
    /// Two transactions that appended have one txn id.
    SameTxnId { one: Transaction, other: Transaction },
    /// The first must come before the second, and their txn ids say otherwise.
    TxnIdsAgainstOrder { before: Transaction, after: Transaction, dependency: Dependency },
}

/// What a cycle is made of, real time aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CycleKind {
    /// Writes alone (G0): dirty writes.
    Writes,
    /// Writes, and reads of them (G1c): circular flow of information.
    Information,
    /// One read of what another one then overwrote (G-single): read skew, lost updates.
    OneAntiDependency,
    /// Several of these (G2): write skew.
    AntiDependencies,
}

/// Why a transaction comes before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// It appended to this key before the other did.
    WriteWrite(Key),
    /// The other read what it appended to this key.
    WriteRead(Key),
    /// It read this key without what the other appended.
    ReadWrite(Key),
    /// It had ended when the other began.
    RealTime,
}

/// One step of a cycle, to the transaction of the next edge; from the last one to that of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleEdge {
    /// The transaction.
    pub from: Transaction,
    /// Why it comes before the next one.
    pub dependency: Dependency,
}

impl fmt::Display for CycleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CycleKind::Writes => "G0, writes in different orders",
            CycleKind::Information => "G1c, each saw something of the next",
            CycleKind::OneAntiDependency => "G-single, read skew",
            CycleKind::AntiDependencies => "G2, write skew",
        })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dependency::WriteWrite(key) => write!(f, "it appended to {key} before the next one did"),
            Dependency::WriteRead(key) => write!(f, "the next one read what it appended to {key}"),
            Dependency::ReadWrite(key) => write!(f, "it read {key} without what the next one appended"),
            Dependency::RealTime => write!(f, "it had ended when the next one began"),
        }
    }
}

impl fmt::Display for TransactionViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.anomaly.fmt(f)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Anomaly::NeverAppended { key, element, reader } => {
                writeln!(f, "nobody appended {} to {key}, and it was read:\n    {reader}", element.0)
            }
            Anomaly::FailedAppendSeen { key, element, writer, reader } => {
                let seen = element.0;
                writeln!(f, "{seen} of {key} was read and its transaction failed (G1a):\n    {writer}\n    {reader}")
            }
            Anomaly::DoubledAppend { key, element, reader } => {
                writeln!(f, "{} was appended to {key} once and is there twice:\n    {reader}", element.0)
            }
            Anomaly::TornAppends { key, writer, reader } => writeln!(
                f,
                "not all that a transaction appended to {key} is seen, or not in its order (G1b):\n    {writer}\n    {reader}"
            ),
            Anomaly::NotOneState { key, transaction } => writeln!(
                f,
                "what a transaction read of {key} is not one state with its own appends behind it:\n    {transaction}"
            ),
            Anomaly::DifferentOrders { key, one, other } => {
                writeln!(f, "two lists of {key}, and none is the beginning of the other:\n    {one}\n    {other}")
            }
            Anomaly::LostAppend { key, element, writer, reader } => writeln!(
                f,
                "{} was appended to {key} and acknowledged, and is not in a list read after that:\n    {writer}\n    {reader}",
                element.0
            ),
            Anomaly::Cycle { kind, real_time, edges } => fmt_cycle(f, *kind, *real_time, edges),
            Anomaly::SameTxnId { one, other } => {
                writeln!(f, "two transactions that appended have one txn id:\n    {one}\n    {other}")
            }
            Anomaly::TxnIdsAgainstOrder { before, after, dependency } => {
                writeln!(f, "txn ids are against the order:\n    {before}\n    {after}\nOf the first: {dependency}.")
            }
        }
    }
}

fn fmt_cycle(f: &mut fmt::Formatter<'_>, kind: CycleKind, real_time: bool, edges: &[CycleEdge]) -> fmt::Result {
    let real_time = if real_time { ", against real time" } else { "" };
    writeln!(
        f,
        "each of these transactions must come before the next, and the last before the first ({kind}{real_time}):"
    )?;
    for (number, edge) in (1..).zip(edges) {
        writeln!(f, "    {number}. {}\n       {}", edge.from, edge.dependency)?;
    }
    Ok(())
}
