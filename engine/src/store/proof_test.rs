//! The sum of a file's pages, read by several.

use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::data_file::offset_of;
use super::proof::*;
use crate::env::{Disk, DiskFile, Fault, OpenMode, SimDisk, Trouble};
use crate::ids::{Digest, PageNumber};
use crate::page::{Page, checksum};

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

fn sum_of(file: &dyn DiskFile, page_count: u32) -> Result<Digest, NoProof> {
    digest_of_file(file, page_count, &carried, &mut |_| ControlFlow::Continue(()))
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
        assert!(matches!(&error, NoProof::Damaged(what) if what.contains(&format!("page {first} "))), "{error:?}");
    }
}

#[test]
fn a_disk_that_does_not_read_is_no_damage_and_who_wants_it_to_end_is_heard() {
    let (disk, file, _) = file_of(1_500);
    disk.plan(Trouble::new(Fault::FailRead).after(2));
    assert!(matches!(sum_of(&*file, 1_500), Err(NoProof::Storage(_))));
    let mut told = 0;
    let stopped = digest_of_file(&*file, 1_500, &carried, &mut |_| {
        told += 1;
        if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(NoProof::Stopped)), "{stopped:?}");
    assert_eq!(told, 2);
}
