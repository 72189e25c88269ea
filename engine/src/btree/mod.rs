//! B+trees over pages. A tree knows pages only through [`PageSource`] and [`PageStore`]: whether they come from the
//! map of the data file, from a version in memory or from a test's `HashMap` is not its business.
//!
//! What holds, and is kept by every operation that returns without an error (after an error the caller drops the whole
//! change):
//! - all leaves are at the same depth; a page is reached from exactly one place;
//! - keys ascend strictly within a page, and lie within the bounds that the branches above it set;
//! - no page of a tree is empty, and a root that is a branch has at least two children; a tree without entries has no
//!   page at all;
//! - how full pages are is a goal (at least a quarter, and no three leaves side by side that fit into two, where one of
//!   them was last changed by taking something out; but for the right edge and where long keys leave no room to move a
//!   separator), not an invariant;
//! - in a multi-value tree, the values of a key ascend strictly too, and a key has at least one;
//! - pages have no links to siblings: a change touches the path to a leaf, and no more.
//!
//! Bytes that a page does not use (gap, dead bytes, the end of the last page of an overflow run) keep whatever was
//! there before. Damaged bytes give [`StorageError::Corrupted`], in reading operations always, never a panic.
//!
//! | file | role |
//! | --- | --- |
//! | `node`, `node_mut` | the layout of a page; reading it; changing it |
//! | `search` | descent, `get`, `locate` |
//! | `insert`, `split`, `edge` | putting an entry; making two pages of one; putting entries in key order |
//! | `remove`, `rebalance`, `range` | taking out an entry; joining pages; taking out many |
//! | `settle` | moving pages to free places below them |
//! | `overflow`, `value` | long values; reading values |
//! | [`multi`] | trees with many values under a key |
//! | `owned` | the pages that an entry has besides its cell |
//! | `cursor`, `bounded`, `ahead` | walking in both directions: over all of a tree, or a part |
//! | `count` | how many entries a part has |
//! | `check` | proving all of the above |
//!
//! What is not at the crate's root is for tools and tests, and not covered by [what is promised](crate#what-is-stable).

mod ahead;
mod bounded;
mod check;
mod count;
mod cursor;
mod edge;
mod insert;
pub mod multi;
pub(crate) mod node;
pub(crate) mod node_mut;
pub(crate) mod overflow;
mod owned;
mod range;
mod rebalance;
mod remove;
mod search;
mod settle;
mod split;
mod state;
mod value;

#[cfg(test)]
mod bounded_test;
#[cfg(test)]
mod churn_test;
#[cfg(test)]
mod cursor_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod edge_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod node_test;
#[cfg(test)]
mod shape_test;
#[cfg(test)]
pub(crate) mod test_store;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use bounded::{Range, prefix_end};
pub(crate) use check::{TreeVisitor, check_tree};
pub use count::count_range;
pub use cursor::Cursor;
pub use edge::{Appended, Edge, append};
pub use insert::{insert, insert_minding, reserve};
pub use range::{destroy, remove_range};
pub use remove::remove;
pub use search::{Finger, ValueLocation, get, locate, locate_near};
pub use settle::{SettleLimits, SettlePlace, Settled, key_behind_leaf, settle_leaf};
pub use state::{TreeKind, TreeState};
pub use value::{Chunks, Entry, Value, ValueChunk};

use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::Page;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 2048;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 8 << 20;

/// The most levels that a tree can have. Every level at least doubles the pages, but for long keys; 2^32 pages is all.
pub const MAX_HEIGHT: usize = 32;

/// Why bytes cannot be an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The empty key is not one.
    #[error("the key is empty; a key has 1 to {MAX_KEY_BYTES} bytes")]
    Empty,
    /// A key longer than [`MAX_KEY_BYTES`].
    #[error("the key has {0} bytes; a key has at most {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
    /// A value longer than [`MAX_VALUE_BYTES`].
    #[error("the value has {0} bytes; a value has at most {MAX_VALUE_BYTES}")]
    ValueTooLong(usize),
}

/// Whether an entry can be put into a tree. The operations here take this for granted and panic otherwise.
pub fn check_entry(key: &[u8], value_bytes: usize) -> Result<(), KeyError> {
    match key.len() {
        0 => Err(KeyError::Empty),
        bytes if bytes > MAX_KEY_BYTES => Err(KeyError::KeyTooLong(bytes)),
        _ if value_bytes > MAX_VALUE_BYTES => Err(KeyError::ValueTooLong(value_bytes)),
        _ => Ok(()),
    }
}

/// A page that stays readable as long as this lives: a slice of the map, or a version in memory.
#[derive(Clone)]
pub enum PageRef<'a> {
    /// In the map of the data file.
    Mapped(&'a Page),
    /// A version in memory.
    Version(Arc<Page>),
}

impl Deref for PageRef<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        match self {
            Self::Mapped(page) => page,
            Self::Version(page) => page,
        }
    }
}

/// Why a page could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk, or what stands on it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The reader was expired to free memory: open a new one.
    #[error("this reader was expired to free memory, after it held its snapshot for too long; open a new one")]
    Expired,
    /// The tree is of another kind than the operation is for; which kind it is.
    #[error("{}", describe_kind(*.0))]
    OtherKind(TreeKind),
    /// The batch that changes the tree has no room for more; why. The tree is left in the middle of the operation.
    #[error("{0}")]
    NoRoom(String),
}

fn describe_kind(kind: TreeKind) -> &'static str {
    match kind {
        TreeKind::Plain => "the tree has one value under each key; read it with `get` or a cursor",
        TreeKind::Multi => {
            "the tree has many values under a key; read its keys with `keys`, and the values of one with `values`"
        }
    }
}

/// Sees any source as a trait object; implemented for all of them.
pub trait AsPageSource {
    /// This source, its type forgotten.
    fn as_page_source(&self) -> &dyn PageSource;
}

impl<S: PageSource> AsPageSource for S {
    fn as_page_source(&self) -> &dyn PageSource {
        self
    }
}

/// Where a tree reads pages.
pub trait PageSource: AsPageSource {
    /// The page of this number in the state that this source shows. A number that is not in the state gives
    /// [`StorageError::Corrupted`]: it came from a damaged page.
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError>;

    /// The page, if it can be had without reading, checking or waiting for anything: for whoever would only like it to be
    /// near. `None` says nothing.
    fn page_at_hand(&self, _number: PageNumber) -> Option<&Page> {
        None
    }

    /// The file that errors name.
    fn file(&self) -> &Path {
        Path::new("data")
    }
}

/// Where pages are split that are not at the right edge of their tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitPolicy {
    /// How much of the bytes stays in the left page, in percent.
    pub percent: u8,
}

impl Default for SplitPolicy {
    fn default() -> Self {
        Self { percent: 50 }
    }
}

/// Where a tree writes pages. Dropping a change as a whole (a savepoint) is the store's business, not the tree's.
pub trait PageStore: PageSource {
    /// The page, to change. The first call for a page in a batch makes a private copy.
    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError>;
    /// The page, to be written whole: it is zeros behind its checksum, and what was in it is not copied.
    fn overwrite(&mut self, number: PageNumber) -> Result<&mut Page, ReadError> {
        let page = self.page_mut(number)?;
        page.bytes_mut()[8..].fill(0);
        Ok(page)
    }
    /// Takes a run of `count` pages that follow each other; each is zeroed. Returns the first.
    fn allocate(&mut self, count: u32) -> Result<PageNumber, ReadError>;
    /// Gives a run of pages back.
    fn free(&mut self, first: PageNumber, count: u32) -> Result<(), ReadError>;

    /// Where to split pages.
    fn split_policy(&self) -> SplitPolicy {
        SplitPolicy::default()
    }

    /// Called once by each operation that changes a tree: who replicates pages never comes here.
    fn note_mutation(&mut self) {}
}

/// Makes an error of damage found in a page.
#[cold]
fn damaged<S: PageSource + ?Sized>(source: &S, number: PageNumber, damage: node::Damage) -> ReadError {
    let offset = u64::from(number.0) * crate::page::PAGE_BYTES as u64;
    StorageError::corrupted(source.file(), offset, format!("page {number}: {}", damage.0)).into()
}
