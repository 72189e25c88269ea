//! A write cursor against a map, with writes through it and beside it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, BatchError, WriteCursor};
use crate::engine::rig_test::{commit, contents, create};
use crate::env::{Disk, RealDisk};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    First,
    Last,
    Seek(u16),
    SeekBack(u16),
    Next,
    Previous,
    Put(u8, usize),
    Delete,
    PutBeside(u16, usize),
    DeleteBeside(u16),
    DeleteRangeBeside(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::First),
        1 => Just(Step::Last),
        3 => (0..400_u16).prop_map(Step::Seek),
        3 => (0..400_u16).prop_map(Step::SeekBack),
        12 => Just(Step::Next),
        12 => Just(Step::Previous),
        6 => (any::<u8>(), 0..3_000_usize).prop_map(|(byte, bytes)| Step::Put(byte, bytes)),
        8 => Just(Step::Delete),
        6 => (0..400_u16, 0..600_usize).prop_map(|(key, bytes)| Step::PutBeside(key, bytes)),
        4 => (0..400_u16).prop_map(Step::DeleteBeside),
        1 => (0..400_u16, 0..60_u16).prop_map(|(key, count)| Step::DeleteRangeBeside(key, count)),
    ]
}

/// Where the cursor must stand, by the map.
#[derive(Clone, Debug, PartialEq)]
enum Standing {
    Nowhere,
    At(Vec<u8>),
    BeforeFirst,
    BehindLast,
}

fn key_of(key: u16) -> Vec<u8> {
    key.to_be_bytes().to_vec()
}

fn above<'m>(map: &'m Map, key: Bound<&[u8]>) -> Option<&'m Vec<u8>> {
    map.range::<[u8], _>((key, Bound::Unbounded)).next().map(|(key, _)| key)
}

fn below<'m>(map: &'m Map, key: Bound<&[u8]>) -> Option<&'m Vec<u8>> {
    map.range::<[u8], _>((Bound::Unbounded, key)).next_back().map(|(key, _)| key)
}

/// Moves the model; where it then stands.
fn moved(map: &Map, standing: &Standing, step: &Step) -> Standing {
    let ahead = |key: Option<&Vec<u8>>| key.cloned().map_or(Standing::BehindLast, Standing::At);
    let back = |key: Option<&Vec<u8>>| key.cloned().map_or(Standing::BeforeFirst, Standing::At);
    match (step, standing) {
        (Step::First, _) | (Step::Next, Standing::Nowhere | Standing::BeforeFirst) => ahead(map.keys().next()),
        (Step::Last, _) | (Step::Previous, Standing::Nowhere | Standing::BehindLast) => back(map.keys().next_back()),
        (Step::Seek(key), _) => ahead(above(map, Bound::Included(&key_of(*key)))),
        (Step::SeekBack(key), _) => back(below(map, Bound::Included(&key_of(*key)))),
        (Step::Next, Standing::At(key)) => ahead(above(map, Bound::Excluded(key))),
        (Step::Previous, Standing::At(key)) => back(below(map, Bound::Excluded(key))),
        (_, standing) => standing.clone(),
    }
}

fn take(cursor: &mut WriteCursor<'_>, map: &mut Map, standing: &mut Standing, step: &Step) -> Result<(), BatchError> {
    *standing = moved(map, standing, step);
    let there = match step {
        Step::First => Some(cursor.first()?),
        Step::Last => Some(cursor.last()?),
        Step::Seek(key) => Some(cursor.seek(&key_of(*key))?),
        Step::SeekBack(key) => Some(cursor.seek_back(&key_of(*key))?),
        Step::Next => Some(cursor.next()?),
        Step::Previous => Some(cursor.previous()?),
        Step::Put(byte, bytes) => {
            if let Standing::At(key) = &*standing {
                let value = vec![*byte; *bytes];
                let replaced = cursor.put(&value)?.is_some();
                assert_eq!(replaced, map.insert(key.clone(), value).is_some());
            }
            None
        }
        Step::Delete => {
            let deleted = cursor.delete()?.is_some();
            let there = if let Standing::At(key) = &*standing { map.remove(key).is_some() } else { false };
            assert_eq!(deleted, there);
            None
        }
        Step::PutBeside(key, bytes) => {
            cursor.batch().put("t", &key_of(*key), &vec![9; *bytes])?;
            map.insert(key_of(*key), vec![9; *bytes]);
            None
        }
        Step::DeleteBeside(key) => {
            let deleted = cursor.batch().delete("t", &key_of(*key))?.is_some();
            assert_eq!(deleted, map.remove(&key_of(*key)).is_some());
            None
        }
        Step::DeleteRangeBeside(key, count) => {
            let (start, end) = (key_of(*key), key_of(key + count));
            let counted = cursor.batch().count_range("t", Bound::Included(&start), Bound::Excluded(&end))?;
            let gone = cursor.batch().delete_range("t", Bound::Included(&start), Bound::Excluded(&end))?;
            let before = map.len();
            map.retain(|key, _| *key < start || *key >= end);
            assert_eq!((counted, gone), (gone, (before - map.len()) as u64));
            None
        }
    };
    let at = if let Standing::At(key) = &*standing { Some(key.as_slice()) } else { None };
    assert_eq!(cursor.key(), at);
    assert!(there.is_none_or(|there| there == at.is_some()));
    let found = cursor.entry()?.map(|entry| entry.value.to_vec()).transpose()?;
    assert_eq!(found.as_ref(), at.and_then(|key| map.get(key)));
    Ok(())
}

fn filled(batch: &mut Batch, map: &mut Map) {
    batch.create_tree("t").unwrap();
    for key in (0..400_u16).step_by(2) {
        batch.put("t", &key_of(key), &[7; 150]).unwrap();
        map.insert(key_of(key), vec![7; 150]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_write_cursor_agrees_with_a_map(steps in prop::collection::vec(step(), 1..120)) {
        let home = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let engine = create(&disk, home.path(), 1);
        let mut map = Map::new();
        commit(&engine, |batch| {
            filled(batch, &mut map);
            let (mut cursor, mut standing) = (batch.cursor_mut("t").unwrap(), Standing::Nowhere);
            for step in &steps {
                take(&mut cursor, &mut map, &mut standing, step).unwrap();
            }
        });
        assert_eq!(contents(&engine, "t"), map);
    }
}

#[test]
fn deleting_while_walking_meets_each_entry_once() {
    for back in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let engine = create(&disk, home.path(), 1);
        let mut map = Map::new();
        commit(&engine, |batch| {
            filled(batch, &mut map);
            let mut cursor = batch.cursor_mut("t").unwrap();
            let mut met = Vec::new();
            let step = |cursor: &mut WriteCursor<'_>| if back { cursor.previous() } else { cursor.next() };
            while step(&mut cursor).unwrap() {
                met.push(cursor.key().unwrap().to_vec());
                assert!(cursor.delete().unwrap().is_some());
                assert!(cursor.delete().unwrap().is_none() && cursor.entry().unwrap().is_none());
            }
            let mut expected: Vec<_> = map.keys().cloned().collect();
            if back {
                expected.reverse();
            }
            assert_eq!(met, expected);
        });
        assert!(contents(&engine, "t").is_empty());
    }
}

#[test]
fn there_is_no_write_cursor_over_a_tree_that_is_not_there() {
    let home = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let engine = create(&disk, home.path(), 1);
    commit(&engine, |batch| {
        assert!(matches!(batch.cursor_mut("t").err(), Some(BatchError::NoSuchTree(_))));
    });
}
