//! The power goes at every operation of a backup, an increment, an expiry and a restore: what is left is the old or the new,
//! never half.

use std::path::Path;
use std::sync::Arc;

use super::rig_test::{
    Life, TestSurroundings, backups, engine_options, from_environment, go_on, new_engine, node, restore_options,
    trees_of,
};
use super::{Backups, Keep, RestoreOptions};
use crate::engine::Engine;
use crate::engine::rig_test::check;
use crate::env::{CrashChoice, Disk, SimDisk};
use crate::offline::check_directory;

/// What a power cut may leave at one moment.
pub(super) fn choices(number: u64) -> impl Iterator<Item = CrashChoice> {
    let seeds = from_environment("CALAMUS_CRASH_SEEDS", 1);
    let drawn = (0..seeds).map(move |draw| CrashChoice::Seeded(number * 1_000 + draw));
    [CrashChoice::LoseAll, CrashChoice::KeepAll].into_iter().chain(drawn)
}

/// Which of so many moments are tried: all of them, or a share, the last of which is the very last one: what is new is there
/// behind few of them.
fn moments(count: u64) -> impl Iterator<Item = u64> {
    let most = from_environment("CALAMUS_CRASH_MOMENTS", 10);
    (0..count).rev().step_by(usize::try_from(count.div_ceil(most).max(1)).expect("small"))
}

/// Does something with a copy of a disk, once with the power going at each moment. Each image is handed to `judge`. Returns
/// how many there were.
pub(super) fn at_every_moment(
    before: &SimDisk,
    act: impl Fn(SimDisk) -> bool,
    mut judge: impl FnMut(SimDisk, &str),
) -> u64 {
    let count = {
        let disk = before.crash(CrashChoice::KeepAll);
        let begin = disk.operation_count();
        assert!(act(disk.clone()), "without a crash it works");
        disk.operation_count() - begin
    };
    let mut images = 0;
    for moment in moments(count) {
        let disk = before.crash(CrashChoice::KeepAll);
        disk.crash_after(moment);
        // With the very last operations it may have been done.
        act(disk.clone());
        for choice in choices(moment) {
            images += 1;
            judge(disk.crash(choice), &format!("moment {moment} of {count}, {choice:?}"));
        }
    }
    images
}

pub(super) fn as_disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// The trees that a restore from a place on this disk leads to.
fn restored(disk: &SimDisk, time: &TestSurroundings) -> super::rig_test::Trees {
    let fresh: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let places = backups(&as_disk(disk), "/backups", time);
    places.restore(&fresh, Path::new("/r"), node(), &restore_options(), &mut go_on).expect("restored");
    let (engine, _) = Engine::open(fresh, Path::new("/r"), engine_options()).expect("opens");
    check(&engine);
    trees_of(&engine)
}

#[test]
fn a_backup_is_there_or_is_not() {
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&as_disk(&SimDisk::new(1)), 9), 11);
    let place = SimDisk::new(2);
    let mut live = |changes: usize| {
        life.change(changes, &time);
        (life.engine.clone(), life.now().trees.clone())
    };
    let (engine, old) = live(60);
    backups(&as_disk(&place), "/backups", &time).full(&engine, &mut go_on).expect("made");
    let (engine, new) = live(4);
    type Make<'m> = &'m dyn Fn(&Backups) -> bool;
    let full: Make<'_> = &|places| places.full(&engine, &mut go_on).is_ok();
    let increment: Make<'_> = &|places| {
        places.incremental(&engine, &mut go_on).is_ok_and(|made| {
            assert_eq!(made.full_because, None);
            true
        })
    };
    for (name, make) in [("full", full), ("incremental", increment)] {
        let act = |disk: SimDisk| make(&backups(&as_disk(&disk), "/backups", &time));
        let (mut before, mut behind) = (0, 0);
        let images = at_every_moment(&place, act, |image, what| {
            let places = backups(&as_disk(&image), "/backups", &time);
            let report = places.verify(&mut go_on).expect("readable");
            assert!(report.is_sound(), "{name}, {what}: {report:?}");
            let found = restored(&image, &time);
            assert!(found == old || found == new, "{name}, {what}: neither the old nor the new");
            if report.backups == 1 {
                before += 1
            } else {
                behind += 1
            }
            assert_eq!(report.backups > 1, found == new, "{name}, {what}");
            // The next one goes on.
            assert!(make(&places), "{name}, {what}");
            assert!(restored(&image, &time) == new, "{name}, {what}");
        });
        assert!(before > 0 && behind > 0, "{name}: {before} images with the old, {behind} with the new");
        println!("backup: crash in {name}: {images} images are sound");
    }
}

#[test]
fn an_expiry_that_breaks_off_leaves_chains() {
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&as_disk(&SimDisk::new(1)), 9), 11);
    let place = SimDisk::new(2);
    let places = backups(&as_disk(&place), "/backups", &time);
    for _ in 0..2 {
        life.change(60, &time);
        places.full(&life.engine, &mut go_on).expect("made");
        life.change(1, &time);
        places.incremental(&life.engine, &mut go_on).expect("made");
    }
    let newest = life.now().trees.clone();
    let keep = Keep { chains: Some(1), age: None };
    let act = |disk: SimDisk| backups(&as_disk(&disk), "/backups", &time).expire(keep, false).is_ok();
    let images = at_every_moment(&place, act, |image, what| {
        let places = backups(&as_disk(&image), "/backups", &time);
        let report = places.verify(&mut go_on).expect("readable");
        assert!(report.is_sound(), "{what}: {report:?}");
        assert!(restored(&image, &time) == newest, "{what}");
        places.expire(keep, false).expect("works");
        let left = places.list().expect("readable");
        assert_eq!((left.chains.len(), left.leftovers.len()), (1, 0), "{what}: {left:?}");
    });
    println!("backup: crash in an expiry: {images} images are sound");
}

/// A restore into a directory that is not there, and one over a database that is replaced.
#[test]
fn a_restore_leaves_the_old_database_or_the_new_one() {
    let time = TestSurroundings::default();
    let source: Arc<dyn Disk> = as_disk(&SimDisk::new(1));
    let mut life = Life::new(new_engine(&source, 9), 11);
    life.change(30, &time);
    let places = backups(&source, "/backups", &time);
    places.full(&life.engine, &mut go_on).expect("made");
    life.change(2, &time);
    places.incremental(&life.engine, &mut go_on).expect("made");
    let new = life.now().trees.clone();

    let target = SimDisk::new(2);
    let mut other = Life::new(new_engine(&as_disk(&target), 7), 3);
    other.change(20, &time);
    other.engine.checkpoint().expect("works");
    let old = other.now().trees.clone();
    let old_identity = other.engine.identity();
    other.engine.close();
    drop(other);

    for (directory, replace) in [("/new", false), ("/db", true)] {
        let place = Path::new(directory);
        let options = RestoreOptions { replace, ..restore_options() };
        let act = |disk: SimDisk| places.restore(&as_disk(&disk), place, node(), &options, &mut go_on).is_ok();
        let (mut before, mut behind) = (0, 0);
        let images = at_every_moment(&target, act, |image, what| {
            let disk = as_disk(&image);
            let is_new = |disk: &Arc<dyn Disk>| {
                let found = check_directory(disk, place, &mut |_| {}).expect("readable");
                assert!(found.is_clean(), "{directory}, {what}: {:?}", found.findings);
                let (engine, _) = Engine::open(disk.clone(), place, engine_options()).expect("opens");
                check(&engine);
                let is_new = engine.identity().raft_id != old_identity.raft_id;
                let expected = if is_new { &new } else { &old };
                assert!(trees_of(&engine) == *expected, "{directory}, {what}: other trees (new: {is_new})");
                let names = disk.list_dir(place).expect("readable");
                assert_eq!(names.iter().filter(|name| name.starts_with('g')).count(), 1, "{directory}, {what}");
                is_new
            };
            let there = Engine::exists(&*disk, place).expect("known");
            assert!(there || !replace, "{directory}, {what}: the old one is gone");
            if there && is_new(&disk) {
                behind += 1;
                return;
            }
            before += 1;
            // Once more: whatever the first one left is in nobody's way.
            places.restore(&disk, place, node(), &options, &mut go_on).expect("restored");
            assert!(is_new(&disk), "{directory}, {what}");
        });
        assert!(before > 0 && behind > 0, "{directory}: {before} images with the old, {behind} with the new");
        println!("backup: crash in a restore into {directory}: {images} images are the old or the new");
    }
}
