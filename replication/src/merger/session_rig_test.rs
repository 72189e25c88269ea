//! What the tests of sessions share: a merger over a scripted consensus, with a session.

use std::sync::Arc;
use std::time::Duration;

use calamus_engine::ids::Term;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::session_result::Kind as SessionResultKind;
use calamus_proto::v1::{
    CloseSessionRequest, OpenSessionRequest, ResolveRequest, ResolveResponse, SessionOperation, TxnRequest,
    TxnResponse, TxnSession,
};
use tokio::task::JoinHandle;

use super::test_consensus::TestConsensus;
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, TxnError};
use crate::sessions::layout::{SessionId, TREE};
use crate::test_requests::{add, exists, get, op, put, txn, value_at};

/// A merger, and a session of it.
pub(super) struct Rig {
    pub(super) consensus: Arc<TestConsensus>,
    pub(super) merger: Arc<Merger>,
    pub(super) session: u64,
}

pub(super) fn options() -> MergerOptions {
    MergerOptions { default_timeout: Duration::from_secs(60), ..MergerOptions::default() }
}

pub(super) fn operation(kind: SessionKind) -> TxnRequest {
    txn(vec![op(Kind::Session(SessionOperation { kind: Some(kind) }))])
}

pub(super) fn result(answer: Answer) -> Result<SessionResultKind, TxnError> {
    match answer?.results.remove(0).kind {
        Some(ResultKind::Session(result)) => Ok(result.kind.expect("a kind")),
        other => panic!("not of a session: {other:?}"),
    }
}

/// What an add at the first place has come to.
pub(super) fn added(response: &TxnResponse) -> i64 {
    match &response.results[0].kind {
        Some(ResultKind::Add(add)) => add.value,
        other => panic!("not an add: {other:?}"),
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(options()).await
    }

    pub(super) async fn with(options: MergerOptions) -> Self {
        let consensus = TestConsensus::new();
        let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options));
        let mut rig = Self { consensus, merger, session: 0 };
        rig.run(txn(vec![put("t", "warm", "1")])).await.unwrap();
        rig.session = rig.open(0).await.unwrap();
        rig
    }

    pub(super) async fn run(&self, request: TxnRequest) -> Answer {
        self.consensus.pump(self.merger.submit(request, None)).await
    }

    /// What needs no entry, or gets no outcome.
    pub(super) async fn run_without_applying(&self, request: TxnRequest) -> Answer {
        crate::test_requests::within(self.merger.submit(request, None)).await
    }

    /// Without anything being applied.
    pub(super) fn client(&self, request: TxnRequest, term: Option<Term>) -> JoinHandle<Answer> {
        let merger = self.merger.clone();
        tokio::spawn(async move { merger.submit(request, term).await })
    }

    pub(super) async fn system(&self, kind: SessionKind) -> Result<SessionResultKind, TxnError> {
        result(self.consensus.pump(self.merger.submit_system(operation(kind), None)).await)
    }

    pub(super) async fn open(&self, ttl_ms: u64) -> Result<u64, TxnError> {
        match self.system(SessionKind::Open(OpenSessionRequest { ttl_ms })).await? {
            SessionResultKind::Open(opened) => Ok(opened.session_id),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn close(&self, session_id: u64) -> bool {
        match self.system(SessionKind::Close(CloseSessionRequest { session_id })).await.unwrap() {
            SessionResultKind::Close(closed) => closed.closed,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn resolve(&self, sequence: u64) -> Result<Option<TxnResponse>, TxnError> {
        let transaction = Some(TxnSession { id: self.session, sequence, lowest_unanswered: 1 });
        match self.system(SessionKind::Resolve(ResolveRequest { transaction })).await? {
            SessionResultKind::Resolve(ResolveResponse { committed }) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn of(&self, sequence: u64, lowest_unanswered: u64, request: TxnRequest) -> TxnRequest {
        TxnRequest { session: Some(TxnSession { id: self.session, sequence, lowest_unanswered }), ..request }
    }

    /// Adds 1 to a counter, as this sequence.
    pub(super) fn count(&self, sequence: u64) -> TxnRequest {
        self.of(sequence, 1, txn(vec![add("t", "n", 1)]))
    }

    /// Writes `k`, if `gate` is there.
    pub(super) fn gated(&self, sequence: u64) -> TxnRequest {
        self.of(sequence, 1, TxnRequest { guards: vec![exists("t", "gate", true)], ..txn(vec![put("t", "k", "1")]) })
    }

    pub(super) async fn counted(&self) -> i64 {
        added(&self.run(txn(vec![add("t", "n", 0)])).await.unwrap())
    }

    pub(super) async fn value(&self, key: &str) -> Option<String> {
        value_at(&self.run(txn(vec![get("t", key)])).await.unwrap(), 0)
    }

    /// Another node leads, writes, and this one leads again, in a later term.
    pub(super) fn other_leader(&self, writes: impl FnOnce(&mut calamus_engine::Batch)) -> Term {
        self.consensus.depose(0, false, writes);
        self.consensus.lead()
    }

    /// The sequences of which an outcome is stored.
    pub(super) fn stored(&self) -> Vec<u64> {
        let read = self.consensus.engine.read();
        let mut cursor = read.cursor(TREE).unwrap().unwrap();
        let (id, mut found) = (SessionId(self.session), Vec::new());
        let mut there = cursor.seek(&id.outcome_key(0)).unwrap();
        while there {
            found.extend(id.sequence_of(cursor.key()));
            there = cursor.next().unwrap();
        }
        found
    }
}

pub(super) fn is(error: &TxnError, outcome: Outcome, reason: &str) {
    assert_eq!((error.outcome, error.reason), (outcome, reason), "{error}");
}
