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
    let first = reserve_run(store, value.len())?;
    fill_run(store, first, value)?;
    Ok(first)
}

/// Takes a new run for a value of this length, whose bytes are zero.
pub(crate) fn reserve_run<S: PageStore + ?Sized>(store: &mut S, length_bytes: usize) -> Result<PageNumber, ReadError> {
    let pages = run_pages(length_bytes);
    let first = store.allocate(pages)?;
    for number in (first.0..first.0 + pages).map(PageNumber) {
        store.page_mut(number)?.set_kind(PageKind::Overflow);
    }
    Ok(first)
}

/// Makes a run of `pages` pages one for a value of this length, which takes no more, and whose bytes are zero. What was
/// in the pages is not copied, and pages that are not needed any more are freed. All of the others are touched: the record
/// of a batch holds every value that it wrote whole.
pub(crate) fn reuse_run<S: PageStore + ?Sized>(
    store: &mut S,
    first: PageNumber,
    pages: u32,
    length_bytes: usize,
) -> Result<(), ReadError> {
    let needed = run_pages(length_bytes);
    assert!(needed <= pages, "{needed} pages into a run of {pages}");
    for index in 0..needed {
        // A page that is not of a run is damage, and not to be written over.
        run_page(store, first, index)?;
        store.overwrite(PageNumber(first.0 + index))?.set_kind(PageKind::Overflow);
    }
    if needed < pages {
        store.free(PageNumber(first.0 + needed), pages - needed)?;
    }
    Ok(())
}

/// Puts a value into a run of its length.
pub(crate) fn fill_run<S: PageStore + ?Sized>(store: &mut S, first: PageNumber, value: &[u8]) -> Result<(), ReadError> {
    for (index, chunk) in (0..).zip(value.chunks(OVERFLOW_CAPACITY_BYTES)) {
        let page = store.page_mut(PageNumber(first.0 + index))?;
        page.bytes_mut()[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + chunk.len()].copy_from_slice(chunk);
    }
    Ok(())
}
