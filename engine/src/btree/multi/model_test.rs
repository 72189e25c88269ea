//! Random operations on a multi-value tree and on a map of sets must agree; after each run the whole-file check must be
//! clean, and all pages are given back in the end.
//!
//! `CALAMUS_CASES` sets how many runs there are. A failure prints the operations, made as few and small as possible,
//! and the seed that proptest needs to run them again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use proptest::prelude::*;

use super::payload::Values;
use super::read::place_of;
use super::{add, contains, count_values, remove_value, remove_values};
use crate::btree::test_store::TestStore;
use crate::btree::{
    MAX_KEY_BYTES, ReadError, SettleLimits, SettlePlace, SplitPolicy, TreeKind, TreeState, count_range, destroy, get,
    remove, remove_range, settle_leaf,
};
use crate::ids::{PageNumber, TxnId};

type Model = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

#[derive(Clone, Debug)]
enum Operation {
    /// Values that follow each other, in order or against it.
    Add {
        key: u16,
        value: u16,
        count: u16,
        descending: bool,
    },
    Remove {
        key: u16,
        value: u16,
        count: u16,
        descending: bool,
    },
    RemoveKey {
        key: u16,
    },
    RemoveValues {
        key: u16,
        start: Bound<u16>,
        end: Bound<u16>,
    },
    RemoveRange {
        start: Bound<u16>,
        end: Bound<u16>,
    },
    Settle {
        percent: u32,
    },
    Reopen,
    Destroy,
}

/// In which form the values of a key are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Form {
    Nothing,
    List,
    Page,
    Tree,
}

/// How long values are: a few bytes, so that hundreds are a list; up to the longest; or as numbers are.
#[derive(Clone, Copy, Debug)]
enum ValueShape {
    Short,
    Long,
    Number,
}

fn key_bytes(key: u16) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    // Under the longest no list fits, under the one before it a value at most.
    bytes.resize([2, 3, 40, 700, 2_000, MAX_KEY_BYTES][usize::from(key % 6)], b'k');
    bytes
}

fn value_bytes(shape: ValueShape, value: u16) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    match shape {
        ValueShape::Short if value.is_multiple_of(3) => vec![bytes[1]],
        ValueShape::Short => bytes.to_vec(),
        ValueShape::Number => [0, 0, 0, 0, 0, 0, bytes[0], bytes[1]].to_vec(),
        ValueShape::Long => {
            let mut long = vec![b'v'; [0, 0, 3, 500][usize::from(value % 4)]];
            long.extend_from_slice(&bytes);
            long.resize([2, 30, 300, 1_000, MAX_KEY_BYTES][usize::from(value % 5)].max(long.len()), b'w');
            long
        }
    }
}

fn bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        4 => (0..40_u16).prop_map(Bound::Included),
        4 => (0..40_u16).prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn value_bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        6 => (0..900_u16).prop_map(Bound::Included),
        6 => (0..900_u16).prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    // Most values go to few keys, so that those get trees.
    let key = || prop_oneof![3 => 0..6_u16, 1 => 0..40_u16];
    let count = || prop_oneof![6 => 1..4_u16, 2 => 1..60_u16, 1 => 100..700_u16];
    prop_oneof![
        20 => (key(), 0..900_u16, count(), any::<bool>())
            .prop_map(|(key, value, count, descending)| Operation::Add { key, value, count, descending }),
        16 => (key(), 0..900_u16, count(), any::<bool>())
            .prop_map(|(key, value, count, descending)| Operation::Remove { key, value, count, descending }),
        2 => key().prop_map(|key| Operation::RemoveKey { key }),
        2 => (bound(), bound()).prop_map(|(start, end)| Operation::RemoveRange { start, end }),
        4 => (key(), value_bound(), value_bound())
            .prop_map(|(key, start, end)| Operation::RemoveValues { key, start, end }),
        2 => (0..120_u32).prop_map(|percent| Operation::Settle { percent }),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::Destroy),
    ]
}

struct Run {
    store: TestStore,
    tree: TreeState,
    model: Model,
    shape: ValueShape,
    txn: u64,
    mutations: u64,
    /// From which form to which the values of a key went.
    transitions: BTreeSet<(Form, Form)>,
}

impl Run {
    fn new(shape: ValueShape, policy: SplitPolicy) -> Self {
        Self {
            store: TestStore::with_policy(policy),
            tree: TreeState::empty(TreeKind::Multi),
            model: Model::new(),
            shape,
            txn: 0,
            mutations: 0,
            transitions: BTreeSet::new(),
        }
    }

    fn form(&self, key: &[u8]) -> Form {
        let Some(place) = place_of(&self.store, &self.tree, key).unwrap() else { return Form::Nothing };
        match place.values(&self.store).unwrap() {
            Values::List(_) => Form::List,
            Values::Tree(TreeState { height: 1, .. }) => Form::Page,
            Values::Tree(_) => Form::Tree,
        }
    }

    fn add(&mut self, key: u16, value: u16) {
        self.txn += 1;
        let (key, value) = (key_bytes(key), value_bytes(self.shape, value));
        let before = self.form(&key);
        let added = add(&mut self.store, &mut self.tree, &key, &value, TxnId(self.txn)).unwrap();
        self.transitions.insert((before, self.form(&key)));
        assert_eq!(added, self.model.entry(key).or_default().insert(value));
        self.mutations += 1;
    }

    fn remove(&mut self, key: u16, value: u16) {
        self.txn += 1;
        let (key, value) = (key_bytes(key), value_bytes(self.shape, value));
        let before = self.form(&key);
        let removed = remove_value(&mut self.store, &mut self.tree, &key, &value, TxnId(self.txn)).unwrap();
        self.transitions.insert((before, self.form(&key)));
        self.mutations += 1;
        let Some(values) = self.model.get_mut(&key) else { return assert!(!removed) };
        assert_eq!(removed, values.remove(&value));
        if values.is_empty() {
            self.model.remove(&key);
        }
    }

    /// Moves what can be moved below a part of the file, in percent, a few pages at a time.
    fn settle(&mut self, percent: u32) {
        let end = PageNumber((u64::from(self.store.page_count) * u64::from(percent) / 100) as u32);
        let limits = SettleLimits { end, pages: 3, longest_run: 3 };
        let (mut place, before) = (SettlePlace::default(), self.tree);
        loop {
            let settled = settle_leaf(&mut self.store, &mut self.tree, &place, &limits).unwrap();
            assert!(settled.moved <= limits.pages, "{settled:?}");
            if !settled.done {
                assert!(settled.moved > 0, "it never ends");
                continue;
            }
            match settled.next {
                Some(next) => assert!(std::mem::replace(&mut place, next.clone()) < next),
                None => break,
            }
        }
        assert_eq!(TreeState { root: before.root, ..self.tree }, before);
    }

    fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Add { key, value, count, descending } => {
                for index in 0..count {
                    self.add(key, if descending { value + count - index } else { value + index });
                }
            }
            Operation::Remove { key, value, count, descending } => {
                for index in 0..count {
                    self.remove(key, if descending { value + count - index } else { value + index });
                }
            }
            Operation::RemoveKey { key } => {
                let key = key_bytes(key);
                let removed = remove(&mut self.store, &mut self.tree, &key).unwrap();
                assert_eq!(removed.is_some(), self.model.remove(&key).is_some());
                self.mutations += 1;
            }
            Operation::RemoveValues { key, start, end } => {
                let (start, end) = (
                    start.map(|value| value_bytes(self.shape, value)),
                    end.map(|value| value_bytes(self.shape, value)),
                );
                self.remove_values(key, start, end);
            }
            Operation::RemoveRange { start, end } => self.remove_range(start.map(key_bytes), end.map(key_bytes)),
            Operation::Settle { percent } => self.settle(percent),
            Operation::Reopen => {
                self.tree = TreeState::decode(&self.tree.encode()).unwrap();
                self.store.trim();
                self.store.allocator = crate::alloc::Allocator::load(&self.store, self.store.page_count).unwrap();
            }
            Operation::Destroy => self.destroy(),
        }
        assert_eq!(self.tree.entries, self.model.len() as u64);
        assert_eq!(self.tree.values, self.model.values().map(|values| values.len() as u64).sum::<u64>());
        assert_eq!(self.tree.pages, self.store.allocated());
        assert_eq!(self.store.mutations, self.mutations);
    }

    fn remove_values(&mut self, key: u16, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) {
        self.txn += 1;
        let (key, before) = (key_bytes(key), self.form(&key_bytes(key)));
        let (from, to) = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let removed = remove_values(&mut self.store, &mut self.tree, &key, from, to, TxnId(self.txn)).unwrap();
        self.transitions.insert((before, self.form(&key)));
        self.mutations += 1;
        let Some(values) = self.model.get_mut(&key) else { return assert_eq!(removed, 0) };
        let count = values.len();
        values.retain(|value| !std::ops::RangeBounds::contains(&(start.clone(), end.clone()), value));
        assert_eq!(removed, (count - values.len()) as u64);
        if values.is_empty() {
            self.model.remove(&key);
        }
    }

    fn remove_range(&mut self, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) {
        let (from, to) = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let expected = count_range(&self.store, &self.tree, from, to).unwrap();
        let removed = remove_range(&mut self.store, &mut self.tree, from, to).unwrap();
        let before = self.model.len();
        self.model.retain(|key, _| !std::ops::RangeBounds::contains(&(start.clone(), end.clone()), key));
        assert_eq!(removed, (before - self.model.len()) as u64);
        assert_eq!(removed, expected);
        self.mutations += 1;
    }

    fn destroy(&mut self) {
        destroy(&mut self.store, &mut self.tree).unwrap();
        assert_eq!(self.tree, TreeState::empty(TreeKind::Multi));
        assert_eq!(self.store.allocated(), 0, "all pages are given back");
        self.model.clear();
        self.mutations += 1;
    }

    fn look(&self) {
        for (key, values) in &self.model {
            assert_eq!(count_values(&self.store, &self.tree, key).unwrap(), values.len() as u64);
            for value in values {
                assert!(contains(&self.store, &self.tree, key, value).unwrap());
                let beside = [value.as_slice(), &[0]].concat();
                let expected = values.contains(&beside);
                assert_eq!(contains(&self.store, &self.tree, key, &beside).unwrap(), expected);
            }
        }
        assert_eq!(count_values(&self.store, &self.tree, b"none").unwrap(), 0);
        assert!(!contains(&self.store, &self.tree, b"none", b"none").unwrap());
        self.store.assert_sound(&[("tree", self.tree)]);
    }
}

fn cases() -> u32 {
    std::env::var("CALAMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_multi_value_tree_agrees_with_a_map_of_sets(
        operations in prop::collection::vec(operation(), 1..120),
        shape in prop_oneof![Just(ValueShape::Short), Just(ValueShape::Long), Just(ValueShape::Number)],
        percent in prop_oneof![3 => Just(50_u8), 1 => 0..=100_u8],
    ) {
        let mut run = Run::new(shape, SplitPolicy { percent });
        for operation in &operations {
            run.apply(operation);
        }
        run.look();
        run.destroy();
    }
}

/// Through all forms and back, under a key of each length; the model test would not say if it never came there.
#[test]
fn values_go_from_list_to_page_to_tree_and_back() {
    for key in 0..6 {
        let mut run = Run::new(ValueShape::Number, SplitPolicy::default());
        run.apply(&Operation::Add { key, value: 0, count: 900, descending: false });
        run.look();
        run.apply(&Operation::Remove { key, value: 0, count: 900, descending: key % 2 == 0 });
        run.remove(key, 900);
        run.remove(key, 0);
        run.look();
        let list_fits = key_bytes(key).len() < MAX_KEY_BYTES;
        let mut expected =
            BTreeSet::from([(Form::Page, Form::Page), (Form::Page, Form::Tree), (Form::Tree, Form::Tree)]);
        expected.insert((Form::Tree, Form::Page));
        if list_fits {
            expected.extend([(Form::Nothing, Form::List), (Form::List, Form::Page), (Form::List, Form::Nothing)]);
        } else {
            expected.extend([(Form::Nothing, Form::Page), (Form::Page, Form::Nothing)]);
        }
        assert!(run.transitions.is_superset(&expected), "key {key}: {:?}", run.transitions);
        assert_eq!(run.transitions.contains(&(Form::Page, Form::List)), list_fits, "key {key}: {:?}", run.transitions);
        assert_eq!((run.tree, run.store.allocated()), (TreeState::empty(TreeKind::Multi), 0));
    }
}

/// A value that comes and goes where a list just became a page does not take and free a page each time.
#[test]
fn a_value_that_comes_and_goes_at_the_limit_leaves_the_form_alone() {
    let mut run = Run::new(ValueShape::Number, SplitPolicy::default());
    let limit = (0..).find(|value| {
        run.add(0, *value);
        run.form(&key_bytes(0)) == Form::Page
    });
    let limit = limit.unwrap();
    run.transitions.clear();
    for _ in 0..5 {
        run.remove(0, limit);
        run.add(0, limit);
    }
    assert_eq!(run.transitions, BTreeSet::from([(Form::Page, Form::Page)]));
}

#[test]
fn trees_of_one_kind_are_not_read_as_the_other() {
    let (store, plain, multi) = (TestStore::new(), TreeState::default(), TreeState::empty(TreeKind::Multi));
    assert!(matches!(contains(&store, &plain, b"k", b"v"), Err(ReadError::OtherKind(TreeKind::Plain))));
    assert!(matches!(count_values(&store, &plain, b"k"), Err(ReadError::OtherKind(TreeKind::Plain))));
    assert!(matches!(get(&store, &multi, b"k"), Err(ReadError::OtherKind(TreeKind::Multi))));
    let mut cursor = crate::btree::Cursor::new(&store, multi);
    assert!(matches!(cursor.first(), Err(ReadError::OtherKind(TreeKind::Multi))));
    assert!(matches!(cursor.seek_back(b"k"), Err(ReadError::OtherKind(TreeKind::Multi))));
}
