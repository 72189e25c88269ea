//! Page versions: which content of a page a reader sees.
//!
//! A page keeps its number for life. A batch that changes it makes a *version*: its whole content as of the batch's last
//! txn id. The data file holds, for each page, the content as of some finished or running checkpoint. So a source at
//! snapshot `s` takes, for each page, the newest version not above `s`, and where there is none, the data file.
//!
//! Why that is right at every moment, with `o` the oldest registered snapshot (every reader and the checkpointer):
//! - The checkpointer writes into the file only versions not above its own snapshot `t`, and `t <= o` held when it chose
//!   it; later readers open at `applied >= t`. So no live reader has a snapshot below a version that the file gets, and
//!   a slice of the map that a reader may hold is never overwritten.
//! - A version is dropped from the table only when the file already holds it (the checkpoint that wrote it is finished),
//!   or when no registered snapshot lies between it and the next applied version of the page.
//! - Staged versions lie above every snapshot; dropping them is invisible to readers. Only the open batch sees them, and
//!   whoever drops them holds the batch lock.

mod bits;
mod lanes;
mod readers;
mod table;

#[cfg(test)]
mod readers_test;
#[cfg(test)]
mod table_test;

pub use bits::PageBits;
pub(crate) use lanes::{AllLanes, Lanes};
pub use readers::{ReaderInfo, Readers, Registration};
pub use table::{Image, PageHasher, VersionTable};
