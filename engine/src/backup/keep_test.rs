use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, Raw, encode};
use super::output::{PART_HEADER_BYTES, manifest_name, part_name};
use super::rig_test::{
    Life, MapStore, TestSurroundings, engine_options, go_on, new_engine, node, restore_options, small, trees_of,
};
use super::{BackupError, BackupOptions, Backups, Keep, NewNode, RestoreError, RestoreOptions, RestorePoint, WhyFull};
use crate::database::Database;
use crate::engine::Engine;
use crate::env::{Disk, SimDisk};
use crate::ids::TxnId;

struct Rig {
    disk: Arc<dyn Disk>,
    time: TestSurroundings,
    life: Life,
    backups: Backups,
}

fn rig() -> Rig {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let time = TestSurroundings::default();
    let life = Life::new(new_engine(&disk, 9), 5);
    let backups = Backups::with(Arc::new(MapStore::default()), Arc::new(time.clone()), small());
    Rig { disk, time, life, backups }
}

impl Rig {
    fn live(&mut self, changes: usize) {
        self.life.change(changes, &self.time);
    }

    /// A full one and two increments, a day apart.
    fn chain(&mut self) {
        self.live(60);
        self.backups.full(&self.life.engine, &mut go_on).expect("made");
        for _ in 0..2 {
            self.time.pass(Duration::from_secs(86_400));
            self.live(1);
            let made = self.backups.incremental(&self.life.engine, &mut go_on).expect("made");
            assert_eq!(made.full_because, None);
        }
    }
}

#[test]
fn whole_chains_go_oldest_first_and_never_the_newest() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.chain();
    }
    let chains = rig.backups.list().expect("readable").chains;
    let fulls: Vec<_> = chains.iter().map(|chain| chain.full().backup_id()).collect();
    assert!(chains.iter().all(|chain| chain.backups.len() == 3));
    let plan = rig.backups.expire(Keep { chains: Some(2), age: None }, true).expect("works");
    assert_eq!((plan.removed.len(), &plan.kept[..], plan.bytes), (3, &fulls[1..], chains[0].stored_bytes()));
    assert!(plan.removed.is_sorted_by(|a, b| a > b), "the newest first, so that what is left is a chain");
    assert_eq!(rig.backups.list().expect("readable").chains, chains, "a dry run changes nothing");
    // The first chain is needed for points until the second one begins.
    let age = |days: u64| Keep { chains: None, age: Some(Duration::from_secs(days * 86_400)) };
    assert_eq!(rig.backups.expire(age(5), true).expect("works").kept.len(), 3);
    assert_eq!(rig.backups.expire(age(3), true).expect("works").kept.len(), 2);
    assert_eq!(rig.backups.expire(age(0), true).expect("works").kept, fulls[2..]);
    assert_eq!(rig.backups.expire(Keep::default(), true).expect("works").removed, []);
    assert_eq!(rig.backups.expire(Keep { chains: Some(2), age: None }, false).expect("works"), plan);
    let left = rig.backups.list().expect("readable");
    assert_eq!((&left.chains[..], left.leftovers.len(), left.problems.len()), (&chains[1..], 0, 0));
    assert_eq!(rig.backups.expire(Keep { chains: Some(0), age: None }, false).expect("works").kept, fulls[2..]);
    assert!(rig.backups.verify(&mut go_on).expect("readable").is_sound());
}

#[test]
fn a_place_is_for_one_cluster() {
    let mut rig = rig();
    rig.chain();
    let place = Path::new("/new");
    rig.backups.restore(&rig.disk, place, node(), &restore_options(), &mut go_on).expect("restored");
    let (restored, _) = Engine::open(rig.disk.clone(), place, engine_options()).expect("opens");
    let refused = rig.backups.incremental(&restored, &mut go_on).expect_err("it is another cluster");
    assert!(matches!(refused, BackupError::OtherCluster { .. }), "{refused}");
    let other = new_engine(&(Arc::new(SimDisk::new(2)) as Arc<dyn Disk>), 8);
    let refused = rig.backups.full(&other, &mut go_on).expect_err("it is another database");
    assert!(matches!(refused, BackupError::OtherDatabase { .. }), "{refused}");
    // In a place of its own it goes on, and can be restored once more: two forks.
    let own = Backups::with(Arc::new(MapStore::default()), Arc::new(rig.time.clone()), small());
    let first = own.incremental(&restored, &mut go_on).expect("made");
    assert_eq!(first.full_because, Some(WhyFull::First));
    let again = Path::new("/again");
    own.restore(&rig.disk, again, node(), &restore_options(), &mut go_on).expect("restored");
    let (twice, _) = Engine::open(rig.disk.clone(), again, engine_options()).expect("opens");
    let forks = crate::engine::rig_test::contents(&twice, "$timelines");
    assert_eq!(forks.len(), 2);
    let text = String::from_utf8(forks.into_values().next_back().expect("two")).expect("text");
    assert!(text.contains(&format!("\"forked_from\":{}", restored.timeline().0)), "{text}");
    // Who followed the changes is told what both have, and what can be gone on from.
    let forks = twice.forks().expect("readable");
    let lines: Vec<_> = forks.iter().map(|fork| (fork.forked_from, fork.timeline)).collect();
    let (first, second) = (restored.timeline(), twice.timeline());
    assert_eq!(lines, [(crate::ids::Timeline(1), first), (first, second)]);
    assert_eq!(twice.forked_from(first).expect("readable"), Some(forks[1].txn_id));
    assert_eq!(twice.forked_from(second).expect("readable"), None);
    assert_eq!(twice.feed_oldest().expect("readable").through(), forks[1].txn_id);
}

#[test]
fn what_is_not_in_the_backups_is_refused_by_name() {
    let mut rig = rig();
    let restore = |rig: &Rig, options: &RestoreOptions| {
        rig.backups.restore(&rig.disk, Path::new("/new"), node(), options, &mut go_on).map(drop)
    };
    assert!(matches!(restore(&rig, &restore_options()), Err(RestoreError::NoBackup)));
    rig.chain();
    let end = rig.life.now().clone();
    rig.live(30);
    for point in [
        RestorePoint::Txn(TxnId(1)),
        RestorePoint::Txn(end.txn_id.next()),
        RestorePoint::Time(0),
        RestorePoint::Time(u64::MAX),
    ] {
        let refused = restore(&rig, &RestoreOptions { point, ..restore_options() }).expect_err("not there");
        assert!(matches!(refused, RestoreError::Point(_)), "{refused}");
    }
    // Something stands there.
    let refused = rig.backups.restore(&rig.disk, Path::new("/db"), node(), &restore_options(), &mut go_on);
    assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })));
    let replace = RestoreOptions { replace: true, ..restore_options() };
    let refused = rig.backups.restore(&rig.disk, Path::new("/db"), node(), &replace, &mut go_on);
    assert!(matches!(refused, Err(RestoreError::Locked(_))), "a node runs there");
    rig.disk.create_dir_all(Path::new("/other/things")).expect("works");
    let refused = rig.backups.restore(&rig.disk, Path::new("/other"), node(), &restore_options(), &mut go_on);
    assert!(matches!(refused, Err(RestoreError::NotEmpty { found, .. }) if found == "things"));
}

#[test]
fn a_bound_on_the_rate_is_kept_and_progress_ends_at_its_end() {
    let mut rig = rig();
    rig.live(60);
    rig.life.engine.checkpoint().expect("works");
    let options = BackupOptions { bytes_per_second: Some(10_000), ..small() };
    let slow = Backups::with(Arc::new(MapStore::default()), Arc::new(rig.time.clone()), options);
    let mut told = Vec::new();
    let mut note = |progress: super::BackupProgress| {
        told.push(progress);
        std::ops::ControlFlow::Continue(())
    };
    let before = rig.time.0.lock().0;
    let made = slow.full(&rig.life.engine, &mut note).expect("made").backup.expect("a full one");
    let took = rig.time.0.lock().0 - before;
    let moved = made.pages * 8192;
    let due = Duration::from_micros(moved * 100);
    assert!(took >= due && took < due + Duration::from_secs(1), "{took:?} for {moved} bytes");
    let last = told.last().expect("it was told");
    assert!(last.bytes_per_second.abs_diff(10_000) < 200, "{last:?}");
    assert!(told.is_sorted_by_key(|progress| progress.done_bytes) && told[0].left.is_some());
    assert!(told.iter().all(|progress| progress.done_bytes <= progress.total_bytes));
}

/// A stall is no credit: what comes behind it is as slow as what came before.
#[test]
fn a_bound_on_the_rate_is_kept_behind_a_stall_too() {
    let mut rig = rig();
    rig.live(60);
    rig.life.engine.checkpoint().expect("works");
    let options = BackupOptions { bytes_per_second: Some(10_000), ..small() };
    let slow = Backups::with(Arc::new(MapStore::default()), Arc::new(rig.time.clone()), options);
    let stall = Duration::from_secs(3600);
    let (time, mut pieces) = (rig.time.clone(), 0);
    let mut stall_once = |_| {
        pieces += 1;
        if pieces == 2 {
            time.pass(stall);
        }
        std::ops::ControlFlow::Continue(())
    };
    let before = rig.time.0.lock().0;
    let made = slow.full(&rig.life.engine, &mut stall_once).expect("made").backup.expect("a full one");
    let took = rig.time.0.lock().0 - before;
    let due = stall + Duration::from_micros(made.pages * 8192 * 100);
    assert!(pieces > 10 && took >= due - Duration::from_millis(100), "{took:?} in {pieces} pieces, due {due:?}");
}

/// The log ends in a term of the cluster; alone, a database would begin with the first one.
#[test]
fn a_database_alone_goes_on_with_what_a_cluster_backed_up() {
    let mut rig = rig();
    while rig.life.engine.applied().log_id.is_none_or(|log_id| log_id.term.0 < 3) {
        rig.live(1);
    }
    rig.backups.full(&rig.life.engine, &mut go_on).expect("made");
    let (place, node) = (Path::new("/new"), NewNode { membership: None, ..node() });
    let report = rig.backups.restore(&rig.disk, place, node, &restore_options(), &mut go_on).expect("restored");
    assert_eq!(report.applied.membership, None);
    for round in 0..2_u64 {
        let database = Database::open_with(rig.disk.clone(), place, engine_options()).expect("opens");
        let mut found = trees_of(database.engine());
        found.remove("later");
        assert!(found == rig.life.now().trees);
        let committed = database.write(|txn| {
            txn.create_tree("later")?;
            txn.put("later", &round.to_be_bytes(), b"written")
        });
        let expected = report.applied.txn_id.0 + 1 + round;
        assert_eq!(committed.expect("written").txn_id, Some(TxnId(expected)));
        drop(database);
        let found = crate::offline::check_directory(&rig.disk, place, &mut |_| {}).expect("readable");
        assert!(found.is_clean(), "{:?}", found.findings);
    }
}

#[test]
fn a_deep_check_restores_each_chain_and_leaves_nothing() {
    let mut rig = rig();
    rig.chain();
    rig.chain();
    let scratch = Path::new("/scratch");
    let check = || rig.backups.verify_deep(&rig.disk, scratch, &restore_options(), &mut go_on).expect("readable");
    let report = check();
    assert!(report.is_sound() && report.backups == 6, "{report:?}");
    assert!(!rig.disk.exists(scratch).expect("known"));
}

/// A page is another one, and every sum over it was made anew: only what the page itself says, and the digest, tell.
#[test]
fn what_no_sum_of_the_backup_tells_a_deep_check_and_a_restore_find() {
    let mut rig = rig();
    rig.live(30);
    rig.life.engine.checkpoint().expect("works");
    let mut made = rig.backups.full(&rig.life.engine, &mut go_on).expect("made").backup.expect("a full one");
    let (store, id) = (rig.backups.store.clone(), made.backup_id());
    let name = part_name(&id, 1);
    let part = store.read(&name, 0, usize::MAX >> 40).expect("readable");
    let begin = PART_HEADER_BYTES + CHUNK_HEADER_BYTES;
    let header = part[PART_HEADER_BYTES..begin].try_into().expect("a header");
    let chunk = ChunkHeader::parse(&header).expect("sound");
    let end = begin + chunk.stored_bytes;
    let stored = bytes::Bytes::copy_from_slice(&part[begin..end]);
    let mut opened = chunk.open(&header, &stored).expect("sound").to_vec();
    *opened.last_mut().expect("a page") ^= 1;
    let mut raw = Raw::default();
    raw.push(&opened);
    let changed = [&part[..PART_HEADER_BYTES], &encode(ChunkKind::Pages, raw, true), &part[end..]].concat();
    made.stored_bytes = made.stored_bytes + changed.len() as u64 - made.parts[0].bytes;
    made.parts[0].bytes = changed.len() as u64;
    made.parts[0].hash = xxhash_rust::xxh3::xxh3_128(&changed);
    store.put(&name, &changed).expect("works");
    store.put(&manifest_name(&id), &made.encode()).expect("works");

    assert!(rig.backups.verify(&mut go_on).expect("readable").is_sound());
    let scratch = Path::new("/scratch");
    let deep = rig.backups.verify_deep(&rig.disk, scratch, &restore_options(), &mut go_on).expect("readable");
    assert_eq!(deep.problems.len(), 1, "{deep:?}");
    let refused = rig.backups.restore(&rig.disk, scratch, node(), &restore_options(), &mut go_on);
    assert!(matches!(refused, Err(RestoreError::Differs(_))), "{refused:?}");
    assert!(!Engine::exists(&*rig.disk, scratch).expect("known"));
}

#[test]
fn free_pages_and_pages_never_used_take_no_room() {
    let rig = rig();
    crate::engine::rig_test::commit(&rig.life.engine, |batch| {
        for tree in ["large", "stays"] {
            batch.create_tree(tree).expect("works");
            batch.put(tree, b"key", &[7; 120_000]).expect("fits");
        }
    });
    crate::engine::rig_test::commit(&rig.life.engine, |batch| {
        assert!(batch.drop_tree("large").expect("works"));
    });
    rig.life.engine.checkpoint().expect("works");
    let made = rig.backups.full(&rig.life.engine, &mut go_on).expect("made").backup.expect("a full one");
    let used = crate::verify::check_pages(&rig.life.engine.read(), &mut |_| {}).expect("readable").allocated_pages;
    assert_eq!(made.pages, u64::from(used));
    rig.time.pass(Duration::from_secs(1));
}
