//! Applying committed frames.
//!
//! A frame that is byte for byte the head of the staged batches publishes what is already in memory. Any other record
//! drops all that is staged and is decoded, as on a follower: page bytes are put in place, nothing is executed. After
//! each changed page its checksum is compared, and after the record the digest; a difference means that this replica
//! has not the bytes that the leader had, and is an error that must stop the node.
//!
//! A record that does not build on the applied state (its txn id, its digest, its timeline) is void, on every node
//! alike: the decision depends only on the log.
//!
//! # What is locked meanwhile
//!
//! Decoding reads pages from the disk, many of them where a record frees a large tree. Whoever asks for the applied state
//! takes `head`, and so do the tasks of the consensus: so `head` is held before to look, and after to publish, and not in
//! between. What was looked at stays so:
//! - the applied state is moved on by `apply` alone, and frames are applied by one thread at a time, in log order;
//! - batches are staged, and staged ones dropped, under the batch lock, which is held all the time;
//! - pages are read as of the applied txn id. Its versions go only when a checkpoint has written them into the data file,
//!   and a checkpoint goes no further than the applied state, so what is read is the same wherever it stands.
//!
//! The first two are asserted when `head` is taken again. Versions of the record are pushed before that: nobody sees a
//! version above the applied txn id but the next batch, which waits for the batch lock.
//!
//! Versions that nobody sees any more are dropped after `head` was let go, too. Who opens a snapshot meanwhile sees the
//! newest applied versions, and those stay.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{AppliedState, BatchId, Counters, Head, Mark, Store, View};
use crate::btree::ReadError;
use crate::error::StorageError;
use crate::ids::{Digest, LogId, PageNumber, TxnId};
use crate::journal::frame::{Frame, FrameKind, Payload};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::txn::record::{Record, RecordError};
use crate::versions::Image;

/// What applying a frame did. Exhaustive: a consensus answers for each, and could not for one that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// A leader's first entry: nothing.
    Blank,
    /// The membership changed.
    Membership,
    /// The batch's transactions are in the applied state.
    Record {
        /// The first transaction.
        first_txn: TxnId,
        /// The last transaction.
        last_txn: TxnId,
        /// How it came there.
        how: Published,
    },
    /// The record did not build on the applied state and changed nothing, here as anywhere.
    Void,
}

/// How a record came into the applied state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Published {
    /// From this batch, staged here.
    Staged(BatchId),
    /// From the frame's bytes.
    Decoded,
}

/// Why a committed frame could not be applied. The node must stop.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The record is not one.
    #[error("frame {log_id}: {source}")]
    Record {
        /// The frame.
        log_id: LogId,
        /// What is wrong with it.
        source: RecordError,
    },
    /// This replica's page is not the one that the leader changed.
    #[error(
        "page {page} differs from the leader's after frame {log_id}: its checksum should be {expected:016x} and is \
         {found:016x}. This node's copy is damaged: remove its directory and let it join again"
    )]
    PageDiffers {
        /// The frame.
        log_id: LogId,
        /// The page.
        page: PageNumber,
        /// The checksum that came with the record.
        expected: u64,
        /// The checksum of what this node has.
        found: u64,
    },
    /// The pages agree, but their sum does not.
    #[error(
        "the state's digest after frame {log_id} is {found} and should be {expected}. This node's copy is damaged: \
         remove its directory and let it join again"
    )]
    DigestDiffers {
        /// The frame.
        log_id: LogId,
        /// The digest in the record.
        expected: Digest,
        /// The digest of what this node has.
        found: Digest,
    },
}

impl From<ReadError> for ApplyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Storage(error) => Self::Storage(error),
            ReadError::Expired => unreachable!("apply reads without a snapshot"),
            ReadError::NoRoom(_) => unreachable!("apply changes no tree"),
            ReadError::OtherKind(_) => unreachable!("apply reads no tree"),
        }
    }
}

/// The pages that a record changes, decoded.
struct Decoded {
    images: Vec<(PageNumber, Image)>,
    digest: Digest,
    superblock: Superblock,
}

impl Store {
    /// Applies the frame behind the last applied one.
    ///
    /// # Panics
    /// When the frame does not follow the applied state: the caller skipped one, or took one from another history.
    pub fn apply(&self, frame: &Frame) -> Result<Applied, ApplyError> {
        let applied = self.apply_frame(frame)?;
        // Frames are applied by one thread at a time: the head is as this one left it.
        self.marks.note(frame.frame_bytes(), || {
            (Mark::of(&self.head.lock().view.applied), self.journal.first_kept().next_index())
        });
        Ok(applied)
    }

    fn apply_frame(&self, frame: &Frame) -> Result<Applied, ApplyError> {
        if frame.kind() != FrameKind::Record {
            let head = self.head.lock();
            let mut applied = advanced(&head.view, frame);
            let what = if frame.kind() == FrameKind::Membership {
                applied.membership = Some((frame.log_id(), frame.payload().bytes().clone()));
                Applied::Membership
            } else {
                Applied::Blank
            };
            let superblock = head.view.superblock;
            self.publish(head, View { applied, superblock }, &[]);
            return Ok(what);
        }
        if let Some(applied) = self.publish_staged(frame) {
            return Ok(applied);
        }
        let _exclusive = self.batch_lock.lock();
        let before = {
            let mut head = self.head.lock();
            self.drop_staged_locked(&mut head);
            head.view.clone()
        };
        self.decode(&before, frame)
    }

    /// Publishes the head of the staged batches if the frame is that batch.
    fn publish_staged(&self, frame: &Frame) -> Option<Applied> {
        let mut head = self.head.lock();
        if !same(&head.staged.front()?.payload, frame.payload()) {
            return None;
        }
        let batch = head.staged.pop_front()?;
        let mut applied = advanced(&head.view, frame);
        assert_eq!(batch.builds_on, applied.txn_id, "the head of the staged batches builds on the applied state");
        applied.txn_id = batch.last_txn;
        applied.digest = batch.digest;
        applied.wall_time_micros = batch.superblock.wall_time_micros;
        self.publish(head, View { applied, superblock: batch.superblock }, &batch.pages);
        Counters::add(&self.counters.published_records, 1);
        let (first_txn, last_txn) = (batch.first_txn, batch.last_txn);
        Some(Applied::Record { first_txn, last_txn, how: Published::Staged(batch.id) })
    }

    /// Makes `view` the applied state and drops what nobody can see any more of `pages`.
    fn publish(&self, mut head: MutexGuard<'_, Head>, view: View, pages: &[PageNumber]) {
        let txn_id = view.applied.txn_id;
        let view = Arc::new(view);
        head.view = view.clone();
        let snapshots = self.readers.publish(txn_id, view);
        drop(head);
        for number in pages {
            self.versions.prune(*number, txn_id, &snapshots);
        }
        self.relieve();
        self.notify_memory();
    }

    /// The head again, after a look at it under the batch lock.
    ///
    /// # Panics
    /// When it is not as it was: two threads apply frames, or something was staged without the batch lock.
    fn head_as_it_was(&self, before: &Arc<View>) -> MutexGuard<'_, Head> {
        let head = self.head.lock();
        assert!(Arc::ptr_eq(&head.view, before), "two frames are applied at a time");
        assert!(head.staged.is_empty(), "something was staged while a record was decoded");
        head
    }

    /// Decodes a record onto the applied state `before`. The caller holds the batch lock, and nothing is staged.
    fn decode(&self, before: &Arc<View>, frame: &Frame) -> Result<Applied, ApplyError> {
        let mut applied = advanced(before, frame);
        let log_id = frame.log_id();
        let bytes = frame.payload().bytes();
        let record = Record::decode(bytes).map_err(|source| ApplyError::Record { log_id, source })?;
        let superblock = before.superblock;
        if !applied.is_changed_by(&record.header, superblock.timeline) {
            Counters::add(&self.counters.void_records, 1);
            self.publish(self.head_as_it_was(before), View { applied, superblock }, &[]);
            return Ok(Applied::Void);
        }
        let decoded = self.decode_pages(log_id, &record, bytes, &applied, superblock.page_count)?;
        let last_txn = record.header.last_txn;
        let mut pages = Vec::with_capacity(decoded.images.len());
        for (number, image) in decoded.images {
            self.versions.push(number, last_txn, image);
            pages.push(number);
        }
        applied.txn_id = last_txn;
        applied.digest = decoded.digest;
        applied.wall_time_micros = record.header.wall_time_micros;
        let mut head = self.head_as_it_was(before);
        head.allocator = None;
        self.publish(head, View { applied, superblock: decoded.superblock }, &pages);
        Counters::add(&self.counters.decoded_records, 1);
        Ok(Applied::Record { first_txn: record.header.first_txn, last_txn, how: Published::Decoded })
    }

    fn decode_pages(
        &self,
        log_id: LogId,
        record: &Record,
        bytes: &[u8],
        applied: &AppliedState,
        page_count: u32,
    ) -> Result<Decoded, ApplyError> {
        let mut digest = applied.digest;
        let mut images = Vec::with_capacity(record.full.len() + record.diffs.len() + record.freed.len());
        let mut superblock = None;
        record.check_freed(page_count).map_err(|source| ApplyError::Record { log_id, source })?;
        for (first, count) in &record.freed {
            for number in (first.0..first.0 + count).map(PageNumber) {
                let old = self.page_at(number, applied.txn_id)?.checksum();
                digest = digest.replace(number, old, 0);
                images.push((number, Image::Free));
            }
        }
        let mut finish = |number: PageNumber, page: Arc<Page>, old: u64| {
            let (expected, found) = (page.checksum(), checksum::compute(number, &page));
            if expected != found {
                return Err(ApplyError::PageDiffers { log_id, page: number, expected, found });
            }
            if number == PageNumber(0) {
                superblock = Superblock::decode(&page).ok();
            }
            digest = digest.replace(number, old, expected);
            images.push((number, Image::Page(page)));
            Ok(())
        };
        for (number, start) in &record.full {
            // Beyond the old end of the file there was nothing to replace.
            let old = if number.0 < page_count { self.page_at(*number, applied.txn_id)?.checksum() } else { 0 };
            finish(*number, Arc::new(image_at(bytes, *start).clone()), old)?;
        }
        for diff in &record.diffs {
            let base = self.page_at(diff.page, applied.txn_id)?;
            let mut page = Arc::new((*base).clone());
            let target = Arc::get_mut(&mut page).expect("not shared yet").bytes_mut();
            for (offset, place) in &diff.ranges {
                target[*offset..offset + place.len()].copy_from_slice(&bytes[place.clone()]);
            }
            finish(diff.page, page, base.checksum())?;
        }
        if digest != record.header.digest {
            return Err(ApplyError::DigestDiffers { log_id, expected: record.header.digest, found: digest });
        }
        let Some(superblock) = superblock else {
            let source = RecordError { offset: 0, what: "it does not change the superblock" };
            return Err(ApplyError::Record { log_id, source });
        };
        record.check_superblock(&superblock).map_err(|source| ApplyError::Record { log_id, source })?;
        Ok(Decoded { images, digest, superblock })
    }
}

/// The applied state moved on by one frame, its content unchanged.
fn advanced(view: &View, frame: &Frame) -> AppliedState {
    let applied = &view.applied;
    let expected = applied.log_id.map_or(0, |log_id| log_id.index.0 + 1);
    assert_eq!(frame.log_id().index.0, expected, "a frame was skipped behind {:?}", applied.log_id);
    assert!(frame.follows(applied.chain), "frame {} is of another history", frame.log_id());
    AppliedState { log_id: Some(frame.log_id()), chain: frame.chain(), ..applied.clone() }
}

/// Whether two payloads are byte for byte the same. The frame of a staged batch mostly has the batch's own bytes, and one
/// of another batch another hash: then megabytes need not be compared.
fn same(staged: &Payload, committed: &Payload) -> bool {
    let (a, b) = (staged.bytes(), committed.bytes());
    staged.hash() == committed.hash() && a.len() == b.len() && (a.as_ptr() == b.as_ptr() || a == b)
}

/// The full image at a place of a record that was checked.
pub(crate) fn image_at(bytes: &[u8], start: usize) -> &Page {
    Page::from_ref(bytes[start..].first_chunk().expect("the record was checked to hold the image"))
}
