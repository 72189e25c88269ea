use std::sync::Arc;
use std::time::Duration;

use calamus_proto::v1::TxnRequest;
use tokio::task::JoinHandle;

use super::test_consensus::{Fate, TestConsensus};
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, reason};
use crate::test_requests::{add, exists, get, put, txn, until, value_at};

fn start() -> (Arc<TestConsensus>, Arc<Merger>) {
    let consensus = TestConsensus::new();
    let options = MergerOptions { default_timeout: Duration::from_secs(60), ..MergerOptions::default() };
    let merger = Merger::start(consensus.engine.clone(), consensus.clone(), options);
    (consensus, Arc::new(merger))
}

fn client(merger: &Arc<Merger>, request: TxnRequest) -> JoinHandle<Answer> {
    let merger = merger.clone();
    tokio::spawn(async move { merger.submit(request, None).await })
}

async fn committed(consensus: &TestConsensus, merger: &Merger, request: TxnRequest) {
    consensus.pump(merger.submit(request, None)).await.unwrap();
}

/// Waits until the merger has evaluated all it was given.
async fn evaluated(merger: &Merger, client: &JoinHandle<Answer>, consensus: &TestConsensus, rounds: usize) {
    consensus.rounds(rounds).await;
    assert_eq!(merger.stats().queued, 0);
    assert!(!client.is_finished());
}

#[tokio::test]
async fn failed_guards_cost_no_entry() {
    let (consensus, merger) = start();
    let request = TxnRequest { guards: vec![exists("t", "k", true)], ..txn(vec![put("t", "k", "1")]) };
    let answer = merger.submit(request, None).await.unwrap();
    assert_eq!((answer.guards_held, answer.txn_id, answer.results.len()), (false, 0, 0));
    assert_eq!((consensus.in_log(), consensus.engine.applied().log_id), (0, None));
    assert_eq!(merger.stats().batches, 0);
}

#[tokio::test]
async fn an_answer_waits_for_the_staged_frames_it_saw() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "warm", "1")])).await;
    let write = client(&merger, txn(vec![put("t", "k", "new")]));
    consensus.proposals(2).await;
    let read = client(&merger, txn(vec![get("t", "k")]));
    // Its quorum round has succeeded, and still it has to wait.
    consensus.rounds(1).await;
    let other = client(&merger, txn(vec![get("t", "k")]));
    consensus.rounds(2).await;
    assert!(!read.is_finished() && !other.is_finished());
    consensus.apply(1);
    write.await.unwrap().unwrap();
    assert_eq!(value_at(&read.await.unwrap().unwrap(), 0).as_deref(), Some("new"));
    assert_eq!(value_at(&other.await.unwrap().unwrap(), 0).as_deref(), Some("new"));
}

#[tokio::test]
async fn an_answer_from_a_refused_frame_is_not_given() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "warm", "1")])).await;
    consensus.script(&[Fate::Accept, Fate::RefuseLate]);
    let holds = client(&merger, txn(vec![put("t", "other", "1")]));
    consensus.proposals(2).await;
    let refused = client(&merger, txn(vec![put("t", "k", "never")]));
    consensus.proposals(3).await;
    // Evaluated on the staged state, in which the key is there, before anybody knows that it never will be. Its quorum
    // round succeeds; the outcome of what it saw is all that it waits for.
    let guarded = TxnRequest { guards: vec![exists("t", "k", true)], ..txn(vec![get("t", "k")]) };
    let saw = client(&merger, guarded.clone());
    until(|| merger.stats().held == 1).await;
    consensus.rounds(1).await;
    assert!(!saw.is_finished());
    consensus.tell_refusals();
    let error = saw.await.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.reason), (Outcome::NotCommitted, reason::REFUSED));
    assert_eq!(refused.await.unwrap().unwrap_err().outcome, Outcome::NotCommitted);
    consensus.apply(1);
    holds.await.unwrap().unwrap();
    let answer = consensus.pump(merger.submit(guarded, None)).await.unwrap();
    assert!(!answer.guards_held, "the guard is judged by what was committed");
}

#[tokio::test]
async fn a_reader_of_what_is_refused_later_is_told_not_committed() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "k", "old")])).await;
    let write = client(&merger, txn(vec![put("t", "k", "new")]));
    consensus.proposals(2).await;
    consensus.hold_rounds();
    let read = client(&merger, txn(vec![get("t", "k")]));
    evaluated(&merger, &read, &consensus, 1).await;
    consensus.depose(0, false, |_| {});
    let read = read.await.unwrap().unwrap_err();
    assert_eq!((read.outcome, read.retryable), (Outcome::NotCommitted, true));
    assert_eq!(write.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
}

#[tokio::test]
async fn an_answer_needs_a_round_begun_after_its_evaluation() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "k", "1")])).await;
    consensus.hold_rounds();
    let first = client(&merger, txn(vec![get("t", "k")]));
    consensus.rounds(1).await;
    let late: Vec<_> = (0..10).map(|_| client(&merger, txn(vec![get("t", "k")]))).collect();
    until(|| merger.stats().held >= 11).await;
    consensus.let_rounds(1);
    first.await.unwrap().unwrap();
    // The round that ran served only who was evaluated before it began.
    consensus.rounds(2).await;
    assert!(late.iter().all(|client| !client.is_finished()));
    consensus.let_rounds(1);
    for client in late {
        client.await.unwrap().unwrap();
    }
    assert_eq!(consensus.rounds_so_far(), 2, "one round for all who waited");
}

#[tokio::test]
async fn a_deposed_leader_answers_nothing_without_a_quorum() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "k", "old")])).await;
    consensus.hold_rounds();
    let read = client(&merger, txn(vec![get("t", "k")]));
    evaluated(&merger, &read, &consensus, 1).await;
    consensus.depose(0, false, |batch| {
        batch.put("t", b"k", b"new").unwrap();
    });
    consensus.let_rounds(100);
    assert_eq!(read.await.unwrap().unwrap_err().reason, reason::NOT_LEADER);
}

#[tokio::test]
async fn an_error_found_on_staged_state_waits_too() {
    let (consensus, merger) = start();
    committed(&consensus, &merger, txn(vec![put("t", "k", "not a number")])).await;
    consensus.hold_rounds();
    let wrong = client(&merger, txn(vec![put("t", "z", "1"), add("t", "k", 1)]));
    evaluated(&merger, &wrong, &consensus, 1).await;
    consensus.let_rounds(1);
    let error = wrong.await.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.reason), (Outcome::NotCommitted, reason::NOT_AN_INTEGER));
    consensus.let_rounds(100);
    let read = merger.submit(txn(vec![get("t", "z")]), None).await.unwrap();
    assert_eq!(value_at(&read, 0), None, "a failing transaction leaves nothing behind");
}
