//! Each kind of problem, planted, is found and named.

use crate::btree::test_store::TestStore;
use crate::btree::{PageSource, PageStore, TreeState, insert};
use crate::ids::{Digest, PageNumber, TxnId};
use crate::page::superblock::Superblock;
use crate::page::{Page, PageKind, checksum};

/// A sealed state with two trees, and the states of those.
fn sound() -> (TestStore, TreeState, TreeState) {
    let (mut store, mut first, mut second) = (TestStore::new(), TreeState::default(), TreeState::default());
    for key in 0..500_u32 {
        insert(&mut store, &mut first, &key.to_be_bytes(), &[1; 200], TxnId(5)).unwrap();
        insert(&mut store, &mut second, &key.to_be_bytes(), &[2; 3000], TxnId(6)).unwrap();
    }
    for key in 0..100_u32 {
        crate::btree::remove(&mut store, &mut second, &key.to_be_bytes()).unwrap();
    }
    (store.sealed(&[("first", first), ("second", second)]), first, second)
}

/// Changes a page, with a checksum that fits again.
fn change(store: &mut TestStore, number: PageNumber, apply: impl FnOnce(&mut Page)) {
    let page = store.page_mut(number).unwrap();
    apply(page);
    checksum::seal(number, page);
}

fn change_superblock(store: &mut TestStore, apply: impl FnOnce(&mut Superblock)) {
    change(store, PageNumber(0), |page| {
        let mut superblock = Superblock::decode(page).unwrap();
        apply(&mut superblock);
        superblock.encode(page);
    });
}

#[track_caller]
fn assert_found(store: &TestStore, page: PageNumber, what: &str) {
    let report = store.report();
    let found = report.problems.iter().any(|problem| problem.page == page && problem.what.contains(what));
    assert!(found, "page {page}, {what:?}, is not among {:#?}", report.problems);
}

#[test]
fn a_sound_state_is_clean_and_counted() {
    let (store, first, second) = sound();
    let mut steps = 0;
    let report = crate::verify::check_pages(&store, &mut |_| steps += 1).unwrap();
    assert!(report.is_clean() && steps > 2);
    assert_eq!((report.trees, report.entries), (2, first.entries + second.entries));
    assert_eq!(u64::from(report.allocated_pages), 2 + first.pages + second.pages + 1);
    assert!(report.free_pages > 0);
    assert_eq!(report.allocated_pages + report.free_pages, store.page_count);
    let mut digest = Digest::default();
    for number in (0..store.page_count).map(PageNumber) {
        digest = digest.replace(number, 0, store.page(number).unwrap().checksum());
    }
    assert_eq!(report.digest, digest);
}

#[test]
fn a_superblock_that_is_none_ends_the_check() {
    let (mut store, ..) = sound();
    change(&mut store, PageNumber(0), |page| page.bytes_mut()[16] ^= 1);
    assert_found(&store, PageNumber(0), "wrong magic");
    assert!(store.report().superblock.is_none());
}

#[test]
fn a_page_lost_and_a_page_taken_twice() {
    let (mut store, first, _) = sound();
    let lost = store.allocate(1).unwrap();
    change(&mut store, lost, |page| page.set_kind(PageKind::Leaf));
    change(&mut store, PageNumber(1), |_| ());
    let count = store.page_count;
    change_superblock(&mut store, |superblock| superblock.page_count = count);
    assert_found(&store, lost, "reached from nowhere");

    let (mut store, ..) = sound();
    let root = first.root.unwrap();
    let children = {
        let page = store.page(root).unwrap();
        let node = crate::btree::node::Node::branch(&page).unwrap();
        (node.child(1).unwrap(), node.child(2).unwrap())
    };
    change(&mut store, root, |page| crate::btree::node_mut::set_child(page, 2, children.0).unwrap());
    assert_found(&store, children.0, "more than one place");
    assert_found(&store, children.1, "reached from nowhere");
}

#[test]
fn bitmaps_and_trees_disagree() {
    let (mut store, first, _) = sound();
    let root = first.root.unwrap();
    change(&mut store, PageNumber(1), |page| page.bytes_mut()[16 + root.0 as usize / 8] ^= 1 << (root.0 % 8));
    assert_found(&store, root, "is not allocated");
    assert_found(&store, root, "free, but not zero");
}

#[test]
fn a_free_page_with_a_byte() {
    let (mut store, ..) = sound();
    let free = (2..store.page_count).map(PageNumber).find(|number| store.page(*number).unwrap().is_zero()).unwrap();
    store.page_mut(free).unwrap().bytes_mut()[4000] = 1;
    assert_found(&store, free, "free, but not zero");
}

#[test]
fn an_allocated_page_of_zeros() {
    let (mut store, first, _) = sound();
    *store.page_mut(first.root.unwrap()).unwrap() = (*Page::zeroed()).clone();
    assert_found(&store, first.root.unwrap(), "checksum");
}

#[test]
fn wrong_counts_and_versions() {
    let (store, mut first, second) = sound();
    first.entries += 1;
    let mut wrong = TestStore::new();
    wrong.pages = store.pages.clone();
    (wrong.allocator, wrong.page_count) = (store.allocator.clone(), store.page_count);
    let wrong = wrong.sealed(&[("first", first), ("second", second)]);
    assert_found(&wrong, first.root.unwrap(), "tree \"first\": the tree has 500 entries");

    let (mut store, ..) = sound();
    change_superblock(&mut store, |superblock| superblock.txn_id = TxnId(5));
    let report = store.report();
    assert!(report.problems.iter().any(|problem| problem.what.contains("newer than the state's 5")));
}

#[test]
fn keys_out_of_order_and_out_of_bounds() {
    let (mut store, first, _) = sound();
    let leaf = {
        let page = store.page(first.root.unwrap()).unwrap();
        crate::btree::node::Node::branch(&page).unwrap().child(1).unwrap()
    };
    let offset = {
        let page = store.page(leaf).unwrap();
        crate::btree::node::Node::leaf(&page).unwrap().offset(0).unwrap()
    };
    let sound_store = store.clone();
    change(&mut store, leaf, |page| page.bytes_mut()[16..28].rotate_left(6));
    assert_found(&store, leaf, "keys out of order");
    let mut store = sound_store.clone();
    change(&mut store, leaf, |page| {
        page.bytes_mut()[offset + 12..offset + 16].fill(0);
        page.bytes_mut()[18..22].fill(0);
    });
    assert_found(&store, leaf, "outside the bounds");
    let mut store = sound_store;
    change(&mut store, leaf, |page| page.bytes_mut()[21] ^= 1);
    assert_found(&store, leaf, "head is not that of its key");
}
