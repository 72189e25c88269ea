//! B+trees over pages. A tree knows pages only through [`PageSource`] and [`PageStore`]: whether they come from the
//! map of the data file, from a version in memory or from a test's `HashMap` is not its business.

use std::ops::Deref;
use std::sync::Arc;

use crate::error::StorageError;
use crate::ids::PageNumber;
use crate::page::Page;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 2048;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 8 << 20;

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
}

/// Where a tree reads pages.
pub trait PageSource {
    /// The page of this number in the state that this source shows.
    fn page(&self, number: PageNumber) -> Result<PageRef<'_>, ReadError>;
}

/// Where a tree writes pages. Dropping a change as a whole (a savepoint) is the store's business, not the tree's.
pub trait PageStore: PageSource {
    /// The page, to change. The first call for a page in a batch makes a private copy.
    fn page_mut(&mut self, number: PageNumber) -> Result<&mut Page, ReadError>;
    /// Takes a run of `count` pages that follow each other; each is zeroed. Returns the first.
    fn allocate(&mut self, count: u32) -> Result<PageNumber, ReadError>;
    /// Gives a run of pages back.
    fn free(&mut self, first: PageNumber, count: u32) -> Result<(), ReadError>;
}
