//! A leader that executes and a follower that decodes, against a plain map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use super::rig_test::{append, catch_up, check, commit_later, contents, create, data_bytes, frame_of, options};
use super::{Engine, EngineOptions};
use crate::env::{Disk, RealDisk};
use crate::store::{Applied, Published};
use crate::txn::Batch;

#[derive(Clone, Debug)]
enum Step {
    /// Transactions of one batch: key, value length (`None` deletes), whether the transaction is rolled back.
    Batch(Vec<Vec<(u8, Option<usize>, bool)>>),
    DeleteRange(u8, u8),
    DropTree,
    Stage,
    DropStaged,
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![6 => 0..300_usize, 2 => 1_900..2_200_usize, 1 => 8_000..60_000_usize];
    let change = (any::<u8>(), prop::option::weighted(0.8, length), prop::bool::weighted(0.1));
    prop_oneof![
        12 => prop::collection::vec(prop::collection::vec(change, 1..6), 1..5).prop_map(Step::Batch),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::DeleteRange(a.min(b), a.max(b))),
        1 => Just(Step::DropTree),
        2 => Just(Step::Stage),
        1 => Just(Step::DropStaged),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

fn key(number: u8) -> Vec<u8> {
    let mut key = vec![number; 1 + usize::from(number) * 3];
    key[0] = number;
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A leader that executes and a follower that decodes, against a plain map: contents, digests and files agree.
    #[test]
    fn leader_and_follower_agree_with_a_map(steps in prop::collection::vec(step(), 1..40), split in 20..80_u8) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let (leader_home, follower_home) = (home.path().join("leader"), home.path().join("follower"));
        let planted = EngineOptions { split_percent: split, ..options() };
        drop(create(&disk, &leader_home, 1));
        let (mut leader, _) = Engine::open(disk.clone(), &leader_home, planted).expect("opens");
        let mut follower = create(&disk, &follower_home, 2);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut pin = None;
        for (number, step) in steps.into_iter().enumerate() {
            let before = model.clone();
            let mut frame = None;
            match step {
                Step::Batch(txns) => {
                    let mut batch = leader.begin_batch().expect("memory");
                    for txn in txns {
                        run_txn(&mut batch, &mut model, txn, number);
                    }
                    if let Some(staged) = batch.seal(number as u64).expect("fits") {
                        frame = Some(frame_of(&leader, &staged));
                    }
                }
                Step::DeleteRange(from, to) => frame = commit_later(&leader, |batch| {
                    batch.create_tree("t").expect("works");
                    let (from, to) = (key(from), key(to));
                    let deleted = batch.delete_range("t", Bound::Included(&from), Bound::Excluded(&to)).expect("works");
                    let size = model.len();
                    model.retain(|k, _| !(from <= *k && *k < to));
                    assert_eq!(deleted, (size - model.len()) as u64);
                }),
                Step::DropTree => frame = commit_later(&leader, |batch| {
                    batch.drop_tree("t").expect("works");
                    model.clear();
                }),
                Step::Stage => {
                    let mut batch = leader.begin_batch().expect("memory");
                    run_txn(&mut batch, &mut before.clone(), vec![(1, Some(20_000), false)], number);
                    batch.seal(0).expect("fits");
                    leader.drop_staged();
                }
                Step::DropStaged => leader.drop_staged(),
                Step::Checkpoint => {
                    leader.checkpoint().expect("works");
                    follower.checkpoint().expect("works");
                }
                Step::Reopen => {
                    drop(pin.take());
                    drop(leader);
                    drop(follower);
                    leader = Engine::open(disk.clone(), &leader_home, planted).expect("opens").0;
                    follower = Engine::open(disk.clone(), &follower_home, options()).expect("opens").0;
                    catch_up(&leader);
                    catch_up(&follower);
                }
            }
            if let Some(frame) = frame {
                append(&leader, vec![frame.clone()]);
                append(&follower, vec![frame.clone()]);
                leader.apply(&frame).expect("applies");
                let how = follower.apply(&frame).expect("applies");
                let decoded = matches!(how, Applied::Record { how: Published::Decoded, .. });
                prop_assert!(decoded, "{:?}", how);
            }
            if number % 5 == 0 {
                pin = Some((follower.read(), model.clone()));
            }
            if let Some((read, then)) = &pin {
                prop_assert_eq!(snapshot(read), then.clone());
            }
        }
        prop_assert_eq!(contents(&leader, "t"), model.clone());
        prop_assert_eq!(contents(&follower, "t"), model);
        prop_assert_eq!(leader.applied().digest, follower.applied().digest);
        prop_assert_eq!(follower.status().tree_mutations, 0);
        check(&leader);
        check(&follower);
        drop(pin);
        leader.checkpoint().expect("works");
        follower.checkpoint().expect("works");
        prop_assert!(data_bytes(&leader_home) == data_bytes(&follower_home), "the data files differ");
    }
}

fn snapshot(read: &crate::txn::ReadTxn) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Some(mut cursor) = read.cursor("t").expect("readable") else { return found };
    let mut there = cursor.last().expect("readable");
    while there {
        found.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("readable"));
        there = cursor.previous().expect("readable");
    }
    found
}

fn run_txn(
    batch: &mut Batch,
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    changes: Vec<(u8, Option<usize>, bool)>,
    mark: usize,
) {
    let version = batch.begin_txn();
    let mut after = model.clone();
    let roll_back = changes[0].2;
    batch.create_tree("t").expect("works");
    for (number, length, _) in changes {
        let key = key(number);
        match length {
            Some(length) => {
                let value = vec![u8::try_from(mark % 251).expect("small"); length];
                let previous = batch.put("t", &key, &value).expect("fits");
                assert_eq!(previous.is_some(), after.insert(key.clone(), value).is_some());
                assert_eq!(batch.get("t", &key).expect("readable").expect("just put").version, version);
            }
            None => {
                let previous = batch.delete("t", &key).expect("works");
                assert_eq!(previous.is_some(), after.remove(&key).is_some());
            }
        }
    }
    if roll_back {
        batch.rollback_txn();
    } else {
        batch.commit_txn();
        *model = after;
    }
}
