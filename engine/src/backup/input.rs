//! Reading the parts of a backup: nothing that was not written gets through.
//!
//! Each chunk is compared with its own checksum before it is used, and each part with the hash in the manifest when it
//! ends. So whoever uses chunks on the way must be able to drop what he made of them until [`Input::next`] has said that
//! there are no more.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, PageRuns, frames_of, pages_of};
use super::error::ChainError;
use super::manifest::Manifest;
use super::output::{PART_HEADER_BYTES, part_header, part_name};
use super::store::BackupStore;
use crate::journal::frame::Frame;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 2 << 20;

/// What a chunk holds.
pub(super) enum Piece {
    Pages(PageRuns),
    Frames(Vec<Frame>),
}

/// The chunks of a backup, in order.
pub(super) struct Input<'i> {
    store: &'i dyn BackupStore,
    manifest: &'i Manifest,
    /// How many parts were read to their end.
    done: usize,
    part: Option<Reader>,
}

/// One part.
struct Reader {
    name: String,
    bytes: u64,
    /// How much of it was read.
    at: u64,
    hash: Xxh3,
    ready: Vec<u8>,
    used: usize,
}

impl<'i> Input<'i> {
    pub(super) fn new(store: &'i dyn BackupStore, manifest: &'i Manifest) -> Self {
        Self { store, manifest, done: 0, part: None }
    }

    /// The next piece, and how many stored bytes it took; `None` when every byte of the backup was read and is what was
    /// written.
    pub(super) fn next(&mut self) -> Result<Option<(Piece, u64)>, ChainError> {
        loop {
            let Some(part) = &mut self.part else {
                let Some(info) = self.manifest.parts.get(self.done) else { return Ok(None) };
                let id = self.manifest.backup_id();
                let name = part_name(&id, self.done + 1);
                let mut part = Reader { name, bytes: info.bytes, at: 0, hash: Xxh3::new(), ready: Vec::new(), used: 0 };
                if part.take(self.store, PART_HEADER_BYTES)? != part_header(&id, self.done + 1) {
                    return Err(part.bad("it does not begin as this part of this backup does"));
                }
                self.part = Some(part);
                continue;
            };
            if part.left() == 0 {
                if part.hash.digest128() != self.manifest.parts[self.done].hash {
                    return Err(part.bad("it does not match the hash in the manifest"));
                }
                self.done += 1;
                self.part = None;
                continue;
            }
            let (piece, stored) = part.chunk(self.store)?;
            return Ok(Some((piece, stored)));
        }
    }
}

impl Reader {
    fn bad(&self, what: impl Into<String>) -> ChainError {
        ChainError::damaged(&self.name, what)
    }

    fn left(&self) -> u64 {
        self.bytes - self.at + (self.ready.len() - self.used) as u64
    }

    /// The next bytes.
    fn take(&mut self, store: &dyn BackupStore, count: usize) -> Result<&[u8], ChainError> {
        if self.ready.len() - self.used < count {
            if self.left() < count as u64 {
                return Err(self.bad("its last chunk does not end where it does"));
            }
            self.ready.drain(..self.used);
            self.used = 0;
            while self.ready.len() < count {
                let wanted = READ_BYTES.max(count - self.ready.len());
                let wanted = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX).min(wanted);
                let read = store.read(&self.name, self.at, wanted)?;
                if read.is_empty() {
                    return Err(self.bad(format!("it ends after {} of {} bytes", self.at, self.bytes)));
                }
                self.hash.update(&read);
                self.at += read.len() as u64;
                self.ready.extend_from_slice(&read);
            }
        }
        self.used += count;
        Ok(&self.ready[self.used - count..self.used])
    }

    fn chunk(&mut self, store: &dyn BackupStore) -> Result<(Piece, u64), ChainError> {
        let at = self.bytes - self.left();
        let here = |what: String| format!("byte {at}: {what}");
        let header: [u8; CHUNK_HEADER_BYTES] =
            self.take(store, CHUNK_HEADER_BYTES)?.try_into().expect("as many as asked for");
        let chunk = ChunkHeader::parse(&header).map_err(|what| self.bad(here(what.into())))?;
        let opened = chunk.open(&header, self.take(store, chunk.stored_bytes)?);
        let raw: Bytes = opened.map_err(|what| self.bad(here(what)))?;
        let piece = match chunk.kind {
            ChunkKind::Pages => pages_of(&raw).map(Piece::Pages).map_err(str::to_owned),
            ChunkKind::Frames => frames_of(&raw).map(Piece::Frames),
        };
        let stored = (CHUNK_HEADER_BYTES + chunk.stored_bytes) as u64;
        Ok((piece.map_err(|what| self.bad(here(what)))?, stored))
    }
}
