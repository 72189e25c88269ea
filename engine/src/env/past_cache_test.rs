//! Writes past the page cache, of a real disk: that a file is a list of bytes however it is written, `disks_test.rs` tells.

use std::io::IoSlice;
use std::sync::Arc;

use super::{BLOCK_BYTES, CountingDisk, Disk, OpenMode, RealDisk};

/// A file that was opened to be read is not written past the page cache either, and neither is another one that has its
/// name by now. Longer writes than one call takes are whole, and each counts once.
#[test]
fn writes_past_the_cache_reach_the_file_that_was_opened_to_be_written() {
    const BLOCK: usize = BLOCK_BYTES as usize;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let disk = CountingDisk::new(Arc::new(RealDisk::new()));
    let large: Vec<u8> = (0..(5 << 20) + BLOCK).map(|at| (at % 249) as u8).collect();
    let file = disk.open(&path, OpenMode::CreateNew).expect("made");
    file.write_past_cache(&large, 0).expect("written");
    assert!(std::fs::read(&path).expect("readable") == large);
    let counted = disk.snapshot().other;
    assert_eq!((counted.writes, counted.bytes), (1, large.len() as u64));
    let reader = disk.open(&path, OpenMode::Read).expect("open");
    assert!(reader.write_past_cache(&[9; BLOCK], 0).is_err(), "opened to be read");
    assert!(std::fs::read(&path).expect("readable") == large);

    let moved = disk.open(&path, OpenMode::Write).expect("open");
    let elsewhere = folder.path().join("elsewhere");
    disk.rename(&path, &elsewhere).expect("renamed");
    disk.open(&path, OpenMode::CreateNew).expect("made").write_at(&[IoSlice::new(b"other")], 0).expect("written");
    moved.write_past_cache(&[7; BLOCK], 0).expect("written");
    assert_eq!(std::fs::read(&path).expect("readable"), b"other");
    let found = std::fs::read(&elsewhere).expect("readable");
    assert!(found[..BLOCK] == [7; BLOCK] && found[BLOCK..] == large[BLOCK..]);
}
