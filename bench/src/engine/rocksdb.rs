//! RocksDB, with `sync` for each write. Behind a feature: it takes long to build, and needs clang.

use std::path::Path;

use anyhow::Result;
use rocksdb::{BlockBasedOptions, Cache, DB, IteratorMode, Options, SnapshotWithThreadMode, WriteBatch, WriteOptions};

use super::store::{CACHE_BYTES, Entry, Snapshot, Store, touch};

pub struct Rocks {
    database: DB,
}

impl Rocks {
    pub fn open(dir: &Path) -> Result<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        Ok(Self { database: DB::open(&options, dir)? })
    }
}

impl Store for Rocks {
    fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.database.write_opt(batch, &options)?)
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()> {
        work(&mut Reading { snapshot: self.database.snapshot() })
    }

    fn settle(&self) -> Result<()> {
        Ok(self.database.flush()?)
    }
}

struct Reading<'a> {
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl Snapshot for Reading<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>> {
        Ok(self.snapshot.get_pinned(key)?.map(|value| (value.len(), touch(&value))))
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut count, mut sum) = (0, 0);
        for entry in self.snapshot.iterator(IteratorMode::Start) {
            count += 1;
            sum += touch(&entry?.1);
        }
        Ok((count, sum))
    }
}
