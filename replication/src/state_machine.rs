//! The engine's pages as openraft's state machine.
//!
//! Order, and what a crash at any point leaves:
//! - `apply` hands each frame to the engine in log order, one at a time, on leader and follower alike. It writes
//!   nothing: pages reach the data file by checkpoints, which wait for the journal. After a crash the engine itself
//!   replays what the journal holds; openraft then learns from `applied_state` where that ended.
//! - A record that does not build on the applied transaction is void on every node alike and is said to be so; any
//!   other failure (a page checksum, the digest) means that this replica differs from the others. It ends the node,
//!   with the reason kept for whoever asks: going on would spread the difference.
//! - A snapshot is a declaration: "checkpointed up to this log id, with this membership". Building one copies nothing.
//! - The current snapshot is the newer of the finished checkpoint and of what was installed last. A seeded generation
//!   stands on the checkpoint that its source had at the beginning, and openraft purges its log up to the end of the
//!   seeding: were the checkpoint the current snapshot, a leader would offer less than it has purged, count whoever
//!   reached it as still to be seeded, and offer it again at once, for ever. Whoever is told to seed itself up to one that
//!   the checkpoint does not reach yet gets it all the same: a stream goes on to what its source has applied. After a
//!   restart openraft learns the purge point from the journal, which begins at the checkpoint.
//! - Installing one switches to a generation that was filled beside the current one and verified, before openraft heard
//!   of it (see [`crate::seeding`]): openraft's core waits for the switch, with votes and appends behind it.
//!   openraft has by then made the new log its own, purged up to the snapshot; the journal follows here. If this node's journal already holds the snapshot's last entry, nothing is switched: entries after
//!   it may have been acknowledged, and a new generation would lose them. Applying up to it says the same.

use std::io;

use calamus_engine::ids::{LogId, LogIndex};
use calamus_engine::journal::frame::Frame;
use calamus_engine::{Applied, AppliedState, ApplyError, Engine};
use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;

use crate::log_reader::READ_BYTES;
use crate::log_store::{SwitchGate, storage_error};
use crate::membership::codec;
use crate::network::convert::{to_log_id, to_raft_log_id};
use crate::repair::when_repaired;
use crate::seeding::Seeded;
use crate::types::{Membership, Outcome, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig};

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Ticket>;

/// Why this node stopped, for people: the first reason stays. Whoever waits for the end learns it here, without the
/// core, which may hang.
#[derive(Clone)]
pub struct StopReason(watch::Sender<Option<String>>);

impl Default for StopReason {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl StopReason {
    /// Keeps `why`, unless there is a reason already.
    pub fn set(&self, why: impl Into<String>) {
        self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why.into());
            }
            first
        });
    }

    /// The reason.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until there is one.
    pub(crate) async fn given(&self) {
        let mut reason = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = reason.wait_for(Option::is_some).await;
    }
}

/// What openraft hands around as the data of a snapshot.
pub enum Ticket {
    /// A finished checkpoint of this node. To send it means to tell a follower to seed itself.
    Declared,
    /// A generation that was filled beside the current one, to be switched in.
    Seeded(Box<Seeded>),
}

/// The state machine.
pub struct StateMachine {
    engine: Engine,
    applied: watch::Sender<Option<LogId>>,
    gate: SwitchGate,
    stop: StopReason,
    /// What was installed last.
    installed: Option<SnapshotMeta>,
}

/// What a state of the engine is for openraft.
pub(crate) fn meta_of(state: &AppliedState) -> Result<SnapshotMeta, io::Error> {
    let last_membership = match &state.membership {
        Some((log_id, bytes)) => {
            let membership = codec::decode(bytes).map_err(io::Error::other)?;
            StoredMembership::new(Some(to_raft_log_id(*log_id)), membership)
        }
        None => StoredMembership::new(None, Membership::default()),
    };
    Ok(SnapshotMeta { last_log_id: state.log_id.map(to_raft_log_id), last_membership })
}

impl StateMachine {
    /// On an open engine. `applied` is told of every step.
    #[must_use]
    pub fn new(engine: Engine, applied: watch::Sender<Option<LogId>>, gate: SwitchGate, stop: StopReason) -> Self {
        applied.send_replace(engine.applied().log_id);
        Self { engine, applied, gate, stop, installed: None }
    }

    fn fail(&self, error: impl std::fmt::Display) -> io::Error {
        tracing::error!(%error, "the node stops");
        self.stop.set(error.to_string());
        io::Error::other(error.to_string())
    }

    fn publish(&self) {
        self.applied.send_replace(self.engine.applied().log_id);
    }

    fn apply_frame(&self, frame: &Frame) -> Result<Outcome, io::Error> {
        self.outcome(frame, self.engine.apply(frame))
    }

    /// As [`Self::apply_frame`], but where a page that the frame changes is damaged it waits for the repair.
    async fn apply_repaired(&self, frame: &Frame) -> Result<Outcome, io::Error> {
        let damage = |error: &ApplyError| match error {
            ApplyError::Storage(error) => Some(error.clone()),
            _ => None,
        };
        let applied = when_repaired(|| self.engine.apply(frame), damage).await;
        self.outcome(frame, applied)
    }

    fn outcome(&self, frame: &Frame, applied: Result<Applied, ApplyError>) -> Result<Outcome, io::Error> {
        match applied {
            Ok(Applied::Blank | Applied::Membership) => Ok(Outcome::NoPages),
            Ok(Applied::Record { .. }) => Ok(Outcome::Applied),
            Ok(Applied::Void) => Ok(Outcome::Void),
            Err(error) => Err(self.fail(format!("entry {} could not be applied: {error}", frame.log_id()))),
        }
    }

    /// Applies what the journal holds after the applied entry, up to `target`.
    fn apply_up_to(&self, target: LogId) -> Result<(), io::Error> {
        loop {
            let next = self.engine.applied().log_id.map_or(LogIndex(0), |log_id| log_id.index.next());
            if next > target.index {
                return Ok(());
            }
            let frames = self.engine.read_frames(next, target.index.next(), READ_BYTES).map_err(storage_error)?;
            if frames.is_empty() {
                return Err(self.fail(format!("the journal has no entry {next}, which is committed")));
            }
            for frame in &frames {
                self.apply_frame(frame)?;
            }
        }
    }

    async fn switch(&self, seeded: Box<Seeded>) -> Result<(), io::Error> {
        match tokio::task::spawn_blocking(move || seeded.verified.switch()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.fail(format!("the seeded generation is not usable: {error}"))),
            Err(panic) => Err(self.fail(format!("switching generations panicked: {panic}"))),
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Declaration;
    type SnapshotData = Ticket;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let meta = meta_of(&self.engine.applied())?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let frame = entry.frame.as_ref().expect("an entry to apply comes from the journal, with its frame");
            let outcome = self.apply_repaired(frame).await?;
            self.applied.send_replace(Some(to_log_id(&entry.log_id)));
            if let Some(responder) = responder {
                responder.send(outcome);
            }
            // A long catching-up must let the other tasks of this thread run: heartbeats among them.
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Declaration {
        Declaration { engine: self.engine.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Ticket) -> Result<(), io::Error> {
        let Ticket::Seeded(seeded) = snapshot else {
            return Err(self.fail("a declared checkpoint holds nothing to install"));
        };
        let target = meta.last_log_id.as_ref().map(to_log_id).expect("openraft installs no empty snapshot");
        let held = self.engine.log_id(target.index) == Some(target);
        let result = if held { self.apply_up_to(target) } else { self.switch(seeded).await };
        match &result {
            Ok(()) => {
                self.installed = Some(meta.clone());
                self.gate.done();
            }
            Err(error) => self.gate.failed(error.to_string()),
        }
        self.publish();
        result
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let checkpointed = meta_of(&self.engine.checkpointed())?;
        let installed = self.installed.clone().filter(|meta| meta.last_log_id > checkpointed.last_log_id);
        let meta = installed.unwrap_or(checkpointed);
        Ok(meta.last_log_id.is_some().then_some(Snapshot { meta, snapshot: Ticket::Declared }))
    }
}

/// Declares the finished checkpoint; copies nothing.
pub struct Declaration {
    engine: Engine,
}

impl RaftSnapshotBuilder<TypeConfig> for Declaration {
    type SnapshotData = Ticket;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(Snapshot { meta: meta_of(&self.engine.checkpointed())?, snapshot: Ticket::Declared })
    }
}
