//! Ranges, prefixes and counts against a map.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::test_store::TestStore;
use super::{PageRef, PageSource, Range, ReadError, TreeState, count_range, insert, prefix_end};
use crate::ids::{PageNumber, TxnId};

type Map = BTreeMap<Vec<u8>, usize>;

/// Keys in steps of three, of up to four bytes, so that many have a prefix in common; long values make more levels.
fn tree(keys: u32, value_bytes: usize) -> (TestStore, TreeState, Map) {
    let (mut store, mut tree, mut map) = (TestStore::new(), TreeState::default(), Map::new());
    for key in (0..keys).map(|key| key_of(key * 3)) {
        insert(&mut store, &mut tree, &key, &vec![1; value_bytes], TxnId(1)).unwrap();
        map.insert(key, value_bytes);
    }
    (store, tree, map)
}

fn key_of(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let mut key = vec![bytes[2], u8::MAX, bytes[3]];
    key.truncate(if number.is_multiple_of(256) { 2 } else { 3 });
    key
}

fn bound() -> impl Strategy<Value = Bound<u32>> {
    prop_oneof![
        4 => (0..2_000_u32).prop_map(Bound::Included),
        4 => (0..2_000_u32).prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn within(map: &Map, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Vec<Vec<u8>> {
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
    map.keys().filter(|key| above(key) && below(key)).cloned().collect()
}

fn assert_walks<S: PageSource>(mut range: Range<'_, S>, expected: &[Vec<u8>]) {
    for round in 0..2 {
        for key in expected {
            assert!(range.next().unwrap(), "round {round}");
            assert_eq!((range.key(), range.version()), (key.as_slice(), TxnId(1)));
        }
        assert!(!range.next().unwrap() && !range.next().unwrap());
        for key in expected.iter().rev() {
            assert!(range.previous().unwrap());
            assert_eq!(range.key(), key);
        }
        assert!(!range.previous().unwrap() && !range.previous().unwrap());
    }
    assert_eq!(range.first().unwrap(), !expected.is_empty());
    assert_eq!(range.last().unwrap(), !expected.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn ranges_agree_with_a_map(
        keys in 0..650_u32,
        value_bytes in prop_oneof![Just(0), Just(300), Just(1500), Just(9000)],
        ranges in prop::collection::vec((bound(), bound()), 1..8),
    ) {
        let (store, tree, map) = tree(keys, value_bytes);
        for (start, end) in ranges {
            let (start, end) = (start.map(key_of), end.map(key_of));
            let (start, end) = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
            let expected = within(&map, start, end);
            assert_eq!(count_range(&store, &tree, start, end).unwrap(), expected.len() as u64);
            assert_walks(Range::new(&store, tree, start, end), &expected);
        }
    }

    #[test]
    fn prefixes_agree_with_a_map(keys in 0..650_u32, prefix in prop::collection::vec(
        prop_oneof![0..8_u8, Just(255_u8)], 0..4,
    )) {
        let (store, tree, map) = tree(keys, 300);
        let expected: Vec<_> = map.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        assert_walks(Range::with_prefix(&store, tree, &prefix), &expected);
        let end = prefix_end(&prefix);
        let counted = count_range(&store, &tree, Bound::Included(&prefix), end.as_ref().map(Vec::as_slice));
        assert_eq!(counted.unwrap(), expected.len() as u64);
    }
}

#[test]
fn where_a_prefix_ends() {
    assert_eq!(prefix_end(b"ab"), Bound::Excluded(b"ac".to_vec()));
    assert_eq!(prefix_end(&[1, 255, 255]), Bound::Excluded(vec![2]));
    assert_eq!(prefix_end(&[255, 255]), Bound::Unbounded);
    assert_eq!(prefix_end(b""), Bound::Unbounded);
}

/// Has no pages: a read of one fails the test.
struct Nothing;

impl PageSource for Nothing {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        panic!("page {number} is read")
    }
}

#[test]
fn a_whole_tree_is_counted_without_a_page() {
    let tree = TreeState { root: Some(PageNumber(9)), height: 3, entries: 77, pages: 8, ..TreeState::default() };
    assert_eq!(count_range(&Nothing, &tree, Bound::Unbounded, Bound::Unbounded).unwrap(), 77);
    assert_eq!(count_range(&Nothing, &tree, Bound::Excluded(b"b"), Bound::Included(b"a")).unwrap(), 0);
}
