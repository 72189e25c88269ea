use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::segment_path;
use super::journal_test::{EMPTY, done, end_of, frames_after, small};
use super::{Journal, JournalMode, Survey, survey};
use crate::env::{CrashChoice, Disk, Fault, OpenMode, SimDisk, Trouble};
use crate::ids::{JournalPosition, LogIndex};

const SEGMENT_BYTES: u64 = 64 << 10;

fn directory() -> &'static Path {
    Path::new("/journal")
}

/// Groups over three segments, closed; and where each frame stands.
fn sample() -> (SimDisk, Vec<JournalPosition>) {
    let disk = SimDisk::new(1);
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let journal = Journal::create(door, directory(), EMPTY, small(JournalMode::Inline)).expect("create");
    for lengths in [&[100, 0, 300][..], &[50_000], &[10, 20_000], &[40_000], &[1, 2, 3], &[8000], &[600, 700]] {
        let (callback, outcome) = done();
        journal.append(frames_after(end_of(&journal), 1, lengths), callback).expect("append");
        outcome.recv().expect("the callback runs").expect("durable");
    }
    let places = (0..13).map(|index| journal.position(LogIndex(index)).expect("written")).collect();
    journal.close();
    (disk.crash(CrashChoice::KeepAll), places)
}

/// What a survey finds, and the frames behind damage.
fn look(disk: &SimDisk) -> (Survey, Vec<u64>) {
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut whole, mut behind) = (Vec::new(), Vec::new());
    let before = disk.image_hash();
    let found = survey(&door, directory(), &mut |frame, _, sound| {
        if sound { whole.push(frame.log_id().index.0) } else { behind.push(frame.log_id().index.0) }
    });
    let found = found.expect("the disk is fine");
    assert_eq!(disk.image_hash(), before, "a survey changes nothing");
    assert_eq!(whole, (0..found.frames).collect::<Vec<_>>());
    assert_eq!(behind.len() as u64, found.frames_behind_damage);
    (found, behind)
}

fn place(position: JournalPosition) -> (PathBuf, u64) {
    (segment_path(directory(), position.0 / SEGMENT_BYTES), position.0 % SEGMENT_BYTES)
}

#[test]
fn a_sound_journal_is_told_whole() {
    let (disk, _) = sample();
    let (found, _) = look(&disk);
    assert_eq!((found.frames, found.damage.len(), found.unfinished_bytes), (13, 0, 0));
    assert_eq!(found.attested, found.end, "it was closed");
    assert_eq!(found.last.map(|last| last.index.0), Some(12));
    let frames: Vec<u64> = found.segments.iter().map(|segment| segment.frames).collect();
    assert_eq!((frames.len(), frames.iter().sum::<u64>()), (3, 13));
    assert!(found.segments.iter().all(|segment| segment.header.is_ok() && segment.bytes == SEGMENT_BYTES));
}

#[test]
fn one_bad_payload_costs_one_frame_and_two_bad_ones_are_both_told() {
    let (disk, places) = sample();
    let (file, offset) = place(places[3]);
    disk.flip_bit(&file, offset + 1000, 0);
    let (found, behind) = look(&disk);
    assert_eq!((found.frames, found.damage.len()), (3, 1), "{found:?}");
    assert_eq!(behind, (4..13).collect::<Vec<_>>());
    let (file, offset) = place(places[8]);
    disk.flip_bit(&file, offset + 73, 0);
    let (found, behind) = look(&disk);
    let lost: Vec<u64> = found.damage.iter().map(|damage| damage.index.0).collect();
    assert_eq!(lost, [3, 8], "{found:?}");
    assert_eq!(behind, [4, 5, 6, 7, 9, 10, 11, 12]);
}

#[test]
fn a_bad_header_costs_the_rest_of_its_group_and_a_bad_segment_header_no_frame() {
    let (disk, places) = sample();
    let (file, offset) = place(places[7]);
    disk.flip_bit(&file, offset + 30, 0);
    let (found, behind) = look(&disk);
    assert_eq!((found.frames, found.damage.len()), (7, 1), "{found:?}");
    assert_eq!(behind, [10, 11, 12], "{found:?}");

    let (disk, _) = sample();
    disk.flip_bit(&segment_path(directory(), 1), 20, 0);
    let (found, behind) = look(&disk);
    assert_eq!((found.frames, found.damage.len(), found.first), (0, 1, None), "{found:?}");
    assert_eq!(behind, (0..13).collect::<Vec<_>>());

    let (disk, places) = sample();
    disk.flip_bit(&segment_path(directory(), 2), 20, 0);
    let (found, behind) = look(&disk);
    let first = places.iter().position(|place| place.0 / SEGMENT_BYTES == 2).expect("frames stand there") as u64;
    assert_eq!((found.frames, found.damage.len()), (first, 1), "{found:?}");
    assert_eq!(behind, (first..13).collect::<Vec<_>>());
}

/// The last block of the disk has the last groups and the only attest behind them; the header of the segment has another.
#[test]
fn a_lost_block_at_the_end_is_damage() {
    let (disk, places) = sample();
    let (path, offset) = place(places[12]);
    let file = disk.open(&path, OpenMode::Write).expect("there");
    let block = offset / 4096 * 4096;
    file.write_zeros(block, 4096).expect("works");
    file.sync_data().expect("works");
    let (found, behind) = look(&disk);
    assert_eq!((found.damage.len(), behind.len()), (1, 0), "{found:?}");
    let lost = places.iter().position(|place| place.0 % SEGMENT_BYTES >= block && place.0 / SEGMENT_BYTES == 3);
    assert!(found.frames <= lost.expect("a frame was lost") as u64);
    let opened = Journal::open(Arc::new(disk.clone()), directory(), small(JournalMode::Inline)).expect("open");
    assert!(opened.1.damage.is_some());
}

#[test]
fn a_segment_that_was_cut_short_is_damage_even_if_it_is_the_last() {
    for segment in [1, 3] {
        for length in [0, 512, 4096, SEGMENT_BYTES - 512] {
            let (disk, _) = sample();
            let path = segment_path(directory(), segment);
            let file = disk.open(&path, OpenMode::Write).expect("there");
            file.set_len(length).expect("works");
            file.sync_data().expect("works");
            let (found, _) = look(&disk);
            assert!(!found.damage.is_empty() && (segment == 1) == (found.frames == 0), "{length}: {found:?}");
            match Journal::open(Arc::new(disk.clone()), directory(), small(JournalMode::Inline)) {
                Ok((_, scan)) => assert!(scan.damage.is_some(), "{length}"),
                Err(error) => assert_eq!(segment, 1, "{error}"),
            }
        }
    }
}

/// The disk refuses one read, whichever: what stands there is told as lost, and the survey goes on.
#[test]
fn what_cannot_be_read_is_damage() {
    let (disk, _) = sample();
    let mut refused = 0;
    for read in 0..40 {
        let disk = disk.crash(CrashChoice::KeepAll);
        disk.plan(Trouble::new(Fault::FailRead).after(read));
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut frames = 0;
        let found = survey(&door, directory(), &mut |_, _, _| frames += 1).expect("files can be opened");
        assert!(frames <= 13);
        if disk.faults_happened() > 0 {
            refused += 1;
            let told = found.damage.iter().any(|damage| damage.what.contains("cannot be read"));
            let of_header = found.segments.iter().any(|segment| segment.header.is_err());
            assert!(told || of_header, "read {read}: {found:?}");
        }
    }
    assert!(refused > 5, "some reads there are");
}
