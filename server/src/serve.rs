//! One node as a process: `calamus serve`.
//!
//! Order of a start: tie to the parent, read the configuration, open the directory, start the node, serve, become a member, be ready; from
//! becoming a member on, the cluster is told where the node is (see `moved`). Order of
//! an end: a backup that runs saves what it has, health says NOT_SERVING, the node hands leadership over (or not), stops and closes, and the server goes
//! last, because handing over needs it.
//!
//! A node whose consensus stops (a sync that fails, say), before it is ready or after, says so once and goes on as a
//! process: reads of what it has applied may be all that is left, and the signals below end it as ever.
//!
//! | signal | meaning |
//! | --- | --- |
//! | SIGTERM, SIGINT | hand leadership over if this node leads, checkpoint, exit 0 |
//! | SIGUSR1 | the same without handing over: the whole cluster ends, and a hand-over would only write more |
//! | a second one of them | exit at once, as if the power failed |

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::Engine;
use calamus_engine::env::Disk;
use calamus_proto::v1::{AddRequest, Aim};
use calamus_replication::{Leadership, Node, NodeConfig as ReplicationConfig, NodeError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{error, info, warn};

use crate::backup::runs::Runs;
use crate::backup::schedule;
use crate::backup::targets::Targets;
use crate::config::NodeConfig;
use crate::failure::Failure;
use crate::seeding::Wishes;
use crate::services::{self, Health};
use crate::settings::Settings;
use crate::startup::first_start::{FirstStart, How};
use crate::startup::{self, Opened, join};
use crate::{disk, moved, parent, small_file};

/// Holds the process id while the node runs: `DIR/pid`.
pub const PID_FILE: &str = "pid";

/// So often a node that is not ready yet says so.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long a backup may take to save what it has read, when the node ends.
const BACKUP_LIMIT: Duration = Duration::from_secs(2);
/// How long connections may take to end after the node has stopped.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a connection may be silent before the other end is asked, and how long it then has to answer. Longer than a
/// process is stopped for a while.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How much of a stream a client may send ahead, in bytes; per connection four times that. Values are up to 8 MiB, and
/// hundreds of clients must not fill the memory.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The largest HTTP/2 frame that others may send, in bytes: with the default of 16 KiB, large values and batches come in
/// many pieces, each with its own bookkeeping.
const FRAME_BYTES: u32 = 256 << 10;

/// Runs the node until it is told to end.
pub fn run(config: &NodeConfig, door: disk::Door) -> Result<(), Failure> {
    parent::tie();
    let mut builder = if config.workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(usize::from(config.workers));
        builder
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start threads", error, "check the limits of this user (`ulimit -a`)"))?;
    let ended = runtime.block_on(serve(config, door));
    // Blocking tasks (a scan, a checkpoint) do not hold up the end.
    runtime.shutdown_timeout(DRAIN);
    ended
}

async fn serve(config: &NodeConfig, door: disk::Door) -> Result<(), Failure> {
    // Before anything is opened: a signal during a long recovery must not kill in the middle of a start for nothing.
    let mut ends = Ends::new()?;
    let settings = Settings::read(config.config.as_deref())?;
    let disk = disk::from_environment(door)?;
    let opened = tokio::select! {
        opened = startup::open(config, disk) => opened?,
        _ = ends.next() => return Ok(()),
    };
    let Opened { disk, engine, listening, first_start } = opened;
    let identity = engine.identity();
    small_file::write(&*disk, &config.dir, PID_FILE, format!("{}\n", std::process::id()).as_bytes())
        .map_err(|error| Failure::new("cannot write the file `pid`", error, "check the disk of --dir"))?;
    let node = start_node(engine, config).await?;
    let (targets, runs) = (Targets::new(&settings.backup), Runs::default());
    let wishes = Wishes::new(disk.clone(), &config.dir, targets.clone());
    wishes.at_start(&node, config.seed_from.as_ref())?;
    let (routes, health) = services::routes(&node, targets.clone(), runs.clone(), wishes)
        .await
        .map_err(|error| Failure::new("cannot describe the services", error, "report this as a bug"))?;
    let (stop, stopped) = watch::channel(false);
    let incoming = incoming(listening.socket)?;
    let server = tokio::spawn(
        Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(4 * STREAM_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            // A client that is gone without a word is noticed, and what it holds is freed.
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, until(stopped)),
    );
    info!(name = identity.name, listen = listening.listen, advertise = listening.advertise, "listening");
    say(&format!("calamus: {} listens on {}", identity.name, listening.listen));

    let became = {
        let member = Member { node: &node, disk: &disk, dir: &config.dir, first_start, health: &health };
        tokio::select! {
            became = member.run() => became,
            never = schedule::keep(&node, &settings.backup, &targets, &runs) => match never {},
            hand_over = ends.next() => {
                info!(hand_over, "ending");
                end_runs(runs).await;
                let ended = end(&node, &health, hand_over, &mut ends).await;
                let _ = small_file::remove(&*disk, &config.dir, PID_FILE);
                ended
            }
        }
    };
    if became.is_err() {
        let _ = node.shutdown(false).await;
        let _ = small_file::remove(&*disk, &config.dir, PID_FILE);
    }
    let _ = stop.send(true);
    let _ = tokio::time::timeout(DRAIN, server).await;
    became
}

async fn start_node(engine: Engine, config: &NodeConfig) -> Result<Node, Failure> {
    let replication = ReplicationConfig {
        election_timeout: config.election_timeout(),
        heartbeat_interval: config.heartbeat_interval(),
        seed_bytes_per_second: u64::from(config.seed_mib_s) << 20,
        seed_hold_bytes: u64::from(config.seed_hold_mib) << 20,
        reach: config.reach()?,
        ..ReplicationConfig::default()
    };
    Node::start(engine, replication).await.map_err(|error| {
        let next = match error {
            NodeError::RolledBack(_) => {
                "it must never take part again as who it was: remove it, and start the node with its --name and --join; \
                 it is filled from its peers"
            }
            _ => "run `calamus check DIR`",
        };
        Failure::new("cannot start the consensus of this node", error, next)
    })
}

fn incoming(socket: std::net::TcpListener) -> Result<TcpIncoming, Failure> {
    let taken = socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket));
    match taken {
        Ok(listener) => Ok(TcpIncoming::from(listener).with_nodelay(Some(true))),
        Err(error) => Err(Failure::new("cannot use the socket", error, "check the limits of this user")),
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// A line for whoever started this process. Nobody may be listening any more.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A node on its way to being a ready member, and then its watch.
struct Member<'a> {
    node: &'a Node,
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    first_start: Option<FirstStart>,
    health: &'a Health,
}

impl Member<'_> {
    /// Ends only when the node cannot go on.
    async fn run(self) -> Result<(), Failure> {
        if let Some(first_start) = &self.first_start {
            self.first_time(first_start).await?;
            FirstStart::remove(&**self.disk, self.dir).map_err(|error| {
                Failure::new("cannot remove the file `first-start`", error, "check the disk of --dir")
            })?;
        }
        tokio::select! {
            ended = self.be_ready() => ended,
            never = moved::keep_known(self.node) => match never {},
        }
    }

    async fn be_ready(&self) -> Result<(), Failure> {
        loop {
            match self.node.wait_ready(READY_LIMIT).await {
                Ok(()) => break,
                // It never will be: the answer comes without a wait, and asking again would keep the signals from being
                // looked at.
                Err(NodeError::Stopped(_)) => return self.watch().await,
                Err(error) => warn!(why = %error, "not ready yet"),
            }
        }
        let status = self.node.status();
        self.health.set(true).await;
        info!(leader = status.leader, term = status.term, "ready");
        say(&format!("calamus: {} is ready; {} leads", status.name, status.leader));
        self.watch().await
    }

    async fn first_time(&self, first_start: &FirstStart) -> Result<(), Failure> {
        match &first_start.how {
            How::Bootstrap => self.node.bootstrap().await.map_err(|error| {
                Failure::new("cannot make a new cluster", error, "give --dir a new directory, or use --join")
            }),
            How::Join(host) => join::become_member(host, self.join_request(first_start)).await,
        }
    }

    fn join_request(&self, first_start: &FirstStart) -> AddRequest {
        let identity = self.node.engine().identity();
        AddRequest {
            name: identity.name,
            raft_id: identity.raft_id.0,
            address: identity.advertise,
            aim: first_start.join_as.map_or(Aim::Unspecified, Aim::from).into(),
            replace: true,
            cluster_id: identity.cluster_id.to_string(),
        }
    }

    /// Keeps the health true to the node until the consensus stops, which is said once; reads of what is applied go on.
    async fn watch(&self) -> Result<(), Failure> {
        let mut leadership = self.node.leadership();
        loop {
            if let Leadership::Stopped { why } = &*leadership.borrow_and_update() {
                error!(why, "the consensus has stopped; this node serves local reads only, until it is started again");
                break;
            }
            if leadership.changed().await.is_err() {
                break;
            }
        }
        self.health.set(false).await;
        std::future::pending().await
    }
}

/// The signals that end a node.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    no_hand_over: Signal,
}

impl Ends {
    fn new() -> Result<Ends, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::new("cannot take signals", error, ""));
        Ok(Ends {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            no_hand_over: take(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one; whether leadership is to be handed over.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.no_hand_over.recv() => false,
        }
    }
}

/// Lets a backup save what it has before the journal that it reads is closed.
async fn end_runs(runs: Runs) {
    let _ = tokio::task::spawn_blocking(move || runs.end(BACKUP_LIMIT)).await;
}

async fn end(node: &Node, health: &Health, hand_over: bool, ends: &mut Ends) -> Result<(), Failure> {
    health.set(false).await;
    tokio::select! {
        stopped = node.shutdown(hand_over) => {
            stopped.map_err(|error| Failure::new("the node did not end in good order", error, "its directory can be started again"))
        }
        _ = ends.next() => {
            warn!("asked twice: ending at once");
            Ok(())
        }
    }
}
