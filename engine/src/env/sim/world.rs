//! The state of a simulated disk: files, names, what is durable of them, and the errors to inject.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::env::OpenMode;
use crate::error::StorageError;

/// The unit that is written whole or not at all, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Directory,
    File(u64),
}

/// A change that no sync has made durable.
#[derive(Clone)]
pub(super) enum Unsynced {
    /// The whole content of a sector after a write.
    Sector { number: usize, content: Box<[u8; SECTOR_BYTES]> },
    /// The length after a change of it.
    Length(usize),
}

impl Unsynced {
    fn sector(&self) -> Option<usize> {
        if let Self::Sector { number, .. } = self { Some(*number) } else { None }
    }
}

/// A file, whatever its names are. `current` is what reads see.
#[derive(Clone, Default)]
pub(super) struct Inode {
    pub current: Vec<u8>,
    pub durable: Vec<u8>,
    /// Older than what is in `unsynced`: sectors that a failed sync has given up. No later sync writes them.
    pub given_up: Vec<Unsynced>,
    pub unsynced: Vec<Unsynced>,
}

impl Inode {
    /// Notes the sectors that hold `from..to`, as they are now.
    fn note_sectors(&mut self, from: usize, to: usize) {
        for number in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            let start = number * SECTOR_BYTES;
            let end = self.current.len().min(start + SECTOR_BYTES);
            let mut content = Box::new([0; SECTOR_BYTES]);
            if start < end {
                content[..end - start].copy_from_slice(&self.current[start..end]);
            }
            self.unsynced.push(Unsynced::Sector { number, content });
        }
    }

    pub fn set_len(&mut self, length: usize) {
        let before = self.current.len();
        self.current.resize(length, 0);
        self.unsynced.push(Unsynced::Length(length));
        // What was cut reads as zeros if the file grows again.
        self.note_sectors(length.min(before), length.max(before));
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.current.len() {
            self.set_len(end);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.note_sectors(offset, end);
    }

    pub fn zero(&mut self, from: usize, to: usize) {
        let to = to.min(self.current.len());
        if from < to {
            self.current[from..to].fill(0);
            self.note_sectors(from, to);
        }
    }

    pub fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        apply(&mut self.durable, unsynced.iter(), self.current.len());
        let written: HashSet<usize> = unsynced.iter().filter_map(Unsynced::sector).collect();
        self.given_up.retain(|change| change.sector().is_some_and(|sector| !written.contains(&sector)));
        debug_assert!(!self.given_up.is_empty() || self.durable == self.current);
    }

    /// A sync that fails: the sectors count as clean from now on. A change of length waits for the next one.
    pub fn fail_sync(&mut self) {
        let (lengths, sectors) = std::mem::take(&mut self.unsynced).into_iter().partition(|it| it.sector().is_none());
        self.unsynced = lengths;
        self.given_up.extend::<Vec<Unsynced>>(sectors);
    }
}

/// Brings an image to the given changes and length.
pub(super) fn apply<'a>(image: &mut Vec<u8>, changes: impl Iterator<Item = &'a Unsynced>, length: usize) {
    // Room for whole sectors, whatever the lengths on the way were.
    let longest = image.len().max(length).next_multiple_of(SECTOR_BYTES);
    image.resize(longest, 0);
    for change in changes {
        if let Unsynced::Sector { number, content } = change
            && let Some(sector) = image.get_mut(number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES)
        {
            sector.copy_from_slice(&content[..]);
        }
    }
    image.truncate(length);
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
    pub inodes: BTreeMap<u64, Inode>,
    pub names: BTreeMap<PathBuf, Node>,
    pub durable_names: BTreeMap<PathBuf, Node>,
    pub name_changes: Vec<NameChange>,
    pub locks: HashSet<PathBuf>,
    pub operations: u64,
    pub power_ends_at: Option<u64>,
    pub fail_next_sync: bool,
    pub fail_next_sync_of: Option<PathBuf>,
    pub space_limit: Option<u64>,
    next_inode: u64,
}

pub(super) fn failed(path: &Path, operation: &'static str, kind: ErrorKind) -> StorageError {
    StorageError::io(path, 0, operation, &kind.into())
}

impl World {
    pub fn new(seed: u64) -> Self {
        let names = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        Self::with(seed, BTreeMap::new(), names, 1)
    }

    /// A disk where everything is durable.
    pub fn with(seed: u64, inodes: BTreeMap<u64, Inode>, names: BTreeMap<PathBuf, Node>, next_inode: u64) -> Self {
        Self {
            seed,
            inodes,
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            locks: HashSet::new(),
            operations: 0,
            power_ends_at: None,
            fail_next_sync: false,
            fail_next_sync_of: None,
            space_limit: None,
            next_inode,
        }
    }

    pub fn next_inode(&self) -> u64 {
        self.next_inode
    }

    /// The same disk for the next process: what is not synced is still not synced. Locks are free, and no trouble is
    /// planned.
    pub fn kill(&self) -> Self {
        Self {
            names: self.names.clone(),
            name_changes: self.name_changes.clone(),
            ..Self::with(self.seed, self.inodes.clone(), self.durable_names.clone(), self.next_inode)
        }
    }

    /// Fails once the power is gone.
    pub fn powered(&self, path: &Path) -> Result<(), StorageError> {
        if self.power_ends_at.is_some_and(|end| self.operations >= end) {
            let gone = Error::other("the disk is gone");
            return Err(StorageError::io(path, 0, "access", &gone));
        }
        Ok(())
    }

    /// Counts an operation that changes something.
    pub fn operate(&mut self, path: &Path) -> Result<(), StorageError> {
        self.powered(path)?;
        self.operations += 1;
        Ok(())
    }

    pub fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().filter_map(|node| self.file_of(*node)).collect();
        named.iter().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }

    fn file_of(&self, node: Node) -> Option<u64> {
        if let Node::File(inode) = node { Some(inode) } else { None }
    }

    /// Fails if growing a file to `length` would go beyond the limit on space.
    pub fn check_space(&self, path: &Path, inode: u64, length: u64) -> Result<(), StorageError> {
        let Some(limit) = self.space_limit else { return Ok(()) };
        let grows = length.saturating_sub(self.inodes[&inode].current.len() as u64);
        if grows > 0 && self.used_bytes() + grows > limit {
            return Err(failed(path, "write", ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
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
                self.operate(path)?;
                let inode = self.next_inode;
                self.next_inode += 1;
                self.inodes.insert(inode, Inode::default());
                self.change_names(NameChange::Make(path.to_path_buf(), Node::File(inode)));
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
            self.operate(directory)?;
            self.change_names(NameChange::Make(directory.to_path_buf(), Node::Directory));
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
        self.operate(from)?;
        self.change_names(NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), node });
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> Result<(), StorageError> {
        let Some(Node::File(_)) = self.names.get(path) else {
            return Err(failed(path, "remove", ErrorKind::NotFound));
        };
        self.operate(path)?;
        self.change_names(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    pub fn remove_dir_all(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.names.get(path) != Some(&Node::Directory) {
            return Err(failed(path, "remove", ErrorKind::NotFound));
        }
        let inside: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in inside.into_iter().rev() {
            self.operate(path)?;
            self.change_names(NameChange::Remove(name));
        }
        Ok(())
    }

    pub fn sync_dir(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.names.get(path) != Some(&Node::Directory) {
            return Err(failed(path, "sync directory", ErrorKind::NotFound));
        }
        self.operate(path)?;
        let (synced, rest) = std::mem::take(&mut self.name_changes).into_iter().partition(|change| change.is_in(path));
        self.name_changes = rest;
        let synced: Vec<NameChange> = synced;
        synced.iter().for_each(|change| change.apply(&mut self.durable_names));
        Ok(())
    }

    pub fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) {
        let Some(Node::File(inode)) = self.names.get(path).copied() else { panic!("no file {}", path.display()) };
        let inode = self.inodes.get_mut(&inode).expect("a named file is there");
        let at = usize::try_from(offset).expect("within the file");
        assert!(bit < 8 && at < inode.current.len(), "bit {bit} of byte {at} of {}", inode.current.len());
        inode.current[at] ^= 1 << bit;
        if let Some(byte) = inode.durable.get_mut(at) {
            *byte ^= 1 << bit;
        }
        for change in inode.given_up.iter_mut().chain(&mut inode.unsynced) {
            if let Unsynced::Sector { number, content } = change
                && *number == at / SECTOR_BYTES
            {
                content[at % SECTOR_BYTES] ^= 1 << bit;
            }
        }
    }
}
