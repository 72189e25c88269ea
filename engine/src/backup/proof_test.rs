//! What a disk does to a restore.

use std::path::Path;
use std::sync::Arc;

use super::error::RestoreError;
use super::rig_test::{TestSurroundings, backups, go_on, new_engine, node, restore_options};
use crate::engine::Engine;
use crate::env::{Disk, Fault, SimDisk, Trouble};
use crate::page::PAGE_BYTES;

/// A write of a page is acknowledged and lost, or lands elsewhere: no sum that is taken on the way to the disk would tell.
#[test]
fn a_page_that_the_disk_lost_or_put_elsewhere_is_found() {
    let source: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = new_engine(&source, 9);
    crate::engine::rig_test::commit(&engine, |batch| {
        batch.create_tree("t").expect("works");
        for key in 0..60_u32 {
            batch.put("t", &key.to_be_bytes(), &[key as u8; 3_000]).expect("fits");
        }
    });
    engine.checkpoint().expect("works");
    let places = backups(&source, "/backups", &TestSurroundings::default());
    let made = places.full(&engine, &mut go_on).expect("made").backup.expect("a full one");
    assert!(made.pages > 20 && made.frames == 0, "only pages, which nothing writes again: {made:?}");
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite(PAGE_BYTES as u64)] {
        for page in 0..made.pages {
            let disk = SimDisk::new(2);
            disk.plan(Trouble::new(fault).of("data").after(page));
            let target: Arc<dyn Disk> = Arc::new(disk.clone());
            let refused = places.restore(&target, Path::new("/new"), node(), &restore_options(), &mut go_on);
            assert_eq!(disk.faults_happened(), 1, "{fault:?} of write {page}");
            assert!(matches!(refused, Err(RestoreError::Differs(_))), "{fault:?} of write {page}: {refused:?}");
            assert!(!Engine::exists(&*target, Path::new("/new")).expect("known"));
        }
    }
}
