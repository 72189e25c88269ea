//! Short ways to write requests and to wait, for tests.

use std::time::Duration;

use bytes::Bytes;
use calamus_proto::v1::guard::Condition;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::{
    Add, Delete, GetOperation, Guard, Operation, Put, Range, ScanOperation, TxnRequest, TxnResponse, VersionCompare,
};

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn op(kind: Kind) -> Operation {
    Operation { kind: Some(kind) }
}

pub(crate) fn put(tree: &str, key: &str, value: &str) -> Operation {
    op(Kind::Put(Put { tree: tree.to_owned(), key: bytes(key), value: bytes(value), tree_must_exist: false }))
}

pub(crate) fn delete(tree: &str, key: &str) -> Operation {
    op(Kind::Delete(Delete { tree: tree.to_owned(), key: bytes(key) }))
}

pub(crate) fn get(tree: &str, key: &str) -> Operation {
    op(Kind::Get(GetOperation { tree: tree.to_owned(), key: bytes(key) }))
}

pub(crate) fn scan(tree: &str, range: Option<Range>, limit: u32, reverse: bool) -> Operation {
    op(Kind::Scan(ScanOperation { tree: tree.to_owned(), range, limit, reverse }))
}

pub(crate) fn add(tree: &str, key: &str, amount: i64) -> Operation {
    op(Kind::Add(Add { tree: tree.to_owned(), key: bytes(key), amount }))
}

pub(crate) fn guard(tree: &str, key: &str, condition: Condition) -> Guard {
    Guard { tree: tree.to_owned(), key: bytes(key), condition: Some(condition) }
}

pub(crate) fn exists(tree: &str, key: &str, exists: bool) -> Guard {
    guard(tree, key, Condition::Exists(exists))
}

pub(crate) fn version(tree: &str, key: &str, operator: i32, version: u64) -> Guard {
    guard(tree, key, Condition::Version(VersionCompare { operator, version }))
}

pub(crate) fn txn(operations: Vec<Operation>) -> TxnRequest {
    TxnRequest { operations, ..TxnRequest::default() }
}

/// The value that the get at a place of the answer returned.
pub(crate) fn value_at(response: &TxnResponse, place: usize) -> Option<String> {
    match response.results[place].kind.as_ref().expect("a kind") {
        ResultKind::Get(get) => get.entry.as_ref().map(|entry| String::from_utf8(entry.value.to_vec()).expect("utf-8")),
        other => panic!("not a get: {other:?}"),
    }
}

/// Waits for something that must happen: a test that is wrong fails instead of waiting for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it happens within a minute")
}

/// Waits until something holds that nobody tells.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
