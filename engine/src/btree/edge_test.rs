//! Appending makes the pages that inserting makes, whatever else is done to the tree between.

use proptest::prelude::*;

use super::test_store::TestStore;
use super::{Appended, Edge, TreeState, append, get, insert, insert_minding, remove};
use crate::ids::TxnId;

#[derive(Clone, Debug)]
enum Step {
    /// Puts keys from so far above the last one on, each with a value of so many bytes.
    Ascending {
        above: u16,
        count: u8,
        value_bytes: usize,
    },
    Put {
        key: u16,
        value_bytes: usize,
    },
    Remove {
        key: u16,
    },
}

fn value_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..400_usize, 1 => 1_500..2_500_usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..40_u16, 1..60_u8, value_bytes())
            .prop_map(|(above, count, value_bytes)| Step::Ascending { above, count, value_bytes }),
        2 => (any::<u16>(), value_bytes()).prop_map(|(key, value_bytes)| Step::Put { key, value_bytes }),
        2 => any::<u16>().prop_map(|key| Step::Remove { key }),
    ]
}

/// A tree to which keys are appended where that can be, and one to which they are only inserted.
struct Pair {
    appended: (TestStore, TreeState, Edge),
    inserted: (TestStore, TreeState),
    appends: u32,
    last: u32,
}

impl Pair {
    fn put(&mut self, key: u32, value_bytes: usize) {
        let (name, value) = (key.to_be_bytes(), vec![key as u8; value_bytes]);
        let (store, tree, edge) = &mut self.appended;
        match append(store, tree, edge, &name, &value, TxnId(1)).unwrap() {
            Appended::Done => self.appends += 1,
            Appended::NoRoom => {
                assert!(key > self.last, "{key} is said to be above all, and {} is there", self.last);
                assert_eq!(insert_minding(store, tree, edge, &name, &value, TxnId(1)).unwrap(), None);
            }
            Appended::NotAtEdge => drop(insert_minding(store, tree, edge, &name, &value, TxnId(1)).unwrap()),
        }
        let (store, tree) = &mut self.inserted;
        insert(store, tree, &name, &value, TxnId(1)).unwrap();
        self.last = self.last.max(key);
    }

    /// Forgets the edge, as everybody does who changes a tree in another way.
    fn remove(&mut self, key: u32) {
        let (store, tree, edge) = &mut self.appended;
        *edge = Edge::default();
        let gone = remove(store, tree, &key.to_be_bytes()).unwrap();
        let (store, tree) = &mut self.inserted;
        assert_eq!(remove(store, tree, &key.to_be_bytes()).unwrap(), gone);
    }
}

proptest! {
    #[test]
    fn appending_makes_the_same_pages(steps in prop::collection::vec(step(), 1..60)) {
        let new = || (TestStore::new(), TreeState::default());
        let ((store, tree), inserted) = (new(), new());
        let mut pair = Pair { appended: (store, tree, Edge::default()), inserted, appends: 0, last: 0 };
        for step in steps {
            match step {
                Step::Ascending { above, count, value_bytes } => {
                    let first = pair.last + u32::from(above);
                    (0..u32::from(count)).for_each(|index| pair.put(first + index * 3, value_bytes));
                }
                Step::Put { key, value_bytes } => pair.put(u32::from(key) % (pair.last + 2), value_bytes),
                Step::Remove { key } => pair.remove(u32::from(key) % (pair.last + 2)),
            }
        }
        let ((store, tree, _), (other, other_tree)) = (&pair.appended, &pair.inserted);
        prop_assert_eq!(tree, other_tree);
        prop_assert_eq!(store.changed_since(other), (0, 0));
        prop_assert_eq!(store.mutations, other.mutations);
        store.assert_sound(&[("t", *tree)]);
    }
}

#[test]
fn keys_in_order_are_appended() {
    let (store, tree) = (TestStore::new(), TreeState::default());
    let mut pair =
        Pair { appended: (store, tree, Edge::default()), inserted: (TestStore::new(), tree), appends: 0, last: 0 };
    (1..=10_000).for_each(|key| pair.put(key, 100));
    let (store, tree, edge) = &mut pair.appended;
    assert!(pair.appends > 9_500, "{} of 10,000: all but the first of each leaf", pair.appends);
    // What is not above all others is none of its business, and changes nothing.
    let before = store.clone();
    for key in [10_000_u32, 9_999, 1] {
        let none = append(store, tree, edge, &key.to_be_bytes(), b"v", TxnId(2)).unwrap();
        assert_eq!(none, Appended::NotAtEdge);
    }
    let long = vec![7; 3_000];
    assert_eq!(append(store, tree, edge, &20_000_u32.to_be_bytes(), &long, TxnId(2)).unwrap(), Appended::NoRoom);
    assert_eq!(store.changed_since(&before), (0, 0));
    assert!(get(store, tree, &20_000_u32.to_be_bytes()).unwrap().is_none());
}
