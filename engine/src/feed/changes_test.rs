//! Each kind of operation comes out as it went in, wherever its value stands in the frame.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Change, ChangeKind, FrameChanges, KeyBounds};
use crate::Batch;
use crate::engine::rig_test::{commit, create};
use crate::env::{Disk, SimDisk};
use crate::ids::TxnId;
use crate::journal::frame::{Frame, FrameKind, Payload};

type Put = (&'static [u8], Vec<u8>);

/// What `work` becomes, as one transaction.
fn changes_of(before: impl FnOnce(&mut Batch), work: impl FnOnce(&mut Batch)) -> FrameChanges {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let engine = create(&disk, Path::new("/node"), 1);
    commit(&engine, before);
    FrameChanges::decode(commit(&engine, work).expect("it changes something")).expect("a record of our own")
}

fn make_trees(batch: &mut Batch) {
    assert!(batch.create_tree("t").expect("fits") && batch.create_multi_tree("m").expect("fits"));
    for key in [b"a", b"b", b"c", b"d"] {
        batch.put("t", key, b"old").expect("fits");
        assert!(batch.add("m", key, b"1").expect("fits") && batch.add("m", key, b"2").expect("fits"));
    }
}

fn kinds(changes: &FrameChanges) -> Vec<(&str, &ChangeKind)> {
    changes.all().iter().map(|Change { tree, kind, .. }| (&*changes.trees()[usize::from(*tree)], kind)).collect()
}

fn bounds(start: Bound<&'static [u8]>, end: Bound<&'static [u8]>) -> KeyBounds {
    KeyBounds { start: start.map(Bytes::from_static), end: end.map(Bytes::from_static) }
}

#[test]
fn values_come_from_wherever_they_stand() {
    let large = |seed: u8, length: usize| (0..length).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect::<Vec<_>>();
    // Overwritten in the batch: inline. In a leaf: a span. In pages of its own: a run, of which 8,176 bytes fill one page.
    let puts: Vec<Put> = vec![
        (b"again", large(1, 20_000)),
        (b"again", b"short".to_vec()),
        (b"empty", Vec::new()),
        (b"leaf", large(2, 300)),
        (b"run", large(3, 40_000)),
        (b"one page", large(4, 8_176)),
        (b"one page and a byte", large(5, 8_177)),
        (b"large", large(6, 300 << 10)),
    ];
    let changes = changes_of(make_trees, |batch| {
        for (key, value) in &puts {
            batch.put("t", key, value).expect("fits");
        }
    });
    let found: Vec<(Bytes, Bytes)> = kinds(&changes)
        .into_iter()
        .map(|(tree, kind)| match kind {
            ChangeKind::Put { key, value } if tree == "t" => {
                assert_eq!(value.len(), value.to_bytes().len());
                (key.clone(), value.to_bytes())
            }
            other => panic!("{other:?} in {tree}"),
        })
        .collect();
    let expected: Vec<(Bytes, Bytes)> = puts.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    assert!(found == expected, "{:?}", found.iter().map(|(key, value)| (key, value.len())).collect::<Vec<_>>());
    assert!(changes.all().iter().all(|change| change.txn == TxnId(2)));
}

#[test]
fn what_takes_away_says_what_and_with_which_bounds() {
    use Bound::{Excluded, Included, Unbounded};
    let changes = changes_of(make_trees, |batch| {
        assert!(batch.delete("t", b"a").expect("fits").is_some());
        assert!(batch.delete("t", b"nothing").expect("fits").is_none());
        assert_eq!(batch.delete_range("t", Excluded(b"a"), Included(b"b")).expect("fits"), 1);
        assert_eq!(batch.delete_range("t", Included(b"c"), Excluded(b"d")).expect("fits"), 1);
        assert_eq!(batch.delete_range("t", Unbounded, Unbounded).expect("fits"), 1);
        assert!(batch.remove_value("m", b"a", b"1").expect("fits"));
        assert!(batch.add("m", b"a", b"3").expect("fits"));
        assert_eq!(batch.remove_values("m", b"b", Excluded(b"1"), Unbounded).expect("fits"), 1);
        assert!(batch.delete("m", b"c").expect("fits").is_some());
    });
    let found = kinds(&changes);
    let range = |start, end| ChangeKind::DeleteRange { range: bounds(start, end) };
    assert_eq!(found[0], ("t", &ChangeKind::Delete { key: Bytes::from_static(b"a") }));
    assert_eq!(found[1], ("t", &range(Excluded(b"a"), Included(b"b"))));
    assert_eq!(found[2], ("t", &range(Included(b"c"), Excluded(b"d"))));
    assert_eq!(found[3], ("t", &range(Included(b""), Unbounded)));
    let value = |kind: &ChangeKind| match kind {
        ChangeKind::RemoveValue { key, value } => (true, key.clone(), value.to_bytes()),
        ChangeKind::AddValue { key, value } => (false, key.clone(), value.to_bytes()),
        other => panic!("{other:?}"),
    };
    assert_eq!(value(found[4].1), (true, "a".into(), "1".into()));
    assert_eq!(value(found[5].1), (false, "a".into(), "3".into()));
    let values = bounds(Excluded(b"1"), Unbounded);
    assert_eq!(found[6], ("m", &ChangeKind::RemoveValues { key: "b".into(), range: values }));
    assert_eq!(found[7], ("m", &ChangeKind::Delete { key: "c".into() }));
    assert_eq!(found.len(), 8);
}

#[test]
fn trees_come_and_go_under_their_names() {
    let changes = changes_of(make_trees, |batch| {
        assert!(batch.rename_tree("t", "u").expect("fits"));
        assert!(batch.create_tree("t").expect("fits"));
        assert!(batch.drop_tree("m").expect("fits"));
        assert!(batch.create_multi_tree("n").expect("fits"));
    });
    let renamed = ChangeKind::RenameTree { new_name: "u".into() };
    let (plain, multi) = (ChangeKind::CreateTree { multi: false }, ChangeKind::CreateTree { multi: true });
    let expected = [("t", &renamed), ("t", &plain), ("m", &ChangeKind::DropTree), ("n", &multi)];
    assert_eq!(kinds(&changes), expected);
}

#[test]
fn bytes_that_are_no_record_are_refused_and_never_a_panic() {
    let good = changes_of(make_trees, |batch| {
        batch.put("t", b"run", &[7; 20_000]).expect("fits");
        batch.delete_range("t", Bound::Unbounded, Bound::Excluded(b"c")).expect("fits");
        batch.remove_values("m", b"a", Bound::Unbounded, Bound::Included(b"1")).expect("fits");
        batch.rename_tree("t", "u").expect("fits");
    });
    let bytes = good.frame().payload().bytes().to_vec();
    let decode = |bytes: Vec<u8>| {
        let payload = Payload::new(bytes.into());
        FrameChanges::decode(Frame::encode(FrameKind::Record, good.frame().log_id(), None, 0, payload))
    };
    // The operations stand at the end: each byte of them and of what is before, changed to the extremes.
    let (mut refused, from) = (0, bytes.len() - 400);
    for at in (0..104).chain(from..bytes.len()) {
        for to in [0, 1, 0x7f, 0xff] {
            let mut bad = bytes.clone();
            bad[at] = to;
            if let Ok(changes) = decode(bad) {
                for change in changes.all() {
                    if let ChangeKind::Put { value, .. } = &change.kind {
                        assert_eq!(value.to_bytes().len(), value.len());
                    }
                }
            } else {
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
