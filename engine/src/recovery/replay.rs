//! Replaying the journal over the data file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::in_place::{PutError, put_in_place};
use crate::engine::Faults;
use crate::error::StorageError;
use crate::ids::{LogIndex, PageNumber, Timeline};
use crate::journal::Journal;
use crate::journal::frame::{Frame, FrameKind};
use crate::page::superblock::Superblock;
use crate::page::{Page, checksum};
use crate::store::{AppliedState, DataFile, View, offset_of};
use crate::txn::record::{Record, RecordError};
use crate::versions::Image;

/// How much of the journal is read at a time, in bytes.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// Calls `each` for the frames from position `from` to position `until` (numbers of entries), in order.
pub(crate) fn for_each_frame<E: From<StorageError>>(
    journal: &Journal,
    from: u64,
    until: u64,
    mut each: impl FnMut(&Frame) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = from;
    while at < until {
        let frames = journal.read(LogIndex(at), LogIndex(until), READ_BYTES)?;
        assert!(!frames.is_empty(), "the journal was found to hold frame {at}");
        for frame in &frames {
            each(frame)?;
            at += 1;
        }
    }
    Ok(())
}

/// Moves a state on by a frame, going by the record's own words: what it is after it, without looking at pages. Returns
/// the record, if it is one that changes the state, which is of `timeline`.
pub(crate) fn advance(
    state: &mut AppliedState,
    timeline: Timeline,
    frame: &Frame,
) -> Result<Option<Record>, RecordError> {
    state.log_id = Some(frame.log_id());
    state.chain = frame.chain();
    match frame.kind() {
        FrameKind::Blank => {}
        FrameKind::Membership => state.membership = Some((frame.log_id(), frame.payload().bytes().clone())),
        FrameKind::Record => {
            let record = Record::decode(frame.payload().bytes())?;
            let header = &record.header;
            // A record that is void here was void when it was applied.
            if state.is_changed_by(header, timeline) {
                state.txn_id = header.last_txn;
                state.digest = header.digest;
                state.wall_time_micros = header.wall_time_micros;
                return Ok(Some(record));
            }
        }
    }
    Ok(None)
}

/// The timeline of a data file, which may be any mixture of page versions: it stands in the first sector of page 0, and
/// is the same in every version, since a record of another timeline changes nothing.
pub(crate) fn timeline_of(data: &DataFile) -> Result<Timeline, StorageError> {
    let bad = |what: &str| StorageError::corrupted(data.path(), 0, what);
    let page = data.read_unverified(PageNumber(0))?.ok_or_else(|| bad("it has no page 0"))?;
    Ok(Superblock::decode(&page).map_err(bad)?.timeline)
}

/// The pages that blind replay touched, as of the target, and the target's view.
pub(crate) struct Replayed {
    pub(crate) images: BTreeMap<PageNumber, Image>,
    pub(crate) view: View,
}

/// The pages that blind replay keeps in memory before it writes them into the file: 32 MiB.
const MAX_IMAGES: usize = 4096;

/// Replays over whatever mixture of page versions a data file is, frame by frame.
///
/// Nothing is verified on the way: a page's base may be torn. Memory is bounded: pages may go into the file at any time,
/// because what is written is of a version up to the end of the replay, and a crash here is as one in the checkpoint that
/// had this target.
pub(crate) struct BlindReplay<'d> {
    data: &'d DataFile,
    images: BTreeMap<PageNumber, Image>,
    flushed: BTreeSet<PageNumber>,
}

impl<'d> BlindReplay<'d> {
    pub(crate) fn new(data: &'d DataFile) -> Self {
        Self { data, images: BTreeMap::new(), flushed: BTreeSet::new() }
    }

    /// Puts the pages of a record, whose bytes are these, in place.
    pub(crate) fn put(&mut self, record: &Record, bytes: &[u8], faults: &Faults) -> Result<(), PutError> {
        put_in_place(self.data, &mut self.images, record, bytes)?;
        if Faults::planted(faults.full_images_skip_zeros) {
            let_stale_bytes_show(self.data, &mut self.images, record)?;
        }
        if self.images.len() > MAX_IMAGES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is in memory into the file.
    pub(crate) fn flush(&mut self) -> Result<(), StorageError> {
        flush(self.data, &mut self.images, &mut self.flushed)
    }
}

/// Replays from the finished checkpoint to the target over whatever mixture the data file is. At the end every touched page
/// must carry its checksum, and the superblock must be the target's.
pub(crate) fn replay_blindly(
    data: &DataFile,
    journal: &Journal,
    checkpoint: &AppliedState,
    target: &AppliedState,
    faults: &Faults,
) -> Result<Replayed, StorageError> {
    let position = |state: &AppliedState| state.log_id.map_or(0, |log_id| log_id.index.0 + 1);
    let mut replay = BlindReplay::new(data);
    let mut state = checkpoint.clone();
    let timeline = timeline_of(data)?;
    for_each_frame::<StorageError>(journal, position(checkpoint), position(target), |frame| {
        let bad =
            |error: RecordError| StorageError::corrupted(data.path(), 0, format!("frame {}: {error}", frame.log_id()));
        match advance(&mut state, timeline, frame).map_err(bad)? {
            Some(record) => replay.put(&record, frame.payload().bytes(), faults).map_err(|error| match error {
                PutError::Storage(error) => error,
                PutError::Record(error) => bad(error),
            }),
            None => Ok(()),
        }
    })?;
    let BlindReplay { images, flushed, .. } = replay;
    if (state.txn_id, state.digest) != (target.txn_id, target.digest) {
        let what = format!("replay ends at txn {}, and the target is txn {}", state.txn_id, target.txn_id);
        return Err(StorageError::corrupted(data.path(), 0, what));
    }
    for (number, image) in &images {
        if let Image::Page(page) = image {
            verify(data, *number, page)?;
        }
    }
    for number in flushed.into_iter().filter(|number| !images.contains_key(number)) {
        if let Some(page) = data.read_unverified(number)? {
            verify(data, number, &page)?;
        }
    }
    let superblock = match images.get(&PageNumber(0)) {
        Some(Image::Page(page)) => Superblock::decode(page),
        _ => Superblock::decode(&*data.read(PageNumber(0))?),
    };
    let superblock = superblock.map_err(|what| StorageError::corrupted(data.path(), 0, what))?;
    let applied = AppliedState { membership: state.membership, ..target.clone() };
    Ok(Replayed { images, view: View { applied, superblock } })
}

fn verify(data: &DataFile, number: PageNumber, page: &Page) -> Result<(), StorageError> {
    if checksum::verify(number, page) {
        return Ok(());
    }
    let what = format!("page {number} does not match its checksum after replay");
    Err(StorageError::corrupted(data.path(), offset_of(number), what))
}

/// Writes the images into the file.
fn flush(
    data: &DataFile,
    images: &mut BTreeMap<PageNumber, Image>,
    flushed: &mut BTreeSet<PageNumber>,
) -> Result<(), StorageError> {
    for (number, image) in std::mem::take(images) {
        match image {
            Image::Page(page) => data.write_run(number, &[page], &|_| Ok(()))?,
            Image::Free => data.zero_run(number, 1)?,
        }
        flushed.insert(number);
    }
    Ok(())
}

/// A planted fault: where the full images of a record are zero, what stood in the file stays.
fn let_stale_bytes_show(
    data: &DataFile,
    images: &mut BTreeMap<PageNumber, Image>,
    record: &Record,
) -> Result<(), StorageError> {
    for (number, _) in &record.full {
        let (Some(Image::Page(page)), Some(stale)) = (images.get_mut(number), data.read_unverified(*number)?) else {
            continue;
        };
        for (byte, stale) in Arc::make_mut(page).bytes_mut().iter_mut().zip(stale.bytes()) {
            if *byte == 0 {
                *byte = *stale;
            }
        }
    }
    Ok(())
}
