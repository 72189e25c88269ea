//! Reserved values and trees dropped in parts, and what their records say.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::ops::{OperationKind, ValueAt};
use super::record::Record;
use super::{Batch, BatchError, DropProgress, Staged};
use crate::btree::MAX_VALUE_BYTES;
use crate::database::Database;
use crate::engine::{Engine, EngineOptions};
use crate::env::{Disk, SimDisk};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};

fn database() -> (Arc<dyn Disk>, Database) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let database = open(&disk);
    database.write(|txn| txn.create_tree("t")).unwrap();
    (disk, database)
}

fn open(disk: &Arc<dyn Disk>) -> Database {
    let options = EngineOptions { background: false, ..EngineOptions::default() };
    Database::open_with(disk.clone(), Path::new("/node"), options).unwrap()
}

/// Seals what `work` did, without committing it.
fn sealed(engine: &Engine, work: impl FnOnce(&mut Batch) -> Result<(), BatchError>) -> Staged {
    let mut batch = engine.begin_batch().unwrap();
    batch.begin_txn();
    work(&mut batch).unwrap();
    batch.commit_txn();
    batch.seal(1).unwrap().expect("it changed something")
}

/// The values of the puts in a record, in order.
fn values(staged: &Staged) -> Vec<Vec<u8>> {
    let bytes = staged.payload.bytes();
    let record = Record::decode(bytes).unwrap();
    let puts = record.operations.iter().filter(|operation| operation.kind == OperationKind::Put);
    let value = |value: &ValueAt| match *value {
        ValueAt::None => panic!("a put has a value"),
        ValueAt::Inline(ref bytes) => bytes.clone(),
        ValueAt::Span(start, length) => bytes[start as usize..(start + length) as usize].to_vec(),
        ValueAt::Run(start, length) => {
            let pages = bytes[start as usize..].chunks(PAGE_BYTES);
            let mut value: Vec<u8> = pages.flat_map(|page| &page[PAGE_HEADER_BYTES..]).copied().collect();
            value.truncate(length as usize);
            value
        }
    };
    puts.map(|put| value(&put.value)).collect()
}

fn pattern(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251 + salt) as u8).collect()
}

#[test]
fn reserved_values_are_filled_where_they_stand() {
    for length in [0, 1, 100, 2_000, 2_100, 8_175, 8_176, 8_177, 100_000, 1 << 20] {
        let (disk, database) = database();
        // A new value, one over a longer one, over a shorter one, and over one as long.
        for (salt, before) in [None, Some(length + 30_000), Some(length / 2), Some(length)].into_iter().enumerate() {
            let version = before.map(|length| database.write(|txn| txn.put("t", b"k", &pattern(length, 99)).map(drop)));
            let expected = pattern(length, salt);
            database
                .write(|txn| {
                    let mut value = txn.put_reserved("t", b"k", length)?;
                    assert_eq!(value.previous(), version.as_ref().and_then(|version| version.as_ref().unwrap().txn_id));
                    for part in expected.chunks(10_000) {
                        value.write_all(part).unwrap();
                    }
                    assert_eq!(value.remaining(), 0);
                    assert_eq!(value.write(b"more").unwrap(), 0);
                    Ok(())
                })
                .unwrap();
            let read = database.read().get("t", b"k").unwrap().unwrap().value.to_vec().unwrap();
            assert!(read == expected, "{length} bytes after {before:?}");
            database.write(|txn| txn.delete("t", b"k").map(drop)).unwrap();
        }
        drop(database);
        assert!(open(&disk).read().get("t", b"k").unwrap().is_none());
    }
}

/// Also where other bytes stood before.
#[test]
fn what_is_not_filled_is_zero() {
    for length in [50, 1_999, 60_000] {
        let (disk, database) = database();
        database.write(|txn| txn.put("t", b"k", &vec![0xff; length]).map(drop)).unwrap();
        database
            .write(|txn| {
                let mut value = txn.put_reserved("t", b"k", length)?;
                value.advance(7);
                let chunk = value.chunk()?;
                assert!(chunk.iter().all(|byte| *byte == 0));
                chunk[..3].copy_from_slice(b"abc");
                value.advance(3);
                assert_eq!(value.remaining(), length - 10);
                Ok(())
            })
            .unwrap();
        let mut expected = vec![0; length];
        expected[7..10].copy_from_slice(b"abc");
        let check = |database: &Database| {
            assert!(database.read().get("t", b"k").unwrap().unwrap().value.to_vec().unwrap() == expected);
        };
        check(&database);
        database.engine().checkpoint().unwrap();
        drop(database);
        check(&open(&disk));
    }
}

#[test]
fn the_record_holds_reserved_values_whole() {
    let (_, database) = database();
    let engine = database.engine();
    let (short, long) = (pattern(300, 1), pattern(50_000, 2));
    database.write(|txn| txn.put("t", b"long", &pattern(50_000, 3)).map(drop)).unwrap();
    let staged = sealed(engine, |batch| {
        for (key, value) in [(&b"short"[..], &short), (b"long", &long), (b"new", &long)] {
            batch.put_reserved("t", key, value.len())?.write_all(value).unwrap();
        }
        batch.put_reserved("t", b"empty", 10)?;
        Ok(())
    });
    assert!(values(&staged) == [short.clone(), long.clone(), long.clone(), vec![0; 10]]);
    engine.drop_staged();

    // One that is overwritten in the same batch keeps what was filled in.
    let staged = sealed(engine, |batch| {
        batch.put_reserved("t", b"long", long.len())?.write_all(&long).unwrap();
        batch.put("t", b"long", &short)?;
        Ok(())
    });
    assert!(values(&staged) == [long.clone(), short.clone()]);
    engine.drop_staged();
    // And what is undone is as it was.
    let mut batch = engine.begin_batch().unwrap();
    batch.begin_txn();
    batch.put_reserved("t", b"long", long.len()).unwrap().write_all(&long).unwrap();
    batch.rollback_txn();
    assert!(batch.get("t", b"long").unwrap().unwrap().value.to_vec().unwrap() == pattern(50_000, 3));
}

#[test]
fn what_cannot_be_reserved_is_refused() {
    let (_, database) = database();
    let mut batch = database.engine().begin_batch().unwrap();
    batch.begin_txn();
    assert!(matches!(batch.put_reserved("t", b"", 1), Err(BatchError::KeyLength(0))));
    let length = MAX_VALUE_BYTES + 1;
    assert!(
        matches!(batch.put_reserved("t", b"k", length), Err(BatchError::ValueLength(refused)) if refused == length)
    );
    assert!(matches!(batch.put_reserved("no", b"k", 1), Err(BatchError::NoSuchTree(_))));
}

fn filled(entries: usize) -> (Arc<dyn Disk>, Database) {
    let (disk, database) = database();
    database
        .write(|txn| {
            (0..entries).try_for_each(|number| {
                let length = if number % 10 == 0 { 20_000 } else { 500 };
                txn.put("t", format!("{number:05}").as_bytes(), &vec![number as u8; length]).map(drop)
            })
        })
        .unwrap();
    (disk, database)
}

#[test]
fn a_tree_is_dropped_in_parts() {
    let (disk, database) = filled(2_000);
    let pages = |database: &Database| database.engine().status().page_count;
    let (mut parts, mut left) = (0, pages(&database));
    assert!(left > 700);
    loop {
        let mut progress = DropProgress::NoSuchTree;
        database
            .write(|txn| {
                progress = txn.drop_tree_part("t", 50)?;
                Ok(())
            })
            .unwrap();
        parts += 1;
        if progress == DropProgress::Dropped {
            break;
        }
        assert_eq!(progress, DropProgress::More);
        let status = database.engine().status();
        let in_use = status.page_count - status.free_pages.unwrap();
        // A leaf has up to 16 entries, two of which own three pages.
        assert!((left - 60..=left - 40).contains(&in_use), "part {parts}: {in_use} pages of {left}");
        left = in_use;
        // What is left is the tree's end.
        let snapshot = database.read();
        let mut cursor = snapshot.cursor("t").unwrap().unwrap();
        assert!(
            cursor.last().unwrap()
                && cursor.key() == b"01999"
                && cursor.first().unwrap()
                && cursor.key() > &b"00000"[..]
        );
    }
    assert!((10..=20).contains(&parts), "{parts} parts");
    assert!(database.read().cursor("t").unwrap().is_none());
    assert!(pages(&database) < 10, "{} pages", pages(&database));
    database.engine().checkpoint().unwrap();
    drop(database);
    assert!(open(&disk).read().cursor("t").unwrap().is_none());
}

#[test]
fn a_part_that_is_all_of_it_drops_the_tree() {
    let (_, database) = filled(100);
    let part = |tree: &str, pages| {
        let mut progress = None;
        database.write(|txn| txn.drop_tree_part(tree, pages).map(|now| progress = Some(now))).unwrap();
        progress.unwrap()
    };
    assert_eq!(part("t", 0), DropProgress::More, "no pages stand for one");
    assert_eq!(part("t", u64::MAX), DropProgress::Dropped);
    assert_eq!(part("t", 10), DropProgress::NoSuchTree);
    database.write(|txn| txn.create_tree("empty")).unwrap();
    assert_eq!(part("empty", 10), DropProgress::Dropped);
}

/// Values that the same batch put are in the record, although a part of the drop took them.
#[test]
fn a_part_keeps_the_values_of_its_batch() {
    let (_, database) = filled(100);
    let staged = sealed(database.engine(), |batch| {
        batch.put("t", b"00000", b"new")?;
        assert_eq!(batch.drop_tree_part("t", 5)?, DropProgress::More);
        Ok(())
    });
    assert_eq!(values(&staged), [b"new"]);
    let record = Record::decode(staged.payload.bytes()).unwrap();
    let kinds: Vec<_> = record.operations.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds, [OperationKind::Put, OperationKind::DeleteRange]);
}
