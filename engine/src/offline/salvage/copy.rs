//! Writing entries into the new database, by its own transactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::btree::multi::check_value;
use crate::btree::{TreeKind, check_entry};
use crate::database::Database;
use crate::engine::EngineOptions;
use crate::env::Disk;

use super::{SalvageError, SalvageReport, Salvaged};

/// So many bytes of keys and values go into one transaction, and so many entries.
const TXN_BYTES: usize = 2 << 20;
const TXN_ENTRIES: usize = 4096;

struct Entry {
    tree: String,
    key: Vec<u8>,
    value: Vec<u8>,
}

pub(super) struct Copier {
    database: Database,
    trees: BTreeMap<String, TreeKind>,
    waiting: Vec<Entry>,
    waiting_bytes: usize,
    copied: Vec<(String, Salvaged)>,
    /// Entries that bytes on the disk spoke of, and that no database can hold.
    impossible: Vec<(String, Vec<u8>)>,
}

impl Copier {
    pub fn new(disk: Arc<dyn Disk>, at: &Path) -> Result<Self, SalvageError> {
        let database = Database::open_with(disk, at, EngineOptions::default())?;
        Ok(Self {
            database,
            trees: BTreeMap::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            copied: Vec::new(),
            impossible: Vec::new(),
        })
    }

    /// Makes a tree, with or without entries.
    pub fn tree(&mut self, name: &str, kind: TreeKind, report: &mut SalvageReport) -> Result<(), SalvageError> {
        let made = self.database.write(|txn| match kind {
            TreeKind::Plain => txn.create_tree(name),
            TreeKind::Multi => txn.create_multi_tree(name),
        });
        match made {
            Ok(_) => {
                self.trees.insert(name.to_owned(), kind);
                report.trees.entry(name.to_owned()).or_default();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A name that no tree has.
    pub fn unused_name(&self, wish: &str) -> String {
        let mut name = wish.to_owned();
        while self.trees.contains_key(&name) {
            name.push('+');
        }
        name
    }

    /// Puts an entry into a tree that was made, or adds a value to a multi-value tree. An entry that is there under its key
    /// stays: it was reached from its tree.
    pub fn put(&mut self, tree: &str, key: &[u8], value: &[u8]) -> Result<(), SalvageError> {
        let is_multi = self.trees.get(tree) == Some(&TreeKind::Multi);
        let can_be = if is_multi {
            check_entry(key, 0).is_ok() && check_value(value).is_ok()
        } else {
            check_entry(key, value.len()).is_ok()
        };
        if !can_be {
            self.impossible.push((tree.to_owned(), key.to_vec()));
            return Ok(());
        }
        self.waiting_bytes += key.len() + value.len();
        self.waiting.push(Entry { tree: tree.to_owned(), key: key.to_vec(), value: value.to_vec() });
        if self.waiting_bytes >= TXN_BYTES || self.waiting.len() >= TXN_ENTRIES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SalvageError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (copied, trees) = (&mut self.copied, &self.trees);
        self.database.write(|txn| {
            for Entry { tree, key, value } in &waiting {
                let is_new = if trees.get(tree) == Some(&TreeKind::Multi) {
                    txn.add(tree, key, value)?
                } else if txn.get(tree, key)?.is_none() {
                    txn.put(tree, key, value)?;
                    true
                } else {
                    false
                };
                if !is_new {
                    continue;
                }
                let bytes = (key.len() + value.len()) as u64;
                match copied.last_mut().filter(|(name, _)| name == tree) {
                    Some((_, done)) => {
                        done.entries += 1;
                        done.bytes += bytes;
                    }
                    None => copied.push((tree.clone(), Salvaged { entries: 1, bytes })),
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Writes what waits, and closes the database with all of it in its data file.
    pub fn finish(mut self, report: &mut SalvageReport) -> Result<(), SalvageError> {
        self.flush()?;
        for (name, done) in self.copied {
            let all = report.trees.entry(name).or_default();
            all.entries += done.entries;
            all.bytes += done.bytes;
        }
        for (tree, key) in self.impossible {
            let reason = "a key or a value of a length that no entry has".to_owned();
            let key = Some(key);
            report.lost.push(super::Lost { tree: Some(tree), from: key.clone(), to: key, page: None, reason });
        }
        self.database.engine().checkpoint().map_err(crate::database::WriteError::Unknown)?;
        Ok(())
    }
}
