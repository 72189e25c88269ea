use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{FindingKind, OfflineState, check_directory};
use crate::engine::rig_test::{commit, create, options};
use crate::engine::{Engine, OpenError, Vote};
use crate::env::{Disk, RealDisk};
use crate::ids::{LogIndex, RaftId, Term};

fn put(engine: &crate::engine::Engine, rounds: std::ops::Range<u32>) {
    for round in rounds {
        commit(engine, |batch| {
            batch.create_tree("t").expect("works");
            for key in 0..10_u32 {
                batch.put("t", &(round * 3 + key).to_be_bytes(), &vec![round as u8; 900]).expect("fits");
            }
        });
    }
}

#[test]
fn a_directory_is_checked_without_a_change_and_only_when_no_node_has_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    put(&engine, 0..20);
    engine.checkpoint().expect("works");
    put(&engine, 20..30);
    let digest = engine.applied().digest;
    assert!(matches!(check_directory(&disk, home.path(), &mut |_| {}), Err(OpenError::Locked(_))));
    drop(engine);
    let report = check_directory(&disk, home.path(), &mut |_| {}).expect("readable");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.journal.as_ref().map(|journal| journal.frames), Some(30));
    let at_end = OfflineState::open(&disk, home.path(), Some(LogIndex(29))).expect("builds");
    assert_eq!(at_end.compute_digest().expect("readable"), digest);
}

#[test]
fn every_flipped_byte_of_the_data_file_is_found() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    put(&engine, 0..20);
    engine.checkpoint().expect("works");
    drop(engine);
    let file = std::fs::File::options().read(true).write(true).open(home.path().join("g1/data")).expect("there");
    let length = file.metadata().expect("readable").len();
    for offset in (0..length).step_by(4_099) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("readable");
        file.write_all_at(&[byte[0] ^ 0x10], offset).expect("writable");
        let report = check_directory(&disk, home.path(), &mut |_| {}).expect("the slots are fine");
        assert!(!report.is_clean(), "a flipped byte at {offset} of {length} was not found");
        file.write_all_at(&byte, offset).expect("writable");
    }
    assert!(check_directory(&disk, home.path(), &mut |_| {}).expect("readable").is_clean());
}

/// One slot of each file has rotted: the other one has the same, the check names the file, and a start mends it. With both
/// rotten no node starts.
#[test]
fn a_flipped_bit_of_a_slot_file_is_found_and_mended() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    for term in 1..4 {
        let vote = Vote { term: Term(term), node: Some(RaftId(1)), committed: false };
        engine.save_vote(vote, Box::new(|saved| saved.expect("saved"))).expect("queued");
    }
    put(&engine, 0..3);
    engine.checkpoint().expect("works");
    drop(engine);
    for name in ["node.meta", "vote"] {
        let path = home.path().join(name);
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("there");
        let slot_bytes = file.metadata().expect("readable").len() / 2;
        let flip = |offset: u64| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).expect("readable");
            file.write_all_at(&[byte[0] ^ 1], offset).expect("writable");
        };
        let check = || check_directory(&disk, home.path(), &mut |_| {});
        for slot in 0..2 {
            // The sequence of the slot's first part, and what follows it.
            for offset in [slot * slot_bytes + 8, slot * slot_bytes + 40] {
                flip(offset);
                let checked = check().expect("readable");
                assert_eq!(checked.findings.len(), 1, "{checked:?}");
                let finding = &checked.findings[0];
                assert_eq!((finding.kind, &finding.file), (FindingKind::OneSlot, &path), "{finding}");
                assert!(finding.what.contains(&format!("slot {slot}")), "{finding}");
                assert!(checked.pages.is_some_and(|pages| pages.is_clean()), "it goes on with the other slot");
                let (engine, report) =
                    Engine::open(disk.clone(), home.path(), options()).expect("the other one is whole");
                assert_eq!(report.mended_slots.len(), 1);
                assert_eq!(engine.vote().map(|vote| vote.term), Some(Term(3)));
                drop(engine);
                assert!(check().expect("mended").is_clean());
            }
        }
        flip(8);
        flip(slot_bytes + 40);
        let checked = check().expect("readable");
        assert!(checked.findings.iter().all(|finding| finding.kind == FindingKind::Slots), "{checked:?}");
        let error = Engine::open(disk.clone(), home.path(), options()).err().expect("damage").to_string();
        assert!(error.contains(name) && error.contains("slot 0") && error.contains("slot 1"), "{error}");
        assert!(error.contains("join again, under a new raft id"), "{error}");
        flip(8);
        flip(slot_bytes + 40);
    }
    let (engine, _) = Engine::open(disk, home.path(), options()).expect("mended");
    assert_eq!(engine.vote().map(|vote| vote.term), Some(Term(3)));
}
