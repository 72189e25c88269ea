//! Multi-value trees through batches: kinds, rollback, names, space.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::ops::{OperationKind, ValueAt};
use super::record::Record;
use super::{BatchError, DropProgress, TreeInfo};
use crate::btree::{ReadError, TreeKind};
use crate::engine::Engine;
use crate::engine::rig_test::{append, check, commit, create};
use crate::env::{Disk, SimDisk};
use crate::ids::TxnId;
use crate::verify::check_pages;

fn engine() -> Engine {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    create(&disk, Path::new("/node"), 1)
}

/// As many values as take a tree of several pages, the key and the number in each.
fn fill(engine: &Engine, tree: &str, key: &str, count: u32) {
    for first in (0..count).step_by(200) {
        commit(engine, |batch| {
            batch.create_multi_tree(tree).expect("works");
            for number in first..count.min(first + 200) {
                assert!(batch.add(tree, key.as_bytes(), &value(key, number)).expect("fits"));
            }
        });
    }
}

fn value(key: &str, number: u32) -> Vec<u8> {
    format!("{number:06} of {key}, and what more there is to say of it").into_bytes()
}

fn allocated(engine: &Engine) -> u32 {
    check(engine);
    check_pages(&engine.read(), &mut |_| {}).expect("readable").allocated_pages
}

fn info(engine: &Engine, name: &str) -> TreeInfo {
    engine.read().tree_info(name).expect("readable").expect("it is there")
}

fn counts(info: &TreeInfo) -> (TreeKind, u64, u64) {
    (info.kind, info.entries, info.values)
}

#[test]
fn each_kind_refuses_what_is_for_the_other_and_says_what_to_do() {
    let engine = engine();
    commit(&engine, |batch| {
        batch.create_tree("plain").expect("works");
        batch.create_multi_tree("multi").expect("works");
        batch.put("plain", b"k", b"v").expect("fits");
        batch.add("multi", b"k", b"v").expect("fits");
    });
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    for refused in [
        batch.put("multi", b"k", b"v").err(),
        batch.put_reserved("multi", b"k", 7).err(),
        batch.create_tree("multi").err(),
    ] {
        assert!(matches!(&refused, Some(BatchError::ManyValues(tree)) if tree == "multi"), "{refused:?}");
    }
    for refused in [
        batch.add("plain", b"k", b"v").err(),
        batch.remove_value("plain", b"k", b"v").err(),
        batch.create_multi_tree("plain").err(),
    ] {
        assert!(matches!(&refused, Some(BatchError::OneValue(tree)) if tree == "plain"), "{refused:?}");
    }
    assert!(matches!(batch.add("none", b"k", b"v"), Err(BatchError::NoSuchTree(_))));
    assert!(matches!(batch.add("multi", b"", b"v"), Err(BatchError::KeyLength(0))));
    assert!(matches!(batch.add("multi", b"k", b""), Err(BatchError::SortedValueLength(0))));
    assert!(matches!(batch.remove_value("multi", b"k", &[7; 2_049]), Err(BatchError::SortedValueLength(2_049))));
    assert!(matches!(batch.get("multi", b"k"), Err(BatchError::Read(ReadError::OtherKind(TreeKind::Multi)))));
    assert_eq!(batch.commit_txn(), None, "nothing was changed");

    let read = engine.read();
    let Err(error) = read.get("multi", b"k") else { panic!("not one value") };
    assert!(error.to_string().contains("read its keys with `keys`"), "{error}");
    assert!(matches!(read.contains("plain", b"k", b"v"), Err(ReadError::OtherKind(TreeKind::Plain))));
    let mut range = read.range("multi", Bound::Unbounded, Bound::Unbounded).expect("readable").expect("there");
    assert!(matches!(range.next(), Err(ReadError::OtherKind(TreeKind::Multi))));
    // What is not there has no values.
    assert!(!read.contains("none", b"k", b"v").expect("readable"));
    assert!(!read.values("none", b"k").expect("readable").next().expect("readable"));
    assert_eq!(
        (read.count_values("none", b"k").expect("readable"), read.keys("none").expect("readable").is_none()),
        (0, true)
    );
}

#[test]
fn an_emptied_tree_keeps_its_kind() {
    let engine = engine();
    fill(&engine, "m", "key", 300);
    for way in 0..4 {
        commit(&engine, |batch| match way {
            0 => drop(batch.delete("m", b"key").expect("works")),
            1 => drop(batch.delete_range("m", Bound::Unbounded, Bound::Unbounded).expect("works")),
            2 => assert!(batch.remove_value("m", b"key", b"v").expect("works")),
            _ => drop(batch.delete_range("m", Bound::Included(b"key"), Bound::Included(b"key")).expect("works")),
        });
        assert_eq!(counts(&info(&engine, "m")), (TreeKind::Multi, 0, 0));
        commit(&engine, |batch| assert!(batch.add("m", b"key", b"v").expect("works")));
    }
    check(&engine);
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_trees_of_values_as_they_were() {
    let engine = engine();
    fill(&engine, "m", "tree", 600);
    fill(&engine, "m", "page", 60);
    fill(&engine, "m", "list", 9);
    let before = (info(&engine, "m"), allocated(&engine));
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.add("m", b"kept", b"v").expect("works");
    batch.commit_txn();
    batch.begin_txn();
    for number in 0..600 {
        batch.remove_value("m", b"tree", &value("tree", number)).expect("works");
        batch.add("m", b"list", &value("list", number + 9)).expect("works");
    }
    batch.delete("m", b"page").expect("works");
    batch.rename_tree("m", "n").expect("works");
    batch.rollback_txn();
    assert_eq!(batch.count_values("m", b"tree").expect("readable"), 600);
    assert!(batch.contains("m", b"list", &value("list", 8)).expect("readable"));
    let staged = batch.seal(1).expect("it fits").expect("it changed something");
    let frame = crate::engine::rig_test::frame_of(&engine, &staged);
    append(&engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
    let after = info(&engine, "m");
    assert_eq!((after.entries, after.values, after.pages), (before.0.entries + 1, before.0.values + 1, before.0.pages));
    assert_eq!(allocated(&engine), before.1);
}

#[test]
fn trees_are_listed_renamed_and_dropped_with_all_their_space() {
    let engine = engine();
    commit(&engine, |batch| {
        batch.create_tree("plain").expect("works");
        batch.put("plain", b"k", &[7; 30_000]).expect("fits");
    });
    let before = allocated(&engine);
    fill(&engine, "multi", "tree", 900);
    fill(&engine, "multi", "page", 60);
    fill(&engine, "multi", "list", 5);
    let listed = engine.read().list_trees().expect("readable");
    let names: Vec<(&str, u64, u64)> = listed.iter().map(|tree| (&*tree.name, tree.entries, tree.values)).collect();
    assert_eq!(names, [("multi", 3, 965), ("plain", 1, 1)]);
    assert_eq!(
        listed.iter().map(|tree| tree.pages).sum::<u64>(),
        u64::from(allocated(&engine)) - 3,
        "all but page 0, a bitmap, the list"
    );

    commit(&engine, |batch| {
        assert!(matches!(batch.rename_tree("multi", "plain"), Err(BatchError::TreeExists(_))));
        assert!(batch.rename_tree("multi", "renamed").expect("works"));
        let now = batch.list_trees().expect("readable");
        assert_eq!(now.iter().map(|tree| &*tree.name).collect::<Vec<_>>(), ["plain", "renamed"]);
        assert_eq!(batch.tree_info("renamed").expect("readable").expect("there").values, 965);
    });
    assert_eq!(counts(&info(&engine, "renamed")), (TreeKind::Multi, 3, 965));
    assert_eq!(engine.read().count_values("renamed", b"tree").expect("readable"), 900);
    assert!(engine.read().tree_info("multi").expect("readable").is_none());

    commit(&engine, |batch| assert!(batch.drop_tree("renamed").expect("works")));
    assert_eq!(allocated(&engine), before, "all space is given back");
    // The name is free for a tree of the other kind.
    commit(&engine, |batch| assert!(batch.create_tree("renamed").expect("works")));
    assert_eq!(counts(&info(&engine, "renamed")), (TreeKind::Plain, 0, 0));
}

#[test]
fn the_file_shrinks_when_what_is_left_at_its_end_are_trees_of_values() {
    let engine = engine();
    fill(&engine, "gone", "key", 8_000);
    fill(&engine, "kept", "a", 1_000);
    fill(&engine, "kept", "b", 30);
    fill(&engine, "kept", "c", 1_000);
    let pages = |engine: &Engine| engine.read().view().superblock.page_count;
    let full = pages(&engine);
    commit(&engine, |batch| assert!(batch.drop_tree("gone").expect("works")));
    for number in 0..400_u32 {
        commit(&engine, |batch| assert!(batch.add("kept", b"d", &number.to_be_bytes()).expect("works")));
    }
    let (left, used) = (pages(&engine), allocated(&engine));
    assert!(left <= used + used / 16 + 8 && left < full / 2, "{full} pages, then {left}, of which {used} are used");
    let read = engine.read();
    for (key, count) in [("a", 1_000), ("b", 30), ("c", 1_000)] {
        let mut values = read.values("kept", key.as_bytes()).expect("readable");
        for number in 0..count {
            assert!(values.next().expect("readable"));
            assert_eq!(values.value(), value(key, number));
        }
        assert!(!values.next().expect("readable"));
    }
}

#[test]
fn a_record_says_what_was_added_and_removed() {
    let engine = engine();
    fill(&engine, "m", "key", 2);
    let frame = commit(&engine, |batch| {
        assert!(!batch.add("m", b"key", &value("key", 0)).expect("works"));
        assert!(batch.add("m", b"key", b"new").expect("works"));
        assert!(batch.remove_value("m", b"key", &value("key", 1)).expect("works"));
        assert!(!batch.remove_value("m", b"key", b"none").expect("works"));
        assert!(batch.create_multi_tree("n").expect("works"));
    });
    let record = Record::decode(frame.expect("a change").payload().bytes()).expect("sound");
    let said: Vec<_> = record.operations.iter().map(|one| (one.kind, one.key.as_slice(), one.value.clone())).collect();
    let expected = [
        (OperationKind::AddValue, &b"key"[..], ValueAt::Inline(b"new".to_vec())),
        (OperationKind::RemoveValue, b"key", ValueAt::Inline(value("key", 1))),
        (OperationKind::CreateMultiTree, b"", ValueAt::None),
    ];
    assert_eq!(said, expected);
}

/// A key that owns more pages than a part may free loses its values in parts, and what each part did is in its record.
#[test]
fn a_tree_is_dropped_in_parts_however_much_is_under_one_key() {
    let engine = engine();
    commit(&engine, |batch| assert!(batch.create_tree("other").expect("works")));
    let before = allocated(&engine);
    fill(&engine, "m", "a", 5);
    fill(&engine, "m", "b", 3_000);
    fill(&engine, "m", "c", 5);
    fill(&engine, "m", "d", 500);
    let (mut kinds, mut pages) = (Vec::new(), info(&engine, "m").pages);
    assert!(pages > 20, "{pages}");
    loop {
        let mut progress = DropProgress::More;
        let frame = commit(&engine, |batch| progress = batch.drop_tree_part("m", 4).expect("works"));
        let record = Record::decode(frame.expect("a change").payload().bytes()).expect("sound");
        kinds.extend(record.operations.iter().map(|operation| operation.kind));
        check(&engine);
        if progress == DropProgress::Dropped {
            break;
        }
        let left = info(&engine, "m").pages;
        assert!((4..=6).contains(&(pages - left)), "{pages} pages, then {left}");
        pages = left;
    }
    assert_eq!(allocated(&engine), before, "all space is given back");
    assert!(kinds.contains(&OperationKind::RemoveValues) && kinds.contains(&OperationKind::DeleteRange));
    assert_eq!(kinds.last(), Some(&OperationKind::DropTree));
}

#[test]
fn values_between_two_bounds_are_removed() {
    let engine = engine();
    fill(&engine, "m", "key", 500);
    let (from, to) = (value("key", 20), value("key", 480));
    commit(&engine, |batch| {
        let removed = batch.remove_values("m", b"key", Bound::Included(&from), Bound::Excluded(&to)).expect("works");
        assert_eq!(removed, 460);
        assert_eq!(batch.remove_values("m", b"none", Bound::Unbounded, Bound::Unbounded).expect("works"), 0);
        let long = [7; 2_049];
        let refused = batch.remove_values("m", b"key", Bound::Included(&long), Bound::Unbounded);
        assert!(matches!(refused, Err(BatchError::KeyLength(2_049))));
        let plain = batch.remove_values("none", b"key", Bound::Unbounded, Bound::Unbounded);
        assert!(matches!(plain, Err(BatchError::NoSuchTree(_))));
    });
    assert_eq!(engine.read().count_values("m", b"key").expect("readable"), 40);
    assert_eq!(counts(&info(&engine, "m")), (TreeKind::Multi, 1, 40));
    commit(&engine, |batch| {
        assert_eq!(batch.remove_values("m", b"key", Bound::Unbounded, Bound::Unbounded).expect("works"), 40);
    });
    assert_eq!(counts(&info(&engine, "m")), (TreeKind::Multi, 0, 0));
    check(&engine);
}

/// Walking from key to key and deleting, with values added beside.
#[test]
fn a_write_cursor_walks_over_keys() {
    let engine = engine();
    for key in ["a", "b", "c", "d"] {
        fill(&engine, "m", key, 40);
    }
    commit(&engine, |batch| {
        let mut cursor = batch.cursor_mut("m").expect("there");
        let mut met = Vec::new();
        while cursor.next().expect("readable") {
            let key = cursor.key().expect("at a key").to_vec();
            if key == b"b" {
                assert_eq!(cursor.delete().expect("works"), Some(TxnId(2)));
                cursor.batch().add("m", b"bb", b"beside").expect("works");
            }
            met.push(key);
        }
        assert_eq!(met, [&b"a"[..], b"b", b"bb", b"c", b"d"]);
        assert!(matches!(cursor.batch().get("m", b"a"), Err(BatchError::Read(ReadError::OtherKind(_)))));
    });
    assert_eq!(counts(&info(&engine, "m")), (TreeKind::Multi, 4, 121));
    check(&engine);
}

/// A reader goes on seeing the values of its snapshot, whatever form they take later.
#[test]
fn a_snapshot_keeps_its_values() {
    let engine = engine();
    fill(&engine, "m", "key", 500);
    let snapshot = engine.read();
    let tree = snapshot.open_tree("m").expect("readable").expect("there");
    let mut values = tree.values(b"key").expect("readable");
    assert!(values.seek(&value("key", 250)).expect("readable"));
    commit(&engine, |batch| {
        for number in 0..495 {
            batch.remove_value("m", b"key", &value("key", number)).expect("works");
        }
    });
    engine.checkpoint().expect("works");
    for number in 250..500 {
        assert_eq!(values.value(), value("key", number));
        assert_eq!(values.next().expect("readable"), number < 499);
    }
    assert_eq!((tree.count_values(b"key").expect("readable"), tree.state().values), (500, 500));
    assert!(tree.contains(b"key", &value("key", 3)).expect("readable") && tree.keys().first().expect("readable"));
    drop(values);
    assert_eq!(engine.read().count_values("m", b"key").expect("readable"), 5);
}
