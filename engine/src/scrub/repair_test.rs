//! Which bytes are taken for a repair, and what a power cut leaves of one.

use std::sync::Arc;

use super::RepairError;
use super::scrub_test::{KEYS, byte_of, data, filled, leaf_of, parts, place, place_of, put};
use crate::btree::{PageSource, ReadError};
use crate::damage::DamagedPart;
use crate::engine::Engine;
use crate::engine::rig_test::{append, check, contents, create, options};
use crate::env::{CrashChoice, Disk, OpenMode, SimDisk};
use crate::error::StorageError;
use crate::ids::{LogIndex, PageNumber};
use crate::journal::frame::{Frame, FrameKind};
use crate::page::{PAGE_BYTES, Page, checksum};
use crate::store::ApplyError;

fn page_in(sim: &SimDisk, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    sim.open(&data(), OpenMode::Read).expect("there").read_exact_at(&mut bytes, byte_of(number)).expect("there");
    bytes
}

fn reopened(sim: &SimDisk) -> Engine {
    Engine::open(Arc::new(sim.clone()) as Arc<dyn Disk>, place(), options()).expect("opens").0
}

fn choices() -> impl Iterator<Item = CrashChoice> {
    [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..30).map(CrashChoice::Seeded))
}

#[test]
fn only_what_must_stand_there_is_taken() {
    let (sim, engine) = filled();
    engine.scrub_now().expect("works");
    let leaf = leaf_of(&engine);
    let number = PageNumber(leaf);
    let right = page_in(&sim, leaf);
    assert!(matches!(engine.repair_page(number, &right), Err(RepairError::NotDamaged(_))));
    sim.flip_bit(&data(), byte_of(leaf) + 5000, 1);
    engine.scrub_now().expect("works");
    let operations = sim.operation_count();
    for wrong in [&right[1..], &[], &page_in(&sim, leaf), &page_in(&sim, leaf + 1), &[0xAA; PAGE_BYTES]] {
        let refused = engine.repair_page(number, wrong);
        assert!(matches!(refused, Err(RepairError::NotThePage { .. })), "{refused:?}");
    }
    // Well made, and of another time; and a page that is free.
    let mut forged = Page::from_ref(right.first_chunk().expect("a page")).clone();
    forged.bytes_mut()[6000] ^= 1;
    checksum::seal(number, &mut forged);
    for wrong in [&forged.bytes()[..], &[0; PAGE_BYTES]] {
        let refused = engine.repair_page(number, wrong);
        assert!(matches!(refused, Err(RepairError::OtherVersion { .. })), "{refused:?}");
    }
    assert_eq!(sim.operation_count(), operations, "nothing was written");
    engine.repair_page(number, &right).expect("it is the page");
    assert!(page_in(&sim, leaf) == right);
    assert!(engine.damaged().is_empty() && engine.scrub_now().expect("works").proven);
    check(&engine);
}

/// Damaged before anybody read them in this process: what they must hold is what the digest lacks.
#[test]
fn pages_that_nobody_has_read_are_taken_by_the_digest() {
    let (sim, engine) = filled();
    let (one, other) = (leaf_of(&engine), leaf_of(&engine) + 1);
    drop(engine);
    let right = [page_in(&sim, one), page_in(&sim, other)];
    // In the header of one, so that not even the checksum that it carried is left.
    sim.flip_bit(&data(), byte_of(one) + 3, 1);
    sim.flip_bit(&data(), byte_of(other) + 3000, 1);
    let engine = reopened(&sim);
    assert!(matches!(engine.read().page(PageNumber(one)), Err(ReadError::Storage(StorageError::DamagedPage { .. }))));
    let early = engine.repair_page(PageNumber(one), &right[0]);
    assert!(matches!(early, Err(RepairError::NotKnownYet(_))), "{early:?}");
    let report = engine.scrub_now().expect("works");
    assert!(!report.proven);
    assert_eq!(parts(&engine).len(), 2);
    let mut forged = Page::from_ref(right[1].first_chunk().expect("a page")).clone();
    forged.bytes_mut()[6000] ^= 1;
    checksum::seal(PageNumber(other), &mut forged);
    let kept = engine.repair_page(PageNumber(other), forged.bytes());
    assert!(matches!(kept, Err(RepairError::Kept(_))), "{kept:?}");
    let together = engine.repair_page(PageNumber(one), &right[0]);
    assert!(matches!(together, Err(RepairError::OtherVersion { .. })), "{together:?}");
    assert_eq!(parts(&engine).len(), 2, "with a forged one among them nothing is taken");
    let kept = engine.repair_page(PageNumber(other), &right[1]);
    assert!(matches!(kept, Err(RepairError::Kept(_))), "{kept:?}");
    engine.repair_page(PageNumber(one), &right[0]).expect("both are right");
    assert!(engine.damaged().is_empty() && engine.scrub_now().expect("works").proven);
    assert!(page_in(&sim, one) == right[0] && page_in(&sim, other) == right[1]);
    check(&engine);
}

/// The power goes at every operation of a repair: the page is right, or refused, and then it can be repaired.
#[test]
fn a_power_cut_in_a_repair_leaves_the_page_right_or_refused() {
    let (sim, engine) = filled();
    let leaf = leaf_of(&engine);
    let number = PageNumber(leaf);
    let before = contents(&engine, "t");
    drop(engine);
    let right = page_in(&sim, leaf);
    // All of it is other bytes, so that a torn write shows.
    for at in 0..PAGE_BYTES as u64 {
        sim.flip_bit(&data(), byte_of(leaf) + at, 2);
    }
    let (mut whole, mut refused) = (0, 0);
    for boundary in 0..=3 {
        let disk = sim.kill();
        let engine = reopened(&disk);
        engine.scrub_now().expect("works");
        disk.crash_after(boundary);
        let repaired = engine.repair_page(number, &right);
        assert_eq!(repaired.is_ok(), boundary >= 3, "boundary {boundary}: {repaired:?}");
        for choice in choices() {
            let after = disk.crash(choice);
            let engine = reopened(&after);
            match engine.read().page(number) {
                Ok(page) => {
                    assert!(page.bytes()[..] == right[..], "boundary {boundary}, {choice:?}");
                    whole += 1;
                }
                Err(ReadError::Storage(StorageError::DamagedPage { .. })) => {
                    assert!(repaired.is_err(), "boundary {boundary}, {choice:?}: it was said to be repaired");
                    refused += 1;
                    engine.scrub_now().expect("works");
                    engine.repair_page(number, &right).expect("once more");
                }
                Err(error) => panic!("boundary {boundary}, {choice:?}: {error}"),
            }
            assert_eq!(contents(&engine, "t"), before);
            assert!(engine.scrub_now().expect("works").proven);
        }
    }
    assert!(whole > 30 && refused > 30, "{whole} whole, {refused} refused");
}

/// After a repair whose write or sync failed nothing is written any more, as after any other.
#[test]
fn a_repair_that_cannot_be_written_stops_the_data_file() {
    let (sim, engine) = filled();
    engine.scrub_now().expect("works");
    let leaf = leaf_of(&engine);
    let right = page_in(&sim, leaf);
    sim.flip_bit(&data(), byte_of(leaf) + 5000, 1);
    engine.scrub_now().expect("works");
    sim.fail_next_sync_of(&data());
    assert!(matches!(engine.repair_page(PageNumber(leaf), &right), Err(RepairError::Storage(_))));
    assert!(engine.status().failed.is_some() && !engine.damaged().is_empty());
    assert!(matches!(engine.repair_page(PageNumber(leaf), &right), Err(RepairError::Storage(_))));
}

#[test]
fn copies_of_a_page_are_what_versions_and_file_hold() {
    let (_, engine) = filled();
    let leaf = PageNumber(leaf_of(&engine));
    let in_file = engine.copies_of_page(leaf).expect("readable");
    assert_eq!(in_file.len(), 1);
    put(&engine, 8, KEYS);
    let both = engine.copies_of_page(leaf).expect("readable");
    assert_eq!(both.len(), 2);
    let bytes = |page: &Page| page.bytes().to_vec();
    assert!(bytes(&both[1]) == bytes(&in_file[0]) && bytes(&both[0]) != bytes(&in_file[0]));
    engine.checkpoint().expect("works");
    let written = engine.copies_of_page(leaf).expect("readable");
    assert!(written.len() == 1 && bytes(&written[0]) == bytes(&both[0]));
}

#[test]
fn only_the_frame_that_must_stand_there_is_written() {
    let (sim, engine) = filled();
    let frames = engine.read_frames(LogIndex(0), LogIndex(3), 1 << 30).expect("kept");
    assert!(matches!(engine.repair_frame(&frames[1]), Err(RepairError::NotDamaged(_))));
    let (file, offset) = place_of(&engine, LogIndex(1));
    let before = sim.crash(CrashChoice::KeepAll);
    sim.flip_bit(&file, offset + 60, 1);
    sim.flip_bit(&file, offset + 7000, 1);
    engine.scrub_now().expect("works");
    assert_eq!(parts(&engine), [DamagedPart::Frame(frames[1].log_id())]);
    let forged =
        Frame::encode(FrameKind::Record, frames[1].log_id(), None, frames[0].chain(), frames[2].payload().clone());
    let operations = sim.operation_count();
    let refused = engine.repair_frame(&forged);
    assert!(matches!(refused, Err(RepairError::OtherFrame)), "{refused:?}");
    assert_eq!(sim.operation_count(), operations, "nothing was written");
    engine.repair_frame(&frames[1]).expect("it is the frame");
    assert!(engine.damaged().is_empty());
    assert_eq!(engine.scrub_now().expect("works").found, 0);
    let bytes = |disk: &SimDisk| {
        let mut bytes = vec![0; 1 << 20];
        disk.open(&file, OpenMode::Read).expect("there").read_exact_at(&mut bytes, 0).expect("there");
        bytes
    };
    assert!(bytes(&sim) == bytes(&before), "byte for byte what was written first");
    put(&engine, 9, 100);
    drop(engine);
    check(&reopened(&sim));
}

/// The power goes at every operation of a frame's repair: the journal opens whole, or says where it is damaged.
#[test]
fn a_power_cut_in_the_repair_of_a_frame_loses_no_other() {
    let (sim, engine) = filled();
    let frames = engine.read_frames(LogIndex(0), LogIndex(3), 1 << 30).expect("kept");
    let (file, offset) = place_of(&engine, LogIndex(1));
    let (mut whole, mut refused) = (0, 0);
    drop(engine);
    for boundary in 0..=3 {
        let disk = sim.kill();
        let engine = reopened(&disk);
        for at in (0..frames[1].frame_bytes() as u64).step_by(200) {
            disk.flip_bit(&file, offset + at, 2);
        }
        engine.scrub_now().expect("works");
        disk.crash_after(boundary);
        let repaired = engine.repair_frame(&frames[1]);
        assert_eq!(repaired.is_ok(), boundary >= 3, "boundary {boundary}: {repaired:?}");
        for choice in choices() {
            let after = disk.crash(choice);
            match Engine::open(Arc::new(after.clone()) as Arc<dyn Disk>, place(), options()) {
                Ok((engine, _)) => {
                    let found = engine.read_frames(LogIndex(0), LogIndex(3), 1 << 30).expect("kept");
                    assert!(found.iter().zip(&frames).all(|(found, frame)| found.chain() == frame.chain()));
                    assert_eq!(found.len(), 3);
                    whole += 1;
                }
                Err(error) => {
                    assert!(repaired.is_err(), "boundary {boundary}, {choice:?}: {error}");
                    assert!(error.to_string().contains("damaged"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(whole > 30 && refused > 30, "{whole} whole, {refused} refused");
}

/// A follower's page is damaged, and the next frame changes it: the frame is refused, with nothing of it applied, until the
/// leader's copy of the page, as it was before, has taken its place.
#[test]
fn a_frame_that_changes_a_damaged_page_applies_after_the_repair() {
    let (_, leader) = filled();
    let sim = SimDisk::new(2);
    let follower = create(&(Arc::new(sim.clone()) as Arc<dyn Disk>), place(), 2);
    let follow = |upto: u64| {
        let from = follower.log_state().last.map_or(0, |last| last.index.0 + 1);
        let frames = leader.read_frames(LogIndex(from), LogIndex(upto), 1 << 30).expect("kept");
        append(&follower, frames.clone());
        frames
    };
    for frame in follow(3) {
        follower.apply(&frame).expect("applies");
    }
    follower.checkpoint().expect("works");
    let number = PageNumber(leaf_of(&follower));
    sim.flip_bit(&data(), byte_of(number.0) + 5000, 1);
    follower.scrub_now().expect("works");
    let before = follower.applied();
    put(&leader, 9, KEYS);
    let frame = follow(4).remove(0);
    for _ in 0..2 {
        let refused = follower.apply(&frame);
        let damaged =
            matches!(&refused, Err(ApplyError::Storage(StorageError::DamagedPage { page, .. })) if *page == number);
        assert!(damaged, "{refused:?}");
        assert_eq!(follower.applied(), before);
    }
    let copies = leader.copies_of_page(number).expect("readable");
    let taken: Vec<bool> = copies.iter().map(|copy| follower.repair_page(number, copy.bytes()).is_ok()).collect();
    assert_eq!(taken, [false, true], "the page as it is now, and as it was");
    follower.apply(&frame).expect("applies");
    assert_eq!(follower.applied(), leader.applied());
    check(&follower);
}
