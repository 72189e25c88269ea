use std::path::Path;
use std::sync::Arc;

use super::{DiskFull, Footprint, Reserve, Space, SpaceLevel, SpaceOptions};
use crate::env::{Disk, SimDisk};

const OPTIONS: SpaceOptions = SpaceOptions { reserve_bytes: 1000, low_bytes: 100, high_bytes: 500 };

fn level(free: u64, held: u64, needed: u64) -> SpaceLevel {
    let space = Space { free_bytes: Some(free), reserve_bytes: held, needed_bytes: needed, ..Space::default() };
    space.judge(&OPTIONS, 300).level
}

#[test]
fn levels_follow_the_room() {
    assert_eq!(level(500, 1000, 0), SpaceLevel::Normal);
    assert_eq!(level(500, 1000, 1), SpaceLevel::NoGrowth);
    assert_eq!(level(1500, 0, 0), SpaceLevel::Normal, "free bytes are as good, until somebody takes them");
    assert_eq!(level(99, 1000, 0), SpaceLevel::DeletesOnly);
    assert_eq!(level(0, 300, 0), SpaceLevel::DeletesOnly);
    assert_eq!(level(0, 299, 0), SpaceLevel::Full);
    assert_eq!(level(0, 1000, 2000), SpaceLevel::Full);
    let unknown = Space { free_bytes: None, needed_bytes: 1 << 40, ..Space::default() };
    assert_eq!(unknown.judge(&OPTIONS, 300).level, SpaceLevel::Normal);
    let none = Space { free_bytes: Some(300), ..Space::default() };
    assert_eq!(none.judge(&SpaceOptions::default(), 300).level, SpaceLevel::Normal);
}

#[test]
fn every_level_says_what_it_takes() {
    let taken = |level: SpaceLevel| {
        [Footprint::Nothing, Footprint::Deletes, Footprint::Keeps, Footprint::Grows].map(|done| level.admits(done))
    };
    assert_eq!(taken(SpaceLevel::Normal), [true, true, true, true]);
    assert_eq!(taken(SpaceLevel::NoGrowth), [true, true, true, false]);
    assert_eq!(taken(SpaceLevel::DeletesOnly), [true, true, false, false]);
    assert_eq!(taken(SpaceLevel::Full), [true, false, false, false]);
    assert!(SpaceLevel::ALL.is_sorted());
}

#[test]
fn a_refusal_says_what_why_and_what_next() {
    let full = DiskFull {
        directory: "/db".into(),
        level: SpaceLevel::DeletesOnly,
        free_bytes: Some(7),
        reserve_bytes: 8,
        needed_bytes: 9,
    };
    assert_eq!(
        full.to_string(),
        "the disk of /db is short of space (deletes only): 7 bytes are free, 8 in the reserve, and 9 may be needed for what \
         was accepted before. Nothing was changed. Free space on that file system, or delete data; deletes and drops are \
         still taken"
    );
}

fn open(disk: &SimDisk, wanted: u64) -> Reserve {
    Reserve::open(Arc::new(disk.clone()), Path::new("/"), wanted).expect("opens")
}

#[test]
fn the_reserve_takes_what_there_is_gives_it_up_and_takes_it_again() {
    let disk = SimDisk::new(1);
    let free = |disk: &SimDisk| disk.free_bytes(Path::new("/")).expect("known");
    disk.set_space_limit(Some(100_000));
    let reserve = open(&disk, 60_000);
    assert_eq!((reserve.held(), reserve.give(1)), (0, 0), "nothing is taken before it is asked for");
    reserve.fill(20_000);
    reserve.fill(u64::MAX);
    assert_eq!((reserve.held(), free(&disk)), (60_000, 40_000));
    assert_eq!((reserve.give(50_000), reserve.give(50_000), reserve.give(1)), (50_000, 10_000, 0));
    assert_eq!((reserve.held(), free(&disk)), (0, 100_000));
    // No space: it holds nothing more, and takes nothing from anybody.
    disk.set_space_limit(Some(30_000));
    reserve.fill(u64::MAX);
    assert_eq!((reserve.held(), free(&disk)), (0, 30_000));
    reserve.fill(25_000);
    drop(reserve);
    let reserve = open(&disk.kill(), 10_000);
    assert_eq!(reserve.held(), 10_000, "the next process finds it, and gives back what is too much");
    let left = disk.kill();
    assert_eq!(open(&left, 0).held(), 0);
    assert!(!left.exists(Path::new("/reserve")).expect("known"));
}
