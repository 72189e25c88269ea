//! Why a batch cannot go on.

use super::names::MAX_NAMES;
use super::trees::MAX_NAME_BYTES;
use crate::btree::{MAX_KEY_BYTES, MAX_VALUE_BYTES, ReadError, TreeKind};
use crate::error::StorageError;
use crate::space::DiskFull;

/// Why an operation of a batch failed. Something of the operation may be left: the caller rolls the transaction back.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// A page could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// There is no tree of this name.
    #[error("there is no tree named {0:?}; create it first")]
    NoSuchTree(String),
    /// A tree of this name is there already.
    #[error("there is a tree named {0:?} already; drop it first, or choose another name")]
    TreeExists(String),
    /// The key is empty or too long.
    #[error("a key of {0} bytes: keys have 1 to {MAX_KEY_BYTES} bytes")]
    KeyLength(usize),
    /// The value is too long.
    #[error("a value of {0} bytes: values have at most {MAX_VALUE_BYTES} bytes")]
    ValueLength(usize),
    /// A value of a multi-value tree is empty or too long.
    #[error(
        "a value of {0} bytes: the values of a multi-value tree are sorted as keys are, and have 1 to {MAX_KEY_BYTES} bytes; \
         keep longer ones in a plain tree, and here what they are found by"
    )]
    SortedValueLength(usize),
    /// The operation is for trees with one value under each key.
    #[error(
        "the tree {0:?} has many values under a key; use `add`, `remove_value` and `delete`, or a tree made by `create_tree`"
    )]
    ManyValues(String),
    /// The operation is for trees with many values under a key.
    #[error("the tree {0:?} has one value under each key; use `put`, or a tree made by `create_multi_tree`")]
    OneValue(String),
    /// A tree's name is empty or too long.
    #[error("a tree name of {0} bytes: names have 1 to {MAX_NAME_BYTES} bytes")]
    NameLength(usize),
    /// The record would not fit a frame.
    #[error("the changes take {bytes} bytes in the journal and at most {limit} fit one frame; split the transaction")]
    TooLarge {
        /// The size of the record.
        bytes: usize,
        /// The most that fits.
        limit: usize,
    },
    /// The batch changes or frees more pages than it may hold; which of them.
    #[error("the transaction is too large: {0}; split it, and delete large ranges and trees in parts")]
    TooManyPages(String),
    /// The operations of the batch speak of more trees than its record can name.
    #[error("the transactions of one batch name more than {MAX_NAMES} trees; split them")]
    TooManyTrees,
    /// A savepoint cannot be gone back to.
    #[error(
        "there is no such savepoint: it was made in another transaction, or behind a savepoint that was gone back to"
    )]
    NoSuchSavepoint,
    /// The disk is short of space.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// Memory for page versions ran out, and checkpoints did not free it in time.
    #[error("no memory for further writes: page versions take {bytes} bytes and the disk does not keep up; try again")]
    NoMemory {
        /// What they take.
        bytes: usize,
    },
    /// Memory for page versions ran out because a reader was never dropped.
    #[error(
        "no memory for further writes: a read transaction opened at {place} {age_seconds} seconds ago is still held; \
         drop it"
    )]
    ForgottenReader {
        /// Where it was opened.
        place: String,
        /// How long ago, in seconds.
        age_seconds: u64,
    },
}

impl BatchError {
    /// Whether the batch has no room for more. Alone in it, a transaction has more.
    #[must_use]
    pub fn is_of_size(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::TooManyPages(_) | Self::TooManyTrees)
    }

    /// A tree is of this kind, and the operation is for the other.
    pub(super) fn other_kind(kind: TreeKind, tree: &str) -> Self {
        match kind {
            TreeKind::Plain => Self::OneValue(tree.to_owned()),
            TreeKind::Multi => Self::ManyValues(tree.to_owned()),
        }
    }
}

impl From<ReadError> for BatchError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoRoom(what) => Self::TooManyPages(what),
            error => Self::Read(error),
        }
    }
}

impl From<StorageError> for BatchError {
    fn from(error: StorageError) -> Self {
        Self::Read(error.into())
    }
}
