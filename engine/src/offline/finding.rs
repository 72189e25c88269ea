//! What a check finds: where, what, what it means, what to do about it.

use std::path::PathBuf;

use crate::error::StorageError;
use crate::ids::PageNumber;

/// Kinds of trouble; each has one consequence, and one thing to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FindingKind {
    /// Both slots of `node.meta` or `vote` are bad: its content is lost.
    Slots,
    /// One slot of `node.meta` or `vote` is bad; the other one has the content.
    OneSlot,
    /// A part of `node.meta` or `vote` in which nothing of the newest content stands.
    UnusedPart,
    /// Files that are sound, each by itself, and do not belong together.
    Disagreement,
    /// Frames that were durable and cannot be read.
    Journal,
    /// A page of which nothing, or not all, can be relied on.
    Page,
    /// A free page that is not zeros.
    FreePage,
    /// An allocated page that belongs to nothing.
    LostPage,
    /// The data file has not the length that its pages need.
    Length,
    /// All pages are sound, and are not those of one state.
    Digest,
    /// The disk refuses to read.
    Unreadable,
}

impl FindingKind {
    /// One word for it, for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::OneSlot => "one_slot",
            Self::UnusedPart => "unused_part",
            Self::Disagreement => "disagreement",
            Self::Journal => "journal",
            Self::Page => "page",
            Self::FreePage => "free_page",
            Self::LostPage => "lost_page",
            Self::Length => "length",
            Self::Digest => "digest",
            Self::Unreadable => "unreadable",
        }
    }

    /// What it means for who uses the database.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Slots => "the node does not start: what it promised, a vote or a checkpoint, is lost",
            Self::OneSlot => "none for what is stored: the other slot has the same, and the next start mends this one",
            Self::UnusedPart => "none for what is stored, but the disk does not keep what is written to it",
            Self::Disagreement => {
                "one of the files is older than what was acknowledged; the node must not be relied on"
            }
            Self::Journal => "the node does not start; transactions behind the data file's state may be lost",
            Self::Page => "reads that need the page fail, those that do not are right",
            Self::FreePage => "none for what is stored; the file is not equal to those of other replicas",
            Self::LostPage => "none for what is stored, if nothing else is found; else it may belong to a damaged page",
            Self::Length => "pages at the end are missing, or space is taken by bytes that belong to nothing",
            Self::Digest => "a page is an older one, or another's, with a checksum that fits: reads may be wrong",
            Self::Unreadable => "what stands there cannot be had from this disk",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Self::OneSlot | Self::UnusedPart | Self::FreePage | Self::LostPage => {
                "test the disk; in a cluster, let the node join again in an empty directory when it suits you"
            }
            Self::Unreadable => "look at the disk and at the permissions; then as for damage: see operations/damage.md",
            _ => {
                "in a cluster: keep a copy of the directory, remove it, let the node join again; \
                 alone: restore a backup, or save what is left with `calamus salvage`"
            }
        }
    }
}

/// One trouble.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// What kind it is of.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The page, if it is about one.
    pub page: Option<PageNumber>,
    /// What was found.
    pub what: String,
}

impl Finding {
    /// A trouble of no page.
    pub(super) fn new(kind: FindingKind, file: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self { kind, file: file.into(), offset, page: None, what: what.into() }
    }

    /// What an error of the disk, or of the bytes on it, says.
    pub(super) fn of(kind: FindingKind, error: &StorageError) -> Self {
        if let Some((file, offset, what)) = error.damage() {
            let page = if let StorageError::DamagedPage { page, .. } = error { Some(*page) } else { None };
            return Self { page, ..Self::new(kind, file, offset, what) };
        }
        match error {
            StorageError::Io { file, offset, operation, message, .. } => {
                Self::new(FindingKind::Unreadable, file, *offset, format!("{operation} failed: {message}"))
            }
            other => Self::new(kind, PathBuf::new(), 0, other.to_string()),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.file.display(), self.offset)?;
        if let Some(page) = self.page {
            write!(f, " (page {page})")?;
        }
        write!(f, ": {}", self.what)
    }
}
