//! What is gone back over leaves no trace: a batch that did it and one that never did seal to the same bytes.

use std::io::Write;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, BatchError, Savepoint, Staged};
use crate::btree::MAX_VALUE_BYTES;
use crate::engine::Engine;
use crate::engine::rig_test::{append, catch_up, check, contents, create, frame_of, options};
use crate::env::{CrashChoice, Disk, SimDisk};

const TREES: [&str; 3] = ["a", "b", "c"];
const MULTI: &str = "multi";

#[derive(Clone, Debug)]
enum Operation {
    Put(usize, u8, usize),
    Reserve(usize, u8, usize),
    Delete(usize, u8),
    DeleteRange(usize, u8, u8),
    Create(usize),
    Drop(usize),
    DropPart(usize, u64),
    Rename(usize, usize),
    /// So many entries from a key on, by a cursor that deletes every other one and writes to the rest.
    Walk(usize, u8, usize),
    List,
    /// So many values of a length under a key of a multi-value tree.
    Add(u8, u8, usize, usize),
    RemoveValue(u8, u8),
    RemoveValues(u8, u8, u8),
    DeleteMulti(u8),
    DropMulti,
}

#[derive(Clone, Debug)]
enum Step {
    Do(Operation),
    /// An operation that leaves something behind and fails.
    Fail(usize, u8),
    Savepoint,
    /// To one of those there are.
    RollbackTo(prop::sample::Index),
    EndTxn {
        commits: bool,
    },
    EndBatch,
    Checkpoint,
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..300_usize, 3 => 300..2_500_usize, 2 => 2_500..60_000_usize]
}

fn operation() -> impl Strategy<Value = Operation> {
    let tree = || 0..TREES.len();
    prop_oneof![
        16 => (tree(), any::<u8>(), length()).prop_map(|(tree, key, length)| Operation::Put(tree, key, length)),
        3 => (tree(), any::<u8>(), length()).prop_map(|(tree, key, length)| Operation::Reserve(tree, key, length)),
        5 => (tree(), any::<u8>()).prop_map(|(tree, key)| Operation::Delete(tree, key)),
        2 => (tree(), any::<u8>(), any::<u8>()).prop_map(|(tree, a, b)| Operation::DeleteRange(tree, a.min(b), a.max(b))),
        3 => tree().prop_map(Operation::Create),
        1 => tree().prop_map(Operation::Drop),
        1 => (tree(), 1..4_u64).prop_map(|(tree, pages)| Operation::DropPart(tree, pages)),
        1 => (tree(), tree()).prop_map(|(from, to)| Operation::Rename(from, to)),
        2 => (tree(), any::<u8>(), 1..8_usize).prop_map(|(tree, key, count)| Operation::Walk(tree, key, count)),
        1 => Just(Operation::List),
        6 => (0..4_u8, any::<u8>(), 1..60_usize, 1..120_usize)
            .prop_map(|(key, first, count, length)| Operation::Add(key, first, count, length)),
        3 => (0..4_u8, any::<u8>()).prop_map(|(key, value)| Operation::RemoveValue(key, value)),
        2 => (0..4_u8, any::<u8>(), any::<u8>()).prop_map(|(key, a, b)| Operation::RemoveValues(key, a.min(b), a.max(b))),
        1 => (0..4_u8).prop_map(Operation::DeleteMulti),
        1 => Just(Operation::DropMulti),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => operation().prop_map(Step::Do),
        1 => (0..TREES.len(), any::<u8>()).prop_map(|(tree, key)| Step::Fail(tree, key)),
        5 => Just(Step::Savepoint),
        4 => any::<prop::sample::Index>().prop_map(Step::RollbackTo),
        3 => prop::bool::weighted(0.75).prop_map(|commits| Step::EndTxn { commits }),
        1 => Just(Step::EndBatch),
        1 => Just(Step::Checkpoint),
    ]
}

/// Does it if the trees that it speaks of are there.
fn operate(batch: &mut Batch, operation: &Operation) -> Result<(), BatchError> {
    let mut there = [false; TREES.len()];
    for (there, name) in there.iter_mut().zip(TREES) {
        *there = batch.tree_exists(name)?;
    }
    match *operation {
        Operation::Put(tree, key, length) if there[tree] => {
            batch.put(TREES[tree], &[key], &vec![key ^ length as u8; length]).map(drop)
        }
        Operation::Reserve(tree, key, length) if there[tree] => {
            let mut value = batch.put_reserved(TREES[tree], &[key], length)?;
            value.write_all(&vec![!key; length / 2]).expect("there is room");
            Ok(())
        }
        Operation::Delete(tree, key) if there[tree] => batch.delete(TREES[tree], &[key]).map(drop),
        Operation::DeleteRange(tree, from, to) if there[tree] => {
            batch.delete_range(TREES[tree], Bound::Included(&[from]), Bound::Excluded(&[to])).map(drop)
        }
        Operation::Create(tree) => batch.create_tree(TREES[tree]).map(drop),
        Operation::Drop(tree) => batch.drop_tree(TREES[tree]).map(drop),
        Operation::DropPart(tree, pages) => batch.drop_tree_part(TREES[tree], pages).map(drop),
        Operation::Rename(from, to) if !there[to] => batch.rename_tree(TREES[from], TREES[to]).map(drop),
        Operation::Walk(tree, key, count) if there[tree] => {
            let mut cursor = batch.cursor_mut(TREES[tree])?;
            let mut stands = cursor.seek(&[key])?;
            for number in 0..count {
                if stands && number % 2 == 0 {
                    cursor.delete()?;
                } else if stands {
                    cursor.put(&[number as u8; 40])?;
                }
                stands = cursor.next()?;
            }
            Ok(())
        }
        Operation::List => batch.list_trees().map(drop),
        Operation::Add(..)
        | Operation::RemoveValue(..)
        | Operation::RemoveValues(..)
        | Operation::DeleteMulti(_)
        | Operation::DropMulti => operate_on_values(batch, operation),
        _ => Ok(()),
    }
}

fn operate_on_values(batch: &mut Batch, operation: &Operation) -> Result<(), BatchError> {
    batch.create_multi_tree(MULTI)?;
    match *operation {
        Operation::Add(key, first, count, length) => (0..count).try_for_each(|number| {
            let value = vec![first.wrapping_add(number as u8); length];
            batch.add(MULTI, &[key], &value).map(drop)
        }),
        Operation::RemoveValue(key, value) => batch.remove_value(MULTI, &[key], &[value; 40]).map(drop),
        Operation::RemoveValues(key, from, to) => {
            batch.remove_values(MULTI, &[key], Bound::Included(&[from]), Bound::Excluded(&[to])).map(drop)
        }
        Operation::DeleteMulti(key) => batch.delete(MULTI, &[key]).map(drop),
        _ => batch.drop_tree(MULTI).map(drop),
    }
}

/// An open batch, and what a batch would have to do that does only what is left of it.
struct Long {
    batch: Batch,
    /// Of the transactions that were committed.
    left: Vec<Vec<Operation>>,
    open: Vec<Operation>,
    /// With what is left at each, and the batch's sizes there.
    savepoints: Vec<(Savepoint, usize, (usize, usize))>,
}

impl Long {
    fn begin(engine: &Engine) -> Self {
        let mut batch = engine.begin_batch().expect("memory");
        batch.begin_txn();
        Self { batch, left: Vec::new(), open: Vec::new(), savepoints: Vec::new() }
    }

    fn sizes(&self) -> (usize, usize) {
        (self.batch.memory_bytes(), self.batch.record_bytes_bound())
    }

    fn end_txn(&mut self, commits: bool) {
        let open = std::mem::take(&mut self.open);
        if commits {
            self.batch.commit_txn();
            self.left.push(open);
        } else {
            self.batch.rollback_txn();
        }
        self.batch.begin_txn();
        for (savepoint, ..) in self.savepoints.drain(..) {
            assert!(matches!(self.batch.rollback_to(savepoint), Err(BatchError::NoSuchSavepoint)));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Do(operation) => {
                operate(&mut self.batch, operation).expect("works");
                self.open.push(operation.clone());
            }
            Step::Fail(tree, key) => {
                let savepoint = self.batch.savepoint();
                operate(&mut self.batch, &Operation::Create(*tree)).expect("works");
                operate(&mut self.batch, &Operation::Put(*tree, *key, 5_000)).expect("works");
                let too_long = vec![0; MAX_VALUE_BYTES + 1];
                self.batch.put(TREES[*tree], &[*key], &too_long).expect_err("too long");
                self.batch.rollback_to(savepoint).expect("just made");
            }
            Step::Savepoint => {
                let savepoint = self.batch.savepoint();
                self.savepoints.push((savepoint, self.open.len(), self.sizes()));
            }
            Step::RollbackTo(place) if !self.savepoints.is_empty() => {
                let place = place.index(self.savepoints.len());
                let (savepoint, left, sizes) = self.savepoints[place];
                let gone = self.savepoints.split_off(place + 1);
                self.batch.rollback_to(savepoint).expect("it is there");
                self.open.truncate(left);
                assert_eq!(self.sizes(), sizes);
                for (savepoint, ..) in gone {
                    assert!(matches!(self.batch.rollback_to(savepoint), Err(BatchError::NoSuchSavepoint)));
                }
            }
            Step::EndTxn { commits } => self.end_txn(*commits),
            Step::RollbackTo(_) | Step::EndBatch | Step::Checkpoint => {}
        }
    }

    fn seal(mut self) -> (Option<Staged>, Vec<Vec<Operation>>) {
        self.end_txn(true);
        self.batch.rollback_txn();
        (self.batch.seal(1).expect("it fits"), self.left)
    }
}

fn short(engine: &Engine, txns: &[Vec<Operation>]) -> Option<Staged> {
    let mut batch = engine.begin_batch().expect("memory");
    for operations in txns {
        batch.begin_txn();
        operations.iter().for_each(|operation| operate(&mut batch, operation).expect("works"));
        batch.commit_txn();
    }
    batch.seal(1).expect("it fits")
}

fn apply(engine: &Engine, staged: &Staged) {
    let frame = frame_of(engine, staged);
    append(engine, vec![frame.clone()]);
    engine.apply(&frame).expect("applies");
}

fn agree(steps: &[Step], seed: u64) {
    let disk = SimDisk::new(seed);
    let long_engine = create(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new("/long"), 1);
    let short_engine = create(&(Arc::new(SimDisk::new(seed)) as Arc<dyn Disk>), Path::new("/short"), 1);
    let mut long = Long::begin(&long_engine);
    for step in steps.iter().chain([&Step::EndBatch]) {
        long.step(step);
        if !matches!(step, Step::EndBatch | Step::Checkpoint) {
            continue;
        }
        let (staged, left) = long.seal();
        let expected = short(&short_engine, &left);
        let bytes = |staged: &Option<Staged>| staged.as_ref().map(|staged| staged.payload.bytes().clone());
        assert!(bytes(&staged) == bytes(&expected), "the records differ");
        if let Some((staged, expected)) = staged.zip(expected) {
            apply(&long_engine, &staged);
            apply(&short_engine, &expected);
        }
        if matches!(step, Step::Checkpoint) {
            long_engine.checkpoint().expect("works");
            short_engine.checkpoint().expect("works");
        }
        long = Long::begin(&long_engine);
    }
    drop(long);
    check(&long_engine);
    let expected = (short_engine.applied(), TREES.map(|tree| contents(&short_engine, tree)));
    for after in [disk.crash(CrashChoice::LoseAll), disk.crash(CrashChoice::Seeded(seed)), disk.kill()] {
        let (engine, _) = Engine::open(Arc::new(after), Path::new("/long"), options()).expect("opens");
        catch_up(&engine);
        assert!((engine.applied(), TREES.map(|tree| contents(&engine, tree))) == expected);
        check(&engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn what_is_gone_back_over_leaves_no_trace(steps in prop::collection::vec(step(), 1..120), seed in any::<u64>()) {
        agree(&steps, seed);
    }
}

/// To list the trees changes nothing, in a transaction that changes nothing either.
#[test]
fn what_is_only_asked_is_not_written() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = create(&disk, Path::new("/node"), 1);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("works");
    batch.commit_txn();
    batch.begin_txn();
    let names: Vec<String> = batch.list_trees().expect("readable").into_iter().map(|tree| tree.name).collect();
    assert_eq!((names, batch.commit_txn()), (vec!["t".to_owned()], None));
    let staged = batch.seal(1).expect("it fits").expect("it made a tree");
    apply(&engine, &staged);
    check(&engine);
}

#[test]
fn a_savepoint_of_something_else_is_refused_and_nothing_changes() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = create(&disk, Path::new("/node"), 1);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("works");
    let outer = batch.savepoint();
    batch.put("t", b"1", b"1").expect("works");
    let inner = batch.savepoint();
    batch.put("t", b"2", b"2").expect("works");
    batch.rollback_to(outer).expect("it is there");
    batch.put("t", b"3", b"3").expect("works");
    let error = batch.rollback_to(inner).expect_err("it was gone back over");
    assert!(matches!(error, BatchError::NoSuchSavepoint), "{error}");
    assert!(batch.get("t", b"3").expect("readable").is_some() && batch.get("t", b"1").expect("readable").is_none());
    batch.rollback_to(outer).expect("it stays");
    batch.commit_txn();
    batch.begin_txn();
    assert!(matches!(batch.rollback_to(outer), Err(BatchError::NoSuchSavepoint)), "of another transaction");
    batch.commit_txn();
    let first = batch.seal(1).expect("it fits").expect("it made a tree");
    apply(&engine, &first);

    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    assert!(matches!(batch.rollback_to(outer), Err(BatchError::NoSuchSavepoint)), "of another batch");
    let empty = batch.savepoint();
    batch.put("t", b"4", b"4").expect("works");
    batch.rollback_to(empty).expect("it is there");
    assert_eq!(batch.commit_txn(), None, "what is left of it changed nothing");
    assert!(batch.seal(1).expect("nothing").is_none());
}

#[test]
fn a_cursor_stays_right_when_what_is_under_it_goes() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = create(&disk, Path::new("/node"), 1);
    let mut batch = engine.begin_batch().expect("memory");
    batch.begin_txn();
    batch.create_tree("t").expect("works");
    batch.put("t", b"a", b"").expect("works");
    batch.put("t", b"z", b"").expect("works");
    let mut cursor = batch.cursor_mut("t").expect("there");
    let savepoint = cursor.batch().savepoint();
    cursor.batch().put("t", b"m", b"").expect("works");
    assert!(cursor.seek(b"b").expect("readable") && cursor.key() == Some(&b"m"[..]));
    cursor.batch().rollback_to(savepoint).expect("it is there");
    assert!(cursor.entry().expect("readable").is_none());
    assert!(cursor.next().expect("readable") && cursor.key() == Some(&b"z"[..]));
    assert!(cursor.previous().expect("readable") && cursor.key() == Some(&b"a"[..]));
    batch.rollback_to(savepoint).expect("it is there");
    batch.create_tree("u").expect("works");
    let mut cursor = batch.cursor_mut("u").expect("there");
    cursor.batch().rollback_to(savepoint).expect("it is there");
    assert!(matches!(cursor.first(), Err(BatchError::NoSuchTree(_))), "the tree was made behind it");
}
