use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::backup::rig_test::{TestSurroundings, backups, go_on, new_engine, node, restore_options};
use crate::engine::Engine;
use crate::env::{Disk, Fault, SimDisk, Trouble};

/// A file of so many pages, of which every seventh is free, and its digest.
fn file_of(page_count: u32) -> (SimDisk, Arc<dyn DiskFile>, Digest) {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/data"), OpenMode::CreateNew).expect("made");
    file.set_len(offset_of(PageNumber(page_count))).expect("works");
    let mut digest = Digest::default();
    for number in (0..page_count).filter(|number| number % 7 != 3).map(PageNumber) {
        let mut page = Page::zeroed();
        page.bytes_mut()[8..12].copy_from_slice(&(number.0 + 1).to_le_bytes());
        checksum::seal(number, &mut page);
        file.write_at(&[IoSlice::new(page.bytes())], offset_of(number)).expect("written");
        digest = digest.replace(number, 0, page.checksum());
    }
    (disk, file, digest)
}

fn sum_of(file: &dyn DiskFile, page_count: u32) -> Result<Digest, RestoreError> {
    let time = TestSurroundings::default();
    let mut go_on = go_on;
    sum_of_pages(file, page_count, &mut Meter::new(&time, None, 0, &mut go_on))
}

#[test]
fn the_sum_is_the_digest_whatever_the_number_of_pages() {
    for page_count in [0, 1, 127, 128, 129, 1_500] {
        let (_disk, file, digest) = file_of(page_count);
        assert_eq!(sum_of(&*file, page_count).expect("sound"), digest, "{page_count} pages");
        // What lies beyond the end of the file reads as free pages.
        assert_eq!(sum_of(&*file, page_count + 300).expect("sound"), digest, "{page_count} pages");
    }
}

#[test]
fn of_several_damaged_pages_the_first_is_named() {
    for damaged in [[130, 131, 900], [0, 500, 501], [1_499, 1_400, 1_300]] {
        let (disk, file, _) = file_of(1_500);
        for page in damaged {
            disk.flip_bit(Path::new("/data"), offset_of(PageNumber(page)) + 100, 3);
        }
        let error = sum_of(&*file, 1_500).expect_err("damaged");
        let first = damaged.iter().min().expect("some");
        assert!(error.to_string().contains(&format!(": page {first} ")), "{error}");
    }
}

#[test]
fn a_disk_that_does_not_read_is_no_damage_and_who_wants_it_to_end_is_heard() {
    let (disk, file, _) = file_of(1_500);
    disk.plan(Trouble::new(Fault::FailRead).after(2));
    assert!(matches!(sum_of(&*file, 1_500), Err(RestoreError::Storage(_))));
    let time = TestSurroundings::default();
    let mut told = 0;
    let mut stop = |_| {
        told += 1;
        if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = sum_of_pages(&*file, 1_500, &mut Meter::new(&time, None, 0, &mut stop));
    assert!(matches!(stopped, Err(RestoreError::Stopped)), "{stopped:?}");
    assert_eq!(told, 2);
}

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
