//! The client against scripted nodes: leader changes, refusals, connections that end after the call was received.

use std::time::Duration;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::Consistency;
use futures::StreamExt;

use crate::scripted_test::{Answer, Fake, cluster, lead, refuse};
use crate::*;

/// An attempt takes as long as a loaded machine needs: tests that count attempts must not time one out.
fn options() -> Options {
    let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(20) };
    Options {
        deadline: Duration::from_secs(10),
        attempt_timeout: Duration::from_secs(3),
        backoff,
        ..Options::default()
    }
}

/// For tests in which a node hangs.
fn impatient() -> Options {
    Options { attempt_timeout: Duration::from_millis(300), ..options() }
}

async fn connect(fakes: &[Fake], options: Options) -> Client {
    Client::connect(fakes.iter().map(|fake| fake.address.clone()), options).await.unwrap()
}

fn put() -> Txn {
    Txn::new().put("t", "k", "v")
}

#[tokio::test]
async fn the_leader_is_found_from_any_one_address() {
    let fakes = cluster(3);
    for seed in &fakes {
        let client = Client::connect([seed.address.clone()], options()).await.unwrap();
        let before = fakes[0].txns();
        assert_eq!(client.txn(put()).await.unwrap().attempts, 1);
        assert_eq!(fakes[0].txns(), before + 1);
        let topology = client.topology();
        assert_eq!((topology.nodes.len(), topology.leader.as_ref()), (3, Some(&fakes[0].address)));
    }
    assert_eq!((fakes[1].txns(), fakes[2].txns()), (0, 0));
}

#[tokio::test]
async fn a_change_of_leader_is_followed_by_its_hint_and_remembered() {
    let fakes = cluster(3);
    let client = connect(&fakes, options()).await;
    lead(&fakes, 2, 2, "cluster-1");
    fakes[0].answer([refuse(false, "not_leader", &fakes[2].address, true)]);
    let done = client.txn(put()).await.unwrap();
    assert_eq!((done.attempts, done.unknown_attempts), (2, 0));
    assert_eq!(client.txn(put()).await.unwrap().attempts, 1);
    assert_eq!((fakes[0].txns(), fakes[2].txns()), (1, 2));
}

#[tokio::test]
async fn a_leader_that_does_not_answer_those_who_forward_is_not_gone_back_to() {
    let fakes = cluster(3);
    let client = connect(&fakes, Options { attempt_timeout: Duration::from_millis(200), ..options() }).await;
    lead(&fakes, 0, 1, "cluster-1");
    // It stands still, and the others name it all the same: nobody else leads yet.
    fakes[0].answer([Answer::Hang]);
    for follower in &fakes[1..] {
        follower.answer([refuse(true, "timeout", &fakes[0].address, false)]);
    }
    let done = client.txn(put().idempotent()).await.unwrap();
    assert_eq!((done.attempts, done.unknown_attempts), (4, 3));
    assert_eq!((fakes[0].txns(), fakes[1].txns() + fakes[2].txns()), (1, 3));
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again_until_the_leader_is_there() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    fakes[0].answer(vec![refuse(false, "no_leader", "", true); 5]);
    assert_eq!(client.txn(put()).await.unwrap().attempts, 6);
}

#[tokio::test]
async fn a_refusal_for_good_is_not_committed_and_not_repeated() {
    let fakes = cluster(2);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([refuse(false, "value_too_large", "", false)]);
    let error = client.txn(put()).await.unwrap_err();
    assert!(matches!(&error, TxnError::NotCommitted(f) if f.reason == "value_too_large" && f.attempts == 1), "{error}");
    assert_eq!(fakes[0].txns() + fakes[1].txns(), 1);
}

#[tokio::test]
async fn refusals_to_the_end_of_the_deadline_are_not_committed() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    fakes[0].answer(vec![refuse(false, "no_leader", "", true); 100_000]);
    let error = client.txn(put().deadline(Duration::from_millis(800))).await.unwrap_err();
    assert!(matches!(&error, TxnError::NotCommitted(f) if f.attempts > 2), "{error}");
}

#[tokio::test]
async fn a_connection_that_ends_after_receipt_is_unknown_and_never_sent_again_by_itself() {
    let fakes = cluster(3);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([Answer::Die]);
    let error = client.txn(put()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!((fakes[0].txns(), fakes[1].txns(), fakes[2].txns()), (1, 0, 0));
}

#[tokio::test]
async fn an_unknown_outcome_by_the_nodes_word_is_unknown() {
    let fakes = cluster(2);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([refuse(true, "timeout", "", true)]);
    let error = client.txn(put()).await.unwrap_err();
    assert!(matches!(&error, TxnError::Unknown(f) if f.reason == "timeout"), "{error}");
    assert_eq!(fakes[0].txns() + fakes[1].txns(), 1);
}

#[tokio::test]
async fn an_idempotent_transaction_is_sent_again_elsewhere_and_the_unknown_attempt_is_counted() {
    let fakes = cluster(3);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([Answer::Die]);
    let done = client.txn(put().idempotent()).await.unwrap();
    assert_eq!(done.unknown_attempts, 1);
    assert_eq!((fakes[0].txns(), fakes[1].txns() + fakes[2].txns()), (1, 1));
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_leaves_the_outcome_unknown() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([refuse(true, "timeout", "", true), refuse(false, "no_such_tree", "", false)]);
    let error = client.txn(put().idempotent()).await.unwrap_err();
    assert!(matches!(&error, TxnError::Unknown(f) if f.reason == "no_such_tree"), "{error}");
    assert_eq!(fakes[0].txns(), 2);
}

#[tokio::test]
async fn silence_to_the_end_of_the_deadline_is_unknown() {
    let fakes = cluster(2);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([Answer::Hang]);
    let deadline = Duration::from_secs(2);
    let error = client.txn(put().deadline(deadline)).await.unwrap_err();
    assert!(matches!(&error, TxnError::Unknown(f) if f.reason == "timeout"), "{error}");
    assert_eq!(fakes[1].txns(), 0);
    let told = Duration::from_millis(fakes[0].script.lock().unwrap().txns[0].timeout_ms.into());
    let early = deadline.saturating_sub(told);
    assert!(
        early >= Duration::from_millis(100) && told > deadline / 2,
        "told to answer before the client gives up: {told:?}"
    );
}

#[tokio::test]
async fn work_that_takes_longer_than_an_attempt_is_done_within_the_deadline() {
    let fakes = cluster(1);
    let client = connect(&fakes, Options { attempt_timeout: Duration::from_millis(100), ..options() }).await;
    // Every attempt takes that long, however often it is begun again.
    fakes[0].answer(vec![Answer::Late(Duration::from_millis(350)); 1000]);
    let done = client.txn(put().idempotent()).await.unwrap();
    assert!(done.attempts > 1 && done.unknown_attempts == done.attempts - 1, "{done:?}");
    // What is not repeated has all of the deadline for its one attempt.
    assert_eq!(client.txn(put()).await.unwrap().attempts, 1);
}

#[tokio::test]
async fn guards_that_fail_after_an_unknown_attempt_leave_the_outcome_unknown() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    let guarded = || Txn::new().guard_missing("t", "k").put("t", "k", "v").idempotent();
    fakes[0].answer([Answer::GuardsFail]);
    assert!(!client.txn(guarded()).await.unwrap().guards_held);
    fakes[0].answer([refuse(true, "timeout", "", true), Answer::GuardsFail]);
    let error = client.txn(guarded()).await.unwrap_err();
    assert!(matches!(&error, TxnError::Unknown(f) if f.reason == "guards_after_unknown" && f.attempts == 2), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_say_committed_is_unknown() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([Answer::Empty]);
    assert!(matches!(client.txn(put()).await.unwrap_err(), TxnError::Unknown(f) if f.reason == "bad_answer"));
}

#[tokio::test]
async fn a_leader_that_cannot_be_connected_to_was_sent_nothing() {
    let mut fakes = cluster(3);
    let seeds: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    // The others still name it.
    fakes[0].end();
    let client = Client::connect(seeds, options()).await.unwrap();
    let done = client.txn(put()).await.unwrap();
    assert!(done.attempts >= 2 && done.unknown_attempts == 0, "{done:?}");
    assert_eq!(fakes[1].txns() + fakes[2].txns(), 1);
}

#[tokio::test]
async fn reads_leave_a_node_that_hangs_and_one_that_died() {
    let mut fakes = cluster(3);
    let client = connect(&fakes, impatient()).await;
    fakes[0].answer([Answer::Hang]);
    assert_eq!(client.get("t", "k").await.unwrap().unwrap().value, "v");
    assert_eq!(fakes[1].reads() + fakes[2].reads(), 1);
    fakes[0].end();
    assert_eq!(client.get("t", "k").await.unwrap().unwrap().version, 3);
}

#[tokio::test]
async fn reads_go_where_the_caller_said() {
    let fakes = cluster(3);
    let seeds = [fakes[2].address.clone()];
    let client = Client::connect(seeds, Options { read_from: ReadFrom::Endpoints, ..options() }).await.unwrap();
    let got = client.get_with("t", "k", Consistency::Local).await.unwrap();
    assert_eq!(got.read_point.unwrap().node, "n3");
    let client = connect(&fakes, Options { read_from: ReadFrom::Spread, ..options() }).await;
    let before: Vec<usize> = fakes.iter().map(Fake::reads).collect();
    for _ in 0..30 {
        client.get("t", "k").await.unwrap();
    }
    let after: Vec<usize> = fakes.iter().map(Fake::reads).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| after - before == 10), "{before:?} {after:?}");
}

#[tokio::test]
async fn a_read_refused_for_good_says_why_at_once() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([refuse(false, "no_such_tree", "", false)]);
    assert_eq!(client.get("t", "k").await.unwrap_err().0.reason, "no_such_tree");
    assert_eq!(fakes[0].reads(), 1);
}

#[tokio::test]
async fn a_scan_is_whole_or_an_error() {
    let fakes = cluster(2);
    let client = connect(&fakes, options()).await;
    let scan = client.scan("t", ScanOptions::default()).await.unwrap();
    assert_eq!(scan.read_point().txn_id, 7);
    let keys: Vec<String> = scan.map(|e| String::from_utf8(e.unwrap().key.to_vec()).unwrap()).collect().await;
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4", "k5"]);
    // Broken before the first chunk: another attempt. Broken after it: an error, and what came before it.
    fakes[0].answer([Answer::BreakAfter(0)]);
    let whole: Vec<_> = client.scan("t", ScanOptions::default()).await.unwrap().collect().await;
    assert!(whole.len() == 6 && whole.iter().all(Result::is_ok));
    for fake in &fakes {
        fake.answer([Answer::BreakAfter(1)]);
    }
    let broken: Vec<_> = client.scan("t", ScanOptions::default()).await.unwrap().collect().await;
    assert_eq!(broken.iter().filter(|e| e.is_ok()).count(), 2);
    assert!(broken.last().unwrap().as_ref().unwrap_err().to_string().contains("broke off"), "{broken:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_each_address() {
    let mut fakes = cluster(2);
    let seeds: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    fakes.iter_mut().for_each(Fake::end);
    let options = Options { deadline: Duration::from_millis(100), ..options() };
    let error = Client::connect(seeds.clone(), options).await.unwrap_err().to_string();
    assert!(seeds.iter().all(|seed| error.contains(seed.as_str())), "{error}");
    let none: [String; 0] = [];
    assert!(matches!(Client::connect(none, Options::default()).await, Err(ConnectError::NoEndpoints)));
}

#[tokio::test]
async fn the_topology_file_finds_the_cluster_when_the_given_addresses_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.json");
    let kept = Options { topology_file: Some(file.clone()), ..options() };
    let mut fakes = cluster(3);
    let first = fakes[0].address.clone();
    let client = Client::connect([first.clone()], kept.clone()).await.unwrap();
    assert_eq!(Topology::load(&file).unwrap().unwrap(), client.topology());
    lead(&fakes, 1, 2, "cluster-1");
    fakes[0].end();
    let client = Client::connect([first], kept.clone()).await.unwrap();
    client.txn(put()).await.unwrap();
    assert_eq!(fakes[1].txns(), 1);
    // A damaged file is no reason to fail while an address works, and one that names it if there is none.
    std::fs::write(&file, "{").unwrap();
    let none: [String; 0] = [];
    assert!(matches!(Client::connect(none, kept.clone()).await, Err(ConnectError::Topology(_))));
    Client::connect([fakes[1].address.clone()], kept).await.unwrap().txn(put()).await.unwrap();
}

#[tokio::test]
async fn a_file_of_another_cluster_leaves_the_node_that_answered_to_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.json");
    let fakes = cluster(1);
    let node = KnownNode { name: "n1".into(), address: fakes[0].address.clone(), voter: true };
    Topology::new("an older one".into(), vec![node], None).save(&file).unwrap();
    // It lists no members, and names no leader.
    {
        let mut script = fakes[0].script.lock().unwrap();
        script.members.clear();
        script.status.leader_address.clear();
    }
    let none: [String; 0] = [];
    let client = Client::connect(none, Options { topology_file: Some(file), ..options() }).await.unwrap();
    client.txn(put()).await.unwrap();
    assert_eq!(client.topology().cluster_id, "cluster-1");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_left_aside() {
    let fakes = cluster(1);
    let stranger = Fake::start();
    lead(std::slice::from_ref(&stranger), 0, 99, "cluster-2");
    let seeds = [fakes[0].address.clone(), stranger.address.clone()];
    // Whichever answers first says which cluster this is; every transaction then goes to that one.
    let client = Client::connect(seeds, options()).await.unwrap();
    let ours = client.topology().cluster_id;
    for _ in 0..5 {
        client.txn(put()).await.unwrap();
    }
    let (own, other) = (fakes[0].txns(), stranger.txns());
    assert_eq!((own, other), if ours == "cluster-1" { (5, 0) } else { (0, 5) });
}

#[tokio::test]
async fn a_transaction_too_large_for_a_message_is_refused_before_it_is_sent() {
    let fakes = cluster(1);
    let client = connect(&fakes, options()).await;
    let error = client.put("t", "k", vec![0; MAX_MESSAGE_BYTES]).await.unwrap_err();
    assert!(matches!(&error, TxnError::NotCommitted(f) if f.reason == "txn_too_large"), "{error}");
    assert_eq!(fakes[0].txns(), 0);
    client.put("t", "k", vec![0; 8 << 20]).await.unwrap();
}

#[tokio::test]
async fn changes_to_the_cluster_go_to_the_leader_and_end_like_transactions() {
    let fakes = cluster(2);
    let client = connect(&fakes, options()).await;
    let status = client.cluster().status(true).await.unwrap();
    assert_eq!(status.members.len(), 2);
    assert_eq!(client.cluster().status_of(&fakes[1].address).await.unwrap().node.unwrap().name, "n2");
    fakes[0].answer([refuse(true, "timeout", "", true)]);
    client.cluster().add(proto::AddRequest::default()).await.unwrap();
    fakes[0].answer([refuse(true, "timeout", "", true)]);
    let error = client.cluster().remove("n2", "").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(client.cluster().transfer("n2").await.unwrap(), "n2");
    assert_eq!(client.cluster().freeze(&fakes[1].address, true).await.unwrap().last_log.unwrap().index, 9);
}

#[tokio::test]
async fn many_callers_that_lose_the_leader_at_once_all_arrive() {
    let fakes = cluster(3);
    let client = connect(&fakes, options()).await;
    fakes[0].answer([Answer::Die]);
    lead(&fakes, 1, 2, "cluster-1");
    let calls = (0..64).map(|_| client.txn(put().idempotent()));
    // The calls that were under way to the first when it died are among those that were counted there.
    let mut unknown = 0;
    for done in futures::future::join_all(calls).await {
        unknown += done.unwrap().unknown_attempts as usize;
    }
    let received: usize = fakes.iter().map(Fake::txns).sum();
    assert!((64..=64 + unknown).contains(&received), "{received} received, {unknown} unknown");
    assert!(fakes[1].txns() + fakes[2].txns() >= 1);
}
