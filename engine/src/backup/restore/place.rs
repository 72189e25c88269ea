//! The directory that is restored into.
//!
//! | `node.meta` | `restoring` | others | replace | |
//! | --- | --- | --- | --- | --- |
//! | no | no | none, or `lock` | any | build |
//! | no | yes | any | any | an interrupted restore: remove what it built, build |
//! | no | no | some | no | refused |
//! | no | no | some | yes | build behind the highest generation; what stands there stays until the switch |
//! | yes | any | any | no | refused: a database is there |
//! | yes | any | any | yes | build behind the highest generation; the old one stays until the switch |
//!
//! `restoring` is an empty file, durable before anything is built. It says of generations without a `node.meta` that they are
//! nobody's. Beside a `node.meta` it says nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::RestoreError;
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::SLOT_BYTES;
use crate::engine::{Engine, Paths, VOTE_SLOT_BYTES, Vote, read_meta, remove_other_generations, take_lock};
use crate::env::{Disk, OpenMode, create_dir_durable};
use crate::error::StorageError;
use crate::ids::{Generation, Term};
use crate::slots::SlotFile;

const MARK: &str = "restoring";

/// A directory, taken, and where in it the new generation is built.
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) generation: Generation,
    /// The new generation's directory, which is there and empty.
    pub(super) home: PathBuf,
    pub(super) lock: Arc<dyn Send + Sync>,
    /// The vote that the directory holds, if it holds one that can be read.
    pub(super) vote: Option<Vote>,
    switched: std::cell::Cell<bool>,
}

impl Place {
    /// Takes the directory, by the table above.
    pub(super) fn take(disk: &Arc<dyn Disk>, directory: &Path, replace: bool) -> Result<Self, RestoreError> {
        check(&**disk, directory, replace)?;
        create_dir_durable(&**disk, directory)?;
        let lock = take_lock(&**disk, directory).map_err(|error| match error {
            crate::engine::OpenError::Locked(directory) => RestoreError::Locked(directory),
            error => error.into(),
        })?;
        // Again: somebody may have come before the lock was taken.
        check(&**disk, directory, replace)?;
        let has_meta = Engine::exists(&**disk, directory)?;
        let mark = directory.join(MARK);
        if !has_meta && disk.exists(&mark)? {
            remove_other_generations(&**disk, directory, Generation(u64::MAX))?;
        }
        if let (true, Ok(meta)) = (has_meta, read_meta(&**disk, directory)) {
            remove_other_generations(&**disk, directory, meta.generation)?;
        }
        if !disk.exists(&mark)? {
            disk.open(&mark, OpenMode::CreateNew)?.sync_data()?;
        }
        disk.sync_dir(directory)?;
        // Of a directory without a `node.meta` no vote counts; one that cannot be read is lost.
        let read = || SlotFile::read(&**disk, &Paths::vote(directory), VOTE_SLOT_BYTES).ok();
        let vote = has_meta.then(read).flatten().and_then(|bytes| Vote::decode(&bytes).ok().flatten());
        let highest = Paths::highest_generation(&**disk, directory)?;
        let generation = highest.map_or(Generation(1), Generation::next);
        let home = Paths::generation(directory, generation);
        disk.create_dir_all(&home)?;
        Ok(Self {
            disk: disk.clone(),
            directory: directory.to_path_buf(),
            generation,
            home,
            lock,
            vote,
            switched: std::cell::Cell::new(false),
        })
    }

    /// The term of the new log's first entries: not above that of the vote, and not below any entry's before.
    pub(super) fn term(&self, last: Option<Term>) -> Term {
        let voted = self.vote.map(|vote| vote.term);
        voted.max(last).unwrap_or_default().max(Term(1))
    }

    /// Makes the new generation the directory's. See the order in [`super`].
    pub(super) fn switch(&self, meta: &NodeMeta) -> Result<(), RestoreError> {
        let disk = &*self.disk;
        disk.sync_dir(&self.home)?;
        disk.sync_dir(&self.directory)?;
        let term = meta.checkpoint.log_id.expect("the first record of the timeline is there").term;
        if self.vote.is_none_or(|vote| vote.term < term) {
            // Should the old database be started after all, it has heard of a higher term: that takes no promise back.
            let vote = Vote { term, node: Some(meta.identity.raft_id), committed: false };
            SlotFile::replace(disk, &Paths::vote(&self.directory), VOTE_SLOT_BYTES, &vote.encode())?;
        }
        // Whatever comes from here on, `node.meta` may name it.
        self.switched.set(true);
        SlotFile::replace(disk, &Paths::meta(&self.directory), SLOT_BYTES, &meta.encode())?;
        let clear = || -> Result<(), StorageError> {
            remove_other_generations(disk, &self.directory, meta.generation)?;
            disk.remove_file(&self.directory.join(MARK))?;
            disk.sync_dir(&self.directory)
        };
        if let Err(error) = clear() {
            tracing::warn!(%error, "what stood in the directory before goes at the next start");
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.switched.get()
            && let Err(error) = self.disk.remove_dir_all(&self.home)
        {
            tracing::warn!(%error, "what an unfinished restore left goes with the next one, or at the next start");
        }
    }
}

/// Refuses a directory in which something stands that is not to be replaced.
fn check(disk: &dyn Disk, directory: &Path, replace: bool) -> Result<(), RestoreError> {
    if replace || !disk.exists(directory)? {
        return Ok(());
    }
    let found = disk.list_dir(directory)?;
    let mut known = found.iter().filter(|name| *name != "lock");
    let free = match found.iter().any(|name| name == MARK) {
        true => !found.iter().any(|name| name == "node.meta"),
        false => known.next().is_none(),
    };
    if free {
        return Ok(());
    }
    let found = found.into_iter().rfind(|name| name != "lock" && name != MARK).unwrap_or_default();
    Err(RestoreError::NotEmpty { directory: directory.to_path_buf(), found })
}
