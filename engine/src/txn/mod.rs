//! Transactions: batches that write, snapshots that read, and the records that batches become.

mod batch;
mod diff;
mod error;
mod freed;
mod in_tree;
mod names;
pub mod ops;
mod pages;
mod read;
pub mod record;
mod seal;
mod trees;
mod write_cursor;

#[cfg(test)]
mod batch_test;
#[cfg(test)]
mod record_test;
#[cfg(test)]
mod write_cursor_test;

pub use batch::{Batch, PAGES_PER_RECORD};
pub use error::BatchError;
pub use names::MAX_NAMES;
pub use pages::BatchPages;
pub use read::{ReadTxn, TreeView};
pub use seal::Staged;
pub(crate) use trees::list as list_trees;
pub use write_cursor::WriteCursor;
