//! Sessions, step by step: what becomes of copies that come again, late, elsewhere, and after everything else.

use calamus_engine::ids::Term;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::{OpenSessionRequest, TxnRequest};

use super::test_consensus::Fate;
use super::{Answer, MergerOptions};
use crate::error::{Outcome, reason};
use crate::sessions::{MAX_AHEAD, SessionLimits};
use crate::test_requests::{add, exists, get, put, txn, until};

use super::session_rig_test::*;

#[tokio::test]
async fn a_repeated_sequence_gets_the_first_answer_and_runs_once() {
    let rig = Rig::new().await;
    let first = rig.run(rig.count(1)).await.unwrap();
    assert_eq!((added(&first), first.txn_id > 0), (1, true));
    for _ in 0..3 {
        assert_eq!(rig.run(rig.count(1)).await.unwrap(), first);
    }
    assert_eq!(rig.counted().await, 1);
    // Also by a leader that remembers nothing.
    rig.other_leader(|_| {});
    assert_eq!(rig.run(rig.count(1)).await.unwrap(), first);
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn a_copy_that_arrives_while_the_first_is_staged_waits_for_it() {
    let rig = Rig::new().await;
    let proposals = rig.consensus.proposals_so_far();
    let first = rig.client(rig.count(1), None);
    rig.consensus.proposals(proposals + 1).await;
    let rounds = rig.consensus.rounds_so_far();
    let copy = rig.client(rig.count(1), None);
    rig.consensus.rounds(rounds + 1).await;
    assert!(!copy.is_finished(), "its round has succeeded, and what it saw is not committed");
    rig.consensus.apply(1);
    assert_eq!(copy.await.unwrap().unwrap(), first.await.unwrap().unwrap());
    assert_eq!(rig.consensus.proposals_so_far(), proposals + 1, "a repeated question costs no entry");
}

#[tokio::test]
async fn two_copies_in_one_batch_run_once() {
    let rig = Rig::new().await;
    let holds = rig.client(txn(vec![put("t", "other", "1")]), None);
    let proposals = rig.consensus.proposals_so_far();
    rig.consensus.proposals(proposals.max(1)).await;
    let copies = [rig.client(rig.count(1), None), rig.client(rig.count(1), None), rig.client(rig.count(1), None)];
    let copies = rig.consensus.pump(futures::future::join_all(copies)).await;
    holds.await.unwrap().unwrap();
    for copy in copies {
        assert_eq!(added(&copy.unwrap().unwrap()), 1);
    }
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn who_waits_for_a_staged_copy_that_is_lost_learns_that_the_outcome_is_unknown() {
    let rig = Rig::new().await;
    let proposals = rig.consensus.proposals_so_far();
    let first = rig.client(rig.count(1), None);
    rig.consensus.proposals(proposals + 1).await;
    let copy = rig.client(rig.count(1), None);
    until(|| rig.merger.stats().held == 1).await;
    rig.other_leader(|_| {});
    assert_eq!(copy.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    assert_eq!(first.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1, "it was lost, so now it runs");
}

#[tokio::test]
async fn what_was_refused_runs_when_it_is_sent_again() {
    let rig = Rig::new().await;
    rig.consensus.script(&[Fate::Refuse]);
    let error = rig.run(rig.count(1)).await.unwrap_err();
    assert_eq!((error.outcome, error.retryable), (Outcome::NotCommitted, true));
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1);
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1);
}

/// Fails with the planted fault `forwarded_copy_in_later_term`.
async fn forwarded_copy_in_a_later_term(rig: &Rig) -> Answer {
    // The guard does not hold, and the client is told so: nothing was changed.
    let gated = rig.gated(1);
    let told = rig.consensus.pump(rig.merger.submit(gated.clone(), Some(Term(1)))).await.unwrap();
    assert_eq!((told.guards_held, told.txn_id), (false, 0));
    // The guard holds from here on, and the leader remembers nothing of what was told.
    rig.other_leader(|batch| {
        batch.put("t", b"gate", b"").unwrap();
    });
    // What the network kept of the copy arrives.
    rig.consensus.pump(rig.merger.submit(gated, Some(Term(1)))).await
}

#[tokio::test]
async fn a_forwarded_copy_that_arrives_in_a_later_term_is_refused() {
    let rig = Rig::new().await;
    let late = forwarded_copy_in_a_later_term(&rig).await.unwrap_err();
    is(&late, Outcome::NotCommitted, reason::NOT_LEADER);
    assert_eq!(rig.value("k").await, None);
}

#[cfg(feature = "mutants")]
#[tokio::test]
async fn the_planted_fault_runs_a_forwarded_copy_in_a_later_term() {
    let mutants = super::Mutants { forwarded_copy_in_later_term: true, ..Default::default() };
    let rig = Rig::with(MergerOptions { mutants, ..options() }).await;
    assert!(forwarded_copy_in_a_later_term(&rig).await.is_ok_and(|answer| answer.guards_held));
    assert_eq!(rig.value("k").await.as_deref(), Some("1"), "or the test above proves nothing");
}

/// Fails with the planted fault `session_result_not_in_batch`.
async fn retry_after_all_memory_is_gone(rig: &Rig) -> i64 {
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1);
    // The answer is lost on its way, and the leader with all that it remembered.
    rig.other_leader(|_| {});
    rig.run(rig.count(1)).await.unwrap();
    rig.counted().await
}

#[tokio::test]
async fn an_outcome_is_committed_with_what_it_is_of() {
    let rig = Rig::new().await;
    assert_eq!(retry_after_all_memory_is_gone(&rig).await, 1);
}

#[cfg(feature = "mutants")]
#[tokio::test]
async fn the_planted_fault_loses_an_outcome_and_runs_twice() {
    let mutants = super::Mutants { session_result_not_in_batch: true, ..Default::default() };
    let rig = Rig::with(MergerOptions { mutants, ..options() }).await;
    assert_eq!(retry_after_all_memory_is_gone(&rig).await, 2, "or the test above proves nothing");
}

/// Fails with the planted fault `failed_guard_from_staged_state`.
async fn guard_on_what_is_never_committed(rig: &Rig) -> bool {
    let proposals = rig.consensus.proposals_so_far();
    let lost = rig.client(txn(vec![put("t", "gone", "1")]), None);
    rig.consensus.proposals(proposals + 1).await;
    // It must not hold if the key is there; it is there only in the staged state.
    let request = TxnRequest { guards: vec![exists("t", "gone", false)], ..txn(vec![put("t", "k", "1")]) };
    let told = rig.client(rig.of(1, 1, request), None);
    until(|| rig.merger.stats().held == 1 || told.is_finished()).await;
    rig.other_leader(|_| {});
    assert_eq!(lost.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    assert_eq!(rig.value("gone").await, None);
    // Whether the client was told of guards that failed, for a key that never was.
    told.await.unwrap().is_ok()
}

#[tokio::test]
async fn guards_that_fail_on_staged_state_alone_are_not_told() {
    let rig = Rig::new().await;
    assert!(!guard_on_what_is_never_committed(&rig).await);
}

#[cfg(feature = "mutants")]
#[tokio::test]
async fn the_planted_fault_tells_of_guards_that_failed_for_what_never_was() {
    let mutants = super::Mutants { failed_guard_from_staged_state: true, ..Default::default() };
    let rig = Rig::with(MergerOptions { mutants, ..options() }).await;
    assert!(guard_on_what_is_never_committed(&rig).await, "or the test above proves nothing");
}

#[tokio::test]
async fn an_answer_without_an_entry_is_given_again_in_the_same_term() {
    let rig = Rig::new().await;
    let told = rig.run(rig.gated(1)).await.unwrap();
    assert!(!told.guards_held);
    let wrong = rig.of(2, 1, txn(vec![put("t", "x", "1"), add("t", "warm", 1)]));
    let error = rig.run(wrong.clone()).await.unwrap_err();
    is(&error, Outcome::NotCommitted, reason::NOT_AN_INTEGER);
    // Both would do something else now.
    rig.run(txn(vec![put("t", "gate", ""), crate::test_requests::delete("t", "warm")])).await.unwrap();
    assert_eq!(rig.run(rig.gated(1)).await.unwrap(), told);
    assert_eq!(rig.run(wrong).await.unwrap_err(), error);
    assert_eq!((rig.value("k").await, rig.value("x").await), (None, None));
    assert!(rig.stored().is_empty(), "and it costs no entry");
}

#[tokio::test]
async fn what_was_told_counts_when_a_chain_breaks_within_the_term() {
    let rig = Rig::new().await;
    assert!(!rig.run(rig.gated(1)).await.unwrap().guards_held);
    rig.consensus.script(&[Fate::Refuse]);
    rig.run(txn(vec![put("t", "other", "1")])).await.unwrap_err();
    rig.run(txn(vec![put("t", "gate", "")])).await.unwrap();
    assert!(!rig.run(rig.gated(1)).await.unwrap().guards_held);
}

#[tokio::test]
async fn an_answer_that_is_not_confirmed_is_not_remembered() {
    let rig = Rig::new().await;
    rig.consensus.script(&[Fate::RefuseLate]);
    let proposals = rig.consensus.proposals_so_far();
    let refused = rig.client(txn(vec![put("t", "gone", "1")]), None);
    rig.consensus.proposals(proposals + 1).await;
    let request =
        rig.of(1, 1, TxnRequest { guards: vec![exists("t", "gone", false)], ..txn(vec![put("t", "k", "1")]) });
    let first = rig.client(request.clone(), None);
    until(|| rig.merger.stats().held == 1).await;
    let copy = rig.client(request.clone(), None);
    until(|| rig.merger.stats().held == 2).await;
    rig.consensus.tell_refusals();
    refused.await.unwrap().unwrap_err();
    let error = first.await.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.retryable), (Outcome::NotCommitted, true));
    assert_eq!(copy.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    assert!(rig.run(request).await.unwrap().guards_held, "it is evaluated anew");
}

#[tokio::test]
async fn a_copy_of_the_clients_own_that_arrives_after_a_resolve_never_runs() {
    let rig = Rig::new().await;
    // The copy lies in a node that is frozen and names no term. The client gives it up.
    assert_eq!(rig.resolve(1).await.unwrap(), None);
    is(&rig.run(rig.count(1)).await.unwrap_err(), Outcome::NotCommitted, reason::RESOLVED);
    // The node goes on, and leads: it remembers nothing.
    rig.other_leader(|_| {});
    is(&rig.run(rig.count(1)).await.unwrap_err(), Outcome::NotCommitted, reason::RESOLVED);
    assert_eq!(rig.resolve(1).await.unwrap(), None);
    assert_eq!(rig.counted().await, 0);
}

#[tokio::test]
async fn a_resolve_behind_a_staged_copy_waits_for_it_and_finds_it_committed() {
    let rig = Rig::new().await;
    let proposals = rig.consensus.proposals_so_far();
    let first = rig.client(rig.count(1), None);
    rig.consensus.proposals(proposals + 1).await;
    let found = rig.resolve(1).await.unwrap();
    assert_eq!(found, Some(first.await.unwrap().unwrap()));
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn a_sequence_below_the_lowest_unanswered_never_runs() {
    let rig = Rig::new().await;
    rig.run(rig.count(1)).await.unwrap();
    rig.run(rig.of(3, 3, txn(vec![add("t", "n", 1)]))).await.unwrap();
    for sequence in [1, 2] {
        is(&rig.run(rig.count(sequence)).await.unwrap_err(), Outcome::Unknown, reason::SEQUENCE_ANSWERED);
    }
    rig.other_leader(|_| {});
    for sequence in [1, 2] {
        is(&rig.run(rig.count(sequence)).await.unwrap_err(), Outcome::Unknown, reason::SEQUENCE_ANSWERED);
        is(&rig.resolve(sequence).await.unwrap_err(), Outcome::Unknown, reason::SEQUENCE_ANSWERED);
    }
    assert_eq!(rig.counted().await, 2);
}

#[tokio::test]
async fn outcomes_that_the_client_has_are_dropped_and_the_floor_stays() {
    let limits = SessionLimits { drop_every: 4, ..SessionLimits::default() };
    let rig = Rig::with(MergerOptions { sessions: limits, ..options() }).await;
    for sequence in 1..=20 {
        rig.run(rig.of(sequence, sequence, txn(vec![add("t", "n", 1)]))).await.unwrap();
        assert!(rig.stored().len() <= 5, "{:?}", rig.stored());
    }
    assert_eq!(*rig.stored().last().unwrap(), 20);
    rig.other_leader(|_| {});
    is(&rig.run(rig.count(19)).await.unwrap_err(), Outcome::Unknown, reason::SEQUENCE_ANSWERED);
    assert_eq!(added(&rig.run(rig.of(20, 20, txn(vec![add("t", "n", 1)]))).await.unwrap()), 20);
}

#[tokio::test]
async fn the_floor_that_outcomes_were_dropped_below_is_stored_and_not_a_lower_one_of_a_late_copy() {
    let limits = SessionLimits { drop_every: 1, ..SessionLimits::default() };
    let rig = Rig::with(MergerOptions { sessions: limits, ..options() }).await;
    let count = |sequence, lowest| rig.of(sequence, lowest, txn(vec![add("t", "n", 1)]));
    rig.run(count(1, 1)).await.unwrap();
    // It changes nothing: only the leader remembers the floor.
    rig.run(rig.of(3, 3, txn(vec![get("t", "n")]))).await.unwrap();
    // Sent earlier, when less was answered.
    rig.run(count(4, 1)).await.unwrap();
    assert_eq!(rig.stored(), [4]);
    rig.other_leader(|_| {});
    is(&rig.run(count(1, 1)).await.unwrap_err(), Outcome::Unknown, reason::SEQUENCE_ANSWERED);
    assert_eq!(rig.counted().await, 2);
}

#[tokio::test]
async fn what_is_applied_without_a_word_is_known_to_the_next_batch() {
    let rig = Rig::new().await;
    // It stands in the log, and its proposer is told that nobody knows.
    rig.consensus.script(&[Fate::UnknownInLog]);
    assert_eq!(rig.run_without_applying(rig.count(1)).await.unwrap_err().outcome, Outcome::Unknown);
    // Looks at the session in a state in which it has not run, and stages nothing.
    assert!(!rig.run_without_applying(rig.gated(2)).await.unwrap().guards_held);
    rig.consensus.apply(1);
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1);
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn a_session_that_is_not_there_runs_nothing() {
    let mut rig = Rig::new().await;
    rig.run(rig.count(1)).await.unwrap();
    assert!(rig.close(rig.session).await);
    assert!(!rig.close(rig.session).await, "it is closed once");
    for sequence in [1, 2] {
        is(&rig.run(rig.count(sequence)).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
    }
    is(&rig.resolve(2).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
    assert!(rig.stored().is_empty());
    let closed = rig.session;
    rig.session = rig.open(0).await.unwrap();
    assert_eq!(rig.session, closed + 1, "no number comes again");
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 2);
    rig.session = 0x5555_0000_0000_0001;
    is(&rig.run(rig.count(1)).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
    assert_eq!(rig.counted().await, 2);
}

#[tokio::test]
async fn another_transaction_under_the_same_sequence_is_an_error() {
    let rig = Rig::new().await;
    rig.run(rig.count(1)).await.unwrap();
    assert!(!rig.run(rig.gated(2)).await.unwrap().guards_held);
    for sequence in [1, 2] {
        let other = rig.of(sequence, 1, txn(vec![add("t", "n", 10)]));
        is(&rig.run(other).await.unwrap_err(), Outcome::NotCommitted, reason::SEQUENCE_REUSED);
    }
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn sequences_that_cannot_be_are_refused() {
    let rig = Rig::new().await;
    for (sequence, lowest) in [(0, 0), (1, 0), (1, 2), (MAX_AHEAD + 2, 1)] {
        let request = rig.of(sequence, lowest, txn(vec![add("t", "n", 1)]));
        is(&rig.run(request).await.unwrap_err(), Outcome::NotCommitted, reason::BAD_SEQUENCE);
    }
    let stray = operation(SessionKind::Open(OpenSessionRequest::default()));
    is(&rig.run(stray).await.unwrap_err(), Outcome::NotCommitted, reason::BAD_OPERATION);
    assert_eq!(added(&rig.run(rig.of(MAX_AHEAD + 1, 1, txn(vec![add("t", "n", 1)]))).await.unwrap()), 1);
}
