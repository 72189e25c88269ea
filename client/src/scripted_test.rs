//! A node whose answers are a script, on a real socket, for the tests of this crate. It runs in a runtime of its own, so that
//! ending it cuts its connections as `kill -9` does.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use calamus_proto::v1::cluster_server::{Cluster, ClusterServer};
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_proto::v1::kv_server::{Kv, KvServer};
use calamus_proto::v1::watch_server::{Watch, WatchServer};
use calamus_proto::v1::*;
use calamus_proto::{ERROR_DETAIL_METADATA, MAX_MESSAGE_BYTES};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

/// What the node does with the next call.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Works.
    Ok,
    /// An error with a detail.
    Refuse { unknown: bool, reason: &'static str, leader: String, retryable: bool },
    /// The process dies after it received the call.
    Die,
    /// No answer ever.
    Hang,
    /// Works, after this time.
    Late(Duration),
    /// The guards do not hold.
    GuardsFail,
    /// An answer without content.
    Empty,
    /// A scan that breaks after so many chunks.
    BreakAfter(usize),
}

pub fn refuse(unknown: bool, reason: &'static str, leader: &str, retryable: bool) -> Answer {
    Answer::Refuse { unknown, reason, leader: leader.to_owned(), retryable }
}

#[derive(Debug, Default)]
pub struct Script {
    pub answers: VecDeque<Answer>,
    pub txns: Vec<TxnRequest>,
    pub resolves: Vec<ResolveRequest>,
    /// What is said to be committed of what is resolved; else nothing is.
    pub resolved: Option<TxnResponse>,
    pub reads: usize,
    /// What the next watches tell before they break.
    pub watches: VecDeque<Vec<WatchResponse>>,
    pub watch_requests: Vec<WatchRequest>,
    pub status: NodeStatus,
    pub members: Vec<NodeStatus>,
}

/// The node.
pub struct Fake {
    pub address: String,
    pub script: Arc<Mutex<Script>>,
    kill: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (kill, killed) = channel();
        let script = Arc::new(Mutex::new(Script::default()));
        let service = Service { script: script.clone(), kill: kill.clone() };
        let thread = Some(std::thread::spawn(move || serve(listener, service, &killed)));
        Fake { address: address.to_string(), script, kill, thread }
    }

    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers.extend(answers);
    }

    pub fn txns(&self) -> usize {
        self.script.lock().unwrap().txns.len()
    }

    pub fn reads(&self) -> usize {
        self.script.lock().unwrap().reads
    }

    pub fn end(&mut self) {
        let _ = self.kill.send(());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

/// So many nodes of one cluster; the first leads in term 1.
pub fn cluster(count: usize) -> Vec<Fake> {
    let fakes: Vec<Fake> = (0..count).map(|_| Fake::start()).collect();
    lead(&fakes, 0, 1, "cluster-1");
    fakes
}

/// All nodes say from now on that this one leads.
pub fn lead(fakes: &[Fake], leader: usize, term: u64, cluster_id: &str) {
    let status = |(n, fake): (usize, &Fake)| NodeStatus {
        name: format!("n{}", n + 1),
        address: fake.address.clone(),
        role: if n == leader { Role::Leader.into() } else { Role::Follower.into() },
        term,
        leader: format!("n{}", leader + 1),
        leader_address: fakes[leader].address.clone(),
        cluster_id: cluster_id.to_owned(),
        voter: true,
        ..NodeStatus::default()
    };
    let members: Vec<NodeStatus> = fakes.iter().enumerate().map(status).collect();
    for (fake, own) in fakes.iter().zip(&members) {
        let mut script = fake.script.lock().unwrap();
        script.status = own.clone();
        script.members = members.clone();
    }
}

fn serve(listener: TcpListener, service: Service, killed: &Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let kv = KvServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let watch = WatchServer::new(service.clone());
        let cluster = ClusterServer::new(service);
        tonic::transport::Server::builder()
            .add_service(kv)
            .add_service(watch)
            .add_service(cluster)
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    let _ = killed.recv();
    // Waits until the listener is gone: who connects behind the end must be refused.
    runtime.shutdown_timeout(Duration::from_secs(10));
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    kill: Sender<()>,
}

impl Service {
    async fn next(&self) -> Result<Answer, Status> {
        let answer = self.script.lock().unwrap().answers.pop_front().unwrap_or(Answer::Ok);
        match answer {
            Answer::Die => {
                self.kill.send(()).unwrap();
                std::future::pending().await
            }
            Answer::Hang => std::future::pending().await,
            Answer::Late(time) => {
                tokio::time::sleep(time).await;
                Ok(Answer::Ok)
            }
            Answer::Refuse { unknown, reason, leader, retryable } => {
                let outcome = if unknown { OutcomeClass::Unknown } else { OutcomeClass::NotCommitted }.into();
                let (reason, message) = (reason.to_owned(), format!("scripted: {reason}"));
                let detail = ErrorDetail { outcome, message, reason, leader, retryable };
                let mut status = Status::new(Code::FailedPrecondition, "scripted");
                let value = MetadataValue::from_bytes(&detail.encode_to_vec());
                status.metadata_mut().insert_bin(ERROR_DETAIL_METADATA, value);
                Err(status)
            }
            other => Ok(other),
        }
    }

    fn read_point(&self) -> Option<ReadPoint> {
        let mut script = self.script.lock().unwrap();
        script.reads += 1;
        Some(ReadPoint { txn_id: 7, age_micros: 0, node: script.status.name.clone(), timeline: 1 })
    }
}

#[tonic::async_trait]
impl Kv for Service {
    type ScanStream = BoxStream<'static, Result<ScanResponse, Status>>;

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let txn_id = {
            let mut script = self.script.lock().unwrap();
            script.txns.push(request.into_inner());
            script.txns.len() as u64
        };
        let outcome = Outcome::Committed.into();
        let done = TxnResponse { outcome, guards_held: true, txn_id, timeline: 1, ..TxnResponse::default() };
        Ok(Response::new(match self.next().await? {
            Answer::GuardsFail => TxnResponse { guards_held: false, txn_id: 0, ..done },
            Answer::Empty => TxnResponse::default(),
            _ => done,
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let read_point = self.read_point();
        self.next().await?;
        let entry = Entry { key: request.into_inner().key, value: "v".into(), version: 3 };
        Ok(Response::new(GetResponse { entry: Some(entry), read_point }))
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.next().await?;
        Ok(Response::new(OpenSessionResponse { session_id: 7, ttl_ms: request.into_inner().ttl_ms }))
    }

    async fn close_session(&self, _: Request<CloseSessionRequest>) -> Result<Response<CloseSessionResponse>, Status> {
        self.next().await?;
        Ok(Response::new(CloseSessionResponse { closed: true }))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let committed = {
            let mut script = self.script.lock().unwrap();
            script.resolves.push(request.into_inner());
            script.resolved.clone()
        };
        self.next().await?;
        Ok(Response::new(ResolveResponse { committed }))
    }

    /// Three chunks of two entries each.
    async fn scan(&self, _: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let read_point = self.read_point();
        let whole = match self.next().await? {
            Answer::BreakAfter(chunks) => chunks,
            _ => 3,
        };
        let chunk = move |n: usize| {
            if n == whole {
                return Err(Status::unavailable("scripted break"));
            }
            let entry = |k: usize| Entry { key: format!("k{k}").into(), value: "v".into(), version: 1 };
            let read_point = read_point.clone().filter(|_| n == 0);
            Ok(ScanResponse { entries: vec![entry(2 * n), entry(2 * n + 1)], read_point })
        };
        Ok(Response::new(futures::stream::iter((0..3).map(chunk)).boxed()))
    }

    async fn list_trees(&self, _: Request<ListTreesRequest>) -> Result<Response<ListTreesResponse>, Status> {
        self.next().await?;
        Ok(Response::new(ListTreesResponse { trees: Vec::new(), read_point: self.read_point() }))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let script = self.script.lock().unwrap();
        let members = if request.into_inner().all_nodes { script.members.clone() } else { Vec::new() };
        Ok(Response::new(StatusResponse { node: Some(script.status.clone()), members, ..StatusResponse::default() }))
    }

    async fn add(&self, _: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        self.next().await?;
        Ok(Response::new(AddResponse { cluster_id: "cluster-1".into(), ..AddResponse::default() }))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        self.next().await?;
        Ok(Response::new(RemoveResponse::default()))
    }

    async fn promote(&self, _: Request<PromoteRequest>) -> Result<Response<ChangeResponse>, Status> {
        self.next().await?;
        Ok(Response::new(ChangeResponse::default()))
    }

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<ChangeResponse>, Status> {
        self.next().await?;
        Ok(Response::new(ChangeResponse::default()))
    }

    async fn replace(&self, _: Request<ReplaceRequest>) -> Result<Response<ChangeResponse>, Status> {
        self.next().await?;
        Ok(Response::new(ChangeResponse::default()))
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        self.next().await?;
        Ok(Response::new(TransferResponse { leader: request.into_inner().to }))
    }

    async fn freeze(&self, _: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        self.next().await?;
        Ok(Response::new(FreezeResponse { last_log: Some(Position { term: 1, index: 9 }) }))
    }

    async fn seed_from(&self, _: Request<SeedFromRequest>) -> Result<Response<SeedFromResponse>, Status> {
        self.next().await?;
        Ok(Response::new(SeedFromResponse {}))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut script = self.script.lock().unwrap();
        script.watch_requests.push(request.into_inner());
        match script.watches.pop_front() {
            Some(messages) => Ok(Response::new(futures::stream::iter(messages.into_iter().map(Ok)).boxed())),
            None => Err(Status::unavailable("scripted: nothing more")),
        }
    }
}
