use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::rig_test::{
    Life, MapStore, TestSurroundings, engine_options, go_on, new_engine, node, restore_options, small, trees_of,
};
use super::{BackupError, BackupOptions, BackupStore, Backups, Followed, WhyFull};
use crate::engine::Engine;
use crate::env::{Disk, SimDisk};

const EVERY: Duration = Duration::from_secs(5);
const AT_ONCE: Duration = Duration::ZERO;

struct Rig {
    disk: Arc<dyn Disk>,
    time: TestSurroundings,
    life: Life,
    store: Arc<MapStore>,
    backups: Backups,
}

fn rig() -> Rig {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let time = TestSurroundings::default();
    let mut life = Life::new(new_engine(&disk, 9), 5);
    let store = Arc::new(MapStore::default());
    let backups = Backups::with(store.clone(), Arc::new(time.clone()), BackupOptions { compress: false, ..small() });
    life.change(100, &time);
    backups.full(&life.engine, &mut go_on).expect("made");
    Rig { disk, time, life, store, backups }
}

/// What a restore from the place would have, and how many backups it takes.
fn restored(rig: &Rig, name: &str) -> (super::rig_test::Trees, usize) {
    let place = Path::new(name);
    let report = rig.backups.restore(&rig.disk, place, node(), &restore_options(), &mut go_on).expect("restored");
    let (engine, _) = Engine::open(rig.disk.clone(), place, engine_options()).expect("opens");
    (trees_of(&engine), report.backups.len())
}

#[test]
fn what_is_committed_is_archived_before_its_time_is_over() {
    let mut rig = rig();
    let backups = rig.backups.clone();
    let mut follower = backups.follow(&rig.life.engine, EVERY).expect("works").expect("an increment can follow");
    assert_eq!(follower.step(AT_ONCE).expect("works"), Followed::Nothing);
    let mut saved_at = rig.time.0.lock().0;
    let mut saves = 0;
    for round in 0..40 {
        rig.life.step(&rig.time);
        loop {
            match follower.step(AT_ONCE).expect("works") {
                Followed::Nothing if follower.next_index() == rig.life.engine.stays_until() => break,
                Followed::Nothing => {}
                Followed::Saved(end) => {
                    saves += 1;
                    let at = rig.time.0.lock().0;
                    assert!(at - saved_at < EVERY + Duration::from_secs(4), "round {round}: {at:?} {saved_at:?}");
                    saved_at = at;
                    if end.index == rig.life.engine.applied().log_id.map(|last| last.index.0) {
                        let (found, used) = restored(&rig, &format!("/at{round}"));
                        assert!(found == rig.life.now().trees && used == 2, "the full one, and the one that grows");
                    }
                }
                Followed::FullDue(WhyFull::ChainIsLong { increment_bytes, full_bytes }) => {
                    assert!(increment_bytes > full_bytes / 2);
                    assert!(rig.backups.verify(&mut go_on).expect("readable").is_sound());
                    assert!(saves > 2, "{saves} saves");
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
        if follower.is_idle() {
            saved_at = rig.time.0.lock().0;
        }
    }
    panic!("the chain never got long");
}

#[test]
fn the_next_backup_seals_what_a_dead_follower_left_and_a_live_one_notices() {
    let mut rig = rig();
    let backups = rig.backups.clone();
    let mut follower = backups.follow(&rig.life.engine, EVERY).expect("works").expect("an increment can follow");
    rig.life.change(1, &rig.time);
    let mut step = || follower.step(AT_ONCE).expect("works");
    while step() == Followed::Nothing {
        rig.time.pass(EVERY);
    }
    // A part that was put, and whose manifest was not: that of a crash.
    let catalog = rig.backups.list().expect("readable");
    let grows = &catalog.chains[0].newest().manifest;
    assert!(!grows.sealed);
    let (id, next) = (grows.backup_id(), grows.parts.len() + 1);
    let name = super::output::part_name(&id, next);
    rig.store.put(&name, &super::output::part_header(&id, next)).expect("works");
    assert!(rig.backups.verify(&mut go_on).expect("readable").is_sound());
    let before = rig.life.now().clone();
    assert!(restored(&rig, "/crashed").0 == before.trees);

    rig.life.change(2, &rig.time);
    let next = rig.backups.incremental(&rig.life.engine, &mut go_on).expect("made").backup.expect("something new");
    assert_eq!(next.parent.expect("an increment").id, id.as_str());
    assert!(rig.store.read(&name, 0, 1).is_err(), "what the manifest did not name is gone");
    assert!(rig.backups.verify(&mut go_on).expect("readable").is_sound());
    assert!(restored(&rig, "/next") == (rig.life.now().trees.clone(), 3));
    rig.time.pass(EVERY);
    let taken = std::iter::repeat_with(|| follower.step(AT_ONCE)).find(Result::is_err).expect("it notices");
    assert!(matches!(taken, Err(BackupError::Taken(of)) if of == id.as_str()));
}

#[test]
fn an_engine_that_closes_ends_the_backup_with_all_that_was_committed() {
    let mut rig = rig();
    let backups = rig.backups.clone();
    let mut follower = backups.follow(&rig.life.engine, EVERY).expect("works").expect("an increment can follow");
    rig.life.change(1, &rig.time);
    rig.life.engine.close();
    let mut steps = std::iter::repeat_with(|| follower.step(AT_ONCE).expect("works"));
    let ended = steps.find(|followed| !matches!(followed, Followed::Nothing | Followed::Saved(_)));
    assert_eq!(ended, Some(Followed::Closed));
    let catalog = rig.backups.list().expect("readable");
    assert!(catalog.chains[0].newest().manifest.sealed);
    assert!(restored(&rig, "/end").0 == rig.life.now().trees);
}
