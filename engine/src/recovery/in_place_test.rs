use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::in_place::put_in_place;
use super::replay::{for_each_frame, replay_blindly};
use crate::engine::rig_test::{append, commit, create};
use crate::engine::{Engine, Faults};
use crate::env::{CrashChoice, Disk, OpenMode, SimDisk};
use crate::error::StorageError;
use crate::ids::{LogId, PageNumber};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::offline::OfflineState;
use crate::page::{Page, checksum};
use crate::store::{AppliedState, DataFile};
use crate::txn::Batch;
use crate::txn::record::{RECORD_HEADER_BYTES, Record};
use crate::versions::Image;

/// Where a record counts its freed runs, see `txn/record.rs`.
const FREED_COUNT_OFFSET: usize = 80;
/// A run behind the end of every file here, of so few pages that a look at each of them ends.
const BEHIND: (u32, u32) = (1 << 20, 100_000);

fn place() -> &'static Path {
    Path::new("/db")
}

fn put(batch: &mut Batch) {
    batch.create_tree("t").expect("new");
    batch.put("t", b"a", &[1; 20_000]).expect("fits");
    batch.put("t", b"b", &[1; 400_000]).expect("fits");
}

/// An engine with long values, and a record that comes next and frees one, staged and dropped.
fn engine_and_next_record() -> (SimDisk, Engine, Bytes) {
    let sim = SimDisk::new(1);
    let engine = create(&(Arc::new(sim.clone()) as Arc<dyn Disk>), place(), 1);
    commit(&engine, put);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.delete("t", b"a").expect("there");
    batch.commit_txn();
    let staged = batch.seal(1).expect("fits").expect("changed something");
    engine.drop_staged();
    (sim, engine, staged.payload.bytes().clone())
}

/// The same record, which frees pages more that never were.
fn with_a_run_behind_the_end(record: &[u8]) -> Vec<u8> {
    let freed = Record::decode(record).expect("sound").freed.len();
    assert!(freed > 0, "the record frees pages");
    let mut bytes = record.to_vec();
    bytes[FREED_COUNT_OFFSET..][..4].copy_from_slice(&(freed as u32 + 1).to_le_bytes());
    let behind = RECORD_HEADER_BYTES + 8 * freed;
    bytes.splice(behind..behind, [BEHIND.0, BEHIND.1].into_iter().flat_map(u32::to_le_bytes));
    bytes
}

/// Appends a record that apply refuses.
fn append_a_bad_one(engine: &Engine, record: &[u8]) -> LogId {
    let payload = Payload::new(with_a_run_behind_the_end(record).into());
    let bad = Frame::encode(FrameKind::Record, LogId::new(1, 1), None, engine.last_chain(), payload);
    append(engine, vec![bad.clone()]);
    engine.apply(&bad).expect_err("refused here too");
    bad.log_id()
}

fn assert_names(error: &str, frame: &str) {
    assert!(error.contains(&format!("frame {frame}: ")) && error.contains("a freed page behind the end"), "{error}");
}

#[test]
fn a_look_at_a_directory_stops_at_a_record_that_frees_what_never_was() {
    let (sim, engine, record) = engine_and_next_record();
    let bad = append_a_bad_one(&engine, &record);
    let disk: Arc<dyn Disk> = Arc::new(sim.crash(CrashChoice::KeepAll));
    let error = OfflineState::open(&disk, place(), Some(bad.index)).err().expect("refused");
    assert_names(&error.to_string(), &bad.index.to_string());
}

#[test]
fn blind_replay_stops_at_a_record_that_frees_what_never_was() {
    let (_, engine, record) = engine_and_next_record();
    engine.checkpoint().expect("works");
    let checkpoint = engine.checkpointed();
    let bad = append_a_bad_one(&engine, &record);
    let store = engine.core.store();
    let target = AppliedState { log_id: Some(bad), ..checkpoint.clone() };
    let replayed = replay_blindly(&store.data, &store.journal, &checkpoint, &target, &Faults::default());
    assert_names(&replayed.err().expect("refused").to_string(), &bad.to_string());
}

/// Page 0 in the file is newer than the records, and of a smaller state, whose length the file has already: what they free
/// lies behind both ends, and is no fault. Their diffs over that page 0 name their transaction, beside another page count.
#[test]
fn records_below_a_newer_page_0_free_what_was_there() {
    let (_, engine, _) = engine_and_next_record();
    // This record leaves the page count as it is, so its diff says nothing of it.
    commit(&engine, |batch| batch.put("t", b"c", &[2; 20]).map(drop).expect("fits"));
    commit(&engine, |batch| assert!(batch.delete("t", b"b").expect("there").is_some()));
    engine.checkpoint().expect("works");
    let store = engine.core.store();
    let shrunk = store.head.lock().view.superblock.page_count;
    let mut images = BTreeMap::new();
    let mut freed_end = 0;
    for_each_frame::<StorageError>(&store.journal, 1, 3, |frame| {
        let bytes = frame.payload().bytes();
        let record = Record::decode(bytes).expect("sound");
        freed_end = freed_end.max(record.freed.last().map_or(0, |(first, count)| first.0 + count));
        put_in_place(&store.data, &mut images, &record, bytes).expect("sound");
        Ok(())
    })
    .expect("readable");
    assert!(freed_end > shrunk, "pages up to {freed_end} were freed, and {shrunk} are left");
    let Some(Image::Page(page)) = images.get(&PageNumber(0)) else { panic!("every record changes page 0") };
    assert!(checksum::verify(PageNumber(0), page), "replay ends in the bytes of the state");
}

/// Where the end of the state is not known, a run costs what is there to be freed.
#[test]
fn without_a_page_0_a_freed_run_costs_no_more_than_what_is_there() {
    let (_, _, record) = engine_and_next_record();
    let bytes = with_a_run_behind_the_end(&record);
    let record = Record::decode(&bytes).expect("sound");
    let sim = SimDisk::new(1);
    let path = Path::new("/data");
    DataFile::create(&sim, path, &[Page::zeroed(), Page::zeroed(), Page::zeroed()]).expect("works");
    let data = DataFile::open(&sim, path, OpenMode::Write, 1 << 30).expect("there");
    let (inside, beyond) = (PageNumber(BEHIND.0 + 7), PageNumber(BEHIND.0 + BEHIND.1));
    let mut images: BTreeMap<PageNumber, Image> =
        [inside, beyond].into_iter().map(|number| (number, Image::Page(Arc::from(Page::zeroed())))).collect();
    put_in_place(&data, &mut images, &record, &bytes).expect("nothing is known against it");
    assert!(!images.contains_key(&inside), "a page that was put in place is free");
    assert!(images.contains_key(&beyond), "the one behind the run is not");
    assert!(images.len() <= 3 + 1 + record.full.len() + record.diffs.len(), "{} images", images.len());
}
