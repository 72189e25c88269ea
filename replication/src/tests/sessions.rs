//! Exactly once on real engines: between a lost answer and its retry every node ends, without what it had not synced.

use calamus_proto::v1::{
    CloseSessionRequest, Consistency, OpenSessionRequest, ResolveRequest, TxnRequest, TxnResponse, TxnSession,
};

use super::cluster::{TestCluster, TestNode, retry};
use crate::error::{Outcome, TxnError, reason};
use crate::sessions::layout::TREE as SESSIONS;
use crate::test_requests::{add, get, txn};

/// As this sequence: adds 1, and reads what it came to.
fn count(session: u64, sequence: u64) -> TxnRequest {
    let session = Some(TxnSession { id: session, sequence, lowest_unanswered: 1 });
    TxnRequest { session, ..txn(vec![add("t", "n", 1)]) }
}

fn open(node: &TestNode) -> u64 {
    let open = || node.on(node.node().open_session(OpenSessionRequest::default())).ok();
    retry("a session is opened", open).session_id
}

/// Until there is an answer: an election may be running.
fn ask(node: &TestNode, request: &TxnRequest) -> TxnResponse {
    retry("an answer", || node.on(node.node().txn(request.clone())).ok())
}

/// How often it was counted.
fn counted(node: &TestNode) -> i64 {
    let answer = ask(node, &txn(vec![get("t", "n")]));
    match answer.results[0].kind.as_ref().expect("a kind") {
        calamus_proto::v1::operation_result::Kind::Get(get) => {
            get.entry.as_ref().map_or(0, |entry| i64::from_le_bytes(entry.value[..].try_into().expect("8 bytes")))
        }
        other => panic!("not a get: {other:?}"),
    }
}

fn restart_all(cluster: &mut TestCluster) {
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.restart();
    }
}

#[test]
fn all_nodes_end_between_an_answer_and_its_retry_at_any_node() {
    let mut cluster = TestCluster::start(3);
    let session = open(cluster.leader());
    let mut first = Vec::new();
    for sequence in 1..=3 {
        first.push(ask(&cluster.nodes[sequence % 3], &count(session, sequence as u64)));
    }
    restart_all(&mut cluster);
    for (sequence, first) in (1..).zip(&first) {
        for node in &cluster.nodes {
            assert_eq!(ask(node, &count(session, sequence)), *first, "by way of {}", node.identity.name);
        }
    }
    assert_eq!(counted(cluster.leader()), 3);
    let next = open(&cluster.nodes[1]);
    assert_eq!(next, session + 1, "the counter comes from disk, too");
    cluster.close();
}

#[test]
fn what_was_resolved_stays_so_when_all_nodes_have_ended() {
    let mut cluster = TestCluster::start(3);
    let session = open(cluster.leader());
    let resolve = |node: &TestNode, sequence| {
        let transaction = Some(TxnSession { id: session, sequence, lowest_unanswered: 1 });
        let resolve = || node.on(node.node().resolve(ResolveRequest { transaction })).ok();
        retry("a resolve is answered", resolve).committed
    };
    let ran = ask(cluster.leader(), &count(session, 1));
    assert_eq!(resolve(&cluster.nodes[1], 1), Some(ran.clone()));
    assert_eq!(resolve(&cluster.nodes[2], 2), None);
    restart_all(&mut cluster);
    // The copy that a node had held arrives.
    let late = |node: &TestNode| -> Option<TxnError> {
        let error = node.on(node.node().txn(count(session, 2))).expect_err("it never runs");
        (!error.retryable).then_some(error)
    };
    for node in &cluster.nodes {
        let error = retry("a refusal for good", || late(node));
        assert_eq!((error.outcome, error.reason), (Outcome::NotCommitted, reason::RESOLVED));
        assert_eq!((resolve(node, 1), resolve(node, 2)), (Some(ran.clone()), None));
    }
    assert_eq!(counted(cluster.leader()), 1);
    cluster.close();
}

#[test]
fn a_closed_session_is_gone_on_every_node_with_all_it_had_stored() {
    let cluster = TestCluster::start(3);
    let (kept, closed) = (open(cluster.leader()), open(cluster.leader()));
    for session in [kept, closed] {
        ask(cluster.leader(), &count(session, 1));
    }
    let node = &cluster.nodes[1];
    let answer = node.on(node.node().close_session(CloseSessionRequest { session_id: closed })).expect("closed");
    assert!(answer.closed);
    for node in &cluster.nodes {
        let error = node.on(node.node().txn(count(closed, 1))).expect_err("there is no such session");
        assert_eq!((error.outcome, error.reason), (Outcome::Unknown, reason::NO_SUCH_SESSION));
        let (read, _) = node.on(node.node().read(Consistency::Linearizable)).expect("a read");
        let entries = read.tree(SESSIONS).expect("readable").expect("there are sessions").entries;
        assert_eq!(entries, 3, "the counter, a session and its outcome");
    }
    assert_eq!(counted(cluster.leader()), 2);
    cluster.close();
}

#[test]
fn a_new_leader_answers_what_the_old_one_has_committed() {
    let mut cluster = TestCluster::start(3);
    let session = open(cluster.leader());
    let mut expected = 0;
    for _ in 0..3 {
        expected += 1;
        let request = count(session, expected);
        let first = ask(cluster.leader(), &request);
        let old = cluster.leader_index();
        cluster.nodes[old].kill();
        let new = cluster.led_by(|leader| leader != old);
        assert_eq!(ask(&cluster.nodes[new], &request), first);
        cluster.nodes[old].restart();
        retry("the old leader has caught up", || {
            let applied = |node: &TestNode| node.engine().applied().txn_id;
            (applied(&cluster.nodes[old]) >= applied(&cluster.nodes[new])).then_some(())
        });
    }
    assert_eq!(counted(cluster.leader()), i64::try_from(expected).expect("small"));
    cluster.close();
}
