//! The bytes of a file in blocks that images of a disk share until one of them changes a block: a disk after a power cut
//! costs what it differs by, and thousands are made of one.

use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_64;

pub(super) const BLOCK_BYTES: usize = 4096;

/// A block, and its hash once somebody asked for it.
#[derive(Default)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    hash: OnceLock<u64>,
}

impl Clone for Block {
    /// Whoever clones is going to change the copy.
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), hash: OnceLock::new() }
    }
}

impl Block {
    fn zeroed() -> Self {
        Self { bytes: vec![0; BLOCK_BYTES].into(), hash: OnceLock::new() }
    }

    /// 0 for zeros, so that a block of zeros is as one that is not there.
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| if self.bytes.iter().all(|byte| *byte == 0) { 0 } else { xxh3_64(&self.bytes) | 1 })
    }
}

/// A block as it was at some moment; `None` is zeros.
pub(super) type SharedBlock = Option<Arc<Block>>;

/// Bytes `from..to` of a block that may not be there; `None` for zeros.
pub(super) fn part(block: &SharedBlock, from: usize, to: usize) -> Option<&[u8]> {
    block.as_ref().map(|block| &block.bytes[from..to])
}

/// A block to be changed.
pub(super) fn bytes_mut(block: &mut SharedBlock) -> &mut [u8] {
    let block = Arc::make_mut(block.get_or_insert_with(|| Arc::new(Block::zeroed())));
    block.hash = OnceLock::new();
    &mut block.bytes
}

/// A file's bytes. Bytes of the last block beyond the length are zero.
#[derive(Clone, Default)]
pub(super) struct Content {
    blocks: Vec<SharedBlock>,
    length: usize,
}

/// The pieces of blocks that a range covers: block, from and to within it.
fn pieces(from: usize, to: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let blocks = if from < to { from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES) } else { 0..0 };
    blocks.map(move |block| {
        let start = block * BLOCK_BYTES;
        (block, from.max(start) - start, to.min(start + BLOCK_BYTES) - start)
    })
}

impl Content {
    pub fn len(&self) -> usize {
        self.length
    }

    /// The block of a number, as it is.
    pub fn block(&self, number: usize) -> SharedBlock {
        self.blocks.get(number).cloned().flatten()
    }

    /// Fills `buffer`, which must not reach beyond the end.
    pub fn read(&self, at: usize, buffer: &mut [u8]) {
        for (block, from, to) in pieces(at, at + buffer.len()) {
            let place = block * BLOCK_BYTES + from - at;
            let target = &mut buffer[place..place + to - from];
            match part(&self.blocks[block], from, to) {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
        }
    }

    /// Writes within the length; `None` writes zeros.
    pub fn write(&mut self, at: usize, length: usize, bytes: Option<&[u8]>) {
        assert!(at + length <= self.length, "a write within the file");
        for (block, from, to) in pieces(at, at + length) {
            let place = block * BLOCK_BYTES + from - at;
            match bytes {
                Some(bytes) => {
                    bytes_mut(&mut self.blocks[block])[from..to].copy_from_slice(&bytes[place..place + to - from]);
                }
                None if to - from == BLOCK_BYTES => self.blocks[block] = None,
                None if self.blocks[block].is_some() => bytes_mut(&mut self.blocks[block])[from..to].fill(0),
                None => {}
            }
        }
    }

    pub fn set_len(&mut self, length: usize) {
        if length < self.length {
            let end = self.length.min(length.next_multiple_of(BLOCK_BYTES));
            self.write(length, end - length, None);
        }
        self.blocks.resize(length.div_ceil(BLOCK_BYTES), None);
        self.length = length;
    }

    /// Flips a bit of a byte within the length.
    pub fn flip(&mut self, at: usize, bit: u8) {
        bytes_mut(&mut self.blocks[at / BLOCK_BYTES])[at % BLOCK_BYTES] ^= 1 << bit;
    }

    /// What tells contents apart: the length and the hash of each block.
    pub fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        let blocks = self.blocks.iter().map(|block| block.as_ref().map_or(0, |block| block.hash()));
        std::iter::once(self.length as u64).chain(blocks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_list_of_bytes_and_clones_stay_as_they_are(
            steps in prop::collection::vec((0..3_u8, 0..20_000_usize, 0..9_000_usize, any::<u8>()), 1..30),
        ) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            let mut clones = Vec::new();
            for (kind, at, length, fill) in steps {
                match kind {
                    0 => {
                        content.set_len(at);
                        model.resize(at, 0);
                    }
                    _ if at + length > model.len() => {}
                    1 => {
                        let bytes = vec![fill; length];
                        content.write(at, length, Some(&bytes));
                        model[at..at + length].copy_from_slice(&bytes);
                    }
                    _ => {
                        content.write(at, length, None);
                        model[at..at + length].fill(0);
                    }
                }
                clones.push((content.clone(), model.clone()));
            }
            for (content, model) in &clones {
                let mut bytes = vec![1; content.len()];
                content.read(0, &mut bytes);
                prop_assert!(&bytes == model);
                let mut fresh = Content::default();
                fresh.set_len(model.len());
                fresh.write(0, model.len(), Some(model));
                prop_assert!(fresh.hashes().eq(content.hashes()), "equal bytes, equal hashes");
            }
        }
    }
}
