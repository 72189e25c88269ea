//! A sound directory on a simulated disk, made once, from which each input starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use calamus_engine::env::{CrashChoice, Disk, OpenMode, SimDisk};
use calamus_engine::ids::Digest;
use calamus_engine::journal::JournalMode;
use calamus_engine::page::{PAGE_BYTES, Page};
use calamus_engine::txn::BatchError;
use calamus_engine::{Batch, Database, EngineOptions, ReadTxn, TreeKind};

/// Where the database is, on its disk.
pub const DIRECTORY: &str = "/db";
/// No simulated disk grows beyond this, in bytes, whatever the input says.
const SPACE_LIMIT_BYTES: u64 = 64 << 20;
/// The size of a segment of the journal, in bytes: little more than the longest record.
pub const SEGMENT_BYTES: u64 = 96 << 10;

/// What a plain tree holds.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// What a multi-value tree holds.
pub type ManyMap = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// What trees hold, by their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// The plain ones.
    pub plain: BTreeMap<String, Map>,
    /// The multi-value ones.
    pub many: BTreeMap<String, ManyMap>,
}

/// A database, closed, and what is known of it.
pub struct Sound {
    disk: SimDisk,
    /// What it holds, to its last transaction.
    pub contents: Contents,
    /// The digest of the state after each entry of its log, by index.
    pub digests: Vec<Digest>,
    /// The pages of its data file, as the last checkpoint left them.
    pub pages: Vec<Arc<Page>>,
}

/// Small, and without threads: a run is a function of its input.
pub fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.journal.segment_bytes = SEGMENT_BYTES;
    options.journal.mode = JournalMode::Inline;
    options.background = false;
    options.map_bytes = 64 << 20;
    options
}

/// The disk as a trait object.
pub fn door(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// The data file's path.
pub fn data_path() -> PathBuf {
    Path::new(DIRECTORY).join("g1").join("data")
}

/// The journal's directory.
pub fn journal_path() -> PathBuf {
    Path::new(DIRECTORY).join("g1").join("journal")
}

/// All bytes of a file.
pub fn read_file(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("the power is on")).expect("small")];
    let got = file.read_at(&mut bytes, 0).expect("the power is on");
    assert_eq!(got, bytes.len());
    bytes
}

/// Replaces a file's bytes, durably.
pub fn write_file(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Write).expect("the file is there");
    file.set_len(bytes.len() as u64).expect("it fits");
    file.write_at(&[std::io::IoSlice::new(bytes)], 0).expect("it fits");
    file.sync_data().expect("the power is on");
}

impl Sound {
    /// The one that all targets start from: trees of all shapes, free pages, a checkpoint in the middle, a journal of
    /// several segments with cuts in it.
    pub fn get() -> &'static Self {
        static SOUND: OnceLock<Sound> = OnceLock::new();
        SOUND.get_or_init(Self::make)
    }

    /// A disk of one's own that holds the directory.
    pub fn disk(&self) -> SimDisk {
        let disk = self.disk.crash(CrashChoice::KeepAll);
        disk.set_space_limit(Some(SPACE_LIMIT_BYTES));
        disk
    }

    fn make() -> Self {
        let disk = SimDisk::new(1);
        let mut digests = Vec::new();
        let mut database = open(&disk);
        let mut write = |database: &Database, work: &dyn Fn(&mut Batch) -> Result<(), BatchError>| {
            database.write(work).expect("the disk is sound");
            let applied = database.engine().applied();
            let index = applied.log_id.expect("something was written").index;
            assert_eq!(index.0, digests.len() as u64, "an entry for each write");
            digests.push(applied.digest);
        };
        write(&database, &|batch| {
            batch.create_multi_tree("many")?;
            ["small", "large", "long", "empty", "gone"].iter().try_for_each(|tree| batch.create_tree(tree).map(drop))
        });
        for part in 0..6_u32 {
            write(&database, &|batch| fill(batch, part));
            write(&database, &|batch| fill_many(batch, part));
            if part == 2 {
                drop(database);
                database = open(&disk);
            }
            if part == 4 {
                write(&database, &|batch| batch.drop_tree("gone").map(drop));
                database.engine().checkpoint().expect("the disk is sound");
            }
        }
        for key in 0..12_u32 {
            write(&database, &|batch| batch.put("small", &small_key(key * 7), &[9; 90]).map(drop));
        }
        let contents = contents(&database.read());
        drop(database);
        let bytes = read_file(&disk, &data_path());
        let page = |bytes: &[u8]| Arc::new(Page::from_ref(bytes.try_into().expect("a whole page")).clone());
        Self { pages: bytes.chunks(PAGE_BYTES).map(page).collect(), disk, contents, digests }
    }
}

fn open(disk: &SimDisk) -> Database {
    Database::open_with(door(disk), Path::new(DIRECTORY), options()).expect("the disk is sound")
}

fn small_key(number: u32) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

/// A part of the contents, well below what a segment holds.
fn fill(batch: &mut Batch, part: u32) -> Result<(), BatchError> {
    for key in 0..40 {
        batch.put("small", &small_key(part * 40 + key), &vec![part as u8; 60 + 3 * key as usize])?;
    }
    // Three such keys fill a branch: a tree of several levels in a few pages.
    for key in 0..4 {
        let mut bytes = format!("{:02}", (part * 4 + key) * 37 % 24).into_bytes();
        bytes.resize(1_900 + key as usize, b'x');
        batch.put("long", &bytes, b"a value")?;
    }
    batch.put("large", &[part as u8 + 1], &vec![part as u8; [2_500, 9_000, 0, 17_000, 8_176, 8_177][part as usize]])?;
    if part < 4 {
        batch.put("gone", &[part as u8], &[7; 3_000])?;
    }
    batch.delete("small", &small_key(part * 40 + 3)).map(drop)
}

/// A part of the multi-value tree: in the end a list, a page, and a tree of several pages.
fn fill_many(batch: &mut Batch, part: u32) -> Result<(), BatchError> {
    for (key, values) in [(&b"list"[..], 1), (b"page", 8), (b"tree", 50)] {
        for value in 0..values {
            batch.add("many", key, format!("value {:05} of {key:?}, at some length", part * 100 + value).as_bytes())?;
        }
    }
    Ok(())
}

/// All that a snapshot shows.
pub fn contents(snapshot: &ReadTxn) -> Contents {
    let mut contents = Contents::default();
    for tree in snapshot.list_trees().expect("the state is sound") {
        match tree.kind {
            TreeKind::Plain => drop(contents.plain.insert(tree.name.clone(), plain(snapshot, &tree.name))),
            TreeKind::Multi => drop(contents.many.insert(tree.name.clone(), many(snapshot, &tree.name))),
        }
    }
    contents
}

fn many(snapshot: &ReadTxn, name: &str) -> ManyMap {
    let mut keys = snapshot.keys(name).expect("the state is sound").expect("it was listed");
    let mut entries = ManyMap::new();
    while keys.next().expect("the state is sound") {
        let (mut values, mut set) = (keys.values().expect("the state is sound"), BTreeSet::new());
        while values.next().expect("the state is sound") {
            set.insert(values.value().to_vec());
        }
        entries.insert(keys.key().to_vec(), set);
    }
    entries
}

fn plain(snapshot: &ReadTxn, name: &str) -> Map {
    let mut cursor = snapshot.cursor(name).expect("the state is sound").expect("it was listed");
    let mut entries = BTreeMap::new();
    while cursor.next().expect("the state is sound") {
        entries.insert(cursor.key().to_vec(), cursor.value().to_vec().expect("the state is sound"));
    }
    entries
}
