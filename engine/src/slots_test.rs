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
    // Sequence 1 stands in slot 1, sequence 2 in slot 0. The second part of neither was ever written.
    let second = [
        0x43, 0x53, 0x4c, 0x54, 0x02, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00,
        0x00, 0x00, 0x28, 0x46, 0xc9, 0xb0, 0x60, 0xba, 0xa6, 0x7a, 0x73, 0x65, 0x63, 0x6f, 0x6e, 0x64, 0x20, 0x6f,
        0x6e, 0x65, 0x00, 0x00,
    ];
    let first = [
        0x43, 0x53, 0x4c, 0x54, 0x02, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00,
        0x00, 0x00, 0x57, 0xee, 0x71, 0x92, 0xe5, 0xf3, 0x5b, 0x79, 0x66, 0x69, 0x72, 0x73, 0x74, 0x00,
    ];
    let never_written = [
        0x43, 0x53, 0x4c, 0x54, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xfa, 0x1d, 0x22, 0xc9,
    ];
    for (slot, used) in [(0, &second[..]), (4096, &first)] {
        assert_eq!(bytes[slot..slot + used.len()], *used, "slot at {slot}");
        assert!(bytes[slot + used.len()..slot + 512].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[slot + 512..slot + 540], never_written);
        assert!(bytes[slot + 540..slot + 1024].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_newest_payload_comes_back() {
    let (_folder, disk, path) = real();
    let mut slots = SlotFile::create(&*disk, &path, SLOT_BYTES, b"").expect("create");
    for round in 0..7_u8 {
        let (opened, payload) = SlotFile::open(&*disk, &path, SLOT_BYTES).expect("open");
        assert_eq!(opened.sequence(), 1 + u64::from(round));
        assert_eq!(payload, vec![round; usize::from(round)]);
        slots.write(&vec![round + 1; usize::from(round) + 1]).expect("write");
    }
    let error = SlotFile::create(&*disk, &path, SLOT_BYTES, b"").err().expect("it is there");
    assert!(error.to_string().contains("already"), "{error}");
    assert_eq!(SlotFile::open(&*disk, &path, SLOT_BYTES).expect("open").1, [7; 7]);
}

fn damage(disk: &SimDisk, path: &Path) -> String {
    match SlotFile::open(disk, path, SLOT_BYTES).err() {
        Some(StorageError::Corrupted { file, what, .. }) if file == path => what,
        other => panic!("expected damage, got {other:?}"),
    }
}

/// Every byte of the newest payload's parts, and of the other slot's first one, which may be the newest as well.
#[test]
fn a_flipped_bit_is_damage_and_not_an_older_payload() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    SlotFile::create(&disk, path, SLOT_BYTES, &[1; 900]).expect("create").write(&[2; 900]).expect("write");
    for (slot, bytes) in [(0, 1024), (1, 512)] {
        for offset in slot * SLOT_BYTES..slot * SLOT_BYTES + bytes {
            disk.flip_bit(path, offset, (offset % 8) as u8);
            let what = damage(&disk, path);
            assert!(what.contains(&format!("slot {slot}")), "byte {offset}: {what}");
            disk.flip_bit(path, offset, (offset % 8) as u8);
        }
    }
    let (mut slots, payload) = SlotFile::open(&disk, path, SLOT_BYTES).expect("mended");
    assert_eq!(payload, [2; 900]);
    // The rest of the older payload is nobody's concern, and is written over.
    disk.flip_bit(path, SLOT_BYTES + 600, 0);
    assert_eq!(SlotFile::open(&disk, path, SLOT_BYTES).expect("open").1, [2; 900]);
    slots.write(&[3; 900]).expect("write");
    assert_eq!(SlotFile::open(&disk, path, SLOT_BYTES).expect("open").1, [3; 900]);
}

/// A write that never reached the disk, though its sync said so; and a sector that reads as zeros.
#[test]
fn a_lost_write_is_damage() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, b"1").expect("create");
    slots.write(b"2").expect("write");
    let file = disk.open(path, OpenMode::Write).expect("open");
    let mut old = [0; 512];
    file.read_exact_at(&mut old, 0).expect("read");
    slots.write(b"3").expect("write");
    slots.write(b"4").expect("write");
    slots.write(b"5").expect("write");
    file.write_at(&[std::io::IoSlice::new(&old)], 0).expect("write");
    assert!(damage(&disk, path).contains("sequences 2 and 5"));
    file.write_at(&[std::io::IoSlice::new(&[0; 512])], 0).expect("write");
    assert!(damage(&disk, path).contains("slot 0: no slot magic"));
}

/// All parts of a write are sound, each by itself, and come from writes of one number: it is a torn one, still.
#[test]
fn parts_of_two_writes_with_one_number_are_no_payload() {
    let path = Path::new("/vote");
    let disk = SimDisk::new(1);
    drop(SlotFile::create(&disk, path, SLOT_BYTES, &[1; 900]).expect("create"));
    disk.sync_dir(Path::new("/")).expect("sync");
    for seed in 0..60 {
        let mut disk = disk.kill();
        for payload in [2, 3, 4] {
            let mut slots = SlotFile::open(&disk, path, SLOT_BYTES).expect("open").0;
            disk.crash_after(1);
            slots.write(&[payload; 900]).expect_err("no power for the sync");
            disk = disk.crash(CrashChoice::Seeded(seed + u64::from(payload)));
            let found = SlotFile::open(&disk, path, SLOT_BYTES).expect("open").1;
            let whole = found.len() == 900 && found.iter().all(|byte| *byte == found[0]);
            assert!(whole && [1, 2, 3, payload].contains(&found[0]), "seed {seed}: {found:?}");
        }
    }
}

#[test]
fn a_short_file_is_damage() {
    let (_folder, disk, path) = real();
    drop(SlotFile::create(&*disk, &path, SLOT_BYTES, b"x").expect("create"));
    disk.open(&path, OpenMode::Write).expect("open").set_len(4500).expect("cut");
    let error = SlotFile::open(&*disk, &path, SLOT_BYTES).err().expect("its only payload is gone");
    assert!(error.to_string().contains("the file ends too early"), "{error}");
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
