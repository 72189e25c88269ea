//! A watch as it arrives: transactions in commit order, each once, over failures of nodes.
//!
//! ```text
//! position ──> a node: WatchRequest(after) ──> Begin(position) ──> Transaction | Progress ... ──> the next node
//! ```
//!
//! `order.rs` checks every message of every node: so a transaction that was lost, came twice or came late is an error, and never
//! delivered quietly.
//!
//! A connection of its own: a program that takes its time over changes must not fill the windows that other calls need.

mod error;
mod not_held;
mod order;
mod position;

use std::fmt;
use std::time::Duration;

use calamus_proto::v1::watch_request::Start;
use calamus_proto::v1::watch_response::Event;
use calamus_proto::v1::{
    Member, Range, ReadPoint, WatchChange, WatchEnd, WatchNow, WatchOldest, WatchRequest, WatchResponse, watch_end,
};
use rand::SeedableRng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Streaming};

pub use error::WatchError;
use not_held::NotHeldBy;
use order::{Broke, Stand};
pub use position::{Position, PositionError};

use crate::client::Client;
use crate::outcome::Failure;
use crate::retry::Refusal;

/// Where a watch starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what is committed behind the moment of the call.
    #[default]
    Now,
    /// With the oldest that the node that answers first still holds.
    Oldest,
    /// Behind this position.
    After(Position),
}

/// What a watch shows, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchOptions {
    /// Where it starts.
    pub from: WatchFrom,
    /// The keys; all by default. See [`crate::range`].
    pub range: Range,
    /// Leave the values out.
    pub keys_only: bool,
    /// With all trees: also those of the system.
    pub include_system: bool,
    /// How often an idle node says how far it is; zero for its default, 2 s.
    pub heartbeat: Duration,
}

/// What a transaction changed that the watch asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WatchedTxn {
    /// Its number.
    pub txn_id: u64,
    /// When its batch was made, in microseconds since 1970; never goes back.
    pub wall_time_micros: u64,
    /// Each change with the name of its tree, in the order in which it was done.
    pub changes: Vec<(String, WatchChange)>,
}

/// What comes next. After each of them, [`Watch::position`] can be kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A node has begun to tell what follows this position: at the start, and after each break.
    Began(Position),
    /// A transaction, whole.
    Txn(WatchedTxn),
    /// Nothing up to the position, which went on: and how far the node is, and how old that may be.
    Progress(ReadPoint),
}

/// A stream from one node.
struct Connected {
    address: String,
    messages: Streaming<WatchResponse>,
}

/// A running watch. See [`Client::watch`].
pub struct Watch {
    client: Client,
    tree: String,
    options: WatchOptions,
    stand: Stand,
    connected: Option<Connected>,
    not_held: NotHeldBy,
    rng: rand::rngs::SmallRng,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("tree", &self.tree).field("position", &self.position()).finish_non_exhaustive()
    }
}

/// Why a node's stream ended.
enum Broken {
    /// Another node, or the same one again, can go on.
    Refusal(Refusal),
    Fatal(WatchError),
    NotHeld {
        oldest: Position,
        members: Vec<Member>,
    },
}

impl Client {
    /// Watches a tree by its name; all trees if that is empty. Nothing is sent before [`Watch::next`] is called.
    ///
    /// ```no_run
    /// # async fn example(client: calamus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use calamus_client::{Position, WatchFrom, WatchOptions};
    ///
    /// let from = match std::fs::read_to_string("position") {
    ///     Ok(text) => WatchFrom::After(text.parse::<Position>()?),
    ///     Err(_) => WatchFrom::Oldest,
    /// };
    /// let mut watch = client.watch("accounts", WatchOptions { from, ..WatchOptions::default() });
    /// loop {
    ///     let txn = watch.next().await?;
    ///     println!("txn {} changed {} keys", txn.txn_id, txn.changes.len());
    ///     std::fs::write("position", watch.position().expect("something came").to_string())?;
    /// }
    /// # }
    /// ```
    pub fn watch(&self, tree: impl Into<String>, options: WatchOptions) -> Watch {
        let position = match &options.from {
            WatchFrom::After(position) => Some(position.clone()),
            WatchFrom::Now | WatchFrom::Oldest => None,
        };
        Watch {
            client: self.clone(),
            tree: tree.into(),
            options,
            stand: Stand::at(position),
            connected: None,
            not_held: NotHeldBy::default(),
            rng: rand::rngs::SmallRng::from_os_rng(),
        }
    }
}

impl Watch {
    /// Where it stands: everything up to there was delivered by [`Self::next`]. `None` until a node has said where the watch
    /// starts.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.stand.position()
    }

    /// The address of the node that is watched now.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.connected.as_ref().map(|connected| connected.address.as_str())
    }

    /// The next transaction; waits until there is one. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<WatchedTxn, WatchError> {
        loop {
            if let WatchEvent::Txn(txn) = self.next_event().await? {
                return Ok(txn);
            }
        }
    }

    /// The next event, whatever it is. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next_event(&mut self) -> Result<WatchEvent, WatchError> {
        let (mut failures, mut failed, mut since) = (0, None, Instant::now());
        loop {
            let broken = match self.try_next(failed.as_deref()).await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => continue,
                Err(broken) => broken,
            };
            let address = self.connected.take().map(|connected| connected.address);
            self.stand.cut();
            match broken {
                Broken::Fatal(error) => return Err(error),
                Broken::NotHeld { oldest, members } => {
                    let address = address.expect("a node said so");
                    self.not_held.note(address.clone(), oldest, members);
                    if let Some(error) = self.nobody_holds_it() {
                        return Err(error);
                    }
                    failed = Some(address);
                }
                Broken::Refusal(refusal) if !refusal.retryable => return Err(WatchError::Refused(refusal.failure)),
                Broken::Refusal(refusal) => {
                    // A stream that ran is a new beginning for what may be tried.
                    if failures == 0 {
                        since = Instant::now();
                    }
                    failed = refusal.failure.node.clone();
                    if let Some(node) = failed.as_deref().filter(|_| refusal.broken) {
                        self.client.discovery().failed(node);
                    }
                    failures += 1;
                    let wait = self.client.options().backoff.wait(failures, &mut self.rng);
                    if since.elapsed() + wait >= self.client.options().deadline {
                        let failure = Failure { attempts: failures, ..refusal.failure };
                        let not_held = self.not_held.error(self.stand.position_or_start());
                        return Err(not_held.unwrap_or(WatchError::Unavailable(failure)));
                    }
                    let asked = timeout(wait.max(Duration::from_millis(100)), self.client.discovery().refresh());
                    let _ = tokio::join!(sleep(wait), asked);
                }
            }
        }
    }

    /// One message more; `None` if it was no event.
    async fn try_next(&mut self, failed: Option<&str>) -> Result<Option<WatchEvent>, Broken> {
        if self.connected.is_none() {
            self.connect(failed).await?;
        }
        let connected = self.connected.as_mut().expect("connected just now");
        // Two heartbeats may be late, on a machine that is slow.
        let heartbeat = if self.options.heartbeat.is_zero() { Duration::from_secs(2) } else { self.options.heartbeat };
        let gap = 2 * heartbeat + self.client.options().attempt_timeout;
        let message = match timeout(gap, connected.messages.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Err(lost(&connected.address, "the stream ended without a word")),
            Ok(Err(status)) => return Err(Broken::Refusal(Refusal::of(&status, &connected.address))),
            Err(_) => return Err(Broken::Refusal(Refusal::silent(&connected.address, gap))),
        };
        let taken = match message.event {
            Some(Event::Begin(begin)) => {
                self.not_held = NotHeldBy::default();
                self.stand.begin(begin.position.unwrap_or_default()).map(Some)
            }
            Some(Event::Transaction(part)) => self.stand.transaction(part),
            Some(Event::Progress(progress)) => self.stand.progress(progress).map(Some),
            Some(Event::End(end)) => return Err(self.ended(end)),
            // Of a later version: what it means is not known, and nothing may be passed over.
            None => return Err(lost(&connected.address, "it said something that this version does not know")),
        };
        taken.map_err(|Broke(what)| {
            let (position, node) = (self.stand.position_or_start(), self.node().unwrap_or_default().to_owned());
            Broken::Fatal(WatchError::OutOfOrder { position, node, what })
        })
    }

    async fn connect(&mut self, failed: Option<&str>) -> Result<(), Broken> {
        let options = self.client.options();
        let discovery = self.client.discovery();
        discovery.keep_fresh();
        let address = match discovery.pick_but_not(&self.not_held.asked) {
            Some(address) => address,
            None => discovery.pick(options.read_from, failed),
        };
        let heartbeat_ms = u32::try_from(self.options.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let start = match (self.position(), &self.options.from) {
            (Some(position), _) => Start::After(position.clone().into()),
            (None, WatchFrom::Oldest) => Start::Oldest(WatchOldest {}),
            (None, _) => Start::Now(WatchNow {}),
        };
        let request = WatchRequest {
            tree: self.tree.clone(),
            range: Some(self.options.range.clone()),
            start: Some(start),
            keys_only: self.options.keys_only,
            include_system: self.options.include_system,
            heartbeat_ms,
        };
        let call = async {
            let mut node = discovery.nodes.connect_apart(&address).await?;
            node.watch(request).await.map_err(|status| Refusal::of(&status, &address))
        };
        let limit = options.attempt_timeout;
        let answered = timeout(limit, call).await.unwrap_or_else(|_| Err(Refusal::silent(&address, limit)));
        let messages = answered.map_err(Broken::Refusal)?.into_inner();
        tracing::debug!(address, "watching");
        self.connected = Some(Connected { address, messages });
        Ok(())
    }

    fn ended(&self, end: WatchEnd) -> Broken {
        match end.why {
            Some(watch_end::Why::NotHeld(not_held)) => {
                Broken::NotHeld { oldest: not_held.oldest.unwrap_or_default().into(), members: not_held.members }
            }
            Some(watch_end::Why::OtherTimeline(other)) => Broken::Fatal(WatchError::OtherTimeline {
                position: self.stand.position_or_start(),
                database_id: other.database_id,
                timeline: other.timeline,
                forked_at_txn: other.forked_at_txn,
            }),
            None => lost(
                self.node().unwrap_or_default(),
                "it ended the stream for a reason that this version does not know",
            ),
        }
    }

    /// The error, once every node that is known has said that it does not hold the position.
    fn nobody_holds_it(&self) -> Option<WatchError> {
        let more = self.client.discovery().pick_but_not(&self.not_held.asked).is_some();
        if more { None } else { self.not_held.error(self.stand.position_or_start()) }
    }
}

fn lost(address: &str, what: &str) -> Broken {
    let failure = Failure::new("connection_lost", format!("node {address}: {what}"), Code::Unavailable).at(address);
    Broken::Refusal(Refusal { failure, unknown: false, retryable: true, leader: None, broken: true })
}

#[cfg(test)]
mod watch_test;
