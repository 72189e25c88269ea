//! What was written to a file since its last sync, kept in memory over the real file.
//!
//! Invariant: a read of the overlay gives what a plain file would; the real file is what the last sync left. Blocks that
//! a failed sync has given up are read as they were written, and go to the real file only if they are changed again.

use std::collections::BTreeMap;
use std::io::IoSlice;

use crate::env::DiskFile;
use crate::error::StorageError;

/// The unit in which changes are kept, in bytes.
const BLOCK_BYTES: u64 = 4096;

type Content = Box<[u8; BLOCK_BYTES as usize]>;

/// The changes of one file.
pub(super) struct Overlay {
    /// Whole blocks; `None` reads as zeros and gives its space back.
    blocks: BTreeMap<u64, Option<Content>>,
    /// The same of blocks that no sync will write any more; one that is changed goes back to `blocks`.
    given_up: BTreeMap<u64, Option<Content>>,
    /// The length with all changes.
    length: u64,
    /// The real file's length.
    real_length: u64,
    /// The lowest length since the last sync: real bytes from here on were cut and read as zeros.
    real_valid: u64,
}

/// The pieces of blocks that a range covers: block number, from and to within it.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length;
    let blocks = if length == 0 { 0..0 } else { offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) };
    blocks.map(move |block| {
        let start = block * BLOCK_BYTES;
        let from = offset.max(start) - start;
        let to = end.min(start + BLOCK_BYTES) - start;
        (block, from as usize, to as usize)
    })
}

impl Overlay {
    pub fn new(real_length: u64) -> Self {
        let (blocks, given_up) = (BTreeMap::new(), BTreeMap::new());
        Self { blocks, given_up, length: real_length, real_length, real_valid: real_length }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether this holds nothing that the real file does not.
    pub fn is_clean(&self) -> bool {
        self.blocks.is_empty()
            && self.given_up.is_empty()
            && self.length == self.real_length
            && self.real_valid == self.real_length
    }

    /// Reads from the real file, as far as it was not cut meanwhile; zeros behind.
    fn read_real(&self, real: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let there = self.real_valid.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let got = real.read_at(&mut buffer[..there], offset)?;
        buffer[got..].fill(0);
        Ok(())
    }

    pub fn read(&self, real: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let got = self.length.saturating_sub(offset).min(buffer.len() as u64);
        let buffer = &mut buffer[..got as usize];
        self.read_real(real, buffer, offset)?;
        for (block, from, to) in pieces(offset, got) {
            let Some(content) = self.blocks.get(&block).or_else(|| self.given_up.get(&block)) else { continue };
            let at = (block * BLOCK_BYTES + from as u64 - offset) as usize;
            match content {
                Some(content) => buffer[at..at + to - from].copy_from_slice(&content[from..to]),
                None => buffer[at..at + to - from].fill(0),
            }
        }
        Ok(buffer.len())
    }

    /// The block to change, filled with what it reads as.
    fn block(&mut self, real: &dyn DiskFile, block: u64) -> Result<&mut Content, StorageError> {
        if let Some(content) = self.given_up.remove(&block) {
            self.blocks.entry(block).or_insert(content);
        }
        if !self.blocks.contains_key(&block) {
            let mut content = Box::new([0; BLOCK_BYTES as usize]);
            self.read_real(real, &mut content[..], block * BLOCK_BYTES)?;
            self.blocks.insert(block, Some(content));
        }
        let content = self.blocks.get_mut(&block).expect("inserted above");
        Ok(content.get_or_insert_with(|| Box::new([0; BLOCK_BYTES as usize])))
    }

    pub fn write(&mut self, real: &dyn DiskFile, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        for (block, from, to) in pieces(offset, bytes.len() as u64) {
            let at = (block * BLOCK_BYTES + from as u64 - offset) as usize;
            self.block(real, block)?[from..to].copy_from_slice(&bytes[at..at + to - from]);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Zeros a range, without changing the length.
    pub fn zero(&mut self, real: &dyn DiskFile, offset: u64, length: u64) -> Result<(), StorageError> {
        let length = self.length.saturating_sub(offset).min(length);
        for (block, from, to) in pieces(offset, length) {
            let whole = from == 0 && (to as u64 == BLOCK_BYTES || block * BLOCK_BYTES + to as u64 == self.length);
            if whole {
                self.given_up.remove(&block);
                self.blocks.insert(block, None);
            } else {
                self.block(real, block)?[from..to].fill(0);
            }
        }
        Ok(())
    }

    pub fn set_len(&mut self, real: &dyn DiskFile, length: u64) -> Result<(), StorageError> {
        if length < self.length {
            self.zero(real, length, self.length - length)?;
            drop(self.blocks.split_off(&length.div_ceil(BLOCK_BYTES)));
            drop(self.given_up.split_off(&length.div_ceil(BLOCK_BYTES)));
        }
        self.length = length;
        self.real_valid = self.real_valid.min(length);
        Ok(())
    }

    /// A sync has failed: what it should have written is not to be written any more.
    pub fn give_up(&mut self) {
        self.given_up.append(&mut self.blocks);
    }

    /// Brings all changes to the real file. The caller syncs it.
    pub fn flush(&mut self, real: &dyn DiskFile) -> Result<(), StorageError> {
        if self.real_valid < self.real_length {
            real.set_len(self.real_valid)?;
        }
        if self.length != self.real_valid {
            real.set_len(self.length)?;
        }
        (self.real_length, self.real_valid) = (self.length, self.length);
        let mut blocks = std::mem::take(&mut self.blocks).into_iter().peekable();
        while let Some((first, content)) = blocks.next() {
            let written = content.is_some();
            let mut run = vec![content];
            while let Some((_, content)) = blocks.next_if(|(block, content)| {
                *block == first + run.len() as u64 && content.is_some() == written && run.len() < 1024
            }) {
                run.push(content);
            }
            let offset = first * BLOCK_BYTES;
            let length = (run.len() as u64 * BLOCK_BYTES).min(self.length - offset);
            if !written {
                real.punch(offset, length)?;
                continue;
            }
            let mut parts: Vec<IoSlice<'_>> = run.iter().flatten().map(|content| IoSlice::new(&content[..])).collect();
            let tail = length as usize - (parts.len() - 1) * BLOCK_BYTES as usize;
            let last = run.last().and_then(Option::as_ref).expect("a run of written blocks");
            *parts.last_mut().expect("not empty") = IoSlice::new(&last[..tail]);
            real.write_at(&parts, offset)?;
        }
        Ok(())
    }
}
