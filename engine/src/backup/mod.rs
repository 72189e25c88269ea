//! Backups that are the journal: pages and frames in a place of their own, from which the state of any moment can be had.
//!
//! ```text
//! full backup          pages, and frames from the checkpoint that they start from to what was applied after the last page
//! incremental          the frames from the end of its parent on
//! chain                a full one with its increments
//!
//! PLACE/<backup id>/manifest, part-000001, part-000002 ...      a folder, or a prefix, a backup: the id sorts by time
//! ```
//!
//! Not covered by [what is promised](crate#what-is-stable).
//!
//! Why a restore ends in the state that was backed up, although pages were copied while they changed: a full backup is the
//! stream of [`crate::seed`], whose argument holds here too. The frames of a full backup go at least to the target of the
//! newest checkpoint after the last page, so no point before its end can be restored from it; one behind it can, by fewer
//! frames of its increments. At the end of the replay the digest must be the record's, and every page its checksum's.
//!
//! Why no reader sees half a backup: an object is there whole or not at all ([`BackupStore`]), and a backup is there when
//! its manifest is, which is put last. Crash by crash: `full.rs`, `follow.rs`, `catalog.rs`, `expire.rs`.
//!
//! Why no two backups mix: a manifest names database, cluster, timeline, every part by its hash, and its parent by the hash
//! of the parent's manifest. A restore makes a new cluster on a new timeline (`restore/mod.rs`), whose backups
//! follow none of the old ones; and a place takes backups of one cluster only.
//!
//! One writer at a time writes to a place; who that is, is agreed elsewhere. Any number read.
//!
//! | file | what |
//! | --- | --- |
//! | `store`, `directory` | the door to a place, and a directory as one |
//! | `surroundings`, `progress` | time and chance; how far it is, and how fast it may go |
//! | `id`, `manifest`, `sealed`, `interrupted` | names, and the small objects |
//! | `chunk`, `output`, `ahead`, `input`, `track` | parts: written, read, frames in order |
//! | `full`, `increment`, `growing`, `follow` | making backups |
//! | `catalog`, `expire`, `verify` | what there is, what can go, whether it is sound |
//! | `restore`, `seed` | a new database from a chain, or from a directory whose cluster is lost; a new replica |

mod ahead;
mod catalog;
mod chunk;
mod directory;
mod error;
mod expire;
mod follow;
mod full;
mod growing;
mod id;
mod increment;
mod input;
mod interrupted;
mod manifest;
mod output;
mod progress;
mod restore;
mod sealed;
mod seed;
mod store;
mod surroundings;
mod track;
mod verify;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod follow_crash_test;
#[cfg(test)]
mod follow_test;
#[cfg(test)]
mod keep_test;
#[cfg(test)]
mod manifest_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod proof_test;
#[cfg(test)]
mod resume_test;
#[cfg(test)]
mod rig_test;
#[cfg(test)]
mod seed_test;
#[cfg(test)]
mod survivor_test;

use std::sync::Arc;

pub use catalog::{Backup, BackupProblem, Catalog, Chain, Leftover};
pub use directory::DirectoryStore;
pub use error::{BackupError, ChainError, RestoreError};
pub use expire::{ExpireReport, Keep};
pub use follow::{Followed, Follower};
pub use id::BackupId;
pub use increment::{BackupReport, WhyFull};
pub use manifest::{BackupKind, FORMAT_VERSION, Manifest, Membership, Parent, PartInfo, Position};
pub use progress::{BackupProgress, OnProgress, Stage};
pub use restore::{
    ForkPoint, NewNode, RecoverReport, RestoreOptions, RestorePoint, RestoreReport, SurvivorReport, examine, recover,
};
pub use seed::OnPiece;
pub use store::{BackupStore, ObjectInfo, ObjectWriter, StoreError};
pub use surroundings::{RealSurroundings, Surroundings};
pub use verify::VerifyReport;

/// How backups are written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackupOptions {
    /// A part ends when it has so many bytes.
    pub part_bytes: u64,
    /// A chunk ends when it holds so many bytes of pages or frames; at most 8 MiB.
    pub chunk_bytes: usize,
    /// Whether chunks are compressed, by LZ4, where that makes them shorter.
    pub compress: bool,
    /// How many bytes a second are copied at most.
    pub bytes_per_second: Option<u64>,
    /// A backup that would keep more journal than this, in bytes, is given up: the node needs its disk.
    pub hold_bytes: u64,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { part_bytes: 32 << 20, chunk_bytes: 1 << 20, compress: true, bytes_per_second: None, hold_bytes: 8 << 30 }
    }
}

/// The backups in a place.
#[derive(Clone)]
pub struct Backups {
    store: Arc<dyn BackupStore>,
    surroundings: Arc<dyn Surroundings>,
    options: BackupOptions,
}

impl Backups {
    /// The backups in `store`.
    ///
    /// # Panics
    /// When a chunk is to hold nothing, or more than 8 MiB.
    #[must_use]
    pub fn new(store: Arc<dyn BackupStore>, options: BackupOptions) -> Self {
        Self::with(store, Arc::new(RealSurroundings::default()), options)
    }

    /// As [`Self::new`], with time and chance from elsewhere.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn with(store: Arc<dyn BackupStore>, surroundings: Arc<dyn Surroundings>, options: BackupOptions) -> Self {
        assert!((1..=8 << 20).contains(&options.chunk_bytes), "chunks of {} bytes", options.chunk_bytes);
        Self { store, surroundings, options }
    }
}
