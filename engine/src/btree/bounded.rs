//! A part of a tree, walked in both directions.

use std::ops::Bound;

use crate::ids::TxnId;

use super::cursor::Standing;
use super::{Cursor, PageSource, ReadError, TreeState, Value};

/// The entries between two bounds. As a cursor it is no iterator, since what it shows is borrowed from it:
/// `while range.next()? { range.key(); range.value(); }`.
///
/// It stands nowhere at first: `next` goes to the first entry of the range then, and `previous` to the last. Where it ran
/// off an end, the way back begins at the entry there.
pub struct Range<'a, S: PageSource + ?Sized> {
    cursor: Cursor<'a, S>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    standing: Standing,
}

/// Where the keys that begin with `prefix` end; they begin at the prefix itself.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bound<Vec<u8>> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return Bound::Unbounded };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bound::Excluded(end)
}

impl<'a, S: PageSource + ?Sized> Range<'a, S> {
    /// The entries of a tree between two bounds; none if they are the wrong way round.
    #[doc(hidden)]
    #[must_use]
    pub fn new(source: &'a S, tree: TreeState, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Self {
        let (start, end) = (start.map(<[u8]>::to_vec), end.map(<[u8]>::to_vec));
        Self { cursor: Cursor::new(source, tree), start, end, standing: Standing::Nowhere }
    }

    /// The entries of a tree whose keys begin with `prefix`.
    #[doc(hidden)]
    #[must_use]
    pub fn with_prefix(source: &'a S, tree: TreeState, prefix: &[u8]) -> Self {
        let (start, end) = (Bound::Included(prefix.to_vec()), prefix_end(prefix));
        Self { cursor: Cursor::new(source, tree), start, end, standing: Standing::Nowhere }
    }

    /// Goes to the first entry of the range. `false` if there is none.
    pub fn first(&mut self) -> Result<bool, ReadError> {
        self.standing = Standing::Nowhere;
        let there = match &self.start {
            Bound::Unbounded => self.cursor.first()?,
            Bound::Included(key) => self.cursor.seek(key)?,
            Bound::Excluded(key) => self.cursor.seek(key)? && (self.cursor.key() != key || self.cursor.next()?),
        };
        Ok(self.stand(there && self.is_before_end(), Standing::BehindLast))
    }

    /// Goes to the last entry of the range. `false` if there is none.
    pub fn last(&mut self) -> Result<bool, ReadError> {
        self.standing = Standing::Nowhere;
        let there = match &self.end {
            Bound::Unbounded => self.cursor.last()?,
            Bound::Included(key) => self.cursor.seek_back(key)?,
            Bound::Excluded(key) => {
                self.cursor.seek_back(key)? && (self.cursor.key() != key || self.cursor.previous()?)
            }
        };
        Ok(self.stand(there && self.is_behind_start(), Standing::BeforeFirst))
    }

    /// Goes to the next entry. `false` if there is none.
    #[expect(clippy::should_implement_trait, reason = "a range is no iterator: what it shows is borrowed from it")]
    pub fn next(&mut self) -> Result<bool, ReadError> {
        match self.standing {
            Standing::Nowhere | Standing::BeforeFirst => self.first(),
            Standing::BehindLast => Ok(false),
            Standing::AtEntry => {
                self.standing = Standing::Nowhere;
                let there = self.cursor.next()?;
                Ok(self.stand(there && self.is_before_end(), Standing::BehindLast))
            }
        }
    }

    /// Goes to the entry before. `false` if there is none.
    pub fn previous(&mut self) -> Result<bool, ReadError> {
        match self.standing {
            Standing::Nowhere | Standing::BehindLast => self.last(),
            Standing::BeforeFirst => Ok(false),
            Standing::AtEntry => {
                self.standing = Standing::Nowhere;
                let there = self.cursor.previous()?;
                Ok(self.stand(there && self.is_behind_start(), Standing::BeforeFirst))
            }
        }
    }

    fn stand(&mut self, inside: bool, otherwise: Standing) -> bool {
        self.standing = if inside { Standing::AtEntry } else { otherwise };
        inside
    }

    fn is_before_end(&self) -> bool {
        match &self.end {
            Bound::Unbounded => true,
            Bound::Included(key) => self.cursor.key() <= key.as_slice(),
            Bound::Excluded(key) => self.cursor.key() < key.as_slice(),
        }
    }

    fn is_behind_start(&self) -> bool {
        match &self.start {
            Bound::Unbounded => true,
            Bound::Included(key) => self.cursor.key() >= key.as_slice(),
            Bound::Excluded(key) => self.cursor.key() > key.as_slice(),
        }
    }

    fn current(&self) -> &Cursor<'a, S> {
        assert!(self.standing == Standing::AtEntry, "the range stands at no entry");
        &self.cursor
    }

    /// The current key.
    ///
    /// # Panics
    /// When it stands at no entry.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.current().key()
    }

    /// The current value.
    ///
    /// # Panics
    /// When it stands at no entry.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        self.current().value()
    }

    /// The transaction that wrote the current entry.
    ///
    /// # Panics
    /// When it stands at no entry.
    #[must_use]
    pub fn version(&self) -> TxnId {
        self.current().version()
    }
}
