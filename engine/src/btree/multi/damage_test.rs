//! Values that are not what was written: reading and changing them gives an error that names the page, never a panic or a
//! wrong value, and the whole-file check finds them.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::read::place_of;
use super::{Keys, ValuesCursor, add, contains, count_values, remove_value};
use crate::btree::node::{LEAF_CELL_HEADER_BYTES, Node};
use crate::btree::test_store::TestStore;
use crate::btree::{MAX_KEY_BYTES, PageSource, PageStore, ReadError, TreeKind, TreeState, destroy, remove};
use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, PageKind, checksum};

const LIST: &[u8] = b"list";
const TREE: &[u8] = b"tree";

fn value(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn sound() -> (TestStore, TreeState) {
    let (mut store, mut tree) = (TestStore::new(), TreeState::empty(TreeKind::Multi));
    for number in 0..1_500 {
        add(&mut store, &mut tree, TREE, &value(number), TxnId(1)).unwrap();
        if number < 60 {
            add(&mut store, &mut tree, LIST, &value(number), TxnId(1)).unwrap();
        }
    }
    (store.sealed(&[("t", tree)]), tree)
}

/// Where the payload of a key stands.
fn payload_of(store: &TestStore, tree: &TreeState, key: &[u8]) -> (PageNumber, Range<usize>) {
    let place = place_of(store, tree, key).unwrap().unwrap();
    (place.leaf, place.payload)
}

/// Overwrites bytes of a page, and seals it, so that no checksum tells.
fn write(store: &mut TestStore, number: PageNumber, at: usize, bytes: &[u8]) {
    let page = store.page_mut(number).unwrap();
    page.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    checksum::seal(number, page);
}

fn is_damage<T>(result: Result<T, ReadError>) -> bool {
    matches!(result, Err(ReadError::Storage(StorageError::Corrupted { .. })))
}

#[test]
fn a_list_that_cannot_be_is_damage() {
    let (store, tree) = sound();
    let (leaf, payload) = payload_of(&store, &tree, LIST);
    let values = 4 + 60 * 2;
    for (what, at, bytes) in [
        ("no form that exists", 0, &[7][..]),
        ("a tree in a list's place", 0, &[2]),
        ("a reserved byte", 1, &[1]),
        ("no values", 2, &[0, 0]),
        ("fewer values", 2, &[59, 0]),
        ("more values", 2, &[61, 0]),
        ("more values than there is room for", 2, &[255, 255]),
        ("an empty value", 4, &[0, 0]),
        ("an end outside", 4, &[255, 255]),
        ("an end before the last", 8, &[1, 0]),
        ("the same value twice", values + 4, &value(0)),
        ("values out of order", values + 4, &value(9)),
    ] {
        let (mut bad, mut state) = (store.clone(), tree);
        write(&mut bad, leaf, payload.start + at, bytes);
        assert!(is_damage(contains(&bad, &tree, LIST, &value(3))), "{what}");
        assert!(is_damage(count_values(&bad, &tree, LIST)), "{what}");
        assert!(is_damage(ValuesCursor::new(&bad, &tree, LIST)), "{what}");
        let mut keys = Keys::new(&bad, tree);
        assert!(keys.seek(LIST).unwrap() && is_damage(keys.values()), "{what}");
        assert!(is_damage(add(&mut bad, &mut state, LIST, b"new", TxnId(2))), "{what}");
        assert!(is_damage(remove_value(&mut bad, &mut state, LIST, &value(3), TxnId(2))), "{what}");
        assert!(is_damage(remove(&mut bad, &mut state, LIST)), "{what}");
        assert!(is_damage(destroy(&mut bad, &mut state)), "{what}");
        assert!(contains(&bad, &tree, TREE, &value(3)).unwrap(), "the other key is there");
        assert!(bad.report().problems.iter().any(|problem| problem.page == leaf), "{what}");
    }
}

#[test]
fn a_tree_of_values_that_cannot_be_is_damage() {
    let (store, tree) = sound();
    let (leaf, payload) = payload_of(&store, &tree, TREE);
    let outside = store.page_count.to_le_bytes();
    let of_the_tree = tree.root.unwrap().0.to_le_bytes();
    for (what, at, bytes) in [
        ("no form that exists", 0, &[9][..]),
        ("no height", 1, &[0]),
        ("an impossible height", 1, &[33]),
        ("reserved bytes", 2, &[1]),
        ("no root", 4, &[0; 4]),
        ("no values", 8, &[0; 8]),
        ("no pages", 16, &[0; 8]),
        ("a root behind the end", 4, &outside),
        ("a root that is the superblock's neighbour", 4, &[1, 0, 0, 0]),
        ("a root that is another tree's", 4, &of_the_tree),
        ("a lower height", 1, &[1]),
        ("a greater height", 1, &[3]),
    ] {
        let (mut bad, mut state) = (store.clone(), tree);
        write(&mut bad, leaf, payload.start + at, bytes);
        assert!(is_damage(contains(&bad, &tree, TREE, &value(3))), "{what}");
        let first = ValuesCursor::new(&bad, &tree, TREE).and_then(|mut cursor| cursor.first());
        assert!(is_damage(first), "{what}");
        assert!(is_damage(add(&mut bad, &mut state, TREE, b"new", TxnId(2))), "{what}");
        assert!(contains(&bad, &tree, LIST, &value(3)).unwrap(), "the other key is there");
        assert!(!bad.report().is_clean(), "{what}");
    }
}

/// What only counts are wrong of reads as it was; giving it back says so, and the check finds it.
#[test]
fn wrong_counts_are_found() {
    let (store, tree) = sound();
    let (leaf, payload) = payload_of(&store, &tree, TREE);
    for at in [8, 16] {
        let (mut bad, mut state) = (store.clone(), tree);
        write(&mut bad, leaf, payload.start + at, &[3]);
        assert!(contains(&bad, &tree, TREE, &value(3)).unwrap());
        assert!(!bad.report().is_clean(), "byte {at}");
        assert!(is_damage(remove(&mut bad, &mut state, TREE)), "byte {at}");
    }
    for state in [TreeState { values: tree.values + 1, ..tree }, TreeState { pages: tree.pages + 1, ..tree }] {
        assert!(!store.sealed(&[("t", state)]).report().is_clean(), "{state:?}");
    }
}

/// A tree of values holds keys and nothing else: a page of another tree in its place is not served as values.
#[test]
fn entries_with_values_are_not_served_as_values() {
    let (store, tree) = sound();
    let (leaf, payload) = payload_of(&store, &tree, TREE);
    let mut bad = store.clone();
    write(&mut bad, leaf, payload.start + 4, &tree.root.unwrap().0.to_le_bytes());
    write(&mut bad, leaf, payload.start + 1, &[1]);
    assert!(is_damage(contains(&bad, &tree, TREE, LIST)));
    let mut cursor = ValuesCursor::new(&bad, &tree, TREE).unwrap();
    assert!(is_damage(cursor.first()) && !cursor.is_at_value());
    assert!(is_damage(cursor.seek(LIST)) && !cursor.is_at_value());
}

/// A value has 1 to `MAX_KEY_BYTES` bytes, also where a page that fits its checksum says otherwise.
#[test]
fn a_value_of_an_impossible_length_is_not_served() {
    let (store, tree) = sound();
    let first = |number: &PageNumber| {
        let page = store.page(*number).unwrap();
        page.bytes()[8] == PageKind::Leaf as u8 && Node::leaf(&page).unwrap().key(0).unwrap() == value(0)
    };
    let leaf = (2..store.page_count).map(PageNumber).find(first).expect("a leaf of the tree of values");
    let cell = Node::leaf(&store.page(leaf).unwrap()).unwrap().offset(0).unwrap();
    let (empty, long) = (0, u16::try_from(MAX_KEY_BYTES).unwrap() + 1);
    for length in [empty, long] {
        let mut bad = store.clone();
        // The cell of 0 stands where such a length stays in the page.
        let room = PAGE_BYTES - cell >= LEAF_CELL_HEADER_BYTES + usize::from(length);
        let at = if room { cell } else { PAGE_BYTES - LEAF_CELL_HEADER_BYTES - usize::from(length) };
        write(&mut bad, leaf, PAGE_HEADER_BYTES, &u16::try_from(at).unwrap().to_le_bytes());
        write(&mut bad, leaf, at, &[length.to_le_bytes(), [0; 2]].concat());
        let mut cursor = ValuesCursor::new(&bad, &tree, TREE).unwrap();
        assert!(is_damage(cursor.first()) && !cursor.is_at_value(), "{length} bytes");
        assert!(is_damage(cursor.next()) && !cursor.is_at_value(), "{length} bytes");
        assert!(cursor.last().unwrap() && cursor.value() == value(1_499), "the other leaves are served");
        assert!(!bad.report().is_clean(), "{length} bytes");
    }
}

#[test]
fn noise_never_panics() {
    let seed = std::env::var("CALAMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(14);
    println!("CALAMUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (store, tree) = sound();
    let (leaf, payload) = payload_of(&store, &tree, TREE);
    for round in 0..300 {
        let mut bad = store.clone();
        let number = PageNumber(random.random_range(2..bad.page_count));
        let (number, at) = match round % 3 {
            0 => (leaf, random.random_range(payload.clone())),
            1 => (leaf, random.random_range(8..PAGE_BYTES)),
            _ => (number, random.random_range(8..PAGE_BYTES)),
        };
        write(&mut bad, number, at, &[random.random()]);
        for key in [LIST, TREE] {
            for number in [0, 7, 1_499] {
                let _ = contains(&bad, &tree, key, &value(number));
            }
            let Ok(mut cursor) = ValuesCursor::new(&bad, &tree, key) else { continue };
            let mut there = if round % 2 == 0 { cursor.seek(&value(700)) } else { cursor.seek_back(&value(700)) };
            for _ in 0..300 {
                match there {
                    Ok(true) => there = if round % 2 == 0 { cursor.next() } else { cursor.previous() },
                    Ok(false) => break,
                    Err(error) => {
                        assert!(is_damage(Err::<(), _>(error)) && !cursor.is_at_value());
                        break;
                    }
                }
            }
        }
        bad.report();
    }
}
