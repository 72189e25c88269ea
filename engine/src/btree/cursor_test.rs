//! Where a cursor stands after each of its moves.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::test_store::TestStore;
use super::{Cursor, PageRef, PageSource, ReadError, TreeState, insert};
use crate::ids::{PageNumber, TxnId};
use crate::page::Page;

/// Shows the pages of a store, most of them at hand, and notes which were asked for.
struct Watched<'s> {
    store: &'s TestStore,
    at_hand: fn(PageNumber) -> bool,
    read: Mutex<BTreeSet<PageNumber>>,
    looked_at: Mutex<BTreeSet<PageNumber>>,
}

impl PageSource for Watched<'_> {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.read.lock().insert(number);
        self.store.page(number)
    }

    fn page_at_hand(&self, number: PageNumber) -> Option<&Page> {
        self.looked_at.lock().insert(number);
        match self.store.page(number) {
            Ok(PageRef::Mapped(page)) if (self.at_hand)(number) => Some(page),
            _ => None,
        }
    }
}

/// Looking ahead changes nothing of what a walk meets, and reads no page that the walk does not come to.
#[test]
fn looking_ahead_reads_nothing() {
    let (store, tree) = tree(3_000);
    for at_hand in [|_| true, |number: PageNumber| !number.0.is_multiple_of(3), |_| false] {
        let watched = Watched { store: &store, at_hand, read: Mutex::default(), looked_at: Mutex::default() };
        let (mut cursor, mut plain) = (Cursor::new(&watched, tree), Cursor::new(&store, tree));
        let mut there = cursor.first().unwrap();
        assert!(there && plain.first().unwrap());
        assert_eq!(watched.read.lock().len(), usize::from(tree.height), "one path");
        while there {
            assert_eq!(cursor.key(), plain.key());
            there = cursor.next().unwrap();
            assert_eq!(there, plain.next().unwrap());
        }
        let all = watched.read.lock().len();
        assert_eq!(all as u64, tree.pages, "each page of the tree");
        assert!(watched.looked_at.lock().len() > all / 2 || !at_hand(PageNumber(3)), "leaves were looked ahead to");
        for entry in 0..3_000 {
            assert!(cursor.previous().unwrap() && plain.previous().unwrap(), "{entry}");
            assert_eq!(cursor.key(), plain.key());
        }
        assert!(!cursor.previous().unwrap());
    }
}

/// Keys 10, 20, ... as four digits, with enough of them for several levels.
fn tree(count: u32) -> (TestStore, TreeState) {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    for key in (1..=count).map(|key| format!("{:06}", key * 10)) {
        insert(&mut store, &mut tree, key.as_bytes(), &[b'v'; 300], TxnId(1)).unwrap();
    }
    (store, tree)
}

#[test]
fn an_empty_tree_has_no_entries() {
    let store = TestStore::new();
    let mut cursor = Cursor::new(&store, TreeState::default());
    assert!(!cursor.first().unwrap() && !cursor.last().unwrap());
    assert!(!cursor.seek(b"a").unwrap() && !cursor.seek_back(b"a").unwrap());
    assert!(!cursor.next().unwrap() && !cursor.previous().unwrap() && !cursor.is_at_entry());
}

#[test]
fn a_new_cursor_starts_at_either_end() {
    let (store, tree) = tree(500);
    let mut cursor = Cursor::new(&store, tree);
    assert!(cursor.next().unwrap());
    assert_eq!(cursor.key(), b"000010");
    let mut cursor = Cursor::new(&store, tree);
    assert!(cursor.previous().unwrap());
    assert_eq!(cursor.key(), b"005000");
}

#[test]
fn a_cursor_that_ran_off_comes_back() {
    let (store, tree) = tree(500);
    let mut cursor = Cursor::new(&store, tree);
    assert!(cursor.last().unwrap());
    assert!(!cursor.next().unwrap() && !cursor.next().unwrap() && !cursor.is_at_entry());
    assert!(cursor.previous().unwrap());
    assert_eq!(cursor.key(), b"005000");
    assert!(cursor.first().unwrap());
    assert!(!cursor.previous().unwrap() && !cursor.previous().unwrap());
    assert!(cursor.next().unwrap());
    assert_eq!(cursor.key(), b"000010");
}

#[test]
fn a_cursor_turns_round_at_every_entry() {
    let (store, tree) = tree(700);
    assert!(tree.height >= 2);
    let mut cursor = Cursor::new(&store, tree);
    for key in 1..700_u32 {
        assert!(cursor.seek(format!("{:06}", key * 10).as_bytes()).unwrap());
        assert!(cursor.next().unwrap());
        assert_eq!(cursor.key(), format!("{:06}", key * 10 + 10).as_bytes());
        assert!(cursor.previous().unwrap());
        assert_eq!(cursor.key(), format!("{:06}", key * 10).as_bytes());
    }
}

#[test]
fn seeking_between_beyond_and_before() {
    let (store, tree) = tree(700);
    let mut cursor = Cursor::new(&store, tree);
    for key in 1..700_u32 {
        let between = format!("{:06}", key * 10 + 5);
        assert!(cursor.seek(between.as_bytes()).unwrap());
        assert_eq!(cursor.key(), format!("{:06}", key * 10 + 10).as_bytes());
        assert!(cursor.seek_back(between.as_bytes()).unwrap());
        assert_eq!(cursor.key(), format!("{:06}", key * 10).as_bytes());
    }
    assert!(!cursor.seek(b"1").unwrap());
    assert!(cursor.previous().unwrap() && cursor.key() == b"007000");
    assert!(!cursor.seek_back(b"0").unwrap());
    assert!(cursor.next().unwrap() && cursor.key() == b"000010");
    assert!(cursor.seek(b"").unwrap() && cursor.key() == b"000010");
}

#[test]
#[should_panic(expected = "stands at no entry")]
fn nowhere_is_no_key() {
    let (store, tree) = tree(1);
    let _ = Cursor::new(&store, tree).key();
}
