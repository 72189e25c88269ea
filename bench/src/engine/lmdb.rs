//! LMDB, by its bindings heed. No flags: pages are written with `pwrite`, each commit syncs the data and then the meta page.

use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use heed::{CompactionOption, Database, Env, EnvOpenOptions, PutFlags, RoTxn};

use super::store::{Entry, Snapshot, Store, TREE, touch};

/// Address space for the map.
const MAP_BYTES: usize = 64 << 30;

pub struct Lmdb {
    env: Env,
    tree: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub fn open(dir: &Path) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(1);
        #[expect(
            unsafe_code,
            reason = "every way to open an environment is unsafe: the file could be changed by others"
        )]
        // SAFETY: the folder was made by this program for itself, and nobody else opens or changes the file.
        let env = unsafe { options.open(dir)? };
        let mut txn = env.write_txn()?;
        let tree = env.create_database(&mut txn, Some(TREE))?;
        txn.commit()?;
        Ok(Self { env, tree })
    }

    fn write(&self, entries: &[Entry<'_>], flags: PutFlags) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in entries {
            self.tree.put_with_flags(&mut txn, flags, key, value)?;
        }
        Ok(txn.commit()?)
    }
}

/// Makes a file what it would be without a past: its pages in order, and no free list, which every commit of LMDB writes
/// anew.
pub fn make_fresh(dir: &Path) -> Result<()> {
    let compacted = dir.join("compacted");
    Lmdb::open(dir)?.env.copy_to_path(&compacted, CompactionOption::Enabled)?;
    Ok(std::fs::rename(compacted, dir.join("data.mdb"))?)
}

impl Store for Lmdb {
    fn put(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.write(entries, PutFlags::empty())
    }

    fn append(&self, entries: &[Entry<'_>]) -> Result<()> {
        self.write(entries, PutFlags::APPEND)
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Snapshot) -> Result<()>) -> Result<()> {
        let txn = self.env.read_txn()?;
        work(&mut Reading { txn: &txn, tree: self.tree })
    }
}

struct Reading<'a> {
    txn: &'a RoTxn<'a>,
    tree: Database<Bytes, Bytes>,
}

impl Snapshot for Reading<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<(usize, u64)>> {
        Ok(self.tree.get(self.txn, key)?.map(|value| (value.len(), touch(value))))
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut count, mut sum) = (0, 0);
        for entry in self.tree.iter(self.txn)? {
            count += 1;
            sum += touch(entry?.1);
        }
        Ok((count, sum))
    }
}
