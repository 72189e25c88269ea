//! The layout of tree pages, byte for byte.

use super::node::{Node, Payload, separator};
use super::node_mut::{self, Cell};
use super::test_store::TestStore;
use super::{PageSource, TreeState, insert, remove};
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, Page};

#[test]
fn golden_leaf() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    insert(&mut store, &mut tree, b"key", b"value", TxnId(0x0102_0304_0506_0708)).unwrap();
    insert(&mut store, &mut tree, b"long", &[7; 3000], TxnId(2)).unwrap();
    let root = tree.root.unwrap();
    assert_eq!((root, tree.pages), (PageNumber(2), 2));
    let page = store.page(root).unwrap();
    let mut golden = [0; PAGE_BYTES];
    golden[8] = 3;
    // Two slots; cells from 8148 on; nothing dead. Slot 0 at 8172, slot 1 at 8148.
    golden[10..20].copy_from_slice(&[2, 0, 0xd4, 0x1f, 0, 0, 0xec, 0x1f, 0xd4, 0x1f]);
    golden[8172..8192].copy_from_slice(b"\x03\0\x05\0\x08\x07\x06\x05\x04\x03\x02\x01keyvalue");
    golden[8148..8164].copy_from_slice(b"\x04\x80\x08\0\x02\0\0\0\0\0\0\0long");
    golden[8164..8172].copy_from_slice(&[3, 0, 0, 0, 0xb8, 0x0b, 0, 0]);
    assert_eq!(page.bytes()[..], golden[..]);
    let run = store.page(PageNumber(3)).unwrap();
    assert_eq!(run.bytes()[8..16], [5, 0, 0, 0, 0, 0, 0, 0]);
    assert!(run.bytes()[16..3016].iter().all(|byte| *byte == 7) && run.bytes()[3016..].iter().all(|byte| *byte == 0));
}

#[test]
fn golden_branch() {
    let mut page = Page::zeroed();
    node_mut::format(&mut page, 1);
    node_mut::append(&mut page, &Cell::branch(&[], PageNumber(5))).unwrap();
    node_mut::append(&mut page, &Cell::branch(b"m", PageNumber(0x0102_0304))).unwrap();
    let mut golden = [0; PAGE_BYTES];
    golden[8] = 4;
    golden[10..20].copy_from_slice(&[2, 0, 0xf3, 0x1f, 0, 0, 0xfa, 0x1f, 0xf3, 0x1f]);
    golden[8186..8192].copy_from_slice(&[0, 0, 5, 0, 0, 0]);
    golden[8179..8186].copy_from_slice(&[1, 0, 4, 3, 2, 1, b'm']);
    assert_eq!(page.bytes()[..], golden[..]);
    let node = Node::branch(&page).unwrap();
    assert_eq!((node.child_slot(b"l"), node.child_slot(b"m"), node.child_slot(b"")), (Ok(0), Ok(1), Ok(0)));
}

#[test]
fn a_cell_that_goes_leaves_its_bytes() {
    let (mut store, mut tree) = (TestStore::new(), TreeState::default());
    for key in [b"a", b"b", b"c"] {
        insert(&mut store, &mut tree, key, b"0123456789", TxnId(1)).unwrap();
    }
    let before = store.clone();
    remove(&mut store, &mut tree, b"b").unwrap();
    // The slots move up by one, the count and the dead bytes change; the cell's 23 bytes stay.
    let page = store.page(tree.root.unwrap()).unwrap();
    let old = before.page(tree.root.unwrap()).unwrap();
    let changed: Vec<usize> = (0..PAGE_BYTES).filter(|at| page.bytes()[*at] != old.bytes()[*at]).collect();
    assert_eq!(changed, [10, 14, 18]);
    assert_eq!(Node::leaf(&page).unwrap().dead_bytes(), 23);
}

fn filled() -> Box<Page> {
    let mut page = Page::zeroed();
    node_mut::format(&mut page, 0);
    for key in [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"] {
        node_mut::append(&mut page, &Cell::leaf(key, TxnId(1), Payload::Inline(&[b'x'; 1000]))).unwrap();
    }
    page
}

fn keys(page: &Page) -> Vec<u8> {
    let node = Node::leaf(page).unwrap();
    (0..node.count()).flat_map(|slot| node.key(slot).unwrap().to_vec()).collect()
}

#[test]
fn compaction_keeps_what_stands_right() {
    let mut page = filled();
    let cell = Cell::leaf(b"i", TxnId(1), Payload::Inline(&[b'x'; 1030]));
    assert!(!node_mut::insert(&mut page, 8, &cell).unwrap(), "no room");
    node_mut::remove(&mut page, 4..5).unwrap();
    let before = page.clone();
    assert!(node_mut::insert(&mut page, 7, &cell).unwrap());
    assert_eq!(keys(&page), b"abcdfghi");
    assert_eq!(Node::leaf(&page).unwrap().dead_bytes(), 0);
    // The first four stood right.
    assert_eq!(page.bytes()[PAGE_BYTES - 4 * 1013..], before.bytes()[PAGE_BYTES - 4 * 1013..]);
}

#[test]
fn a_hole_is_filled_before_anything_moves() {
    let mut page = filled();
    node_mut::remove(&mut page, 4..5).unwrap();
    node_mut::remove(&mut page, 2..3).unwrap();
    let before = page.clone();
    assert!(node_mut::insert(&mut page, 0, &Cell::leaf(b"A", TxnId(1), Payload::Inline(&[b'y'; 990]))).unwrap());
    assert_eq!(keys(&page), b"Aabdfgh");
    assert_eq!(Node::leaf(&page).unwrap().dead_bytes(), 1013 + 10);
    let changed = (32..PAGE_BYTES).filter(|at| page.bytes()[*at] != before.bytes()[*at]).count();
    assert!(changed <= 1003, "{changed} bytes of cells changed");
}

#[test]
fn separators_are_short() {
    assert_eq!(separator(b"apple", b"banana"), b"b");
    assert_eq!(separator(b"abc", b"abd"), b"abd");
    assert_eq!(separator(b"ab", b"abc"), b"abc");
    assert_eq!(separator(b"ab", b"abcd"), b"abc");
}
