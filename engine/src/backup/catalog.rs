//! What there is in a place for backups: chains, what was left unfinished, and what cannot be relied on.
//!
//! A folder (the objects whose names begin with a backup's name) is one of these:
//!
//! | manifest | `expired` | `progress` | parts | it is |
//! | --- | --- | --- | --- | --- |
//! | any | yes | any | any | being removed: nobody counts on it any more |
//! | yes | no | any | those of the manifest | a backup |
//! | yes, not sealed | no | any | one more, of this backup and the next number | a backup that grows, cut off in a step |
//! | yes | no | any | others | a problem: a part is missing, of another length, or too many |
//! | no | no | yes | any | interrupted |
//! | no | no | no | any | a problem: its manifest is missing |
//!
//! So `progress` is put before the first part and goes after the manifest, and `expired` is put before the manifest goes and
//! goes last. An order in which a crash anywhere leaves another line of the table would take a lost manifest for an
//! unfinished backup, and a restore would end earlier than it was told to, silently.
//!
//! Backups make a chain where the manifest of one names the other's name and hash, and begins where that ends.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_128;

use super::Backups;
use super::error::ChainError;
use super::id::BackupId;
use super::manifest::{BackupKind, Manifest};
use super::output::{PART_HEADER_BYTES, expired_name, manifest_name, part_header, part_name, progress_name};
use super::store::{BackupStore, ObjectInfo};

/// No manifest is longer, in bytes: one of a backup of 64 TiB is not.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// A backup whose manifest and whose parts' lengths were looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// What it is.
    pub manifest: Manifest,
    /// The XXH3-128 of the manifest's bytes, by which its child names it.
    pub manifest_hash: u128,
}

/// A full backup with its increments.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Chain {
    /// The full one, then the increments in order.
    pub backups: Vec<Backup>,
}

impl Chain {
    /// The full backup.
    #[must_use]
    pub fn full(&self) -> &Manifest {
        &self.backups[0].manifest
    }

    /// The newest of its backups, which is the full one if there are no increments.
    #[must_use]
    pub fn newest(&self) -> &Backup {
        self.backups.last().expect("a chain has a full backup")
    }

    /// The stored bytes of the increments.
    #[must_use]
    pub fn increment_bytes(&self) -> u64 {
        self.backups[1..].iter().map(|backup| backup.manifest.stored_bytes).sum()
    }

    /// The stored bytes of all of it.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.full().stored_bytes + self.increment_bytes()
    }

    /// Whether the increments take more than half of what the full backup takes: then the next one is full.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.increment_bytes() > self.full().stored_bytes / 2
    }
}

/// What a backup left that was not finished, or not wholly removed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Leftover {
    /// The backup.
    pub id: BackupId,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// Whether it is being removed; else it was interrupted, and may go on.
    pub expired: bool,
}

/// Something that cannot be relied on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupProblem {
    /// The backup that it is found in.
    pub id: BackupId,
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// What there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Catalog {
    /// Chains whose manifests agree, oldest full backup first.
    pub chains: Vec<Chain>,
    /// What was not finished, or not wholly removed.
    pub leftovers: Vec<Leftover>,
    /// What cannot be relied on. Backups that need it are in no chain.
    pub problems: Vec<BackupProblem>,
}

impl Catalog {
    /// The newest name that was given.
    pub(super) fn newest_id(&self) -> Option<BackupId> {
        let backups = self.chains.iter().flat_map(|chain| &chain.backups).map(|backup| backup.manifest.backup_id());
        let others = self.leftovers.iter().map(|leftover| &leftover.id);
        backups.chain(others.chain(self.problems.iter().map(|problem| &problem.id)).cloned()).max()
    }
}

impl Backups {
    /// Looks at what there is: the manifests, and which objects stand beside them. Reads no part.
    ///
    /// # Errors
    /// When the place cannot be read. What is wrong with the backups is in the catalog.
    pub fn list(&self) -> Result<Catalog, ChainError> {
        let mut folders: BTreeMap<BackupId, Vec<ObjectInfo>> = BTreeMap::new();
        for object in self.store.list("")? {
            // What is of no backup is somebody else's.
            let id = object.name.split_once('/').and_then(|(folder, _)| BackupId::parse(folder));
            if let Some(id) = id {
                folders.entry(id).or_default().push(object);
            }
        }
        let mut catalog = Catalog::default();
        let mut backups = Vec::new();
        for (id, objects) in folders {
            match look(&*self.store, &id, &objects)? {
                Folder::Backup(backup) => backups.push(*backup),
                Folder::Leftover(leftover) => catalog.leftovers.push(leftover),
                Folder::Problem(object, what) => catalog.problems.push(BackupProblem { id, object, what }),
                Folder::Double(of, object) => {
                    let what = format!("it is the manifest of backup {of}");
                    catalog.problems.push(BackupProblem { id: of, object, what });
                }
            }
        }
        chain_up(backups, &mut catalog);
        Ok(catalog)
    }
}

enum Folder {
    Backup(Box<Backup>),
    Leftover(Leftover),
    Problem(String, String),
    /// It says that it is this one: which of the two can be relied on is not known.
    Double(BackupId, String),
}

/// What a folder is, by the table above.
fn look(store: &dyn BackupStore, id: &BackupId, objects: &[ObjectInfo]) -> Result<Folder, ChainError> {
    let lengths: BTreeMap<&str, u64> = objects.iter().map(|object| (object.name.as_str(), object.bytes)).collect();
    let has = |name: String| lengths.contains_key(name.as_str());
    let bytes = lengths.values().sum();
    let leftover = |expired| Ok(Folder::Leftover(Leftover { id: id.clone(), bytes, expired }));
    let name = manifest_name(id);
    if has(expired_name(id)) {
        return leftover(true);
    }
    let Some(length) = lengths.get(name.as_str()) else {
        if has(progress_name(id)) {
            return leftover(false);
        }
        return Ok(Folder::Problem(name, "it is missing, and the backup was not interrupted".into()));
    };
    if *length > MAX_MANIFEST_BYTES {
        return Ok(Folder::Problem(name, format!("it has {length} bytes: no manifest is so long")));
    }
    let text = store.read(&name, 0, usize::try_from(*length).expect("bounded"))?;
    let manifest = match Manifest::decode(&text) {
        Ok(manifest) if manifest.id == id.as_str() => manifest,
        Ok(manifest) => return Ok(Folder::Double(manifest.backup_id(), name)),
        Err(what) => return Ok(Folder::Problem(name, what)),
    };
    if let Some((object, what)) = wrong_parts(store, id, &manifest, &lengths)? {
        return Ok(Folder::Problem(object, what));
    }
    Ok(Folder::Backup(Box::new(Backup { manifest, manifest_hash: xxh3_128(&text) })))
}

/// The first object that is not there as the manifest says.
fn wrong_parts(
    store: &dyn BackupStore,
    id: &BackupId,
    manifest: &Manifest,
    lengths: &BTreeMap<&str, u64>,
) -> Result<Option<(String, String)>, ChainError> {
    let mut known = BTreeSet::from([manifest_name(id), progress_name(id)]);
    for (number, part) in (1..).zip(&manifest.parts) {
        let name = part_name(id, number);
        match lengths.get(name.as_str()) {
            None => return Ok(Some((name, "it is missing".into()))),
            Some(length) if *length != part.bytes => {
                let should = part.bytes;
                return Ok(Some((name, format!("it has {length} bytes, and should have {should}"))));
            }
            Some(_) => known.insert(name),
        };
    }
    for name in lengths.keys().filter(|name| !known.contains(**name)) {
        let next = manifest.parts.len() + 1;
        let cut_off = !manifest.sealed
            && **name == part_name(id, next)
            && store.read(name, 0, PART_HEADER_BYTES)? == part_header(id, next);
        if !cut_off {
            return Ok(Some(((*name).to_owned(), "the manifest does not name it: it belongs elsewhere".into())));
        }
    }
    Ok(None)
}

/// Puts backups into chains, oldest first, so that a parent comes before its children.
fn chain_up(backups: Vec<Backup>, catalog: &mut Catalog) {
    let whose = |manifest: &Manifest| (manifest.database_id, manifest.cluster_id, manifest.timeline);
    let first = backups.first().map(|backup| whose(&backup.manifest));
    let mut problem = |manifest: &Manifest, what: String| {
        let id = manifest.backup_id();
        let object = manifest_name(&id);
        catalog.problems.push(BackupProblem { id, object, what });
    };
    let mut chains: Vec<Chain> = Vec::new();
    for backup in backups {
        let manifest = &backup.manifest;
        if Some(whose(manifest)) != first {
            let (database, cluster) = (manifest.database_id(), manifest.cluster_id());
            problem(manifest, format!("it is of database {database} and cluster {cluster}, and others here are not"));
            continue;
        }
        let Some(parent) = &manifest.parent else {
            assert_eq!(manifest.kind, BackupKind::Full, "checked when it was read");
            chains.push(Chain { backups: vec![backup] });
            continue;
        };
        let follows = |chain: &&mut Chain| chain.backups.iter().any(|earlier| earlier.manifest.id == parent.id);
        let Some(chain) = chains.iter_mut().find(follows) else {
            problem(manifest, format!("its parent, backup {}, is missing or cannot be relied on", parent.id));
            continue;
        };
        match why_not_next(chain.newest(), manifest) {
            Some(what) => problem(manifest, what),
            None => chain.backups.push(backup),
        }
    }
    catalog.chains = chains;
}

/// Why a backup is not the next one of a chain that ends so.
fn why_not_next(last: &Backup, next: &Manifest) -> Option<String> {
    let parent = next.parent.as_ref().expect("an increment");
    let before = &last.manifest;
    if parent.id != before.id {
        return Some(format!("backup {} follows {} already: there are two histories", before.id, parent.id));
    }
    if parent.manifest != last.manifest_hash {
        return Some(format!("backup {} is not the one that it was made after", before.id));
    }
    (next.start != before.end).then(|| format!("it does not begin where backup {} ends", before.id))
}
