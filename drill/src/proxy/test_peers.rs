//! Sockets on both sides of a proxy, for tests.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::FaultProxy;

/// What must come has come after this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is looked for what must not come. Too short, it would only be seen less often.
const GLANCE: Duration = Duration::from_millis(50);

/// What is behind a proxy.
pub(super) struct Target {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Target {
    pub(super) async fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        Target { listener, address }
    }

    pub(super) async fn accept(&self) -> TcpStream {
        soon(self.listener.accept()).await.expect("a connection is accepted").0
    }

    pub(super) async fn accepts_nothing(&self) {
        let accepted = timeout(GLANCE, self.listener.accept()).await;
        assert!(accepted.is_err(), "a connection came through: {accepted:?}");
    }
}

/// A proxy before a target of its own.
pub(super) async fn proxy_and_target() -> (FaultProxy, Target) {
    let target = Target::start().await;
    (FaultProxy::start(target.address).await.expect("there is a free port"), target)
}

/// Waits for what must come.
#[track_caller]
pub(super) fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move { timeout(PATIENCE, what).await.unwrap_or_else(|_| panic!("{caller}: it did not come in {PATIENCE:?}")) }
}

/// A connection through a proxy: its two ends, which have spoken to each other.
pub(super) async fn connected(address: SocketAddr, target: &Target) -> (TcpStream, TcpStream) {
    let mut client = soon(TcpStream::connect(address)).await.expect("the proxy accepts");
    let mut server = target.accept().await;
    passes(&mut client, &mut server).await;
    passes(&mut server, &mut client).await;
    (client, server)
}

pub(super) async fn send(to: &mut TcpStream, bytes: &[u8]) {
    soon(to.write_all(bytes)).await.expect("the socket takes bytes");
}

pub(super) async fn receives(from: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    soon(from.read_exact(&mut received)).await.expect("the bytes come");
    assert!(received == bytes, "other bytes came");
}

/// What one end sends comes out of the other one.
pub(super) async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    send(from, b"through?").await;
    receives(to, b"through?").await;
}

pub(super) async fn receives_nothing(from: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(GLANCE, from.read(&mut byte)).await;
    assert!(read.is_err(), "something came through: {read:?}");
}

/// The connection is reset, and not ended.
pub(super) async fn is_reset(socket: &mut TcpStream) {
    let read = soon(socket.read(&mut [0; 64])).await;
    assert_eq!(read.expect_err("a reset is an error").kind(), io::ErrorKind::ConnectionReset);
}

/// The connection is ended, and not reset.
pub(super) async fn is_ended(socket: &mut TcpStream) {
    assert_eq!(soon(socket.read(&mut [0; 64])).await.expect("an end is no error"), 0);
}
