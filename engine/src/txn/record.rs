//! A record: what a batch did, as bytes. The payload of a frame of kind record.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     4  magic "CREC"
//!      4     2  format version (2)
//!      6     2  zero
//!      8     8  builds on: the txn id of the state that it changes
//!     16     8  first txn id
//!     24     8  last txn id
//!     32     8  timeline
//!     40     8  wall time, microseconds since 1970
//!     48    16  digest of the state after it
//!     64    16  digest of the state that it changes
//!     80     4  count of freed runs
//!     84     4  count of full images
//!     88     4  count of diffs
//!     92     4  count of tree names
//!     96     4  count of operations
//!    100     4  zero
//!    104        freed runs: first page u32, count u32; ascending
//!               numbers of the pages with full images, u32 each, ascending
//!               full images, 8192 bytes each, in that order
//!               diffs: page u32, count of ranges u16, zero u16; each range: offset u16, length u16, bytes
//!               tree names: length u16, bytes
//!               operations: see [`super::ops`]
//! ```
//!
//! The digest of the state that it changes tells two states of one txn id apart: a batch that was staged on another
//! batch than the one that was committed under its txn id is void, however the numbers look.
//!
//! A page has a full image if it was allocated in this batch, whatever it was before; else a diff. No page is named
//! twice. Ranges ascend and do not overlap: applying a diff twice, or on a mixture of the page's content before and
//! after, ends in the same bytes.

use bytes::{Bytes, BytesMut};

use super::ops::OperationView;
use crate::ids::{Digest, NEVER_REACHED, PageNumber, Timeline, TxnId};
use crate::page::PAGE_BYTES;
use crate::page::superblock::Superblock;
use crate::store::AppliedState;

/// The size of a record's fixed part, in bytes.
pub const RECORD_HEADER_BYTES: usize = 104;
/// The size of a diff's header, in bytes.
pub const DIFF_HEADER_BYTES: usize = 8;
/// The size of a range's header, in bytes.
pub const RANGE_HEADER_BYTES: usize = 4;

const MAGIC: [u8; 4] = *b"CREC";
const FORMAT_VERSION: u16 = 2;

/// The fixed part of a record, without the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordHeader {
    /// The txn id of the state that the record changes.
    pub builds_on: TxnId,
    /// The first txn id of the batch.
    pub first_txn: TxnId,
    /// The last txn id of the batch.
    pub last_txn: TxnId,
    /// The timeline on which it was made.
    pub timeline: Timeline,
    /// Microseconds since 1970; never goes back.
    pub wall_time_micros: u64,
    /// The digest of the state after it.
    pub digest: Digest,
    /// The digest of the state that it changes.
    pub base_digest: Digest,
}

impl RecordHeader {
    /// Whether the record changes this state; else it is void.
    #[must_use]
    pub fn builds_on(&self, state: &AppliedState) -> bool {
        self.builds_on == state.txn_id && self.base_digest == state.digest
    }
}

/// Builds a record front to back.
pub struct RecordWriter {
    bytes: BytesMut,
}

/// How many items each section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub freed: u32,
    pub full: u32,
    pub diffs: u32,
    pub names: u32,
    pub operations: u32,
}

impl RecordWriter {
    /// Starts a record of about `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.resize(RECORD_HEADER_BYTES, 0);
        Self { bytes }
    }

    /// How long it is so far, which is the offset of what comes next.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn put_u16(&mut self, number: usize) {
        self.put(&u16::try_from(number).expect("fits by construction").to_le_bytes());
    }

    pub(super) fn put_u32(&mut self, number: usize) {
        self.put(&u32::try_from(number).expect("fits by construction").to_le_bytes());
    }

    /// Fills in the fixed part. What is returned takes no more memory than it has bytes, within a quarter: frames are
    /// kept by their bytes.
    pub(super) fn finish(mut self, header: &RecordHeader, counts: Counts) -> Bytes {
        let fixed = &mut self.bytes[..RECORD_HEADER_BYTES];
        fixed[0..4].copy_from_slice(&MAGIC);
        fixed[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        fixed[8..16].copy_from_slice(&header.builds_on.0.to_le_bytes());
        fixed[16..24].copy_from_slice(&header.first_txn.0.to_le_bytes());
        fixed[24..32].copy_from_slice(&header.last_txn.0.to_le_bytes());
        fixed[32..40].copy_from_slice(&header.timeline.0.to_le_bytes());
        fixed[40..48].copy_from_slice(&header.wall_time_micros.to_le_bytes());
        fixed[48..64].copy_from_slice(&header.digest.0.to_le_bytes());
        fixed[64..80].copy_from_slice(&header.base_digest.0.to_le_bytes());
        for (place, count) in
            [counts.freed, counts.full, counts.diffs, counts.names, counts.operations].into_iter().enumerate()
        {
            fixed[80 + place * 4..84 + place * 4].copy_from_slice(&count.to_le_bytes());
        }
        if self.bytes.capacity() > self.bytes.len() / 4 * 5 + 256 {
            return Bytes::copy_from_slice(&self.bytes);
        }
        self.bytes.freeze()
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad record at byte {offset}: {what}")]
#[non_exhaustive]
pub struct RecordError {
    /// Where, in bytes from the record's start.
    pub offset: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// A record, checked, and still in the frame's bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The fixed part.
    pub header: RecordHeader,
    /// Runs of pages that are free after it and were not before: first page and count.
    pub freed: Vec<(PageNumber, u32)>,
    /// Pages with full images, and where the image starts in the record.
    pub full: Vec<(PageNumber, usize)>,
    /// Pages with diffs.
    pub diffs: Vec<PageDiff>,
    /// Names of the trees that operations speak of.
    pub trees: Vec<String>,
    /// What the transactions did, in order.
    pub operations: Vec<OperationView>,
}

/// The diff of one page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageDiff {
    /// The page.
    pub page: PageNumber,
    /// Ranges: offset in the page, and the place of the bytes in the record.
    pub ranges: Vec<(usize, std::ops::Range<usize>)>,
}

/// Reads front to back, and says where it stopped.
pub(super) struct RecordReader<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> RecordReader<'a> {
    pub(super) fn fail<T>(&self, what: &'static str) -> Result<T, RecordError> {
        Err(RecordError { offset: self.at, what })
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..count)) {
            Some(part) => {
                self.at += count;
                Ok(part)
            }
            None => self.fail("it ends too early"),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("2 bytes")))
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("4 bytes")))
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")))
    }

    fn u128(&mut self) -> Result<u128, RecordError> {
        Ok(u128::from_le_bytes(self.take(16)?.try_into().expect("16 bytes")))
    }

    /// A count of items of at least `item_bytes` each, refused if the record cannot hold so many.
    fn count(&mut self, item_bytes: usize) -> Result<usize, RecordError> {
        let count = self.u32()? as usize;
        if count > self.bytes.len() / item_bytes {
            return self.fail("a count larger than the record");
        }
        Ok(count)
    }
}

impl Record {
    /// Reads the fixed part of a record, and says nothing of the rest.
    pub(crate) fn decode_header(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
        Self::read_header(&mut RecordReader { bytes, at: 0 })
    }

    fn read_header(reader: &mut RecordReader<'_>) -> Result<RecordHeader, RecordError> {
        if reader.take(4)? != MAGIC {
            return reader.fail("no record magic");
        }
        if reader.u16()? != FORMAT_VERSION {
            return reader.fail("unknown format version");
        }
        reader.u16()?;
        let header = RecordHeader {
            builds_on: TxnId(reader.u64()?),
            first_txn: TxnId(reader.u64()?),
            last_txn: TxnId(reader.u64()?),
            timeline: Timeline(reader.u64()?),
            wall_time_micros: reader.u64()?,
            digest: Digest(reader.u128()?),
            base_digest: Digest(reader.u128()?),
        };
        if header.builds_on.0.checked_add(1) != Some(header.first_txn.0) || header.first_txn > header.last_txn {
            return reader.fail("txn ids out of order");
        }
        if header.last_txn.0 >= NEVER_REACHED {
            return reader.fail("a txn id out of reach");
        }
        Ok(header)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = RecordReader { bytes, at: 0 };
        let header = Self::read_header(&mut reader)?;
        let (freed, full) = (reader.count(8)?, reader.count(4 + PAGE_BYTES)?);
        let diffs = reader.count(DIFF_HEADER_BYTES)?;
        let (names, operations) = (reader.count(2)?, reader.count(1)?);
        reader.u32()?;

        let freed = Self::read_freed(&mut reader, freed)?;
        let mut numbers = Vec::with_capacity(full);
        for _ in 0..full {
            numbers.push(PageNumber(reader.u32()?));
        }
        if !numbers.is_sorted_by(|a, b| a < b) {
            return reader.fail("images out of page order");
        }
        let start = reader.at;
        reader.take(full * PAGE_BYTES)?;
        let full = numbers.into_iter().enumerate().map(|(i, number)| (number, start + i * PAGE_BYTES)).collect();
        let diffs = Self::read_diffs(&mut reader, diffs)?;
        let mut trees = Vec::with_capacity(names);
        for _ in 0..names {
            let length = reader.u16()? as usize;
            match std::str::from_utf8(reader.take(length)?) {
                Ok(name) => trees.push(name.to_owned()),
                Err(_) => return reader.fail("a tree name that is not UTF-8"),
            }
        }
        let mut views = Vec::with_capacity(operations);
        for _ in 0..operations {
            views.push(OperationView::read(&mut reader, trees.len())?);
        }
        if reader.at != bytes.len() {
            return reader.fail("bytes behind its end");
        }
        let record = Self { header, freed, full, diffs, trees, operations: views };
        if record.names_a_page_twice() {
            return reader.fail("a page that is named twice");
        }
        Ok(record)
    }

    fn read_freed(reader: &mut RecordReader<'_>, count: usize) -> Result<Vec<(PageNumber, u32)>, RecordError> {
        let mut freed = Vec::with_capacity(count);
        let mut free_from = 0;
        for _ in 0..count {
            let (first, length) = (reader.u32()?, reader.u32()?);
            let Some(end) = first.checked_add(length).filter(|_| length > 0) else {
                return reader.fail("a freed run out of range");
            };
            if first < free_from {
                return reader.fail("freed runs out of page order, or overlapping");
            }
            free_from = end;
            freed.push((PageNumber(first), length));
        }
        Ok(freed)
    }

    /// Whether a page has both an image and a diff, or one of them and is freed.
    fn names_a_page_twice(&self) -> bool {
        let freed = |number: PageNumber| {
            let behind = self.freed.partition_point(|(first, _)| *first <= number);
            behind.checked_sub(1).is_some_and(|run| number.0 - self.freed[run].0.0 < self.freed[run].1)
        };
        let imaged = |number: PageNumber| self.full.binary_search_by_key(&number, |(full, _)| *full).is_ok();
        self.full.iter().any(|(number, _)| freed(*number))
            || self.diffs.iter().any(|diff| freed(diff.page) || imaged(diff.page))
    }

    /// Whether the pages that are freed were there, in a state of `page_count` pages. Who applies a record asks before it
    /// looks at them: a run costs the record 8 bytes, and may say four billion pages.
    pub(crate) fn check_freed(&self, page_count: u32) -> Result<(), RecordError> {
        match self.freed.last() {
            Some((first, count)) if u64::from(first.0) + u64::from(*count) > u64::from(page_count) => {
                Err(RecordError {
                    offset: RECORD_HEADER_BYTES,
                    what: "a freed page behind the end of what it builds on",
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether the record's pages make the state that its header speaks of, going by the superblock among them; else what
    /// is wrong. Who applies a record asks, before anything of it can be seen.
    pub(crate) fn check_superblock(&self, superblock: &Superblock) -> Result<(), RecordError> {
        let fail = |what| Err(RecordError { offset: 0, what });
        let header = &self.header;
        if (superblock.txn_id, superblock.timeline, superblock.wall_time_micros)
            != (header.last_txn, header.timeline, header.wall_time_micros)
        {
            return fail("its superblock is of another transaction than its header");
        }
        let last_full = self.full.last().map(|(number, _)| *number);
        let last = last_full.max(self.diffs.last().map(|diff| diff.page));
        if last.is_some_and(|last| last.0 >= superblock.page_count) {
            return fail("a page behind the end that its superblock says");
        }
        Ok(())
    }

    fn read_diffs(reader: &mut RecordReader<'_>, count: usize) -> Result<Vec<PageDiff>, RecordError> {
        let mut diffs: Vec<PageDiff> = Vec::with_capacity(count);
        for _ in 0..count {
            let page = PageNumber(reader.u32()?);
            if diffs.last().is_some_and(|last| last.page >= page) {
                return reader.fail("diffs out of page order");
            }
            let range_count = reader.u16()?;
            reader.u16()?;
            let mut ranges = Vec::with_capacity(usize::from(range_count));
            let mut free_from = 0;
            for _ in 0..range_count {
                let (offset, length) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
                if offset < free_from || length == 0 || offset + length > PAGE_BYTES {
                    return reader.fail("a range out of its page, or overlapping");
                }
                free_from = offset + length;
                let start = reader.at;
                reader.take(length)?;
                ranges.push((offset, start..start + length));
            }
            diffs.push(PageDiff { page, ranges });
        }
        Ok(diffs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames are kept by their bytes, so what a record takes must not be much more.
    #[test]
    fn a_record_takes_little_more_memory_than_its_bytes() {
        let header = RecordHeader {
            builds_on: TxnId(1),
            first_txn: TxnId(2),
            last_txn: TxnId(2),
            timeline: Timeline(1),
            wall_time_micros: 0,
            digest: Digest(0),
            base_digest: Digest(0),
        };
        let counts = Counts { freed: 0, full: 0, diffs: 0, names: 0, operations: 0 };
        for (asked, written) in [(0, 0), (1 << 20, 10), (5000, 4500), (100, 70_000)] {
            let mut writer = RecordWriter::new(asked);
            writer.put(&vec![7; written]);
            let bytes = writer.finish(&header, counts);
            let length = bytes.len();
            let taken = bytes.try_into_mut().expect("nobody else has it").capacity();
            assert!(taken <= length / 4 * 5 + 256, "{length} bytes take {taken}");
        }
    }
}
