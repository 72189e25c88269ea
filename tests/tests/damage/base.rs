//! Directories to be damaged, made once: a life with everything in it, and all that is known of its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use calamus_engine::engine::Vote;
use calamus_engine::env::{CrashChoice, Disk, OpenMode, SimDisk};
use calamus_engine::ids::{DatabaseId, LogId, LogIndex, RaftId, Term, TxnId};
use calamus_engine::journal::JournalMode;
use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use calamus_engine::{Batch, BatchError, Engine, EngineOptions, ReadError, ReadTxn, TreeKind, ValuesCursor};
use calamus_tests::engine_driver::identity;

/// Where the node is, on its disk.
pub const PLACE: &str = "/db";

/// What a snapshot shows: under each tree, keys with version and values; in a plain tree one.
pub type Contents = BTreeMap<String, BTreeMap<Vec<u8>, (TxnId, Vec<Vec<u8>>)>>;

/// A closed directory, and what is known of it.
pub struct Base {
    /// How it came to be.
    pub name: &'static str,
    /// The disk that it is on; it stays as it is.
    pub sound: SimDisk,
    /// What it holds, to its last entry.
    pub contents: Contents,
    /// The last vote that was acknowledged.
    pub vote: Option<Vote>,
    /// Its files, with their bytes.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The same at an earlier moment, as far as they were there.
    pub earlier: BTreeMap<PathBuf, Vec<u8>>,
}

pub fn place() -> &'static Path {
    Path::new(PLACE)
}

pub fn door(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Small, and without threads: what happens is a function of the damage.
pub fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.journal.segment_bytes = 128 << 10;
    options.journal.mode = JournalMode::Inline;
    options.background = false;
    options.retention_bytes = 256 << 10;
    options.map_bytes = 64 << 20;
    options
}

impl Base {
    /// All of them.
    pub fn all() -> Vec<Base> {
        let (closed, earlier) = live();
        let cut_off = cut_off(&closed);
        vec![Self::of("closed", closed, &earlier), Self::of("cut off in a checkpoint", cut_off, &earlier)]
    }

    fn of(name: &'static str, disk: SimDisk, earlier: &SimDisk) -> Self {
        let engine = open(&disk.crash(CrashChoice::KeepAll)).expect("it is sound");
        let (contents, vote) = (contents(&engine.read()).expect("it is sound"), engine.vote());
        let (files, earlier) = (files(&disk), files(earlier));
        Self { name, sound: disk, contents, vote, files, earlier }
    }

    /// A disk of one's own with the directory on it.
    pub fn disk(&self) -> SimDisk {
        self.sound.crash(CrashChoice::KeepAll)
    }
}

/// Opens a directory, and applies all that its journal holds.
pub fn open(disk: &SimDisk) -> Result<Engine, String> {
    let (engine, _) = Engine::open(door(disk), place(), options()).map_err(|error| error.to_string())?;
    let end = engine.log_state().last.map_or(0, |last| last.index.0 + 1);
    let next = engine.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
    if next < end {
        let frames = engine.read_frames(LogIndex(next), LogIndex(end), 64 << 20).map_err(|error| error.to_string())?;
        for frame in frames {
            engine.apply(&frame).map_err(|error| error.to_string())?;
        }
    }
    Ok(engine)
}

/// Reads all that a snapshot shows.
pub fn contents(snapshot: &ReadTxn) -> Result<Contents, ReadError> {
    let mut all = Contents::new();
    for (name, state) in snapshot.trees()? {
        let tree = all.entry(name.clone()).or_default();
        if state.kind == TreeKind::Multi {
            let Some(mut keys) = snapshot.keys(&name)? else { continue };
            while keys.next()? {
                tree.insert(keys.key().to_vec(), (keys.version(), all_values(&mut keys.values()?)?));
            }
            continue;
        }
        let Some(mut cursor) = snapshot.cursor(&name)? else { continue };
        while cursor.next()? {
            tree.insert(cursor.key().to_vec(), (cursor.version(), vec![cursor.value().to_vec()?]));
        }
    }
    Ok(all)
}

fn all_values(cursor: &mut ValuesCursor<'_, ReadTxn>) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut values = Vec::new();
    while cursor.next()? {
        values.push(cursor.value().to_vec());
    }
    Ok(values)
}

fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![place().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for name in disk.list_dir(&directory).expect("a directory") {
            let path = directory.join(name);
            match disk.open(&path, OpenMode::Read) {
                Ok(file) => {
                    let mut bytes = vec![0; usize::try_from(file.len().expect("works")).expect("small")];
                    file.read_exact_at(&mut bytes, 0).expect("works");
                    found.insert(path, bytes);
                }
                Err(_) => directories.push(path),
            }
        }
    }
    found
}

struct Life {
    disk: SimDisk,
    engine: Engine,
    term: u64,
}

impl Life {
    fn append(&self, kind: FrameKind, payload: Bytes) -> Frame {
        let index = self.engine.log_state().last.map_or(0, |last| last.index.0 + 1);
        let commit = self.engine.applied().log_id.map(|log_id| log_id.index);
        let (log_id, chain) = (LogId::new(self.term, index), self.engine.last_chain());
        let frame = Frame::encode(kind, log_id, commit, chain, Payload::new(payload));
        let (done, synced) = mpsc::channel();
        let acknowledged = move |result| done.send(result).expect("waited for");
        self.engine.append(vec![frame.clone()], Box::new(acknowledged)).expect("the disk works");
        synced.recv().expect("called").expect("the disk works");
        frame
    }

    fn commit(&self, work: impl FnOnce(&mut Batch) -> Result<(), BatchError>) {
        let mut batch = self.engine.begin_batch().expect("memory");
        batch.begin_txn();
        work(&mut batch).expect("it fits");
        batch.commit_txn();
        let staged = batch.seal(1).expect("it fits").expect("something changed");
        let frame = self.append(FrameKind::Record, staged.payload.bytes().clone());
        self.engine.apply(&frame).expect("applies");
    }

    /// More of everything.
    fn grow(&self, part: u32) {
        self.commit(|batch| fill(batch, part));
        self.commit(|batch| fill_many(batch, part));
    }

    /// Begins a term, as a leader does: a vote, the vote of a quorum, a blank entry.
    fn lead(&mut self) {
        self.term += 1;
        for committed in [false, true] {
            let vote = Vote { term: Term(self.term), node: Some(RaftId(1)), committed };
            self.engine.save_vote(vote, Box::new(|saved| saved.expect("the disk works"))).expect("queued");
        }
        let blank = self.append(FrameKind::Blank, Bytes::new());
        self.engine.apply(&blank).expect("applies");
    }

    fn reopen(self) -> Self {
        let Self { disk, engine, term } = self;
        engine.close();
        drop(engine);
        let engine = open(&disk).expect("it is sound");
        Self { disk, engine, term }
    }

    /// Frames that another leader's replace.
    fn cut(&self) {
        let last = self.engine.log_state().last;
        let mut batch = self.engine.begin_batch().expect("memory");
        batch.begin_txn();
        batch.put("small", b"never", &[1; 3000]).expect("fits");
        batch.commit_txn();
        let staged = batch.seal(1).expect("it fits").expect("something changed");
        self.append(FrameKind::Record, staged.payload.bytes().clone());
        self.engine.drop_staged();
        let (done, durable) = mpsc::channel();
        let acknowledged = move |result| done.send(result).expect("waited for");
        self.engine.cut_after(last, Box::new(acknowledged)).expect("the disk works");
        durable.recv().expect("called").expect("the disk works");
    }

    fn checkpoint(&self) {
        self.engine.checkpoint().expect("the disk works");
    }

    fn purge(&self) {
        self.engine.purge(self.engine.applied().log_id.expect("something is applied")).expect("the disk works");
    }
}

fn number(number: u32) -> Vec<u8> {
    format!("key {:06}", number.wrapping_mul(7919) % 100_003).into_bytes()
}

/// A part of the contents: trees of one to three levels, values of all sizes, entries that go, free pages.
fn fill(batch: &mut Batch, part: u32) -> Result<(), BatchError> {
    for tree in ["small", "long", "large", "empty", "gone"] {
        if part == 0 || tree != "gone" {
            batch.create_tree(tree)?;
        }
    }
    let byte = (part % 251) as u8;
    for key in 0..40 {
        batch.put("small", &number(part * 40 + key), &vec![byte; 20 + 9 * key as usize])?;
        if key % 3 == 0 && part > 3 {
            batch.delete("small", &number((part - 3) * 40 + key))?;
        }
    }
    // Three such keys fill a branch: a tree of several levels in a few pages.
    for key in 0..3 {
        let mut bytes = format!("{:03}", (part * 3 + key) * 37 % 101).into_bytes();
        bytes.resize(1_900 + key as usize, b'x');
        batch.put("long", &bytes, b"a value")?;
    }
    let length = [2_500, 9_000, 0, 17_000, 8_176, 8_177, 40_000][part as usize % 7];
    batch.put("large", &[(part % 11) as u8], &vec![byte; length])?;
    if part < 4 {
        batch.put("gone", &[byte], &[7; 3_000])?;
    }
    Ok(())
}

/// A multi-value tree of two levels: lists, a tree of values that grows, one of several levels in a few pages, and one that
/// comes and goes.
fn fill_many(batch: &mut Batch, part: u32) -> Result<(), BatchError> {
    const TREE: &str = "many";
    batch.create_multi_tree(TREE)?;
    for key in 0..20 {
        for value in 0..4 {
            batch.add(TREE, &number(part * 20 + key), &number(part + value))?;
        }
        if part > 2 {
            batch.remove_value(TREE, &number((part - 2) * 20 + key), &number(part - 1))?;
        }
    }
    for value in 0..40 {
        batch.add(TREE, b"key of many", &[number(part * 40 + value), vec![b'v'; 40]].concat())?;
        if value % 5 == 0 && part > 3 {
            batch.remove_value(TREE, b"key of many", &[number((part - 3) * 40 + value), vec![b'v'; 40]].concat())?;
        }
    }
    // They differ at their ends only, so that four of them fill a branch too.
    let tall = [vec![b'x'; 1_900], format!("{:03}", part * 37 % 101).into_bytes()].concat();
    batch.add(TREE, b"key of long ones", &tall)?;
    match part % 6 {
        1 => (0..60).try_for_each(|value| batch.add(TREE, b"key that goes", &[value; 60]).map(drop)),
        4 => batch.delete(TREE, b"key that goes").map(drop),
        _ => Ok(()),
    }
}

/// A life that ends in order, and the disk at an earlier moment of it.
fn live() -> (SimDisk, SimDisk) {
    let disk = SimDisk::new(5);
    let engine = Engine::create(door(&disk), place(), &identity(1), DatabaseId(9), options()).expect("a new one");
    let mut life = Life { disk, engine, term: 0 };
    life.lead();
    (0..12).for_each(|part| life.grow(part));
    life.commit(|batch| batch.drop_tree("gone").map(drop));
    life.checkpoint();
    life = life.reopen();
    life.lead();
    life.cut();
    (12..20).for_each(|part| life.grow(part));
    life.checkpoint();
    life.purge();
    (20..26).for_each(|part| life.grow(part));
    life.checkpoint();
    let earlier = life.disk.crash(CrashChoice::KeepAll);
    life.lead();
    (26..30).for_each(|part| life.grow(part));
    life.cut();
    life.checkpoint();
    (30..34).for_each(|part| life.grow(part));
    let Life { disk, engine, .. } = life;
    engine.close();
    drop(engine);
    (disk.crash(CrashChoice::KeepAll), earlier)
}

/// The same, opened again, with the power gone in the middle of a checkpoint.
fn cut_off(closed: &SimDisk) -> SimDisk {
    let disk = closed.crash(CrashChoice::KeepAll);
    let engine = open(&disk).expect("it is sound");
    // The target in its slot, and a few pages.
    disk.crash_after(8);
    engine.checkpoint().expect_err("the power goes");
    let cut = disk.crash(CrashChoice::Seeded(3));
    drop(engine);
    cut
}
