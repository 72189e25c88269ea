//! Reading the parts of a backup: nothing that was not written gets through.
//!
//! Each chunk is compared with its own checksum before it is used, and each part with the hash in the manifest when it
//! ends. So whoever uses chunks on the way must be able to drop what he made of them until [`Input::next`] has said that
//! there are no more.
//!
//! A chunk that is not compressed is used where it was read: only one that two reads share is copied.

use std::sync::Arc;

use bytes::Bytes;

use super::ahead::{Ahead, ReadAhead};
use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, PageRuns, frames_of, pages_of};
use super::error::ChainError;
use super::manifest::Manifest;
use super::output::{PART_HEADER_BYTES, part_header, part_name};
use super::store::BackupStore;
use crate::journal::frame::Frame;

/// What a chunk holds.
pub(super) enum Piece {
    Pages(PageRuns),
    Frames(Vec<Frame>),
}

/// The chunks of a backup, in order.
pub(super) struct Input<'i> {
    manifest: &'i Manifest,
    ahead: ReadAhead,
    /// How many parts were read to their end.
    done: usize,
    part: Option<Part>,
}

/// One part.
struct Part {
    name: String,
    /// What was not taken of it yet, read or not, in bytes.
    left: u64,
    bytes: u64,
    /// What was read, and not taken yet.
    ready: Bytes,
}

impl<'i> Input<'i> {
    pub(super) fn new(store: &Arc<dyn BackupStore>, manifest: &'i Manifest) -> Result<Self, ChainError> {
        Ok(Self { manifest, ahead: ReadAhead::begin(store.clone(), manifest)?, done: 0, part: None })
    }

    /// The next piece, and how many stored bytes it took; `None` when every byte of the backup was read and is what was
    /// written.
    pub(super) fn next(&mut self) -> Result<Option<(Piece, u64)>, ChainError> {
        loop {
            let Some(part) = &mut self.part else {
                let Some(info) = self.manifest.parts.get(self.done) else { return Ok(None) };
                let id = self.manifest.backup_id();
                let name = part_name(&id, self.done + 1);
                let mut part = Part { name, left: info.bytes, bytes: info.bytes, ready: Bytes::new() };
                if part.take(&mut self.ahead, PART_HEADER_BYTES)?[..] != part_header(&id, self.done + 1) {
                    return Err(part.bad("it does not begin as this part of this backup does"));
                }
                self.part = Some(part);
                continue;
            };
            if part.left == 0 {
                match self.ahead.next()? {
                    Ahead::End(hash) if hash == self.manifest.parts[self.done].hash => {}
                    Ahead::End(_) => return Err(part.bad("it does not match the hash in the manifest")),
                    Ahead::Bytes(_) => unreachable!("no more is read of a part than it has"),
                }
                self.done += 1;
                self.part = None;
                continue;
            }
            return part.chunk(&mut self.ahead).map(Some);
        }
    }
}

impl Part {
    fn bad(&self, what: impl Into<String>) -> ChainError {
        ChainError::damaged(&self.name, what)
    }

    /// The next bytes.
    fn take(&mut self, ahead: &mut ReadAhead, count: usize) -> Result<Bytes, ChainError> {
        if self.left < count as u64 {
            return Err(self.bad("its last chunk does not end where it does"));
        }
        self.left -= count as u64;
        if self.ready.is_empty() {
            self.ready = self.read(ahead)?;
        }
        if self.ready.len() >= count {
            return Ok(self.ready.split_to(count));
        }
        let mut taken = Vec::with_capacity(count);
        loop {
            let some = self.ready.split_to(self.ready.len().min(count - taken.len()));
            taken.extend_from_slice(&some);
            if taken.len() == count {
                return Ok(taken.into());
            }
            self.ready = self.read(ahead)?;
        }
    }

    fn read(&self, ahead: &mut ReadAhead) -> Result<Bytes, ChainError> {
        match ahead.next()? {
            Ahead::Bytes(bytes) => Ok(bytes),
            Ahead::End(_) => unreachable!("all bytes of a part come before its end"),
        }
    }

    fn chunk(&mut self, ahead: &mut ReadAhead) -> Result<(Piece, u64), ChainError> {
        let at = self.bytes - self.left;
        let here = |what: String| format!("byte {at}: {what}");
        let header = self.take(ahead, CHUNK_HEADER_BYTES)?;
        let header: [u8; CHUNK_HEADER_BYTES] = header[..].try_into().expect("as many as asked for");
        let chunk = ChunkHeader::parse(&header).map_err(|what| self.bad(here(what.into())))?;
        let stored = self.take(ahead, chunk.stored_bytes)?;
        let raw = chunk.open(&header, &stored).map_err(|what| self.bad(here(what)))?;
        let piece = match chunk.kind {
            ChunkKind::Pages => pages_of(&raw).map(Piece::Pages).map_err(str::to_owned),
            ChunkKind::Frames => frames_of(&raw).map(Piece::Frames),
        };
        let stored = (CHUNK_HEADER_BYTES + chunk.stored_bytes) as u64;
        Ok((piece.map_err(|what| self.bad(here(what)))?, stored))
    }
}
