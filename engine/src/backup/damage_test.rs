//! Whatever is changed of a chain, nothing is restored from it, and a check finds it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig_test::{
    Life, MapStore, TestSurroundings, from_environment, go_on, new_engine, node, restore_options, small,
};
use super::{Backups, RestoreError, VerifyReport};
use crate::engine::Engine;
use crate::env::{Disk, SimDisk};

type Objects = BTreeMap<String, Bytes>;

/// A full backup and two increments, the newest of which may still grow.
fn chain(database: u128, seed: u64, grows: bool) -> Objects {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
    let time = TestSurroundings::default();
    // Names of backups differ.
    time.pass(std::time::Duration::from_secs(seed * 3600 + database as u64));
    let mut life = Life::new(new_engine(&disk, database), seed);
    let store = Arc::new(MapStore::default());
    let backups = Backups::with(store.clone(), Arc::new(time.clone()), small());
    let mut live = |changes: usize| {
        life.change(changes, &time);
        life.engine.clone()
    };
    backups.full(&live(25), &mut go_on).expect("made");
    let made = backups.incremental(&live(1), &mut go_on).expect("made");
    assert_eq!(made.full_because, None);
    if grows {
        let engine = live(1);
        let mut follower = backups.follow(&engine, std::time::Duration::ZERO).expect("works").expect("can follow");
        while follower.step(std::time::Duration::ZERO).expect("works") != super::Followed::Nothing {}
    } else {
        backups.incremental(&live(1), &mut go_on).expect("made");
    }
    store.0.lock().clone()
}

fn with(objects: Objects) -> Backups {
    Backups::with(Arc::new(MapStore(Arc::new(Mutex::new(objects)))), Arc::new(TestSurroundings::default()), small())
}

/// What a check and a restore say. The restore leaves nothing that could be taken for a database.
fn tried(objects: Objects) -> (VerifyReport, Result<(), RestoreError>) {
    let backups = with(objects);
    let report = backups.verify(&mut go_on).expect("readable");
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let place = Path::new("/new");
    let restored = backups.restore(&disk, place, node(), &restore_options(), &mut go_on);
    assert_eq!(restored.is_ok(), Engine::exists(&*disk, place).expect("known"), "{restored:?}");
    (report, restored.map(drop))
}

fn refused(what: &str, objects: Objects) {
    let (report, restored) = tried(objects);
    assert!(!report.is_sound(), "{what}: the check finds nothing");
    assert!(matches!(restored, Err(RestoreError::Chain(_))), "{what}: {restored:?}");
}

fn seed_of(number: u64) -> (u64, StdRng) {
    let seed = from_environment("CALAMUS_SEED", 1) + number;
    (seed, StdRng::seed_from_u64(seed))
}

#[test]
fn every_changed_byte_is_refused() {
    let chains = [chain(9, 4, false), chain(9, 4, true)];
    for objects in &chains {
        let (report, restored) = tried(objects.clone());
        assert!(report.is_sound() && restored.is_ok() && report.backups == 3, "{report:?} {restored:?}");
    }
    let count = from_environment("CALAMUS_DAMAGES", 150);
    for number in 0..count {
        let (seed, mut random) = seed_of(number);
        let mut objects = chains[random.random_range(0..chains.len())].clone();
        let place = random.random_range(0..objects.len());
        let (name, bytes) = objects.iter_mut().nth(place).expect("one of them");
        let mut changed = bytes.to_vec();
        let at = random.random_range(0..changed.len());
        changed[at] ^= random.random_range(1..=255_u8);
        *bytes = changed.into();
        let what = format!("byte {at} of {name} (CALAMUS_SEED={seed} CALAMUS_DAMAGES=1)");
        refused(&what, objects);
    }
    println!("backup: {count} changed bytes were refused");
}

#[test]
fn every_missing_doubled_swapped_and_foreign_object_is_refused() {
    let chains = [chain(9, 4, false), chain(9, 4, true)];
    let foreign = [chain(8, 4, false), chain(9, 5, false)];
    let count = from_environment("CALAMUS_DAMAGES", 150);
    let mut kinds = [0; 6];
    let mut number = 0;
    while kinds.iter().sum::<u64>() < count {
        let (seed, mut random) = seed_of(number);
        number += 1;
        let mut objects = chains[random.random_range(0..chains.len())].clone();
        let before = objects.clone();
        let names: Vec<String> = objects.keys().cloned().collect();
        let any = |random: &mut StdRng| names[random.random_range(0..names.len())].clone();
        let folder = |name: &str| name.split_once('/').expect("a folder").0.to_owned();
        let (one, other) = (any(&mut random), any(&mut random));
        let kind = random.random_range(0..kinds.len());
        let what = match kind {
            0 => {
                objects.remove(&one);
                format!("{one} is missing")
            }
            1 => {
                // Under a name that no object has.
                let parts = names.iter().filter(|name| name.starts_with(&format!("{}/part-", folder(&other)))).count();
                let double = format!("{}/part-{:06}", folder(&other), parts + random.random_range(1..3));
                objects.insert(double.clone(), before[&one].clone());
                format!("{one} is there again as {double}")
            }
            2 => {
                let (a, b) = (objects[&one].clone(), objects[&other].clone());
                objects.insert(one.clone(), b);
                objects.insert(other.clone(), a);
                format!("{one} and {other} are swapped")
            }
            3 => {
                // A whole backup under another name.
                let copy = format!("{}00000000", &folder(&one)[..24]);
                for (name, bytes) in before.iter().filter(|(name, _)| folder(name) == folder(&one)) {
                    objects.insert(name.replace(&folder(&one), &copy), bytes.clone());
                }
                format!("{one} and what is with it is there again as {copy}")
            }
            4 => {
                // The same place in another chain.
                let from = &foreign[random.random_range(0..foreign.len())];
                let place = random.random_range(0..from.len().min(names.len()));
                let theirs = from.values().nth(place).expect("there").clone();
                objects.insert(names[place].clone(), theirs);
                format!("{} is another chain's", names[place])
            }
            _ => {
                // All of a chain of another database.
                objects.extend(foreign[0].clone());
                "there is a whole other chain".to_owned()
            }
        };
        if objects == before {
            continue;
        }
        kinds[kind] += 1;
        refused(&format!("{what} (CALAMUS_SEED={seed} CALAMUS_DAMAGES=1)"), objects);
    }
    println!(
        "backup: {count} objects missing, doubled, swapped, copied, foreign, beside a foreign chain: {kinds:?} were refused"
    );
}
