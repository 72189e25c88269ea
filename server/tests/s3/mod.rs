//! An S3-compatible service of the test's own: a real server over HTTP on loopback, which keeps its objects in a temporary
//! folder, behind a proxy that lets some of the requests go wrong.
//!
//! A request goes wrong in one of the ways of [`Wrong`]: before it has done anything, or after it has and only the answer is
//! lost. Which ones do is drawn from a seed, so that a failure can be had again.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::AmazonS3Builder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};

/// The bucket that there is.
pub const BUCKET: &str = "cold";
/// Who may use it.
pub const KEY: &str = "AKTEST";
/// The secret of [`KEY`].
pub const SECRET: &str = "a-secret-of-tests";

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is refused with 500, and has done nothing.
    Refused,
    /// It is done, and the answer is 500.
    AnsweredWithError,
    /// The connection is cut before it is done.
    CutBefore,
    /// It is done, and the connection is cut before the answer.
    CutAfter,
    /// It is done, and the connection is cut in the middle of the answer.
    CutWithin,
}

const WAYS: [Wrong; 5] =
    [Wrong::Refused, Wrong::AnsweredWithError, Wrong::CutBefore, Wrong::CutAfter, Wrong::CutWithin];

/// What goes wrong, in percent of the requests, and what went wrong so far.
struct Proxy {
    service: S3Service,
    percent: AtomicU64,
    chance: parking_lot::Mutex<StdRng>,
    requests: AtomicU64,
    wrong: parking_lot::Mutex<Vec<Wrong>>,
}

/// The server; ends when it is dropped.
pub struct S3Server {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    proxy: Arc<Proxy>,
    _objects: tempfile::TempDir,
}

impl S3Server {
    /// Starts one, on a free port, in which nothing goes wrong yet.
    pub fn start(seed: u64) -> S3Server {
        let objects = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(objects.path().join(BUCKET)).expect("a bucket is a folder");
        let service = {
            let mut builder =
                S3ServiceBuilder::new(s3s_fs::FileSystem::new(objects.path()).expect("the folder is there"));
            builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
            builder.build()
        };
        let chance = parking_lot::Mutex::new(StdRng::seed_from_u64(seed));
        let (percent, requests, wrong) = (AtomicU64::new(0), AtomicU64::new(0), parking_lot::Mutex::default());
        let proxy = Arc::new(Proxy { service, percent, chance, requests, wrong });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("there are free ports");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(accept(listener, proxy.clone()));
        S3Server { runtime: Some(runtime), address, proxy, _objects: objects }
    }

    /// Lets so many percent of the requests go wrong from now on.
    pub fn go_wrong(&self, percent: u64) {
        self.proxy.percent.store(percent, Ordering::Relaxed);
    }

    /// The requests so far, and those that went wrong.
    pub fn counts(&self) -> (u64, Vec<Wrong>) {
        (self.proxy.requests.load(Ordering::Relaxed), self.proxy.wrong.lock().clone())
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How a process is told of it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// The same for a store of this process.
    pub fn builder(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
    }

    /// The folder in which the objects are.
    pub fn objects(&self) -> &Path {
        self._objects.path()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, proxy.clone()));
    }
}

async fn serve(socket: TcpStream, proxy: Arc<Proxy>) {
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { proxy.pass(request).await }
    });
    // An error is a connection that was cut, by us or by the client.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

impl Proxy {
    /// Passes a request on, or lets it go wrong. An error cuts the connection.
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Answer>, std::io::Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let wrong = self.draw();
        match wrong {
            Some(Wrong::Refused) => return Ok(broken()),
            Some(Wrong::CutBefore) => return Err(cut()),
            _ => {}
        }
        let answer = self.service.call(request.map(s3s::Body::from)).await.map_err(std::io::Error::other)?;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        match wrong {
            Some(Wrong::AnsweredWithError) => Ok(broken()),
            Some(Wrong::CutAfter) => Err(cut()),
            Some(Wrong::CutWithin) if bytes.len() > 1 => Ok(Response::from_parts(parts, half_of(bytes))),
            Some(Wrong::CutWithin) => Err(cut()),
            _ => Ok(Response::from_parts(parts, whole(bytes))),
        }
    }

    fn draw(&self) -> Option<Wrong> {
        let mut chance = self.chance.lock();
        if chance.random_range(0..100) >= self.percent.load(Ordering::Relaxed) {
            return None;
        }
        let wrong = WAYS[chance.random_range(0..WAYS.len())];
        self.wrong.lock().push(wrong);
        Some(wrong)
    }
}

/// What a body is that may break.
type Answer = BoxBody<Bytes, std::io::Error>;

fn whole(bytes: Bytes) -> Answer {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// Half of a body, and then the connection is cut. The length of all of it stands in the answer's head.
fn half_of(bytes: Bytes) -> Answer {
    let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
    BodyExt::boxed(StreamBody::new(futures::stream::iter([half, Err(cut())])))
}

fn broken() -> Response<Answer> {
    let answer = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(whole(Bytes::new()));
    answer.expect("a status alone")
}

fn cut() -> std::io::Error {
    std::io::Error::other("cut by the test")
}
