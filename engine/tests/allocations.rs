//! Reads allocate nothing: neither a warm get, nor a scan, nor to open a read transaction and to drop it.

#![allow(unsafe_code, reason = "an allocator that counts is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use calamus_engine::{Database, ReadTxn};

/// The system's allocator, and how often each thread asked it.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came, and what that returns is returned. Counting allocates
// nothing: the counter is initialised where it is declared, and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of `alloc`, which is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller has `pointer` from `alloc` or `realloc` above, so from the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as for `dealloc`; the caller keeps to the contract of `realloc`, which is this one's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

const KEYS: u32 = 5_000;

/// Values of a few bytes, and now and then one of several pages.
fn fill(database: &Database) {
    let put = |txn: &mut calamus_engine::Batch, key: u32| {
        let length = if key.is_multiple_of(500) { 50_000 } else { 100 };
        txn.put("t", &key.to_be_bytes(), &vec![key as u8; length]).map(drop)
    };
    database.write(|txn| txn.create_tree("t")).expect("committed");
    for first in (0..KEYS).step_by(1_000) {
        database.write(|txn| (first..first + 1_000).try_for_each(|key| put(txn, key))).expect("committed");
    }
}

fn get_all(snapshot: &ReadTxn) -> usize {
    let read = |key: u32| {
        let entry = snapshot.get("t", &key.to_be_bytes()).expect("readable").expect("there");
        entry.value.chunks().map(|chunk| chunk.expect("readable").len()).sum::<usize>()
    };
    (0..KEYS).map(read).sum()
}

fn scan(snapshot: &ReadTxn) -> usize {
    let mut cursor = snapshot.cursor("t").expect("readable").expect("there");
    let mut bytes = 0;
    while cursor.next().expect("readable") {
        bytes += cursor.key().len() + cursor.value().len();
    }
    while cursor.previous().expect("readable") {
        bytes += cursor.key().len() + cursor.value().len();
    }
    bytes
}

fn nothing_is_allocated(database: &Database, what: &str) {
    let snapshot = database.read();
    // Once, to touch every page, and so that this thread has had a reader.
    let expected = (get_all(&snapshot), scan(&snapshot));
    let mut found = (0, 0);
    assert_eq!(allocations(|| found.0 = get_all(&snapshot)), 0, "{what}: gets");
    assert_eq!(allocations(|| found.1 = scan(&snapshot)), 0, "{what}: scan");
    assert_eq!(found, expected);
    drop(database.read());
    let open = || (0..1_000).for_each(|_| drop(database.read()));
    assert_eq!(allocations(open), 0, "{what}: opening and dropping a reader");
    assert_eq!(allocations(|| drop(snapshot.clone())), 0, "{what}: a clone");
}

#[test]
fn reads_allocate_nothing() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))) > 0, "the allocator counts");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(directory.path()).expect("a new database");
    fill(&database);
    nothing_is_allocated(&database, "pages in memory");
    database.engine().checkpoint().expect("works");
    nothing_is_allocated(&database, "pages in the map of the data file");
}
