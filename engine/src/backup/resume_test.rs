use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::rig_test::{
    Life, MapStore, TestSurroundings, engine_options, go_on, new_engine, node, restore_options, small, trees_of,
};
use super::{BackupError, BackupOptions, Backups, Keep};
use crate::engine::Engine;
use crate::env::{Disk, SimDisk};

/// A full backup that is stopped after so many pieces, while the database is written to.
fn stopped_after(backups: &Backups, life: &mut Life, time: &TestSurroundings, pieces: usize) -> bool {
    let (engine, mut met) = (life.engine.clone(), 0);
    let mut on_progress = |_| {
        life.step(time);
        met += 1;
        if met > pieces { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match backups.full(&engine, &mut on_progress) {
        Err(BackupError::Stopped) => true,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_interrupted_backup_goes_on_where_it_was_and_leads_to_the_same_state() {
    let mut resumed = 0;
    for pieces in 0..7 {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let time = TestSurroundings::default();
        let mut life = Life::new(new_engine(&disk, 9), 7);
        let options = BackupOptions { part_bytes: 4 << 10, compress: false, ..small() };
        let backups = Backups::with(Arc::new(MapStore::default()), Arc::new(time.clone()), options);
        for _ in 0..60 {
            life.step(&time);
        }
        // The pin goes with the backup that is stopped: the retention keeps the journal.
        let keep =
            life.engine.pin("test", life.engine.log_state().last.expect("not empty").index, u64::MAX).expect("kept");
        life.engine.checkpoint().expect("works");
        for again in 0..2 {
            if !stopped_after(&backups, &mut life, &time, pieces + again) {
                break;
            }
            let catalog = backups.list().expect("readable");
            assert!(catalog.chains.is_empty() && catalog.problems.is_empty(), "{catalog:?}");
            assert_eq!((catalog.leftovers.len(), catalog.leftovers[0].expired), (1, false));
        }
        drop(keep);
        let report = backups.full(&life.engine, &mut go_on).expect("made");
        resumed += usize::from(report.resumed);
        assert!(backups.verify(&mut go_on).expect("readable").is_sound());
        assert!(backups.list().expect("readable").leftovers.is_empty(), "it was gone on with, not begun anew");
        backups.restore(&disk, Path::new("/new"), node(), &restore_options(), &mut go_on).expect("restored");
        let (engine, _) = Engine::open(disk.clone(), Path::new("/new"), engine_options()).expect("opens");
        assert!(trees_of(&engine) == life.now().trees, "{pieces} pieces");
    }
    assert!(resumed >= 5, "{resumed} were resumed");
}

#[test]
fn one_that_cannot_go_on_is_begun_anew_and_says_why() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&disk, 9), 7);
    let backups = Backups::with(Arc::new(MapStore::default()), Arc::new(time.clone()), small());
    for _ in 0..60 {
        life.step(&time);
    }
    life.engine.checkpoint().expect("works");
    assert!(stopped_after(&backups, &mut life, &time, 3));
    let id = backups.list().expect("readable").leftovers[0].id.clone();
    // The journal goes on until the frames behind its checkpoint are gone.
    for _ in 0..400 {
        life.step(&time);
    }
    life.engine.checkpoint().expect("works");
    let report = backups.full(&life.engine, &mut go_on).expect("made");
    assert!(!report.resumed);
    let why = report.begun_anew_because.expect("it says why");
    assert!(why.contains(id.as_str()) && why.contains("the journal begins with frame"), "{why}");
    let catalog = backups.list().expect("readable");
    assert_eq!((catalog.chains.len(), &catalog.leftovers[0].id), (1, &id));
    // It is older than the newest backup, so it is never gone on with.
    assert_eq!(backups.expire(Keep::default(), true).expect("works").removed, std::slice::from_ref(&id));
    backups.remove_leftover(&id).expect("it is one");
    assert!(backups.list().expect("readable").leftovers.is_empty());
    assert!(backups.remove_leftover(&catalog.chains[0].full().backup_id()).is_err(), "no leftover");
}
