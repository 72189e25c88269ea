use std::sync::Arc;

use bytes::Bytes;
use calamus_engine::Batch;
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::guard::Condition;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::{
    AddResult, CreateTree, DeleteRange, DeleteRangeResult, DeleteResult, DropTree, Entry, GetResult, Guard, Operation,
    OperationResult, Put, PutNext, PutNextResult, PutResult, Range, RenameTree, ScanResult, TreeResult, TxnRequest,
    TxnResponse,
};
use prost::Message;

use super::operations::{ENTRY_OVERHEAD_BYTES, RESULT_BYTES};
use super::validate::Limits;
use super::{Executed, RunError, run};
use crate::error::{Outcome, TxnError, reason};
use crate::merger::test_consensus::TestConsensus;
use crate::test_requests::{add, bytes, delete, exists, get, guard, op, put, scan, txn, version};

/// A batch on an empty database.
struct Rig {
    _consensus: Arc<TestConsensus>,
    batch: Batch,
}

impl Rig {
    fn new() -> Self {
        Self::of(TestConsensus::new())
    }

    /// One whose journal has room for the largest record.
    fn roomy() -> Self {
        Self::of(TestConsensus::with_segments(32 << 20))
    }

    fn of(consensus: Arc<TestConsensus>) -> Self {
        let batch = consensus.engine.begin_batch().unwrap();
        Self { _consensus: consensus, batch }
    }

    /// A batch on top of this one.
    fn next_batch(self) -> Self {
        let Self { _consensus: consensus, batch } = self;
        batch.seal(1).unwrap();
        let batch = consensus.engine.begin_batch().unwrap();
        Self { _consensus: consensus, batch }
    }

    fn run(&mut self, request: &TxnRequest) -> Result<Executed, TxnError> {
        super::validate(request, &Limits::default()).unwrap();
        let executed = run(&mut self.batch, request, &Limits::default()).map_err(RunError::into_error);
        if executed.is_ok() {
            self.batch.commit_txn();
        }
        executed
    }

    fn ok(&mut self, operations: Vec<Operation>) -> Vec<ResultKind> {
        let executed = self.run(&txn(operations)).unwrap();
        executed.results.into_iter().map(|result| result.kind.unwrap()).collect()
    }

    fn fails(&mut self, operations: Vec<Operation>) -> TxnError {
        let before = (self.contents(), self.batch.txns());
        let error = self.run(&txn(operations)).unwrap_err();
        assert_eq!((self.contents(), self.batch.txns()), before, "a failing transaction leaves nothing behind");
        assert_eq!(error.outcome, Outcome::NotCommitted);
        assert!(error.message.ends_with("nothing was changed"), "{error}");
        error
    }

    fn contents(&mut self) -> Vec<(String, Vec<u8>, Vec<u8>, u64)> {
        let names: Vec<String> = self.batch.list_trees().unwrap().into_iter().map(|tree| tree.name).collect();
        let mut found = Vec::new();
        for name in names {
            let mut cursor = self.batch.cursor(&name).unwrap().unwrap();
            let mut there = cursor.first().unwrap();
            while there {
                let value = cursor.value().to_vec().unwrap();
                found.push((name.clone(), cursor.key().to_vec(), value, cursor.version().0));
                there = cursor.next().unwrap();
            }
        }
        found
    }

    fn holds(&mut self, guard: Guard) -> bool {
        self.run(&TxnRequest { guards: vec![guard], ..TxnRequest::default() }).unwrap().guards_held
    }
}

fn previous(result: &ResultKind) -> u64 {
    match result {
        ResultKind::Put(put) => put.previous_version,
        ResultKind::Delete(delete) => delete.previous_version,
        other => panic!("neither put nor delete: {other:?}"),
    }
}

fn value(result: &ResultKind) -> Option<(&[u8], u64)> {
    let ResultKind::Get(get) = result else { panic!("not a get: {result:?}") };
    get.entry.as_ref().map(|entry| (&entry.value[..], entry.version))
}

fn keys(result: &ResultKind) -> (Vec<&str>, bool) {
    let ResultKind::Scan(scan) = result else { panic!("not a scan: {result:?}") };
    (scan.entries.iter().map(|entry| std::str::from_utf8(&entry.key).unwrap()).collect(), scan.more)
}

fn put_next(prefix: &[u8], value: &str) -> Operation {
    op(Kind::PutNext(PutNext { tree: "n".to_owned(), prefix: Bytes::copy_from_slice(prefix), value: bytes(value) }))
}

fn raw_put(tree: &str, key: &[u8]) -> Operation {
    let (key, value) = (Bytes::copy_from_slice(key), bytes("v"));
    op(Kind::Put(Put { tree: tree.to_owned(), key, value, tree_must_exist: false }))
}

#[test]
fn put_get_and_delete_see_what_came_before_them() {
    let mut rig = Rig::new();
    let results = rig.ok(vec![put("t", "k", "1"), put("t", "k", "2"), get("t", "k"), get("t", "none")]);
    assert_eq!((previous(&results[0]), previous(&results[1])), (0, 1));
    assert_eq!((value(&results[2]), value(&results[3])), (Some((&b"2"[..], 1)), None));
    let results = rig.ok(vec![delete("t", "k"), delete("t", "k"), get("t", "k"), put("t", "k", "3")]);
    assert_eq!((previous(&results[0]), previous(&results[1]), previous(&results[3])), (1, 0, 0));
    assert_eq!(value(&results[2]), None);
    assert_eq!(rig.contents(), [("t".to_owned(), b"k".to_vec(), b"3".to_vec(), 2)]);
}

#[test]
fn a_transaction_without_effect_takes_no_txn_id() {
    let mut rig = Rig::new();
    rig.ok(vec![put("t", "k", "1")]);
    rig.ok(vec![get("t", "k"), delete("t", "none"), op(Kind::CreateTree(CreateTree { tree: "t".to_owned() }))]);
    rig.run(&TxnRequest { guards: vec![exists("t", "k", false)], ..txn(vec![put("t", "k", "2")]) }).unwrap();
    assert_eq!(rig.batch.txns(), 1);
}

#[test]
fn scans_walk_ranges_both_ways_up_to_a_limit() {
    let mut rig = Rig::new();
    rig.ok(["a", "ab", "b", "ba", "c"].map(|key| put("t", key, key)).to_vec());
    let range = |start: &str, end: &str| Some(Range { start: bytes(start), end: bytes(end), prefix: Bytes::new() });
    let prefix = |prefix: &str| Some(Range { prefix: bytes(prefix), ..Range::default() });
    for (range, limit, reverse, expected, more) in [
        (None, 0, false, vec!["a", "ab", "b", "ba", "c"], false),
        (None, 0, true, vec!["c", "ba", "b", "ab", "a"], false),
        (range("ab", "ba"), 0, false, vec!["ab", "b"], false),
        (range("ab", "ba"), 0, true, vec!["b", "ab"], false),
        (range("aa", "bb"), 0, true, vec!["ba", "b", "ab"], false),
        (range("b", ""), 2, false, vec!["b", "ba"], true),
        (range("", "b"), 1, true, vec!["ab"], true),
        (range("", "b"), 2, true, vec!["ab", "a"], false),
        (prefix("b"), 0, false, vec!["b", "ba"], false),
        (prefix("b"), 0, true, vec!["ba", "b"], false),
        (range("b", "b"), 0, false, vec![], false),
        (range("b", "b"), 0, true, vec![], false),
        (range("d", ""), 0, true, vec![], false),
        (prefix("x"), 0, true, vec![], false),
    ] {
        let results = rig.ok(vec![scan("t", range.clone(), limit, reverse)]);
        assert_eq!(keys(&results[0]), (expected, more), "{range:?} {limit} {reverse}");
    }
    let many: Vec<_> = (0..1001).map(|number| put("many", &format!("{number:04}"), "")).collect();
    rig.ok(many);
    let results = rig.ok(vec![scan("many", None, 0, false), scan("many", None, 1000, true)]);
    assert_eq!((keys(&results[0]).0.len(), keys(&results[0]).1), (1000, true));
    assert_eq!((keys(&results[1]).0.len(), keys(&results[1]).0[0]), (1000, "1000"));
}

#[test]
fn delete_range_deletes_what_a_scan_of_it_shows() {
    let mut rig = Rig::new();
    rig.ok(["a", "ab", "b", "ba", "c"].map(|key| put("t", key, key)).to_vec());
    let deletes = |range: Option<Range>| op(Kind::DeleteRange(DeleteRange { tree: "t".to_owned(), range }));
    let deleted = |result: &ResultKind| {
        let ResultKind::DeleteRange(delete) = result else { panic!("not a delete of a range: {result:?}") };
        delete.deleted
    };
    let empty = Range { start: bytes("b"), end: bytes("b"), prefix: Bytes::new() };
    let prefix = Range { prefix: bytes("b"), ..Range::default() };
    let results = rig.ok(vec![deletes(Some(empty)), deletes(Some(prefix)), scan("t", None, 0, false), deletes(None)]);
    assert_eq!([0, 1, 3].map(|place: usize| deleted(&results[place])), [0, 2, 3]);
    assert_eq!(keys(&results[2]).0, ["a", "ab", "c"]);
    assert!(rig.contents().is_empty());
}

#[test]
fn add_counts_and_refuses_what_is_no_integer() {
    let mut rig = Rig::new();
    let sums: Vec<i64> = rig
        .ok(vec![add("t", "n", 5), add("t", "n", -7), add("t", "n", i64::MAX)])
        .iter()
        .map(|result| match result {
            ResultKind::Add(add) => add.value,
            other => panic!("not an add: {other:?}"),
        })
        .collect();
    assert_eq!(sums, [5, -2, i64::MAX - 2]);
    assert_eq!(rig.contents()[0].2, (i64::MAX - 2).to_le_bytes());
    let error = rig.fails(vec![put("t", "x", "1"), add("t", "n", 3)]);
    assert_eq!(error.reason, reason::OVERFLOW);
    assert!(error.message.starts_with("operation 1 (add): "), "{error}");
    rig.ok(vec![put("t", "text", "seven b"), put("t", "long", &"x".repeat(9000))]);
    for key in ["text", "long"] {
        assert_eq!(rig.fails(vec![add("t", key, 1)]).reason, reason::NOT_AN_INTEGER);
    }
}

#[test]
fn put_next_takes_the_number_after_the_highest() {
    let mut rig = Rig::new();
    let number = |rig: &mut Rig, prefix: &[u8]| {
        let results = rig.ok(vec![put_next(prefix, "v")]);
        let ResultKind::PutNext(put) = &results[0] else { panic!("not a put under the next number: {results:?}") };
        assert_eq!(put.key, [prefix, &put.number.to_be_bytes()[..]].concat());
        put.number
    };
    assert_eq!([b"a", b"a", b"b", b"a"].map(|prefix| number(&mut rig, prefix)), [1, 2, 1, 3]);
    // Neighbours with the same prefix that are shorter or longer than numbered keys do not count.
    rig.ok(vec![
        raw_put("n", b"a"),
        raw_put("n", b"a\xff\xff"),
        raw_put("n", &[&b"a"[..], &9u64.to_be_bytes(), b"more"].concat()),
        raw_put("n", &[&b"a"[..], &[0xff; 9]].concat()),
    ]);
    assert_eq!(number(&mut rig, b"a"), 4);
    rig.ok(vec![raw_put("n", &[&b"z"[..], &u64::MAX.to_be_bytes()].concat())]);
    assert_eq!(rig.fails(vec![put_next(b"z", "v")]).reason, reason::OVERFLOW);
}

#[test]
fn trees_are_made_dropped_and_renamed() {
    let mut rig = Rig::new();
    let create = |tree: &str| op(Kind::CreateTree(CreateTree { tree: tree.to_owned() }));
    let drop = |tree: &str| op(Kind::DropTree(DropTree { tree: tree.to_owned() }));
    let rename =
        |tree: &str, new: &str| op(Kind::RenameTree(RenameTree { tree: tree.to_owned(), new_name: new.to_owned() }));
    let changed: Vec<bool> = rig
        .ok(vec![create("a"), create("a"), drop("a"), drop("a"), create("b"), rename("b", "c"), create("b")])
        .iter()
        .map(|result| match result {
            ResultKind::Tree(tree) => tree.changed,
            other => panic!("not of a tree: {other:?}"),
        })
        .collect();
    assert_eq!(changed, [true, false, true, false, true, true, true]);
    assert_eq!(rig.fails(vec![rename("b", "c")]).reason, reason::TREE_EXISTS);
    let error = rig.fails(vec![rename("nowhere", "d")]);
    assert_eq!(error.reason, reason::NO_SUCH_TREE);
    assert!(error.message.contains("\"nowhere\""), "{error}");
    rig.ok(vec![put("c", "k", "v"), rename("c", "d")]);
    assert_eq!(value(&rig.ok(vec![get("d", "k")])[0]), Some((&b"v"[..], 2)));
}

#[test]
fn an_unknown_tree_is_named() {
    let mut rig = Rig::new();
    let must_exist =
        op(Kind::Put(Put { tree: "nowhere".to_owned(), key: bytes("k"), value: bytes("v"), tree_must_exist: true }));
    let range = op(Kind::DeleteRange(DeleteRange { tree: "nowhere".to_owned(), range: None }));
    for operation in [must_exist, delete("nowhere", "k"), range, get("nowhere", "k"), scan("nowhere", None, 0, false)] {
        let error = rig.fails(vec![put("other", "k", "v"), operation]);
        assert_eq!(error.reason, reason::NO_SUCH_TREE);
        assert!(error.message.contains("no tree named \"nowhere\""), "{error}");
    }
}

#[test]
fn guards_hold_or_not() {
    let mut rig = Rig::new();
    rig.ok(vec![put("t", "other", "1")]);
    let big = "x".repeat(100_000);
    rig.ok(vec![put("t", "k", "value"), put("t", "big", &big)]);
    let value = |key: &str, value: &str| guard("t", key, Condition::ValueEquals(bytes(value)));
    let mut other_end = big.clone();
    other_end.replace_range(99_999.., "y");
    for (guard, expected) in [
        (exists("t", "k", true), true),
        (exists("t", "k", false), false),
        (exists("t", "none", true), false),
        (exists("t", "none", false), true),
        (exists("nowhere", "k", false), true),
        (exists("nowhere", "k", true), false),
        (value("k", "value"), true),
        (value("k", "valu"), false),
        (value("k", "valuf"), false),
        (value("none", ""), false),
        (value("big", &big), true),
        (value("big", &other_end), false),
        // EQUAL, NOT_EQUAL, LESS, GREATER, of version 2 and of no version.
        (version("t", "k", 1, 2), true),
        (version("t", "k", 1, 1), false),
        (version("t", "k", 2, 1), true),
        (version("t", "k", 2, 2), false),
        (version("t", "k", 3, 3), true),
        (version("t", "k", 3, 2), false),
        (version("t", "k", 4, 1), true),
        (version("t", "k", 4, 2), false),
        (version("t", "none", 1, 0), true),
        (version("t", "none", 4, 0), false),
        (version("nowhere", "k", 1, 0), true),
    ] {
        assert_eq!(rig.holds(guard.clone()), expected, "{guard:?}");
    }
}

#[test]
fn all_guards_must_hold_else_the_others_run() {
    let mut rig = Rig::new();
    let request = TxnRequest {
        guards: vec![exists("t", "a", false), exists("t", "b", true)],
        operations: vec![put("t", "a", "1")],
        otherwise: vec![put("t", "b", "1"), get("t", "b")],
        ..TxnRequest::default()
    };
    let first = rig.run(&request).unwrap();
    assert_eq!((first.guards_held, first.results.len()), (false, 2));
    let second = rig.run(&request).unwrap();
    assert_eq!((second.guards_held, second.results.len()), (true, 1));
    assert!(!rig.run(&request).unwrap().guards_held, "a is there now");
}

#[test]
fn what_reads_return_is_bounded() {
    let mut rig = Rig::roomy();
    rig.ok(vec![put("t", "big", &"x".repeat(8 << 20))]);
    assert!(rig.run(&txn(vec![get("t", "big")])).is_ok());
    assert_eq!(rig.fails(vec![get("t", "big"), get("t", "big")]).reason, reason::RESULT_TOO_LARGE);
}

/// The answer as it would be sent.
fn encoded_bytes(results: Vec<OperationResult>) -> usize {
    let (outcome, txn_id, timeline) = (i32::MAX, u64::MAX, u64::MAX);
    TxnResponse { outcome, guards_held: true, txn_id, results, timeline, results_dropped: true }.encoded_len()
}

#[test]
fn no_result_takes_more_than_is_counted() {
    let entry = |key: usize, value: usize| Entry {
        key: Bytes::from(vec![0; key]),
        value: Bytes::from(vec![0; value]),
        version: u64::MAX,
    };
    let key = 2048;
    for (kind, counted) in [
        (ResultKind::Put(PutResult { previous_version: u64::MAX }), 0),
        (ResultKind::Delete(DeleteResult { previous_version: u64::MAX }), 0),
        (ResultKind::DeleteRange(DeleteRangeResult { deleted: u64::MAX }), 0),
        (ResultKind::Add(AddResult { value: -1 }), 0),
        (ResultKind::Tree(TreeResult { changed: true }), 0),
        (ResultKind::Get(GetResult { entry: None }), 0),
        (ResultKind::Get(GetResult { entry: Some(entry(key, 8 << 20)) }), key + (8 << 20) + ENTRY_OVERHEAD_BYTES),
        (ResultKind::Scan(ScanResult { entries: vec![entry(key, 10); 1000], more: true }), 1000 * (key + 10 + 32)),
        (
            ResultKind::PutNext(PutNextResult { key: Bytes::from(vec![0; key]), number: u64::MAX }),
            key + ENTRY_OVERHEAD_BYTES,
        ),
    ] {
        let result = OperationResult { kind: Some(kind) };
        let bytes = encoded_bytes(vec![result.clone(); 2]) - encoded_bytes(vec![result.clone()]);
        assert!(bytes <= RESULT_BYTES + counted, "{bytes} bytes, counted as {}: {result:?}", RESULT_BYTES + counted);
    }
}

#[test]
fn the_largest_answer_fits_a_message() {
    let mut rig = Rig::roomy();
    rig.ok(vec![put("t", "big", &"x".repeat(8 << 20))]);
    let mut rig = rig.next_batch();
    let next = || put_next(&[b'p'; 2040], "");
    let read = run_alone(&mut rig, &[get("t", "big")]).unwrap().result_bytes;
    let fitting = (Limits::default().result_bytes - read) / run_alone(&mut rig, &[next()]).unwrap().result_bytes;
    let with = |count: usize| -> Vec<Operation> {
        std::iter::once(get("t", "big")).chain(std::iter::repeat_with(next).take(count)).collect()
    };
    let largest = run_alone(&mut rig, &with(fitting)).unwrap();
    assert!((15 << 20..=MAX_MESSAGE_BYTES).contains(&encoded_bytes(largest.results)));
    assert_eq!(rig.fails(with(fitting + 1)).reason, reason::RESULT_TOO_LARGE);
}

/// Runs operations and takes them back.
fn run_alone(rig: &mut Rig, operations: &[Operation]) -> Result<Executed, RunError> {
    let executed = run(&mut rig.batch, &txn(operations.to_vec()), &Limits::default());
    if executed.is_ok() {
        rig.batch.rollback_txn();
    }
    executed
}

#[test]
fn put_next_passes_over_so_many_keys_and_no_more() {
    let mut rig = Rig::new();
    let foreign = |count: u32| -> Vec<Operation> {
        (0..count).map(|number| raw_put("n", &[&b"p"[..], &number.to_be_bytes(), &[0xff; 9]].concat())).collect()
    };
    rig.ok(vec![put_next(b"p", "")]);
    rig.ok(foreign(10_000));
    // The numbered key stands among them: all but the lowest are passed over.
    rig.ok(vec![put_next(b"p", "")]);
    let error = rig.fails(vec![put_next(b"p", ""), put_next(b"p", "")]);
    assert_eq!(error.reason, reason::BAD_OPERATION);
    assert!(error.message.contains("operation 1 (put_next)") && error.message.contains("\"p\""), "{error}");
    rig.ok(vec![put_next(b"q", ""), put_next(b"q", "")]);
}
