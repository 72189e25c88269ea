//! What an embedding program can set of the journal.

/// Who does the journal's work.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum JournalMode {
    /// A thread of the journal, and one that prepares spares. Whoever waits for a sync
    /// ([`Journal::sync`](super::Journal::sync)) writes all that waits, if the thread is not at it.
    #[default]
    Threaded,
    /// The calling thread, before the call returns: for deterministic tests. The end is attested on closing only, or
    /// by [`Journal::attest`](super::Journal::attest).
    Inline,
}

/// Sizes and mode; [`EngineOptions`](crate::EngineOptions) shows how to set them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct JournalOptions {
    /// The size of a segment, in bytes; a multiple of 512, at least 64 KiB. Fixed when the journal is created; an
    /// existing journal keeps its own.
    pub segment_bytes: u64,
    /// A group is at most this long, in bytes, unless a single frame is longer.
    pub max_group_bytes: usize,
    /// Newest frames kept in memory, in bytes. Frames that are not durable are kept whatever it says.
    pub cache_bytes: usize,
    /// Who does the work.
    pub mode: JournalMode,
    /// A planted fault, for tests of the tests: callbacks run before the sync. Does nothing unless the crate is built
    /// with the feature `mutants`.
    #[doc(hidden)]
    pub acknowledge_before_sync: bool,
    /// Another: a cut is not synced. The same holds.
    #[doc(hidden)]
    pub cut_not_durable: bool,
}

impl JournalOptions {
    /// Whether the fault is planted; always `false` without the feature.
    pub(super) fn acknowledges_before_sync(&self) -> bool {
        cfg!(feature = "mutants") && self.acknowledge_before_sync
    }

    /// The same of the other.
    pub(super) fn leaves_cuts_unsynced(&self) -> bool {
        cfg!(feature = "mutants") && self.cut_not_durable
    }
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_group_bytes: 8 << 20,
            cache_bytes: 32 << 20,
            mode: JournalMode::Threaded,
            acknowledge_before_sync: false,
            cut_not_durable: false,
        }
    }
}
