//! Calamus' engine, alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use calamus_engine::env::RealDisk;
use calamus_engine::{Database, EngineOptions, TreeView};

use super::store::{CACHE_BYTES, Entry, OpenOptions, Snapshot, Store, TREE, touch};

pub struct Calamus {
    database: Database,
}

impl Calamus {
    pub fn open(dir: &Path, options: OpenOptions) -> Result<Self> {
        let mut engine = EngineOptions::default();
        engine.version_bytes_limit = CACHE_BYTES;
        if let Some(bytes) = options.checkpoint_bytes {
            engine.checkpoint_journal_bytes = bytes;
        }
        let database = Database::open_with(Arc::new(RealDisk::new()), dir, engine)?;
        database.write(|txn| txn.create_tree(TREE))?;
        Ok(Self { database })
    }
}

impl Store for Calamus {
    fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.database.write(|txn| {
            for (key, value) in entries {
                txn.put(TREE, key, value)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()> {
        let snapshot = self.database.read();
        work(&mut Reading { tree: snapshot.open_tree(TREE)?.context("the tree is there")? })
    }

    fn settle(&self) -> Result<()> {
        self.database.engine().checkpoint()?;
        Ok(())
    }

    fn checkpoints(&self) -> Option<u64> {
        Some(self.database.engine().status().checkpoints)
    }
}

struct Reading<'a> {
    tree: TreeView<'a>,
}

impl Snapshot for Reading<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>> {
        let Some(entry) = self.tree.get(key)? else { return Ok(None) };
        let value = entry.value;
        Ok(Some((value.len(), touched(&value)?)))
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let mut cursor = self.tree.cursor();
        let (mut count, mut sum) = (0, 0);
        let mut there = cursor.first()?;
        while there {
            count += 1;
            sum += touched(&cursor.value())?;
            there = cursor.next()?;
        }
        Ok((count, sum))
    }
}

/// Looks at a value without a copy of it.
fn touched(value: &calamus_engine::btree::Value<'_>) -> Result<u64> {
    if let Some(bytes) = value.as_slice() {
        return Ok(touch(bytes));
    }
    value.chunks().try_fold(0_u64, |sum, chunk| Ok(sum.wrapping_add(touch(&chunk?))))
}
