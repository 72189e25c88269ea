//! openraft's own test suite for a log store and a state machine, against the real journal on real files.
//!
//! The suite skips steps that a cluster never skips: it begins a log at index 1 or 2, applies entries that were never
//! appended, leaves out indexes, and lets the log and the state machine tell different histories. The engine asserts
//! against each of these, rightly. So log and machine stand on an engine each, and the wrappers here put in what the
//! suite left out (blank entries in the gaps; appending before applying; a checkpoint before one is declared) and
//! nothing else: whatever the suite looks at is answered by the real adapter.

use std::io;
use std::sync::Arc;

use calamus_engine::Engine;
use calamus_engine::env::RealDisk;
use calamus_engine::ids::{LogId, LogIndex, Term};
use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{LogState, OptionalSend, StorageError};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use super::support;
use crate::log_reader::LogReader;
use crate::log_store::{Early, LogStore, SwitchGate};
use crate::network::convert::to_log_id;
use crate::state_machine::{Declaration, StateMachine, StopReason, Ticket, meta_of};
use crate::types::{Entry, RaftLogId, RaftVote, SnapshotMeta, StoredMembership, TypeConfig};

/// Appends blanks at [from, to) and waits until they are durable.
async fn fill(engine: &Engine, from: u64, to: u64, term: Term) {
    let mut chain = engine.last_chain();
    let frames = (from..to).map(|index| {
        let log_id = LogId { term, index: LogIndex(index) };
        let frame = Frame::encode(FrameKind::Blank, log_id, None, chain, Payload::new(bytes::Bytes::new()));
        chain = frame.chain();
        frame
    });
    append(engine, frames.collect()).await;
}

async fn append(engine: &Engine, frames: Vec<Frame>) {
    if frames.is_empty() {
        return;
    }
    let (sender, receiver) = oneshot::channel();
    engine.append(frames, Box::new(move |result| drop(sender.send(result)))).expect("the journal takes frames");
    receiver.await.expect("called").expect("durable");
}

/// The log store, with the gaps of the suite filled.
struct SuiteLog {
    inner: LogStore,
    engine: Engine,
    /// What the journal holds, whatever is purged.
    last: Option<LogId>,
}

impl RaftLogStorage<TypeConfig> for SuiteLog {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.inner.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.inner.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.inner.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.inner.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.inner.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let first = to_log_id(&entries[0].log_id);
        let next = self.last.map_or(0, |last| last.index.0 + 1);
        let term = self.last.map_or(Term(0), |last| last.term);
        fill(&self.engine, next, first.index.0, term).await;
        self.last = entries.last().map(|entry| to_log_id(&entry.log_id));
        self.inner.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        self.inner.truncate_after(last_log_id).await?;
        self.last = self.engine.log_state().last;
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        self.inner.purge(log_id).await
    }
}

/// The state machine, with the steps filled in that the suite leaves out.
struct SuiteMachine {
    inner: StateMachine,
    engine: Engine,
}

/// A snapshot of the suite: installing it seeds one engine from the other.
struct SuiteTicket(Engine);

impl SuiteMachine {
    fn wrap(&self, snapshot: SnapshotOf<TypeConfig, Ticket>) -> SnapshotOf<TypeConfig, SuiteTicket> {
        openraft::Snapshot { meta: snapshot.meta, snapshot: SuiteTicket(self.engine.clone()) }
    }
}

impl RaftStateMachine<TypeConfig> for SuiteMachine {
    type SnapshotBuilder = SuiteBuilder;
    type SnapshotData = SuiteTicket;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((mut entry, responder)) = entries.try_next().await? {
            let log_id = to_log_id(&entry.log_id);
            let last = self.engine.log_state().last;
            let next = last.map_or(0, |last| last.index.0 + 1);
            fill(&self.engine, next, log_id.index.0, last.map_or(Term(0), |last| last.term)).await;
            let skipped =
                self.engine.read_frames(LogIndex(next), log_id.index, usize::MAX).map_err(io::Error::other)?;
            for frame in &skipped {
                self.engine.apply(frame).map_err(io::Error::other)?;
            }
            let (kind, payload) = entry.frame_parts();
            let frame = Frame::encode(kind, log_id, None, self.engine.last_chain(), payload);
            append(&self.engine, vec![frame.clone()]).await;
            entry.frame = Some(frame);
            self.inner.apply(futures::stream::iter([Ok((entry, responder))])).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SuiteBuilder {
        SuiteBuilder { inner: self.inner.get_snapshot_builder().await, engine: self.engine.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SuiteTicket) -> Result<(), io::Error> {
        let mut source = snapshot.0.seed_source(u64::MAX).map_err(io::Error::other)?;
        let mut receiver = self.engine.seed_receiver().map_err(io::Error::other)?;
        while let Some(chunk) = source.next(64 << 10).map_err(io::Error::other)? {
            receiver.feed(chunk).map_err(io::Error::other)?;
        }
        let verified = receiver.verify().map_err(io::Error::other)?;
        let seeded = crate::seeding::Seeded { verified, meta: meta.clone(), bytes: 0 };
        self.inner.install_snapshot(meta, Ticket::Seeded(Box::new(seeded))).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, SuiteTicket>>, io::Error> {
        Ok(self.inner.get_current_snapshot().await?.map(|snapshot| self.wrap(snapshot)))
    }
}

struct SuiteBuilder {
    inner: Declaration,
    engine: Engine,
}

impl RaftSnapshotBuilder<TypeConfig> for SuiteBuilder {
    type SnapshotData = SuiteTicket;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SuiteTicket>, io::Error> {
        self.engine.checkpoint().map_err(io::Error::other)?;
        let snapshot = self.inner.build_snapshot().await?;
        assert_eq!(snapshot.meta, meta_of(&self.engine.checkpointed())?);
        Ok(openraft::Snapshot { meta: snapshot.meta, snapshot: SuiteTicket(self.engine.clone()) })
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, SuiteLog, SuiteMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, SuiteLog, SuiteMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let open = |part: &str| {
            support::create(
                Arc::new(RealDisk::new()),
                &directory.path().join(part),
                &support::identity(1, part, "nowhere:1"),
            )
        };
        let (log, machine) = (open("log"), open("machine"));
        let gate = SwitchGate::default();
        let store =
            SuiteLog { inner: LogStore::new(log.clone(), gate.clone(), Early::default()), engine: log, last: None };
        let inner = StateMachine::new(machine.clone(), watch::Sender::new(None), gate, StopReason::default());
        Ok((directory, store, SuiteMachine { inner, engine: machine }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.expect("the suite passes");
}
