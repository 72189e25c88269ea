//! The state of a simulated disk: files, names, what is durable of them, and the troubles that are planned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::inode::Inode;
use super::trouble::{Call, Troubles};
use crate::env::OpenMode;
use crate::error::StorageError;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Directory,
    File(u64),
}

/// A change of names that no `sync_dir` has made durable. Its directories are those of the paths.
#[derive(Clone)]
pub(super) enum NameChange {
    Make(PathBuf, Node),
    Remove(PathBuf),
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

impl NameChange {
    pub fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Make(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }

    fn is_in(&self, directory: &Path) -> bool {
        match self {
            Self::Make(path, _) | Self::Remove(path) | Self::Rename { to: path, .. } => {
                path.parent() == Some(directory)
            }
        }
    }
}

pub(super) struct World {
    pub seed: u64,
    /// What is written whole or not at all, in bytes.
    pub unit_bytes: usize,
    pub inodes: BTreeMap<u64, Inode>,
    pub names: BTreeMap<PathBuf, Node>,
    pub durable_names: BTreeMap<PathBuf, Node>,
    /// Each with the operation that made it.
    pub name_changes: Vec<(u64, NameChange)>,
    pub locks: HashSet<PathBuf>,
    pub operations: u64,
    pub power_ends_at: Option<u64>,
    pub space_limit: Option<u64>,
    pub troubles: Troubles,
    next_inode: u64,
}

pub(super) fn failed(path: &Path, operation: &'static str, kind: ErrorKind) -> StorageError {
    StorageError::io(path, 0, operation, &kind.into())
}

impl World {
    pub fn new(seed: u64, unit_bytes: usize) -> Self {
        let names = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        Self::with(seed, unit_bytes, BTreeMap::new(), names, 1)
    }

    /// A disk where everything is durable.
    pub fn with(
        seed: u64,
        unit_bytes: usize,
        inodes: BTreeMap<u64, Inode>,
        names: BTreeMap<PathBuf, Node>,
        next_inode: u64,
    ) -> Self {
        Self {
            seed,
            unit_bytes,
            inodes,
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            locks: HashSet::new(),
            operations: 0,
            power_ends_at: None,
            space_limit: None,
            troubles: Troubles::new(seed),
            next_inode,
        }
    }

    pub fn next_inode(&self) -> u64 {
        self.next_inode
    }

    /// The same disk for the next process: what is not synced is still not synced. Locks are free, and no trouble is
    /// planned.
    pub fn kill(&self) -> Self {
        let inodes = self.inodes.clone();
        let mut troubles = Troubles::new(self.seed);
        troubles.short = self.troubles.short;
        Self {
            troubles,
            names: self.names.clone(),
            name_changes: self.name_changes.clone(),
            // Operations go on being numbered where they were: what is pending has the lower numbers.
            operations: self.operations,
            ..Self::with(self.seed, self.unit_bytes, inodes, self.durable_names.clone(), self.next_inode)
        }
    }

    pub fn power_is_gone(&self) -> bool {
        self.power_ends_at.is_some_and(|end| self.operations >= end)
    }

    pub fn gone() -> Error {
        Error::other("the disk is gone")
    }

    /// Fails once the power is gone.
    pub fn powered(&self, path: &Path) -> Result<(), StorageError> {
        if self.power_is_gone() {
            return Err(StorageError::io(path, 0, "access", &Self::gone()));
        }
        Ok(())
    }

    /// Counts an operation that changes something, and returns its number; `None` once the power is gone.
    pub fn count(&mut self) -> Option<u64> {
        if self.power_is_gone() {
            return None;
        }
        self.operations += 1;
        Some(self.operations)
    }

    /// The same, for those that name the path.
    pub fn operate(&mut self, path: &Path) -> Result<u64, StorageError> {
        self.powered(path)?;
        Ok(self.count().expect("the power is on"))
    }

    pub fn inode_mut(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an open file is there")
    }

    pub fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().filter_map(|node| self.file_of(*node)).collect();
        named.iter().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }

    fn file_of(&self, node: Node) -> Option<u64> {
        if let Node::File(inode) = node { Some(inode) } else { None }
    }

    /// Whether a file may grow to `length` within the limit on space.
    pub fn has_space(&self, inode: u64, length: u64) -> bool {
        let Some(limit) = self.space_limit else { return true };
        let grows = length.saturating_sub(self.inodes[&inode].current.len() as u64);
        grows == 0 || self.used_bytes() + grows <= limit
    }

    fn change_names(&mut self, operation: u64, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push((operation, change));
    }

    fn parent_is_there(&self, path: &Path, operation: &'static str) -> Result<(), StorageError> {
        let parent = path.parent().and_then(|parent| self.names.get(parent));
        if parent == Some(&Node::Directory) { Ok(()) } else { Err(failed(path, operation, ErrorKind::NotFound)) }
    }

    pub fn open(&mut self, path: &Path, mode: OpenMode) -> Result<u64, StorageError> {
        self.powered(path)?;
        match (self.names.get(path).copied(), mode) {
            (Some(Node::File(inode)), OpenMode::Read | OpenMode::Write | OpenMode::WriteBlocks) => Ok(inode),
            (Some(Node::Directory), _) => Err(failed(path, "open", ErrorKind::IsADirectory)),
            (Some(_), OpenMode::CreateNew) => Err(failed(path, "create", ErrorKind::AlreadyExists)),
            (None, OpenMode::Read | OpenMode::Write | OpenMode::WriteBlocks) => {
                Err(failed(path, "open", ErrorKind::NotFound))
            }
            (None, OpenMode::CreateNew) => {
                self.parent_is_there(path, "create")?;
                let operation = self.operate(path)?;
                let inode = self.next_inode;
                self.next_inode += 1;
                self.inodes.insert(inode, Inode::new(self.unit_bytes));
                self.change_names(operation, NameChange::Make(path.to_path_buf(), Node::File(inode)));
                Ok(inode)
            }
        }
    }

    pub fn create_dir_all(&mut self, path: &Path) -> Result<(), StorageError> {
        self.powered(path)?;
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !self.names.contains_key(*path)).collect();
        if !path.is_absolute() {
            return Err(failed(path, "create directory", ErrorKind::InvalidInput));
        }
        for directory in missing.into_iter().rev() {
            let operation = self.operate(directory)?;
            self.change_names(operation, NameChange::Make(directory.to_path_buf(), Node::Directory));
        }
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            _ => Err(failed(path, "create directory", ErrorKind::AlreadyExists)),
        }
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let Some(node @ Node::File(_)) = self.names.get(from).copied() else {
            return Err(failed(from, "rename", ErrorKind::NotFound));
        };
        self.parent_is_there(to, "rename")?;
        let operation = self.operate(from)?;
        self.change_names(operation, NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), node });
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> Result<(), StorageError> {
        let Some(Node::File(_)) = self.names.get(path) else {
            return Err(failed(path, "remove", ErrorKind::NotFound));
        };
        let operation = self.operate(path)?;
        self.change_names(operation, NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    pub fn remove_dir_all(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.names.get(path) != Some(&Node::Directory) {
            return Err(failed(path, "remove", ErrorKind::NotFound));
        }
        let inside: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in inside.into_iter().rev() {
            let operation = self.operate(path)?;
            self.change_names(operation, NameChange::Remove(name));
        }
        Ok(())
    }

    pub fn sync_dir(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.names.get(path) != Some(&Node::Directory) {
            return Err(failed(path, "sync directory", ErrorKind::NotFound));
        }
        self.operate(path)?;
        if self.troubles.strike(Call::SyncDirectory, path).is_some() {
            return Err(StorageError::io(path, 0, "sync directory", &Error::other("injected")));
        }
        let changes = std::mem::take(&mut self.name_changes);
        let (synced, rest) = changes.into_iter().partition(|(_, change)| change.is_in(path));
        self.name_changes = rest;
        let synced: Vec<(u64, NameChange)> = synced;
        synced.iter().for_each(|(_, change)| change.apply(&mut self.durable_names));
        Ok(())
    }

    pub fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) {
        let Some(Node::File(inode)) = self.names.get(path).copied() else { panic!("no file {}", path.display()) };
        let inode = self.inode_mut(inode);
        let at = usize::try_from(offset).expect("within the file");
        assert!(bit < 8 && at < inode.current.len(), "bit {bit} of byte {at} of {}", inode.current.len());
        inode.flip_bit(at, bit);
    }

    /// What tells disks apart whose every change is durable: names, lengths and bytes.
    pub fn hash(&self) -> u128 {
        let mut hasher = Xxh3Default::new();
        for (path, node) in &self.durable_names {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0]);
            if let Node::File(inode) = node {
                self.inodes[inode].durable.hashes().for_each(|hash| hasher.update(&hash.to_le_bytes()));
            }
        }
        hasher.digest128()
    }
}
