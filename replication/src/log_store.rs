//! The engine's journal as openraft's log storage. The journal's frames *are* the entries.
//!
//! Order, and what a crash at any point leaves:
//! - `append` only seals, indexes and queues. Votes and frames share the journal's one queue, so a frame of a term is
//!   never durable before the vote that made its leader. The callback runs after the sync that covers the frames, and
//!   until then the node acknowledges nothing of them: a crash in between loses what nobody counted.
//! - A vote and a cut wait until they are durable. A node that answered a vote, restarts and has forgotten it could
//!   vote twice in a term; a cut that was forgotten would let entries come back that a leader has replaced.
//! - A leader's entry becomes a frame here and nowhere else: only now is it certain which frame stands before it (the
//!   chain value) and what was committed by then (the header's commit index). From here on the bytes never change;
//!   followers write what the leader wrote.
//! - The commit index is kept in memory and written only in frame headers. After a restart the engine has applied up
//!   to the highest index found there that the journal still holds; openraft would refuse to start on a commit index
//!   above the log.
//! - `purge` only moves the logical purge point, which the engine keeps. The journal recycles later, and never above
//!   the checkpoint, the retention or a pin. Reading honours the logical point, so that openraft and this store agree
//!   on the first entry whatever is still on disk. After a restart the logical point is the physical one, which is not
//!   above it: more entries than openraft asked to keep, never fewer.
//! - While a seeding switches generations, openraft already counts with the log of the new one, and may append to it
//!   before the switch. Such an append does not continue the journal that is still there: it waits for the switch
//!   ([`SwitchGate`]). Nothing else needs to wait: cuts and votes before it belong to the old journal, votes after it to
//!   no journal at all.

use std::io;
use std::sync::Arc;

use calamus_engine::Engine;
use calamus_engine::error::StorageError;
use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::journal::frame::Frame;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::log_reader::LogReader;
use crate::network::convert::{to_log_id, to_raft_log_id, to_vote};
use crate::options::NodeConfig;
use crate::types::{Entry, RaftLogId, RaftVote, TypeConfig};
use crate::vote_saves::VoteSaves;

/// The engine's error for openraft, which takes any of them as the end of the node.
pub(crate) fn storage_error(error: StorageError) -> io::Error {
    io::Error::other(error)
}

/// Lets an append wait for the end of a switch of generations.
#[derive(Clone)]
pub struct SwitchGate(watch::Sender<Switch>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Switch {
    Done(u64),
    Failed(String),
}

impl Default for SwitchGate {
    fn default() -> Self {
        Self(watch::Sender::new(Switch::Done(0)))
    }
}

impl SwitchGate {
    /// A switch is over, and the journal is another one.
    pub(crate) fn done(&self) {
        self.0.send_modify(|state| {
            if let Switch::Done(count) = state {
                *count += 1;
            }
        });
    }

    /// A switch failed: appends that wait for it must fail too, or the core would hang in them.
    pub(crate) fn failed(&self, why: String) {
        self.0.send_replace(Switch::Failed(why));
    }

    async fn until(&self, ready: impl Fn() -> bool) -> Result<(), io::Error> {
        let mut changes = self.0.subscribe();
        loop {
            if let Switch::Failed(why) = &*changes.borrow_and_update() {
                return Err(io::Error::other(format!("the seeded generation could not be switched in: {why}")));
            }
            if ready() {
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err(io::Error::other("the node is stopping"));
            }
        }
    }
}

/// Planted faults: what is said before it is durable. See [`NodeConfig`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Early {
    /// Frames.
    pub frames: bool,
    /// Votes.
    pub votes: bool,
}

impl Early {
    pub(crate) fn of(config: &NodeConfig) -> Self {
        Self { frames: config.acknowledges_early(), votes: config.votes_early() }
    }
}

/// The log store.
#[derive(Clone)]
pub struct LogStore {
    engine: Engine,
    committed: Arc<Mutex<Option<LogId>>>,
    gate: SwitchGate,
    vote_saves: VoteSaves,
    early: Early,
}

impl LogStore {
    /// On an open engine.
    #[must_use]
    pub fn new(engine: Engine, gate: SwitchGate, early: Early) -> Self {
        let committed = Arc::new(Mutex::new(engine.applied().log_id));
        Self { engine, committed, gate, vote_saves: VoteSaves::default(), early }
    }

    /// How long votes take to be saved.
    pub(crate) fn vote_saves(&self) -> &VoteSaves {
        &self.vote_saves
    }

    /// The frames of `entries`: those of peers as they are, our own sealed in order.
    fn seal(&self, entries: Vec<Entry>) -> Vec<Frame> {
        let mut chain = self.engine.last_chain();
        let commit = self.committed.lock().map(|log_id| log_id.index);
        let mut frames = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let frame = entry.frame.take().unwrap_or_else(|| {
                let (kind, payload) = entry.frame_parts();
                Frame::encode(kind, to_log_id(&entry.log_id), commit, chain, payload)
            });
            assert_eq!(frame.log_id(), to_log_id(&entry.log_id), "an entry with the frame of another");
            chain = frame.chain();
            frames.push(frame);
        }
        frames
    }

    fn continues(&self, first: LogIndex) -> bool {
        let next = self.engine.log_state().last.map_or(LogIndex(0), |last| last.index.next());
        next == first
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.engine.log_state();
        Ok(LogState {
            last_purged_log_id: state.last_purged.map(to_raft_log_id),
            last_log_id: state.last.map(to_raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(self.engine.clone())
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        if self.early.votes {
            return self.engine.save_vote(to_vote(vote), Box::new(drop)).map_err(storage_error);
        }
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        let _saving = self.vote_saves.begin();
        self.engine.save_vote(to_vote(vote), done).map_err(storage_error)?;
        durable(receiver).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        *self.committed.lock() = committed.as_ref().map(to_log_id);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        let Some(committed) = *self.committed.lock() else {
            return Ok(None);
        };
        // Headers may name a commit index whose frame was lost with the tail of the journal.
        let last = self.engine.log_state().last;
        let clamped = if last.is_some_and(|last| last.index >= committed.index) { Some(committed) } else { last };
        Ok(clamped.map(to_raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| LogIndex(entry.log_id.index())) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        if !self.continues(first) {
            self.gate.until(|| self.continues(first)).await?;
        }
        let frames = self.seal(entries);
        if self.early.frames {
            callback.io_completed(Ok(()));
            return self.engine.append(frames, Box::new(drop)).map_err(storage_error);
        }
        let done = Box::new(move |result: Result<(), StorageError>| {
            callback.io_completed(result.map_err(storage_error));
        });
        self.engine.append(frames, done).map_err(storage_error)
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        let keep = last_log_id.as_ref().map(to_log_id);
        let last = self.engine.log_state().last;
        if keep.map(|log_id| log_id.index) >= last.map(|log_id| log_id.index) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.engine.cut_after(keep, done).map_err(storage_error)?;
        durable(receiver).await
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        self.engine.purge(to_log_id(&log_id)).map_err(storage_error)
    }
}

async fn durable(receiver: oneshot::Receiver<Result<(), StorageError>>) -> Result<(), io::Error> {
    match receiver.await {
        Ok(result) => result.map_err(storage_error),
        Err(_) => Err(io::Error::other("the journal stopped before it was durable")),
    }
}
