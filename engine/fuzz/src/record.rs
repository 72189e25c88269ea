//! Records that no leader of ours made: bytes changed in a record, and records put together anew whose checksums and
//! digest fit, so that only their sense is wrong.
//!
//! A record is refused, or void, or applied. Whatever was applied can be read, checked and checkpointed, and found again
//! after the next opening: it may say that it is damaged, and never panics. An error of `apply` stops a node; nothing of
//! the record is visible then.

use std::path::Path;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use calamus_engine::btree::{PageSource, TreeKind, TreeState};
use calamus_engine::env::SimDisk;
use calamus_engine::ids::{Digest, LogId, LogIndex, PageNumber, TxnId};
use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use calamus_engine::page::superblock::Superblock;
use calamus_engine::page::{PAGE_BYTES, Page, checksum};
use calamus_engine::txn::BatchError;
use calamus_engine::txn::record::{RECORD_HEADER_BYTES, Record};
use calamus_engine::verify::check_pages;
use calamus_engine::{Applied, Batch, Database, Engine, ReadTxn};

use crate::damage::only_damage;
use crate::sound::{DIRECTORY, Sound, door, options};

/// What the superblock may say of the file's length here, in pages: a check looks at each of them.
const MAX_PAGE_COUNT: u32 = 1 << 12;
/// How many steps a cursor makes at most.
const MAX_STEPS: usize = 300;

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Which sound record it is made of.
    like: u8,
    change: Change,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Bytes(Vec<(u16, Vec<u8>)>),
    Whole(Vec<u8>),
    Forged(Vec<Edit>),
}

/// A change to a record that gets sums that fit; numbers of pages of the record are taken modulo how many there are.
#[derive(Arbitrary, Debug)]
enum Edit {
    Page { nth: u8, at: u16, bytes: Vec<u8> },
    Renumber { nth: u8, page: u32 },
    Add { page: u32, like: u8, as_diff: bool },
    Remove { nth: u8 },
    Free { first: u32, count: u16 },
    Unfree { nth: u8 },
    TxnIds { last: u8, in_superblock: Option<u64> },
    Trees { root: u32, height: u8, entries: u64, pages: u64 },
    PageCount(u16),
    TimelineAndTime { timeline: u64, wall_time: u64 },
    Tail { names: u8, operations: u8, at: u8, bytes: Vec<u8> },
}

/// Runs an input.
pub fn run(input: &Input) {
    let disk = Sound::get().disk();
    let database = Database::open_with(door(&disk), Path::new(DIRECTORY), options()).expect("it is sound");
    let engine = database.engine();
    let like = &records()[usize::from(input.like) % records().len()];
    let bytes = match &input.change {
        Change::Bytes(edits) => {
            let mut bytes = like.to_vec();
            for (at, new) in edits {
                let at = usize::from(*at) % bytes.len();
                bytes[at..].iter_mut().zip(new).for_each(|(to, from)| *to = *from);
            }
            bytes
        }
        Change::Whole(bytes) => bytes.clone(),
        Change::Forged(edits) => {
            let mut forged = Forged::of(&engine.read(), like);
            edits.iter().for_each(|edit| forged.apply(edit));
            forged.encode(&engine.read())
        }
    };
    let before = engine.applied();
    let applied = apply(engine, &bytes);
    if let Some(Applied::Record { last_txn, .. }) = applied {
        assert!(Record::decode(&bytes).is_ok());
        assert_eq!((engine.applied().txn_id, engine.read().txn_id()), (last_txn, last_txn));
        read_all(engine);
        reopen(database, &disk, last_txn);
    } else {
        assert_eq!((engine.applied().txn_id, engine.applied().digest), (before.txn_id, before.digest));
        assert_eq!(crate::sound::contents(&engine.read()), Sound::get().contents, "a refused record shows");
    }
}

/// Appends and applies a record; `None` if it was refused.
fn apply(engine: &Engine, bytes: &[u8]) -> Option<Applied> {
    let last = engine.log_state().last.expect("the sound log is not empty");
    let log_id = LogId { term: last.term, index: LogIndex(last.index.0 + 1) };
    let payload = Payload::new(Bytes::copy_from_slice(bytes));
    let frame = Frame::encode(FrameKind::Record, log_id, Some(last.index), engine.last_chain(), payload);
    let appended = engine.append(vec![frame.clone()], Box::new(|done| assert!(done.is_ok(), "the disk is sound")));
    // One that does not fit a segment stays out.
    appended.ok()?;
    engine.apply(&frame).ok()
}

/// Records of the kinds that there are, all of them made on the sound state.
fn records() -> &'static [Bytes] {
    static RECORDS: OnceLock<Vec<Bytes>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let disk = Sound::get().disk();
        let database = Database::open_with(door(&disk), Path::new(DIRECTORY), options()).expect("it is sound");
        let make = |work: &dyn Fn(&mut Batch) -> Result<(), BatchError>| {
            let mut batch = database.engine().begin_batch().expect("memory is free");
            batch.begin_txn();
            work(&mut batch).expect("it can be done");
            batch.commit_txn();
            let payload = batch.seal(1 << 52).expect("it fits").expect("it changed something").payload;
            database.engine().drop_staged();
            payload.bytes().clone()
        };
        vec![
            make(&|batch| batch.put("small", b"key 00007", b"another").map(drop)),
            make(&|batch| batch.put("large", &[9], &[1; 20_000]).map(drop)),
            make(&|batch| batch.drop_tree("large").map(drop)),
            make(&|batch| batch.add("many", b"tree", b"another").map(drop)),
            make(&|batch| batch.delete("many", b"page").map(drop)),
            make(&|batch| batch.delete_range("long", std::ops::Bound::Unbounded, std::ops::Bound::Unbounded).map(drop)),
            make(&|batch| {
                batch.create_tree("new")?;
                batch.rename_tree("small", "renamed")?;
                (0..60_u8).try_for_each(|key| batch.put("new", &[key], &[key; 200]).map(drop))
            }),
        ]
    })
}

/// A record in parts.
struct Forged {
    record: Record,
    /// Pages, whole, and whether they go as full images or as diffs.
    pages: Vec<(PageNumber, Box<Page>, bool)>,
    /// Names and operations.
    tail: Vec<u8>,
    names: u32,
    operations: u32,
}

impl Forged {
    fn of(state: &ReadTxn, bytes: &Bytes) -> Self {
        let record = Record::decode(bytes).expect("it is sound");
        let mut pages: Vec<(PageNumber, Box<Page>, bool)> = Vec::new();
        for (number, start) in &record.full {
            pages.push((
                *number,
                Box::new(Page::from_ref(bytes[*start..].first_chunk().expect("a page")).clone()),
                true,
            ));
        }
        for diff in &record.diffs {
            let mut page = Box::new((*state.page(diff.page).expect("it is sound")).clone());
            for (offset, place) in &diff.ranges {
                page.bytes_mut()[*offset..offset + place.len()].copy_from_slice(&bytes[place.clone()]);
            }
            pages.push((diff.page, page, false));
        }
        let diffs_end = record.diffs.iter().flat_map(|diff| &diff.ranges).map(|(_, place)| place.end).max();
        let (names, operations) = (record.trees.len() as u32, record.operations.len() as u32);
        let tail = bytes[diffs_end.expect("page 0 changes by a diff")..].to_vec();
        Self { record, pages, tail, names, operations }
    }

    fn superblock(&mut self, change: impl FnOnce(&mut Superblock)) {
        let Some((_, page, _)) = self.pages.iter_mut().find(|(number, ..)| *number == PageNumber(0)) else { return };
        if let Ok(mut superblock) = Superblock::decode(page) {
            change(&mut superblock);
            superblock.encode(page);
        }
    }

    fn apply(&mut self, edit: &Edit) {
        let count = self.pages.len().max(1);
        match edit {
            Edit::Page { nth, at, bytes } => {
                if let Some((_, page, _)) = self.pages.get_mut(usize::from(*nth) % count) {
                    let at = usize::from(*at) % PAGE_BYTES;
                    page.bytes_mut()[at..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                }
            }
            Edit::Renumber { nth, page } => {
                if let Some((number, ..)) = self.pages.get_mut(usize::from(*nth) % count) {
                    *number = PageNumber(*page);
                }
            }
            Edit::Add { page, like, as_diff } => {
                let pages = &Sound::get().pages;
                let like = &pages[usize::from(*like) % pages.len()];
                self.pages.push((PageNumber(*page), Box::new((**like).clone()), !as_diff));
            }
            Edit::Remove { nth } => {
                if !self.pages.is_empty() {
                    self.pages.remove(usize::from(*nth) % count);
                }
            }
            Edit::Free { first, count } => self.record.freed.push((PageNumber(*first), u32::from(*count))),
            Edit::Unfree { nth } => {
                if !self.record.freed.is_empty() {
                    self.record.freed.remove(usize::from(*nth) % self.record.freed.len());
                }
            }
            Edit::TxnIds { last, in_superblock } => {
                self.record.header.last_txn = TxnId(self.record.header.first_txn.0 + u64::from(*last));
                if let Some(txn_id) = in_superblock {
                    self.superblock(|superblock| superblock.txn_id = TxnId(*txn_id));
                }
            }
            Edit::Trees { root, height, entries, pages } => {
                let root = (*root != 0).then_some(PageNumber(*root));
                let trees =
                    TreeState { root, height: *height, entries: *entries, pages: *pages, ..TreeState::default() };
                self.superblock(|superblock| superblock.trees = trees);
            }
            Edit::PageCount(count) => self.superblock(|superblock| superblock.page_count = u32::from(*count).max(2)),
            Edit::TimelineAndTime { timeline, wall_time } => {
                self.superblock(|superblock| superblock.timeline.0 ^= timeline);
                self.record.header.wall_time_micros = *wall_time;
            }
            Edit::Tail { names, operations, at, bytes } => {
                (self.names, self.operations) = (u32::from(*names), u32::from(*operations));
                let at = usize::from(*at) % self.tail.len().max(1);
                self.tail[at..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// The record's bytes, every sum fitting.
    fn encode(mut self, state: &ReadTxn) -> Vec<u8> {
        self.pages.sort_by_key(|(number, ..)| *number);
        let mut digest = state.view().applied.digest;
        for (first, count) in &self.record.freed {
            for number in first.0..first.0.saturating_add(*count) {
                digest = digest.replace(PageNumber(number), checksum_of(state, PageNumber(number)), 0);
            }
        }
        for (number, page, _) in &mut self.pages {
            checksum::seal(*number, page);
            digest = digest.replace(*number, checksum_of(state, *number), page.checksum());
        }
        self.record.header.digest = digest;
        let full = self.pages.iter().filter(|(.., full)| *full);
        let diffs = self.pages.iter().filter(|(.., full)| !*full);
        let mut bytes = self.header(full.clone().count(), diffs.clone().count());
        for (first, count) in &self.record.freed {
            bytes.extend_from_slice(&first.0.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        full.clone().for_each(|(number, ..)| bytes.extend_from_slice(&number.0.to_le_bytes()));
        full.for_each(|(_, page, _)| bytes.extend_from_slice(page.bytes()));
        for (number, page, _) in diffs {
            bytes.extend_from_slice(&number.0.to_le_bytes());
            // One range, the whole page.
            bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&(PAGE_BYTES as u16).to_le_bytes());
            bytes.extend_from_slice(page.bytes());
        }
        bytes.extend_from_slice(&self.tail);
        bytes
    }

    fn header(&self, full: usize, diffs: usize) -> Vec<u8> {
        let header = &self.record.header;
        let mut bytes = b"CREC\x02\0\0\0".to_vec();
        for number in [header.builds_on.0, header.first_txn.0, header.last_txn.0, header.timeline.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&header.wall_time_micros.to_le_bytes());
        let Digest(digest) = header.digest;
        bytes.extend_from_slice(&digest.to_le_bytes());
        bytes.extend_from_slice(&header.base_digest.0.to_le_bytes());
        let counts = [self.record.freed.len() as u32, full as u32, diffs as u32, self.names, self.operations, 0];
        counts.iter().for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
        assert_eq!(bytes.len(), RECORD_HEADER_BYTES);
        bytes
    }
}

/// The checksum of a page as it is now; 0 of one beyond the end.
fn checksum_of(state: &ReadTxn, number: PageNumber) -> u64 {
    if number.0 >= state.view().superblock.page_count {
        return 0;
    }
    state.page(number).map_or(0, |page| page.checksum())
}

fn read_all(engine: &Engine) {
    let snapshot = engine.read();
    if snapshot.view().superblock.page_count <= MAX_PAGE_COUNT {
        check_pages(&snapshot, &mut |_| ()).expect("damage is in the report");
    }
    for (name, state) in only_damage(snapshot.trees()).unwrap_or_default() {
        if state.kind == TreeKind::Multi {
            read_many(&snapshot, &name);
            continue;
        }
        let Some(Some(mut cursor)) = only_damage(snapshot.cursor(&name)) else { continue };
        for _ in 0..MAX_STEPS {
            if only_damage(cursor.next()) != Some(true) {
                break;
            }
            only_damage(cursor.value().to_vec());
        }
    }
}

fn read_many(snapshot: &ReadTxn, name: &str) {
    let Some(Some(mut keys)) = only_damage(snapshot.keys(name)) else { return };
    for _ in 0..MAX_STEPS {
        if only_damage(keys.next()) != Some(true) {
            break;
        }
        let Some(mut values) = only_damage(keys.values()) else { continue };
        for _ in 0..MAX_STEPS {
            if only_damage(values.next()) != Some(true) {
                break;
            }
            assert!(!values.value().is_empty());
        }
    }
}

/// A checkpoint, and another opening: they may fail, and then they say why.
fn reopen(database: Database, disk: &SimDisk, txn_id: TxnId) {
    let checkpoint = database.engine().checkpoint();
    drop(database);
    let opened = Database::open_with(door(disk), Path::new(DIRECTORY), options());
    match (checkpoint, opened) {
        (Ok(_), Ok(database)) => assert_eq!(database.engine().applied().txn_id, txn_id),
        (Ok(_), Err(error)) => panic!("what was applied and checkpointed does not open: {error}"),
        // Such as a file that is longer than the disk.
        (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together anew without a change, each record is applied, with the digest that it had.
    #[test]
    fn sound_records_survive_being_put_together_anew() {
        for (like, record) in records().iter().enumerate() {
            let disk = Sound::get().disk();
            let database = Database::open_with(door(&disk), Path::new(DIRECTORY), options()).unwrap();
            let bytes = Forged::of(&database.read(), record).encode(&database.read());
            let applied = apply(database.engine(), &bytes);
            assert!(matches!(applied, Some(Applied::Record { .. })), "record {like}: {applied:?}");
            assert_eq!(database.engine().applied().digest, Record::decode(record).unwrap().header.digest);
            run(&Input { like: like as u8, change: Change::Forged(Vec::new()) });
            run(&Input { like: like as u8, change: Change::Bytes(Vec::new()) });
        }
    }

    /// A run of freed pages costs 8 bytes and may say four billion pages: it is refused by its numbers.
    #[test]
    fn pages_that_never_were_are_not_freed() {
        for count in [u32::MAX - 1, 1 << 20] {
            let disk = Sound::get().disk();
            let database = Database::open_with(door(&disk), Path::new(DIRECTORY), options()).unwrap();
            let mut forged = Forged::of(&database.read(), &records()[5]);
            forged.record.freed = vec![(PageNumber(1), count)];
            let bytes = forged.header(0, 0);
            let mut bytes = [bytes, 1_u32.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
            // Neither names nor operations.
            bytes[92..100].fill(0);
            assert!(Record::decode(&bytes).is_ok());
            assert_eq!(apply(database.engine(), &bytes), None);
        }
    }
}
