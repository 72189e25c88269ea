//! What a batch refuses, and what it does not.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::names::MAX_NAMES;
use super::ops::{OperationKind, OperationView, ValueAt};
use super::pages::MAX_FREED_PAGES;
use super::{Batch, BatchError, PAGES_PER_RECORD};
use crate::btree::TreeState;
use crate::engine::rig_test::{commit, create, identity, options};
use crate::engine::{Engine, EngineOptions};
use crate::env::{Disk, SimDisk};
use crate::ids::{DatabaseId, PageNumber};
use crate::journal::JournalOptions;
use crate::journal::frame::FRAME_HEADER_BYTES;
use crate::page::PAGE_BYTES;

/// With a journal whose segments hold the longest record there can be.
fn engine() -> Engine {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let journal = JournalOptions { segment_bytes: 18 << 20, ..options().journal };
    let options = EngineOptions { journal, ..options() };
    Engine::create(disk, Path::new("/node"), &identity(1), DatabaseId(9), options).expect("a new directory")
}

fn create_trees(batch: &mut Batch, count: usize) -> Result<(), BatchError> {
    (0..count).try_for_each(|number| batch.create_tree(&number.to_string()).map(drop))
}

#[test]
fn a_batch_names_no_more_trees_than_its_record_can() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    let error = create_trees(&mut batch, MAX_NAMES + 1).expect_err("one too many");
    assert!(matches!(error, BatchError::TooManyTrees), "{error}");
    batch.rollback_txn();
    // What was rolled back names nothing.
    batch.begin_txn();
    create_trees(&mut batch, MAX_NAMES).expect("just as many as there may be");
    assert!(matches!(batch.put("one more", b"k", b"v"), Err(BatchError::NoSuchTree(_))));
    batch.put("7", b"k", b"v").expect("its name is there already");
    batch.commit_txn();
    let staged = batch.seal(1).expect("it fits").expect("changed something");
    let record = super::record::Record::decode(staged.payload.bytes()).expect("a record");
    assert_eq!((record.trees.len(), record.operations.len()), (MAX_NAMES, MAX_NAMES + 1));
}

/// An engine with a tree whose `count` keys, as [`small_key`] names them, stand about one in a leaf: long values fill the
/// rest. It is staged, which is all that a batch on top of it sees.
fn engine_with_leaves(count: usize) -> Engine {
    let engine = engine();
    for first in (0..count).step_by(250) {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.create_tree("t").expect("works");
        for number in first..count.min(first + 250) {
            batch.put("t", &small_key(number), &[0; 8]).expect("fits");
            for filler in b'a'..b'e' {
                batch.put("t", &[&small_key(number)[..], &[filler]].concat(), &[filler; 1900]).expect("fits");
            }
        }
        batch.commit_txn();
        batch.seal(1).expect("fits").expect("changed something");
    }
    engine
}

fn small_key(number: usize) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

#[test]
fn a_transaction_of_small_operations_is_stopped_at_the_bound_of_memory() {
    let engine = engine_with_leaves(3_000);
    let mut batch = engine.begin_batch().expect("memory");
    let record_bytes = 256 << 10;
    batch.limit_record(record_bytes);
    for round in 0..2 {
        batch.begin_txn();
        let error = (0..3_000).try_for_each(|number| batch.delete("t", &small_key(number)).map(drop));
        let error = error.expect_err("3,000 pages are 24 MiB");
        assert!(matches!(error, BatchError::TooManyPages(_)), "{error}");
        // The bitmap is changed beside the tree.
        let limit = PAGES_PER_RECORD * record_bytes + 4 * PAGE_BYTES;
        assert!((limit / 2..=limit).contains(&batch.memory_bytes()), "{} of {limit}", batch.memory_bytes());
        batch.rollback_txn();
        assert!(batch.memory_bytes() <= 100 * PAGE_BYTES, "round {round}: {}", batch.memory_bytes());
        batch.begin_txn();
        batch.put("t", &small_key(7), &[round; 8]).expect("there is room again");
        batch.commit_txn();
    }
}

#[test]
fn what_undoing_needs_counts_too() {
    let engine = engine_with_leaves(200);
    let mut batch = engine.begin_batch().expect("memory");
    batch.limit_record(512 << 10);
    let touch = |batch: &mut Batch, value: u8| {
        batch.begin_txn();
        (0..200).try_for_each(|number| batch.put("t", &small_key(number), &[value; 8]).map(drop))
    };
    touch(&mut batch, 1).expect("200 pages are 1.6 MiB of 2 MiB");
    batch.commit_txn();
    let error = touch(&mut batch, 2).expect_err("each page is kept as it was, and copied again");
    assert!(matches!(error, BatchError::TooManyPages(_)), "{error}");
    batch.rollback_txn();
    assert_eq!(
        batch.get("t", &small_key(0)).expect("readable").expect("there").value.to_vec().expect("8 bytes"),
        [1; 8]
    );
}

#[test]
fn many_pages_that_change_a_little_fit_a_record() {
    let engine = engine_with_leaves(2_500);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    for number in 0..2_500 {
        batch.put("t", &small_key(number), &[7; 8]).expect("fits");
    }
    batch.commit_txn();
    assert!(batch.memory_bytes() > 2_000 * PAGE_BYTES, "{}", batch.memory_bytes());
    assert!(batch.check_record_bound().is_err(), "the bound says more than the frame can hold");
    let staged = batch.seal(1).expect("and yet it fits").expect("changed something");
    assert!(staged.payload.bytes().len() < 1 << 20, "{}", staged.payload.bytes().len());
}

#[test]
fn a_freed_run_counts_once() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    batch.put("t", b"k", &vec![1; 8 << 20]).expect("fits");
    batch.commit_txn();
    batch.seal(1).expect("fits").expect("changed something");
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    let before = batch.record_bytes_bound();
    batch.drop_tree("t").expect("works");
    batch.commit_txn();
    let grown = batch.record_bytes_bound() - before;
    assert!(grown < 4 * PAGE_BYTES, "1,027 pages in a run, and the bitmap: {grown}");
    let staged = batch.seal(1).expect("fits").expect("changed something");
    let record = super::record::Record::decode(staged.payload.bytes()).expect("a record");
    assert!(
        record.freed.iter().map(|(_, count)| count).sum::<u32>() > 1_024 && record.freed.len() <= 2,
        "{:?}",
        record.freed
    );
}

/// 60,000 pairs of a put and a range that takes it out again: looked for among all operations of the batch, they would
/// take minutes.
#[test]
fn ranges_cost_what_lies_in_them() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    let pairs = 60_000;
    for number in 0..pairs {
        let key = small_key(number);
        batch.put("t", &key, &key).expect("fits");
        if number % 1_000 != 0 {
            let deleted = batch.delete_range("t", Bound::Included(&key), Bound::Included(&key)).expect("works");
            assert_eq!(deleted, 1);
        }
    }
    batch.commit_txn();
    let staged = batch.seal(1).expect("fits").expect("changed something");
    let record = super::record::Record::decode(staged.payload.bytes()).expect("a record");
    let in_place = |operation: &&OperationView| matches!(operation.value, ValueAt::Span(..));
    assert_eq!(record.operations.iter().filter(in_place).count(), 60, "those that are still in the tree");
    for operation in &record.operations {
        if operation.kind == OperationKind::Put && !in_place(&operation) {
            assert_eq!(operation.value, ValueAt::Inline(operation.key.clone()));
        }
    }
}

/// What a rolled back transaction made earlier operations keep goes back to the tree, and out of the bound.
#[test]
fn the_bound_holds_after_a_rollback() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    for number in 0..100 {
        batch.put("t", &small_key(number), &vec![1; 20_000]).expect("fits");
    }
    batch.commit_txn();
    batch.begin_txn();
    batch.put("t", b"other", &[3; 5_000]).expect("fits");
    batch.delete_range("t", Bound::Unbounded, Bound::Unbounded).expect("works");
    batch.rollback_txn();
    // Their place was in the operations, and is in the pages again, and nowhere else.
    let bound = batch.record_bytes_bound();
    let bytes = batch.seal(1).expect("fits").expect("changed something").payload.bytes().len();
    assert!((2_000_000..3_000_000).contains(&bytes) && bytes <= bound, "{bytes}, at most {bound}");
    assert!(bound < bytes + bytes / 2, "{bound} for {bytes}: what was undone is not counted");
}

/// The bound counts what the tree of trees needs at the end.
#[test]
fn the_bound_knows_of_trees() {
    let engine = engine();
    for round in 0..3 {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        for number in 0..1_000 {
            let name = format!("{number:0200}");
            match round {
                0 => assert!(batch.create_tree(&name).expect("works")),
                1 => drop(batch.put(&name, b"k", b"v").expect("works")),
                _ => assert!(batch.rename_tree(&name, &format!("{number:0150}")).expect("works")),
            }
        }
        batch.commit_txn();
        let bound = batch.record_bytes_bound();
        // A thousand leaves and renamed trees are more than a frame, by the bound.
        let bytes = batch.seal(1).expect("fits").expect("changed something").payload.bytes().len();
        assert!(bytes <= bound, "round {round}: {bytes}, at most {bound}");
    }
}

#[test]
fn a_bound_longer_than_a_key_is_refused() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    batch.put("t", b"k", b"v").expect("fits");
    let long = vec![b'x'; 70_000];
    for (start, end) in [(Bound::Unbounded, Bound::Excluded(&long[..])), (Bound::Included(&long[..]), Bound::Unbounded)]
    {
        let refused = batch.delete_range("t", start, end);
        assert!(matches!(refused, Err(BatchError::KeyLength(70_000))), "{refused:?}");
    }
    assert_eq!(batch.delete_range("t", Bound::Included(&[]), Bound::Unbounded).expect("an empty bound is one"), 1);
}

/// A leader that only reads must not read all bitmaps again for each batch.
#[test]
fn a_batch_that_changes_nothing_leaves_the_allocator() {
    let engine = engine();
    assert_eq!(engine.status().free_pages, None, "nothing was executed here yet");
    drop(engine.begin_batch().expect("memory"));
    assert!(engine.status().free_pages.is_some(), "it is kept for the next batch");
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    batch.put("t", b"k", b"v").expect("fits");
    batch.commit_txn();
    batch.seal(1).expect("fits").expect("changed something");
    engine.drop_staged();
    assert_eq!(engine.status().free_pages, None, "it knew what was dropped");
}

/// A tree that would free more pages than a batch may is refused before its pages are read.
#[test]
fn a_tree_that_is_too_large_to_drop_is_refused_unread() {
    let engine = engine();
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    // Its root is nowhere.
    let (root, height) = (Some(PageNumber(u32::MAX)), 4);
    let huge = TreeState { root, height, entries: 1, pages: MAX_FREED_PAGES + 1, ..TreeState::default() };
    *batch.trees.open(&batch.pages, "t").expect("a name") = Some(huge);
    let error = batch.drop_tree("t").expect_err("too large");
    assert!(matches!(&error, BatchError::TooManyPages(_)), "{error}");
    assert!(batch.pages.may_free(MAX_FREED_PAGES).is_ok());
}

/// A frame does not go over segments; what is too large for one is refused before anything is written.
#[test]
fn a_record_that_no_segment_holds_is_refused_when_the_batch_ends() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = create(&disk, Path::new("/node"), 1);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("new");
    for key in 0..4_u8 {
        batch.put("t", &[key], &[key; 300_000]).expect("fits the batch");
    }
    batch.commit_txn();
    let limit = (1 << 20) - 4096 - 64 - 64 - FRAME_HEADER_BYTES;
    let refused = batch.seal(1).map(drop);
    assert!(matches!(refused, Err(BatchError::TooLarge { bytes, limit: found }) if bytes > limit && found == limit));
    assert!(commit(&engine, |batch| drop(batch.create_tree("t"))).is_some(), "the next one goes on");
}
