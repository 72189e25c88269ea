//! Looking at a directory that no node has open, without changing a byte of it.
//!
//! [`check_directory`] finds all that is wrong with one. [`OfflineState`] is the state as recovery would build it (the
//! data file, and the frames from the checkpoint to the target over it), but in memory; with `upto`, replay goes on to
//! that entry: two directories as a crash left them can so be compared at a common index. [`inspect_page`] takes one page
//! apart. [`salvage()`] copies what can still be read into a new database. What the journal holds, [`mod@crate::journal`]
//! tells: [`crate::journal::survey`].
//!
//! What is not at the crate's root is for tools, and not covered by [what is promised](crate#what-is-stable).

mod check;
mod finding;
mod page;
mod salvage;
mod state;

#[cfg(test)]
mod check_test;
#[cfg(test)]
mod offline_test;
#[cfg(test)]
mod page_test;
#[cfg(test)]
mod salvage_multi_test;
#[cfg(test)]
mod salvage_test;

pub use check::{DirectoryReport, check_directory};
pub use finding::{Finding, FindingKind};
pub use page::{LeafEntry, PageContent, PageReport, inspect_page};
pub use salvage::{Lost, SalvageError, SalvageReport, Salvaged, salvage};
pub use state::OfflineState;
