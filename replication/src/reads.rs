//! Reads on any node.
//!
//! A *linearizable* read sees all that was committed before it began: a quorum round begun after the call confirms the
//! leader and gives a log id, this node applies up to it, and then the snapshot is opened. One round serves all who
//! wait when it begins; who comes later takes part in the next. The next begins when the one before has ended, or when
//! that has taken longer than usual: a round that hangs on a lost leader holds up only those who are in it.
//!
//! A *local* read shows what this node has applied, and is refused until that is all that was known to be committed
//! when the node started: what a client has seen before the node stopped, it sees again.

pub mod at_least;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use calamus_engine::ids::LogId;
use calamus_engine::{Engine, ReadTxn};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{TxnError, reason};
use crate::seam::{Consensus, ReadIndexError};

/// How long a round runs before another may begin beside it.
const PATIENCE: Duration = Duration::from_millis(20);
/// The most rounds that run beside each other.
const MAX_ROUNDS: usize = 8;

type Waiter = oneshot::Sender<Result<(), ReadIndexError>>;

/// What the readers and the task that runs the rounds share.
#[derive(Default)]
struct Shared {
    waiters: Mutex<Vec<Waiter>>,
    arrived: Notify,
    rounds: AtomicU64,
}

/// A node's reads.
pub struct Reads {
    engine: Engine,
    shared: Arc<Shared>,
    rounds: JoinHandle<()>,
    /// What was known to be committed when this node started.
    known_committed: Option<LogId>,
    caught_up: AtomicBool,
}

impl Reads {
    /// Starts the task that runs the rounds. `known_committed` is what the node knew to be committed when it started.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(engine: Engine, consensus: Arc<dyn Consensus>, known_committed: Option<LogId>) -> Self {
        let shared = Arc::<Shared>::default();
        let rounds = tokio::spawn(run_rounds(shared.clone(), consensus));
        Self { engine, shared, rounds, known_committed, caught_up: AtomicBool::new(false) }
    }

    /// A snapshot that shows all that was committed before the call. It must not be held longer than needed.
    pub async fn linearizable(&self, patience: Duration) -> Result<ReadTxn, TxnError> {
        self.barrier(patience).await?;
        Ok(self.engine.read())
    }

    /// Waits until this node has applied all that was committed before the call.
    pub async fn barrier(&self, patience: Duration) -> Result<(), TxnError> {
        let (waiter, done) = oneshot::channel();
        let first = {
            let mut waiters = self.shared.waiters.lock();
            // Those who gave up go before the list grows: a round that hangs must not gather them.
            if waiters.len() == waiters.capacity() {
                waiters.retain(|waiter| !waiter.is_closed());
            }
            if !self.rounds.is_finished() {
                waiters.push(waiter);
            }
            waiters.len() == 1
        };
        if first {
            self.shared.arrived.notify_one();
        }
        match timeout(patience, done).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(TxnError::from_read_index(&error)),
            Ok(Err(_)) => Err(TxnError::not_committed(
                reason::STOPPING,
                "the node is stopping and serves no reads any more; ask another node",
            )),
            Err(_) => Err(TxnError::from_read_index(&ReadIndexError::Timeout { waited: patience })),
        }
    }

    /// A snapshot of what this node has applied.
    pub fn local(&self) -> Result<ReadTxn, TxnError> {
        if !self.caught_up.load(Ordering::Acquire) {
            let applied = self.engine.applied().log_id;
            if applied.map(|log_id| log_id.index) < self.known_committed.map(|log_id| log_id.index) {
                let text =
                    |log_id: Option<LogId>| log_id.map_or_else(|| "none".to_owned(), |log_id| log_id.to_string());
                return Err(TxnError::not_committed(
                    reason::RECOVERING,
                    format!(
                        "this node was started and has applied log id {} of {}, which it knew to be committed before; \
                         read again shortly, or from another node",
                        text(applied),
                        text(self.known_committed)
                    ),
                ));
            }
            self.caught_up.store(true, Ordering::Release);
        }
        Ok(self.engine.read())
    }

    /// Serves no linearizable reads any more; who waits is told.
    pub fn stop(&self) {
        self.rounds.abort();
        self.shared.waiters.lock().clear();
    }

    /// How many readers wait for a round to begin, or gave up and are not forgotten yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiters.lock().len()
    }

    /// How many rounds were begun.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One round for those who wait now. The first future ends when the round has, the second when its log id is applied.
fn begin(shared: &Shared, consensus: &Arc<dyn Consensus>, waiters: Vec<Waiter>) -> BoxFuture<'static, RoundEnded> {
    shared.rounds.fetch_add(1, Ordering::Relaxed);
    let round = consensus.read_index(None);
    Box::pin(async move { RoundEnded { result: round.await, waiters } })
}

struct RoundEnded {
    result: Result<Option<LogId>, ReadIndexError>,
    waiters: Vec<Waiter>,
}

fn answer(waiters: Vec<Waiter>, result: &Result<(), ReadIndexError>) {
    for waiter in waiters {
        let _ = waiter.send(result.clone());
    }
}

async fn run_rounds(shared: Arc<Shared>, consensus: Arc<dyn Consensus>) {
    let mut running = FuturesUnordered::new();
    let mut applying = FuturesUnordered::new();
    let mut patience = Box::pin(tokio::time::sleep(PATIENCE));
    loop {
        let may_begin = running.is_empty() || (running.len() < MAX_ROUNDS && patience.is_elapsed());
        if may_begin {
            let waiters = std::mem::take(&mut *shared.waiters.lock());
            if !waiters.is_empty() {
                running.push(begin(&shared, &consensus, waiters));
                patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                continue;
            }
        }
        tokio::select! {
            () = shared.arrived.notified(), if may_begin => {}
            () = &mut patience, if !running.is_empty() && !patience.is_elapsed() => {}
            Some(RoundEnded { result, waiters }) = running.next() => match result {
                Err(error) => answer(waiters, &Err(error)),
                Ok(log_id) => {
                    let applied = consensus.wait_applied(log_id);
                    applying.push(async move { answer(waiters, &applied.await) });
                }
            },
            Some(()) = applying.next() => {}
        }
    }
}
