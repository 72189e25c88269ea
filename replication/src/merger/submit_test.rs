use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{CreateTree, Put, TxnRequest};
use tokio::task::JoinHandle;

use super::test_consensus::{Fate, TestConsensus};
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, reason};
use crate::test_requests::{bytes, get, op, put, txn, until};

fn options() -> MergerOptions {
    MergerOptions { default_timeout: Duration::from_secs(60), ..MergerOptions::default() }
}

fn start(consensus: &Arc<TestConsensus>, options: MergerOptions) -> Arc<Merger> {
    Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options))
}

fn client(merger: &Arc<Merger>, request: TxnRequest) -> JoinHandle<Answer> {
    let merger = merger.clone();
    tokio::spawn(async move { merger.submit(request, None).await })
}

fn big(key: &str, length: usize) -> TxnRequest {
    // Not all the same byte, so that nothing can be saved on it.
    let value: Vec<u8> = (0..length).map(|at| ((at * 31) >> 3) as u8).collect();
    txn(vec![op(Kind::Put(Put {
        tree: "big".to_owned(),
        key: bytes(key),
        value: Bytes::from(value),
        tree_must_exist: false,
    }))])
}

#[tokio::test]
async fn an_invalid_request_does_not_reach_the_queue() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, options());
    let error = merger.submit(txn(vec![put("$sys", "k", "v")]), None).await.unwrap_err();
    assert_eq!((error.outcome, error.reason), (Outcome::NotCommitted, reason::SYSTEM_TREE));
    assert_eq!(merger.stats().batches, 0);
}

#[tokio::test]
async fn no_outcome_in_time_is_unknown() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, options());
    let request = TxnRequest { timeout_ms: 1000, ..txn(vec![put("t", "k", "v")]) };
    let error = merger.submit(request, None).await.unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::Unknown, reason::TIMEOUT, false));
    // And it was rightly so: it commits after all.
    consensus.proposals(1).await;
    consensus.apply(1);
    let read = consensus.pump(merger.submit(txn(vec![get("t", "k")]), None)).await.unwrap();
    assert_eq!(crate::test_requests::value_at(&read, 0).as_deref(), Some("v"));
}

#[tokio::test]
async fn frozen_admits_nothing_and_finishes_what_was_admitted() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, options());
    let before = client(&merger, txn(vec![put("t", "k", "v")]));
    consensus.proposals(1).await;
    merger.freeze(true);
    let error = merger.submit(txn(vec![put("t", "other", "v")]), None).await.unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::FROZEN, true));
    assert!(!before.is_finished());
    consensus.apply(1);
    before.await.unwrap().unwrap();
    merger.drained().await;
    assert!(merger.is_frozen());
    merger.freeze(false);
    consensus.pump(merger.submit(txn(vec![put("t", "other", "v")]), None)).await.unwrap();
}

#[tokio::test]
async fn stopping_leaves_nobody_waiting() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, MergerOptions { pipeline_batches: 1, ..options() });
    let in_flight = client(&merger, txn(vec![put("t", "a", "v")]));
    consensus.proposals(1).await;
    let waits = client(&merger, txn(vec![put("t", "b", "v")]));
    until(|| merger.stats().queued >= 1).await;
    merger.stop().await;
    assert!(merger.ended().await, "it was asked to, so the node must not take it for a defect");
    assert_eq!(in_flight.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    let waits = waits.await.unwrap().unwrap_err();
    assert_eq!((waits.outcome, waits.reason), (Outcome::NotCommitted, reason::STOPPING));
    let late = merger.submit(txn(vec![put("t", "c", "v")]), None).await.unwrap_err();
    assert_eq!((late.outcome, late.reason), (Outcome::NotCommitted, reason::STOPPING));
    merger.drained().await;
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_and_who_waits_is_admitted_later() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, MergerOptions { pipeline_batches: 1, queue_bytes: 1000, ..options() });
    let first = client(&merger, txn(vec![put("t", "first", "v")]));
    consensus.proposals(1).await;
    let value = "x".repeat(400);
    let clients: Vec<_> = (0..20).map(|n| client(&merger, txn(vec![put("t", &n.to_string(), &value)]))).collect();
    until(|| merger.stats().queued >= 2).await;
    // Two of them fill the queue. One that cannot wait was never admitted, so nothing of it will be committed.
    let request = TxnRequest { timeout_ms: 20, ..txn(vec![put("t", "hasty", &value)]) };
    let error = merger.submit(request, None).await.unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::OVERLOADED, true));
    assert_eq!(merger.stats().queued, 2);
    consensus
        .pump(async {
            first.await.unwrap().unwrap();
            for client in clients {
                client.await.unwrap().unwrap();
            }
        })
        .await;
    // One larger than the queue goes in alone.
    let large = txn(vec![put("t", "large", &"x".repeat(5000))]);
    consensus.pump(merger.submit(large, None)).await.unwrap();
}

#[tokio::test]
async fn large_transactions_are_spread_over_batches() {
    let consensus = TestConsensus::with_segments(32 << 20);
    let merger = start(&consensus, options());
    let first = client(&merger, txn(vec![put("t", "first", "v")]));
    consensus.proposals(1).await;
    // Together they exceed what one record can hold, and what may be in flight.
    let clients: Vec<_> = (0..6).map(|n| client(&merger, big(&n.to_string(), 7 << 20))).collect();
    consensus
        .pump(async {
            first.await.unwrap().unwrap();
            for client in clients {
                client.await.unwrap().unwrap();
            }
        })
        .await;
    let stats = merger.stats();
    assert!((4..=7).contains(&stats.batches), "{stats:?}");
    assert_eq!(stats.committed, 7);
    let read = consensus.engine.read();
    for n in 0..6 {
        assert_eq!(read.get("big", n.to_string().as_bytes()).unwrap().unwrap().value.len(), 7 << 20);
    }
}

#[tokio::test]
async fn one_too_large_for_any_record_is_refused_alone() {
    let consensus = TestConsensus::new();
    let record_bytes = 256 << 10;
    let merger = start(&consensus, MergerOptions { record_bytes, pipeline_batches: 1, ..options() });
    let first = client(&merger, txn(vec![put("t", "first", "v")]));
    consensus.proposals(1).await;
    let clients = [
        client(&merger, txn(vec![put("t", "before", "v")])),
        client(&merger, big("large", 300 << 10)),
        client(&merger, txn(vec![put("t", "after", "v")])),
    ];
    let answers = consensus.pump(futures::future::join_all(clients)).await;
    first.await.unwrap().unwrap();
    let [before, large, after] = answers.try_into().unwrap();
    let error = large.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::TXN_TOO_LARGE, false));
    before.unwrap().unwrap();
    after.unwrap().unwrap();
    assert!(consensus.engine.read().tree("big").unwrap().is_none());
}

/// More trees than a record can name: refused, and the merger lives.
#[tokio::test]
async fn one_that_makes_too_many_trees_is_refused_alone() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, MergerOptions { pipeline_batches: 1, ..options() });
    let first = client(&merger, txn(vec![put("t", "first", "v")]));
    consensus.proposals(1).await;
    let creates = (0..65_537).map(|number| op(Kind::CreateTree(CreateTree { tree: number.to_string() })));
    let clients = [
        client(&merger, txn(vec![put("t", "before", "v")])),
        client(&merger, txn(creates.collect())),
        client(&merger, txn(vec![put("t", "after", "v")])),
    ];
    let answers = consensus.pump(futures::future::join_all(clients)).await;
    first.await.unwrap().unwrap();
    let [before, many, after] = answers.try_into().unwrap();
    let error = many.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::TXN_TOO_LARGE, false));
    before.unwrap().unwrap();
    after.unwrap().unwrap();
    assert_eq!(consensus.engine.read().trees().unwrap().len(), 1);
}

#[tokio::test]
async fn who_has_gone_is_not_executed() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, MergerOptions { pipeline_batches: 1, ..options() });
    let first = client(&merger, txn(vec![put("t", "first", "v")]));
    consensus.proposals(1).await;
    let gone = client(&merger, txn(vec![put("t", "gone", "v")]));
    until(|| merger.stats().queued >= 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    consensus.apply(1);
    first.await.unwrap().unwrap();
    consensus.pump(merger.submit(txn(vec![put("t", "last", "v")]), None)).await.unwrap();
    assert!(consensus.engine.read().get("t", b"gone").unwrap().is_none());
}

#[tokio::test]
async fn a_refused_batch_names_the_leader_if_it_is_known() {
    let consensus = TestConsensus::new();
    let merger = start(&consensus, options());
    consensus.script(&[Fate::RefuseLate]);
    let refused = client(&merger, txn(vec![put("t", "k", "v")]));
    consensus.proposals(1).await;
    consensus.depose(0, false, |_| {});
    let read = merger.submit(txn(vec![get("t", "k")]), None).await.unwrap_err();
    assert_eq!(read.leader.as_deref(), Some("127.0.0.1:2"));
    consensus.tell_refusals();
    let refused = refused.await.unwrap().unwrap_err();
    assert_eq!((refused.outcome, refused.reason, refused.retryable), (Outcome::NotCommitted, reason::REFUSED, true));
}
