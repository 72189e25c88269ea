//! The manifest of a backup: what it is of, what it follows, which parts it has. It is put last: a backup is there when its
//! manifest is.
//!
//! ```text
//! JSON (see [`Manifest`], whose fields stand in it by their names) under a hash: see `backup/sealed.rs`
//! hashes, digests, ids and chain values are hexadecimal digits; positions, lengths and times plain numbers
//! ```
//!
//! A manifest names its parent by id and by the hash of the parent's manifest, and that one its own parent: so the last
//! manifest of a chain vouches for every byte of all its backups, and one that was taken from elsewhere fits nowhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::id::BackupId;
use super::sealed::{self, hex64, hex128};
use crate::ids::{ClusterId, DatabaseId, Digest, LogId, LogIndex, NEVER_REACHED, Term, Timeline, TxnId};
use crate::store::AppliedState;

/// The version of the format of manifests, parts and chunks.
pub const FORMAT_VERSION: u32 = 1;

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackupKind {
    /// Pages, and the frames from the checkpoint that they start from.
    Full,
    /// The frames behind its parent.
    Incremental,
}

impl std::fmt::Display for BackupKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

/// A point of the log, and the state after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Position {
    /// The term of the last entry; nothing before the first.
    pub term: Option<u64>,
    /// Its index.
    pub index: Option<u64>,
    /// The txn id of the state.
    pub txn_id: u64,
    /// The digest of its pages.
    #[serde(with = "hex128")]
    pub digest: u128,
    /// The chain value after the entry.
    #[serde(with = "hex64")]
    pub chain: u64,
    /// The wall time of the last record, in microseconds since 1970.
    pub wall_time_micros: u64,
}

impl Position {
    pub(super) fn of(state: &AppliedState) -> Self {
        Self {
            term: state.log_id.map(|log_id| log_id.term.0),
            index: state.log_id.map(|log_id| log_id.index.0),
            txn_id: state.txn_id.0,
            digest: state.digest.0,
            chain: state.chain,
            wall_time_micros: state.wall_time_micros,
        }
    }

    /// The last entry; `None` before the first.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        Some(LogId { term: Term(self.term?), index: LogIndex(self.index?) })
    }

    /// The index of the entry that follows.
    #[must_use]
    pub fn next_index(&self) -> LogIndex {
        LogIndex(self.index.map_or(0, |index| index + 1))
    }
}

/// The membership, opaque, and the entry that set it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Membership {
    /// The term of the entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// What the consensus wrote.
    #[serde(with = "hex::serde")]
    pub bytes: Vec<u8>,
}

/// What a backup follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Parent {
    /// Its name.
    pub id: String,
    /// The XXH3-128 of its whole manifest.
    #[serde(with = "hex128")]
    pub manifest: u128,
}

/// One part of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PartInfo {
    /// Its length, in bytes.
    pub bytes: u64,
    /// XXH3-128 of it.
    #[serde(with = "hex128")]
    pub hash: u128,
}

/// What a backup is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its name.
    pub id: String,
    /// What it holds.
    pub kind: BackupKind,
    /// Whether it is complete; else it grows, and its manifest is put anew with each part.
    pub sealed: bool,
    /// What it follows; a full one follows nothing.
    pub parent: Option<Parent>,
    /// The database.
    #[serde(with = "hex128")]
    pub database_id: u128,
    /// The cluster that it was in.
    #[serde(with = "hex128")]
    pub cluster_id: u128,
    /// The timeline, which a cluster id has one of.
    pub timeline: u64,
    /// Where the frames begin: behind this one. For a full backup, the checkpoint that its pages start from.
    pub start: Position,
    /// Where they end.
    pub end: Position,
    /// The membership as of the end.
    pub membership: Option<Membership>,
    /// The wall time of the node when it read the end, in microseconds since 1970: nothing that was committed before, as
    /// far as the node knew, is missing.
    pub as_of_micros: u64,
    /// How many pages were looked at: the length of the data file.
    pub page_count: u32,
    /// How many of them it has; the others were zeros.
    pub pages: u64,
    /// How many frames it has.
    pub frames: u64,
    /// Pages and frames, in bytes.
    pub raw_bytes: u64,
    /// All parts, in bytes.
    pub stored_bytes: u64,
    /// The parts, in order.
    pub parts: Vec<PartInfo>,
}

impl Manifest {
    /// The backup's name.
    ///
    /// # Panics
    /// When somebody has changed it to what is no name.
    #[must_use]
    pub fn backup_id(&self) -> BackupId {
        BackupId::parse(&self.id).expect("checked when it was read")
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        sealed::seal(self)
    }

    /// Reads the bytes of an object; the error says what is wrong with them.
    ///
    /// # Errors
    /// When a byte is not what was written, or the program does not know the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = sealed::open(bytes)?;
        if manifest.format != FORMAT_VERSION {
            let found = manifest.format;
            return Err(format!("it is of format {found}, and this program knows {FORMAT_VERSION}"));
        }
        let full = manifest.kind == BackupKind::Full;
        let numbers = [&manifest.start, &manifest.end]
            .into_iter()
            .flat_map(|position| [position.term.unwrap_or(0), position.index.unwrap_or(0), position.txn_id]);
        if BackupId::parse(&manifest.id).is_none()
            || full == manifest.parent.is_some()
            || (full && !manifest.sealed)
            || (!full && manifest.pages > 0)
            || [&manifest.start, &manifest.end].iter().any(|at| at.term.is_some() != at.index.is_some())
            || numbers.max() >= Some(NEVER_REACHED)
            || manifest.end.next_index().0.checked_sub(manifest.start.next_index().0) != Some(manifest.frames)
        {
            return Err("it contradicts itself".into());
        }
        Ok(manifest)
    }

    /// The database.
    #[must_use]
    pub fn database_id(&self) -> DatabaseId {
        DatabaseId(self.database_id)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId(self.cluster_id)
    }

    /// The timeline.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        Timeline(self.timeline)
    }

    /// The membership as of the start, if no frame of this backup replaces it before it matters.
    pub(super) fn start_membership(&self) -> Option<(LogId, Bytes)> {
        let membership = self.membership.as_ref().map(Membership::state);
        membership.filter(|(log_id, _)| Some(*log_id) <= self.start.log_id())
    }

    /// The state at the end.
    #[must_use]
    pub fn end_state(&self) -> AppliedState {
        let membership = self.membership.as_ref().map(Membership::state);
        AppliedState { membership, ..self.end.state() }
    }
}

impl Position {
    /// The state, without its membership.
    pub(super) fn state(&self) -> AppliedState {
        AppliedState {
            log_id: self.log_id(),
            txn_id: TxnId(self.txn_id),
            digest: Digest(self.digest),
            chain: self.chain,
            membership: None,
            wall_time_micros: self.wall_time_micros,
        }
    }
}

impl Membership {
    pub(super) fn of(state: &AppliedState) -> Option<Self> {
        let (log_id, bytes) = state.membership.as_ref()?;
        Some(Self { term: log_id.term.0, index: log_id.index.0, bytes: bytes.to_vec() })
    }

    pub(super) fn state(&self) -> (LogId, Bytes) {
        let log_id = LogId { term: Term(self.term), index: LogIndex(self.index) };
        (log_id, Bytes::copy_from_slice(&self.bytes))
    }
}
