//! What a disk does behind the engine's back, and what the scrub says of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::btree::{PageSource, ReadError};
use crate::damage::{DamagedPart, FoundBy};
use crate::engine::Engine;
use crate::engine::rig_test::{check, commit, create, options};
use crate::env::{Disk, Fault, OpenMode, RealDisk, SimDisk, Trouble};
use crate::error::StorageError;
use crate::ids::{LogIndex, PageNumber};
use crate::journal::frame::Frame;
use crate::offline::check_directory;
use crate::page::PAGE_BYTES;

pub(super) const KEYS: u16 = 900;
pub(super) const PLACE: &str = "/db";

pub(super) fn place() -> &'static Path {
    Path::new(PLACE)
}

pub(super) fn data() -> PathBuf {
    place().join("g1/data")
}

/// Keys 0..count, each with a value of its own in every round.
pub(super) fn put(engine: &Engine, round: u8, count: u16) -> Option<Frame> {
    commit(engine, |batch| {
        batch.create_tree("t").expect("works");
        for key in 0..count {
            batch.put("t", &key.to_be_bytes(), &[round; 300]).expect("fits");
        }
    })
}

/// An engine with some dozens of pages in its file, on a disk in memory.
pub(super) fn filled() -> (SimDisk, Engine) {
    let sim = SimDisk::new(1);
    let engine = create(&(Arc::new(sim.clone()) as Arc<dyn Disk>), place(), 1);
    for round in 0..3 {
        put(&engine, round, KEYS);
        engine.checkpoint().expect("works");
    }
    (sim, engine)
}

pub(super) fn byte_of(number: u32) -> u64 {
    u64::from(number) * PAGE_BYTES as u64
}

pub(super) fn parts(engine: &Engine) -> Vec<DamagedPart> {
    engine.damaged().into_iter().map(|damage| damage.part).collect()
}

fn is_refused(engine: &Engine, number: u32) -> bool {
    match engine.read().page(PageNumber(number)) {
        Err(ReadError::Storage(StorageError::DamagedPage { page, .. })) => page == PageNumber(number),
        _ => false,
    }
}

/// Where a frame stands: its segment's file, and the offset in it.
pub(super) fn place_of(engine: &Engine, index: LogIndex) -> (PathBuf, u64) {
    let position = engine.core.store().journal.position(index).expect("it is written");
    let segment_bytes = options().journal.segment_bytes;
    let segment = position.0 / segment_bytes;
    (place().join(format!("g1/journal/{segment:020}.seg")), position.0 % segment_bytes)
}

#[test]
fn a_sound_directory_is_read_whole_and_proven() {
    let (_, engine) = filled();
    let report = engine.scrub_now().expect("works");
    let status = engine.status();
    assert_eq!((report.pages, report.found, report.proven), (status.page_count, 0, true));
    assert_eq!(report.frames, 3);
    assert!(engine.damaged().is_empty());
    let scrub = engine.scrub_status();
    assert_eq!((scrub.passes, scrub.last, scrub.running, scrub.expected_pass), (1, Some(report), None, None));
    // Pages that have a version when the scrub comes by are read at the end.
    put(&engine, 9, KEYS);
    let report = engine.scrub_now().expect("works");
    assert!(report.proven && report.found == 0);
    // A node that has just started knows nothing but the digest.
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let home = tempfile::tempdir().expect("a temporary directory");
    drop(create(&disk, home.path(), 1));
    let (engine, _) = Engine::open(disk, home.path(), options()).expect("opens");
    put(&engine, 1, 500);
    assert!(engine.scrub_now().expect("works").proven);
}

/// One flipped bit in each page, one after the other: found, named, not served; and served again when it is right.
#[test]
fn a_flipped_bit_of_any_page_is_found_and_not_served() {
    let (sim, engine) = filled();
    let page_count = u32::try_from(engine.status().page_count).expect("few");
    assert!(page_count > 30);
    for number in 0..page_count {
        let offset = byte_of(number) + u64::from(number) * 37 % PAGE_BYTES as u64;
        sim.flip_bit(&data(), offset, 3);
        engine.scrub_now().expect("works");
        sim.flip_bit(&data(), offset, 3);
        let found = engine.damaged();
        if found.is_empty() {
            // It should be free, and the scrub has made it zeros: flipped back it is damaged.
            engine.scrub_now().expect("works");
            assert!(engine.read().page(PageNumber(number)).expect("free").is_zero());
            continue;
        }
        assert_eq!(found.len(), 1, "page {number}: {found:?}");
        assert_eq!((found[0].part, found[0].found_by), (DamagedPart::Page(PageNumber(number)), FoundBy::Scrub));
        assert_eq!((&found[0].file, found[0].offset), (&data(), byte_of(number)));
        assert!(is_refused(&engine, number), "page {number} is served");
        let page = sim.open(&data(), OpenMode::Read).expect("there");
        let mut bytes = vec![0; PAGE_BYTES];
        page.read_exact_at(&mut bytes, byte_of(number)).expect("there");
        engine.repair_page(PageNumber(number), &bytes).expect("these are the bytes");
        assert!(!is_refused(&engine, number));
    }
    assert!(engine.damaged().is_empty());
    check(&engine);
    let counts = engine.damage_counts();
    assert_eq!((counts.open, counts.found), (0, counts.repaired));
}

#[test]
fn a_read_finds_damage_too_and_nothing_is_built_on_it() {
    let (sim, engine) = filled();
    drop(engine);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (engine, _) = Engine::open(disk, place(), options()).expect("opens");
    let leaf = leaf_of(&engine);
    sim.flip_bit(&data(), byte_of(leaf) + 4000, 0);
    assert!(is_refused(&engine, leaf));
    let found = engine.damaged();
    assert_eq!((found.len(), found[0].found_by), (1, FoundBy::Read));
    assert!(found[0].what.contains("checksum"), "{found:?}");
    // Every way to it says so, and changes nothing.
    let read = engine.read();
    let refused = (0..KEYS).filter(|key| read.get("t", &key.to_be_bytes()).is_err()).count();
    assert!(refused > 0 && refused < usize::from(KEYS), "{refused} keys are refused");
    drop(read);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    let failed = (0..KEYS).filter(|key| batch.put("t", &key.to_be_bytes(), b"new").is_err()).count();
    assert!(failed > 0, "a damaged page is the base of a change");
    batch.rollback_txn();
    drop(batch);
    engine.drop_staged();
    assert_eq!(parts(&engine), [DamagedPart::Page(PageNumber(leaf))]);
}

/// A leaf of tree `t`: the page that holds its first key.
pub(super) fn leaf_of(engine: &Engine) -> u32 {
    let read = engine.read();
    let page_count = u32::try_from(engine.status().page_count).expect("few");
    let holds = |number: &u32| {
        let page = read.page(PageNumber(*number)).expect("sound");
        page.kind() == Some(crate::page::PageKind::Leaf) && page.bytes().windows(300).any(|bytes| bytes == [2; 300])
    };
    (2..page_count).find(holds).expect("a tree has leaves")
}

/// A page that was acknowledged and never written, or written elsewhere: the old content carries its own checksum, and the
/// scrub tells it all the same. Every write of a checkpoint, one at a time.
#[test]
fn an_old_page_is_found_whichever_write_was_lost_or_misdirected() {
    let mut found = 0;
    for (fault, writes) in [Fault::LostWrite, Fault::MisdirectedWrite(3 * PAGE_BYTES as u64)]
        .into_iter()
        .flat_map(|fault| (0..200).step_by(2).map(move |writes| (fault, writes)))
    {
        let (sim, engine) = filled();
        put(&engine, 7, KEYS);
        sim.plan(Trouble::new(fault).of("data").after(writes));
        engine.checkpoint().expect("the disk says that all is well");
        if sim.faults_happened() == 0 {
            break;
        }
        let report = engine.scrub_now().expect("works");
        let parts = parts(&engine);
        assert!(
            report.found >= 1 && parts.iter().all(|part| matches!(part, DamagedPart::Page(_))),
            "{fault:?} {writes}"
        );
        for part in &parts {
            let DamagedPart::Page(number) = part else { unreachable!("looked at above") };
            assert!(is_refused(&engine, number.0), "{fault:?} {writes}: {part} is served");
        }
        if parts.is_empty() {
            continue; // it should be free, and is zeros by now
        }
        found += 1;
        // What is left is right, or refused.
        let read = engine.read();
        for key in 0..KEYS {
            if let Ok(entry) = read.get("t", &key.to_be_bytes()) {
                let value = entry.expect("it was put").value.to_vec();
                assert!(value.is_err() || value.is_ok_and(|value| value == [7; 300]), "{fault:?} {writes}: key {key}");
            }
        }
        drop(read);
        drop(engine);
        sim.forget_troubles();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let checked = check_directory(&disk, place(), &mut |_| {});
        assert!(!checked.is_ok_and(|report| report.is_clean()), "{fault:?} {writes}: the check finds it as well");
        // The next start does not know any more which page it is; but that it is one.
        let (engine, _) = match Engine::open(Arc::new(sim.clone()), place(), options()) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.to_string().contains("page 0"), "{error}");
                continue;
            }
        };
        let report = engine.scrub_now().expect("works");
        assert!(!report.proven && !engine.damaged().is_empty(), "{fault:?} {writes}: {report:?}");
    }
    assert!(found > 8, "only {found} writes went wrong");
}

/// A file that was cut short, and one whose sectors cannot be read.
#[test]
fn what_cannot_be_read_is_damage() {
    let (sim, engine) = filled();
    engine.scrub_now().expect("works");
    sim.plan(Trouble::new(Fault::FailRead).of("data").times(2));
    engine.scrub_now().expect("the disk is no better for an error");
    assert_eq!(parts(&engine), [DamagedPart::Page(PageNumber(0))], "the piece, then its first page");
    let page_count = u32::try_from(engine.status().page_count).expect("few");
    sim.open(&data(), OpenMode::Write).expect("there").set_len(byte_of(page_count - 3)).expect("cut");
    engine.scrub_now().expect("works");
    assert!(parts(&engine).len() > 1, "{:?}", engine.damaged());
}

#[test]
fn slots_are_mended_on_the_spot() {
    let (sim, engine) = filled();
    for (file, offset) in [("node.meta", 30), ("node.meta", 16_400), ("vote", 3), ("vote", 4_099)] {
        sim.flip_bit(&place().join(file), offset, 0);
    }
    engine.scrub_now().expect("works");
    let counts = engine.damage_counts();
    assert_eq!((counts.open, counts.found, counts.repaired), (0, 4, 4));
    drop(engine);
    let (_, report) = Engine::open(Arc::new(sim), place(), options()).expect("opens");
    assert_eq!(report.mended_slots, []);
}
