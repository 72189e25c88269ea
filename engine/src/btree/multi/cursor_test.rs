//! A cursor over the values of a key moves as one over a `BTreeSet` would, in each form that the values have.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Keys, ValuesCursor, add};
use crate::btree::test_store::TestStore;
use crate::btree::{ReadError, TreeKind, TreeState};
use crate::ids::TxnId;

/// A key with every third number below `count` as values, and keys beside it.
fn filled(count: u32) -> (TestStore, TreeState, BTreeSet<Vec<u8>>) {
    let (mut store, mut tree, mut model) = (TestStore::new(), TreeState::empty(TreeKind::Multi), BTreeSet::new());
    for value in (0..count).step_by(3) {
        let value = number(value);
        assert!(add(&mut store, &mut tree, b"key", &value, TxnId(1)).unwrap());
        model.insert(value);
    }
    for beside in [b"a", b"z"] {
        add(&mut store, &mut tree, beside, b"a value", TxnId(2)).unwrap();
    }
    (store, tree, model)
}

fn number(value: u32) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(4 + value as usize % 30, b'v');
    bytes
}

#[derive(Clone, Copy, Debug)]
enum Move {
    First,
    Last,
    Next,
    Previous,
    Seek(u32),
    SeekBack(u32),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First), 1 => Just(Move::Last), 8 => Just(Move::Next), 8 => Just(Move::Previous),
        2 => (0..2_100_u32).prop_map(Move::Seek), 2 => (0..2_100_u32).prop_map(Move::SeekBack),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// From nothing and one value over a list and a page to a tree of two levels.
    #[test]
    fn it_moves_as_over_a_set(count in prop_oneof![Just(0_u32), Just(1), Just(150), Just(600), Just(2_000)], moves in moves()) {
        let (store, tree, model) = filled(count);
        let values: Vec<&Vec<u8>> = model.iter().collect();
        let mut cursor = ValuesCursor::new(&store, &tree, b"key").unwrap();
        prop_assert_eq!(cursor.count(), values.len() as u64);
        // One more than the value's index; 0 and one more than there are stand before and behind all of them.
        let mut at: Option<usize> = None;
        let behind = values.len() + 1;
        for one in moves {
            let (there, to) = match one {
                Move::First => (cursor.first(), 1),
                Move::Last => (cursor.last(), behind - 1),
                Move::Next => (cursor.next(), at.map_or(1, |at| (at + 1).min(behind))),
                Move::Previous => (cursor.previous(), at.map_or(behind - 1, |at| at.saturating_sub(1))),
                Move::Seek(value) => {
                    (cursor.seek(&number(value)), values.partition_point(|other| **other < number(value)) + 1)
                }
                Move::SeekBack(value) => {
                    (cursor.seek_back(&number(value)), values.partition_point(|other| **other <= number(value)))
                }
            };
            let expected = (1..behind).contains(&to);
            prop_assert_eq!(there.unwrap(), expected, "{:?}", one);
            prop_assert_eq!(cursor.is_at_value(), expected);
            if expected {
                prop_assert_eq!(cursor.value(), values[to - 1].as_slice());
            }
            // Without values it stands nowhere for ever.
            at = (!values.is_empty()).then_some(to);
        }
    }
}

#[test]
fn keys_lead_to_their_values() {
    for count in [1, 150, 2_000] {
        let (store, tree, model) = filled(count);
        let mut keys = Keys::new(&store, tree);
        let mut found = Vec::new();
        while keys.next().unwrap() {
            let mut values = keys.values().unwrap();
            assert_eq!(values.count(), if keys.key() == b"key" { model.len() as u64 } else { 1 });
            while values.next().unwrap() {
                found.push((keys.key().to_vec(), keys.version().0, values.value().to_vec()));
            }
        }
        let mut expected = vec![(b"a".to_vec(), 2, b"a value".to_vec())];
        expected.extend(model.into_iter().map(|value| (b"key".to_vec(), 1, value)));
        expected.push((b"z".to_vec(), 2, b"a value".to_vec()));
        assert_eq!(found, expected);
        assert!(keys.previous().unwrap() && keys.key() == b"z" && keys.seek_back(b"y").unwrap());
        assert!(keys.key() == b"key" && keys.first().unwrap() && keys.key() == b"a" && keys.last().unwrap());
    }
}

#[test]
fn the_keys_of_a_plain_tree_have_no_values_to_walk() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    crate::btree::insert(&mut store, &mut tree, b"k", b"v", TxnId(1)).unwrap();
    let mut keys = Keys::new(&store, tree);
    assert!(keys.seek(b"a").unwrap() && keys.key() == b"k");
    assert!(matches!(keys.values(), Err(ReadError::OtherKind(TreeKind::Plain))));
    assert!(matches!(ValuesCursor::new(&store, &tree, b"k"), Err(ReadError::OtherKind(TreeKind::Plain))));
}
