use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::test_consensus::{Fate, TestConsensus};
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, reason};
use crate::test_requests::{exists, get, put, txn, until, value_at};

fn options() -> MergerOptions {
    MergerOptions { default_timeout: Duration::from_secs(60), ..MergerOptions::default() }
}

struct Rig {
    consensus: Arc<TestConsensus>,
    merger: Arc<Merger>,
    proposals: usize,
}

impl Rig {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: MergerOptions) -> Self {
        let consensus = TestConsensus::new();
        let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options));
        Self { consensus, merger, proposals: 0 }
    }

    /// Submits a put and waits until it is proposed in a batch of its own.
    async fn propose(&mut self, key: &str, value: &str) -> JoinHandle<Answer> {
        let (merger, request) = (self.merger.clone(), txn(vec![put("t", key, value)]));
        let client = tokio::spawn(async move { merger.submit(request, None).await });
        self.proposals += 1;
        self.consensus.proposals(self.proposals).await;
        client
    }

    /// The first batch of a chain goes alone: get it done.
    async fn warm(&mut self) {
        let first = self.propose("warm", "1").await;
        self.consensus.apply(1);
        first.await.unwrap().unwrap();
    }

    async fn read(&self, key: &str) -> Option<String> {
        let answer = self.consensus.pump(self.merger.submit(txn(vec![get("t", key)]), None)).await;
        value_at(&answer.unwrap(), 0)
    }
}

#[tokio::test]
async fn batches_are_staged_ahead_of_the_quorum_and_acknowledged_when_applied() {
    let mut rig = Rig::new();
    rig.warm().await;
    let a = rig.propose("a", "1").await;
    let b = rig.propose("b", "2").await;
    assert_eq!(rig.consensus.in_log(), 2);
    assert!(!a.is_finished() && !b.is_finished());
    rig.consensus.apply(2);
    let (a, b) = (a.await.unwrap().unwrap(), b.await.unwrap().unwrap());
    assert_eq!((a.txn_id, b.txn_id), (2, 3));
    assert_eq!(rig.consensus.engine.staged().batches, 0);
}

/// The trap: the consensus refuses one proposal of a term and accepts the next. What was staged behind the refused one
/// builds on nothing.
#[tokio::test]
async fn n_refused_and_n_plus_1_accepted_loses_nothing() {
    let mut rig = Rig::new();
    rig.warm().await;
    rig.consensus.script(&[Fate::Accept, Fate::Refuse]);
    let before = rig.propose("before", "1").await;
    let refused = rig.propose("refused", "1").await;
    let refused = refused.await.unwrap().unwrap_err();
    assert_eq!((refused.outcome, refused.reason, refused.retryable), (Outcome::NotCommitted, reason::REFUSED, true));

    // The one in flight keeps its client; nothing is staged until it is decided.
    let merger = rig.merger.clone();
    let after = tokio::spawn(async move {
        let request = calamus_proto::v1::TxnRequest {
            guards: vec![exists("t", "refused", false), exists("t", "before", true)],
            ..txn(vec![put("t", "after", "1")])
        };
        merger.submit(request, None).await
    });
    rig.consensus.apply(1);
    before.await.unwrap().unwrap();
    let after = rig.consensus.pump(after).await.unwrap().unwrap();
    assert!(after.guards_held, "it was staged on the applied state");
    assert_eq!((rig.read("before").await, rig.read("refused").await), (Some("1".to_owned()), None));
    assert_eq!(rig.consensus.voids(), 0, "nothing was staged behind the refused batch");
}

/// Fails with the planted fault `staged_kept_after_refusal`.
#[tokio::test]
async fn what_was_refused_is_never_read() {
    let mut rig = Rig::new();
    rig.warm().await;
    rig.consensus.script(&[Fate::Refuse]);
    let refused = rig.propose("k", "never").await;
    assert_eq!(refused.await.unwrap().unwrap_err().reason, reason::REFUSED);
    assert_eq!(rig.read("k").await, None);
    assert_eq!(rig.consensus.engine.staged().batches, 0);
}

#[cfg(feature = "mutants")]
#[tokio::test]
async fn the_planted_fault_shows_what_was_refused() {
    let mutants = super::options::Mutants { staged_kept_after_refusal: true, ..Default::default() };
    let mut rig = Rig::with(MergerOptions { mutants, ..options() });
    rig.warm().await;
    rig.consensus.script(&[Fate::Refuse]);
    let refused = rig.propose("k", "never").await;
    assert_eq!(refused.await.unwrap().unwrap_err().reason, reason::REFUSED);
    assert_eq!(rig.read("k").await, Some("never".to_owned()), "or the test above proves nothing");
}

#[tokio::test]
async fn batches_already_behind_a_refused_one_are_void_and_not_committed() {
    let mut rig = Rig::new();
    rig.warm().await;
    rig.consensus.script(&[Fate::RefuseLate]);
    let refused = rig.propose("a", "1").await;
    let behind = [rig.propose("b", "1").await, rig.propose("c", "1").await];
    assert_eq!(rig.consensus.apply(2), 2);
    for void in behind {
        let error = void.await.unwrap().unwrap_err();
        assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::VOID, true));
    }
    // The chain is broken, and the first of it is not decided yet: nothing is staged.
    let merger = rig.merger.clone();
    let next = tokio::spawn(async move { merger.submit(txn(vec![put("t", "d", "1")]), None).await });
    until(|| rig.merger.stats().queued >= 1).await;
    assert_eq!((rig.consensus.in_log(), rig.consensus.engine.staged().batches), (0, 0));
    rig.consensus.tell_refusals();
    assert_eq!(refused.await.unwrap().unwrap_err().reason, reason::REFUSED);
    rig.consensus.pump(next).await.unwrap().unwrap();
    for (key, there) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        assert_eq!(rig.read(key).await.is_some(), there, "{key}");
    }
    assert_eq!(rig.consensus.voids(), 2);
}

/// What a lost leader proposed and nobody kept is unknown to its clients; it leads again from the applied state.
#[tokio::test]
async fn leading_again_starts_from_the_applied_state() {
    let mut rig = Rig::new();
    rig.warm().await;
    let (a, b) = (rig.propose("a", "1").await, rig.propose("b", "1").await);
    rig.consensus.depose(0, false, |batch| {
        batch.put("t", b"a", b"foreign").unwrap();
    });
    for lost in [a, b] {
        let error = lost.await.unwrap().unwrap_err();
        assert_eq!((error.outcome, error.retryable), (Outcome::Unknown, false));
    }
    rig.consensus.lead();
    assert_eq!(rig.read("a").await, Some("foreign".to_owned()));
    assert_eq!(rig.read("b").await, None);
}

/// An entry of unknown outcome may still stand in the log, and be applied under the txn id that the next batch uses.
#[tokio::test]
async fn the_first_batch_after_a_break_goes_alone() {
    let mut rig = Rig::new();
    rig.warm().await;
    rig.consensus.script(&[Fate::UnknownInLog]);
    let unknown = rig.propose("u", "1").await;
    assert_eq!(unknown.await.unwrap().unwrap_err().outcome, Outcome::Unknown);

    // It builds on the applied state, on which the unknown one builds too: it will be void.
    let void = rig.propose("v", "1").await;
    let merger = rig.merger.clone();
    let waits = tokio::spawn(async move { merger.submit(txn(vec![put("t", "w", "1")]), None).await });
    until(|| rig.merger.stats().queued >= 1).await;
    assert_eq!(rig.consensus.in_log(), 2, "the unknown one and the void one, and nothing behind");
    rig.consensus.apply(2);
    let void = void.await.unwrap().unwrap_err();
    assert_eq!((void.outcome, void.reason, void.retryable), (Outcome::NotCommitted, reason::VOID, true));
    rig.consensus.pump(waits).await.unwrap().unwrap();
    for (key, there) in [("u", true), ("v", false), ("w", true)] {
        assert_eq!(rig.read(key).await.is_some(), there, "{key}");
    }
    assert_eq!(rig.consensus.voids(), 1);
}

#[tokio::test]
async fn lost_leadership_with_batches_in_flight() {
    let mut rig = Rig::new();
    rig.warm().await;
    let survives = rig.propose("a", "1").await;
    let lost = rig.propose("b", "1").await;
    rig.consensus.depose(1, true, |batch| {
        batch.put("t", b"c", b"foreign").unwrap();
    });
    assert_eq!(survives.await.unwrap().unwrap().txn_id, 2, "committed by the next leader, and known");
    assert_eq!(lost.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    let refused = rig.merger.submit(txn(vec![put("t", "d", "1")]), None).await.unwrap_err();
    assert_eq!((refused.outcome, refused.reason), (Outcome::NotCommitted, reason::NOT_LEADER));
    assert_eq!(refused.leader.as_deref(), Some("127.0.0.1:2"));

    let term = rig.consensus.lead();
    let wrong = rig.merger.submit(txn(vec![put("t", "d", "1")]), Some(calamus_engine::ids::Term(1))).await;
    assert_eq!(wrong.unwrap_err().reason, reason::NOT_LEADER);
    let right = rig.merger.submit(txn(vec![put("t", "d", "1")]), Some(term));
    rig.consensus.pump(right).await.unwrap();
    for (key, there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(rig.read(key).await.is_some(), there, "{key}");
    }
}

#[tokio::test]
async fn at_most_so_many_batches_are_in_flight_and_the_rest_merges() {
    let mut rig = Rig::with(MergerOptions { pipeline_batches: 2, ..options() });
    rig.warm().await;
    let a = rig.propose("a", "1").await;
    let b = rig.propose("b", "1").await;
    let mut rest = Vec::new();
    for number in 0..50 {
        let merger = rig.merger.clone();
        let request = txn(vec![put("t", &format!("{number}"), "1")]);
        rest.push(tokio::spawn(async move { merger.submit(request, None).await }));
    }
    until(|| rig.merger.stats().queued >= 50).await;
    assert_eq!(rig.consensus.in_log(), 2);
    rig.consensus.apply(1);
    rig.consensus.proposals(4).await;
    assert_eq!(rig.consensus.in_log(), 2);
    rig.consensus.apply(2);
    for client in [a, b].into_iter().chain(rest) {
        client.await.unwrap().unwrap();
    }
    assert_eq!(rig.merger.stats().batches, 4, "what waited went in one batch");
}

#[tokio::test]
async fn wall_time_never_goes_back() {
    let times = parking_lot::Mutex::new(vec![50, 10, 100].into_iter());
    let clock = super::WallClock(Arc::new(move || times.lock().next().unwrap_or(0)));
    let mut rig = Rig::with(MergerOptions { clock, ..options() });
    let mut seen = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let client = rig.propose(key, "1").await;
        rig.consensus.apply(1);
        client.await.unwrap().unwrap();
        seen.push(rig.consensus.engine.applied().wall_time_micros);
    }
    assert_eq!(seen, [50, 50, 100, 100]);
}
