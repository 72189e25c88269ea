//! Values that are written where they will stand, and not copied there.

use std::io;

use super::batch::{Batch, PendingValue, check_key};
use super::error::BatchError;
use super::ops::OperationKind;
use super::pages::BatchPages;
use crate::btree::{self, MAX_VALUE_BYTES, PageStore, ValueLocation};
use crate::ids::{PageNumber, TxnId};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};

/// A value that was put and is to be filled, from its first byte to its last. What is not filled stays zero.
///
/// Either as an [`io::Write`], which takes no more than there is room for; or, with no copy at all, by writing into
/// [`Self::chunk`] and calling [`Self::advance`].
pub struct Reserved<'b> {
    pages: &'b mut BatchPages,
    place: ValueLocation,
    previous: Option<TxnId>,
    filled: usize,
    length: usize,
}

impl Reserved<'_> {
    /// The version of the entry that was replaced.
    #[must_use]
    pub fn previous(&self) -> Option<TxnId> {
        self.previous
    }

    /// How many bytes are still to be filled.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.length - self.filled
    }

    /// The next bytes of the value that stand side by side: zeros, to be written. Empty at the value's end.
    pub fn chunk(&mut self) -> Result<&mut [u8], BatchError> {
        if self.remaining() == 0 {
            return Ok(&mut []);
        }
        let (page, range) = match self.place {
            ValueLocation::Inline { page, offset, .. } => {
                let start = usize::from(offset);
                (page, start + self.filled..start + self.length)
            }
            ValueLocation::Overflow { first, .. } => {
                let capacity = PAGE_BYTES - PAGE_HEADER_BYTES;
                let (index, within) = (self.filled / capacity, self.filled % capacity);
                let end = capacity.min(self.length - index * capacity);
                let page = PageNumber(first.0 + u32::try_from(index).expect("a value is at most 8 MiB"));
                (page, PAGE_HEADER_BYTES + within..PAGE_HEADER_BYTES + end)
            }
        };
        Ok(&mut self.pages.page_mut(page)?.bytes_mut()[range])
    }

    /// So many bytes of [`Self::chunk`] are filled.
    ///
    /// # Panics
    /// When that is more than there are.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining(), "{bytes} bytes of a value with {} to be filled", self.remaining());
        self.filled += bytes;
    }
}

impl io::Write for Reserved<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = self.chunk().map_err(io::Error::other)?;
        let count = chunk.len().min(bytes.len());
        chunk[..count].copy_from_slice(&bytes[..count]);
        self.advance(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Batch {
    /// Writes a key with a value of `length` bytes, all of them zero, and returns where to fill them in: a serialiser can
    /// write into the pages themselves. The value counts as put, filled or not.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let database = calamus_engine::Database::open(directory.path())?;
    /// use std::io::Write;
    ///
    /// database.write(|txn| {
    ///     txn.create_tree("birds")?;
    ///     let mut value = txn.put_reserved("birds", b"heron", 12)?;
    ///     write!(value, "grey").expect("there is room");
    ///     Ok(())
    /// })?;
    /// let snapshot = database.read();
    /// let heron = snapshot.get("birds", b"heron")?.expect("it was put").value.to_vec()?;
    /// assert_eq!(heron, b"grey\0\0\0\0\0\0\0\0");
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_reserved(&mut self, tree: &str, key: &[u8], length: usize) -> Result<Reserved<'_>, BatchError> {
        check_key(key)?;
        if length > MAX_VALUE_BYTES {
            return Err(BatchError::ValueLength(length));
        }
        self.keep_value(tree, key)?;
        let version = self.last_txn.next();
        let state = Self::plain_mut(&mut self.trees, &self.pages, tree)?;
        let previous = btree::reserve(&mut self.pages, state, key, length, version)?;
        let (_, place) = btree::locate(&self.pages, state, key)?.expect("it was put just now");
        self.note(OperationKind::Put, tree, key, PendingValue::InTree(None))?;
        Ok(Reserved { pages: &mut self.pages, place, previous, filled: 0, length })
    }
}
