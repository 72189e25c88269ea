//! Transactions: batches that write, snapshots that read, and the records that batches become.

mod batch;
mod diff;
mod error;
pub mod ops;
mod pages;
mod read;
pub mod record;
mod seal;
mod trees;

pub use batch::Batch;
pub use error::BatchError;
pub use pages::BatchPages;
pub use read::ReadTxn;
pub use seal::Staged;
pub(crate) use trees::list as list_trees;
