//! The table of recovery.

use crate::ids::LogIndex;

/// Positions in the log, as number of entries: 0 is before the first entry, `n` is behind the entry of index `n - 1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Entries(pub u64);

impl Entries {
    /// The position behind an entry, or before all.
    #[must_use]
    pub fn through(index: Option<LogIndex>) -> Self {
        Self(index.map_or(0, |index| index.0 + 1))
    }
}

/// What was found in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The finished checkpoint.
    pub checkpoint: Entries,
    /// How far the data file may have been written.
    pub target: Entries,
    /// The journal holds frames from here...
    pub journal_start: Entries,
    /// ... to here.
    pub journal_end: Entries,
    /// The highest commit index in the frames' headers.
    pub committed: Entries,
    /// Whether the chain value of the journal at the checkpoint is the checkpoint's; `None` where the journal has no
    /// frame there to tell.
    pub chain_fits_checkpoint: Option<bool>,
    /// Whether the chain value of the journal at the target is the target's.
    pub chain_fits_target: Option<bool>,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// The data file is the checkpoint. Go on to `commit` as if applying.
    Clean {
        /// How far.
        commit: Entries,
    },
    /// A checkpoint was under way. Replay to `target` blindly, then on to `commit` as if applying.
    FinishCheckpoint {
        /// How far blindly.
        target: Entries,
        /// How far then.
        commit: Entries,
    },
    /// The directory is damaged and must not be served.
    Damaged(Damage),
}

/// How a directory is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// `node.meta` contradicts itself.
    #[error("node.meta names a target before its checkpoint")]
    TargetBeforeCheckpoint,
    /// Frames between the checkpoint and the journal's first are missing.
    #[error("the journal starts behind the checkpoint")]
    JournalStartsLate,
    /// The journal was durable up to the target when the target was set.
    #[error("the journal ends before the point up to which the data file may have been written")]
    JournalEndsEarly,
    /// Journal and data file are not of one history.
    #[error("the journal's history is not the data file's")]
    OtherHistory,
}

/// The decision for what was observed. The first line that fits counts.
///
/// | observed | decision |
/// | --- | --- |
/// | target < checkpoint | damaged: target before checkpoint |
/// | checkpoint < journal start | damaged: journal starts late |
/// | journal end < target | damaged: journal ends early |
/// | a chain value does not fit | damaged: other history |
/// | target = checkpoint | clean, to max(checkpoint, min(committed, journal end)) |
/// | target > checkpoint | finish the checkpoint, to max(target, min(committed, journal end)) |
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    let Observed { checkpoint, target, journal_start, journal_end, committed, .. } = *observed;
    if target < checkpoint {
        return Decision::Damaged(Damage::TargetBeforeCheckpoint);
    }
    if checkpoint < journal_start {
        return Decision::Damaged(Damage::JournalStartsLate);
    }
    if journal_end < target {
        return Decision::Damaged(Damage::JournalEndsEarly);
    }
    if observed.chain_fits_checkpoint == Some(false) || observed.chain_fits_target == Some(false) {
        return Decision::Damaged(Damage::OtherHistory);
    }
    let commit = committed.min(journal_end).max(target);
    if target == checkpoint { Decision::Clean { commit } } else { Decision::FinishCheckpoint { target, commit } }
}
