//! Removing backups that nobody needs any more: whole chains, oldest first, and never the newest one.
//!
//! A backup is needed by those that follow it in its chain, so only whole chains go. Within a chain the newest goes first,
//! each by these steps; after a crash between any two, what is left is a shorter chain and a leftover:
//! 1. `expired` is put: the backup counts no more;
//! 2. its manifest, its parts and what else is there are deleted;
//! 3. `expired` is deleted.

use std::time::Duration;

use super::Backups;
use super::catalog::{Chain, Leftover};
use super::error::ChainError;
use super::id::BackupId;
use super::output::expired_name;

/// Which chains stay. The newest stays in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Keep {
    /// The newest so many chains; `None` for any number.
    pub chains: Option<usize>,
    /// Those that a point in time not longer ago than this may be restored from; `None` for any age.
    pub age: Option<Duration>,
}

/// What goes, or would go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ExpireReport {
    /// The backups, in the order in which they go.
    pub removed: Vec<BackupId>,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The chains that stay, by their full backups.
    pub kept: Vec<BackupId>,
}

impl Backups {
    /// Removes the chains that not both bounds keep; with `dry_run` it only says which. Takes along what an earlier removal
    /// has left, and what was interrupted before the newest backup began.
    ///
    /// # Errors
    /// When the place cannot be read or written: what is left is sound, and can be expired again.
    pub fn expire(&self, keep: Keep, dry_run: bool) -> Result<ExpireReport, ChainError> {
        let catalog = self.list()?;
        let mut report = ExpireReport::default();
        let newest = catalog.chains.iter().map(|chain| chain.newest().manifest.backup_id()).max();
        // Only one that is newer than every backup is ever gone on with.
        let useless = |leftover: &&Leftover| leftover.expired || Some(&leftover.id) < newest.as_ref();
        for leftover in catalog.leftovers.iter().filter(useless) {
            report.removed.push(leftover.id.clone());
            report.bytes += leftover.bytes;
        }
        let now = self.surroundings.wall_micros();
        for (number, chain) in catalog.chains.iter().enumerate() {
            if is_kept(&catalog.chains, number, keep, now) {
                report.kept.push(chain.full().backup_id());
                continue;
            }
            report.removed.extend(chain.backups.iter().rev().map(|backup| backup.manifest.backup_id()));
            report.bytes += chain.stored_bytes();
        }
        if !dry_run {
            for id in &report.removed {
                self.remove(id)?;
            }
        }
        Ok(report)
    }

    /// Removes what an interrupted backup has left: it is not gone on with then.
    ///
    /// # Errors
    /// When the place cannot be read or written; when it is no leftover.
    pub fn remove_leftover(&self, id: &BackupId) -> Result<(), ChainError> {
        if !self.list()?.leftovers.iter().any(|leftover| leftover.id == *id) {
            return Err(ChainError::damaged(
                id.as_str(),
                "it is no unfinished backup; complete ones are expired by chains",
            ));
        }
        self.remove(id)
    }

    fn remove(&self, id: &BackupId) -> Result<(), ChainError> {
        let mark = expired_name(id);
        self.store.put(&mark, b"")?;
        for object in self.store.list(&format!("{id}/"))?.into_iter().filter(|object| object.name != mark) {
            self.store.delete(&object.name)?;
        }
        Ok(self.store.delete(&mark)?)
    }
}

/// Whether a chain stays. Chains go from the oldest on, without a gap: a chain between two that stay stays, too.
fn is_kept(chains: &[Chain], number: usize, keep: Keep, now_micros: u64) -> bool {
    let newest = number + 1 == chains.len();
    let by_count = keep.chains.is_none_or(|most| chains.len() - number <= most);
    // The chain is needed for points up to where the next one begins.
    let age = |until: u64| Duration::from_micros(now_micros.saturating_sub(until));
    let until = chains.get(number + 1).map_or(u64::MAX, |next| next.full().as_of_micros);
    let by_age = keep.age.is_none_or(|most| age(until) <= most);
    newest || (by_count && by_age)
}
