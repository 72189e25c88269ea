//! Typed identifiers: a page number is never a txn id, and a term is never an index.

use std::fmt;

/// Terms, log indexes and txn ids are counted from 0 by ones, so none ever gets here. Bytes that say that one did are
/// refused where they are read: behind that, `next` would have no answer some day.
pub(crate) const NEVER_REACHED: u64 = 1 << 62;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub struct $name(pub $inner);

        impl $name {
            /// The identifier that follows this one.
            ///
            /// # Panics
            /// When the number space is exhausted.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect(concat!(stringify!($name), " exhausted")))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The place of a page in the data file, in units of [`crate::page::PAGE_BYTES`]. Page 0 is the superblock.
    PageNumber(u32)
);
number!(
    /// The number of a transaction that changed something. Consecutive from 1; 0 is the empty database.
    TxnId(u64)
);
number!(
    /// A Raft term.
    Term(u64)
);
number!(
    /// A Raft log index. The first entry has index 0, as in openraft.
    LogIndex(u64)
);
number!(
    /// The number of a `gN` directory.
    Generation(u64)
);
number!(
    /// A node's identity in the consensus: random, drawn when its directory is created, never used again.
    RaftId(u64)
);
number!(
    /// Which restore a database comes from: 1 for one that was never restored, else drawn, set by the first record after it.
    Timeline(u64)
);
number!(
    /// A byte position in the whole journal: segment number times segment size plus offset in the segment.
    JournalPosition(u64)
);

macro_rules! wide {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

wide!(
    /// Names a database for ever; stands in page 0.
    DatabaseId
);
wide!(
    /// Names a cluster; stands in `node.meta` and in every message; new at each restore.
    ClusterId
);
wide!(
    /// The state of the data pages as one number: see [`crate::page::checksum`].
    Digest
);

/// The identity of a log entry: its term and its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogId {
    /// The term of the leader that made the entry.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
}

impl LogId {
    /// A log id from plain numbers.
    #[must_use]
    pub fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: LogIndex(index) }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
