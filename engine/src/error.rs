//! The storage error under every operation's own error type.

use std::path::{Path, PathBuf};

use crate::ids::{LogId, PageNumber};

/// What the disk, or the bytes on it, did to us. Broken invariants are not errors: they panic.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A call to the operating system failed.
    #[error("{operation} of {} at byte {offset} failed: {message}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// Where in the file, in bytes; 0 where it has no meaning.
        offset: u64,
        /// What was asked: "read", "write", "sync", "open", ...
        operation: &'static str,
        /// The kind of the error as the standard library names it.
        kind: std::io::ErrorKind,
        /// The operating system's words.
        message: String,
    },
    /// Bytes that are not what was written.
    #[error("{} is damaged at byte {offset}: {what}", file.display())]
    Corrupted {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was found, and what was expected.
        what: String,
    },
    /// A page of the data file is not what was written. It is served to nobody until it is repaired: by itself, where
    /// another node has it.
    #[error(
        "page {page} is damaged ({} at byte {offset}): {what}. Where the node is part of a cluster, it gets the page from \
         another node; if that does not help, remove its directory and let it join again",
        file.display()
    )]
    DamagedPage {
        /// The data file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The page.
        page: PageNumber,
        /// What was found, and what was expected.
        what: String,
    },
    /// A frame of the journal is not what was written. It is given to nobody until it is repaired: as above.
    #[error(
        "frame {log_id} is damaged ({} at byte {offset}): {what}. Where the node is part of a cluster, it gets the frame from \
         another node; if that does not help, remove its directory and let it join again",
        file.display()
    )]
    DamagedFrame {
        /// The segment's file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The frame.
        log_id: LogId,
        /// What was found, and what was expected.
        what: String,
    },
    /// An earlier write or sync failed; nothing is accepted until the node is started again.
    #[error("storage is stopped after an earlier failure: {0}")]
    Poisoned(String),
}

impl StorageError {
    /// Wraps an error of the standard library.
    pub fn io(file: impl Into<PathBuf>, offset: u64, operation: &'static str, source: &std::io::Error) -> Self {
        Self::Io { file: file.into(), offset, operation, kind: source.kind(), message: source.to_string() }
    }

    /// Reports damage.
    pub fn corrupted(file: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupted { file: file.into(), offset, what: what.into() }
    }

    /// Where the bytes are that are not what was written, and what is wrong with them: the file, and where in it in bytes.
    /// `None` for an error of any other kind.
    #[must_use]
    pub fn damage(&self) -> Option<(&Path, u64, &str)> {
        match self {
            Self::Corrupted { file, offset, what }
            | Self::DamagedPage { file, offset, what, .. }
            | Self::DamagedFrame { file, offset, what, .. } => Some((file, *offset, what)),
            Self::Io { .. } | Self::Poisoned(_) => None,
        }
    }

    /// Whether the disk, or the limit on it, has no room left.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { kind: std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded, .. })
    }

    /// Whether this may be tried again once there is space: it names space, and is of no sync. After a sync that failed,
    /// nobody knows what is on the disk, whatever the reason was.
    #[must_use]
    pub(crate) fn wants_space(&self) -> bool {
        self.is_no_space() && !matches!(self, Self::Io { operation: "sync" | "sync directory", .. })
    }
}
