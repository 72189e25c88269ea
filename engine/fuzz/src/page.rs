//! Pages that are not what was written: superblock, bitmaps, leaves, branches, overflow pages.
//!
//! With sums that fit again, the pages are read by all that reads pages: it may say anything, but it ends, and reports
//! nothing but damage. (What changes trees takes them for sound, as pages are that were verified.) Without, they are a
//! data file, and the engine opens it: each page is verified at its first touch, so every answer is right or an error.

use std::sync::Arc;

use arbitrary::Arbitrary;
use calamus_engine::alloc::Allocator;
use calamus_engine::btree::{self, Cursor, PageRef, PageSource, ReadError, TreeKind, TreeState, Value};
use calamus_engine::error::StorageError;
use calamus_engine::ids::{PageNumber, TxnId};
use calamus_engine::page::superblock::Superblock;
use calamus_engine::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, checksum};
use calamus_engine::verify::check_pages;
use calamus_engine::{Database, Keys, ReadTxn, ValuesCursor};

use crate::damage::only_damage;
use crate::sound::{Sound, data_path, door, options, write_file};

/// What the superblock may say of the file's length here, in pages: a check looks at each of them.
const MAX_PAGE_COUNT: u32 = 1 << 12;
/// How many steps a cursor makes at most.
const MAX_STEPS: usize = 300;

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// What is changed.
    edits: Vec<Edit>,
    /// Whether the changed pages get checksums that fit.
    resealed: bool,
    /// Keys that are looked up.
    keys: Vec<Vec<u8>>,
}

/// A change to a page; numbers are taken modulo what there is.
#[derive(Arbitrary, Debug)]
enum Edit {
    Bytes {
        page: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    Byte {
        page: u8,
        at: u16,
        to: u8,
    },
    /// Kind and flags, and what a tree page says of itself.
    Header {
        page: u8,
        kind: u8,
        flags: u8,
        slots: u16,
        cells_start: u16,
        dead_bytes: u16,
    },
    Slot {
        page: u8,
        slot: u8,
        offset: u16,
        head: Option<[u8; 4]>,
    },
    /// Bytes of the cell that a slot points to.
    Cell {
        page: u8,
        slot: u8,
        at: u8,
        bytes: [u8; 8],
    },
    Copy {
        page: u8,
        from: u8,
    },
    Whole {
        page: u8,
        kind: u8,
        body: Vec<u8>,
    },
    /// Fields of page 0.
    Superblock {
        root: u32,
        height: u8,
        entries: u64,
        pages: u64,
        page_count: u16,
        txn_id: u64,
    },
}

/// Pages in memory.
struct Pages {
    pages: Vec<Arc<Page>>,
}

impl PageSource for Pages {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        match self.pages.get(number.0 as usize) {
            Some(page) => Ok(PageRef::Mapped(page)),
            None => Err(missing(number)),
        }
    }
}

fn missing(number: PageNumber) -> ReadError {
    let offset = u64::from(number.0) * PAGE_BYTES as u64;
    StorageError::corrupted("data", offset, format!("there is no page {number}")).into()
}

/// Runs an input.
pub fn run(input: &Input) {
    let sound = Sound::get();
    let mut pages = Pages { pages: sound.pages.clone() };
    for edit in &input.edits {
        let changed = apply(edit, &mut pages.pages);
        if input.resealed {
            checksum::seal(PageNumber(changed as u32), Arc::make_mut(&mut pages.pages[changed]));
        }
    }
    if input.resealed {
        read_all(&pages, &input.keys);
    } else {
        serve(sound, &pages);
    }
}

/// Where a slot of a tree page begins: an offset of two bytes and the head of a key.
fn slot_start(slot: u8) -> usize {
    PAGE_HEADER_BYTES + 6 * usize::from(slot)
}

/// Changes a page, and says which.
fn apply(edit: &Edit, pages: &mut [Arc<Page>]) -> usize {
    let count = pages.len();
    let place = |page: u8| usize::from(page) % count;
    match edit {
        Edit::Bytes { page, at, bytes } => put(pages, place(*page), usize::from(*at), bytes),
        Edit::Byte { page, at, to } => put(pages, place(*page), usize::from(*at), &[*to]),
        Edit::Header { page, kind, flags, slots, cells_start, dead_bytes } => {
            let mut header = vec![kind % 8, *flags];
            for field in [slots, cells_start, dead_bytes] {
                header.extend_from_slice(&field.to_le_bytes());
            }
            put(pages, place(*page), 8, &header)
        }
        Edit::Slot { page, slot, offset, head } => {
            let mut bytes = offset.to_le_bytes().to_vec();
            bytes.extend(head.iter().flatten());
            put(pages, place(*page), slot_start(*slot), &bytes)
        }
        Edit::Cell { page, slot, at, bytes } => {
            let page = place(*page);
            let slot = slot_start(*slot);
            let cell = u16::from_le_bytes([pages[page].bytes()[slot], pages[page].bytes()[slot + 1]]);
            put(pages, page, usize::from(cell) + usize::from(*at), bytes)
        }
        Edit::Copy { page, from } => {
            pages[place(*page)] = pages[place(*from)].clone();
            place(*page)
        }
        Edit::Whole { page, kind, body } => {
            pages[place(*page)] = Arc::from(Page::zeroed());
            put(pages, place(*page), 8, &[kind % 8]);
            put(pages, place(*page), 10, body)
        }
        Edit::Superblock { root, height, entries, pages: tree_pages, page_count, txn_id } => {
            if let Ok(superblock) = Superblock::decode(&pages[0]) {
                let trees = TreeState {
                    root: (*root != 0).then_some(PageNumber(*root)),
                    height: *height,
                    entries: *entries,
                    pages: *tree_pages,
                    ..TreeState::default()
                };
                let page_count = u32::from(*page_count).max(2);
                let changed = Superblock { trees, page_count, txn_id: TxnId(*txn_id), ..superblock };
                changed.encode(Arc::make_mut(&mut pages[0]));
            }
            0
        }
    }
}

fn put(pages: &mut [Arc<Page>], page: usize, at: usize, bytes: &[u8]) -> usize {
    let at = at % PAGE_BYTES;
    let end = PAGE_BYTES.min(at + bytes.len());
    Arc::make_mut(&mut pages[page]).bytes_mut()[at..end].copy_from_slice(&bytes[..end - at]);
    page
}

/// The trees that there are: those of the sound state, and what the pages say now.
fn trees(pages: &Pages) -> Vec<TreeState> {
    let sound = Sound::get();
    let before = Pages { pages: sound.pages.clone() };
    let mut trees = Vec::new();
    for source in [&before, pages] {
        let Ok(superblock) = Superblock::decode(&source.pages[0]) else { continue };
        trees.push(superblock.trees);
        let mut cursor = Cursor::new(source, superblock.trees);
        for _ in 0..MAX_STEPS {
            if only_damage(cursor.next()) != Some(true) {
                break;
            }
            let state = only_damage(cursor.value().to_vec());
            trees.extend(state.and_then(|bytes| TreeState::decode(&bytes)));
        }
    }
    trees.dedup();
    trees
}

fn read_value(value: Value<'_>) {
    let mut length = 0;
    for chunk in value.chunks() {
        let Some(chunk) = only_damage(chunk) else { return };
        length += chunk.len();
    }
    assert_eq!(length, value.len(), "a value is as long as it says");
    only_damage(value.load());
}

fn read_all(pages: &Pages, keys: &[Vec<u8>]) {
    if let Ok(superblock) = Superblock::decode(&pages.pages[0]) {
        if superblock.page_count <= MAX_PAGE_COUNT {
            check_pages(pages, &mut |_| ()).expect("damage is in the report");
        }
        only_damage(Allocator::load(pages, superblock.page_count));
    }
    for tree in trees(pages) {
        if tree.kind == TreeKind::Multi {
            read_many(pages, tree, keys);
            continue;
        }
        for key in keys {
            if let Some(Some(entry)) = only_damage(btree::get(pages, &tree, key)) {
                read_value(entry.value);
            }
            only_damage(btree::locate(pages, &tree, key));
            walk(pages, tree, key);
        }
        walk(pages, tree, &[]);
    }
}

/// A multi-value tree: the values of some keys, and of all.
fn read_many(pages: &Pages, tree: TreeState, keys: &[Vec<u8>]) {
    for key in keys {
        only_damage(btree::multi::contains(pages, &tree, b"tree", key));
        only_damage(btree::multi::count_values(pages, &tree, key));
        walk_values(ValuesCursor::new(pages, &tree, key), key);
        walk_values(ValuesCursor::new(pages, &tree, b"tree"), key);
    }
    let mut cursor = Keys::new(pages, tree);
    for _ in 0..MAX_STEPS {
        if only_damage(cursor.next()) != Some(true) {
            break;
        }
        walk_values(cursor.values(), cursor.key());
    }
}

fn walk_values(values: Result<ValuesCursor<'_, Pages>, ReadError>, from: &[u8]) {
    let Some(mut values) = only_damage(values) else { return };
    for forward in [true, false] {
        let mut there = if forward { values.seek(from) } else { values.seek_back(from) };
        for _ in 0..MAX_STEPS {
            if only_damage(there) != Some(true) {
                break;
            }
            assert!(!values.value().is_empty() && values.is_at_value());
            there = if forward { values.next() } else { values.previous() };
        }
    }
}

/// From a key on, forward and back.
fn walk(pages: &Pages, tree: TreeState, key: &[u8]) {
    let mut cursor = Cursor::new(pages, tree);
    for forward in [true, false] {
        let mut there = if forward { cursor.seek(key) } else { cursor.seek_back(key) };
        for _ in 0..MAX_STEPS {
            if only_damage(there) != Some(true) {
                break;
            }
            let _ = (cursor.key().len(), cursor.version());
            read_value(cursor.value());
            there = if forward { cursor.next() } else { cursor.previous() };
        }
    }
}

/// The engine over these pages as its data file.
fn serve(sound: &Sound, pages: &Pages) {
    let disk = sound.disk();
    let bytes: Vec<u8> = pages.pages.iter().flat_map(|page| *page.bytes()).collect();
    write_file(&disk, &data_path(), &bytes);
    let Ok(database) = Database::open_with(door(&disk), crate::sound::DIRECTORY.as_ref(), options()) else { return };
    let snapshot = database.read();
    serve_many(sound, &snapshot);
    for (tree, entries) in &sound.contents.plain {
        for (key, value) in entries {
            let Some(found) = only_damage(snapshot.get(tree, key)) else { continue };
            let found = found.unwrap_or_else(|| panic!("{key:?} is missing in {tree}"));
            if let Some(bytes) = only_damage(found.value.to_vec()) {
                assert!(bytes == *value, "{key:?} in {tree} has another value");
            }
        }
        let Some(Some(mut cursor)) = only_damage(snapshot.cursor(tree)) else { continue };
        let mut expected = entries.iter();
        while let Some(there) = only_damage(cursor.next()) {
            let entry = there.then(|| cursor.key().to_vec());
            assert_eq!(entry.as_ref(), expected.next().map(|(key, _)| key), "walking over {tree}");
            if !there {
                break;
            }
        }
    }
}

/// Values are right, or an error.
fn serve_many(sound: &Sound, snapshot: &ReadTxn) {
    for (tree, entries) in &sound.contents.many {
        for (key, expected) in entries {
            for value in expected.iter().step_by(17) {
                assert_ne!(
                    only_damage(snapshot.contains(tree, key, value)),
                    Some(false),
                    "{value:?} of {key:?} is missing"
                );
            }
            let Some(mut values) = only_damage(snapshot.values(tree, key)) else { continue };
            let mut expected = expected.iter();
            while let Some(there) = only_damage(values.next()) {
                let value = there.then(|| values.value().to_vec());
                assert_eq!(value.as_ref(), expected.next(), "walking over {key:?} of {tree}");
                if !there {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_pages_are_sound() {
        let report = check_pages(&Pages { pages: Sound::get().pages.clone() }, &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
        for resealed in [false, true] {
            run(&Input { edits: Vec::new(), resealed, keys: vec![b"key 00007".to_vec()] });
        }
    }

    /// A byte of each page by itself, with a sum that does not fit: what is not served is said to be damaged.
    #[test]
    fn a_changed_byte_is_damage() {
        for page in 0..Sound::get().pages.len() as u8 {
            for at in [0, 40] {
                let to = !Sound::get().pages[usize::from(page)].bytes()[usize::from(at)];
                run(&Input { edits: vec![Edit::Byte { page, at, to }], resealed: false, keys: Vec::new() });
            }
        }
    }

    /// Would wrong answers be seen? A page whose checksum fits its wrong content is served.
    #[test]
    #[should_panic(expected = "another value")]
    fn a_wrong_answer_is_found() {
        let sound = Sound::get();
        let mut pages = Pages { pages: sound.pages.clone() };
        let hit = pages.pages.iter().position(|page| page.bytes().windows(40).any(|part| part == [4; 40]));
        let number = hit.expect("a page with values of part 4");
        let at = pages.pages[number].bytes().windows(40).position(|part| part == [4; 40]).unwrap();
        apply(&Edit::Byte { page: number as u8, at: at as u16, to: 5 }, &mut pages.pages);
        checksum::seal(PageNumber(number as u32), Arc::make_mut(&mut pages.pages[number]));
        serve(sound, &pages);
    }
}
