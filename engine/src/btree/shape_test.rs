//! How full pages are, how little is touched, and that nothing is lost.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::node::{BODY_BYTES, LEAF_CELL_HEADER_BYTES, SLOT_BYTES};
use super::test_store::TestStore;
use super::{
    Cursor, MAX_KEY_BYTES, MAX_VALUE_BYTES, PageStore, SplitPolicy, TreeState, ValueLocation, destroy, get, insert,
    locate, remove, remove_range,
};
use crate::ids::TxnId;

/// A tree with `count` entries under big-endian numbers, put in the order that `order` gives.
fn loaded(order: impl Iterator<Item = u32>, value_bytes: usize) -> (TestStore, TreeState) {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    for key in order {
        insert(&mut store, &mut tree, &key.to_be_bytes(), &vec![key as u8; value_bytes], TxnId(1)).unwrap();
    }
    (store, tree)
}

fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut keys: Vec<u32> = (0..count).collect();
    keys.shuffle(&mut StdRng::seed_from_u64(seed));
    keys
}

/// Bytes of leaf cells and slots against the bytes that all pages of the tree have for them.
fn fill(tree: &TreeState, value_bytes: usize) -> f64 {
    tree.entries as f64 * (SLOT_BYTES + LEAF_CELL_HEADER_BYTES + 4 + value_bytes) as f64
        / (tree.pages as f64 * BODY_BYTES as f64)
}

#[test]
fn loading_in_key_order_fills_pages() {
    let (store, tree) = loaded(0..60_000, 100);
    assert!(fill(&tree, 100) > 0.98, "{tree:?}: {}", fill(&tree, 100));
    assert_eq!(tree.height, 3);
    store.assert_sound(&[("t", tree)]);
}

#[test]
fn loading_in_any_order_fills_pages_by_three_quarters() {
    let (store, tree) = loaded(shuffled(30_000, 1).into_iter(), 100);
    assert!(fill(&tree, 100) > 0.73, "{tree:?}: {}", fill(&tree, 100));
    store.assert_sound(&[("t", tree)]);
}

#[test]
fn another_split_point_gives_other_pages_and_the_same_entries() {
    let (_, even) = loaded(shuffled(5_000, 2).into_iter(), 50);
    let (mut store, mut tree) = (TestStore::with_policy(SplitPolicy { percent: 80 }), TreeState::default());
    for key in shuffled(5_000, 2) {
        insert(&mut store, &mut tree, &key.to_be_bytes(), &[key as u8; 50], TxnId(1)).unwrap();
    }
    assert_ne!(tree.pages, even.pages);
    store.assert_sound(&[("t", tree)]);
}

#[test]
fn taking_everything_out_gives_every_page_back() {
    for (seed, value_bytes) in [(3, 20), (4, 1_000), (5, 9_000)] {
        let (mut store, mut tree) = loaded(shuffled(3_000, seed).into_iter(), value_bytes);
        for (done, key) in shuffled(3_000, seed + 100).into_iter().enumerate() {
            assert!(remove(&mut store, &mut tree, &key.to_be_bytes()).unwrap().is_some());
            if done % 500 == 0 {
                store.assert_sound(&[("t", tree)]);
                assert!(value_bytes > 2_000 || fill(&tree, value_bytes) > 0.24, "{tree:?} after {done}, seed {seed}");
            }
        }
        assert_eq!(tree, TreeState::default());
        store.trim();
        assert_eq!(store.page_count, 2);
    }
}

/// Long separators make branches of four to eight children: they merge and borrow all the time.
#[test]
fn deep_trees_shrink_from_any_side() {
    let key = |number: u32| {
        [vec![b'd'; 900 + 1000 * usize::from(number.is_multiple_of(3))], number.to_be_bytes().to_vec()].concat()
    };
    let count = 1_500;
    let orders: [(&str, Vec<u32>); 4] = [
        ("ascending", (0..count).collect()),
        ("descending", (0..count).rev().collect()),
        ("shuffled", shuffled(count, 8)),
        ("from the middle", (count / 2..count).chain((0..count / 2).rev()).collect()),
    ];
    for (name, order) in orders {
        let (mut store, mut tree) = (TestStore::new(), TreeState::default());
        for number in shuffled(count, 9) {
            insert(&mut store, &mut tree, &key(number), b"v", TxnId(1)).unwrap();
        }
        assert!(tree.height >= 5, "{tree:?}");
        for (done, number) in order.into_iter().enumerate() {
            assert!(remove(&mut store, &mut tree, &key(number)).unwrap().is_some(), "{name}, {number}");
            if done % 25 == 0 {
                store.assert_sound(&[("t", tree)]);
            }
        }
        assert_eq!((tree, store.allocated()), (TreeState::default(), 0), "{name}");
    }
}

#[test]
fn a_range_takes_whole_subtrees_without_writing_them() {
    let (mut store, mut tree) = loaded(0..100_000, 60);
    let before = store.clone();
    let (start, end) = (1_000_u32.to_be_bytes(), 98_000_u32.to_be_bytes());
    let removed = remove_range(&mut store, &mut tree, Bound::Included(&start), Bound::Excluded(&end)).unwrap();
    assert_eq!((removed, tree.entries), (97_000, 3_000));
    assert_eq!(store.mutations, before.mutations + 1);
    store.assert_sound(&[("t", tree)]);
    let left = tree.pages;
    assert!(left < 40, "{left} pages are left");
    destroy(&mut store, &mut tree).unwrap();
    assert_eq!((tree, store.allocated()), (TreeState::default(), 0));
}

#[test]
fn small_changes_touch_few_bytes() {
    let (mut store, mut tree) = loaded(shuffled(2_000, 6).into_iter(), 100);
    let mut random = StdRng::seed_from_u64(7);
    let (mut replaced, mut removed, mut put) = (0, 0, 0);
    let rounds = 200;
    for _ in 0..rounds {
        let key = random.random_range(0..2_000_u32).to_be_bytes();
        let before = store.clone();
        insert(&mut store, &mut tree, &key, &[random.random(); 100], TxnId(2)).unwrap();
        let (bytes, pages) = store.changed_since(&before);
        assert!(bytes <= 108 && pages <= 1, "replacing 100 bytes changed {bytes} in {pages} pages");
        replaced += bytes;
        let before = store.clone();
        remove(&mut store, &mut tree, &key).unwrap();
        removed += store.changed_since(&before).0;
        let before = store.clone();
        insert(&mut store, &mut tree, &key, &[random.random(); 100], TxnId(3)).unwrap();
        put += store.changed_since(&before).0;
    }
    assert!(replaced / rounds <= 108);
    // Mergers among them, where a page that is freed becomes zeros: no bytes of a record.
    assert!(removed / rounds <= 700, "{} bytes for taking an entry out", removed / rounds);
    assert!(put / rounds <= 400, "{} bytes for putting 118", put / rounds);
    store.assert_sound(&[("t", tree)]);
}

#[test]
fn a_long_value_is_rewritten_where_it_stands() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    let mut value = vec![1; 100_000];
    insert(&mut store, &mut tree, b"document", &value, TxnId(1)).unwrap();
    let before = store.clone();
    value[50_000] = 2;
    value.truncate(99_000);
    insert(&mut store, &mut tree, b"document", &value, TxnId(2)).unwrap();
    let (bytes, pages) = store.changed_since(&before);
    // What stands behind the end of the value is zero now.
    assert!(bytes < 1_010 && pages == 3, "{bytes} bytes in {pages} pages");
    assert_eq!(get(&store, &tree, b"document").unwrap().unwrap().value.to_vec().unwrap(), value);
    store.assert_sound(&[("t", tree)]);

    // A shorter one stays at its place, and the pages behind it are free.
    let place = locate(&store, &tree, b"document").unwrap().unwrap().1;
    let ValueLocation::Overflow { first, length: 99_000 } = place else { panic!("{place:?}") };
    value.truncate(20_000);
    insert(&mut store, &mut tree, b"document", &value, TxnId(3)).unwrap();
    let place = locate(&store, &tree, b"document").unwrap().unwrap().1;
    assert_eq!(place, ValueLocation::Overflow { first, length: 20_000 });
    assert_eq!((tree.pages, store.allocated()), (4, 4));
    assert_eq!(get(&store, &tree, b"document").unwrap().unwrap().value.to_vec().unwrap(), value);
    store.assert_sound(&[("t", tree)]);
}

#[test]
fn the_largest_key_and_value() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    let value: Vec<u8> = (0..MAX_VALUE_BYTES).map(|index| (index / 1000) as u8).collect();
    for first in 0..40 {
        let mut key = vec![first; MAX_KEY_BYTES];
        key[0] = 0;
        insert(&mut store, &mut tree, &key, if first == 9 { &value } else { &[] }, TxnId(1)).unwrap();
    }
    let mut key = [9; MAX_KEY_BYTES];
    key[0] = 0;
    let entry = get(&store, &tree, &key).unwrap().unwrap();
    assert_eq!(entry.value.len(), MAX_VALUE_BYTES);
    assert!(entry.value.to_vec().unwrap() == value);
    assert_eq!(entry.value.chunks().count(), MAX_VALUE_BYTES.div_ceil(BODY_BYTES));
    let mut cursor = Cursor::new(&store, tree);
    assert!(cursor.last().unwrap() && cursor.key()[1] == 39);
    store.assert_sound(&[("t", tree)]);
}

/// Trees work through trait objects too.
#[test]
fn a_store_can_be_a_trait_object() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    let any: &mut dyn PageStore = &mut store;
    insert(any, &mut tree, b"key", &[7; 5_000], TxnId(1)).unwrap();
    assert_eq!(get(any, &tree, b"key").unwrap().unwrap().value.to_vec().unwrap(), [7; 5_000]);
    remove(any, &mut tree, b"key").unwrap();
    assert_eq!(tree, TreeState::default());
}
