//! fjall: each commit is a batch whose journal is synced with `fdatasync`. The block cache has room for what is loaded.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot as View};

use super::store::{CACHE_BYTES, Entry, Snapshot, Store, TREE, touch};

pub struct Fjall {
    database: Database,
    tree: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES as u64).open()?;
        let tree = database.keyspace(TREE, KeyspaceCreateOptions::default)?;
        Ok(Self { database, tree })
    }
}

impl Store for Fjall {
    fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in entries {
            batch.insert(&self.tree, key.as_slice(), *value);
        }
        Ok(batch.commit()?)
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()> {
        work(&mut Reading { view: self.database.snapshot(), tree: &self.tree })
    }

    fn settle(&self) -> Result<()> {
        Ok(self.tree.rotate_memtable_and_wait()?)
    }
}

struct Reading<'a> {
    view: View,
    tree: &'a Keyspace,
}

impl Snapshot for Reading<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>> {
        Ok(self.view.get(self.tree, key)?.map(|value| (value.len(), touch(&value))))
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut count, mut sum) = (0, 0);
        for guard in self.view.iter(self.tree) {
            count += 1;
            sum += touch(&guard.into_inner()?.1);
        }
        Ok((count, sum))
    }
}
