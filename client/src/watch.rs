//! A watch as it arrives: transactions in commit order, each once, over failures of nodes.
//!
//! ```text
//! position ──> a node: WatchRequest(after) ──> Begin(position) ──> Transaction | Progress ... ──> the next node
//! ```
//!
//! What is checked, of every message of every node: it says where the stream stood before it, and that must be where this
//! stream stands; txn ids go up. So a transaction that was lost, came twice or came late is an error, and never delivered
//! quietly.
//!
//! A connection of its own: a program that takes its time over changes must not fill the windows that other calls need.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use calamus_proto::v1::watch_request::Start;
use calamus_proto::v1::watch_response::Event;
use calamus_proto::v1::{
    Member, Range, ReadPoint, WatchChange, WatchEnd, WatchNow, WatchOldest, WatchPosition, WatchRequest, WatchResponse,
    WatchTransaction, watch_end,
};
use rand::SeedableRng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Streaming};

use crate::client::Client;
use crate::outcome::Failure;
use crate::retry::Refusal;

/// Where a watcher stands: it knows everything up to a transaction of a timeline of a database. Small enough to be kept with
/// what the changes were used for; its text (`DATABASE/TIMELINE/TXN`) is read again by `parse`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// 32 hex digits; empty for whatever database the cluster has.
    pub database_id: String,
    /// Which restore the database comes from; 0 for whatever it is on.
    pub timeline: u64,
    /// The transaction.
    pub txn_id: u64,
}

impl Position {
    /// Behind this transaction of whatever database the cluster has now: such as a read point, read just before.
    #[must_use]
    pub fn after_txn(txn_id: u64) -> Position {
        Position { database_id: String::new(), timeline: 0, txn_id }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.database_id, self.timeline, self.txn_id)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let [database_id, timeline, txn_id] = parts[..] else { return Err(PositionError) };
        let hex =
            database_id.is_empty() || database_id.len() == 32 && database_id.bytes().all(|b| b.is_ascii_hexdigit());
        match (hex, timeline.parse(), txn_id.parse()) {
            (true, Ok(timeline), Ok(txn_id)) => Ok(Position { database_id: database_id.to_owned(), timeline, txn_id }),
            _ => Err(PositionError),
        }
    }
}

/// A text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not DATABASE/TIMELINE/TXN: 32 hex digits, and two numbers")]
pub struct PositionError;

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

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// A transaction, whole.
    Txn(WatchedTxn),
    /// Nothing up to the position, which went on: and how far the node is, and how old that may be.
    Progress(ReadPoint),
}

/// Why a watch cannot go on. After [`WatchError::Unavailable`] it may be asked again, and goes on where it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// No journal that could be asked holds what follows the position.
    #[error(
        "what follows {position} is no longer held by {}; the oldest that is held follows txn {}{}; begin from a scan, and \
         watch on from its read point",
        asked.join(", "),
        oldest.txn_id,
        unasked_text(unasked)
    )]
    NotHeld {
        /// Where the watch stands.
        position: Position,
        /// What can be gone on from, at the node that reaches back farthest.
        oldest: Box<Position>,
        /// Addresses of the nodes that said so.
        asked: Vec<String>,
        /// Members that could not be asked, and may still hold it: names and addresses.
        unasked: Vec<(String, String)>,
    },
    /// The cluster has another timeline, or another database, than the position is of.
    #[error(
        "the position {position} is of another timeline than the cluster's, which has {database_id}/{timeline}{}",
        forked_text(position, *forked_at_txn)
    )]
    OtherTimeline {
        /// Where the watch stands.
        position: Position,
        /// What the cluster has.
        database_id: String,
        /// What the cluster has.
        timeline: u64,
        /// The last transaction that both timelines have; `None` if the cluster's does not come from the other one.
        forked_at_txn: Option<u64>,
    },
    /// A node told a transaction twice, too late, or not at all.
    #[error("node {node} broke the order of the watch at {position}: {what}; this is a defect: report it")]
    OutOfOrder {
        /// Where the watch stands.
        position: Position,
        /// The node's address.
        node: String,
        /// What it said.
        what: String,
    },
    /// The request is refused for good.
    #[error("{0}")]
    Refused(Failure),
    /// No node could be watched within the deadline.
    #[error("no node can be watched now: {0}")]
    Unavailable(Failure),
}

fn unasked_text(unasked: &[(String, String)]) -> String {
    if unasked.is_empty() {
        return String::new();
    }
    let names: Vec<String> = unasked.iter().map(|(name, address)| format!("{name} ({address})")).collect();
    format!("; not asked, and perhaps holding it: {}", names.join(", "))
}

fn forked_text(position: &Position, forked: Option<u64>) -> String {
    match forked {
        Some(txn_id) if position.txn_id <= txn_id => {
            format!(
                "; it was forked at txn {txn_id}, so all that was seen is in it: go on behind txn {txn_id} of it, after a \
                 look at what lies between"
            )
        }
        Some(txn_id) => {
            format!("; it was forked at txn {txn_id}: what was seen behind that is not in it; begin from a scan")
        }
        None => "; begin from a scan".to_owned(),
    }
}

/// A stream from one node.
struct Connected {
    address: String,
    messages: Streaming<WatchResponse>,
    /// Parts of a transaction that is not whole yet.
    parts: Option<WatchTransaction>,
}

/// What the nodes that refused the position said, since something was delivered last.
#[derive(Default)]
struct NotHeldBy {
    asked: Vec<String>,
    oldest: Option<Position>,
    members: Vec<Member>,
}

/// A running watch. See [`Client::watch`].
pub struct Watch {
    client: Client,
    tree: String,
    options: WatchOptions,
    position: Option<Position>,
    connected: Option<Connected>,
    not_held: NotHeldBy,
    rng: rand::rngs::SmallRng,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("tree", &self.tree).field("position", &self.position).finish_non_exhaustive()
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
            position,
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
        self.position.as_ref()
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

    /// The next transaction or heartbeat. A call that is dropped loses nothing.
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
            match broken {
                Broken::Fatal(error) => return Err(error),
                Broken::NotHeld { oldest, members } => {
                    let address = address.expect("a node said so");
                    self.note_not_held(address.clone(), oldest, members);
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
                        return Err(self.not_held_error().unwrap_or(WatchError::Unavailable(failure)));
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
        match message.event {
            Some(Event::Begin(begin)) => self.begin(begin.position.unwrap_or_default()).map(|()| None),
            Some(Event::Transaction(part)) => self.transaction(part),
            Some(Event::Progress(progress)) => {
                self.go_on(progress.txn_id, true)?;
                Ok(Some(WatchEvent::Progress(progress.read_point.unwrap_or_default())))
            }
            Some(Event::End(end)) => Err(self.ended(end)),
            // Of a later version: what it means is not known, and nothing may be passed over.
            None => Err(lost(&connected.address, "it said something that this version does not know")),
        }
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
        let start = match (&self.position, &self.options.from) {
            (Some(Position { database_id, timeline, txn_id }), _) => {
                Start::After(WatchPosition { database_id: database_id.clone(), timeline: *timeline, txn_id: *txn_id })
            }
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
        self.connected = Some(Connected { address, messages, parts: None });
        Ok(())
    }

    /// Where the node begins: where this watch stands, if it has stood anywhere.
    fn begin(&mut self, begun: WatchPosition) -> Result<(), Broken> {
        let WatchPosition { database_id, timeline, txn_id } = begun;
        if let Some(position) = &self.position
            && position.txn_id != txn_id
        {
            return Err(self.out_of_order(format!("it begins behind txn {txn_id}")));
        }
        self.position = Some(Position { database_id, timeline, txn_id });
        self.not_held = NotHeldBy::default();
        Ok(())
    }

    fn transaction(&mut self, part: WatchTransaction) -> Result<Option<WatchEvent>, Broken> {
        let stands_at = self.position.as_ref().map(|position| position.txn_id);
        if stands_at != Some(part.follows) || part.txn_id <= part.follows {
            return Err(self.out_of_order(format!("txn {} behind txn {}", part.txn_id, part.follows)));
        }
        let connected = self.connected.as_mut().expect("a message came from somewhere");
        let mut whole = match connected.parts.take() {
            None => WatchTransaction { changes: Vec::new(), ..part.clone() },
            Some(whole) if whole.txn_id == part.txn_id => whole,
            Some(whole) => {
                let what = format!("txn {} within txn {}", part.txn_id, whole.txn_id);
                return Err(self.out_of_order(what));
            }
        };
        // Names are added and never change their places.
        whole.trees = part.trees;
        whole.changes.extend(part.changes);
        if part.more {
            connected.parts = Some(whole);
            return Ok(None);
        }
        self.go_on(whole.txn_id, false)?;
        let named = |change: WatchChange| Some((whole.trees.get(change.tree as usize)?.clone(), change));
        let changes: Option<Vec<_>> = whole.changes.into_iter().map(named).collect();
        let Some(changes) = changes else {
            return Err(self.out_of_order("a change of a tree without a name".to_owned()));
        };
        Ok(Some(WatchEvent::Txn(WatchedTxn {
            txn_id: whole.txn_id,
            wall_time_micros: whole.wall_time_micros,
            changes,
        })))
    }

    /// Everything up to this transaction is known; it may be that nothing is new.
    fn go_on(&mut self, txn_id: u64, may_stay: bool) -> Result<(), Broken> {
        if let Some(part) = self.connected.as_ref().and_then(|connected| connected.parts.as_ref()) {
            return Err(self.out_of_order(format!("it is at txn {txn_id} within txn {}", part.txn_id)));
        }
        match &mut self.position {
            Some(position) if txn_id > position.txn_id || (may_stay && txn_id == position.txn_id) => {
                position.txn_id = txn_id;
                Ok(())
            }
            _ => Err(self.out_of_order(format!("it is at txn {txn_id} now"))),
        }
    }

    fn out_of_order(&self, what: String) -> Broken {
        let node = self.node().unwrap_or_default().to_owned();
        let position = self.position.clone().unwrap_or_else(|| Position::after_txn(0));
        Broken::Fatal(WatchError::OutOfOrder { position, node, what })
    }

    fn ended(&self, end: WatchEnd) -> Broken {
        let position = self.position.clone().unwrap_or_else(|| Position::after_txn(0));
        match end.why {
            Some(watch_end::Why::NotHeld(not_held)) => {
                let WatchPosition { database_id, timeline, txn_id } = not_held.oldest.unwrap_or_default();
                Broken::NotHeld { oldest: Position { database_id, timeline, txn_id }, members: not_held.members }
            }
            Some(watch_end::Why::OtherTimeline(other)) => Broken::Fatal(WatchError::OtherTimeline {
                position,
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

    fn note_not_held(&mut self, address: String, oldest: Position, members: Vec<Member>) {
        let known = &mut self.not_held;
        if !known.asked.contains(&address) {
            known.asked.push(address);
        }
        if known.oldest.as_ref().is_none_or(|before| oldest.txn_id < before.txn_id) {
            known.oldest = Some(oldest);
        }
        known.members = members;
    }

    /// The error, once every node that is known has said that it does not hold the position.
    fn nobody_holds_it(&self) -> Option<WatchError> {
        let more = self.client.discovery().pick_but_not(&self.not_held.asked).is_some();
        if more { None } else { self.not_held_error() }
    }

    fn not_held_error(&self) -> Option<WatchError> {
        let NotHeldBy { asked, oldest, members } = &self.not_held;
        let unasked = members.iter().filter(|member| !asked.contains(&member.address));
        Some(WatchError::NotHeld {
            position: self.position.clone().unwrap_or_else(|| Position::after_txn(0)),
            oldest: Box::new(oldest.clone()?),
            asked: asked.clone(),
            unasked: unasked.map(|member| (member.name.clone(), member.address.clone())).collect(),
        })
    }
}

fn lost(address: &str, what: &str) -> Broken {
    let failure = Failure::new("connection_lost", format!("node {address}: {what}"), Code::Unavailable).at(address);
    Broken::Refusal(Refusal { failure, unknown: false, retryable: true, leader: None, broken: true })
}

#[cfg(test)]
mod watch_test;
