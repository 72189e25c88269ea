//! The first record of the new timeline: see [`super`].

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::build::Built;
use super::place::Place;
use crate::checkpoint::meta::NodeIdentity;
use crate::checkpoint::{NodeMeta, write_pages};
use crate::engine::{EngineOptions, Paths, open_store};
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex, Timeline};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::journal::{Journal, LogStart};
use crate::store::{AppliedState, Counters, Store};
use crate::txn::Batch;

/// The tree that has an entry for each restore that led to a database: under the txn id of the fork's record, big endian.
pub(super) const TREE: &str = "$timelines";

/// An entry of the tree, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Fork {
    pub(super) timeline: u64,
    pub(super) forked_from: u64,
    /// The last entry of the timeline before that was restored; nothing if that was before the first.
    term: Option<u64>,
    index: Option<u64>,
    pub(super) txn_id: u64,
    digest: String,
    chain: String,
    wall_time_micros: u64,
    restored_at_micros: u64,
}

/// What the restored database becomes.
pub(super) struct New<'n> {
    pub(super) identity: &'n NodeIdentity,
    pub(super) membership: Option<Bytes>,
    pub(super) forked_from: Timeline,
    pub(super) timeline: Timeline,
    pub(super) wall_micros: u64,
    pub(super) options: &'n EngineOptions,
}

/// A generation with the new timeline, durable, and the `node.meta` that would name it.
pub(super) struct Forked {
    pub(super) meta: NodeMeta,
}

/// Makes the journal, and the first record of the new timeline, in it and in the data file.
pub(super) fn fork(place: &Place, built: &Built, new: &New<'_>) -> Result<Forked, RestoreError> {
    let before = alone(place, &built.state, new);
    let journal_options = new.options.journal;
    let start = LogStart { previous: before.log_id, chain: before.chain };
    Journal::create(place.disk.clone(), &Paths::journal(&place.home), start, journal_options)?.close();
    let mut meta = NodeMeta {
        generation: place.generation,
        identity: new.identity.clone(),
        checkpoint: before.clone(),
        target: before,
        purged: None,
        segment_bytes: journal_options.segment_bytes,
    };
    let (disk, directory) = (&place.disk, &place.directory);
    let counters = Arc::new(Counters::default());
    let opened = open_store(disk, directory, &meta, new.options, counters, place.lock.clone())?;
    let store = Arc::new(opened.store);
    let applied = commit_fork(&store, place, built, new)?;
    let view = store.readers.newest();
    write_pages(&store, applied.txn_id, view.superblock.page_count, &new.options.faults, &|_| Ok(()))?;
    store.journal.close();
    meta.checkpoint = applied.clone();
    meta.target = applied;
    Ok(Forked { meta })
}

/// The restored state, with this node as the only member: the frame M, which stands in no journal.
fn alone(place: &Place, restored: &AppliedState, new: &New<'_>) -> AppliedState {
    let Some(membership) = &new.membership else {
        return AppliedState { membership: None, ..restored.clone() };
    };
    let last = restored.log_id;
    let index = last.map_or(LogIndex(0), |last| last.index.next());
    let log_id = LogId { term: place.term(last.map(|last| last.term)), index };
    let payload = Payload::new(membership.clone());
    let commit = last.map(|last| last.index);
    let frame = Frame::encode(FrameKind::Membership, log_id, commit, restored.chain, payload);
    let membership = Some((log_id, membership.clone()));
    AppliedState { log_id: Some(log_id), chain: frame.chain(), membership, ..restored.clone() }
}

/// Makes the record F, and appends and applies it.
fn commit_fork(store: &Arc<Store>, place: &Place, built: &Built, new: &New<'_>) -> Result<AppliedState, RestoreError> {
    let mut batch = Batch::begin(store.clone())?;
    batch.begin_timeline(new.timeline);
    let txn_id = batch.begin_txn();
    let restored = &built.state;
    let fork = Fork {
        timeline: new.timeline.0,
        forked_from: new.forked_from.0,
        term: restored.log_id.map(|log_id| log_id.term.0),
        index: restored.log_id.map(|log_id| log_id.index.0),
        txn_id: restored.txn_id.0,
        digest: restored.digest.to_string(),
        chain: format!("{:016x}", restored.chain),
        wall_time_micros: restored.wall_time_micros,
        restored_at_micros: new.wall_micros,
    };
    if !batch.tree_exists(TREE)? {
        batch.create_tree(TREE)?;
    }
    let value = serde_json::to_vec(&fork).expect("strings and numbers are always JSON");
    batch.put(TREE, &txn_id.0.to_be_bytes(), &value)?;
    batch.commit_txn();
    let staged = batch.seal(new.wall_micros)?.expect("it puts an entry");
    let last = store.journal.last();
    let index = last.map_or(LogIndex(0), |last| last.index.next());
    let log_id = LogId { term: place.term(last.map(|last| last.term)), index };
    // It is committed because this node alone is the cluster, and has it.
    let commit = last.map(|last| last.index);
    let frame = Frame::encode(FrameKind::Record, log_id, commit, store.journal.last_chain(), staged.payload);
    let (done, synced) = mpsc::channel();
    let done = move |outcome| {
        // Somebody listens just below.
        let _ = done.send(outcome);
    };
    store.journal.append(vec![frame.clone()], Box::new(done))?;
    synced.recv().unwrap_or_else(|_| Err(StorageError::Poisoned("the journal was closed".into())))?;
    store.apply(&frame)?;
    Ok(store.readers.newest().applied.clone())
}
