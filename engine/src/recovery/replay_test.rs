use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::Decision;
use crate::engine::Engine;
use crate::engine::rig_test::{append, check, commit, contents, create, options};
use crate::env::{CrashChoice, Disk, SimDisk};
use crate::ids::{LogId, LogIndex};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::offline::OfflineState;
use crate::store::Applied;
use crate::txn::Batch;

/// Where the timeline stands in a record, see `txn/record.rs`.
const TIMELINE: std::ops::Range<usize> = 32..40;

fn put(batch: &mut Batch, key: &[u8]) {
    batch.create_tree("t").expect("works");
    batch.put("t", key, &[key[0]; 20_000]).expect("fits");
}

/// Commits a record that would change the state, but is of another timeline.
fn stray(engine: &Engine) {
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    put(&mut batch, b"stray");
    batch.commit_txn();
    let staged = batch.seal(1).expect("fits").expect("changed something");
    engine.drop_staged();
    let mut bytes = staged.payload.bytes().to_vec();
    bytes[TIMELINE].copy_from_slice(&77_u64.to_le_bytes());
    let payload = Payload::new(Bytes::from(bytes));
    let index = engine.log_state().last.map_or(0, |last| last.index.0 + 1);
    let frame = Frame::encode(FrameKind::Record, LogId::new(1, index), None, engine.last_chain(), payload);
    append(engine, vec![frame.clone()]);
    assert_eq!(engine.apply(&frame).expect("a defined case"), Applied::Void);
}

#[test]
fn a_record_of_another_timeline_is_void_live_and_recovered_and_seeded_and_checked() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let place = Path::new("/db");
    let engine = create(&disk, place, 1);
    commit(&engine, |batch| put(batch, b"before"));
    engine.checkpoint().expect("works");
    stray(&engine);
    commit(&engine, |batch| put(batch, b"after"));
    let live = engine.applied();

    let copy = || -> Arc<dyn Disk> { Arc::new(sim.crash(CrashChoice::KeepAll)) };
    let checked = OfflineState::open(&copy(), place, Some(LogIndex(2))).expect("readable");
    assert_eq!(checked.applied(), &live);
    assert_eq!(checked.compute_digest().expect("readable"), live.digest);

    // A checkpoint breaks off within its pages: its target must be replayed blindly.
    sim.set_space_limit(Some(0));
    engine.checkpoint().expect_err("no space");
    let (recovered, report) = Engine::open(copy(), place, options()).expect("opens");
    assert!(matches!(report.decision, Decision::FinishCheckpoint { .. }), "{report:?}");
    assert_eq!(recovered.applied(), live);
    assert_eq!(contents(&recovered, "t").into_keys().collect::<Vec<_>>(), [b"after".to_vec(), b"before".to_vec()]);
    check(&recovered);

    sim.set_space_limit(None);
    let mut source = recovered.seed_source(u64::MAX).expect("a source");
    let seeded = create(&disk, Path::new("/seeded"), 2);
    let mut receiver = seeded.seed_receiver().expect("nobody is there");
    while let Some(chunk) = source.next(1 << 20).expect("readable") {
        receiver.feed(chunk).expect("a good stream");
    }
    assert_eq!(receiver.finish().expect("a good stream"), live);
}
