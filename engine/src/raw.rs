//! The one module of the workspace with `unsafe`, beside a test that counts allocations: a shared map of a file, bytes
//! seen as a page, and a word to the processor about what is read soon.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapOptions};

use crate::ids::PageNumber;
use crate::page::{PAGE_BYTES, Page};

/// A read-only map that may be longer than its file. Outside of the engine it can only be passed on: what makes it sound
/// (who changes the file, and how far it may be read) is not for others to promise.
pub struct FileMap {
    map: Mmap,
}

impl FileMap {
    /// Maps the first `length` bytes of `file`.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(crate) fn new(file: &std::fs::File, length: u64) -> std::io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| std::io::Error::other("the map does not fit this machine"))?;
        // SAFETY: the map is shared and read-only. The file belongs to this process as long as the map lives (the
        // store that the map is part of holds the directory's lock), and bytes of it change only by the checkpointer,
        // which by contract never touches a page that a live reader may hold a slice of. Bytes beyond the end of the
        // file are reached only through `page`, whose contract forbids it.
        let map = unsafe { MmapOptions::new().len(length).map(file)? };
        Ok(Self { map })
    }

    /// The page's bytes.
    ///
    /// The caller guarantees that the file is long enough (`page number < page count` of a state whose file length is
    /// in place); reading beyond the end of the file raises SIGBUS.
    ///
    /// # Panics
    /// When the page lies outside the map.
    #[must_use]
    pub(crate) fn page(&self, number: PageNumber) -> &Page {
        let start = number.0 as usize * PAGE_BYTES;
        let bytes: &[u8; PAGE_BYTES] =
            self.map[start..start + PAGE_BYTES].try_into().expect("a slice of the length of a page");
        view(bytes)
    }
}

/// Views bytes as a page.
#[must_use]
pub fn view(bytes: &[u8; PAGE_BYTES]) -> &Page {
    // SAFETY: `Page` is `repr(transparent)` over exactly this array type, so layout and validity are the same.
    unsafe { &*std::ptr::from_ref(bytes).cast::<Page>() }
}

/// Says that a cache line of a page will be read soon. Nothing waits for it, and nothing is read by the program.
///
/// # Panics
/// When the line is not one of the page.
#[inline]
pub(crate) fn read_soon(page: &Page, line: usize) {
    let byte = &page.bytes()[line * CACHE_LINE_BYTES];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is there on every processor of this architecture, and changes nothing that can be observed.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(byte).cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(byte);
}

/// How much of memory a processor fetches at once, in bytes.
pub(crate) const CACHE_LINE_BYTES: usize = 64;
