//! One bit per page, readable without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::PageNumber;

const BITS_PER_CHUNK: usize = 1 << 16;
const CHUNKS: usize = 1 << 16;
const _: () = assert!(BITS_PER_CHUNK * CHUNKS == 1 << u32::BITS, "every page number has its bit");

type Chunk = [AtomicU64; BITS_PER_CHUNK / 64];

/// A set of page numbers. Chunks of 64 Ki pages (512 MiB of data) come into being when first set.
pub struct PageBits {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
}

impl Default for PageBits {
    fn default() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }
}

impl PageBits {
    fn place(number: PageNumber) -> (usize, usize, u64) {
        let number = number.0 as usize;
        (number / BITS_PER_CHUNK, number % BITS_PER_CHUNK / 64, 1 << (number % 64))
    }

    /// Whether the page is in the set.
    #[must_use]
    pub fn contains(&self, number: PageNumber) -> bool {
        let (chunk, word, mask) = Self::place(number);
        self.chunks[chunk].get().is_some_and(|words| words[word].load(Ordering::Acquire) & mask != 0)
    }

    /// Puts the page into the set.
    pub fn insert(&self, number: PageNumber) {
        let (chunk, word, mask) = Self::place(number);
        let words = self.chunks[chunk].get_or_init(|| Box::new([const { AtomicU64::new(0) }; BITS_PER_CHUNK / 64]));
        words[word].fetch_or(mask, Ordering::Release);
    }

    /// Takes the page out of the set.
    pub fn remove(&self, number: PageNumber) {
        let (chunk, word, mask) = Self::place(number);
        if let Some(words) = self.chunks[chunk].get() {
            words[word].fetch_and(!mask, Ordering::Release);
        }
    }
}
