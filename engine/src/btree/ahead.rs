//! Having the next leaf in the processor's caches when a cursor comes to it.
//!
//! Leaves stand anywhere in the file, so a walk over a tree larger than the caches would wait for memory at each: for the
//! header, then for the slots, then for the first cell. While it walks over one leaf, the lines of the next are asked for,
//! some at each entry, so that they come while the program does something with what it was given.
//!
//! Only a page that costs nothing to find is looked ahead to: see [`PageSource::page_at_hand`](super::PageSource).

use crate::page::{PAGE_BYTES, Page};
use crate::raw::{CACHE_LINE_BYTES, read_soon};

const LINES: usize = PAGE_BYTES / CACHE_LINE_BYTES;

/// The leaf behind the one in which a cursor stands.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    page: Option<&'a Page>,
    line: usize,
    lines_a_step: usize,
}

impl<'a> Ahead<'a> {
    /// Looks ahead to a page, in about `steps` steps.
    pub(super) fn new(page: Option<&'a Page>, steps: usize) -> Self {
        Self { page, line: 0, lines_a_step: LINES.div_ceil(steps.max(1)) }
    }

    /// Asks for some lines more.
    #[inline]
    pub(super) fn step(&mut self) {
        let Some(page) = self.page else { return };
        let end = (self.line + self.lines_a_step).min(LINES);
        (self.line..end).for_each(|line| read_soon(page, line));
        self.line = end;
    }
}
