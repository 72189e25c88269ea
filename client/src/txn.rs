//! Builds a transaction: guards, then operations if all of them hold, else other operations.

use std::time::Duration;

use bytes::Bytes;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{self, Guard, Operation, Range, TxnRequest, guard::Condition, version_compare::Operator};

/// How a version guard compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key's version is this number.
    Equal,
    /// It is another one.
    NotEqual,
    /// It is lower: the key was not written since before that transaction.
    Less,
    /// It is higher.
    Greater,
}

/// Ranges of keys.
pub mod range {
    use bytes::Bytes;
    use calamus_proto::v1::Range;

    /// All keys.
    pub fn all() -> Range {
        Range::default()
    }

    /// Keys k with `start <= k < end`; an empty `end` means no upper bound.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Range {
        Range { start: start.into(), end: end.into(), prefix: Bytes::new() }
    }

    /// Keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Range {
        Range { prefix: prefix.into(), ..Range::default() }
    }
}

/// A transaction being built. Nothing is sent before [`crate::Client::txn`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    pub(crate) request: TxnRequest,
    idempotent: bool,
    deadline: Option<Duration>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// A transaction from the message that travels.
    pub fn from_request(request: TxnRequest) -> Txn {
        Txn { request, ..Txn::default() }
    }

    /// The message that travels.
    #[must_use]
    pub fn request(&self) -> &TxnRequest {
        &self.request
    }

    /// Holds if the key exists.
    #[must_use]
    pub fn guard_exists(self, tree: impl Into<String>, key: impl Into<Bytes>) -> Txn {
        self.guard(tree, key, Condition::Exists(true))
    }

    /// Holds if the key does not exist.
    #[must_use]
    pub fn guard_missing(self, tree: impl Into<String>, key: impl Into<Bytes>) -> Txn {
        self.guard(tree, key, Condition::Exists(false))
    }

    /// Holds if the key's value is exactly this.
    #[must_use]
    pub fn guard_value(self, tree: impl Into<String>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        self.guard(tree, key, Condition::ValueEquals(value.into()))
    }

    /// Holds if the key's version compares so with `version`. A missing key has version 0.
    #[must_use]
    pub fn guard_version(self, tree: impl Into<String>, key: impl Into<Bytes>, compare: Compare, version: u64) -> Txn {
        let operator = match compare {
            Compare::Equal => Operator::Equal,
            Compare::NotEqual => Operator::NotEqual,
            Compare::Less => Operator::Less,
            Compare::Greater => Operator::Greater,
        };
        self.guard(tree, key, Condition::Version(v1::VersionCompare { operator: operator.into(), version }))
    }

    fn guard(mut self, tree: impl Into<String>, key: impl Into<Bytes>, condition: Condition) -> Txn {
        self.request.guards.push(Guard { tree: tree.into(), key: key.into(), condition: Some(condition) });
        self
    }

    /// Writes a value. The tree is made if it is not there.
    #[must_use]
    pub fn put(self, tree: impl Into<String>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        let (tree, key, value) = (tree.into(), key.into(), value.into());
        self.operation(Kind::Put(v1::Put { tree, key, value, tree_must_exist: false }))
    }

    /// Writes a value into a tree that must be there.
    #[must_use]
    pub fn put_existing_tree(self, tree: impl Into<String>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        let (tree, key, value) = (tree.into(), key.into(), value.into());
        self.operation(Kind::Put(v1::Put { tree, key, value, tree_must_exist: true }))
    }

    /// Deletes a key; nothing if it is not there.
    #[must_use]
    pub fn delete(self, tree: impl Into<String>, key: impl Into<Bytes>) -> Txn {
        self.operation(Kind::Delete(v1::Delete { tree: tree.into(), key: key.into() }))
    }

    /// Deletes all keys of a range; see [`range`].
    #[must_use]
    pub fn delete_range(self, tree: impl Into<String>, range: Range) -> Txn {
        self.operation(Kind::DeleteRange(v1::DeleteRange { tree: tree.into(), range: Some(range) }))
    }

    /// Reads a key, as of this place in the transaction.
    #[must_use]
    pub fn get(self, tree: impl Into<String>, key: impl Into<Bytes>) -> Txn {
        self.operation(Kind::Get(v1::GetOperation { tree: tree.into(), key: key.into() }))
    }

    /// Reads a range, as of this place in the transaction; `limit` 0 is 1,000, which is also the most.
    #[must_use]
    pub fn scan(self, tree: impl Into<String>, range: Range, limit: u32, reverse: bool) -> Txn {
        self.operation(Kind::Scan(v1::ScanOperation { tree: tree.into(), range: Some(range), limit, reverse }))
    }

    /// Adds to a signed 64-bit integer (8 bytes, little endian). A missing key counts as 0; overflow is refused.
    #[must_use]
    pub fn add(self, tree: impl Into<String>, key: impl Into<Bytes>, amount: i64) -> Txn {
        self.operation(Kind::Add(v1::Add { tree: tree.into(), key: key.into(), amount }))
    }

    /// Writes a value under `prefix` followed by the next number (8 bytes, big endian); the first is 1.
    #[must_use]
    pub fn put_next(self, tree: impl Into<String>, prefix: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        let (tree, prefix, value) = (tree.into(), prefix.into(), value.into());
        self.operation(Kind::PutNext(v1::PutNext { tree, prefix, value }))
    }

    /// Makes an empty tree; nothing if it is there.
    #[must_use]
    pub fn create_tree(self, tree: impl Into<String>) -> Txn {
        self.operation(Kind::CreateTree(v1::CreateTree { tree: tree.into() }))
    }

    /// Drops a tree with all it holds.
    #[must_use]
    pub fn drop_tree(self, tree: impl Into<String>) -> Txn {
        self.operation(Kind::DropTree(v1::DropTree { tree: tree.into() }))
    }

    /// Gives a tree another name.
    #[must_use]
    pub fn rename_tree(self, tree: impl Into<String>, new_name: impl Into<String>) -> Txn {
        self.operation(Kind::RenameTree(v1::RenameTree { tree: tree.into(), new_name: new_name.into() }))
    }

    fn operation(mut self, kind: Kind) -> Txn {
        self.request.operations.push(Operation { kind: Some(kind) });
        self
    }

    /// The operations to run if a guard does not hold. Guards within are ignored.
    #[must_use]
    pub fn otherwise(mut self, build: impl FnOnce(Txn) -> Txn) -> Txn {
        self.request.otherwise = build(Txn::new()).request.operations;
        self
    }

    /// Says that running this transaction twice does no harm, so that the client sends it again after an unknown outcome.
    /// Between the two runs others may have written the same keys: what they wrote is then overwritten.
    #[must_use]
    pub fn idempotent(mut self) -> Txn {
        self.idempotent = true;
        self
    }

    /// How long the whole call may take, in place of [`crate::Options::deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Txn {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn own_deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether a second run after an unknown outcome is harmless: the application said so, or nothing can change.
    pub(crate) fn may_run_twice(&self) -> bool {
        self.idempotent || self.only_reads()
    }

    /// Whether it can change nothing.
    pub(crate) fn only_reads(&self) -> bool {
        let reads = |operation: &Operation| matches!(operation.kind, Some(Kind::Get(_) | Kind::Scan(_)));
        self.request.operations.iter().all(reads) && self.request.otherwise.iter().all(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_keeps_the_order_of_guards_and_operations() {
        let txn = Txn::new()
            .guard_exists("t", "a")
            .guard_version("t", "b", Compare::Less, 7)
            .put("t", "a", "1")
            .delete_range("t", range::prefix("x"))
            .add("t", "n", -3)
            .otherwise(|t| t.get("t", "a").guard_missing("t", "ignored"));
        assert_eq!(txn.request.guards.len(), 2);
        assert_eq!(txn.request.guards[0].condition, Some(Condition::Exists(true)));
        let version = v1::VersionCompare { operator: Operator::Less.into(), version: 7 };
        assert_eq!(txn.request.guards[1].condition, Some(Condition::Version(version)));
        let kinds: Vec<_> = txn.request.operations.iter().map(|o| o.kind.clone().unwrap()).collect();
        assert!(matches!(&kinds[0], Kind::Put(p) if p.key == "a" && p.value == "1" && !p.tree_must_exist));
        assert!(matches!(&kinds[1], Kind::DeleteRange(d) if d.range == Some(range::prefix("x"))));
        assert!(matches!(&kinds[2], Kind::Add(a) if a.amount == -3));
        assert_eq!(txn.request.otherwise.len(), 1);
    }

    #[test]
    fn only_reads_and_what_is_said_to_be_idempotent_may_run_twice() {
        assert!(Txn::new().get("t", "a").scan("t", range::all(), 0, false).may_run_twice());
        assert!(!Txn::new().put("t", "a", "1").may_run_twice(), "another's write in between would be lost");
        assert!(!Txn::new().get("t", "a").otherwise(|t| t.delete("t", "a")).may_run_twice());
        assert!(Txn::new().put("t", "a", "1").idempotent().may_run_twice());
    }
}
