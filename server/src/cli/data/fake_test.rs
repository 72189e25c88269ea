//! A node over a plain map, in this process, for the tests of the data commands. It can be told how its next transactions end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use calamus_proto::v1::cluster_server::{Cluster, ClusterServer};
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_proto::v1::kv_server::{Kv, KvServer};
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::*;
use calamus_proto::{ERROR_DETAIL_METADATA, MAX_MESSAGE_BYTES};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Refused {
        retryable: bool,
    },
    /// Committed, and the answer says that the outcome is unknown.
    UnknownButDone,
    UnknownAndNotDone,
}

type Map = BTreeMap<(String, Bytes), (Bytes, u64)>;

#[derive(Default)]
pub struct State {
    pub map: Map,
    pub txns: u64,
    pub ends: VecDeque<Option<End>>,
    /// Transactions from this number of calls on are refused for good.
    pub refuse_after: Option<u64>,
    pub sessions: u64,
    /// Answers of the transactions of sessions: these are kept, and no floor is.
    pub answers: BTreeMap<(u64, u64), TxnResponse>,
    /// Sessions up to this one are gone.
    pub expired: u64,
}

#[derive(Clone, Default)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub address: String,
}

impl Fake {
    /// Serves until the test's runtime ends.
    pub async fn start() -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake { address: listener.local_addr().unwrap().to_string(), ..Fake::default() };
        let kv = KvServer::new(fake.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let kv = kv.max_encoding_message_size(MAX_MESSAGE_BYTES);
        let server = tonic::transport::Server::builder().add_service(kv).add_service(ClusterServer::new(fake.clone()));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(server.serve_with_incoming(incoming));
        fake
    }

    fn apply(state: &mut State, txn: TxnRequest) -> TxnResponse {
        let txn_id = state.txns;
        let holds = |guard: &Guard| {
            let found = state.map.get(&(guard.tree.clone(), guard.key.clone()));
            match guard.condition.as_ref().unwrap() {
                guard::Condition::Exists(exists) => found.is_some() == *exists,
                guard::Condition::ValueEquals(value) => found.is_some_and(|(found, _)| found == value),
                guard::Condition::Version(_) => panic!("the scripted node compares no versions: ask a real one"),
            }
        };
        let guards_held = txn.guards.iter().all(holds);
        let operations = if guards_held { txn.operations } else { txn.otherwise };
        let one = |operation: Operation| {
            let kind = match operation.kind.unwrap() {
                Kind::Put(put) => {
                    let previous = state.map.insert((put.tree, put.key), (put.value, txn_id));
                    ResultKind::Put(PutResult { previous_version: previous.map_or(0, |(_, version)| version) })
                }
                Kind::Delete(del) => {
                    let previous = state.map.remove(&(del.tree, del.key));
                    ResultKind::Delete(DeleteResult { previous_version: previous.map_or(0, |(_, version)| version) })
                }
                Kind::Get(get) => {
                    let found = state.map.get(&(get.tree, get.key.clone()));
                    let entry = |(value, version): &(Bytes, u64)| Entry {
                        key: get.key.clone(),
                        value: value.clone(),
                        version: *version,
                    };
                    ResultKind::Get(GetResult { entry: found.map(entry) })
                }
                other => panic!("the scripted node only puts, deletes and gets, not {other:?}: ask a real one"),
            };
            OperationResult { kind: Some(kind) }
        };
        let results = operations.into_iter().map(one).collect();
        let outcome = Outcome::Committed.into();
        TxnResponse { outcome, guards_held, txn_id, results, timeline: 1, results_dropped: false }
    }
}

fn status(unknown: bool, retryable: bool) -> Status {
    let outcome = if unknown { OutcomeClass::Unknown } else { OutcomeClass::NotCommitted }.into();
    let (message, reason) = ("as the test says".to_owned(), "test".to_owned());
    let detail = ErrorDetail { outcome, message, reason, leader: String::new(), retryable };
    let mut status = Status::new(Code::Unavailable, "test");
    status.metadata_mut().insert_bin(ERROR_DETAIL_METADATA, MetadataValue::from_bytes(&detail.encode_to_vec()));
    status
}

fn gone() -> Status {
    let (reason, message) = ("no_such_session".to_owned(), "as the test says".to_owned());
    let outcome = OutcomeClass::Unknown.into();
    let detail = ErrorDetail { outcome, message, reason, leader: String::new(), retryable: false };
    let mut status = Status::new(Code::NotFound, "test");
    status.metadata_mut().insert_bin(ERROR_DETAIL_METADATA, MetadataValue::from_bytes(&detail.encode_to_vec()));
    status
}

#[tonic::async_trait]
impl Kv for Fake {
    type ScanStream = BoxStream<'static, Result<ScanResponse, Status>>;

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.txns += 1;
        if state.refuse_after.is_some_and(|after| state.txns > after) {
            return Err(status(false, false));
        }
        let end = state.ends.pop_front().flatten();
        if matches!(end, None | Some(End::UnknownButDone)) {
            let request = request.into_inner();
            let named = request.session.map(|session| (session.id, session.sequence));
            if named.is_some_and(|(id, _)| id <= state.expired) {
                return Err(gone());
            }
            let kept = named.and_then(|named| state.answers.get(&named).cloned());
            let response = kept.unwrap_or_else(|| Fake::apply(&mut state, request));
            state.answers.extend(named.map(|named| (named, response.clone())));
            return if end.is_none() { Ok(Response::new(response)) } else { Err(status(true, false)) };
        }
        match end {
            Some(End::Refused { retryable }) => Err(status(false, retryable)),
            _ => Err(status(true, false)),
        }
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.sessions += 1;
        Ok(Response::new(OpenSessionResponse { session_id: state.sessions, ttl_ms: request.into_inner().ttl_ms }))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let (mut state, id) = (self.state.lock().unwrap(), request.into_inner().session_id);
        let closed = id > state.expired;
        state.expired = state.expired.max(id);
        Ok(Response::new(CloseSessionResponse { closed }))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let named = request.into_inner().transaction.unwrap();
        let committed = self.state.lock().unwrap().answers.get(&(named.id, named.sequence)).cloned();
        Ok(Response::new(ResolveResponse { committed }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { tree, key, .. } = request.into_inner();
        let state = self.state.lock().unwrap();
        let found = state.map.get(&(tree, key.clone())).cloned();
        let entry = found.map(|(value, version)| Entry { key, value, version });
        Ok(Response::new(GetResponse { entry, read_point: Some(ReadPoint::default()) }))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let request = request.into_inner();
        let prefix = request.range.unwrap_or_default().prefix;
        let state = self.state.lock().unwrap();
        let inside = |((tree, key), _): &(&(String, Bytes), _)| *tree == request.tree && key.starts_with(&prefix);
        let entries: Vec<Entry> = state
            .map
            .iter()
            .filter(inside)
            .map(|((_, key), (value, version))| Entry { key: key.clone(), value: value.clone(), version: *version })
            .collect();
        let chunk = ScanResponse { entries, read_point: Some(ReadPoint::default()) };
        Ok(Response::new(futures::stream::iter([Ok(chunk)]).boxed()))
    }

    async fn list_trees(&self, _: Request<ListTreesRequest>) -> Result<Response<ListTreesResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

#[tonic::async_trait]
impl Cluster for Fake {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let node = NodeStatus {
            name: "n1".into(),
            address: self.address.clone(),
            role: Role::Leader.into(),
            leader: "n1".into(),
            leader_address: self.address.clone(),
            cluster_id: "c1".into(),
            ..NodeStatus::default()
        };
        Ok(Response::new(StatusResponse { node: Some(node.clone()), members: vec![node], ..StatusResponse::default() }))
    }

    async fn add(&self, _: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn promote(&self, _: Request<PromoteRequest>) -> Result<Response<ChangeResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<ChangeResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn replace(&self, _: Request<ReplaceRequest>) -> Result<Response<ChangeResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn transfer(&self, _: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn freeze(&self, _: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn seed_from(&self, _: Request<SeedFromRequest>) -> Result<Response<SeedFromResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}
