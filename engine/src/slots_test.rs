//! The slot file, on real files and under power cuts.

use std::path::Path;
use std::sync::Arc;

use crate::env::{CrashChoice, Disk, OpenMode, RealDisk, SimDisk};
use crate::error::StorageError;
use crate::slots::SlotFile;

const SLOT_BYTES: u64 = 4096;

fn real() -> (tempfile::TempDir, Arc<dyn Disk>, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vote");
    (folder, Arc::new(RealDisk::new()), path)
}

#[test]
fn golden_bytes() {
    let (_folder, disk, path) = real();
    SlotFile::create(&*disk, &path, SLOT_BYTES, b"first").expect("create").write(b"second one").expect("write");
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!(bytes.len(), 8192);
    // Sequence 1 stands in slot 1, sequence 2 in slot 0.
    let second = [
        0x43, 0x53, 0x4c, 0x54, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0x51, 0x9e, 0xbd, 0xba, b's', b'e',
        b'c', b'o', b'n', b'd', b' ', b'o', b'n', b'e', 0, 0,
    ];
    let first = [
        0x43, 0x53, 0x4c, 0x54, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0x5e, 0x1a, 0x29, 0x5a, b'f', b'i',
        b'r', b's', b't', 0, 0,
    ];
    assert_eq!(bytes[..second.len()], second, "slot 0");
    assert_eq!(bytes[4096..4096 + first.len()], first, "slot 1");
    assert!(bytes[second.len()..4096].iter().chain(&bytes[4096 + first.len()..]).all(|byte| *byte == 0));
}

#[test]
fn the_newest_payload_comes_back() {
    let (_folder, disk, path) = real();
    let mut slots = SlotFile::create(&*disk, &path, SLOT_BYTES, b"").expect("create");
    for round in 0..7_u8 {
        let (opened, payload) = SlotFile::open(&*disk, &path, SLOT_BYTES).expect("open");
        assert_eq!((opened.damaged_slot(), opened.sequence()), (None, 1 + u64::from(round)));
        assert_eq!(payload, vec![round; usize::from(round)]);
        slots.write(&vec![round + 1; usize::from(round) + 1]).expect("write");
    }
    let error = SlotFile::create(&*disk, &path, SLOT_BYTES, b"").err().expect("it is there");
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(SlotFile::open(&*disk, &path, SLOT_BYTES).expect("open").1, [7; 7]);
}

/// Every bit of the used bytes of a slot: the other slot answers, and says so.
#[test]
fn a_flipped_bit_is_never_taken_for_a_payload() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    SlotFile::create(&disk, path, SLOT_BYTES, b"old one").expect("create").write(b"new").expect("write");
    let used = (24 + 3) as u64;
    for offset in 0..used {
        let bit = (offset % 8) as u8;
        disk.flip_bit(path, offset, bit);
        let (slots, payload) = SlotFile::open(&disk, path, SLOT_BYTES).expect("the other slot is valid");
        assert_eq!((payload.as_slice(), slots.damaged_slot()), (&b"old one"[..], Some(0)), "byte {offset}");
        disk.flip_bit(path, offset, bit);
    }
    let (mut slots, payload) = SlotFile::open(&disk, path, SLOT_BYTES).expect("mended");
    assert_eq!((payload.as_slice(), slots.damaged_slot()), (&b"new"[..], None));
    disk.flip_bit(path, 4096, 0);
    slots.write(b"goes over the bad slot").expect("write");
    let (slots, payload) = SlotFile::open(&disk, path, SLOT_BYTES).expect("open");
    assert_eq!((payload.as_slice(), slots.damaged_slot()), (&b"goes over the bad slot"[..], None));
    disk.flip_bit(path, 0, 0);
    disk.flip_bit(path, 4100, 0);
    match SlotFile::open(&disk, path, SLOT_BYTES).err() {
        Some(StorageError::Corrupted { file, what, .. }) => {
            assert_eq!(file, path);
            assert!(what.contains("slot 0: no slot magic") && what.contains("slot 1: it does not match"), "{what}");
        }
        other => panic!("expected damage, got {other:?}"),
    }
}

#[test]
fn a_short_file_is_damage() {
    let (_folder, disk, path) = real();
    drop(SlotFile::create(&*disk, &path, SLOT_BYTES, b"x").expect("create"));
    disk.open(&path, OpenMode::Write).expect("open").set_len(5000).expect("cut");
    let error = SlotFile::open(&*disk, &path, SLOT_BYTES).err().expect("its only payload is gone");
    assert!(error.to_string().contains("904 of 4096"), "{error}");
}

/// A process is killed at every operation, after its last sync failed or not; the next one reads a payload. That it has
/// said what it read is as good as a promise: a power cut does not take it back.
#[test]
fn kills_and_then_a_power_cut() {
    let payloads: Vec<Vec<u8>> = (1..6_u8).map(|round| vec![round; 700 * usize::from(round)]).collect();
    let (path, root) = (Path::new("/vote"), Path::new("/"));
    let mut opened = 0;
    for boundary in 0..20 {
        for failed_sync in [false, true] {
            let disk = SimDisk::new(7);
            disk.crash_after(boundary);
            let outcome = SlotFile::create(&disk, path, SLOT_BYTES, &payloads[0])
                .and_then(|mut slots| payloads[1..].iter().try_for_each(|payload| slots.write(payload)));
            let next = disk.kill();
            if !next.exists(path).expect("the power is on") {
                assert!(outcome.is_err());
                continue;
            }
            if failed_sync {
                next.fail_next_sync();
                next.open(path, OpenMode::Write).expect("it is there").sync_data().expect_err("told to fail");
            }
            next.sync_dir(root).expect("sync");
            let payload = SlotFile::open(&next, path, SLOT_BYTES).expect("open").1;
            for choice in
                [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..5).map(CrashChoice::Seeded))
            {
                let after = SlotFile::open(&next.crash(choice), path, SLOT_BYTES).expect("open").1;
                assert_eq!(after, payload, "boundary {boundary}, failed: {failed_sync}, {choice:?}");
            }
            opened += 1;
        }
    }
    assert!(opened > 15, "only {opened} kills left a file");
}

/// While the newest payload is made durable, the one before it stays: the power may go in the middle of that, too.
#[test]
fn opening_risks_no_older_payload() {
    let path = Path::new("/vote");
    let disk = SimDisk::new(7);
    let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, &[1; 2000]).expect("create");
    slots.write(&[2; 2000]).expect("write");
    disk.fail_next_sync();
    slots.write(&[3; 2000]).expect_err("told to fail");
    for boundary in 0..3 {
        let next = disk.kill();
        next.crash_after(boundary);
        let opened = SlotFile::open(&next, path, SLOT_BYTES).is_ok();
        assert_eq!(opened, boundary == 2);
        for choice in [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..50).map(CrashChoice::Seeded)) {
            let found = SlotFile::open(&next.crash(choice), path, SLOT_BYTES).expect("open").1;
            assert!(found == [3; 2000] || (!opened && found == [2; 2000]), "boundary {boundary}, {choice:?}");
        }
    }
}

#[test]
fn reading_changes_nothing() {
    let path = Path::new("/vote");
    let disk = SimDisk::new(7);
    SlotFile::create(&disk, path, SLOT_BYTES, b"one").expect("create").write(b"two").expect("write");
    let operations = disk.operation_count();
    assert_eq!(SlotFile::read(&disk, path, SLOT_BYTES).expect("read"), b"two");
    assert_eq!(disk.operation_count(), operations);
}

/// A power cut at every operation: the payload is the last one acknowledged, or the one in flight, never less.
#[test]
fn power_cuts() {
    let payloads: Vec<Vec<u8>> = (1..6_u8).map(|round| vec![round; 700 * usize::from(round)]).collect();
    for boundary in 0..40 {
        let disk = SimDisk::new(7);
        disk.crash_after(boundary);
        let path = Path::new("/vote");
        let mut acknowledged = None;
        let outcome = SlotFile::create(&disk, path, SLOT_BYTES, &payloads[0]).and_then(|mut slots| {
            acknowledged = Some(0);
            for (round, payload) in payloads.iter().enumerate().skip(1) {
                slots.write(payload)?;
                acknowledged = Some(round);
            }
            Ok(())
        });
        let choices = [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain((0..20).map(CrashChoice::Seeded));
        for choice in choices {
            let after = disk.crash(choice);
            let found = SlotFile::open(&after, path, SLOT_BYTES);
            let context = format!("boundary {boundary}, {choice:?}, acknowledged {acknowledged:?}");
            match (acknowledged, found) {
                (None, Err(_)) => {
                    SlotFile::create(&after, path, SLOT_BYTES, b"again").expect("a half-made file is in nobody's way");
                }
                (None, Ok((_, payload))) => assert_eq!(payload, payloads[0], "{context}"),
                (Some(_), Err(error)) => panic!("{context}: {error}"),
                (Some(last), Ok((mut slots, payload))) => {
                    let in_flight = payloads.get(last + 1).is_some_and(|next| *next == payload);
                    assert!(payload == payloads[last] || in_flight, "{context}");
                    slots.write(b"goes on").expect("write");
                    assert_eq!(SlotFile::open(&after, path, SLOT_BYTES).expect("open").1, b"goes on", "{context}");
                }
            }
        }
        assert_eq!(outcome.is_ok(), boundary >= 14, "boundary {boundary}");
    }
}
