//! Reading a segment in pieces, for whoever goes through it from one end to the other.

use std::sync::Arc;

use bytes::Bytes;

use crate::env::DiskFile;
use crate::error::StorageError;
use crate::journal::format::Geometry;

/// How much is read at once, in bytes, unless a frame is larger.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// The same where only the headers of frames are looked at.
pub(super) const HEADER_WINDOW_BYTES: u64 = 16 << 10;

/// A stretch of a segment in memory.
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    /// The size of the file, in bytes; no more is read at once.
    file_bytes: u64,
    read_bytes: u64,
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// `read_bytes` are read at once, or as many as are asked for.
    pub fn new(file: Arc<dyn DiskFile>, geometry: Geometry, read_bytes: u64) -> Self {
        Self { file, file_bytes: geometry.segment_bytes, read_bytes, start: 0, bytes: Bytes::new() }
    }

    /// `length` bytes from `offset`; fewer if the file ends.
    pub fn bytes(&mut self, offset: u64, length: u64) -> Result<Bytes, StorageError> {
        let covered = offset >= self.start && offset + length <= self.start + self.bytes.len() as u64;
        if !covered {
            let wanted = length.max(self.read_bytes).min(self.file_bytes.saturating_sub(offset));
            let mut buffer = vec![0; usize::try_from(wanted).expect("a frame fits memory")];
            let got = self.file.read_at(&mut buffer, offset)?;
            buffer.truncate(got);
            (self.start, self.bytes) = (offset, buffer.into());
        }
        let from = usize::try_from(offset - self.start).expect("within the window");
        let to = self.bytes.len().min(from + usize::try_from(length).expect("a frame fits memory"));
        Ok(self.bytes.slice(from..to))
    }
}
