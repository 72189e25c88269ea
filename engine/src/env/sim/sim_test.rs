use std::io::IoSlice;
use std::path::Path;

use super::*;

const PATH: &str = "/file";

fn new_file(disk: &SimDisk, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(PATH), OpenMode::CreateNew).expect("create");
    file.write_at(&[IoSlice::new(bytes)], 0).expect("write");
    file.sync_data().expect("sync");
    disk.sync_dir(Path::new("/")).expect("sync");
    file
}

fn content(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(Path::new(PATH), OpenMode::Read).expect("open");
    let mut bytes = vec![0; 70_000];
    let got = file.read_at(&mut bytes, 0).expect("read");
    bytes.truncate(got);
    bytes
}

#[test]
fn a_torn_write_is_torn_between_units_of_the_disk_and_they_go_whole() {
    for unit in [SECTOR_BYTES, LARGE_SECTOR_BYTES] {
        let disk = SimDisk::with_unit(1, unit);
        let file = new_file(&disk, &[1; 16_384]);
        file.write_at(&[IoSlice::new(&[2; 9_000])], 1_000).expect("write");
        let there = content(&disk);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let left = content(&disk.crash(CrashChoice::Seeded(seed)));
            for (at, piece) in left.chunks(unit).enumerate() {
                let new = &there[at * unit..(at + 1) * unit];
                assert!(piece == new || piece == vec![1; unit], "unit {at} of {unit} bytes is torn");
            }
            seen.insert(left);
        }
        // 3 units of 4 KiB are 8 mixtures at most.
        assert!(seen.len() > if unit == SECTOR_BYTES { 50 } else { 4 }, "{} mixtures of {unit}", seen.len());
    }
}

#[test]
fn every_operation_that_is_pending_can_be_kept_or_lost_by_itself() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, &[1; 4096]);
    assert!(disk.pending().is_empty());
    file.write_at(&[IoSlice::new(&[2; 1024])], 0).expect("write");
    file.write_at(&[IoSlice::new(&[3; 512])], 512).expect("write");
    file.set_len(4096 + 512).expect("length");
    disk.open(Path::new("/other"), OpenMode::CreateNew).expect("create");
    let pending = disk.pending();
    let parts: Vec<usize> = pending.iter().map(|operation| operation.parts).collect();
    assert_eq!(parts, [2, 1, 2, 1], "units, a unit, a length and a unit, a name");
    let keep = |which: &[usize]| {
        let kept: Vec<u64> = which.iter().map(|place| pending[*place].operation).collect();
        disk.crash_keeping(&mut |operation, _| kept.contains(&operation))
    };
    assert_eq!(content(&keep(&[]))[..1024], [1; 1024]);
    assert_eq!(content(&keep(&[1]))[..1024], [[1; 512], [3; 512]].concat(), "the later one without the earlier");
    assert_eq!(content(&keep(&[0]))[..1024], [2; 1024]);
    assert_eq!(content(&keep(&[2])).len(), 4096 + 512);
    assert!(keep(&[3]).exists(Path::new("/other")).expect("look"));
    let first = pending[0].operation;
    let torn = disk.crash_keeping(&mut |operation, part| operation == first && part == 1);
    assert_eq!(content(&torn)[..1024], [[1; 512], [2; 512]].concat());
}

#[test]
fn equal_disks_have_equal_hashes_and_others_have_others() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, &[1; 8192]);
    let before = disk.image_hash();
    file.write_at(&[IoSlice::new(&[2])], 5_000).expect("write");
    assert_eq!(disk.image_hash(), before, "nothing of it is durable");
    let (lost, kept) = (disk.crash(CrashChoice::LoseAll), disk.crash(CrashChoice::KeepAll));
    assert_eq!(lost.image_hash(), before);
    assert_ne!(kept.image_hash(), before);
    let file = kept.open(Path::new(PATH), OpenMode::Write).expect("open");
    file.write_at(&[IoSlice::new(&[1])], 5_000).expect("write");
    file.sync_data().expect("sync");
    assert_eq!(kept.image_hash(), before, "as it was");
    kept.rename(Path::new(PATH), Path::new("/other")).expect("rename");
    kept.sync_dir(Path::new("/")).expect("sync");
    assert_ne!(kept.image_hash(), before, "another name");
}

#[test]
fn troubles_happen_where_when_and_as_often_as_planned() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, &[1; 4096]);
    disk.plan(Trouble::new(Fault::FailRead).of("file").after(2).times(2));
    disk.plan(Trouble::new(Fault::FailRead).of("elsewhere"));
    let outcomes: Vec<bool> = (0..6).map(|_| file.read_at(&mut [0; 10], 0).is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, false, true, true]);
    assert_eq!(disk.faults_happened(), 2);

    disk.plan(Trouble::new(Fault::FailWrite));
    let error = file.write_at(&[IoSlice::new(&[2; 2048])], 0).expect_err("told to fail");
    assert!(matches!(error, StorageError::Io { operation: "write", .. }), "{error}");
    file.write_at(&[IoSlice::new(&[1; 2048])], 0).expect("once");
    disk.plan(Trouble::new(Fault::NoSpace));
    assert!(file.set_len(10_000).expect_err("told to fail").is_no_space());
    disk.plan(Trouble::new(Fault::FailSyncDirectory));
    disk.open(Path::new("/new"), OpenMode::CreateNew).expect("create");
    disk.sync_dir(Path::new("/")).expect_err("told to fail");
    assert!(!disk.crash(CrashChoice::LoseAll).exists(Path::new("/new")).expect("look"));

    disk.plan(Trouble::new(Fault::FailRead).one_in(10).times(u64::MAX));
    let failed = (0..1000).filter(|_| file.read_at(&mut [0; 10], 0).is_err()).count();
    assert!((50..200).contains(&failed), "{failed} of 1000");
    disk.forget_troubles();
    assert!((0..100).all(|_| file.read_at(&mut [0; 10], 0).is_ok()));
}

#[test]
fn lost_and_misdirected_writes_are_acknowledged() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, &[1; 4096]);
    disk.plan(Trouble::new(Fault::LostWrite));
    file.write_at(&[IoSlice::new(&[2; 512])], 0).expect("acknowledged");
    disk.plan(Trouble::new(Fault::MisdirectedWrite(1024)));
    file.write_at(&[IoSlice::new(&[3; 512])], 512).expect("acknowledged");
    file.sync_data().expect("sync");
    let mut expected = [1; 4096];
    expected[1536..2048].fill(3);
    assert_eq!(content(&disk.crash(CrashChoice::LoseAll)), expected);
}

#[test]
fn short_calls_are_whole_for_the_caller_and_count_each() {
    let disk = SimDisk::new(1);
    disk.set_short_io(true);
    let bytes: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
    new_file(&disk, &bytes);
    assert!(disk.operation_count() > 4, "create, sync, sync, and several writes: {}", disk.operation_count());
    assert_eq!(content(&disk), bytes);
    assert_eq!(content(&disk.crash(CrashChoice::LoseAll)), bytes);
}

#[test]
fn a_call_hangs_until_it_is_let_go() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, &[1; 512]);
    let stall = disk.stall(Call::Sync, "file");
    let hanging = file.clone();
    let thread = std::thread::spawn(move || hanging.sync_data());
    stall.wait_for_somebody();
    file.write_at(&[IoSlice::new(&[2; 512])], 0).expect("writes do not hang");
    assert_eq!(content(&disk.crash(CrashChoice::LoseAll)), [1; 512], "it has not happened");
    drop(stall);
    thread.join().expect("no panic").expect("synced");
    assert_eq!(content(&disk.crash(CrashChoice::LoseAll)), [2; 512]);
}
