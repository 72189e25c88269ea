//! What an embedding program can set.

use std::time::Duration;

use crate::btree::SplitPolicy;
use crate::journal::JournalOptions;
use crate::space::SpaceOptions;

/// Sizes and bounds of an engine. The defaults suit a server with a gigabyte of memory and more.
///
/// Begin with the defaults and set what should differ. Options may be added, so a program cannot name them all:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use calamus_engine::{Database, EngineOptions, RealDisk};
///
/// let mut options = EngineOptions::default();
/// options.retention_bytes = 64 << 20;
/// options.journal.segment_bytes = 16 << 20;
/// options.space.reserve_bytes = 32 << 20;
///
/// let directory = tempfile::tempdir()?;
/// let database = Database::open_with(Arc::new(RealDisk::new()), directory.path(), options)?;
/// assert_eq!(database.engine().status().space.reserve_wanted_bytes, 32 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The journal's.
    pub journal: JournalOptions,
    /// A checkpoint starts when the journal has grown by this many bytes since the last one.
    pub checkpoint_journal_bytes: u64,
    /// A checkpoint starts when page versions take half of this many bytes of memory; at this many no batch begins until
    /// a checkpoint has caught up, unless a reader is in the way; at half as many again, readers that are in the way are
    /// expired. Half of it should be what a checkpoint interval of journal changes: what is written again before the
    /// checkpoint reaches the data file once.
    pub version_bytes_limit: usize,
    /// Bytes of journal kept below the checkpoint, for followers that are behind and for change feeds.
    pub retention_bytes: u64,
    /// What is kept of the disk for the day that it is full.
    pub space: SpaceOptions,
    /// The largest data file, in bytes: this much address space is mapped, and no memory.
    pub map_bytes: u64,
    /// Whether the engine runs checkpoints by itself, on a thread of its own. Deterministic tests call them.
    pub background: bool,
    /// How many bytes a second the scrub reads at most, see [`crate::scrub`]; 0 for no scrub but by
    /// [`Engine::scrub_now`](crate::Engine::scrub_now). Needs `background`.
    pub scrub_bytes_per_second: u64,
    /// How long a pass of the scrub takes, unless it must go faster than it may.
    pub scrub_pass: Duration,
    /// How full the left page of a split gets, in percent. Replicas need not agree on it: only the leader splits.
    pub split_percent: u8,
    /// Deviations for tests of the tests.
    #[doc(hidden)]
    pub faults: Faults,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            journal: JournalOptions::default(),
            checkpoint_journal_bytes: 256 << 20,
            version_bytes_limit: 256 << 20,
            retention_bytes: 256 << 20,
            space: SpaceOptions::default(),
            map_bytes: 1 << 40,
            background: true,
            scrub_bytes_per_second: 16 << 20,
            scrub_pass: Duration::from_secs(24 * 3600),
            split_percent: 50,
            faults: Faults::default(),
        }
    }
}

impl EngineOptions {
    pub(crate) fn split_policy(&self) -> SplitPolicy {
        SplitPolicy { percent: self.split_percent }
    }
}

/// Planted faults, each of which a test must catch. All are off unless the crate is built with the feature `mutants`. They
/// are for the tests of this workspace, and no part of what is promised.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The journal runs callbacks before it syncs.
    pub acknowledge_before_sync: bool,
    /// Write pages before the target is durable in `node.meta`.
    pub target_not_durable_first: bool,
    /// Recovery stops before the target.
    pub replay_stops_before_target: bool,
    /// The checkpoint goes ahead of what is durable in the local journal.
    pub checkpoint_ahead_of_journal: bool,
    /// Free pages are not zeroed.
    pub free_pages_not_zeroed: bool,
    /// The checkpoint goes to the newest state, whoever reads an older one.
    pub checkpoint_ignores_readers: bool,
    /// No sync of the data file before the checkpoint counts as finished.
    pub no_data_sync: bool,
    /// No sync of the new generation's data file before the slot of `node.meta` is written that names it.
    pub no_sync_before_switch: bool,
    /// A cut is acknowledged before it is durable.
    pub cut_not_durable: bool,
    /// A page that a batch frees is given back in the data file before that batch is applied.
    pub pages_freed_early: bool,
    /// Recovery puts only those bytes of a full image in place that are not zero, over what stood there.
    pub full_images_skip_zeros: bool,
}

impl Faults {
    /// Whether a fault is planted; always `false` without the feature.
    #[must_use]
    pub(crate) fn planted(flag: bool) -> bool {
        cfg!(feature = "mutants") && flag
    }
}
