//! Records that no leader makes: each is refused, and nothing of it can be seen.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{RECORD_HEADER_BYTES, Record};
use crate::engine::Engine;
use crate::engine::rig_test::{append, commit, create};
use crate::env::{Disk, SimDisk};
use crate::ids::TxnId;
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::store::ApplyError;

const LAST_TXN_OFFSET: usize = 24;
const FREED_COUNT_OFFSET: usize = 80;

/// A leader and a follower that have a tree, and a record that the leader makes next: it has freed runs, a full image and
/// diffs.
fn next_record() -> (Engine, Bytes) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (leader, follower) = (create(&disk, Path::new("/leader"), 1), create(&disk, Path::new("/follower"), 2));
    let first = commit(&leader, |batch| {
        batch.create_tree("t").expect("new");
        batch.put("t", b"a", &[1; 20_000]).expect("fits");
        batch.put("t", b"b", &[1; 20_000]).expect("fits");
    });
    let first = first.expect("a change");
    append(&follower, vec![first.clone()]);
    follower.apply(&first).expect("sound");
    let next = commit(&leader, |batch| {
        batch.delete("t", b"a").expect("there");
        batch.create_tree("u").expect("new");
        batch.put("u", b"c", &[2; 20]).expect("fits");
    });
    let bytes = next.expect("a change").payload().bytes().clone();
    let record = Record::decode(&bytes).expect("sound");
    assert!(!record.freed.is_empty() && !record.full.is_empty() && record.diffs.len() >= 2);
    (follower, bytes)
}

fn with_u32(bytes: &Bytes, offset: usize, number: u32) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[offset..offset + 4].copy_from_slice(&number.to_le_bytes());
    changed
}

fn apply(engine: &Engine, bytes: Vec<u8>) -> Result<crate::store::Applied, ApplyError> {
    let log_id = crate::ids::LogId::new(1, 1);
    let frame = Frame::encode(FrameKind::Record, log_id, None, engine.last_chain(), Payload::new(bytes.into()));
    append(engine, vec![frame.clone()]);
    engine.apply(&frame)
}

#[test]
fn no_page_is_named_twice() {
    let (_, bytes) = next_record();
    let record = Record::decode(&bytes).expect("sound");
    let runs = RECORD_HEADER_BYTES;
    let fulls = runs + 8 * record.freed.len();
    let (run, diff) = (record.freed[0].0, record.diffs[0].page);
    let refused = |bytes: Vec<u8>, what: &str| {
        let error = Record::decode(&bytes).expect_err(what);
        assert_eq!(error.what, what);
    };
    refused(with_u32(&bytes, fulls, diff.0), "a page that is named twice");
    refused(with_u32(&bytes, fulls, run.0), "a page that is named twice");
    refused(with_u32(&bytes, runs, diff.0), "a page that is named twice");
    // The same run twice.
    let mut twice = with_u32(&bytes, FREED_COUNT_OFFSET, record.freed.len() as u32 + 1);
    let run = twice[runs..runs + 8].to_vec();
    twice.splice(runs..runs, run);
    refused(twice, "freed runs out of page order, or overlapping");
}

#[test]
fn the_superblock_is_of_the_records_own_transaction() {
    let (follower, bytes) = next_record();
    let before = follower.applied();
    let last = Record::decode(&bytes).expect("sound").header.last_txn;
    let error = apply(&follower, with_u32(&bytes, LAST_TXN_OFFSET, last.0 as u32 + 1)).expect_err("refused");
    assert!(matches!(&error, ApplyError::Record { source, .. } if source.what.contains("superblock")), "{error}");
    assert_eq!(follower.applied(), before);
    assert_eq!(follower.read().txn_id(), TxnId(1));
}

/// What is freed was there before: a run that claims more is refused before the first of its pages is looked at, or a
/// node would look at four billion of them.
#[test]
fn no_page_behind_the_end_is_freed() {
    for count in [1, u32::MAX - (1 << 20)] {
        let (follower, bytes) = next_record();
        let before = follower.applied();
        let freed = Record::decode(&bytes).expect("sound").freed.len();
        let mut more = with_u32(&bytes, FREED_COUNT_OFFSET, freed as u32 + 1);
        let behind = RECORD_HEADER_BYTES + 8 * freed;
        more.splice(behind..behind, [1 << 20, count].into_iter().flat_map(u32::to_le_bytes));
        let error = apply(&follower, more).expect_err("refused");
        assert!(
            matches!(&error, ApplyError::Record { source, .. } if source.what.contains("a freed page behind the end")),
            "{error}"
        );
        assert_eq!(follower.applied(), before);
    }
}
