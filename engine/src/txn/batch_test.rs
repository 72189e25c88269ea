//! What a batch refuses, and what it does not.

use std::path::Path;
use std::sync::Arc;

use super::names::MAX_NAMES;
use super::{Batch, BatchError};
use crate::engine::Engine;
use crate::engine::engine_test::create;
use crate::env::{Disk, SimDisk};

fn engine() -> Engine {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    create(&disk, Path::new("/node"), 1)
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
