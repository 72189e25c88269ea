//! The power goes before every operation of a node whose journal is followed, and of its follower: both are on one disk, so that
//! what the node forgot and what the backup has are of one moment. Of each disk that is left:
//!
//! - the place verifies, and its end is a state that the node was in, not older than what was said to be archived and not newer
//!   than what was applied: frames that nobody was told of are in no backup;
//! - the node comes back with all that was applied, and so with all that is archived. A backup that is ahead of its node
//!   could not be gone on with (`NotInJournal`), and a journal that was let go before its frames were archived for good leaves a
//!   gap (`JournalPurged`): both would show here, since the node keeps nothing but what is pinned;
//! - following goes on behind that end, without another full backup unless the chain is long, and at its end the restore is the new
//!   state.

use std::collections::{BTreeMap, HashSet};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::crash_test::choices;
use super::rig_test::{
    Life, Moment, TestSurroundings, backups, engine_options, from_environment, go_on, node, restore_options, trees_of,
};
use super::{Backups, Followed, Position};
use crate::engine::rig_test::{catch_up, check, identity};
use crate::engine::{Engine, EngineOptions};
use crate::env::{Disk, DiskFile, DiskInFront, FileClass, FileInFront, OpenMode, SimDisk};
use crate::error::StorageError;
use crate::ids::{DatabaseId, LogIndex};
use crate::journal::JournalOptions;

const EVERY: Duration = Duration::from_secs(8);
const AT_ONCE: Duration = Duration::ZERO;
/// Steps of the life that is followed: several increments, of several parts each.
const STEPS: usize = 100;

/// Short segments: what is not pinned is gone with the next checkpoint.
fn options() -> EngineOptions {
    let journal = JournalOptions { segment_bytes: 128 << 10, ..engine_options().journal };
    EngineOptions { journal, ..engine_options() }
}

/// What was said to be archived, what the node had applied, and the states that it was in.
#[derive(Clone, Default)]
struct Promise {
    /// The last frame that is archived.
    archived: Option<u64>,
    /// The last frame that was applied when the follower was called last.
    applied: Option<u64>,
    moments: Vec<Moment>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    boundaries: u64,
    tried: u64,
    distinct: u64,
}

/// What is looked at, and what was.
#[derive(Default)]
struct Looks {
    /// Of so many boundaries one is looked at; none with 0.
    one_in: u64,
    /// What was before is not looked at.
    follows: bool,
    boundaries: u64,
    promise: Promise,
    /// What the last operation was: the disks that it may leave count for it.
    step: String,
    steps: BTreeMap<String, Count>,
    tried: HashSet<(u128, Option<u64>)>,
    images: HashSet<u128>,
}

/// A disk that is looked at before every operation that changes it.
struct Watched {
    sim: SimDisk,
    looks: Mutex<Looks>,
    time: TestSurroundings,
}

impl Watched {
    fn before(&self, operation: &str, path: &Path) {
        let (step, number, promise) = {
            let mut looks = self.looks.lock();
            if !looks.follows {
                return;
            }
            looks.boundaries += 1;
            let next = format!("{} {operation}", what_is(path));
            let step = std::mem::replace(&mut looks.step, next);
            looks.steps.entry(step.clone()).or_default().boundaries += 1;
            if looks.one_in == 0 || !looks.boundaries.is_multiple_of(looks.one_in) {
                return;
            }
            (step, looks.boundaries, looks.promise.clone())
        };
        for choice in choices(number) {
            let image = self.sim.crash(choice);
            let hash = image.image_hash();
            {
                let mut looks = self.looks.lock();
                if !looks.tried.insert((hash, promise.archived)) {
                    continue;
                }
                let distinct = u64::from(looks.images.insert(hash));
                let count = looks.steps.entry(step.clone()).or_default();
                count.tried += 1;
                count.distinct += distinct;
            }
            let what =
                format!("after {step}, before operation {number} ({operation} of {}), {choice:?}", path.display());
            judge(&image, &promise, &self.time, &what);
        }
    }
}

/// What a file is to the follower, or to its node.
fn what_is(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !path.starts_with("/backups") {
        return format!("node: {:?}", FileClass::of(path)).to_lowercase();
    }
    let object = name.trim_end_matches(".partial");
    let object = if object.starts_with("part-") { "part" } else { object };
    match object {
        "part" | "manifest" | "progress" => format!("backup: {object}"),
        _ => "backup: folder".to_owned(),
    }
}

struct WatchedDisk(Arc<Watched>);

impl DiskInFront for WatchedDisk {
    fn behind(&self) -> &dyn Disk {
        &self.0.sim
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        if mode == OpenMode::CreateNew {
            self.0.before("create", path);
        }
        Ok(Arc::new(WatchedFile { inner: self.0.sim.open(path, mode)?, watched: self.0.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.0.before("create directory", path);
        self.0.sim.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.0.before("rename", from);
        self.0.sim.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.0.before("remove", path);
        self.0.sim.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<(), StorageError> {
        self.0.before("remove directory", path);
        self.0.sim.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), StorageError> {
        self.0.before("sync directory", path);
        self.0.sim.sync_dir(path)
    }
}

struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    watched: Arc<Watched>,
}

impl FileInFront for WatchedFile {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        self.watched.before("write", self.path());
        self.inner.write_at(parts, offset)
    }
    fn sync_data(&self) -> Result<(), StorageError> {
        self.watched.before("sync", self.path());
        self.inner.sync_data()
    }
    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        self.watched.before("length", self.path());
        self.inner.set_len(length)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.watched.before("punch", self.path());
        self.inner.punch(offset, length)
    }
}

/// Restores the end of a place to a disk of its own: its position, and what the trees hold.
fn restored(places: &Backups) -> (Position, super::rig_test::Trees) {
    let fresh: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let report = places.restore(&fresh, Path::new("/r"), node(), &restore_options(), &mut go_on).expect("restored");
    let (engine, _) = Engine::open(fresh, Path::new("/r"), engine_options()).expect("opens");
    check(&engine);
    (report.restored, trees_of(&engine))
}

/// One disk that a power cut may leave: what was promised is there, and everything goes on.
fn judge(image: &SimDisk, promise: &Promise, time: &TestSurroundings, what: &str) {
    let disk: Arc<dyn Disk> = Arc::new(image.clone());
    let time = TestSurroundings(Arc::new(Mutex::new(*time.0.lock())));
    let places = backups(&disk, "/backups", &time);

    let report = places.verify(&mut go_on).expect("readable");
    assert!(report.is_sound(), "{what}: {report:?}");
    let (end, trees) = restored(&places);
    let model = promise.moments.iter().rev().find(|moment| moment.txn_id.0 == end.txn_id);
    let model = model.unwrap_or_else(|| panic!("{what}: the node was never at txn {}", end.txn_id));
    assert!(model.digest.0 == end.digest && model.trees == trees, "{what}: not the state of txn {}", end.txn_id);
    let archived = promise.archived;
    assert!(end.index >= archived, "{what}: archived was {archived:?}, and there is {:?}", end.index);
    assert!(end.index <= promise.applied, "{what}: {:?} of {:?} that was applied", end.index, promise.applied);

    let (engine, _) = Engine::open(disk.clone(), Path::new("/db"), options()).expect("opens");
    catch_up(&engine);
    check(&engine);
    let applied = engine.applied().log_id.map(|log_id| log_id.index.0);
    assert!(applied >= promise.applied, "{what}: the node forgot frames: {applied:?} of {:?}", promise.applied);

    let mut life = Life::new(engine, 77);
    life.change(2, &time);
    follow_to_the_end(&mut life, &places, &time, what);
    let report = places.verify(&mut go_on).expect("readable");
    assert!(report.is_sound(), "{what}, gone on: {report:?}");
    assert!(restored(&places).1 == life.now().trees, "{what}, gone on: another end");
    life.engine.close();
}

/// Follows what a node that came back has, until nothing waits. A chain that is long gets its full backup.
fn follow_to_the_end(life: &mut Life, places: &Backups, time: &TestSurroundings, what: &str) {
    loop {
        let mut follower = match places.follow(&life.engine, EVERY).expect("works") {
            Ok(follower) => follower,
            Err(super::WhyFull::ChainIsLong { .. }) => {
                places.full(&life.engine, &mut go_on).expect("made");
                continue;
            }
            Err(why) => panic!("{what}: following does not go on: {why}"),
        };
        loop {
            match follower.step(AT_ONCE).expect("works") {
                Followed::FullDue(_) => break,
                _ if follower.next_index() == life.engine.stays_until() => return follower.end().expect("works"),
                _ => time.pass(EVERY / 3),
            }
        }
        places.full(&life.engine, &mut go_on).expect("made");
    }
}

/// A life that is followed: increments that begin, grow, are sealed and follow each other, full ones where the chain is long, and
/// the node's own checkpoints and purges. The same each time.
fn live(watched: &Arc<Watched>) {
    let disk: Arc<dyn Disk> = Arc::new(WatchedDisk(watched.clone()));
    let time = &watched.time;
    let engine = Engine::create(disk.clone(), Path::new("/db"), &identity(1), DatabaseId(9), options()).expect("new");
    let mut life = Life::new(engine, 23);
    let places = backups(&disk, "/backups", time);
    life.change(120, time);
    let made = places.full(&life.engine, &mut go_on).expect("made").backup.expect("a full one");
    let applied = |life: &Life| life.engine.applied().log_id.map(|log_id| log_id.index.0);
    watched.looks.lock().promise =
        Promise { archived: made.end.index, applied: applied(&life), moments: life.moments.clone() };
    let archived_is = |next: LogIndex| watched.looks.lock().promise.archived = next.0.checked_sub(1);
    let mut follower = places.follow(&life.engine, EVERY).expect("works").expect("an increment can follow");
    {
        let mut looks = watched.looks.lock();
        (looks.follows, looks.step) = (true, "start".to_owned());
    }
    for step in 0..STEPS {
        life.step(time);
        {
            let mut looks = watched.looks.lock();
            looks.promise.applied = applied(&life);
            looks.promise.moments = life.moments.clone();
        }
        while follower.next_index() < life.engine.stays_until() {
            match follower.step(AT_ONCE).expect("works") {
                Followed::Saved(end) => watched.looks.lock().promise.archived = end.index,
                Followed::Nothing => {}
                Followed::FullDue(_) => {
                    let made = places.full(&life.engine, &mut go_on).expect("made").backup.expect("a full one");
                    watched.looks.lock().promise.archived = made.end.index;
                    follower = places.follow(&life.engine, EVERY).expect("works").expect("behind the full one");
                }
                Followed::Closed => unreachable!("nobody closed it"),
            }
        }
        if step % 17 == 16 {
            // Its caller ends the increment, and the next frame begins another.
            follower.end().expect("works");
            archived_is(follower.next_index());
        }
    }
    life.engine.close();
    loop {
        match follower.step(AT_ONCE).expect("works") {
            Followed::Closed => break,
            Followed::Nothing | Followed::Saved(_) => {}
            Followed::FullDue(_) => panic!("nothing was added"),
        }
    }
    archived_is(follower.next_index());
    // What the very last operation left.
    watched.before("end", Path::new("/"));
}

fn watched(one_in: u64) -> Arc<Watched> {
    let looks = Mutex::new(Looks { one_in, ..Looks::default() });
    Arc::new(Watched { sim: SimDisk::new(1), looks, time: TestSurroundings::default() })
}

/// `CALAMUS_CRASH_MOMENTS` says how many boundaries are looked at, about, and `CALAMUS_CRASH_SEEDS` how many draws of each.
#[test]
fn what_is_followed_is_archived_whatever_the_power_leaves() {
    let dry = watched(0);
    live(&dry);
    let count = dry.looks.lock().boundaries;
    let most = from_environment("CALAMUS_CRASH_MOMENTS", 30);
    let tried = watched(count.div_ceil(most).max(1));
    live(&tried);
    let looks = tried.looks.lock();
    assert_eq!(looks.boundaries, count, "a life is the same each time");
    println!("| step | moments | disks tried | distinct |\n| --- | ---: | ---: | ---: |");
    let mut all = Count::default();
    for (step, Count { boundaries, tried, distinct }) in &looks.steps {
        println!("| {step} | {boundaries} | {tried} | {distinct} |");
        all.boundaries += boundaries;
        all.tried += tried;
        all.distinct += distinct;
    }
    println!("| all | {} | {} | {} |", all.boundaries, all.tried, all.distinct);
    for step in ["part write", "part sync", "part rename", "manifest write", "manifest rename", "progress remove"] {
        assert!(looks.steps.contains_key(&format!("backup: {step}")), "{step} is not part of that life");
    }
    assert!(all.tried >= most.min(count) / 2, "{} disks", all.tried);
}
