use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::LogId;

use crate::error::{Outcome, reason};
use crate::merger::test_consensus::TestConsensus;
use crate::merger::{Merger, MergerOptions};
use crate::reads::Reads;
use crate::test_requests::{put, txn};

const LONG: Duration = Duration::from_secs(60);

async fn commit(consensus: &Arc<TestConsensus>, key: &str) -> LogId {
    let merger = Merger::start(consensus.engine.clone(), consensus.clone(), MergerOptions::default());
    consensus.pump(merger.submit(txn(vec![put("t", key, "1")]), None)).await.unwrap();
    consensus.engine.applied().log_id.unwrap()
}

#[tokio::test]
async fn one_round_serves_all_who_wait_and_none_who_come_later() {
    let consensus = TestConsensus::new();
    commit(&consensus, "k").await;
    let reads = Arc::new(Reads::start(consensus.engine.clone(), consensus.clone(), None));
    consensus.hold_rounds();
    let read = |reads: &Arc<Reads>| {
        let reads = reads.clone();
        tokio::spawn(async move { reads.linearizable(LONG).await.map(|read| read.txn_id().0) })
    };
    let first = read(&reads);
    consensus.rounds(1).await;
    let late: Vec<_> = (0..100).map(|_| read(&reads)).collect();
    consensus.let_rounds(1);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    consensus.rounds(2).await;
    assert!(late.iter().all(|read| !read.is_finished()), "a round begun before them proves nothing to them");
    consensus.let_rounds(100);
    for read in late {
        assert_eq!(read.await.unwrap().unwrap(), 1);
    }
    assert!(reads.rounds() <= 5, "{} rounds for 101 reads", reads.rounds());
}

#[tokio::test]
async fn readers_that_gave_up_are_forgotten_while_rounds_hang() {
    let consensus = TestConsensus::new();
    let reads = Reads::start(consensus.engine.clone(), consensus.clone(), None);
    consensus.hold_rounds();
    for _ in 0..200 {
        reads.barrier(Duration::ZERO).await.unwrap_err();
    }
    assert!(reads.waiting() <= 8, "{} of 200 that gave up still wait", reads.waiting());
}

#[tokio::test]
async fn a_round_that_hangs_holds_up_only_who_is_in_it() {
    let consensus = TestConsensus::new();
    let reads = Reads::start(consensus.engine.clone(), consensus.clone(), None);
    consensus.hold_rounds();
    let short = reads.linearizable(Duration::from_millis(1)).await.err().unwrap();
    assert_eq!((short.outcome, short.reason, short.retryable), (Outcome::NotCommitted, reason::TIMEOUT, true));
    // The first round still runs; the second begins beside it.
    let second = reads.barrier(LONG);
    tokio::pin!(second);
    tokio::select! {
        _ = &mut second => panic!("rounds are held"),
        () = consensus.rounds(2) => {}
    }
    consensus.let_rounds(2);
    second.await.unwrap();
}

#[tokio::test]
async fn a_local_read_waits_for_what_was_known() {
    let consensus = TestConsensus::new();
    let reads = Reads::start(consensus.engine.clone(), consensus.clone(), Some(LogId::new(1, 0)));
    let error = reads.local().err().unwrap();
    assert_eq!((error.reason, error.retryable), (reason::RECOVERING, true));
    assert_eq!(commit(&consensus, "k").await, LogId::new(1, 0));
    assert_eq!(reads.local().unwrap().txn_id().0, 1);
}

#[tokio::test]
async fn readers_are_told_when_the_node_stops() {
    let consensus = TestConsensus::new();
    let reads = Arc::new(Reads::start(consensus.engine.clone(), consensus.clone(), None));
    consensus.hold_rounds();
    let waits = {
        let reads = reads.clone();
        async move { reads.barrier(LONG).await }
    };
    tokio::pin!(waits);
    tokio::select! {
        _ = &mut waits => panic!("rounds are held"),
        () = consensus.rounds(1) => {}
    }
    reads.stop();
    assert_eq!(waits.await.unwrap_err().reason, reason::STOPPING);
}
