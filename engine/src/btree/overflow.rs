//! Overflow runs: values too long for a leaf, in pages that follow each other.
//!
//! ```text
//!  0        8     9         16                                8192
//!  +--------+-----+---------+----------------------------------+
//!  |checksum|kind | zeros   | up to 8176 bytes of the value    |   times ceil(length / 8176)
//!  +--------+-----+---------+----------------------------------+
//! ```
//!
//! Only the leaf knows the length. What stands behind the value's end in the last page means nothing.

use crate::ids::PageNumber;
use crate::page::{PAGE_HEADER_BYTES, PageKind};

use super::node::{BODY_BYTES, Damage};
use super::{PageRef, PageSource, PageStore, ReadError, damaged};

/// What one page of a run holds, in bytes.
pub(crate) const OVERFLOW_CAPACITY_BYTES: usize = BODY_BYTES;

/// How many pages a value of this length in bytes takes.
#[must_use]
pub(crate) fn run_pages(length_bytes: usize) -> u32 {
    u32::try_from(length_bytes.div_ceil(OVERFLOW_CAPACITY_BYTES)).expect("a value is at most 8 MiB")
}

/// A page of a run, by its place in the run.
pub(crate) fn run_page<S: PageSource + ?Sized>(
    source: &S,
    first: PageNumber,
    index: u32,
) -> Result<PageRef<'_>, ReadError> {
    let Some(number) = first.0.checked_add(index).map(PageNumber) else {
        return Err(damaged(source, first, Damage("an overflow run beyond the last page number")));
    };
    let page = source.page(number)?;
    if page.kind() != Some(PageKind::Overflow) {
        return Err(damaged(source, number, Damage("not an overflow page where a value has one")));
    }
    Ok(page)
}

/// Writes a value into a new run.
pub(crate) fn write_run<S: PageStore + ?Sized>(store: &mut S, value: &[u8]) -> Result<PageNumber, ReadError> {
    let first = store.allocate(run_pages(value.len()))?;
    let mut number = first;
    for chunk in value.chunks(OVERFLOW_CAPACITY_BYTES) {
        let page = store.page_mut(number)?;
        page.set_kind(PageKind::Overflow);
        page.bytes_mut()[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + chunk.len()].copy_from_slice(chunk);
        number = number.next();
    }
    Ok(first)
}

/// Writes a value over another that takes as many pages. All of them are touched, also those that stay as they are: the
/// record of a batch holds every value that it wrote whole.
pub(crate) fn rewrite_run<S: PageStore + ?Sized>(
    store: &mut S,
    first: PageNumber,
    value: &[u8],
) -> Result<(), ReadError> {
    for (index, chunk) in (0..).zip(value.chunks(OVERFLOW_CAPACITY_BYTES)) {
        run_page(store, first, index)?;
        let page = store.page_mut(PageNumber(first.0 + index))?;
        page.bytes_mut()[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + chunk.len()].copy_from_slice(chunk);
    }
    Ok(())
}
