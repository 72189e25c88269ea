//! What the engine is compared with: a plain map a tree, and the log of what changed it.
//!
//! Every log entry carries the whole state after it, so the state at any index is at hand, whatever a crash leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use calamus_engine::ids::{LogId, TxnId};
use calamus_engine::journal::frame::{Frame, FrameKind};
use calamus_engine::{ReadTxn, TreeKind};

/// What a tree should hold under a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// The transaction that wrote it.
    pub version: TxnId,
    /// The value.
    pub value: Arc<[u8]>,
}

/// A tree as a plain map.
pub type Tree = BTreeMap<Vec<u8>, Item>;

/// What a multi-value tree should hold under a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The transaction that last added or removed a value.
    pub version: TxnId,
    /// The values.
    pub values: BTreeSet<Vec<u8>>,
}

/// A multi-value tree as a plain map.
pub type ManyTree = BTreeMap<Vec<u8>, Held>;

/// The whole state at some point of the log.
#[derive(Clone, Default)]
pub struct State {
    /// The newest transaction.
    pub txn_id: TxnId,
    /// All plain trees, by name.
    pub trees: BTreeMap<String, Tree>,
    /// All multi-value trees, by name.
    pub many: BTreeMap<String, ManyTree>,
    /// The membership, and the entry that set it.
    pub membership: Option<(LogId, Bytes)>,
}

impl State {
    /// Compares all that a snapshot shows with this state: trees, keys in both directions, versions, values.
    ///
    /// # Errors
    /// The first difference, in words; a page that cannot be read is one.
    pub fn compare(&self, read: &ReadTxn) -> Result<(), String> {
        if read.txn_id() != self.txn_id {
            return Err(format!("the snapshot is of txn {}, and should be of txn {}", read.txn_id(), self.txn_id));
        }
        let found = read.list_trees().map_err(|error| error.to_string())?;
        let found: BTreeSet<_> =
            found.into_iter().map(|tree| (tree.name, tree.kind as u8, tree.entries, tree.values)).collect();
        let plain =
            self.trees.iter().map(|(name, tree)| (name.clone(), TreeKind::Plain as u8, count(tree), count(tree)));
        let many = self.many.iter().map(|(name, tree)| {
            let values = tree.values().map(|held| held.values.len() as u64).sum();
            (name.clone(), TreeKind::Multi as u8, count(tree), values)
        });
        let expected: BTreeSet<_> = plain.chain(many).collect();
        if found != expected {
            return Err(format!("the trees (name, kind, keys, values) are {found:?} and should be {expected:?}"));
        }
        for (name, tree) in &self.many {
            compare_many(read, name, tree).map_err(|what| format!("tree {name:?}: {what}"))?;
        }
        for (name, tree) in &self.trees {
            compare_tree(read, name, tree).map_err(|what| format!("tree {name:?}: {what}"))?;
        }
        Ok(())
    }
}

fn count<K, V>(tree: &BTreeMap<K, V>) -> u64 {
    tree.len() as u64
}

fn compare_many(read: &ReadTxn, name: &str, tree: &ManyTree) -> Result<(), String> {
    let text = |error: calamus_engine::btree::ReadError| error.to_string();
    let mut keys = read.keys(name).map_err(text)?.ok_or("it is listed and cannot be opened")?;
    for (key, held) in tree {
        if !keys.next().map_err(text)? || keys.key() != key {
            return Err(format!("the key {} is missing", short(key)));
        }
        if keys.version() != held.version {
            return Err(format!("{} has version {}, not {}", short(key), keys.version(), held.version));
        }
        let mut values = keys.values().map_err(text)?;
        for value in &held.values {
            if !values.next().map_err(text)? || values.value() != value {
                return Err(format!("the value {} of {} is missing", short(value), short(key)));
            }
        }
        if values.next().map_err(text)? {
            return Err(format!("{} has the value {}, which should not be there", short(key), short(values.value())));
        }
        for value in held.values.iter().rev() {
            if !values.previous().map_err(text)? || values.value() != value {
                return Err(format!("going back, the value {} of {} is not met", short(value), short(key)));
            }
        }
    }
    if keys.next().map_err(text)? {
        return Err(format!("the key {} should not be there", short(keys.key())));
    }
    Ok(())
}

fn compare_tree(read: &ReadTxn, name: &str, tree: &Tree) -> Result<(), String> {
    let text = |error: calamus_engine::btree::ReadError| error.to_string();
    let mut cursor = read.cursor(name).map_err(text)?.ok_or("it is listed and cannot be opened")?;
    let mut there = cursor.first().map_err(text)?;
    for (key, item) in tree {
        if !there {
            return Err(format!("the key {} is missing", short(key)));
        }
        if cursor.key() != key {
            return Err(format!("the key {} stands where {} should", short(cursor.key()), short(key)));
        }
        if cursor.version() != item.version {
            return Err(format!("{} has version {}, not {}", short(key), cursor.version(), item.version));
        }
        if cursor.value().to_vec().map_err(text)? != *item.value {
            return Err(format!("{} has another value", short(key)));
        }
        there = cursor.next().map_err(text)?;
    }
    if there {
        return Err(format!("the key {} should not be there", short(cursor.key())));
    }
    there = cursor.last().map_err(text)?;
    for key in tree.keys().rev() {
        if !there || cursor.key() != key {
            return Err(format!("going back, {} is not met", short(key)));
        }
        there = cursor.previous().map_err(text)?;
    }
    Ok(())
}

/// A key for people: its first bytes and its length.
fn short(key: &[u8]) -> String {
    format!("{:02x?} of {} bytes", &key[..key.len().min(6)], key.len())
}

/// An entry of the log, and the state after it.
pub struct Entry {
    /// As it is in every journal.
    pub frame: Frame,
    /// The state after it, if all entries before it are applied.
    pub state: Arc<State>,
    /// Whether it is a record that does not build on the state before it.
    pub void: bool,
}

impl Entry {
    /// A record: executed on a state of txn `builds_on`, where it led to `after`.
    #[must_use]
    pub fn record(frame: Frame, before: &Arc<State>, builds_on: TxnId, after: &State) -> Self {
        assert_eq!(frame.kind(), FrameKind::Record);
        let void = before.txn_id != builds_on;
        let state = if void {
            before.clone()
        } else {
            Arc::new(State { membership: before.membership.clone(), ..after.clone() })
        };
        Self { frame, state, void }
    }

    /// A blank entry or a membership.
    #[must_use]
    pub fn other(frame: Frame, before: &Arc<State>) -> Self {
        assert_ne!(frame.kind(), FrameKind::Record);
        let mut state = before.clone();
        if frame.kind() == FrameKind::Membership {
            let membership = Some((frame.log_id(), frame.payload().bytes().clone()));
            state = Arc::new(State { membership, ..(*state).clone() });
        }
        Self { frame, state, void: false }
    }
}

/// The state after the first `count` entries of a log.
#[must_use]
pub fn state_at(log: &[Arc<Entry>], count: usize) -> Arc<State> {
    count.checked_sub(1).map_or_else(Arc::default, |last| log[last].state.clone())
}

/// How many entries two logs have in common.
#[must_use]
pub fn common(one: &[Arc<Entry>], other: &[Arc<Entry>]) -> usize {
    let same = |one: &Entry, other: &Entry| {
        one.frame.log_id() == other.frame.log_id() && one.frame.chain() == other.frame.chain()
    };
    one.iter().zip(other).take_while(|(one, other)| same(one, other)).count()
}
