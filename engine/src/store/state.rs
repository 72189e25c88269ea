//! The applied state, in a few numbers.

use bytes::Bytes;

use crate::ids::{Digest, LogId, Timeline, TxnId};
use crate::page::superblock::Superblock;
use crate::txn::record::RecordHeader;

/// A point in the log, and the state after it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct AppliedState {
    /// The last applied entry; `None` before the first.
    pub log_id: Option<LogId>,
    /// The txn id of the state.
    pub txn_id: TxnId,
    /// The digest of its data pages.
    pub digest: Digest,
    /// The chain value after the last applied frame.
    pub chain: u64,
    /// The membership as of it, opaque, and the entry that set it.
    pub membership: Option<(LogId, Bytes)>,
    /// The wall time of the last record, in microseconds since 1970.
    pub wall_time_micros: u64,
}

impl AppliedState {
    /// Whether a record changes this state, which is of `timeline`; else it is void. The one place where that is decided,
    /// when applying, recovering, seeding and checking, on every node alike.
    pub(crate) fn is_changed_by(&self, record: &RecordHeader, timeline: Timeline) -> bool {
        record.builds_on(self) && record.timeline == timeline
    }
}

/// What a snapshot shows: the state and its superblock.
#[derive(Clone, Debug)]
pub struct View {
    /// The state.
    pub applied: AppliedState,
    /// Page 0 of it.
    pub superblock: Superblock,
}
