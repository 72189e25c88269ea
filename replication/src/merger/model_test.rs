//! Many clients, a consensus that refuses, forgets and deposes by a seed, and a plain map as the judge.
//!
//! Every writing transaction leaves a mark under a key of its own, and writes its name under one common key. So the
//! final state shows which transactions were committed and in which order (the marks' versions), and whoever reads the
//! common key shows which state it saw. Checked is:
//! - acknowledged is committed, under the txn id that was told; not committed is not there; unknown may be either;
//! - running the committed ones on a plain map, in their order, gives the same guards, results and final state;
//! - an answer without an entry shows a committed state: one not older than what was acknowledged before it was asked;
//! - a follower that executed nothing has the same digest (in `TestConsensus`, after every entry).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calamus_proto::v1::guard::Condition;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::{DeleteRange, Guard, Operation, OperationResult, Range, TxnRequest, TxnResponse};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::test_consensus::{Fate, TestConsensus};
use super::{Answer, Merger, MergerOptions};
use crate::error::Outcome;
use crate::test_requests::{add, bytes, delete, exists, get, guard, op, put, scan, txn, version};

const CLIENTS: u64 = 6;
const TXNS_EACH: u64 = 40;

/// Key to value and version.
type Map = BTreeMap<String, (Vec<u8>, u64)>;

/// What a transaction was, and what its client was told.
struct Told {
    name: String,
    request: TxnRequest,
    /// The newest txn id that was acknowledged to anybody before it was sent.
    acknowledged_before: u64,
    answer: Answer,
}

fn random_guard(rng: &mut StdRng, key: &str) -> Guard {
    match rng.random_range(0..3) {
        0 => exists("t", key, rng.random()),
        1 => version("t", key, rng.random_range(1..=4), rng.random_range(0..60)),
        _ => guard("t", key, Condition::ValueEquals(bytes(&rng.random_range(0..3).to_string()))),
    }
}

fn random_operation(rng: &mut StdRng, key: &str) -> Operation {
    let prefix = Range { prefix: bytes(&key[..1]), ..Range::default() };
    match rng.random_range(0..10) {
        0..=3 => put("t", key, &rng.random_range(0..3).to_string()),
        4 => delete("t", key),
        5 => op(Kind::DeleteRange(DeleteRange { tree: "t".to_owned(), range: Some(prefix) })),
        6 => add("t", &format!("#{key}"), rng.random_range(-5..5)),
        7 => scan("t", Some(prefix), rng.random_range(0..4), rng.random()),
        _ => get("t", key),
    }
}

fn random_txn(rng: &mut StdRng, name: &str) -> TxnRequest {
    let key = |rng: &mut StdRng| format!("{}{}", ["a", "b", "c"][rng.random_range(0..3)], rng.random_range(0..5));
    let mut operations = Vec::new();
    let reads_only = rng.random_bool(0.3);
    for _ in 0..rng.random_range(1..4) {
        let key = key(rng);
        operations.push(if reads_only { get("t", &key) } else { random_operation(rng, &key) });
    }
    operations.insert(0, get("t", "last"));
    if !reads_only {
        operations.push(put("t", "last", name));
        operations.push(put("marks", name, ""));
    }
    let mut guards = Vec::new();
    if rng.random() {
        let key = key(rng);
        guards.push(random_guard(rng, &key));
    }
    TxnRequest { guards, otherwise: vec![get("t", "last")], ..txn(operations) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn model_guard(map: &Map, guard: &Guard) -> bool {
    let entry = map.get(&text(&guard.key));
    match guard.condition.as_ref().unwrap() {
        Condition::Exists(exists) => entry.is_some() == *exists,
        Condition::ValueEquals(value) => entry.is_some_and(|entry| entry.0 == *value),
        Condition::Version(compare) => {
            let found = entry.map_or(0, |entry| entry.1);
            [found == compare.version, found != compare.version, found < compare.version, found > compare.version]
                [compare.operator as usize - 1]
        }
    }
}

/// The numbers and texts of a result, comparable with the other side's.
fn words(result: &OperationResult) -> String {
    format!("{:?}", result.kind)
}

fn model_operation(map: &mut Map, txn_id: u64, operation: &Operation) -> String {
    use calamus_proto::v1 as wire;
    let entry = |key: &str, entry: &(Vec<u8>, u64)| wire::Entry {
        key: bytes(key),
        value: entry.0.clone().into(),
        version: entry.1,
    };
    let in_range = |range: &Option<Range>, key: &str| key.starts_with(&text(&range.as_ref().unwrap().prefix));
    let kind = match operation.kind.as_ref().unwrap() {
        // The marks are looked at in the end, in the engine.
        Kind::Put(put) if put.tree == "marks" => ResultKind::Put(wire::PutResult { previous_version: 0 }),
        Kind::Put(put) => {
            let old = map.insert(text(&put.key), (put.value.to_vec(), txn_id));
            ResultKind::Put(wire::PutResult { previous_version: old.map_or(0, |old| old.1) })
        }
        Kind::Delete(delete) => {
            let old = map.remove(&text(&delete.key));
            ResultKind::Delete(wire::DeleteResult { previous_version: old.map_or(0, |old| old.1) })
        }
        Kind::DeleteRange(delete) => {
            let before = map.len();
            map.retain(|key, _| !in_range(&delete.range, key));
            ResultKind::DeleteRange(wire::DeleteRangeResult { deleted: (before - map.len()) as u64 })
        }
        Kind::Get(get) => {
            let key = text(&get.key);
            ResultKind::Get(wire::GetResult { entry: map.get(&key).map(|found| entry(&key, found)) })
        }
        Kind::Scan(scan) => {
            let mut found: Vec<_> = map
                .iter()
                .filter(|(key, _)| in_range(&scan.range, key))
                .map(|(key, found)| entry(key, found))
                .collect();
            if scan.reverse {
                found.reverse();
            }
            let limit = if scan.limit == 0 { 1000 } else { scan.limit as usize };
            let more = found.len() > limit;
            found.truncate(limit);
            ResultKind::Scan(wire::ScanResult { entries: found, more })
        }
        Kind::Add(add) => {
            let key = text(&add.key);
            let old = map.get(&key).map_or(0, |old| i64::from_le_bytes(old.0[..].try_into().unwrap()));
            let value = old + add.amount;
            map.insert(key, (value.to_le_bytes().to_vec(), txn_id));
            ResultKind::Add(wire::AddResult { value })
        }
        other => panic!("not in this test: {other:?}"),
    };
    words(&OperationResult { kind: Some(kind) })
}

/// Runs a transaction on the map; whether its guards held, and its results.
fn model_txn(map: &mut Map, txn_id: u64, request: &TxnRequest) -> (bool, Vec<String>) {
    let held = request.guards.iter().all(|guard| model_guard(map, guard));
    let operations = if held { &request.operations } else { &request.otherwise };
    (held, operations.iter().map(|operation| model_operation(map, txn_id, operation)).collect())
}

fn check_results(seed: u64, told: &Told, response: &TxnResponse, map: &mut Map, txn_id: u64) {
    let (held, results) = model_txn(map, txn_id, &told.request);
    let found: Vec<String> = response.results.iter().map(words).collect();
    assert_eq!((response.guards_held, found), (held, results), "seed {seed}: {} as txn {txn_id}", told.name);
}

/// The name under the common key, as the first get of an answer without an entry shows it.
fn last_seen(response: &TxnResponse) -> Option<String> {
    crate::test_requests::value_at(response, 0)
}

fn judge(seed: u64, consensus: &TestConsensus, told: &[Told]) -> (usize, usize) {
    let read = consensus.engine.read();
    let mut committed: BTreeMap<String, u64> = BTreeMap::new();
    let mut cursor = read.cursor("marks").unwrap().expect("something was committed");
    let mut there = cursor.first().unwrap();
    while there {
        committed.insert(text(cursor.key()), cursor.version().0);
        there = cursor.next().unwrap();
    }
    let by_name: BTreeMap<&str, &Told> = told.iter().map(|told| (&told.name[..], told)).collect();
    let order: BTreeMap<u64, &str> = committed.iter().map(|(name, txn_id)| (*txn_id, &name[..])).collect();
    assert_eq!(order.len(), committed.len(), "seed {seed}: two transactions of one txn id");
    assert!(order.keys().copied().eq(1..=read.txn_id().0), "seed {seed}: txn ids are consecutive");

    let (mut map, mut states) = (Map::new(), vec![Map::new()]);
    for (txn_id, name) in &order {
        match by_name.get(name) {
            Some(told) => match &told.answer {
                Ok(response) => {
                    assert_eq!(response.txn_id, *txn_id, "seed {seed}: {name}");
                    check_results(seed, told, response, &mut map, *txn_id);
                }
                Err(error) => {
                    assert_eq!(error.outcome, Outcome::Unknown, "seed {seed}: {name} was committed, but: {error}");
                    model_txn(&mut map, *txn_id, &told.request);
                }
            },
            // Of the other leader.
            None => drop(map.insert("last".to_owned(), (name.as_bytes().to_vec(), *txn_id))),
        }
        states.push(map.clone());
    }
    let mut without_entry = 0;
    for told in told {
        let Ok(response) = &told.answer else { continue };
        if response.txn_id != 0 {
            assert_eq!(committed.get(&told.name), Some(&response.txn_id), "seed {seed}: {} was lost", told.name);
            continue;
        }
        without_entry += 1;
        let saw = last_seen(response).map_or(0, |name| {
            *committed.get(&name).unwrap_or_else(|| panic!("seed {seed}: {} read {name}, never committed", told.name))
        });
        assert!(saw >= told.acknowledged_before, "seed {seed}: {} read state {saw}, which was old", told.name);
        check_results(seed, told, response, &mut states[usize::try_from(saw).unwrap()].clone(), 0);
    }
    assert_eq!(contents(&read), map, "seed {seed}");
    (committed.len(), without_entry)
}

fn contents(read: &calamus_engine::ReadTxn) -> Map {
    let mut found = Map::new();
    let mut cursor = read.cursor("t").unwrap().unwrap();
    let mut there = cursor.first().unwrap();
    while there {
        found.insert(text(cursor.key()), (cursor.value().to_vec().unwrap(), cursor.version().0));
        there = cursor.next().unwrap();
    }
    found
}

/// One client: sends its transactions one after the other, and again when it may.
async fn client(merger: Arc<Merger>, seed: u64, number: u64, newest: Arc<AtomicU64>, told: Arc<Mutex<Vec<Told>>>) {
    let mut rng = StdRng::seed_from_u64(seed * 1000 + number);
    for count in 0..TXNS_EACH {
        let name = format!("c{number}-{count:03}");
        let request = random_txn(&mut rng, &name);
        let acknowledged_before = newest.load(Ordering::SeqCst);
        let answer = merger.submit(request.clone(), None).await;
        match &answer {
            Ok(response) => drop(newest.fetch_max(response.txn_id, Ordering::SeqCst)),
            // Not to spin while nobody leads here.
            Err(_) => tokio::task::yield_now().await,
        }
        told.lock().push(Told { name, request, acknowledged_before, answer });
    }
}

/// Applies, refuses, forgets and deposes until the clients are done.
async fn disturb(consensus: &TestConsensus, rng: &mut StdRng, done: &AtomicU64) {
    let mut deposed = 0;
    while done.load(Ordering::SeqCst) < CLIENTS {
        match rng.random_range(0..100) {
            0..=3 => consensus.script(&[Fate::Refuse]),
            4..=7 => consensus.script(&[Fate::Accept, Fate::RefuseLate]),
            8..=9 => consensus.script(&[Fate::UnknownInLog, Fate::Accept]),
            10..=11 => consensus.script(&[Fate::UnknownLost]),
            12 if deposed < 5 => {
                deposed += 1;
                let name = format!("foreign-{deposed}");
                consensus.depose(rng.random_range(0..4), rng.random(), |batch| {
                    for tree in ["t", "marks"] {
                        batch.create_tree(tree).unwrap();
                    }
                    batch.put("t", b"last", name.as_bytes()).unwrap();
                    batch.put("marks", name.as_bytes(), b"").unwrap();
                });
                tokio::task::yield_now().await;
                consensus.lead();
            }
            13..=30 => consensus.tell_refusals(),
            31..=60 => drop(consensus.apply(rng.random_range(1..5))),
            _ => {}
        }
        tokio::task::yield_now().await;
    }
}

async fn run(seed: u64, options: MergerOptions) -> (Arc<TestConsensus>, Vec<Told>) {
    let consensus = TestConsensus::new();
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options));
    consensus.pump(merger.submit(txn(vec![put("t", "last", "start"), put("marks", "start", "")]), None)).await.unwrap();
    let (newest, told, done) = (Arc::new(AtomicU64::new(1)), Arc::default(), Arc::new(AtomicU64::new(0)));
    for number in 0..CLIENTS {
        let client = client(merger.clone(), seed, number, newest.clone(), Arc::clone(&told));
        let done = done.clone();
        tokio::spawn(async move {
            client.await;
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    disturb(&consensus, &mut StdRng::seed_from_u64(seed), &done).await;
    merger.stop().await;
    consensus.apply(usize::MAX);
    let told = std::mem::take(&mut *told.lock());
    (consensus, told)
}

fn options() -> MergerOptions {
    MergerOptions {
        default_timeout: Duration::from_secs(120),
        settle_pause: Duration::from_millis(1),
        ..MergerOptions::default()
    }
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CALAMUS_MERGER_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    let first = std::env::var("CALAMUS_MERGER_FIRST_SEED").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    first..first + count
}

/// `CALAMUS_MERGER_SEEDS` and `CALAMUS_MERGER_FIRST_SEED` choose how many, and from where.
#[test]
fn agrees_with_a_plain_map_whatever_the_consensus_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut committed, mut without_entry, mut failed) = (0, 0, 0);
    for seed in seeds() {
        let (consensus, told) = runtime.block_on(run(seed, options()));
        let (c, w) = judge(seed, &consensus, &told);
        committed += c;
        without_entry += w;
        failed += told.iter().filter(|told| told.answer.is_err()).count();
    }
    assert!(committed > 0 && without_entry > 0 && failed > 0, "{committed} {without_entry} {failed}: too tame");
}
