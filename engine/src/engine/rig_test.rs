//! What tests of an engine are written with: a small one, its frames, and what it holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};

use super::{Engine, EngineOptions};
use crate::checkpoint::meta::NodeIdentity;
use crate::env::Disk;
use crate::ids::{ClusterId, DatabaseId, LogId, LogIndex, RaftId};
use crate::journal::frame::{Frame, FrameKind};
use crate::journal::{JournalMode, JournalOptions};
use crate::txn::{Batch, Staged};
use crate::verify::check_pages;

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        journal: JournalOptions { segment_bytes: 1 << 20, mode: JournalMode::Inline, ..JournalOptions::default() },
        background: false,
        retention_bytes: 1 << 20,
        ..EngineOptions::default()
    }
}

pub(crate) fn identity(raft_id: u64) -> NodeIdentity {
    NodeIdentity {
        cluster_id: ClusterId(7),
        raft_id: RaftId(raft_id),
        name: format!("n{raft_id}"),
        listen: "127.0.0.1:0".into(),
        advertise: "127.0.0.1:0".into(),
    }
}

pub(crate) fn create(disk: &Arc<dyn Disk>, directory: &Path, raft_id: u64) -> Engine {
    Engine::create(disk.clone(), directory, &identity(raft_id), DatabaseId(9), options()).expect("a new directory")
}

/// Appends frames and waits until they are durable.
pub(crate) fn append(engine: &Engine, frames: Vec<Frame>) {
    let (done, synced) = mpsc::channel();
    engine.append(frames, Box::new(move |result| done.send(result).expect("waited for"))).expect("not poisoned");
    synced.recv().expect("called").expect("synced");
}

/// Encodes a staged batch as the next frame of the log.
pub(crate) fn frame_of(engine: &Engine, staged: &Staged) -> Frame {
    let index = engine.log_state().last.map_or(0, |last| last.index.0 + 1);
    let commit = engine.applied().log_id.map(|log_id| log_id.index);
    Frame::encode(FrameKind::Record, LogId::new(1, index), commit, engine.last_chain(), staged.payload.clone())
}

/// Runs `work` as one transaction of one batch and commits it.
pub(crate) fn commit(engine: &Engine, work: impl FnOnce(&mut Batch)) -> Option<Frame> {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    work(&mut batch);
    batch.commit_txn();
    let staged = batch.seal(1).expect("it fits")?;
    let frame = frame_of(engine, &staged);
    append(engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
    Some(frame)
}

pub(crate) fn check(engine: &Engine) {
    let read = engine.read();
    let report = check_pages(&read, &mut |_| {}).expect("readable");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.digest, engine.applied().digest, "the digest is the pages'");
}

pub(crate) fn contents(engine: &Engine, tree: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let read = engine.read();
    let mut found = BTreeMap::new();
    let Some(mut cursor) = read.cursor(tree).expect("readable") else { return found };
    let mut there = cursor.first().expect("readable");
    while there {
        found.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("readable"));
        there = cursor.next().expect("readable");
    }
    found
}

/// Applies what recovery left to the consensus.
pub(crate) fn catch_up(engine: &Engine) {
    let state = engine.log_state();
    let from = engine.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
    let until = state.last.map_or(0, |log_id| log_id.index.0 + 1);
    for index in from..until {
        let frames = engine.read_frames(LogIndex(index), LogIndex(index + 1), 1).expect("readable");
        engine.apply(&frames[0]).expect("applies");
    }
}

/// Runs `work` as one transaction of one batch that is appended and applied later.
pub(super) fn commit_later(engine: &Engine, work: impl FnOnce(&mut Batch)) -> Option<Frame> {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    work(&mut batch);
    batch.commit_txn();
    let staged = batch.seal(1).expect("fits")?;
    Some(frame_of(engine, &staged))
}

/// The data file.
pub(super) fn data_bytes(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("g1/data")).expect("a data file")
}
