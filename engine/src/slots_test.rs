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
    // Both slots hold the newest payload; their second parts were never written.
    let zero = [
        0x43, 0x53, 0x4c, 0x54, 0x03, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00,
        0x00, 0x00, 0x28, 0x46, 0xc9, 0xb0, 0x7d, 0x4f, 0x96, 0x76, 0x73, 0x65, 0x63, 0x6f, 0x6e, 0x64, 0x20, 0x6f,
        0x6e, 0x65, 0x00, 0x00,
    ];
    let one = [
        0x43, 0x53, 0x4c, 0x54, 0x03, 0x00, 0x08, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00,
        0x00, 0x00, 0x28, 0x46, 0xc9, 0xb0, 0xbc, 0xb7, 0x5f, 0x42, 0x73, 0x65, 0x63, 0x6f, 0x6e, 0x64, 0x20, 0x6f,
        0x6e, 0x65, 0x00, 0x00,
    ];
    let never_written = [
        [
            0x43, 0x53, 0x4c, 0x54, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe7, 0xe8, 0x12, 0xc5,
        ],
        [
            0x43, 0x53, 0x4c, 0x54, 0x03, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x26, 0x10, 0xdb, 0xf1,
        ],
    ];
    for (at, used, unused) in [(0, zero, never_written[0]), (4096, one, never_written[1])] {
        assert_eq!(bytes[at..at + used.len()], used, "slot at {at}");
        assert!(bytes[at + used.len()..at + 512].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[at + 512..at + 540], unused);
        assert!(bytes[at + 540..at + 1024].iter().all(|byte| *byte == 0));
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

/// Flips bits of a file, and flips them back when it goes.
struct Flipped<'a>(&'a SimDisk, Vec<u64>);

impl<'a> Flipped<'a> {
    fn new(disk: &'a SimDisk, offsets: Vec<u64>) -> Self {
        offsets.iter().for_each(|offset| disk.flip_bit(Path::new("/vote"), *offset, (offset % 8) as u8));
        Self(disk, offsets)
    }
}

impl Drop for Flipped<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|offset| self.0.flip_bit(Path::new("/vote"), *offset, (offset % 8) as u8));
    }
}

/// Every byte of either slot: the other one has the payload, and the bad one is named, and mended by opening.
#[test]
fn a_flipped_bit_in_one_slot_loses_nothing() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    SlotFile::create(&disk, path, SLOT_BYTES, &[1; 900]).expect("create").write(&[2; 900]).expect("write");
    for slot in 0..2 {
        for offset in slot * SLOT_BYTES..slot * SLOT_BYTES + 1024 {
            let flipped = Flipped::new(&disk, vec![offset]);
            let look = SlotFile::look(&disk, path, SLOT_BYTES).expect("the other one is whole");
            assert_eq!(look.payload, [2; 900]);
            let damage = look.damage.expect("named");
            assert!(damage.what.contains(&format!("slot {slot}")), "byte {offset}: {damage:?}");
            drop(flipped);
        }
        let offset = slot * SLOT_BYTES + 700;
        disk.flip_bit(path, offset, 3);
        let (slots, payload) = SlotFile::open(&disk, path, SLOT_BYTES).expect("the other one is whole");
        assert_eq!((payload, slots.mended().map(|damage| damage.offset)), (vec![2; 900], Some(slot * SLOT_BYTES)));
        assert_eq!(SlotFile::look(&disk, path, SLOT_BYTES).expect("look").damage, None, "mended");
    }
}

/// Both slots at once: the file does not open, and says why; nothing is written.
#[test]
fn a_flipped_bit_in_both_slots_is_damage() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    SlotFile::create(&disk, path, SLOT_BYTES, &[1; 900]).expect("create").write(&[2; 900]).expect("write");
    for offset in (0..1024).step_by(7) {
        let _flipped = Flipped::new(&disk, vec![offset, SLOT_BYTES + 1023 - offset]);
        let operations = disk.operation_count();
        match SlotFile::open(&disk, path, SLOT_BYTES).err() {
            Some(StorageError::Corrupted { file, what, .. }) if file == path => {
                assert!(what.contains("slot 0: part") && what.contains("slot 1: part"), "{what}");
            }
            other => panic!("expected damage, got {other:?}"),
        }
        assert_eq!(disk.operation_count(), operations);
    }
}

/// A write of one slot that never reached the disk, though its sync said so, or that landed in the other one: what counts
/// is in the other slot. Every write that there is, one at a time; the payload is never older than what counts.
#[test]
fn a_lost_or_misdirected_write_loses_nothing() {
    use crate::env::{Fault, Trouble};
    let path = Path::new("/vote");
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite(SLOT_BYTES), Fault::MisdirectedWrite(512)] {
        for writes in 0..8 {
            let disk = SimDisk::new(1);
            let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, &[0; 900]).expect("create");
            disk.plan(Trouble::new(fault).of("vote").after(writes));
            for payload in 1..=4_u8 {
                slots.write(&[payload; 900]).expect("acknowledged");
                let look = SlotFile::look(&disk, path, SLOT_BYTES).expect("one slot is whole");
                assert_eq!(look.payload, [payload; 900], "{fault:?} of write {writes}");
            }
            assert_eq!(disk.faults_happened(), 1);
            // The last of them is seen by whoever knows what should be there.
            let found = slots.scrub().expect("works");
            assert_eq!(found.is_empty(), writes < 6, "{fault:?} of write {writes}: {found:?}");
            assert!(slots.scrub().expect("works").is_empty(), "mended");
            assert_eq!(SlotFile::look(&disk, path, SLOT_BYTES).expect("look").damage, None);
        }
    }
}

/// A vote takes one sector: an election waits for one sync of it, and not for two.
#[test]
fn a_payload_of_one_part_is_synced_once() {
    let (disk, path) = (SimDisk::new(1), Path::new("/vote"));
    let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, &[0; 484]).expect("create");
    let mut operations = |payload: &[u8]| {
        let before = disk.operation_count();
        slots.write(payload).expect("write");
        disk.operation_count() - before
    };
    assert_eq!(operations(&[1; 484]), 3, "two writes and one sync");
    assert_eq!(operations(&[2; 485]), 4, "each slot is synced before the other is written");
    assert_eq!(operations(&[3; 3]), 4, "the payload before takes two parts, which could be torn in both slots");
    assert_eq!(operations(&[4; 3]), 3);
}

/// Whoever has the file open knows what is in it, and mends both slots.
#[test]
fn a_scrub_mends_both_slots() {
    let disk = SimDisk::new(1);
    let path = Path::new("/vote");
    let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, &[1; 900]).expect("create");
    assert!(slots.scrub().expect("works").is_empty());
    disk.flip_bit(path, 30, 1);
    disk.flip_bit(path, SLOT_BYTES + 600, 1);
    assert_eq!(slots.scrub().expect("works").len(), 2);
    assert!(slots.scrub().expect("works").is_empty());
    assert_eq!(SlotFile::open(&disk.crash(CrashChoice::LoseAll), path, SLOT_BYTES).expect("open").1, [1; 900]);
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
    let cut = |length| disk.open(&path, OpenMode::Write).expect("open").set_len(length).expect("cut");
    cut(4500);
    let (slots, payload) = SlotFile::open(&*disk, &path, SLOT_BYTES).expect("one slot is there");
    assert_eq!(payload, b"x");
    assert!(slots.mended().expect("named").what.contains("slot 1: part 0: the file ends too early"));
    cut(300);
    let error = SlotFile::open(&*disk, &path, SLOT_BYTES).err().expect("both are gone");
    assert!(error.to_string().contains("the file ends too early"), "{error}");
}

/// A process is killed at every operation, after its last sync failed or not; the next one reads a payload. That it has
/// said what it read is as good as a promise: a power cut does not take it back.
#[test]
fn kills_and_then_a_power_cut() {
    let payloads: Vec<Vec<u8>> = (1..6_u8).map(|round| vec![round; 700 * usize::from(round)]).collect();
    let (path, root) = (Path::new("/vote"), Path::new("/"));
    let mut opened = 0;
    for boundary in 0..30 {
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

/// While the newest payload is made durable, the one before it stays in the other slot: the power may go in the middle of
/// that, too.
#[test]
fn opening_risks_no_older_payload() {
    let path = Path::new("/vote");
    let disk = SimDisk::new(7);
    let mut slots = SlotFile::create(&disk, path, SLOT_BYTES, &[1; 2000]).expect("create");
    slots.write(&[2; 2000]).expect("write");
    disk.fail_next_sync();
    slots.write(&[3; 2000]).expect_err("told to fail");
    for boundary in 0..5 {
        let next = disk.kill();
        next.crash_after(boundary);
        let opened = SlotFile::open(&next, path, SLOT_BYTES).is_ok();
        assert_eq!(opened, boundary == 4);
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
    power_cuts_of(&(1..6_u8).map(|round| vec![round; 700 * usize::from(round)]).collect::<Vec<_>>(), 24);
    // Of one part, and from one to several and back.
    power_cuts_of(&(1..6_u8).map(|round| vec![round; 90 * usize::from(round)]).collect::<Vec<_>>(), 19);
    power_cuts_of(&[vec![1; 9], vec![2; 1900], vec![3; 484], vec![4; 484], vec![5; 485]], 22);
}

fn power_cuts_of(payloads: &[Vec<u8>], operations: u64) {
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
        assert_eq!(outcome.is_ok(), boundary >= operations, "boundary {boundary}");
    }
}
