use bytes::Bytes;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{
    CreateTree, DeleteRange, DropTree, Guard, Operation, Put, PutNext, Range, RenameTree, ScanOperation, TxnRequest,
};

use super::validate::{Limits, MAX_SCAN_ENTRIES, validate};
use crate::error::{Outcome, reason};
use crate::test_requests::{add, bytes, delete, exists, get, guard, op, put, scan, txn, version};

fn refused(request: &TxnRequest) -> (&'static str, String) {
    let error = validate(request, &Limits::default()).expect_err("refused");
    assert_eq!((error.outcome, error.retryable), (Outcome::NotCommitted, false));
    (error.reason, error.message)
}

fn long(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

fn put_of(key: Bytes, value: Bytes) -> Operation {
    op(Kind::Put(Put { tree: "t".to_owned(), key, value, tree_must_exist: false }))
}

#[test]
fn keys_and_values_have_limits() {
    let fits = put_of(long(2048), long(8 << 20));
    assert!(validate(&txn(vec![fits]), &Limits::default()).is_ok());
    for (bad, word) in [
        (put_of(long(2049), long(1)), reason::KEY_TOO_LONG),
        (put_of(long(0), long(1)), reason::KEY_EMPTY),
        (put_of(long(1), long((8 << 20) + 1)), reason::VALUE_TOO_LARGE),
        (put("", "k", "v"), reason::BAD_TREE_NAME),
        (put(&"t".repeat(256), "k", "v"), reason::BAD_TREE_NAME),
        (put("$sessions", "k", "v"), reason::SYSTEM_TREE),
        (delete("$x", "k"), reason::SYSTEM_TREE),
        (get("t", ""), reason::KEY_EMPTY),
        (add("t", "", 1), reason::KEY_EMPTY),
        (scan("t", None, MAX_SCAN_ENTRIES + 1, false), reason::BAD_OPERATION),
        (Operation { kind: None }, reason::BAD_OPERATION),
        (op(Kind::CreateTree(CreateTree { tree: "$x".to_owned() })), reason::SYSTEM_TREE),
        (op(Kind::DropTree(DropTree { tree: "$x".to_owned() })), reason::SYSTEM_TREE),
        (op(Kind::RenameTree(RenameTree { tree: "t".to_owned(), new_name: "$x".to_owned() })), reason::SYSTEM_TREE),
        (op(Kind::RenameTree(RenameTree { tree: "t".to_owned(), new_name: "t".to_owned() })), reason::BAD_OPERATION),
        (
            op(Kind::PutNext(PutNext { tree: "t".to_owned(), prefix: long(2041), value: Bytes::new() })),
            reason::KEY_TOO_LONG,
        ),
    ] {
        let (found, message) = refused(&txn(vec![put("t", "k", "v"), bad]));
        assert_eq!(found, word, "{message}");
        assert!(message.starts_with("operation 1 ("), "{message}");
        assert!(message.ends_with("nothing was changed"), "{message}");
    }
    let longest_prefix = op(Kind::PutNext(PutNext { tree: "t".to_owned(), prefix: long(2040), value: Bytes::new() }));
    assert!(validate(&txn(vec![longest_prefix]), &Limits::default()).is_ok());
    assert!(validate(&txn(vec![put(&"t".repeat(255), "k", "")]), &Limits::default()).is_ok());
}

#[test]
fn only_nodes_name_the_trees_of_the_system() {
    let request = TxnRequest { guards: vec![exists("$x", "k", true)], ..txn(vec![put("$x", "k", "v")]) };
    assert_eq!(refused(&request).0, reason::SYSTEM_TREE);
    let of_a_node = Limits { system_trees: true, ..Limits::default() };
    assert!(validate(&request, &of_a_node).is_ok());
}

#[test]
fn ranges_are_well_formed() {
    let bad = Range { start: bytes("b"), end: bytes("a"), prefix: Bytes::new() };
    let scan = op(Kind::Scan(ScanOperation { tree: "t".to_owned(), range: Some(bad.clone()), ..Default::default() }));
    let delete = op(Kind::DeleteRange(DeleteRange { tree: "t".to_owned(), range: Some(bad) }));
    for operation in [scan, delete] {
        assert_eq!(refused(&txn(vec![operation])).0, reason::BAD_RANGE);
    }
}

#[test]
fn guards_have_a_condition_and_a_comparison() {
    let cases = [
        (Guard { tree: "t".to_owned(), key: bytes("k"), condition: None }, reason::BAD_GUARD),
        (version("t", "k", 0, 1), reason::BAD_GUARD),
        (version("t", "k", 5, 1), reason::BAD_GUARD),
        (exists("", "k", true), reason::BAD_TREE_NAME),
        (exists("$x", "k", true), reason::SYSTEM_TREE),
        (exists("t", "", true), reason::KEY_EMPTY),
        (
            guard("t", "k", calamus_proto::v1::guard::Condition::ValueEquals(long((8 << 20) + 1))),
            reason::VALUE_TOO_LARGE,
        ),
    ];
    for (bad, word) in cases {
        let (found, message) = refused(&TxnRequest { guards: vec![bad], ..TxnRequest::default() });
        assert_eq!(found, word, "{message}");
        assert!(message.starts_with("guard 0: "), "{message}");
    }
}

#[test]
fn the_other_operations_are_checked_too() {
    let request = TxnRequest { otherwise: vec![put("t", "", "v")], ..TxnRequest::default() };
    let (word, message) = refused(&request);
    assert_eq!(word, reason::KEY_EMPTY);
    assert!(message.starts_with("otherwise 0 (put): "), "{message}");
}

#[test]
fn a_transaction_has_a_limit_and_limits_can_be_lowered() {
    let half = || put_of(bytes("k"), long(8 << 20));
    assert_eq!(refused(&txn(vec![half(), half()])).0, reason::TXN_TOO_LARGE);
    let low = Limits { key_bytes: 4, value_bytes: 8, txn_bytes: 200, ..Limits::default() };
    assert!(validate(&txn(vec![put("t", "1234", "12345678")]), &low).is_ok());
    let error = validate(&txn(vec![put("t", "12345", "1")]), &low).unwrap_err();
    assert!(error.message.contains("the key \"12345\" has 5 bytes, at most 4 are allowed"), "{error}");
    assert_eq!(validate(&txn(vec![put("t", "1", "123456789")]), &low).unwrap_err().reason, reason::VALUE_TOO_LARGE);
    let next = op(Kind::PutNext(PutNext { tree: "t".to_owned(), prefix: bytes("1"), value: Bytes::new() }));
    let error = validate(&txn(vec![next]), &low).unwrap_err();
    assert!(error.message.contains("has 1 bytes, at most 0 are allowed before the number"), "{error}");
    let three = txn(vec![put("t", "1", "1"), put("t", "2", "1"), put("t", "3", "1")]);
    assert_eq!(validate(&three, &low).unwrap_err().reason, reason::TXN_TOO_LARGE);
}
