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
    golden[10..28].copy_from_slice(b"\x02\0\xd4\x1f\0\0\xec\x1fkey\0\xd4\x1flong");
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
    golden[10..28].copy_from_slice(b"\x02\0\xf3\x1f\0\0\xfa\x1f\0\0\0\0\xf3\x1fm\0\0\0");
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
    assert_eq!(changed, [10, 14, 22, 24]);
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
    let cell = Cell::leaf(b"i", TxnId(1), Payload::Inline(&[b'x'; 1024]));
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
    let changed = (58..PAGE_BYTES).filter(|at| page.bytes()[*at] != before.bytes()[*at]).count();
    assert!(changed <= 1003, "{changed} bytes of cells changed");
}

/// Keys that only their cells tell apart, those that end where others have zeros, and those shorter than a head.
#[test]
fn heads_never_decide_more_than_they_know() {
    let sorted: [&[u8]; 12] = [
        b"\0",
        b"\0\0",
        b"\0\0\0\0",
        b"\0\0\0\0\0",
        b"a",
        b"a\0",
        b"a\0\0\0\0",
        b"aaaa",
        b"aaaa\0",
        b"aaaab",
        b"aaab",
        b"b",
    ];
    let (mut leaf, mut branch) = (Page::zeroed(), Page::zeroed());
    node_mut::format(&mut leaf, 0);
    node_mut::format(&mut branch, 1);
    node_mut::append(&mut branch, &Cell::branch(&[], PageNumber(100))).unwrap();
    for (child, key) in (0..).zip(sorted).step_by(2) {
        node_mut::append(&mut leaf, &Cell::leaf(key, TxnId(1), Payload::Inline(b"v"))).unwrap();
        node_mut::append(&mut branch, &Cell::branch(key, PageNumber(child))).unwrap();
    }
    let (leaf, branch) = (Node::leaf(&leaf).unwrap(), Node::branch(&branch).unwrap());
    for (index, key) in sorted.iter().enumerate() {
        let place = index.div_ceil(2);
        assert_eq!(leaf.find(key), Ok(if index % 2 == 0 { Ok(place) } else { Err(place) }), "{key:?}");
        assert_eq!(branch.child_slot(key), Ok(index / 2 + 1), "{key:?}");
    }
    assert_eq!((leaf.find(b""), branch.child_slot(b"")), (Ok(Err(0)), Ok(0)));
}

#[test]
fn a_key_that_changes_in_its_place_changes_its_head() {
    let mut page = Page::zeroed();
    node_mut::format(&mut page, 1);
    for (child, key) in (1..).zip([b"" as &[u8], b"ccc", b"eee", b"ggg"]) {
        node_mut::append(&mut page, &Cell::branch(key, PageNumber(child))).unwrap();
    }
    assert!(node_mut::replace(&mut page, 2, &Cell::branch(b"f", PageNumber(9))).unwrap());
    node_mut::remove_children(&mut page, 0..1).unwrap();
    let node = Node::branch(&page).unwrap();
    assert_eq!((0..3).map(|slot| node.head(slot)).collect::<Vec<_>>(), [*b"\0\0\0\0", *b"f\0\0\0", *b"ggg\0"]);
    assert_eq!((node.child_slot(b"eee"), node.child_slot(b"f")), (Ok(0), Ok(1)));
}

#[test]
fn separators_are_short() {
    assert_eq!(separator(b"apple", b"banana"), b"b");
    assert_eq!(separator(b"abc", b"abd"), b"abd");
    assert_eq!(separator(b"ab", b"abc"), b"abc");
    assert_eq!(separator(b"ab", b"abcd"), b"abc");
}
