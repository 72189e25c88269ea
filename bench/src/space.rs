//! How much larger than what is in it the data file gets under random changes, and how fast free runs are found in a file
//! of 100 GB full of holes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use calamus_engine::alloc::{Allocator, BitmapPages, PAGES_PER_GROUP, bitmap_page_of};
use calamus_engine::btree::{PageRef, PageSource, ReadError};
use calamus_engine::env::RealDisk;
use calamus_engine::error::StorageError;
use calamus_engine::ids::PageNumber;
use calamus_engine::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKind};
use calamus_engine::{Database, EngineOptions};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const TREE: &str = "t";

#[derive(Clone, Debug, clap::Args)]
pub struct SpaceArgs {
    /// The folder for data; a new one within it is used and removed. By default the build's target folder.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Entries that are there before.
    #[arg(long, default_value_t = 200_000)]
    entries: usize,
    /// Operations a transaction.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// How many times the live bytes are written and deleted.
    #[arg(long, default_value_t = 10)]
    times: u64,
}

/// A kind of life: the chances, in percent, that an operation deletes and that it puts a new key; else it replaces a value.
struct Habits {
    name: &'static str,
    delete: u32,
    put: u32,
    value_bytes: std::ops::Range<usize>,
    /// Of how many there are, in percent.
    entries: usize,
}

const HABITS: [Habits; 5] = [
    Habits { name: "updates", delete: 0, put: 0, value_bytes: 256..257, entries: 100 },
    Habits { name: "updates, any length", delete: 0, put: 0, value_bytes: 0..512, entries: 100 },
    Habits { name: "puts, deletes, updates", delete: 25, put: 25, value_bytes: 0..512, entries: 100 },
    Habits { name: "deletes alone", delete: 100, put: 0, value_bytes: 256..257, entries: 100 },
    Habits { name: "long values, all of it", delete: 25, put: 25, value_bytes: 8_000..64_000, entries: 1 },
];

pub fn run(args: &SpaceArgs) -> Result<()> {
    println!(
        "{:<24} {:>9} {:>12} {:>12} {:>8} {:>8} {:>8} {:>10}",
        "habits", "entries", "live MB", "written MB", "loaded", "file", "disk", "op/s"
    );
    for habits in HABITS {
        println!("{}", life(args, &habits)?);
    }
    println!("{}", find_runs()?);
    Ok(())
}

/// Length and space on the disk of the data file after a checkpoint, in bytes.
fn file_bytes(database: &Database, dir: &std::path::Path) -> Result<(u64, u64)> {
    database.engine().checkpoint()?;
    let metadata = dir.join(format!("g{}", database.engine().status().generation)).join("data").metadata()?;
    Ok((metadata.len(), metadata.blocks() * 512))
}

fn life(args: &SpaceArgs, habits: &Habits) -> Result<String> {
    let within = args.dir.clone().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    let dir = tempfile::Builder::new().prefix("calamus-bench-").tempdir_in(within)?;
    let database = Database::open_with(Arc::new(RealDisk::new()), dir.path(), EngineOptions::default())?;
    database.write(|txn| txn.create_tree(TREE))?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut pool = vec![0; 1 << 20];
    random.fill_bytes(&mut pool);
    let (mut entries, mut live): (Vec<([u8; 16], usize)>, u64) = (Vec::new(), 0);
    let mut change = |delete: u32, put: u32, entries: &mut Vec<([u8; 16], usize)>, live: &mut u64| -> Result<u64> {
        let mut bytes = 0;
        database.write(|txn| {
            for _ in 0..args.batch {
                let dice = random.random_range(0..100);
                if dice < delete {
                    let (key, length) = entries.swap_remove(random.random_range(0..entries.len()));
                    txn.delete(TREE, &key)?;
                    *live -= 16 + length as u64;
                    bytes += 16 + length as u64;
                    continue;
                }
                let at = if dice < delete + put {
                    entries.push((random.random(), 0));
                    *live += 16;
                    entries.len() - 1
                } else {
                    random.random_range(0..entries.len())
                };
                let (key, length) = &mut entries[at];
                *live -= *length as u64;
                *length = random.random_range(habits.value_bytes.clone());
                let start = random.random_range(0..pool.len() - *length);
                txn.put(TREE, key, &pool[start..start + *length])?;
                *live += *length as u64;
                bytes += 16 + *length as u64;
            }
            Ok(())
        })?;
        Ok(bytes)
    };
    while entries.len() < args.entries * habits.entries / 100 {
        change(0, 100, &mut entries, &mut live)?;
    }
    let loaded = file_bytes(&database, dir.path())?.0 as f64 / live as f64;
    let (began, mut written, mut operations) = (Instant::now(), 0, 0);
    while written < args.times * live && entries.len() > args.batch {
        written += change(habits.delete, habits.put, &mut entries, &mut live)?;
        operations += args.batch;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (length, blocks) = file_bytes(&database, dir.path())?;
    Ok(format!(
        "{:<24} {:>9} {:>12.1} {:>12.1} {:>8.2} {:>8.2} {:>8.2} {:>10.0}",
        habits.name,
        entries.len(),
        live as f64 / 1e6,
        written as f64 / 1e6,
        loaded,
        length as f64 / live as f64,
        blocks as f64 / live as f64,
        operations as f64 / seconds
    ))
}

/// The bitmaps of a file in memory.
struct Bitmaps(HashMap<PageNumber, Box<Page>>);

impl Bitmaps {
    fn get(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        Ok(PageRef::Mapped(self.0.get(&number).ok_or_else(|| StorageError::corrupted("data", 0, "no such page"))?))
    }
}

impl PageSource for Bitmaps {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.get(number)
    }
}

impl BitmapPages for Bitmaps {
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError> {
        self.get(number)
    }

    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        self.get(number)?;
        Ok(self.0.get_mut(&number).expect("looked up just now"))
    }

    fn new_bitmap(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        Ok(self.0.entry(number).insert_entry(Page::zeroed()).into_mut())
    }
}

/// A file of 100 GB in which every other page is free.
fn find_runs() -> Result<String> {
    const ROUNDS: u32 = 100_000;
    let page_count = u32::try_from(100_000_000_000 / PAGE_BYTES as u64)? | 1;
    let mut pages = Bitmaps(HashMap::new());
    for first in (0..page_count).step_by(PAGES_PER_GROUP as usize) {
        let bitmap = pages.new_bitmap(bitmap_page_of(PageNumber(first)))?;
        bitmap.set_kind(PageKind::Bitmap);
        let in_file = (page_count - first).min(PAGES_PER_GROUP);
        for index in (0..in_file).filter(|index| index % 2 == 0 || first + index == 1) {
            bitmap.bytes_mut()[PAGE_HEADER_BYTES + index as usize / 8] |= 1 << (index % 8);
        }
    }
    let began = Instant::now();
    let mut page_count = page_count;
    let mut allocator = Allocator::load(&pages, page_count)?;
    let loaded = began.elapsed();
    let mut random = SmallRng::seed_from_u64(1);
    let began = Instant::now();
    allocator.allocate(&mut pages, &mut page_count, 33)?;
    let first = began.elapsed();
    let mut times = Vec::new();
    let before = allocator.searched_words();
    for round in 0..ROUNDS {
        // A page is freed anywhere, so that there is a place for three; places for one, three and 33 are looked for.
        let page = PageNumber(random.random_range(1..page_count / 2 - 1) * 2);
        if allocator.is_allocated(&pages, page)? && bitmap_page_of(page) != page {
            allocator.free(&mut pages, &mut page_count, page, 1)?;
        }
        let began = Instant::now();
        allocator.allocate(&mut pages, &mut page_count, [1, 3, 33][round as usize % 3])?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let quantile = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_nanos();
    Ok(format!(
        "100 GB, every other page free: loaded in {:.1} ms, first run of 33 pages {:.1} ms, then 1, 3 or 33 pages p50 {} ns, \
         p99 {} ns, most {} ns; {} words of bitmaps looked at for each",
        loaded.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        quantile(0.5),
        quantile(0.99),
        times.last().context("there were rounds")?.as_nanos(),
        (allocator.searched_words() - before) / u64::from(ROUNDS)
    ))
}
