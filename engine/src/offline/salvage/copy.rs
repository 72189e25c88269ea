//! Writing entries into the new database, by its own transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::btree::multi::check_value;
use crate::btree::{TreeKind, check_entry};
use crate::database::Database;
use crate::engine::EngineOptions;
use crate::env::Disk;

use super::walk::Found;
use super::{Lost, SalvageError, SalvageReport};

/// So many bytes of keys and values go into one transaction, and so many entries.
const TXN_BYTES: usize = 2 << 20;
const TXN_ENTRIES: usize = 4096;

struct Entry {
    tree: String,
    key: Vec<u8>,
    value: Vec<u8>,
    /// What the tree holds under a key.
    kind: TreeKind,
}

pub(super) struct Copier {
    database: Database,
    trees: BTreeSet<String>,
    waiting: Vec<Entry>,
    waiting_bytes: usize,
    /// How many bytes of keys and values, by tree.
    copied: BTreeMap<String, u64>,
    /// Entries and values that bytes on the disk spoke of, and that no database can hold.
    impossible: Vec<Lost>,
}

impl Copier {
    pub fn new(disk: Arc<dyn Disk>, at: &Path) -> Result<Self, SalvageError> {
        let database = Database::open_with(disk, at, EngineOptions::default())?;
        Ok(Self {
            database,
            trees: BTreeSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            copied: BTreeMap::new(),
            impossible: Vec::new(),
        })
    }

    /// Makes a tree, with or without entries.
    pub fn tree(&mut self, name: &str, kind: TreeKind, report: &mut SalvageReport) -> Result<(), SalvageError> {
        self.database.write(|txn| match kind {
            TreeKind::Plain => txn.create_tree(name),
            TreeKind::Multi => txn.create_multi_tree(name),
        })?;
        self.trees.insert(name.to_owned());
        report.trees.entry(name.to_owned()).or_default();
        Ok(())
    }

    /// A name that no tree has.
    pub fn unused_name(&self, wish: &str) -> String {
        let mut name = wish.to_owned();
        while self.trees.contains(&name) {
            name.push('+');
        }
        name
    }

    /// Puts what was found into a tree that was made. An entry that is there under its key stays: it was reached from its
    /// tree.
    pub fn take(&mut self, tree: &str, found: Found<'_>) -> Result<(), SalvageError> {
        let (key, value, kind) = match found {
            Found::Entry(_, key, value) => (key, value, TreeKind::Plain),
            Found::Value(key, value) => (key, value, TreeKind::Multi),
        };
        let in_plain = if kind == TreeKind::Plain { value.len() } else { 0 };
        if check_entry(key, in_plain).is_err() || kind == TreeKind::Multi && check_value(value).is_err() {
            let reason = "a key or a value of a length that no entry has".to_owned();
            let (tree, from) = (Some(tree.to_owned()), Some(key.to_vec()));
            self.impossible.push(Lost { tree, key: None, from: from.clone(), to: from, page: None, reason });
            return Ok(());
        }
        self.waiting_bytes += key.len() + value.len();
        self.waiting.push(Entry { tree: tree.to_owned(), key: key.to_vec(), value: value.to_vec(), kind });
        if self.waiting_bytes >= TXN_BYTES || self.waiting.len() >= TXN_ENTRIES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SalvageError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let copied = self.database.write(|txn| {
            let mut copied: BTreeMap<&str, usize> = BTreeMap::new();
            for Entry { tree, key, value, kind } in &waiting {
                let bytes = match kind {
                    TreeKind::Plain if txn.get(tree, key)?.is_some() => 0,
                    TreeKind::Plain => {
                        txn.put(tree, key, value)?;
                        key.len() + value.len()
                    }
                    TreeKind::Multi if !txn.add(tree, key, value)? => 0,
                    // With the first value comes the key.
                    TreeKind::Multi if txn.count_values(tree, key)? == 1 => key.len() + value.len(),
                    TreeKind::Multi => value.len(),
                };
                *copied.entry(tree).or_default() += bytes;
            }
            Ok(copied)
        })?;
        for (tree, bytes) in copied.value {
            *self.copied.entry(tree.to_owned()).or_default() += bytes as u64;
        }
        Ok(())
    }

    /// Writes what waits, and closes the database with all of it in its data file.
    pub fn finish(mut self, report: &mut SalvageReport) -> Result<(), SalvageError> {
        self.flush()?;
        for info in self.database.read().list_trees()? {
            let all = report.trees.entry(info.name.clone()).or_default();
            (all.kind, all.entries, all.values) = (info.kind, info.entries, info.values);
            all.bytes = self.copied.get(&info.name).copied().unwrap_or(0);
        }
        report.lost.append(&mut self.impossible);
        self.database.engine().checkpoint().map_err(crate::database::WriteError::Unknown)?;
        Ok(())
    }
}
