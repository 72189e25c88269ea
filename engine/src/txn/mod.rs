//! Transactions: batches that write, snapshots that read, and the records that batches become.
//!
//! What is not at the crate's root is for tools and tests, and not covered by [what is promised](crate#what-is-stable).

mod batch;
mod compact;
mod diff;
mod drop;
mod error;
mod freed;
mod in_tree;
mod multi;
mod names;
pub mod ops;
mod pages;
mod read;
pub mod record;
mod reserve;
mod savepoint;
mod seal;
mod trees;
mod write_cursor;

#[cfg(test)]
mod batch_test;
#[cfg(test)]
mod multi_test;
#[cfg(test)]
mod record_test;
#[cfg(test)]
mod savepoint_test;
#[cfg(test)]
mod values_test;
#[cfg(test)]
mod write_cursor_test;

pub use batch::{Batch, PAGES_PER_RECORD};
pub(crate) use compact::Compaction;
pub use drop::DropProgress;
pub use error::BatchError;
pub use names::MAX_NAMES;
pub use pages::BatchPages;
pub use read::{ReadTxn, TreeView};
pub use reserve::Reserved;
pub use savepoint::Savepoint;
pub use seal::Staged;
pub(crate) use trees::list as list_trees;
pub use trees::{MAX_NAME_BYTES, TreeInfo};
pub use write_cursor::WriteCursor;
