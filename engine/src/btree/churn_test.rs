//! How full pages are after random changes, for all kinds of habits. Without joining before splits and dividing among
//! siblings, the worst of these leave them half empty.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::BODY_BYTES;
use super::test_store::TestStore;
use super::{TreeState, insert, remove};
use crate::ids::TxnId;

/// The chances, in percent, that an operation removes an entry, and that it puts a new one; else it replaces a value.
#[derive(Clone, Copy)]
struct Habits {
    remove: u32,
    put: u32,
    /// From and below.
    value_bytes: (usize, usize),
    operations: usize,
}

/// How full the pages are of a tree that 5,000 entries were put into, and then changed.
fn fill(habits: Habits, seed: u64) -> f64 {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    let mut entries: Vec<([u8; 16], usize)> = Vec::new();
    for index in 0..5_000 + habits.operations {
        let dice = if index < 5_000 { habits.remove } else { random.random_range(0..100) };
        let at = random.random_range(0..entries.len().max(1));
        if dice < habits.remove {
            let (key, _) = entries.swap_remove(at);
            assert!(remove(&mut store, &mut tree, &key).unwrap().is_some());
            continue;
        }
        let is_new = index < 5_000 || dice < habits.remove + habits.put;
        let length = random.random_range(habits.value_bytes.0..habits.value_bytes.1);
        let at = if is_new {
            entries.push((random.random(), length));
            entries.len() - 1
        } else {
            entries[at].1 = length;
            at
        };
        insert(&mut store, &mut tree, &entries[at].0, &vec![1; length], TxnId(1)).unwrap();
    }
    store.assert_sound(&[("t", tree)]);
    let used: usize = entries.iter().map(|(_, length)| 2 + 12 + 16 + length).sum();
    used as f64 / (tree.pages as f64 * BODY_BYTES as f64)
}

#[test]
fn pages_stay_full_enough_under_random_changes() {
    let habits = Habits { remove: 25, put: 25, value_bytes: (256, 257), operations: 50_000 };
    let all = [
        ("puts alone", Habits { operations: 0, ..habits }),
        ("as many removals as puts", habits),
        ("updates of any length", Habits { remove: 0, put: 0, value_bytes: (0, 512), ..habits }),
        ("everything, of any length", Habits { value_bytes: (0, 512), ..habits }),
        ("removals alone", Habits { remove: 100, operations: 4_000, ..habits }),
        ("more removals than puts", Habits { remove: 40, put: 20, operations: 20_000, ..habits }),
    ];
    for (name, habits) in all {
        let fill = fill(habits, 1);
        println!("{name}: {:.1} % full", fill * 100.0);
        assert!(fill > 0.68, "{name}: {fill:.3}");
    }
}
