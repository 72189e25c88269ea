//! redb, with its default durability: `Immediate`, one sync a commit.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::store::{CACHE_BYTES, Entry, Snapshot, Store, TREE, touch};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(TREE);

pub struct Redb {
    database: Database,
}

impl Redb {
    pub fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb"))?;
        let txn = database.begin_write()?;
        txn.open_table(TABLE)?;
        txn.commit()?;
        Ok(Self { database })
    }
}

impl Store for Redb {
    fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        let txn = self.database.begin_write()?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in entries {
                table.insert(key.as_slice(), *value)?;
            }
        }
        Ok(txn.commit()?)
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        work(&mut Reading { table })
    }
}

struct Reading {
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Snapshot for Reading {
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>> {
        Ok(self.table.get(key)?.map(|value| (value.value().len(), touch(value.value()))))
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut count, mut sum) = (0, 0);
        for entry in self.table.iter()? {
            count += 1;
            sum += touch(entry?.1.value());
        }
        Ok((count, sum))
    }
}
