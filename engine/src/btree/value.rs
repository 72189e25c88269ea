//! Reading values, without copying them where they stand.

use std::ops::Deref;

use crate::ids::{PageNumber, TxnId};

use super::overflow::{OVERFLOW_CAPACITY_BYTES, run_page, run_pages};
use super::{AsPageSource, PageRef, PageSource, ReadError};
use crate::page::PAGE_HEADER_BYTES;

/// What a tree holds under a key.
#[derive(Clone)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The transaction that wrote it.
    pub version: TxnId,
    /// The value.
    pub value: Value<'a>,
}

/// A value, where it stands.
#[derive(Clone)]
pub struct Value<'a>(Place<'a>);

#[derive(Clone)]
enum Place<'a> {
    /// A part of a page that somebody else holds.
    Borrowed(&'a [u8]),
    /// A part of a page.
    Page { page: PageRef<'a>, start: usize, length: usize },
    /// A run of pages, not read yet.
    Run { source: &'a dyn PageSource, first: PageNumber, length: usize },
}

impl<'a> Value<'a> {
    pub(super) fn borrowed(bytes: &'a [u8]) -> Self {
        Self(Place::Borrowed(bytes))
    }

    pub(super) fn in_page(page: PageRef<'a>, start: usize, length: usize) -> Self {
        Self(Place::Page { page, start, length })
    }

    pub(super) fn in_run<S: PageSource + ?Sized>(source: &'a S, first: PageNumber, length: u32) -> Self {
        Self(Place::Run { source: AsPageSource::as_page_source(source), first, length: length as usize })
    }

    /// The value's length, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Borrowed(bytes) => bytes.len(),
            Place::Page { length, .. } | Place::Run { length, .. } => *length,
        }
    }

    /// Whether the value has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value, if it stands in a leaf, or in a single page that [`Self::load`] has read.
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Borrowed(bytes) => Some(bytes),
            Place::Page { page, start, length } => Some(&page.bytes()[*start..start + length]),
            Place::Run { .. } => None,
        }
    }

    /// Reads the page of a value that fills no more than one page of an overflow run, so that [`Self::as_slice`] has
    /// it. Other values stay as they are.
    pub fn load(self) -> Result<Self, ReadError> {
        match self.0 {
            Place::Run { source, first, length } if length <= OVERFLOW_CAPACITY_BYTES => {
                let page = run_page(source, first, 0)?;
                Ok(Self::in_page(page, PAGE_HEADER_BYTES, length))
            }
            place => Ok(Self(place)),
        }
    }

    /// The value in parts, each of them a part of one page; none for an empty value.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { place: self.0.clone(), next: 0 }
    }

    /// A copy of the value.
    pub fn to_vec(&self) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(self.len());
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Appends the value to `to`.
    pub fn copy_to(&self, to: &mut Vec<u8>) -> Result<(), ReadError> {
        if let Some(bytes) = self.as_slice() {
            to.extend_from_slice(bytes);
            return Ok(());
        }
        to.reserve(self.len());
        for chunk in self.chunks() {
            to.extend_from_slice(&chunk?);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_slice() {
            Some(bytes) => write!(f, "Value({bytes:02x?})"),
            None => write!(f, "Value({} bytes in an overflow run)", self.len()),
        }
    }
}

/// Iterates over the parts of a value. Ends after an error.
pub struct Chunks<'a> {
    place: Place<'a>,
    next: u32,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<ValueChunk<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        let total = match &self.place {
            Place::Borrowed(bytes) => u32::from(!bytes.is_empty()),
            Place::Page { length, .. } => u32::from(*length > 0),
            Place::Run { length, .. } => run_pages(*length),
        };
        if number >= total {
            return None;
        }
        self.next = number + 1;
        Some(Ok(match &self.place {
            Place::Borrowed(bytes) => ValueChunk(Held::Borrowed(bytes)),
            Place::Page { page, start, length } => ValueChunk(Held::Page(page.clone(), *start, start + length)),
            Place::Run { source, first, length } => match run_page(*source, *first, number) {
                Ok(page) => {
                    let bytes = (length - number as usize * OVERFLOW_CAPACITY_BYTES).min(OVERFLOW_CAPACITY_BYTES);
                    ValueChunk(Held::Page(page, PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + bytes))
                }
                Err(error) => {
                    self.next = total;
                    return Some(Err(error));
                }
            },
        }))
    }
}

/// A part of a value.
pub struct ValueChunk<'a>(Held<'a>);

enum Held<'a> {
    Borrowed(&'a [u8]),
    Page(PageRef<'a>, usize, usize),
}

impl Deref for ValueChunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Borrowed(bytes) => bytes,
            Held::Page(page, start, end) => &page.bytes()[*start..*end],
        }
    }
}
