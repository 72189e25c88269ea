//! Sessions against scripted nodes: what is sent, and what the application is told.

use std::time::Duration;

use calamus_proto::v1::{TxnResponse, TxnSession};

use crate::scripted_test::{Answer, Fake, cluster, refuse};
use crate::*;

fn options() -> Options {
    let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(20) };
    Options { deadline: Duration::from_secs(10), backoff, ..Options::default() }
}

async fn session(fakes: &[Fake]) -> (Client, Session) {
    let client = Client::connect(fakes.iter().map(|fake| fake.address.clone()), options()).await.unwrap();
    let session = client.session_with(Duration::from_secs(60)).await.unwrap();
    (client, session)
}

fn put() -> Txn {
    Txn::new().put("t", "k", "v")
}

/// How the copies that arrived were named: sequence and lowest unanswered.
fn copies(fake: &Fake) -> Vec<(u64, u64)> {
    let script = fake.script.lock().unwrap();
    let named = script.txns.iter().map(|txn| txn.session.expect("of a session"));
    named
        .map(|TxnSession { id, sequence, lowest_unanswered }| {
            assert_eq!(id, 7);
            (sequence, lowest_unanswered)
        })
        .collect()
}

fn resolves(fake: &Fake) -> usize {
    fake.script.lock().unwrap().resolves.len()
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_for_again_as_the_same_sequence() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    assert_eq!((session.id(), session.ttl()), (7, Duration::from_secs(60)));
    fakes[0].answer([refuse(true, "leader_lost", "", false), refuse(true, "timeout", "", false)]);
    let done = session.txn(put()).await.unwrap();
    assert_eq!((done.attempts, done.unknown_attempts), (3, 2));
    session.txn(put()).await.unwrap();
    assert_eq!(copies(&fakes[0]), [(1, 1), (1, 1), (1, 1), (2, 2)]);
    assert_eq!(resolves(&fakes[0]), 0, "the answer has a txn id: it stands in the log");
}

#[tokio::test]
async fn guards_that_fail_are_believed_at_once_if_no_copy_is_under_way() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    fakes[0].answer([refuse(false, "refused", "", true), Answer::GuardsFail]);
    assert!(!session.txn(put()).await.unwrap().guards_held);
    assert_eq!(resolves(&fakes[0]), 0);
}

#[tokio::test]
async fn guards_that_fail_behind_a_lost_answer_are_resolved() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    let lost = || [refuse(true, "timeout", "", false), Answer::GuardsFail];
    fakes[0].answer(lost());
    assert!(!session.txn(put()).await.unwrap().guards_held);
    assert_eq!(resolves(&fakes[0]), 1);
    // The lost copy had run.
    let first = TxnResponse { outcome: 1, guards_held: true, txn_id: 99, ..TxnResponse::default() };
    fakes[0].script.lock().unwrap().resolved = Some(first);
    fakes[0].answer(lost());
    let done = session.txn(put()).await.unwrap();
    assert_eq!((done.guards_held, done.txn_id), (true, 99));
}

#[tokio::test]
async fn a_run_beside_another_believes_no_answer_without_a_txn_id() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    let pending = session.begin(put()).await.unwrap();
    // The first run's copy arrives, and has no answer yet.
    fakes[0].answer([Answer::Hang]);
    let other = tokio::spawn({
        let pending = pending.clone();
        async move { pending.run().await }
    });
    while copies(&fakes[0]).is_empty() {
        tokio::task::yield_now().await;
    }
    fakes[0].answer([Answer::GuardsFail]);
    assert!(!pending.run().await.unwrap().guards_held);
    assert_eq!(resolves(&fakes[0]), 1, "the other copy might have met another state");
    // Whoever gives a run up leaves its copy under way.
    other.abort();
    assert!(other.await.is_err());
    fakes[0].answer([refuse(false, "disk_full", "", false)]);
    assert_eq!(Outcome::of(&pending.run().await), Outcome::NotCommitted);
    assert_eq!(resolves(&fakes[0]), 2);
}

#[tokio::test]
async fn a_refusal_is_not_committed_only_when_no_copy_can_come_after_it() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    fakes[0].answer([refuse(false, "key_too_long", "", false)]);
    assert_eq!(Outcome::of(&session.txn(put()).await), Outcome::NotCommitted);
    assert_eq!(resolves(&fakes[0]), 0);
    fakes[0].answer([refuse(true, "timeout", "", false), refuse(false, "disk_full", "", false)]);
    assert_eq!(Outcome::of(&session.txn(put()).await), Outcome::NotCommitted);
    assert_eq!(resolves(&fakes[0]), 1);
    fakes[0].answer([refuse(true, "timeout", "", false), refuse(false, "resolved", "", false)]);
    assert_eq!(Outcome::of(&session.txn(put()).await), Outcome::NotCommitted);
    assert_eq!(resolves(&fakes[0]), 1, "it stands in the log already");
    assert!(session.unanswered().is_empty());
}

#[tokio::test]
async fn at_the_deadline_the_outcome_is_unknown_and_can_be_asked_for_later() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    fakes[0].answer((0..1000).map(|_| refuse(false, "no_leader", "", true)));
    let result = session.txn(put().deadline(Duration::from_millis(300))).await;
    assert_eq!(Outcome::of(&result), Outcome::Unknown, "a copy that was delivered twice may be under way");
    fakes[0].script.lock().unwrap().answers.clear();
    session.txn(put()).await.unwrap();
    let [pending] = session.unanswered().try_into().unwrap();
    assert_eq!((pending.sequence(), copies(&fakes[0]).last()), (1, Some(&(2, 1))), "it holds the lowest back");
    assert_eq!(pending.resolve().await.unwrap(), None);
    session.answered(1);
    session.txn(put()).await.unwrap();
    assert_eq!(copies(&fakes[0]).last(), Some(&(3, 3)));
}

#[tokio::test]
async fn what_was_never_sent_is_not_committed() {
    let mut fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    fakes[0].end();
    // The connection that there was is found to be broken when something is sent on it.
    let broken = session.txn(put().deadline(Duration::from_millis(300))).await;
    assert_eq!(Outcome::of(&broken), Outcome::Unknown);
    let result = session.txn(put().deadline(Duration::from_millis(300))).await;
    assert_eq!(Outcome::of(&result), Outcome::NotCommitted);
}

#[tokio::test]
async fn a_session_that_is_gone_is_unknown_at_once() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    fakes[0].answer([refuse(true, "no_such_session", "", false)]);
    let error = session.txn(put()).await.unwrap_err();
    assert_eq!((error.outcome(), error.failure().attempts), (Outcome::Unknown, 1));
    assert!(session.close().await.unwrap());
}

#[tokio::test]
async fn another_process_goes_on_from_the_state() {
    let fakes = cluster(1);
    let (client, session) = session(&fakes).await;
    session.txn(put()).await.unwrap();
    let pending = session.begin(put()).await.unwrap();
    let text = serde_json::to_string(&session.state()).unwrap();
    // Sent, and the process dies before the answer comes.
    fakes[0].answer([Answer::Hang]);
    assert!(tokio::time::timeout(Duration::from_millis(200), pending.run()).await.is_err());

    let resumed = client.resume(&serde_json::from_str(&text).unwrap()).unwrap();
    let [again] = resumed.unanswered().try_into().unwrap();
    assert_eq!((again.sequence(), again.request()), (2, pending.request()));
    // The copy of the process that died counts as under way.
    fakes[0].answer([Answer::GuardsFail]);
    assert!(!again.run().await.unwrap().guards_held);
    assert_eq!(resolves(&fakes[0]), 1);
    resumed.answered(2);
    resumed.txn(put()).await.unwrap();
    assert_eq!(copies(&fakes[0]), [(1, 1), (2, 2), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn a_state_that_is_not_understood_is_refused() {
    let fakes = cluster(1);
    let (client, session) = session(&fakes).await;
    let _pending = session.begin(put()).await.unwrap();
    let good = serde_json::to_value(session.state()).unwrap();
    assert_eq!(good["unanswered"][0]["sequence"], 1);
    for (field, value) in [("format", 2.into()), ("next_sequence", 1.into()), ("cluster_id", "other".into())] {
        let mut bad: serde_json::Value = good.clone();
        bad[field] = value;
        assert!(client.resume(&serde_json::from_value(bad).unwrap()).is_err(), "{field}");
    }
    let mut bad = good.clone();
    bad["unanswered"][0]["request"] = "0g".into();
    assert!(client.resume(&serde_json::from_value(bad).unwrap()).is_err());
}

#[tokio::test]
async fn a_window_that_is_full_waits_for_answers() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    let mut taken = Vec::new();
    for _ in 0..256 {
        taken.push(session.begin(put()).await.unwrap());
    }
    let error = session.begin(put().deadline(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(error.failure().reason, "session_full");
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.begin(put()).await.unwrap().sequence() }
    });
    session.answered(1);
    assert_eq!(waiting.await.unwrap(), 257);
    assert!(taken[0].run().await.is_err(), "it was said to be answered");
}

#[tokio::test]
async fn what_only_reads_takes_no_part() {
    let fakes = cluster(1);
    let (_, session) = session(&fakes).await;
    session.txn(Txn::new().get("t", "k")).await.unwrap();
    assert_eq!(fakes[0].script.lock().unwrap().txns[0].session, None);
    session.keep_alive().await.unwrap();
    assert_eq!(fakes[0].script.lock().unwrap().txns[1].session.unwrap().sequence, 1);
}
