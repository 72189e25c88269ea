//! Bytes that rot: below the attested position they are damage, above it an unfinished group. What only looks like a
//! block, or was one in another life of its file, is neither.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{SEGMENT_HEADER_BYTES, segment_path};
use super::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Payload};
use super::group::{GroupBlock, GroupKind};
use super::journal_test::{EMPTY, done, end_of, frames_after, small};
use super::{Journal, JournalMode, LogStart, Scan, inspect};
use crate::env::{CrashChoice, Disk, OpenMode, SimDisk};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, LogIndex, Term};

const SEGMENT_BYTES: u64 = 64 << 10;

fn directory() -> &'static Path {
    Path::new("/journal")
}

fn create(disk: &SimDisk) -> Journal {
    Journal::create(Arc::new(disk.clone()), directory(), EMPTY, small(JournalMode::Inline)).expect("create")
}

fn open(disk: &SimDisk) -> (Journal, Scan) {
    Journal::open(Arc::new(disk.clone()), directory(), small(JournalMode::Inline)).expect("open")
}

/// Appends groups of frames of these lengths.
fn append(journal: &Journal, groups: &[&[usize]]) {
    for lengths in groups {
        let term = journal.last().map_or(1, |last| last.term.0);
        let (callback, outcome) = done();
        journal.append(frames_after(end_of(journal), term, lengths), callback).expect("append");
        outcome.recv().expect("the callback runs").expect("durable");
    }
}

fn place(position: JournalPosition) -> (PathBuf, u64) {
    (segment_path(directory(), position.0 / SEGMENT_BYTES), position.0 % SEGMENT_BYTES)
}

/// Groups over three segments, none begun by chance: 3 frames, 1 large frame, 2 frames, and so on.
const GROUPS: [&[usize]; 7] = [&[100, 0, 300], &[50_000], &[10, 20_000], &[40_000], &[1, 2, 3], &[8000], &[600, 700]];

/// A copy of a disk on which `GROUPS` stand, attested (closed) or as a power cut leaves them just after the last sync.
fn sample(attested: bool) -> (SimDisk, Vec<(LogIndex, JournalPosition, usize)>) {
    let disk = SimDisk::new(1);
    let journal = create(&disk);
    append(&journal, &GROUPS);
    assert_eq!(journal.stats().segments, 3);
    let count = GROUPS.iter().map(|group| group.len() as u64).sum();
    let frames = (0..count).map(LogIndex);
    let places = frames.map(|index| {
        let frame = &journal.read(index, LogIndex(u64::MAX), 0).expect("read")[0];
        (index, journal.position(index).expect("written"), frame.frame_bytes())
    });
    let places = places.collect();
    if attested {
        journal.close();
    }
    (disk.crash(CrashChoice::KeepAll), places)
}

/// Opens a damaged journal; checks that it says so, changes nothing, and goes on after a cut.
fn check_damage(disk: &SimDisk, at: (PathBuf, u64), index: LogIndex) {
    let (journal, scan) = open(disk);
    let damage = scan.damage.as_ref().unwrap_or_else(|| panic!("no damage found at {at:?}"));
    assert_eq!(damage.index, index, "{damage:?}");
    assert!(damage.file <= at.0 && (damage.file < at.0 || damage.offset <= at.1), "{damage:?} of {at:?}");
    assert_eq!(journal.last().map(|last| last.index.next()).unwrap_or_default(), index);
    assert_eq!(journal.read(LogIndex(0), LogIndex(99), 1 << 20).expect("read").len() as u64, index.0);
    let next = frames_after(end_of(&journal), 2, &[5]);
    let refused = journal.append(next.clone(), done().0).expect_err("damaged");
    assert!(matches!(refused, StorageError::Corrupted { .. }), "{refused}");
    assert_eq!(journal.purge(LogIndex(index.0)).expect("purge"), None, "nothing goes while there is damage");
    let listed: Vec<_> = inspect(Arc::new(disk.clone()), directory()).expect("list").collect();
    assert_eq!(listed.len() as u64, index.0 + 1);
    assert!(matches!(listed.last(), Some(Err(StorageError::Corrupted { .. }))));
    drop(journal);
    let (journal, scan) = open(disk);
    assert!(scan.damage.is_some(), "opening changed nothing");
    let (callback, outcome) = done();
    journal.cut_after(journal.last(), callback).expect("cut");
    outcome.recv().expect("the callback runs").expect("durable");
    journal.append(next.clone(), done().0).expect("append");
    drop(journal);
    let (journal, scan) = open(disk);
    assert_eq!((scan.damage, scan.frames), (None, index.0 + 1));
    assert_eq!(journal.last(), Some(next[0].log_id()));
}

/// The index of the first frame of the group that holds `index`.
fn group_start(index: LogIndex) -> LogIndex {
    let mut first = 0;
    for group in GROUPS {
        if index.0 < first + group.len() as u64 {
            break;
        }
        first += group.len() as u64;
    }
    LogIndex(first)
}

#[test]
fn below_the_attested_position_it_is_damage() {
    let (disk, places) = sample(true);
    for (index, position, bytes) in places {
        let (file, offset) = place(position);
        // The frame's magic, its chain value, its checksum, its payload's ends.
        let mut inside = vec![0, 60, 71];
        inside.extend((bytes > 72 + 8).then_some([72, bytes as u64 - 8]).into_iter().flatten());
        for at in inside {
            let disk = disk.crash(CrashChoice::KeepAll);
            disk.flip_bit(&file, offset + at, 1);
            check_damage(&disk, (file.clone(), offset + at), index);
        }
        if index == group_start(index) {
            for at in [0, 9, 63] {
                let disk = disk.crash(CrashChoice::KeepAll);
                disk.flip_bit(&file, offset - 64 + at, 7);
                check_damage(&disk, (file.clone(), offset - 64 + at), index);
            }
        }
        if index == group_start(index) && offset == SEGMENT_HEADER_BYTES + 64 && index > LogIndex(0) {
            let disk = disk.crash(CrashChoice::KeepAll);
            disk.flip_bit(&file, 30, 0);
            check_damage(&disk, (file.clone(), 30), index);
        }
    }
}

#[test]
fn above_it_everything_from_the_first_bad_frame_on_is_cut() {
    let (disk, places) = sample(false);
    let last_group = group_start(places.last().expect("frames").0);
    for (index, position, bytes) in places {
        let (file, offset) = place(position);
        // With all headers there, the frames before a bad payload are known to be of this group; else none of it is.
        for (at, kept) in [(60, last_group), (72, index)] {
            let changed = disk.crash(CrashChoice::KeepAll);
            if at < bytes as u64 {
                changed.flip_bit(&file, offset + at, 1);
            } else {
                continue;
            }
            if index < last_group {
                check_damage(&changed, (file.clone(), offset + at), index);
                continue;
            }
            let (journal, scan) = open(&changed);
            assert_eq!((scan.damage, scan.frames), (None, kept.0));
            assert!(scan.cut_bytes > 0);
            append(&journal, &[&[1000, 20], &[30]]);
            drop(journal);
            let (_, scan) = open(&changed);
            assert_eq!((scan.damage, scan.frames, scan.cut_bytes), (None, kept.0 + 3, 0));
        }
    }
}

/// An attest is only ever a witness: without it, or with a bad one, all frames are there.
#[test]
fn a_bad_attest_costs_nothing() {
    let (disk, places) = sample(true);
    let (_, position, bytes) = *places.last().expect("frames");
    let (file, offset) = place(position);
    for at in 0..64 {
        let disk = disk.crash(CrashChoice::KeepAll);
        disk.flip_bit(&file, (offset + bytes as u64).next_multiple_of(64) + at, 2);
        let (_, scan) = open(&disk);
        assert_eq!((scan.damage, scan.frames), (None, places.len() as u64), "byte {at}");
    }
}

#[test]
fn without_its_first_header_a_journal_does_not_open() {
    let (disk, _) = sample(true);
    let first = segment_path(directory(), 1);
    disk.flip_bit(&first, 20, 0);
    match Journal::open(Arc::new(disk.clone()), directory(), small(JournalMode::Inline)).err() {
        Some(StorageError::Corrupted { file, what, .. }) => {
            assert_eq!(file, first);
            assert!(what.contains("checksum"), "{what}");
        }
        other => panic!("expected damage, got {other:?}"),
    }
    disk.flip_bit(&first, 20, 0);
    disk.open(&first, OpenMode::Write).expect("open").set_len(5000).expect("cut");
    let error = inspect(Arc::new(disk.clone()), directory()).err().expect("too short");
    assert!(error.to_string().contains("5000 of 65536"), "{error}");
    disk.remove_dir_all(directory()).expect("remove");
    disk.create_dir_all(directory()).expect("make");
    let error = Journal::open(Arc::new(disk), directory(), small(JournalMode::Inline)).err().expect("nothing there");
    assert!(error.to_string().contains("no journal segment"), "{error}");
}

#[test]
fn a_missing_segment_is_damage() {
    let (disk, _) = sample(true);
    disk.remove_file(&segment_path(directory(), 2)).expect("remove");
    let (_, scan) = open(&disk);
    assert_eq!(scan.damage.expect("damage").index, LogIndex(5), "its first frame: a group is at most 16 KiB");
}

#[test]
fn a_read_notices_what_rotted_meanwhile() {
    let disk = SimDisk::new(1);
    let journal = create(&disk);
    append(&journal, &GROUPS);
    let (file, offset) = place(journal.position(LogIndex(3)).expect("written"));
    disk.flip_bit(&file, offset + 100, 0);
    assert_eq!(journal.read(LogIndex(0), LogIndex(3), 1 << 20).expect("sound").len(), 3);
    let error = journal.read(LogIndex(3), LogIndex(5), 1 << 20).expect_err("rotten");
    assert!(matches!(error, StorageError::DamagedFrame { log_id, .. } if log_id.index == LogIndex(3)), "{error}");
}

fn record(start: LogStart, payload: Vec<u8>) -> Frame {
    let id = LogId { term: Term(1), index: start.next_index() };
    Frame::encode(FrameKind::Record, id, None, start.chain, Payload::new(Bytes::from(payload)))
}

/// A recycled file is full of sound frames and blocks: none of them is ever read again.
#[test]
fn a_recycled_segment_keeps_its_past_to_itself() {
    let disk = SimDisk::new(1);
    let journal = create(&disk);
    for _ in 0..20 {
        append(&journal, &[&[3000; 9], &[5000; 4], &[60_000]]);
        journal.purge(LogIndex(journal.last().expect("frames").index.0 - 1)).expect("purge");
        assert!(journal.stats().segments <= 2 && journal.stats().spares <= super::spare::KEPT_SPARES);
        // A short group at the beginning of a recycled file, the past right behind it.
        append(&journal, &[&[10]]);
        let (_, scan) = open(&disk.crash(CrashChoice::LoseAll));
        assert_eq!((scan.damage, scan.last.previous), (None, journal.last()));
    }
    let last = disk.list_dir(directory()).expect("list").into_iter().rfind(|name| name.ends_with(".seg"));
    assert!(last.expect("a segment").as_str() > "00000000000000000030.seg", "files were recycled");
}

/// A value that holds the bytes of a journal, even with the right positions in its blocks, is only a value.
#[test]
fn a_payload_that_looks_like_a_journal_is_a_payload() {
    let disk = SimDisk::new(1);
    let journal = create(&disk);
    append(&journal, &[&[100, 200]]);
    let begin = SEGMENT_BYTES + SEGMENT_HEADER_BYTES + 64 + 192 + 320;
    let mut payload = vec![0; 56];
    // Frame header at `begin + 64`, so the payload's unit boundaries are 56 bytes in and every 64 bytes from there.
    for number in 0..20_u64 {
        let position = JournalPosition(begin + 64 + (FRAME_HEADER_BYTES + payload.len()) as u64);
        assert!(position.0.is_multiple_of(64));
        let block = GroupBlock {
            kind: if number % 2 == 0 { GroupKind::Cut } else { GroupKind::Append },
            number: 3 + number,
            epoch: number,
            attested: JournalPosition(position.0 + 1),
            position,
            end: JournalPosition(position.0 + 128),
            first_index: LogIndex(3),
            frames: 1,
            chain_low: 0,
        };
        payload.extend(block.encode());
    }
    journal.append(vec![record(end_of(&journal), payload)], done().0).expect("append");
    assert_eq!(journal.position(LogIndex(2)), Some(JournalPosition(begin + 64)), "the test knows where it stands");
    let (sound, scan) = open(&disk.crash(CrashChoice::LoseAll));
    assert_eq!((scan.damage, scan.frames), (None, 3));
    // Torn, with its group's block there: the search goes on behind the group.
    drop(sound);
    let torn = disk.crash(CrashChoice::LoseAll);
    torn.flip_bit(&segment_path(directory(), 1), begin + 64 - SEGMENT_BYTES, 0);
    let (_, scan) = open(&torn);
    assert_eq!((scan.damage, scan.frames), (None, 2));
}

/// A cut shifts what is written by a unit, so that a client's stale bytes can stand where a block is looked for, and they
/// can look like one. They are not followed, and raise no epoch to where it ends.
#[test]
fn forged_blocks_behind_the_end_change_nothing() {
    for kind in [GroupKind::Append, GroupKind::Cut, GroupKind::Attest] {
        for (epoch, number) in [(u64::MAX, u64::MAX), (1, u64::MAX), (u64::MAX, 3), (1, 3)] {
            let disk = SimDisk::new(1);
            let journal = create(&disk);
            append(&journal, &[&[100, 200]]);
            let end = SEGMENT_HEADER_BYTES + 64 + 192 + 320;
            let position = JournalPosition(SEGMENT_BYTES + end);
            let forged = GroupBlock {
                kind,
                number,
                epoch,
                attested: JournalPosition(0),
                position,
                end: JournalPosition(position.0 + 192),
                first_index: LogIndex(2),
                frames: 1,
                chain_low: 0,
            };
            assert_eq!(journal.position(LogIndex(1)).map(|at| at.0 + 320), Some(position.0), "the test knows the end");
            let file = disk.open(&segment_path(directory(), 1), OpenMode::Write).expect("open");
            file.write_at(&[std::io::IoSlice::new(&forged.encode())], end).expect("write");
            let disk = disk.crash(CrashChoice::KeepAll);
            for frames in 2..5 {
                let (journal, scan) = open(&disk);
                assert_eq!((scan.damage, scan.frames), (None, frames), "{forged:?}");
                append(&journal, &[&[7]]);
            }
        }
    }
}
