//! Damaged pages: reading gives errors or wrong answers (checksums are not the tree's business), and never a panic.
//! The whole-file check finds every flipped bit.

use std::collections::BTreeSet;
use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::test_store::TestStore;
use super::{
    Cursor, MAX_HEIGHT, PageSource, PageStore, ReadError, TreeState, destroy, get, insert, locate, remove, remove_range,
};
use crate::error::StorageError;
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};

const KEYS: u32 = 900;

fn key(number: u32) -> Vec<u8> {
    format!("{:0width$}", number, width = 4 + (number as usize * 7) % 400).into_bytes()
}

fn sound() -> (TestStore, TreeState) {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    for number in 0..KEYS {
        let bytes = [0, 30, 300, 2_500, 9_000][number as usize % 5];
        insert(&mut store, &mut tree, &key(number), &vec![number as u8; bytes], TxnId(1)).unwrap();
    }
    (store.sealed(&[("t", tree)]), tree)
}

fn only_damage<T>(result: Result<T, ReadError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ReadError::Storage(StorageError::Corrupted { .. } | StorageError::DamagedPage { .. })) => None,
        Err(error) => panic!("not reported as damage: {error}"),
    }
}

/// Reads all that can be read. Nothing is said of what comes back, but that it does.
fn read_everything(store: &TestStore, tree: &TreeState) {
    for number in (0..KEYS).step_by(17) {
        let key = key(number);
        if let Some(Some(entry)) = only_damage(get(store, tree, &key)) {
            only_damage(entry.value.to_vec());
            only_damage(entry.value.load());
        }
        only_damage(locate(store, tree, &key));
        let mut cursor = Cursor::new(store, *tree);
        for step in 0..40 {
            let moved = match (number % 2, step) {
                (0, 0) => cursor.seek(&key),
                (_, 0) => cursor.seek_back(&key),
                (0, _) => cursor.next(),
                (_, _) => cursor.previous(),
            };
            match only_damage(moved) {
                Some(true) => {
                    let _ = (cursor.key().len(), cursor.version());
                    only_damage(cursor.value().to_vec());
                }
                Some(false) => break,
                None => assert!(!cursor.is_at_entry()),
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_none_panics() {
    let seed = std::env::var("CALAMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("CALAMUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (store, tree) = sound();
    assert!(store.report().is_clean());
    for _ in 0..150 {
        let mut bad = store.clone();
        let number = PageNumber(random.random_range(0..bad.page_count));
        // Headers and slots decide most, so they are hit more often than their share.
        let end = if random.random_bool(0.6) { PAGE_HEADER_BYTES + 60 } else { PAGE_BYTES };
        let (offset, bit) = (random.random_range(0..end), random.random_range(0..8));
        bad.page_mut(number).unwrap().bytes_mut()[offset] ^= 1 << bit;
        read_everything(&bad, &tree);
        let report = bad.report();
        let found = report.problems.iter().any(|problem| problem.page == number);
        assert!(found, "bit {bit} of byte {offset} of page {number}: {:?}", report.problems);
    }
}

#[test]
fn pages_of_noise_never_panic() {
    let seed = std::env::var("CALAMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(12);
    println!("CALAMUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (store, tree) = sound();
    for _ in 0..100 {
        let mut bad = store.clone();
        for _ in 0..random.random_range(1..40) {
            let number = PageNumber(random.random_range(0..bad.page_count));
            let (from, length) = (random.random_range(8..PAGE_BYTES), random.random_range(1..600));
            let kind = bad.page(number).unwrap().bytes()[8];
            let page = bad.page_mut(number).unwrap();
            page.bytes_mut()[from..(from + length).min(PAGE_BYTES)].fill_with(|| random.random());
            if random.random_bool(0.8) {
                page.bytes_mut()[8] = kind;
            }
        }
        read_everything(&bad, &tree);
        assert!(!bad.report().is_clean());
    }
}

/// Writing to damaged pages is for stores that verify pages at first touch; still it must not run wild.
#[test]
fn writing_into_damage_gives_errors() {
    let seed = std::env::var("CALAMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(13);
    println!("CALAMUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (store, tree) = sound();
    let root = tree.root.unwrap();
    for offset in (8..80).chain(PAGE_BYTES - 40..PAGE_BYTES) {
        let (mut bad, mut tree) = (store.clone(), tree);
        bad.page_mut(root).unwrap().bytes_mut()[offset] ^= 1 << random.random_range(0..8);
        for number in (0..KEYS).step_by(97) {
            only_damage(insert(&mut bad, &mut tree, &key(number), &[1; 700], TxnId(2)));
        }
    }
}

#[test]
fn a_tree_of_impossible_height_is_damage() {
    let (store, mut tree) = sound();
    tree.height = MAX_HEIGHT as u8 + 1;
    assert!(only_damage(get(&store, &tree, &key(1))).is_none());
    assert!(only_damage(Cursor::new(&store, tree).seek(&key(1))).is_none());
    tree.height = 1;
    assert!(only_damage(get(&store, &tree, &key(1))).is_none());
}

#[test]
fn damage_names_the_page() {
    let (mut store, tree) = sound();
    let root = tree.root.unwrap();
    store.page_mut(root).unwrap().bytes_mut()[8] = 5;
    let Err(error) = get(&store, &tree, &key(1)) else { panic!("damage was not seen") };
    let offset = u64::from(root.0) * PAGE_BYTES as u64;
    let text = format!("data is damaged at byte {offset}: page {root}: not a branch where the tree has one");
    assert_eq!(error.to_string(), text);
}

/// A state whose counts are lower than what the tree has: whatever takes something out says so in the end.
#[test]
fn counts_that_are_too_low_are_damage_when_they_run_out() {
    let (sound_store, tree) = sound();
    let low = TreeState { entries: 1, pages: 1, ..tree };
    let fails = |what: &str, work: &dyn Fn(&mut TestStore, &mut TreeState) -> Result<(), ReadError>| {
        let (mut store, mut tree) = (sound_store.clone(), low);
        assert!(only_damage(work(&mut store, &mut tree)).is_none(), "{what}: the counts ran out unnoticed");
    };
    fails("remove", &|store, tree| (0..KEYS).try_for_each(|number| remove(store, tree, &key(number)).map(drop)));
    fails("remove a range", &|store, tree| {
        let keys: BTreeSet<Vec<u8>> = (0..KEYS).map(key).collect();
        let (first, last) = (keys.first().expect("keys"), keys.last().expect("keys"));
        remove_range(store, tree, Bound::Excluded(first), Bound::Excluded(last)).map(drop)
    });
    fails("replace by less", &|store, tree| {
        (0..KEYS).try_for_each(|number| insert(store, tree, &key(number), b"", TxnId(2)).map(drop))
    });
    fails("destroy", &|store, tree| destroy(store, tree));
}
