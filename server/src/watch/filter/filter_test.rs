//! What watchers are told of a frame, by what they asked for.

use calamus_engine::{Batch, Database, TxnId};

use super::*;

/// The frames of what each of `txns` does, and where a reader of all of them begins.
fn frames(txns: &[&dyn Fn(&mut Batch)]) -> Vec<(FrameChanges, usize)> {
    let temp = tempfile::tempdir().unwrap();
    let database = Database::open(temp.path()).unwrap();
    for txn in txns {
        database
            .write(|batch| {
                txn(batch);
                Ok(())
            })
            .unwrap();
    }
    let mut place = database.engine().feed_after(TxnId(0)).unwrap();
    let frames = database.engine().committed_frames(&place, usize::MAX).unwrap();
    let decoded = frames.into_iter().map(|frame| FrameChanges::decode(frame).unwrap());
    decoded.map(|frame| (place.take(&frame).unwrap().len(), frame)).map(|(new, frame)| (frame, new)).collect()
}

fn filter(tree: &str, prefix: &str) -> Filter {
    let range = calamus_proto::v1::Range { prefix: prefix.to_owned().into(), ..Default::default() };
    let tree = Some(tree.to_owned()).filter(|tree| !tree.is_empty());
    let range = KeyRange::from_message(Some(&range)).unwrap();
    Filter { tree, range, keys_only: false, include_system: false }
}

fn told(filter: &Filter, frames: &[(FrameChanges, usize)]) -> Vec<WatchTransaction> {
    let mut stands_at = 0;
    let mut told = Vec::new();
    for (frame, new) in frames {
        told.extend(filter.messages(frame, frame.last(*new), stands_at));
        stands_at = told.last().map_or(0, |message: &WatchTransaction| message.txn_id);
    }
    told
}

/// Tree, and kind in short, of all changes.
fn short(told: &[WatchTransaction]) -> Vec<String> {
    let changes = told.iter().flat_map(|txn| txn.changes.iter().map(move |change| (txn, change)));
    changes
        .map(|(txn, change)| {
            let tree = &txn.trees[change.tree as usize];
            let what = match change.kind.as_ref().unwrap() {
                Kind::Put(put) => format!("put {}={}", put.key.escape_ascii(), put.value.len()),
                Kind::Delete(delete) => format!("delete {}", delete.key.escape_ascii()),
                Kind::DeleteRange(_) => "delete range".to_owned(),
                Kind::TreeCreated(_) => "created".to_owned(),
                Kind::TreeDropped(_) => "dropped".to_owned(),
                Kind::TreeRenamed(renamed) => format!("renamed {}", renamed.new_name),
                other => format!("{other:?}"),
            };
            format!("{} {tree} {what}", txn.txn_id)
        })
        .collect()
}

fn workload() -> Vec<(FrameChanges, usize)> {
    frames(&[
        &|batch| {
            batch.create_tree("a").unwrap();
            batch.create_tree("$system").unwrap();
            batch.put("a", b"x1", b"1").unwrap();
            batch.put("a", b"y1", b"22").unwrap();
            batch.put("$system", b"x1", b"333").unwrap();
        },
        &|batch| {
            batch.create_tree("b").unwrap();
            batch.put("b", b"x2", b"1").unwrap();
        },
        &|batch| batch.delete_range("a", Bound::Included(b"y"), Bound::Excluded(b"z")).map(|_| ()).unwrap(),
        &|batch| {
            batch.rename_tree("a", "c").unwrap();
            batch.drop_tree("b").unwrap();
        },
        &|batch| batch.delete("c", b"x1").map(|_| ()).unwrap(),
    ])
}

#[test]
fn a_watch_is_of_a_name_and_of_keys() {
    let frames = workload();
    let of = |tree, prefix| short(&told(&filter(tree, prefix), &frames));
    assert_eq!(of("a", "x"), ["1 a created", "1 a put x1=1", "4 a renamed c"]);
    assert_eq!(of("a", "y"), ["1 a created", "1 a put y1=2", "3 a delete range", "4 a renamed c"]);
    assert_eq!(of("c", ""), ["4 a renamed c", "5 c delete x1"]);
    assert_eq!(of("b", ""), ["2 b created", "2 b put x2=1", "4 b dropped"]);
    assert_eq!(of("none", ""), [""; 0]);
    assert_eq!(of("", "x").len(), 7, "all trees, but for the system's");
    let all = Filter { include_system: true, keys_only: true, ..filter("", "") };
    let system: Vec<String> = short(&told(&all, &frames)).into_iter().filter(|line| line.contains('$')).collect();
    assert_eq!(system, ["1 $system created", "1 $system put x1=0"]);
}

#[test]
fn each_transaction_says_which_one_the_watcher_had_before() {
    let told = told(&filter("a", ""), &workload());
    let steps: Vec<(u64, u64)> = told.iter().map(|txn| (txn.follows, txn.txn_id)).collect();
    assert_eq!(steps, [(0, 1), (1, 3), (3, 4)]);
    assert!(told.iter().all(|txn| txn.wall_time_micros > 0 && !txn.more));
}

#[test]
fn a_transaction_that_fits_no_message_goes_on_in_the_next() {
    let frames = frames(&[&|batch| {
        batch.create_tree("a").unwrap();
        batch.create_tree("b").unwrap();
        for key in 0..40 {
            batch.put(["a", "b"][key as usize % 2], &[key], &[key; 100]).unwrap();
        }
    }]);
    let (filter, (frame, new)) = (filter("", ""), &frames[0]);
    let wanted: Vec<&Change> = frame.last(*new).iter().collect();
    let mut parts = Vec::new();
    let begun = WatchTransaction { txn_id: 1, ..WatchTransaction::default() };
    filter.fill(begun, &wanted, frame, 500, &mut parts);
    assert!(parts.len() > 5 && parts.iter().rev().skip(1).all(|part| part.more) && !parts.last().unwrap().more);
    assert!(parts.iter().all(|part| part.encoded_len() < 700));
    let whole = filter.messages(frame, frame.last(*new), 0);
    assert_eq!(whole.len(), 1);
    assert_eq!(short(&parts), short(&whole));
}

/// The most changes that a record of 16 MiB may hold, and the largest values, fit into a message.
#[test]
fn the_largest_transactions_fit_into_one_message() {
    type Case<'c> = (&'c dyn Fn(&mut Batch), usize);
    let large: Vec<Case<'_>> = vec![
        (&|batch| batch.put("a", b"k", &vec![7; 8 << 20]).map(drop).unwrap(), 1),
        (
            &|batch| {
                for key in 0..100_u32 {
                    batch.put("a", &key.to_be_bytes(), &vec![7; 150 << 10]).unwrap();
                }
            },
            100,
        ),
        (
            &|batch| {
                for key in 0..150_000_u32 {
                    batch.put("a", &key.to_be_bytes(), b"").unwrap();
                }
            },
            150_000,
        ),
    ];
    for (work, count) in large {
        let frames = frames(&[&|batch| batch.create_tree("a").map(|_| ()).unwrap(), work]);
        let told = told(&filter("a", ""), &frames);
        assert_eq!(told.len(), 2, "{count} changes: one message a transaction");
        assert_eq!(told[1].changes.len(), count);
        assert!(told[1].encoded_len() < MAX_MESSAGE_BYTES);
    }
}
