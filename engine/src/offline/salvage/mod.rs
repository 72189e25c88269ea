//! Copying what is still readable of a damaged directory into a new database, and telling what is not.
//!
//! The directory is only read. From the data file, and the frames over it as far as they can be read, a state is built
//! in memory, as a check does; of that state every tree is walked, around what is damaged ([`walk`]). Then come the pages
//! that no walk has reached ([`orphans`]): what hangs below a branch that is lost. All entries are put into a new database
//! by its own transactions ([`copy`]), so that nothing of the old pages is taken over, but keys and values.
//!
//! # What cannot be told
//!
//! - A page does not say to which tree it belongs. Below a lost branch, the pages that nothing else refers to are found
//!   by their kind, and belong where their keys, their height and what their leaves hold fit. If they fit in more than one place, or in none
//!   since the tree of trees is lost, they become a tree of their own, `lost-page-N`.
//!   So it is with a page of a tree of values: it does not say to which key it belongs. It looks the same as a leaf of a plain
//!   tree whose values are empty, so that a tree of its own is a plain one, with the values as keys.
//! - A page of a long value does not say whose it is: if the entry is lost, so is the value.
//! - Versions (which transaction wrote a key) are new: every entry is written anew.
//! - If frames are missing that would bring the data file to one state, it may be a mixture of several: each entry was
//!   there at some time, but not all of them at the same. [`SalvageReport::is_mixture`] says so.
//!
//! # Crash by crash
//!
//! The new database is built beside its place, under the name with `.salvage` behind it, closed, and checked; then one
//! rename brings it to its place, and the directory above is synced. A crash before leaves the other name, which nobody
//! takes for the result; a failure takes it away again.

mod copy;
mod orphans;
mod place;
mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::state::{OfflineState, Stop};
use super::{DirectoryReport, check_directory};
use crate::btree::{PageSource, ReadError, TreeKind, TreeState};
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::SLOT_BYTES;
use crate::database::WriteError;
use crate::engine::{Engine, OpenError, Paths, take_lock};
use crate::env::Disk;
use crate::error::StorageError;
use crate::ids::{ClusterId, LogId, LogIndex, PageNumber, TxnId};
use crate::journal::{Survey, survey};
use crate::page::PAGE_BYTES;
use crate::slots::SlotFile;
use crate::verify::Progress;
use copy::Copier;
use place::Hole;
use walk::Walk;

/// What was found and copied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The entry as of which the state was built; `None` before the first, or if `node.meta` could not be read.
    pub state_at: Option<LogId>,
    /// The transaction of that state.
    pub txn_id: TxnId,
    /// Whether the pages may be of several states.
    pub is_mixture: bool,
    /// The trees of the new database, by name.
    pub trees: BTreeMap<String, Salvaged>,
    /// What could not be copied, or not to where it belongs.
    pub lost: Vec<Lost>,
    /// Pages of long values that no entry refers to any more.
    pub ownerless_value_pages: u64,
}

/// What was copied into a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Salvaged {
    /// What it holds under a key.
    pub kind: TreeKind,
    /// How many entries; in a multi-value tree, how many keys.
    pub entries: u64,
    /// How many values: in a plain tree one for each entry.
    pub values: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
}

/// Something that could not be copied.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Lost {
    /// The tree; `None` if that is not known, or it is about all of them.
    pub tree: Option<String>,
    /// The key under which values are lost, in a multi-value tree: then `from` and `to` are values. `None` if keys are lost.
    pub key: Option<Vec<u8>>,
    /// The first key that may be lost; `None` if there is no bound.
    pub from: Option<Vec<u8>>,
    /// The key before which the lost ones end; `None` if there is no bound. For a single entry, its key again.
    pub to: Option<Vec<u8>>,
    /// The page.
    pub page: Option<PageNumber>,
    /// What is wrong.
    pub reason: String,
}

/// Why nothing was copied. The new directory is not there.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// The damaged directory cannot be looked at.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is something where the new directory should be.
    #[error("{} is not empty; choose another directory, or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// The new directory would be a part of the damaged one.
    #[error("{} lies within the damaged directory; choose another one", .0.display())]
    Within(PathBuf),
    /// An earlier salvage to the same place was interrupted.
    #[error("{} is what an interrupted salvage left; remove it first", .0.display())]
    Unfinished(PathBuf),
    /// There is no data file to read from.
    #[error("there is no generation, or no data file in it: nothing can be read")]
    NoData,
    /// The new database could not be written.
    #[error("the new database could not be written: {0}")]
    Write(#[from] WriteError),
    /// The new database is not what was written to it.
    #[error("the new database is damaged too, so the disk must be: {0}")]
    NewIsDamaged(String),
}

impl From<ReadError> for SalvageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Storage(error) => Self::Storage(error),
            error => Self::Storage(StorageError::corrupted("data", 0, error.to_string())),
        }
    }
}

impl SalvageReport {
    /// Whether all of it was copied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && !self.is_mixture && self.ownerless_value_pages == 0
    }

    fn lose(&mut self, tree: Option<&str>, page: Option<PageNumber>, reason: impl Into<String>) {
        let (tree, reason) = (tree.map(str::to_owned), reason.into());
        self.lost.push(Lost { tree, key: None, from: None, to: None, page, reason });
    }
}

/// Copies what is readable of the directory `from` into a new database in `to`, which must not exist, or be empty.
///
/// # Errors
/// [`SalvageError`]: then `to` is as it was.
pub fn salvage(
    disk: &Arc<dyn Disk>,
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<SalvageReport, SalvageError> {
    if to.starts_with(from) {
        return Err(SalvageError::Within(to.to_path_buf()));
    }
    if disk.exists(to)? && !disk.list_dir(to)?.is_empty() {
        return Err(SalvageError::NotEmpty(to.to_path_buf()));
    }
    let unfinished = to.with_added_extension("salvage");
    if disk.exists(&unfinished)? {
        return Err(SalvageError::Unfinished(unfinished));
    }
    let mut report = SalvageReport::default();
    let state = read_state(disk, from, &mut report)?;
    let made = fill(disk, &state, &unfinished, &mut report, progress).and_then(|()| {
        disk.rename(&unfinished, to)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(disk.sync_dir(parent.unwrap_or(Path::new(".")))?)
    });
    if made.is_err() && disk.exists(&unfinished).unwrap_or(false) {
        // What is there is known to be no result by its name, should this fail too.
        disk.remove_dir_all(&unfinished).unwrap_or(());
    }
    made.map(|()| report)
}

/// Builds the state to copy from, as late as it can be had.
fn read_state(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    report: &mut SalvageReport,
) -> Result<OfflineState, SalvageError> {
    if !Engine::exists(&**disk, directory)? {
        return Err(OpenError::Missing(directory.to_path_buf()).into());
    }
    let lock = take_lock(&**disk, directory)?;
    let file = Paths::meta(directory);
    let found = SlotFile::look(&**disk, &file, SLOT_BYTES).ok();
    let meta = found.and_then(|found| NodeMeta::decode(&found.payload).ok());
    let generation = match &meta {
        Some(meta) => Some(meta.generation),
        None => Paths::highest_generation(&**disk, directory)?,
    };
    let home = Paths::generation(directory, generation.ok_or(SalvageError::NoData)?);
    if meta.is_none() {
        report.is_mixture = true;
        report.lose(None, None, "node.meta: which state the data file is in is not certain");
    }
    let journal = survey(disk, &Paths::journal(&home), &mut |_, _, _| {});
    let journal = journal.unwrap_or_else(|error| {
        report.lose(None, None, format!("the journal cannot be read: {error}"));
        Survey::default()
    });
    for damage in &journal.damage {
        let reason = format!("frame {} of the journal, and what builds on it: {}", damage.index, damage.error());
        report.lose(None, None, reason);
    }
    let (start, target) = meta.as_ref().map(|meta| (meta.checkpoint.clone(), meta.target.log_id)).unwrap_or_default();
    let until = target.map(|log_id| log_id.index).max(meta.as_ref().and_then(|meta| committed(meta, &journal)));
    if !disk.exists(&Paths::data(&home))? {
        return Err(SalvageError::NoData);
    }
    let (state, stop) = OfflineState::build(disk, &home, start, until, lock)?;
    if let Some(Stop::Record(index, what)) = &stop {
        report.lose(None, None, format!("frame {index} of the journal, and what builds on it: {what}"));
    }
    if matches!(stop, Some(Stop::OtherHistory)) {
        report.lose(None, None, "the journal, which is of another history than the data file");
    }
    report.is_mixture |= state.applied.log_id < target;
    (report.state_at, report.txn_id) = (state.applied.log_id, state.applied.txn_id);
    Ok(state)
}

/// How far frames are known to be committed. In a database alone, what is durable is.
fn committed(meta: &NodeMeta, journal: &Survey) -> Option<LogIndex> {
    if meta.identity.cluster_id == ClusterId(0) { journal.last.map(|last| last.index) } else { journal.commit }
}

/// Makes the new database, and proves it sound.
fn fill(
    disk: &Arc<dyn Disk>,
    state: &OfflineState,
    at: &Path,
    report: &mut SalvageReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), SalvageError> {
    let in_file = u32::try_from(state.data.bytes()?.div_ceil(PAGE_BYTES as u64)).unwrap_or(u32::MAX);
    let page_count = state.superblock.as_ref().map_or(in_file, |superblock| superblock.page_count);
    let mut copy = Copier::new(disk.clone(), at)?;
    let mut walk = Walk::new(state, page_count);
    match &state.superblock {
        Ok(superblock) => {
            let names = names(&mut walk, &superblock.trees, report)?;
            for (name, tree) in &names {
                progress(Progress::Trees(report.trees.len() as u64));
                copy.tree(name, tree.kind, report)?;
                walk.tree(name, tree, &mut copy, report)?;
            }
        }
        Err(what) => {
            walk.holes.push(Hole::all_names());
            report.lose(None, Some(PageNumber(0)), format!("{what}; so the names of all trees"));
        }
    }
    orphans::copy(&mut walk, &mut copy, report, progress)?;
    copy.finish(report)?;
    let checked: DirectoryReport = check_directory(disk, at, &mut |_| {})?;
    match checked.findings.first() {
        None => Ok(()),
        Some(finding) => Err(SalvageError::NewIsDamaged(finding.to_string())),
    }
}

/// The trees that the tree of trees names, as far as it can be read.
fn names<S: PageSource + ?Sized>(
    walk: &mut Walk<'_, S>,
    trees: &TreeState,
    report: &mut SalvageReport,
) -> Result<Vec<(String, TreeState)>, SalvageError> {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    walk.names(trees, report, |page, key, value| {
        let name = String::from_utf8(key.to_vec());
        match (name, TreeState::decode(value)) {
            (Ok(name), Some(state)) => found.push((name, state)),
            _ => bad.push((page, String::from_utf8_lossy(key).into_owned())),
        }
    })?;
    for (page, name) in bad {
        walk.holes.push(Hole::all_names());
        report.lose(Some(&name), Some(page), "the state of the tree makes no sense");
    }
    Ok(found)
}
