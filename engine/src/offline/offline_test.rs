use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{OfflineState, check_directory};
use crate::engine::OpenError;
use crate::engine::engine_test::{commit, create};
use crate::env::{Disk, RealDisk};
use crate::ids::LogIndex;

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
    assert_eq!(report.frames, 30);
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
