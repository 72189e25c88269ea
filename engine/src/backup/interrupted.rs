//! How far an unfinished backup is: what its successor needs to go on.
//!
//! ```text
//! JSON (see [`Interrupted`]) under a hash: see `backup/sealed.rs`
//! ```
//!
//! Put anew when a part of pages is complete. Frames are not gone on with: they are read again from the checkpoint on.

use serde::{Deserialize, Serialize};

use super::id::BackupId;
use super::manifest::{BackupKind, FORMAT_VERSION, Membership, PartInfo, Position};
use super::output::progress_name;
use super::sealed;
use super::store::{BackupStore, StoreError};
use crate::ids::{LogId, LogIndex, PageNumber, Term};
use crate::seed::SeedResume;
use crate::store::AppliedState;

/// An unfinished backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interrupted {
    pub(super) format: u32,
    pub(super) id: String,
    pub(super) kind: BackupKind,
    #[serde(with = "sealed::hex128")]
    pub(super) database_id: u128,
    #[serde(with = "sealed::hex128")]
    pub(super) cluster_id: u128,
    pub(super) timeline: u64,
    /// The checkpoint that the pages start from, or the end of the parent.
    pub(super) start: Position,
    pub(super) start_membership: Option<Membership>,
    pub(super) page_count: u32,
    /// The first page that is in none of the parts, and is not known to be zeros.
    pub(super) next_page: u32,
    pub(super) pages: u64,
    pub(super) raw_bytes: u64,
    /// Term and index of the newest checkpoint's target, read after the last page.
    pub(super) target: Option<(u64, u64)>,
    pub(super) parts: Vec<PartInfo>,
}

impl Interrupted {
    pub(super) fn put(&self, store: &dyn BackupStore, id: &BackupId) -> Result<(), StoreError> {
        store.put(&progress_name(id), &sealed::seal(self))
    }

    /// What is known of an unfinished backup; `None` if that is nothing: it is begun anew then.
    pub(super) fn read(store: &dyn BackupStore, id: &BackupId) -> Result<Option<Self>, StoreError> {
        const MAX_BYTES: usize = 64 << 20;
        let bytes = match store.read(&progress_name(id), 0, MAX_BYTES) {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            read => read?,
        };
        let known = sealed::open::<Self>(&bytes).ok();
        Ok(known.filter(|known| known.format == FORMAT_VERSION && known.id == id.as_str()))
    }

    pub(super) fn start_state(&self) -> AppliedState {
        let membership = self.start_membership.as_ref().map(Membership::state);
        AppliedState { membership, ..self.start.state() }
    }

    pub(super) fn resume(&self) -> SeedResume {
        let checkpoint = self.start_state();
        SeedResume {
            last: checkpoint.log_id,
            chain: checkpoint.chain,
            checkpoint,
            page_count: self.page_count,
            next_page: PageNumber(self.next_page),
            pages_sent: self.pages,
            target: self.target.map(|(term, index)| LogId { term: Term(term), index: LogIndex(index) }),
        }
    }
}
