//! The network between nodes, which can be cut, held, slowed down and reset.
//!
//! A [`FaultProxy`] listens on a port of its own and passes what comes to a target. A [`ProxyMesh`] has one for each ordered
//! pair of nodes. Contract:
//!
//! 1. **Each connection stays a TCP stream**: bytes arrive in order, without a gap, or the connection is reset. What a held
//!    direction kept back is delivered late when it is let go ([`AtHeal::Deliver`]), or its connections are reset then
//!    ([`AtHeal::Reset`]).
//! 2. **A fault is in force when [`FaultProxy::set`] returns.** What is written to a connection after that is subject to it;
//!    what the proxy had written before is on its way.
//! 3. **A held direction carries nothing**: no bytes, no end, no reset, and no new connection: one that is asked for is
//!    accepted, and made to the target when the direction is let go.
//! 4. **Memory is bounded**: a direction of a connection keeps 2 MiB at most. Then nothing is read, and the sender has to wait.
//! 5. **Errors pass**: a connection that one side resets is reset on the other one.
//! 6. **Dropped, a proxy ends** its tasks and resets its connections.
//!
//! | file | role |
//! | --- | --- |
//! | `fault` | what can be wrong with a network |
//! | `server` | the proxy's one task: listens, keeps the connections, changes the fault |
//! | `connection` | one connection: two sockets, two directions |
//! | `direction` | bytes one way, as the fault wants it |
//! | `socket` | a socket that is reset if it is dropped early |
//! | `mesh` | a proxy for each ordered pair of nodes |

mod connection;
mod direction;
mod fault;
mod mesh;
mod server;
mod socket;

#[cfg(test)]
mod mesh_test;
#[cfg(test)]
mod proxy_test;
#[cfg(test)]
mod test_peers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use fault::{AtHeal, Connections, Directions, Fault, Flow};
pub use mesh::ProxyMesh;
use server::{Command, Server};

/// What a proxy has counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes delivered to the target.
    pub bytes_to_target: u64,
    /// Bytes delivered to clients.
    pub bytes_to_client: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections that the proxy has reset, on arrival or later.
    pub resets: u64,
}

/// The counters, as the tasks count them.
#[derive(Debug, Default)]
struct Counts {
    bytes_to_target: AtomicU64,
    bytes_to_client: AtomicU64,
    connections: AtomicU64,
    resets: AtomicU64,
}

/// A TCP proxy whose network can be made bad while it runs.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// A proxy to `target` (an address, or `HOST:PORT`), without a fault. The target need not be there yet.
    ///
    /// # Errors
    /// If no port can be listened on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(target: impl ToString) -> io::Result<FaultProxy> {
        let (commands, receiver) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        let server = Server::bind(target.to_string(), counts.clone())?;
        let address = server.address();
        Ok(FaultProxy { address, counts, commands, task: tokio::spawn(server.run(receiver)) })
    }

    /// Where it listens, on the loopback interface; for as long as it lives, also while it refuses connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            bytes_to_target: read(&self.counts.bytes_to_target),
            bytes_to_client: read(&self.counts.bytes_to_client),
            connections: read(&self.counts.connections),
            resets: read(&self.counts.resets),
        }
    }

    /// Replaces the fault. The new one is in force when this returns.
    ///
    /// # Errors
    /// If the port that was given up to refuse connections cannot be listened on again; it goes on refusing.
    pub async fn set(&self, fault: Fault) -> io::Result<()> {
        self.ask(|done| Command::Set(fault, done)).await
    }

    /// Resets all connections, once. They are gone when this returns; new ones are treated as before.
    pub async fn reset(&self) {
        self.ask(Command::Reset).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (done, answer) = oneshot::channel();
        let sent = self.commands.send(command(done)).await;
        assert!(sent.is_ok(), "the proxy's task lives as long as the proxy");
        answer.await.expect("the proxy's task answers all that it takes")
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // With it go its connections: it owns their tasks.
        self.task.abort();
    }
}
