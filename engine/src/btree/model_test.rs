//! Random operations on a tree and on a `BTreeMap` must agree; after each run the whole-file check must be clean.
//!
//! `CALAMUS_CASES` sets how many runs there are. A failure prints the operations, made as few and small as possible,
//! and the seed that proptest needs to run them again.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::overflow::fill_run;
use super::test_store::TestStore;
use super::{
    Cursor, MAX_KEY_BYTES, PageSource, PageStore, SettleLimits, SettlePlace, SplitPolicy, TreeState, ValueLocation,
    destroy, get, insert, locate, remove, remove_range, reserve, settle_leaf,
};
use crate::ids::{PageNumber, TxnId};
use crate::page::PAGE_HEADER_BYTES;

type Model = BTreeMap<Vec<u8>, (TxnId, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Operation {
    Insert {
        key: u16,
        value_bytes: usize,
    },
    /// A run of neighbouring keys, in order or against it.
    InsertRun {
        key: u16,
        count: u16,
        value_bytes: usize,
        descending: bool,
    },
    Remove {
        key: u16,
    },
    RemoveRange {
        start: Bound<u16>,
        end: Bound<u16>,
    },
    Settle {
        percent: u32,
    },
    Walk {
        from: u16,
    },
    Reopen,
    Destroy,
}

/// How keys look: many short ones, all long, a mixture with lengths around every limit, or alike for so long that
/// separators are long too: then branches have few children, and the tree many levels.
#[derive(Clone, Copy, Debug)]
enum KeyShape {
    Short,
    Long,
    Mixed,
    Deep,
}

fn key_bytes(shape: KeyShape, key: u16) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    match shape {
        KeyShape::Short => {}
        KeyShape::Long => bytes.resize(MAX_KEY_BYTES - usize::from(key % 40), b'l'),
        KeyShape::Deep => {
            bytes = vec![b'd'; [900, 1300, 2000][usize::from(key / 200) % 3]];
            bytes.extend_from_slice(&key.to_be_bytes());
        }
        KeyShape::Mixed => {
            // A long common beginning, so that separators are long too, for some of them.
            let length = [2, 3, 9, 40, 300, 700, 1100, MAX_KEY_BYTES - 2][usize::from(key % 8)];
            let mut long = vec![b'p'; if key.is_multiple_of(5) { length } else { 0 }];
            long.extend_from_slice(&bytes);
            long.resize((long.len() + usize::from(key % 7)).min(MAX_KEY_BYTES), b'm');
            bytes = long;
        }
    }
    bytes
}

fn value_of(txn: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (txn as usize * 31 + index / 3) as u8).collect()
}

fn value_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..40_usize,
        3 => 0..700_usize,
        2 => 1900..2100_usize,
        1 => Just(8), 1 => Just(9),
        1 => 8170..8180_usize,
        1 => 16348..16356_usize,
        1 => 0..70_000_usize,
    ]
}

fn bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        4 => (0..600_u16).prop_map(Bound::Included),
        4 => (0..600_u16).prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        30 => (0..600_u16, value_bytes()).prop_map(|(key, value_bytes)| Operation::Insert { key, value_bytes }),
        8 => (0..600_u16, 1..120_u16, 0..300_usize, any::<bool>()).prop_map(
            |(key, count, value_bytes, descending)| Operation::InsertRun { key, count, value_bytes, descending }
        ),
        20 => (0..600_u16).prop_map(|key| Operation::Remove { key }),
        3 => (bound(), bound()).prop_map(|(start, end)| Operation::RemoveRange { start, end }),
        4 => (0..600_u16).prop_map(|from| Operation::Walk { from }),
        2 => (0..120_u32).prop_map(|percent| Operation::Settle { percent }),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::Destroy),
    ]
}

struct Run {
    store: TestStore,
    tree: TreeState,
    model: Model,
    shape: KeyShape,
    txn: u64,
    mutations: u64,
}

impl Run {
    fn put(&mut self, key: u16, value_bytes: usize) {
        self.txn += 1;
        let (key, value, version) = (key_bytes(self.shape, key), value_of(self.txn, value_bytes), TxnId(self.txn));
        let old = if self.txn.is_multiple_of(3) {
            let old = reserve(&mut self.store, &mut self.tree, &key, value.len(), version).unwrap();
            let zeros = get(&self.store, &self.tree, &key).unwrap().unwrap().value.to_vec().unwrap();
            assert!(
                zeros.len() == value.len() && zeros.iter().all(|byte| *byte == 0),
                "{} reserved bytes",
                zeros.len()
            );
            self.fill(&key, &value);
            old
        } else {
            insert(&mut self.store, &mut self.tree, &key, &value, version).unwrap()
        };
        assert_eq!(old, self.model.insert(key, (version, value)).map(|(version, _)| version));
        self.mutations += 1;
    }

    /// Writes a value into the place that is reserved for it.
    fn fill(&mut self, key: &[u8], value: &[u8]) {
        match locate(&self.store, &self.tree, key).unwrap().unwrap().1 {
            ValueLocation::Inline { page, offset, .. } => {
                let place = usize::from(offset)..usize::from(offset) + value.len();
                self.store.page_mut(page).unwrap().bytes_mut()[place].copy_from_slice(value);
            }
            ValueLocation::Overflow { first, .. } => fill_run(&mut self.store, first, value).unwrap(),
        }
    }

    /// Moves what can be moved below a part of the file, in percent, a few pages at a time.
    fn settle(&mut self, percent: u32) {
        let end = PageNumber((u64::from(self.store.page_count) * u64::from(percent) / 100) as u32);
        let limits = SettleLimits { end, pages: 40, longest_run: 30 };
        let (mut place, before) = (SettlePlace::default(), self.tree.pages);
        loop {
            let settled = settle_leaf(&mut self.store, &mut self.tree, &place, &limits).unwrap();
            assert!(settled.moved <= limits.pages, "{settled:?}");
            assert_eq!(before, self.tree.pages);
            if !settled.done {
                assert!(settled.moved > 0, "it never ends");
                continue;
            }
            match settled.next {
                Some(next) => assert!(std::mem::replace(&mut place, next.clone()) < next),
                None => break,
            }
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Insert { key, value_bytes } => self.put(key, value_bytes),
            Operation::InsertRun { key, count, value_bytes, descending } => {
                for index in 0..count {
                    self.put(if descending { key + count - index } else { key + index }, value_bytes);
                }
            }
            Operation::Settle { percent } => self.settle(percent),
            Operation::Remove { key } => {
                let key = key_bytes(self.shape, key);
                let old = remove(&mut self.store, &mut self.tree, &key).unwrap();
                assert_eq!(old, self.model.remove(&key).map(|(version, _)| version));
                self.mutations += 1;
            }
            Operation::RemoveRange { start, end } => {
                let start = start.map(|key| key_bytes(self.shape, key));
                let end = end.map(|key| key_bytes(self.shape, key));
                let (start, end) = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
                let removed = remove_range(&mut self.store, &mut self.tree, start, end).unwrap();
                let before = self.model.len();
                let above = |key: &[u8]| match start {
                    Bound::Included(start) => key >= start,
                    Bound::Excluded(start) => key > start,
                    Bound::Unbounded => true,
                };
                let below = |key: &[u8]| match end {
                    Bound::Included(end) => key <= end,
                    Bound::Excluded(end) => key < end,
                    Bound::Unbounded => true,
                };
                self.model.retain(|key, _| !(above(key) && below(key)));
                assert_eq!(removed, (before - self.model.len()) as u64);
                self.mutations += 1;
            }
            Operation::Walk { from } => self.walk(&key_bytes(self.shape, from)),
            Operation::Reopen => {
                self.tree = TreeState::decode(&self.tree.encode()).unwrap();
                self.store.trim();
                self.store.allocator = crate::alloc::Allocator::load(&self.store, self.store.page_count).unwrap();
            }
            Operation::Destroy => {
                destroy(&mut self.store, &mut self.tree).unwrap();
                self.model.clear();
                self.mutations += 1;
            }
        }
        assert_eq!(self.tree.entries, self.model.len() as u64);
        assert_eq!(self.tree.pages, self.store.allocated());
        assert_eq!(self.store.mutations, self.mutations);
    }

    /// Walks a few entries to both sides of a key, there and back.
    fn walk(&self, from: &[u8]) {
        let mut cursor = Cursor::new(&self.store, self.tree);
        let mut expected = self.model.range(from.to_vec()..);
        let mut at = cursor.seek(from).unwrap();
        for _ in 0..30 {
            let entry = expected.next();
            assert_eq!(at, entry.is_some());
            let Some((key, (version, value))) = entry else { break };
            assert_eq!((cursor.key(), cursor.version()), (key.as_slice(), *version));
            assert_eq!(&cursor.value().to_vec().unwrap(), value);
            at = cursor.next().unwrap();
        }
        let mut expected = self.model.range(..=from.to_vec()).rev();
        let mut at = cursor.seek_back(from).unwrap();
        for _ in 0..30 {
            let entry = expected.next();
            assert_eq!(at, entry.is_some());
            let Some((key, (version, _))) = entry else { break };
            assert_eq!((cursor.key(), cursor.version()), (key.as_slice(), *version));
            at = cursor.previous().unwrap();
        }
    }

    fn finish(&self) {
        let mut cursor = Cursor::new(&self.store, self.tree);
        for (key, (version, value)) in &self.model {
            assert!(cursor.next().unwrap());
            assert_eq!((cursor.key(), cursor.version()), (key.as_slice(), *version));
            let entry = get(&self.store, &self.tree, key).unwrap().unwrap();
            assert_eq!((entry.version, entry.value.len()), (*version, value.len()));
            assert_eq!(&entry.value.to_vec().unwrap(), value);
            if let Some(slice) = entry.value.load().unwrap().as_slice() {
                assert_eq!(slice, value);
            }
            let (located, location) = locate(&self.store, &self.tree, key).unwrap().unwrap();
            assert_eq!((located, self.read(location)), (*version, value.clone()));
        }
        assert!(!cursor.next().unwrap() && !cursor.next().unwrap());
        for (key, _) in self.model.iter().rev() {
            assert!(cursor.previous().unwrap());
            assert_eq!(cursor.key(), key);
        }
        assert!(!cursor.previous().unwrap());
        self.store.assert_sound(&[("tree", self.tree)]);
    }

    /// Reads the bytes of a value by their place alone.
    fn read(&self, location: ValueLocation) -> Vec<u8> {
        match location {
            ValueLocation::Inline { page, offset, length } => {
                self.store.page(page).unwrap().bytes()[usize::from(offset)..][..usize::from(length)].to_vec()
            }
            ValueLocation::Overflow { first, length } => {
                let mut bytes = Vec::new();
                for number in first.0.. {
                    if bytes.len() >= length as usize {
                        break;
                    }
                    let page = self.store.page(PageNumber(number)).unwrap();
                    bytes.extend_from_slice(&page.bytes()[PAGE_HEADER_BYTES..]);
                }
                bytes.truncate(length as usize);
                bytes
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("CALAMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn tree_agrees_with_a_map(
        operations in prop::collection::vec(operation(), 1..250),
        shape in prop_oneof![Just(KeyShape::Short), Just(KeyShape::Long), Just(KeyShape::Mixed), Just(KeyShape::Deep)],
        percent in prop_oneof![3 => Just(50_u8), 1 => 0..=100_u8],
    ) {
        let store = TestStore::with_policy(SplitPolicy { percent });
        let (tree, model) = (TreeState::default(), Model::new());
        let mut run = Run { store, tree, model, shape, txn: 0, mutations: 0 };
        for operation in &operations {
            run.apply(operation);
        }
        run.finish();
    }
}
