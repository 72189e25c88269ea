//! What does not fit, and what is refused for it.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use calamus_engine::ids::Term;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{CreateTree, Operation, Put, TxnRequest};
use tokio::sync::oneshot;

use super::inbox::{Inbox, Waiting};
use super::stage::Answers;
use super::stats::Counters;
use super::test_consensus::TestConsensus;
use super::worker::Worker;
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, reason};
use crate::execute::validate;
use crate::test_requests::{add, bytes, delete, op, put, txn};

fn options() -> MergerOptions {
    MergerOptions { default_timeout: Duration::from_secs(60), pipeline_batches: 1, ..MergerOptions::default() }
}

fn create(tree: &str) -> Operation {
    op(Kind::CreateTree(CreateTree { tree: tree.to_owned() }))
}

/// Submits all while a batch is in flight, so that they meet in the queue. Returns their answers, in order.
async fn together(consensus: &Arc<TestConsensus>, merger: &Arc<Merger>, requests: Vec<TxnRequest>) -> Vec<Answer> {
    let submit = |request: TxnRequest| {
        let merger = merger.clone();
        tokio::spawn(async move { merger.submit(request, None).await })
    };
    let proposals = consensus.proposals_so_far();
    let first = submit(txn(vec![put("first", &proposals.to_string(), "v")]));
    consensus.proposals(proposals + 1).await;
    let waiting = requests.len() as u64;
    let clients: Vec<_> = requests.into_iter().map(submit).collect();
    crate::test_requests::until(|| merger.stats().queued >= waiting).await;
    let answers = consensus.pump(futures::future::join_all(clients)).await;
    first.await.unwrap().unwrap();
    answers.into_iter().map(Result::unwrap).collect()
}

fn is_too_large(answer: &Answer) {
    let error = answer.as_ref().unwrap_err();
    assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::TXN_TOO_LARGE, false));
}

/// Writes a tree of about so many leaves: a short key in each, and long values that fill the rest.
async fn fill(consensus: &Arc<TestConsensus>, merger: &Arc<Merger>, leaves: usize) {
    let filler = Bytes::from(vec![b'f'; 1900]);
    for first in (0..leaves).step_by(500) {
        let mut operations = Vec::new();
        for number in first..leaves.min(first + 500) {
            operations.push(add("t", &format!("{number:05}"), 1));
            operations.extend(["a", "b", "c", "d"].map(|end| {
                let (tree, key) = ("t".to_owned(), bytes(&format!("{number:05}{end}")));
                op(Kind::Put(Put { tree, key, value: filler.clone(), tree_must_exist: false }))
            }));
        }
        consensus.pump(merger.submit(txn(operations), None)).await.unwrap();
    }
}

#[tokio::test]
async fn many_small_changes_commit_however_many_pages_they_touch() {
    let consensus = TestConsensus::with_segments(32 << 20);
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options()));
    fill(&consensus, &merger, 2_500).await;
    let adds = || txn((0..2_500).map(|number| add("t", &format!("{number:05}"), 2)).collect());
    // Alone, and behind others.
    consensus.pump(merger.submit(adds(), None)).await.unwrap();
    let answers = together(&consensus, &merger, vec![txn(vec![put("t", "before", "v")]), adds()]).await;
    answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    let read = consensus.engine.read();
    assert_eq!(read.get("t", b"02499").unwrap().unwrap().value.to_vec().unwrap(), 5_i64.to_le_bytes());
}

#[tokio::test]
async fn one_that_touches_too_much_is_refused_and_the_next_commits() {
    let consensus = TestConsensus::with_segments(32 << 20);
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options()));
    fill(&consensus, &merger, 400).await;
    drop(merger);
    let small = MergerOptions { record_bytes: 256 << 10, ..options() };
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), small));
    let deletes = txn((0..400).map(|number| delete("t", &format!("{number:05}"))).collect());
    let requests = vec![txn(vec![put("t", "before", "v")]), deletes, txn(vec![put("t", "after", "v")])];
    let [before, large, after] = together(&consensus, &merger, requests).await.try_into().unwrap();
    is_too_large(&large);
    assert!(large.unwrap_err().message.contains("(delete): the transaction is too large: it changes more than"));
    before.unwrap();
    after.unwrap();
    assert!(consensus.engine.read().get("t", b"00000").unwrap().is_some());
}

#[tokio::test]
async fn what_the_tree_of_trees_needs_refuses_nobody_else() {
    let consensus = TestConsensus::with_segments(32 << 20);
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options()));
    // Operations of 9 MB, and as much again in the tree of trees.
    let creates = txn((0..40_000).map(|number| create(&format!("{number:0200}"))).collect());
    let requests = vec![txn(vec![put("t", "before", "v")]), creates, txn(vec![put("t", "after", "v")])];
    let [before, large, after] = together(&consensus, &merger, requests).await.try_into().unwrap();
    is_too_large(&large);
    before.unwrap();
    after.unwrap();
}

/// A batch that comes out larger than its bound said: its transactions run again one by one, and only that one is
/// refused that is too large by itself.
#[tokio::test]
async fn a_batch_that_is_too_large_at_its_end_runs_again_one_by_one() {
    let consensus = TestConsensus::with_segments(32 << 20);
    let inbox = Arc::new(Inbox::new(1 << 20));
    let options = options();
    let mut worker = Worker::new(
        consensus.engine.clone(),
        consensus.clone(),
        options.clone(),
        inbox.clone(),
        Arc::<Counters>::default(),
    );
    let mut cx = Context::from_waker(Waker::noop());
    let requests = [
        txn(vec![put("t", "before", "v")]),
        txn((0..400).map(|number| create(&format!("{number:0200}"))).collect()),
        txn(vec![put("t", "after", "v")]),
    ];
    let mut batch = consensus.engine.begin_batch().unwrap();
    let (mut answers, mut outcomes) = (Answers::default(), Vec::new());
    for request in requests {
        let bytes = validate(&request, &options.limits).unwrap();
        assert!(inbox.try_reserve(bytes));
        let (reply, outcome) = oneshot::channel();
        outcomes.push(outcome);
        let later = worker.execute(&mut batch, Waiting { request, term: None, bytes, reply }, &mut answers);
        assert!(later.is_none(), "all in one batch");
    }
    // As if the bound had been too low: the record is some 200 KB.
    worker.options.record_bytes = 64 << 10;
    batch.limit_record(64 << 10);
    worker.propose(Term(1), batch, answers);
    assert_eq!((worker.queue.len(), consensus.in_log()), (3, 0), "nothing was proposed");
    for _ in 0..10 {
        while worker.advance(&mut cx) {}
        if let Some(term) = worker.long_batch() {
            worker.stage_batch(term);
        }
        consensus.apply(usize::MAX);
        tokio::task::yield_now().await;
    }
    let [before, large, after] = outcomes.try_into().unwrap();
    is_too_large(&large.await.unwrap());
    assert_eq!((before.await.unwrap().unwrap().txn_id, after.await.unwrap().unwrap().txn_id), (1, 2));
    assert_eq!(worker.one_by_one, 0);
    assert!(inbox.try_reserve(1 << 20), "all of the queue's room was given back");
}
