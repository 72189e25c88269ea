//! One model for all doors: a file is a list of bytes, and what a lost process or a power cut leaves is what was last
//! synced.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::{BLOCK_BYTES, CrashChoice, Disk, DiskFile, LosingDisk, OpenMode, RealDisk, SimDisk, create_dir_durable};

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: u64,
        bytes: Vec<u8>,
        split: usize,
    },
    /// Past the page cache: the first block, how many, and what is in them.
    WriteBlocks(u64, usize, u8),
    SetLen(u64),
    Punch {
        offset: u64,
        length: u64,
    },
    Sync,
    Reopen,
}

const SPAN: u64 = 20_000;

fn step() -> impl Strategy<Value = Step> {
    let bytes = (any::<u8>(), 1..9000_usize)
        .prop_map(|(fill, length)| (0..length).map(|at| fill.wrapping_add((at % 251) as u8)).collect::<Vec<u8>>());
    prop_oneof![
        6 => (0..SPAN, bytes, 0..9000_usize).prop_map(|(offset, bytes, split)| Step::Write { offset, bytes, split }),
        3 => (0..5_u64, 1..4_usize, any::<u8>()).prop_map(|(first, count, fill)| Step::WriteBlocks(first, count, fill)),
        2 => (0..2 * SPAN).prop_map(Step::SetLen),
        2 => (0..SPAN, 1..SPAN).prop_map(|(offset, length)| Step::Punch { offset, length }),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn read_all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0xAA; 70_000];
    let got = file.read_at(&mut bytes, 0).expect("read");
    bytes.truncate(got);
    assert_eq!(file.len().expect("length"), got as u64);
    let mut past_cache = vec![0xAA; 70_000];
    let got = file.read_past_cache(&mut past_cache, 0).expect("read");
    assert!(past_cache[..got] == bytes, "past the cache there is the same");
    bytes
}

/// Runs the steps; returns what was last synced and what was last there.
fn run(disk: &dyn Disk, path: &Path, steps: &[Step]) -> (Vec<u8>, Vec<u8>) {
    let mut file: Arc<dyn DiskFile> = disk.open(path, OpenMode::CreateNew).expect("create");
    disk.sync_dir(path.parent().expect("a parent")).expect("sync");
    let (mut synced, mut model) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Write { offset, bytes, split } => {
                let (first, second) = bytes.split_at(*split % bytes.len());
                file.write_at(&[IoSlice::new(first), IoSlice::new(second)], *offset).expect("write");
                let offset = *offset as usize;
                model.resize(model.len().max(offset + bytes.len()), 0);
                model[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Step::WriteBlocks(first, count, fill) => {
                let bytes = vec![*fill; count * BLOCK_BYTES as usize];
                file.write_past_cache(&bytes, first * BLOCK_BYTES).expect("write");
                let offset = (first * BLOCK_BYTES) as usize;
                model.resize(model.len().max(offset + bytes.len()), 0);
                model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            Step::SetLen(length) => {
                file.set_len(*length).expect("set length");
                model.resize(*length as usize, 0);
            }
            Step::Punch { offset, length } => {
                file.punch(*offset, *length).expect("punch");
                let end = model.len().min((offset + length) as usize);
                if (*offset as usize) < end {
                    model[*offset as usize..end].fill(0);
                }
            }
            Step::Sync => {
                file.sync_data().expect("sync");
                synced.clone_from(&model);
            }
            Step::Reopen => file = disk.open(path, OpenMode::Write).expect("open"),
        }
        assert_eq!(read_all(&*file), model, "after {step:?}");
        let mut middle = [0; 777];
        let got = file.read_at(&mut middle, 5000).expect("read");
        assert_eq!(middle[..got], model[model.len().min(5000)..model.len().min(5777)]);
    }
    (synced, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_is_a_list_of_bytes(steps in prop::collection::vec(step(), 1..25)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let (_, there) = run(&RealDisk::new(), &path, &steps);
        prop_assert_eq!(&read_all(&*RealDisk::new().open(&path, OpenMode::Read).expect("open")), &there);

        let path = folder.path().join("losing");
        let (synced, _) = run(&LosingDisk::new(), &path, &steps);
        prop_assert_eq!(&std::fs::read(&path).expect("read"), &synced, "a killed process leaves what was synced");

        let disk = SimDisk::new(1);
        let path = PathBuf::from("/file");
        let (synced, there) = run(&disk, &path, &steps);
        for (choice, expected) in [(CrashChoice::LoseAll, &synced), (CrashChoice::KeepAll, &there)] {
            let file = disk.crash(choice).open(&path, OpenMode::Read).expect("it has its name");
            prop_assert_eq!(&read_all(&*file), expected, "{:?}", choice);
        }
    }

    /// Whatever a power cut leaves, each sector is one of the contents it had since the last sync.
    #[test]
    fn a_torn_write_is_torn_between_sectors(seed in any::<u64>(), offset in 0..3000_u64, length in 1..5000_usize) {
        let disk = SimDisk::new(3);
        let path = Path::new("/file");
        let file = disk.open(path, OpenMode::CreateNew).expect("create");
        file.write_at(&[IoSlice::new(&[1; 8192])], 0).expect("write");
        file.sync_data().expect("sync");
        disk.sync_dir(Path::new("/")).expect("sync");
        let before = read_all(&*file);
        file.write_at(&[IoSlice::new(&vec![2; length])], offset).expect("write");
        let after = read_all(&*file);
        let left = read_all(&*disk.crash(CrashChoice::Seeded(seed)).open(path, OpenMode::Read).expect("open"));
        prop_assert_eq!(left.len(), 8192);
        for at in (0..8192).step_by(512) {
            let sector = &left[at..at + 512];
            prop_assert!(sector == &before[at..at + 512] || sector == &after[at..at + 512], "sector at {}", at);
        }
    }
}

#[test]
fn seeds_tear_differently_and_repeat() {
    let disk = SimDisk::new(3);
    let file = disk.open(Path::new("/file"), OpenMode::CreateNew).expect("create");
    file.set_len(16 << 10).expect("length");
    file.sync_data().expect("sync");
    disk.sync_dir(Path::new("/")).expect("sync");
    file.write_at(&[IoSlice::new(&[7; 16 << 10])], 0).expect("write");
    let left = |seed| {
        read_all(&*disk.crash(CrashChoice::Seeded(seed)).open(Path::new("/file"), OpenMode::Read).expect("open"))
    };
    let images: std::collections::BTreeSet<Vec<u8>> = (0..20).map(left).collect();
    assert!(images.len() > 10, "only {} different images", images.len());
    assert_eq!(left(11), left(11));
}

#[test]
fn names_are_durable_after_sync_dir_only() {
    let disk = SimDisk::new(5);
    let path = |name: &str| PathBuf::from("/db").join(name);
    create_dir_durable(&disk, Path::new("/db/journal")).expect("made");
    let names = |disk: &SimDisk| disk.list_dir(Path::new("/db")).expect("list");
    for name in ["a", "b", "c"] {
        disk.open(&path(name), OpenMode::CreateNew).expect("create");
    }
    assert_eq!(names(&disk.crash(CrashChoice::LoseAll)), ["journal"]);
    disk.sync_dir(Path::new("/db")).expect("sync");
    disk.rename(&path("a"), &path("b")).expect("rename");
    disk.remove_file(&path("c")).expect("remove");
    assert_eq!(names(&disk), ["b", "journal"]);
    assert_eq!(names(&disk.crash(CrashChoice::LoseAll)), ["a", "b", "c", "journal"]);
    assert_eq!(names(&disk.crash(CrashChoice::KeepAll)), ["b", "journal"]);
    for seed in 0..50 {
        let left = names(&disk.crash(CrashChoice::Seeded(seed)));
        assert!(left.contains(&"b".into()), "a rename replaces as a whole: {left:?}");
    }
    disk.sync_dir(Path::new("/db")).expect("sync");
    assert_eq!(names(&disk.crash(CrashChoice::LoseAll)), ["b", "journal"]);
    disk.remove_dir_all(Path::new("/db/journal")).expect("remove");
    assert!(!disk.exists(Path::new("/db/journal")).expect("look"));
}

#[test]
fn the_power_goes_after_a_number_of_operations() {
    let disk = SimDisk::new(5);
    let file = disk.open(Path::new("/file"), OpenMode::CreateNew).expect("create");
    disk.sync_dir(Path::new("/")).expect("sync");
    assert_eq!(disk.operation_count(), 2);
    disk.crash_after(2);
    file.write_at(&[IoSlice::new(b"kept")], 0).expect("write");
    file.sync_data().expect("sync");
    let error = file.write_at(&[IoSlice::new(b"gone")], 0).expect_err("no power");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(file.read_at(&mut [0; 4], 0).is_err() && disk.list_dir(Path::new("/")).is_err());
    let after = disk.crash(CrashChoice::KeepAll);
    assert_eq!(read_all(&*after.open(Path::new("/file"), OpenMode::Read).expect("open")), b"kept");
}

#[test]
fn trouble_of_a_simulated_disk() {
    let disk = SimDisk::new(5);
    let file = disk.open(Path::new("/file"), OpenMode::CreateNew).expect("create");
    disk.set_space_limit(Some(1000));
    file.set_len(900).expect("fits");
    let error = file.write_at(&[IoSlice::new(&[1; 101])], 900).expect_err("no room");
    assert!(error.is_no_space() && file.len().expect("length") == 900, "{error}");
    assert_eq!(disk.free_bytes(Path::new("/")).expect("free"), 100);
    disk.set_space_limit(None);
    file.write_at(&[IoSlice::new(&[1; 101])], 900).expect("room again");
    disk.flip_bit(Path::new("/file"), 950, 3);
    assert_eq!(read_all(&*file)[950], 1 ^ 8);
    let read_only = disk.open(Path::new("/file"), OpenMode::Read).expect("open");
    assert!(read_only.set_len(0).is_err());
    let lock = disk.lock(Path::new("/")).expect("lock").expect("free");
    assert!(disk.lock(Path::new("/")).expect("lock").is_none(), "taken");
    drop(lock);
    assert!(disk.lock(Path::new("/")).expect("lock").is_some(), "free again");
}

/// What a process wrote outlives it, and not the power.
#[test]
fn a_killed_process_leaves_everything_to_the_next() {
    let disk = SimDisk::new(5);
    let path = Path::new("/file");
    let file = disk.open(path, OpenMode::CreateNew).expect("create");
    file.write_at(&[IoSlice::new(&[1; 600])], 0).expect("write");
    let lock = disk.lock(Path::new("/")).expect("lock").expect("free");
    let next = disk.kill();
    assert!(next.lock(Path::new("/")).expect("lock").is_some(), "the dead hold no locks");
    let again = next.open(path, OpenMode::Write).expect("it has its name");
    assert_eq!(read_all(&*again), [1; 600]);
    again.write_at(&[IoSlice::new(&[2; 10])], 0).expect("write");
    assert_eq!(read_all(&*file), [1; 600], "nobody but the next process sees it");
    assert!(!next.crash(CrashChoice::LoseAll).exists(path).expect("look"), "its name was never synced");
    next.sync_dir(Path::new("/")).expect("sync");
    let lost = next.crash(CrashChoice::LoseAll);
    assert!(read_all(&*lost.open(path, OpenMode::Read).expect("open")).is_empty(), "and its bytes were not");
    again.sync_data().expect("sync");
    let kept = next.crash(CrashChoice::LoseAll);
    assert_eq!(read_all(&*kept.open(path, OpenMode::Read).expect("open"))[..11], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    drop(lock);
}

/// After a failed sync the next one succeeds, and has not written what the failed one should have.
#[test]
fn what_a_failed_sync_gave_up_is_read_until_the_power_goes() {
    let disk = SimDisk::new(5);
    let path = Path::new("/file");
    let file = disk.open(path, OpenMode::CreateNew).expect("create");
    file.write_at(&[IoSlice::new(&[1; 2048])], 0).expect("write");
    file.sync_data().expect("sync");
    disk.sync_dir(Path::new("/")).expect("sync");
    file.write_at(&[IoSlice::new(&[2; 1024])], 512).expect("write");
    disk.fail_next_sync();
    file.sync_data().expect_err("told to fail");
    file.write_at(&[IoSlice::new(&[3; 10])], 512).expect("write");
    file.sync_data().expect("once");
    let next = disk.kill();
    let again = next.open(path, OpenMode::Write).expect("open");
    again.sync_data().expect("of another process too");
    assert_eq!(read_all(&*again)[1024..1536], [2; 512], "it can be read");
    let left = |choice| read_all(&*next.crash(choice).open(path, OpenMode::Read).expect("open"));
    let lost = left(CrashChoice::LoseAll);
    assert_eq!((&lost[512..522], &lost[522..1024]), (&[3; 10][..], &[2; 502][..]), "a sector that was written anew");
    assert_eq!(lost[1024..], [1; 1024], "one that was not");
    assert_eq!(left(CrashChoice::KeepAll), read_all(&*again), "the disk may have it all the same");
}

#[test]
fn trouble_of_a_losing_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = LosingDisk::new();
    let path = folder.path().join("file");
    let file = disk.open(&path, OpenMode::CreateNew).expect("create");
    disk.set_space_limit(Some(1000));
    file.write_at(&[IoSlice::new(&[1; 900])], 0).expect("fits");
    let error = file.write_at(&[IoSlice::new(&[1; 101])], 900).expect_err("no room");
    assert!(error.is_no_space() && file.len().expect("length") == 900, "{error}");
    assert_eq!(disk.free_bytes(folder.path()).expect("free"), 100);
    file.write_at(&[IoSlice::new(&[2; 900])], 0).expect("what does not grow needs no room");
    disk.set_space_limit(Some(1000));
    disk.fail_syncs(true);
    file.sync_data().expect_err("told to fail");
    assert!(std::fs::read(&path).expect("read").is_empty());
    disk.fail_syncs(false);
    file.sync_data().expect("it knows nothing of what the last one should have written");
    assert_eq!(std::fs::read(&path).expect("read"), [0; 900], "only the length");
    assert_eq!(read_all(&*disk.open(&path, OpenMode::Read).expect("open")), [2; 900], "though it is read");
    file.write_at(&[IoSlice::new(&[2])], 0).expect("write");
    disk.hang_syncs(true);
    let (sender, synced) = mpsc::channel();
    let hanging = file.clone();
    let thread = std::thread::spawn(move || {
        let outcome = hanging.sync_data();
        sender.send(outcome).expect("somebody waits");
    });
    assert!(synced.recv_timeout(Duration::from_millis(50)).is_err(), "it hangs");
    assert_eq!(read_all(&*file), [2; 900], "reads do not");
    disk.hang_syncs(false);
    synced.recv().expect("it goes on").expect("synced");
    thread.join().expect("ended");
    assert_eq!(std::fs::read(&path).expect("read"), [2; 900]);
    disk.set_sync_delay(Duration::from_millis(20));
    let begun = std::time::Instant::now();
    file.sync_data().expect("synced");
    assert!(begun.elapsed() >= Duration::from_millis(20));
    disk.remove_file(&path).expect("remove");
    assert_eq!(disk.free_bytes(folder.path()).expect("free"), 1900);
}

/// A second handle sees what the first one wrote, under a new name too; a new file does not inherit an old one's
/// changes, even if it gets its inode.
#[test]
fn a_losing_disk_keeps_changes_with_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = LosingDisk::new();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let file = disk.open(&one, OpenMode::CreateNew).expect("create");
    file.write_at(&[IoSlice::new(b"changed")], 3).expect("write");
    drop(file);
    disk.rename(&one, &two).expect("rename");
    assert_eq!(read_all(&*disk.open(&two, OpenMode::Read).expect("open")), b"\0\0\0changed");
    assert!(disk.open(&two, OpenMode::Read).expect("open").write_at(&[IoSlice::new(b"x")], 0).is_err());
    for _ in 0..20 {
        disk.remove_file(&two).expect("remove");
        let file = disk.open(&two, OpenMode::CreateNew).expect("create");
        assert_eq!(read_all(&*file), b"");
        file.write_at(&[IoSlice::new(b"not synced")], 0).expect("write");
    }
}

#[test]
fn a_directory_has_one_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::new();
    let lock = disk.lock(folder.path()).expect("lock").expect("free");
    assert!(disk.lock(folder.path()).expect("lock").is_none(), "taken");
    assert!(disk.lock(&folder.path().join("lock")).expect("lock").is_none(), "the same lock");
    drop(lock);
    assert!(disk.lock(folder.path()).expect("lock").is_some(), "free again");
    assert!(disk.free_bytes(folder.path()).expect("free") > 0);
}

#[test]
fn a_real_file_takes_more_parts_than_one_call_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = RealDisk::new().open(&folder.path().join("file"), OpenMode::CreateNew).expect("create");
    let bytes: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8).collect();
    let mut parts = vec![IoSlice::new(&[]); 1500];
    parts.extend(bytes.chunks(3).map(IoSlice::new));
    file.write_at(&parts, 10).expect("write");
    assert_eq!(read_all(&*file)[10..], bytes);
    file.write_at(&[], 0).expect("nothing to write");
    let map = file.map(1 << 20).expect("map").expect("real files have maps");
    assert_eq!(&map.page(crate::ids::PageNumber(0)).bytes()[10..100], &bytes[..90]);
}

/// Whole blocks, and anything else, from a handle that may write past the page cache; read through another one.
#[test]
fn writes_of_whole_blocks_are_seen_by_readers() {
    const BLOCK: usize = super::BLOCK_BYTES as usize;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    let disk = RealDisk::new();
    disk.open(&path, OpenMode::CreateNew).expect("create").write_zeros(0, 16 * BLOCK as u64).expect("zeros");
    let writer = disk.open(&path, OpenMode::WriteBlocks).expect("open");
    let reader = disk.open(&path, OpenMode::Read).expect("open");
    // Longer than one call takes.
    let large = (5 << 20) + BLOCK;
    let bytes: Vec<u8> = (0..large).map(|at| (at % 249) as u8).collect();
    let (head, tail) = bytes.split_at(3 << 20);
    writer.write_at(&[IoSlice::new(head), IoSlice::new(tail)], 0).expect("write");
    let mut read = vec![0; large];
    assert_eq!(reader.read_at(&mut read, 0).expect("read"), large);
    assert!(read == bytes, "a long write");
    writer.set_len(16 * BLOCK as u64).expect("set length");
    let mut model = bytes[..16 * BLOCK].to_vec();
    // (offset, length): blocks, parts of them, and longer ones over what was written so.
    let writes = [(0, BLOCK), (BLOCK, 2 * BLOCK), (100, 300), (BLOCK - 1, BLOCK), (0, 16 * BLOCK), (5 * BLOCK, BLOCK)];
    for (turn, (offset, length)) in writes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 253) as u8 ^ (turn as u8 + 1)).collect();
        let (head, tail) = bytes.split_at(length / 3);
        writer.write_at(&[IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)], offset as u64).expect("write");
        model[offset..offset + length].copy_from_slice(&bytes);
        for file in [&reader, &writer] {
            assert!(read_all(&**file) == model, "after write {turn}");
        }
        writer.sync_data().expect("sync");
    }
}
