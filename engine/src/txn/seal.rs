//! Ending a batch: its changed pages become a record, and staged versions.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

use super::batch::{Batch, Pending, PendingValue};
use super::diff;
use super::error::BatchError;
use super::ops::{self, OperationKind, ValueRef};
use super::record::{Counts, DIFF_HEADER_BYTES, RANGE_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, RecordWriter};
use crate::btree::{self, PageSource, TreeState, ValueLocation};
use crate::ids::{Digest, PageNumber, TxnId};
use crate::journal::frame::Payload;
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES, Page, checksum};
use crate::store::{BatchId, StagedBatch};
use crate::versions::{Image, PageHasher};

/// A batch that has ended: what to propose.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Staged {
    /// Its name on this node.
    pub batch: BatchId,
    /// The record.
    pub payload: Payload,
    /// The first transaction.
    pub first_txn: TxnId,
    /// The last transaction.
    pub last_txn: TxnId,
    /// The txn id of the state that it changes.
    pub builds_on: TxnId,
}

/// Which pages go into the record, and how.
struct Plan {
    full: Vec<PageNumber>,
    diffs: Vec<(PageNumber, Vec<Range<usize>>)>,
    freed: Vec<(PageNumber, u32)>,
    digest: Digest,
}

impl Plan {
    /// What the pages take in the record, its fixed part included.
    fn bytes(&self) -> usize {
        let ranges = self.diffs.iter().flat_map(|(_, ranges)| ranges);
        RECORD_HEADER_BYTES
            + self.freed.len() * 8
            + self.full.len() * (4 + PAGE_BYTES)
            + self.diffs.len() * DIFF_HEADER_BYTES
            + ranges.map(|range| RANGE_HEADER_BYTES + range.len()).sum::<usize>()
    }
}

type PageMap<T> = HashMap<PageNumber, T, BuildHasherDefault<PageHasher>>;

/// Where pages and ranges of pages stand in the record.
#[derive(Default)]
struct Places {
    images: PageMap<usize>,
    ranges: PageMap<Vec<(Range<usize>, usize)>>,
}

impl Places {
    /// Where `length` bytes at `offset` of a page stand whole.
    fn span(&self, page: PageNumber, offset: usize, length: usize) -> Option<usize> {
        if let Some(start) = self.images.get(&page) {
            return Some(start + offset);
        }
        let ranges = self.ranges.get(&page)?;
        let (range, at) = ranges.iter().find(|(range, _)| range.start <= offset && offset + length <= range.end)?;
        Some(at + (offset - range.start))
    }
}

/// A diff that saves less than this is not worth its bookkeeping: the page goes whole.
const WORTH_A_DIFF_BYTES: usize = PAGE_BYTES - 512;

impl Batch {
    /// Ends the batch. `None` if it changed nothing. Its versions are staged from here on: the next batch sees them.
    ///
    /// `wall_time_micros` is microseconds since 1970; the record's never goes back behind its predecessor's.
    ///
    /// # Panics
    /// When a transaction is open.
    pub fn seal(mut self, wall_time_micros: u64) -> Result<Option<Staged>, BatchError> {
        if self.is_empty() {
            return Ok(None);
        }
        // Bounded by the number of trees that a batch can name.
        self.pages.limit_memory(usize::MAX);
        self.compact();
        self.trees.store(&mut self.pages, self.last_txn)?;
        self.pages.trim_tail()?;
        self.write_superblock(wall_time_micros)?;

        let locations = self.locate_values()?;
        let plan = self.plan(&locations)?;
        let bytes = self.write_record(&plan, locations);
        if bytes.len() > self.record_limit {
            return Err(BatchError::TooLarge { bytes: bytes.len(), limit: self.record_limit });
        }
        Ok(Some(self.stage(plan, Payload::new(bytes))))
    }

    fn write_superblock(&mut self, wall_time_micros: u64) -> Result<(), BatchError> {
        self.superblock.txn_id = self.last_txn;
        self.superblock.page_count = self.pages.page_count;
        self.superblock.trees = self.trees.root;
        self.superblock.wall_time_micros = self.superblock.wall_time_micros.max(wall_time_micros);
        let page = crate::btree::PageStore::page_mut(&mut self.pages, PageNumber(0))?;
        self.superblock.encode(page);
        Ok(())
    }

    /// For each operation whose value a page holds, where.
    fn locate_values(&self) -> Result<Vec<Option<ValueLocation>>, BatchError> {
        let mut locations = Vec::with_capacity(self.operations.len());
        let mut trees: Option<(u16, TreeState)> = None;
        for pending in &self.operations {
            let PendingValue::InTree(put) = pending.value else {
                locations.push(None);
                continue;
            };
            let state = match trees {
                Some((tree, state)) if tree == pending.tree => state,
                _ => {
                    let tree = self.names.get(pending.tree);
                    self.trees.look(&self.pages, tree)?.expect("a tree that is gone keeps no values")
                }
            };
            trees = Some((pending.tree, state));
            let found = match put.filter(|_| !self.pages.copies.has_freed) {
                Some(place) => btree::locate_at(&self.pages, &state, &pending.key, place)?,
                None => btree::locate(&self.pages, &state, &pending.key)?,
            };
            let (version, location) = found.expect("a key that is gone keeps no value");
            let written_by = TxnId(self.builds_on.0 + 1 + u64::from(pending.txn));
            assert_eq!(version, written_by, "an overwritten value was not kept");
            locations.push(Some(location));
        }
        Ok(locations)
    }

    fn plan(&mut self, locations: &[Option<ValueLocation>]) -> Result<Plan, BatchError> {
        let mut must: PageMap<Vec<Range<usize>>> = PageMap::default();
        let mut whole: Vec<PageNumber> = Vec::new();
        for location in locations.iter().flatten() {
            match *location {
                ValueLocation::Inline { page, offset, length } => {
                    let start = usize::from(offset);
                    if length > 0 {
                        must.entry(page).or_default().push(start..start + usize::from(length));
                    }
                }
                ValueLocation::Overflow { first, length } => {
                    let count = (length as usize).div_ceil(PAGE_BYTES - PAGE_HEADER_BYTES);
                    whole.extend((0..count).map(|i| PageNumber(first.0 + u32::try_from(i).expect("a short run"))));
                }
            }
        }
        whole.sort_unstable();
        let mut numbers: Vec<PageNumber> = self.pages.copies.dirty.keys().copied().collect();
        numbers.sort_unstable();
        let mut plan = Plan {
            full: Vec::new(),
            diffs: Vec::new(),
            freed: self.pages.copies.freed.runs().collect(),
            digest: self.digest,
        };
        for (place, number) in numbers.iter().copied().enumerate() {
            if let Some(next) = numbers.get(place + 1) {
                self.pages.copies.read_soon(*next);
            }
            let must = must.remove(&number).unwrap_or_default();
            self.plan_page(&mut plan, number, must, whole.binary_search(&number).is_ok())?;
        }
        for number in self.pages.copies.freed.iter() {
            let old = self.old_checksum(number)?;
            plan.digest = plan.digest.replace(number, old, 0);
        }
        Ok(plan)
    }

    fn plan_page(
        &mut self,
        plan: &mut Plan,
        number: PageNumber,
        mut must: Vec<Range<usize>>,
        whole: bool,
    ) -> Result<(), BatchError> {
        let dirty = self.pages.copies.dirty.get_mut(&number).expect("a dirty page");
        // A copy has the checksum of what it was copied from until it gets its own.
        let copied_from = dirty.page.checksum();
        checksum::seal(number, Arc::make_mut(&mut dirty.page));
        let (fresh, reborn, page) = (dirty.fresh, dirty.reborn, dirty.page.clone());
        let old = match (fresh, reborn) {
            (false, _) => copied_from,
            (true, false) => 0,
            (true, true) => self.old_checksum(number)?,
        };
        plan.digest = plan.digest.replace(number, old, page.checksum());
        if fresh || whole {
            plan.full.push(number);
            return Ok(());
        }
        let ranges = diff::set_bytes(&*self.pages.copies.base_of_dirty(number)?, &page, &mut must);
        let size: usize = ranges.iter().map(|range| range.len() + RANGE_HEADER_BYTES).sum();
        if ranges.is_empty() {
            self.pages.copies.dirty.remove(&number);
        } else if size > WORTH_A_DIFF_BYTES {
            plan.full.push(number);
        } else {
            plan.diffs.push((number, ranges));
        }
        Ok(())
    }

    /// The checksum of a page before the batch; 0 if it was free.
    fn old_checksum(&self, number: PageNumber) -> Result<u64, BatchError> {
        if number.0 >= self.pages.base_page_count {
            return Ok(0);
        }
        Ok(self.pages.copies.base(number)?.checksum())
    }

    fn write_record(&self, plan: &Plan, locations: Vec<Option<ValueLocation>>) -> bytes::Bytes {
        let mut out = RecordWriter::new(plan.bytes() + self.operation_bytes);
        let mut places = Places::default();
        for (first, count) in &plan.freed {
            out.put_u32(first.0 as usize);
            out.put_u32(*count as usize);
        }
        for number in &plan.full {
            out.put_u32(number.0 as usize);
        }
        for number in &plan.full {
            places.images.insert(*number, out.len());
            out.put(self.dirty_page(*number).bytes());
        }
        for (number, ranges) in &plan.diffs {
            self.write_diff(&mut out, &mut places, *number, ranges);
        }
        for name in self.names.iter() {
            out.put_u16(name.len());
            out.put(name.as_bytes());
        }
        for (pending, location) in self.operations.iter().zip(locations) {
            let value = Self::place_value(pending, location, &places);
            ops::write(&mut out, pending.txn, pending.kind, pending.tree, &pending.key, &value);
        }
        let count = |length: usize| u32::try_from(length).expect("a batch is bounded in bytes");
        let counts = Counts {
            freed: count(plan.freed.len()),
            full: count(plan.full.len()),
            diffs: count(plan.diffs.len()),
            names: count(self.names.len()),
            operations: count(self.operations.len()),
        };
        let header = RecordHeader {
            builds_on: self.builds_on,
            first_txn: self.builds_on.next(),
            last_txn: self.last_txn,
            timeline: self.superblock.timeline,
            wall_time_micros: self.superblock.wall_time_micros,
            digest: plan.digest,
            base_digest: self.digest,
        };
        out.finish(&header, counts)
    }

    fn dirty_page(&self, number: PageNumber) -> &Page {
        &self.pages.copies.dirty[&number].page
    }

    fn write_diff(&self, out: &mut RecordWriter, places: &mut Places, number: PageNumber, ranges: &[Range<usize>]) {
        const _: () = assert!(DIFF_HEADER_BYTES == 4 + 2 + 2);
        out.put_u32(number.0 as usize);
        out.put_u16(ranges.len());
        out.put_u16(0);
        let page = self.dirty_page(number).bytes();
        let placed = places.ranges.entry(number).or_default();
        for range in ranges {
            out.put_u16(range.start);
            out.put_u16(range.len());
            placed.push((range.clone(), out.len()));
            out.put(&page[range.clone()]);
        }
    }

    fn place_value<'v>(pending: &'v Pending, location: Option<ValueLocation>, places: &Places) -> ValueRef<'v> {
        let offset = |place: usize| u32::try_from(place).expect("a record is bounded");
        match (&pending.value, location) {
            (PendingValue::Inline(bytes), _) => ValueRef::Inline(bytes),
            (PendingValue::InTree(_), Some(ValueLocation::Inline { length: 0, .. })) => ValueRef::Inline(&[]),
            (PendingValue::InTree(_), Some(ValueLocation::Inline { page, offset: at, length })) => {
                let place = places.span(page, usize::from(at), usize::from(length));
                ValueRef::Span(offset(place.expect("diffs cover the values they set")), u32::from(length))
            }
            (PendingValue::InTree(_), Some(ValueLocation::Overflow { first, length })) => {
                ValueRef::Run(offset(places.images[&first]), length)
            }
            _ => {
                debug_assert!(pending.kind != OperationKind::Put);
                ValueRef::None
            }
        }
    }

    /// Registers the versions as staged.
    fn stage(self, plan: Plan, payload: Payload) -> Staged {
        let Self { store, pages, superblock, builds_on, last_txn, exclusive, .. } = self;
        let mut numbers = plan.full;
        numbers.extend(plan.diffs.into_iter().map(|(number, _)| number));
        let mut dirty = pages.copies.dirty;
        let mut head = store.head.lock();
        let mut bytes = payload.bytes().len();
        for number in &numbers {
            let page = dirty.remove(number).expect("planned pages are dirty").page;
            bytes += PAGE_BYTES;
            store.versions.push(*number, last_txn, Image::Page(page));
        }
        for number in pages.copies.freed.iter() {
            store.versions.push(number, last_txn, Image::Free);
            numbers.push(number);
        }
        let batch = head.next_batch;
        head.next_batch = BatchId(batch.0 + 1);
        head.allocator = Some(pages.allocator);
        let first_txn = builds_on.next();
        let (digest, payload_kept) = (plan.digest, payload.clone());
        head.staged.push_back(StagedBatch {
            id: batch,
            payload: payload_kept,
            first_txn,
            last_txn,
            builds_on,
            pages: numbers,
            superblock,
            digest,
            bytes,
        });
        drop(head);
        store.note_mutations(pages.mutations);
        drop(exclusive);
        Staged { batch, payload, first_txn, last_txn, builds_on }
    }
}

// `PageSource` is used through the batch's pages.
const _: fn() = || {
    fn is_source<T: PageSource>() {}
    is_source::<Batch>();
};
