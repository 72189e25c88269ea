//! The load of a drill: clients that write and read, and note what they were told.
//!
//! ```text
//! registers   single keys, written, read, and compared and set
//! lists       transactions that append to lists and read them
//! sender      how a transaction is sent, and what its end means
//! ```
//!
//! Every value that is written is another one, so that what is read says who wrote it. Half of the clients use registers,
//! half lists; each asks for its next call when the last one has ended, and not faster than its share of the rate. Reads go
//! to all nodes in turn. Keys are given up after a while for fresh ones, so that no history of a key, and no list, gets long.

mod lists;
mod registers;
mod sender;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use calamus_client::{Client, Options, ReadFrom};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use crate::history::{ClientId, Clock, KeyCall, Recorder, TransactionCall};
use crate::timeline::Timeline;
use crate::trouble::Trouble;
pub use lists::TREE as LISTS;
pub(crate) use lists::{element, list};
pub use registers::TREE as REGISTERS;

/// How a load is.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many clients there are of each kind.
    pub clients: usize,
    /// Calls a second of all together, about.
    pub rate: u32,
    /// What is drawn by chance comes from this.
    pub seed: u64,
}

/// What one append to a list came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is acknowledged.
    Done,
    /// It is certainly not done.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) registers: Recorder<KeyCall>,
    pub(crate) transactions: Recorder<TransactionCall>,
    /// What became of each element that was to be appended.
    pub(crate) appends: Mutex<BTreeMap<u64, Told>>,
    /// The next value that nobody has written.
    next: AtomicU64,
    stop: AtomicBool,
    /// Between two calls of one client.
    pace: Duration,
}

impl Shared {
    /// A value that was never written.
    pub(crate) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for a client's next turn.
    pub(crate) async fn pace(&self, began: tokio::time::Instant) {
        tokio::time::sleep_until(began + self.pace).await;
    }
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Result<(), Trouble>>,
}

/// What a load has noted.
pub struct Noted {
    /// What single keys were asked.
    pub registers: Recorder<KeyCall>,
    /// What lists were asked.
    pub transactions: Recorder<TransactionCall>,
    /// What became of each element that was to be appended.
    pub appends: BTreeMap<u64, Told>,
}

/// How a client of a drill behaves: it gives a node up after half of the shortest election timeout, since nodes are frozen and
/// cut off here all the time.
pub(crate) fn client_options() -> Options {
    Options {
        deadline: Duration::from_secs(40),
        attempt_timeout: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(300),
        read_from: ReadFrom::Spread,
        ..Options::default()
    }
}

impl Load {
    /// Starts clients of the cluster at these addresses.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn begin(addresses: &[String], options: &LoadOptions, timeline: Arc<Timeline>) -> Result<Load, Trouble> {
        let clients = u32::try_from(2 * options.clients).expect("a handful");
        let clock = Clock::new();
        let shared = Arc::new(Shared {
            timeline,
            registers: Recorder::new(clock.clone()),
            transactions: Recorder::new(clock),
            appends: Mutex::default(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            pace: Duration::from_secs(1) * clients / options.rate.max(1),
        });
        let mut running = JoinSet::new();
        for number in 0..options.clients {
            for kind in 0..2 {
                let client = Client::connect(addresses.to_vec(), client_options()).await;
                let client = client.map_err(|error| Trouble::during("a client finds no node", error))?;
                let session = client.session().await;
                let session = session.map_err(|error| Trouble::during("a client gets no session", error))?;
                let id = ClientId(u32::try_from(2 * number + kind).expect("a handful"));
                let rng = SmallRng::seed_from_u64(options.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let shared = Arc::clone(&shared);
                if kind == 0 {
                    running.spawn(registers::run(client, session, shared, id, rng));
                } else {
                    running.spawn(lists::run(session, shared, id, rng));
                }
            }
        }
        Ok(Load { shared, clients: running })
    }

    /// Asks for no more, and waits for what is on its way. Beside what was noted, what clients could not go on with: an answer
    /// that no client understands is a finding.
    ///
    /// # Panics
    /// When a client has: the load is wrong.
    pub async fn stop(mut self) -> (Noted, Vec<Trouble>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut troubles = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            match ended {
                Ok(ended) => troubles.extend(ended.err()),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        let shared = Arc::into_inner(self.shared).expect("all clients have ended");
        let Shared { registers, transactions, appends, .. } = shared;
        (Noted { registers, transactions, appends: appends.into_inner() }, troubles)
    }
}
