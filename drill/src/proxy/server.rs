//! The proxy's one task: listens, keeps the connections, changes the fault. Nothing in here is shared, so a fault is in force
//! for all connections or for none.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::Counts;
use super::connection::{Wire, relay};
use super::direction::{Direction, Way};
use super::fault::{Connections, Fault};
use super::socket::Socket;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long the proxy waits after it could not accept a connection: the process has no file descriptor left, as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What the proxy's owner asks for.
pub(super) enum Command {
    Set(Fault, oneshot::Sender<io::Result<()>>),
    Reset(oneshot::Sender<()>),
}

/// The state of the task.
pub(super) struct Server {
    address: SocketAddr,
    /// Bound to the address and never listening: keeps the port while nobody listens, so that nobody else gets it.
    _port: TcpSocket,
    listener: Option<TcpListener>,
    fault: watch::Sender<Fault>,
    wire: Wire,
    tasks: JoinSet<()>,
    /// The connections, the oldest first.
    alive: VecDeque<AbortHandle>,
    /// When the oldest one is reset.
    next_flap: Option<Instant>,
}

impl Server {
    /// Listens on a free port.
    pub(super) fn bind(target: String, counts: Arc<Counts>) -> io::Result<Server> {
        let port = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = port.local_addr()?;
        let listener = bound(address)?.listen(BACKLOG)?;
        let fault = watch::Sender::new(Fault::pass());
        let direction = |way| Direction::new(way, fault.subscribe());
        let (to_target, to_client) = (direction(Way::ToTarget), direction(Way::ToClient));
        let wire = Wire { target: target.into(), to_target, to_client, counts };
        Ok(Server {
            address,
            _port: port,
            listener: Some(listener),
            fault,
            wire,
            tasks: JoinSet::new(),
            alive: VecDeque::new(),
            next_flap: None,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until the proxy is dropped.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    // Whoever asked may have stopped waiting.
                    Some(Command::Set(fault, done)) => {
                        let _ = done.send(self.set(fault).await);
                    }
                    Some(Command::Reset(done)) => {
                        self.reset_all().await;
                        let _ = done.send(());
                    }
                },
                accepted = accept(&self.listener) => match accepted {
                    Ok(stream) => self.accepted(stream),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = self.tasks.join_next() => self.alive.retain(|task| !task.is_finished()),
                () = at(self.next_flap) => self.flap().await,
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream) {
        let number = self.wire.counts.connections.fetch_add(1, Ordering::Relaxed);
        let socket = Socket::new(stream);
        if self.fault.borrow().connections == Connections::Accept {
            self.alive.push_back(self.tasks.spawn(relay(socket, self.wire.clone(), number)));
        } else {
            self.wire.counts.resets.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn set(&mut self, fault: Fault) -> io::Result<()> {
        let before = *self.fault.borrow();
        if fault.connections == Connections::Refuse {
            self.listener = None;
        }
        // Under the old fault: nothing that was kept back may slip through before the reset.
        if fault.connections != Connections::Accept || before.resets_before(&fault) {
            self.reset_all().await;
        }
        self.next_flap = fault.flap.map(|every| Instant::now() + every);
        if fault.connections != Connections::Refuse && self.listener.is_none() {
            self.listener = Some(bound(self.address)?.listen(BACKLOG)?);
        }
        self.fault.send_replace(fault);
        Ok(())
    }

    /// Resets all connections. Their sockets are closed when this returns.
    async fn reset_all(&mut self) {
        self.tasks.abort_all();
        self.alive.clear();
        while let Some(ended) = self.tasks.join_next().await {
            self.count_reset(ended.is_err_and(|error| error.is_cancelled()));
        }
    }

    async fn flap(&mut self) {
        if let Some(oldest) = self.alive.pop_front() {
            let alive = !oldest.is_finished();
            oldest.abort();
            self.count_reset(alive);
        }
        let every = self.fault.borrow().flap;
        self.next_flap = every.map(|every| Instant::now() + every);
    }

    fn count_reset(&self, was_reset: bool) {
        self.wire.counts.resets.fetch_add(u64::from(was_reset), Ordering::Relaxed);
    }
}

/// A socket bound to an address that another one of ours may be bound to as well, as long as that one does not listen.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: &Option<TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
