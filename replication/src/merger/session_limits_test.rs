//! Sessions: what is bounded, and what ends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calamus_engine::ids::Timeline;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::{CloseSessionRequest, Put};

use super::test_consensus::Fate;
use super::{MergerOptions, WallClock};
use crate::error::{Outcome, reason};
use crate::sessions::SessionLimits;
use crate::sessions::layout::{SessionId, SessionRecord, TREE};
use crate::test_requests::{add, get, op, put, txn, until};

use super::session_rig_test::*;

#[tokio::test]
async fn a_large_answer_is_kept_without_its_results() {
    let limits = SessionLimits { answer_bytes: 100, ..SessionLimits::default() };
    let rig = Rig::with(MergerOptions { sessions: limits, ..options() }).await;
    rig.run(txn(vec![put("t", "long", &"x".repeat(200))])).await.unwrap();
    let request = rig.of(1, 1, txn(vec![add("t", "n", 1), get("t", "long")]));
    let first = rig.run(request.clone()).await.unwrap();
    assert_eq!((first.results.len(), first.results_dropped), (2, false));
    let again = rig.run(request).await.unwrap();
    assert_eq!((again.txn_id, again.results.len(), again.results_dropped), (first.txn_id, 0, true));
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn a_session_stores_a_bounded_amount_and_goes_on_when_answers_have_arrived() {
    let limits = SessionLimits { stored_bytes: 200, ..SessionLimits::default() };
    let rig = Rig::with(MergerOptions { sessions: limits, ..options() }).await;
    let mut sequence = 1;
    let error = loop {
        match rig.run(rig.count(sequence)).await {
            Ok(_) => sequence += 1,
            Err(error) => break error,
        }
    };
    is(&error, Outcome::NotCommitted, reason::SESSION_FULL);
    assert!(error.retryable && sequence > 3);
    let done = rig.run(rig.of(sequence, sequence, txn(vec![add("t", "n", 1)]))).await.unwrap();
    assert_eq!(added(&done), i64::try_from(sequence).unwrap());
}

#[tokio::test]
async fn the_number_of_sessions_is_bounded() {
    let limits = SessionLimits { sessions: 2, ..SessionLimits::default() };
    let rig = Rig::with(MergerOptions { sessions: limits, ..options() }).await;
    let second = rig.open(0).await.unwrap();
    is(&rig.open(0).await.unwrap_err(), Outcome::NotCommitted, reason::TOO_MANY_SESSIONS);
    assert!(rig.close(second).await);
    assert!(rig.open(0).await.is_ok());
    for ttl in [1, 999, u64::MAX] {
        is(&rig.open(ttl).await.unwrap_err(), Outcome::NotCommitted, reason::BAD_OPERATION);
    }
}

/// A clock that is set by hand, in seconds.
fn clock() -> (Arc<AtomicU64>, WallClock) {
    let seconds = Arc::new(AtomicU64::new(1_000));
    let read = seconds.clone();
    (seconds, WallClock(Arc::new(move || read.load(Ordering::SeqCst) * 1_000_000)))
}

#[tokio::test]
async fn a_session_that_nobody_uses_expires_by_a_write_of_the_leader() {
    let (seconds, clock) = clock();
    let expiry_interval = Duration::from_millis(1);
    let rig = Rig::with(MergerOptions { clock, expiry_interval, ..options() }).await;
    let (used, unused) = (rig.open(60_000).await.unwrap(), rig.open(60_000).await.unwrap());
    let rig = Rig { session: used, ..rig };
    rig.run(rig.count(1)).await.unwrap();
    seconds.fetch_add(50, Ordering::SeqCst);
    // Use refreshes it, and writes nothing for that.
    let proposals = rig.consensus.proposals_so_far();
    assert!(!rig.run(rig.gated(2)).await.unwrap().guards_held);
    assert_eq!(rig.consensus.proposals_so_far(), proposals);
    seconds.fetch_add(50, Ordering::SeqCst);
    let expired = async {
        until(|| rig.merger.stats().expired_sessions == 1).await;
    };
    rig.consensus.pump(expired).await;
    assert_eq!(added(&rig.run(rig.count(1)).await.unwrap()), 1, "the one in use is there");
    let rig = Rig { session: unused, ..rig };
    is(&rig.run(rig.count(1)).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
    // At the beginning of a term each is as good as just used.
    let rig = Rig { session: used, ..rig };
    seconds.fetch_add(59, Ordering::SeqCst);
    rig.other_leader(|_| {});
    rig.run(rig.count(1)).await.unwrap();
    seconds.fetch_add(61, Ordering::SeqCst);
    rig.consensus.pump(async { until(|| rig.merger.stats().expired_sessions == 2).await }).await;
    is(&rig.run(rig.count(1)).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
    assert!(rig.stored().is_empty());
    assert_eq!(rig.counted().await, 1);
}

#[tokio::test]
async fn a_session_of_before_a_restore_is_removed_and_takes_nobodys_room() {
    let (_, clock) = clock();
    let sessions = SessionLimits { sessions: 2, ..SessionLimits::default() };
    let rig =
        Rig::with(MergerOptions { clock, expiry_interval: Duration::from_millis(1), sessions, ..options() }).await;
    let foreign = SessionId::new(Timeline(0x7777), 5);
    let record = SessionRecord { ttl_millis: 3_600_000, opened_micros: 0 };
    let (key, value) = (foreign.key().to_vec().into(), record.encode().to_vec().into());
    let kept = txn(vec![op(Kind::Put(Put { tree: TREE.to_owned(), key, value, tree_must_exist: false }))]);
    rig.consensus.pump(rig.merger.submit_system(kept, None)).await.unwrap();
    // Who leads next lists them anew.
    rig.other_leader(|_| {});
    rig.consensus.pump(async { until(|| rig.merger.stats().expired_sessions == 1).await }).await;
    rig.open(60_000).await.expect("there is room for a second one");
    let error = rig.open(60_000).await.expect_err("and for no third one");
    assert_eq!(error.reason, reason::TOO_MANY_SESSIONS);
}

/// What was told in a session is forgotten with it: however it went, and not before its removal is applied.
#[tokio::test]
async fn answers_of_sessions_that_are_gone_take_no_room_and_those_of_others_stay() {
    let (seconds, clock) = clock();
    let expiry_interval = Duration::from_millis(1);
    let rig = Rig::with(MergerOptions { clock, expiry_interval, ..options() }).await;
    let remembered = || rig.merger.stats().remembered;
    assert!(!rig.run(rig.gated(1)).await.unwrap().guards_held);
    rig.run(txn(vec![put("t", "gate", "1")])).await.unwrap();
    assert_eq!(remembered(), 1);
    rig.open(60_000).await.unwrap();

    // Its removal is staged, and is lost.
    rig.consensus.script(&[Fate::RefuseLate]);
    let proposals = rig.consensus.proposals_so_far();
    let close = || operation(SessionKind::Close(CloseSessionRequest { session_id: rig.session }));
    let (merger, request) = (rig.merger.clone(), close());
    let closing = tokio::spawn(async move { merger.submit_system(request, None).await });
    rig.consensus.proposals(proposals + 1).await;
    // Another one expires: so it was looked at all sessions meanwhile.
    seconds.fetch_add(61, Ordering::SeqCst);
    until(|| rig.merger.stats().expired_sessions == 1).await;
    rig.consensus.tell_refusals();
    closing.await.unwrap().unwrap_err();
    assert!(!rig.run(rig.gated(1)).await.unwrap().guards_held, "what was told is told again");

    // The outcome of its removal is not known, and it is applied.
    assert_eq!(remembered(), 1);
    rig.consensus.script(&[Fate::UnknownInLog]);
    let error = rig.consensus.pump(rig.merger.submit_system(close(), None)).await.unwrap_err();
    is(&error, Outcome::Unknown, reason::LEADER_LOST);
    rig.consensus.pump(until(|| remembered() == 0)).await;
    is(&rig.run(rig.count(2)).await.unwrap_err(), Outcome::Unknown, reason::NO_SUCH_SESSION);
}
