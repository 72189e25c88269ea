//! The operations of a frame, each with its value.
//!
//! Nothing is copied but keys, until a value is asked for: it is a slice of the frame where it stands there whole, and
//! is put together where it is spread over the pages of a run.

use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use crate::ids::TxnId;
use crate::journal::frame::{Frame, FrameKind};
use crate::page::{PAGE_BYTES, PAGE_HEADER_BYTES};
use crate::txn::ops::{OperationKind, OperationView, ValueAt};
use crate::txn::record::{Record, RecordError, RecordHeader};

/// What of a run's page belongs to the value, in bytes.
const RUN_PAGE_BYTES: usize = PAGE_BYTES - PAGE_HEADER_BYTES;

/// A frame with what its transactions changed, if they were not void: that says the reader's [`FeedPlace`].
///
/// [`FeedPlace`]: super::FeedPlace
#[derive(Clone, Debug)]
pub struct FrameChanges {
    frame: Frame,
    record: Option<(RecordHeader, Vec<String>, Vec<Change>)>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The transaction.
    pub txn: TxnId,
    /// The tree, as an index into [`FrameChanges::trees`].
    pub tree: u16,
    /// What was done.
    pub kind: ChangeKind,
}

/// What an operation did. Exhaustive, as [`OperationKind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Wrote a key.
    Put {
        /// The key.
        key: Bytes,
        /// What stands under it now.
        value: ChangedValue,
    },
    /// Deleted a key that was there, with all that stood under it.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Deleted the keys of a range, of which there was at least one.
    DeleteRange {
        /// The range.
        range: KeyBounds,
    },
    /// Made a tree.
    CreateTree {
        /// It has many values under a key.
        multi: bool,
    },
    /// Dropped the tree.
    DropTree,
    /// Gave the tree another name.
    RenameTree {
        /// The new one.
        new_name: String,
    },
    /// Added a value under a key of a multi-value tree.
    AddValue {
        /// The key.
        key: Bytes,
        /// The value.
        value: ChangedValue,
    },
    /// Removed a value; with the last one went its key.
    RemoveValue {
        /// The key.
        key: Bytes,
        /// The value.
        value: ChangedValue,
    },
    /// Removed the values of a key between two bounds; with the last one went the key.
    RemoveValues {
        /// The key.
        key: Bytes,
        /// The range of values.
        range: KeyBounds,
    },
}

/// A value, where it stands in its frame.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangedValue(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Whole(Bytes),
    /// The images of a run's pages, and how long the value in them is.
    Run(Bytes, usize),
}

impl ChangedValue {
    /// Its length, in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether a value that was written is empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Whole(bytes) => bytes.len(),
            Place::Run(_, length) => *length,
        }
    }

    /// The bytes: a slice of the frame, or a copy where they are spread over pages.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Place::Whole(bytes) => bytes.clone(),
            Place::Run(images, length) => {
                let mut value = BytesMut::with_capacity(*length);
                for image in images.chunks(PAGE_BYTES) {
                    let part = &image[PAGE_HEADER_BYTES..];
                    value.extend_from_slice(&part[..part.len().min(length - value.len())]);
                }
                value.freeze()
            }
        }
    }
}

impl std::fmt::Debug for ChangedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// The bounds of a range, as an operation was given them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KeyBounds {
    /// Where it begins; never unbounded: that is an empty key that is included.
    pub start: Bound<Bytes>,
    /// Where it ends.
    pub end: Bound<Bytes>,
}

impl KeyBounds {
    fn new(bits: u8, start: Bytes, end: Bytes) -> Option<Self> {
        let start = if bits & 1 == 1 { Bound::Excluded(start) } else { Bound::Included(start) };
        let end = match bits & 6 {
            0 => Bound::Unbounded,
            2 => Bound::Excluded(end),
            4 => Bound::Included(end),
            _ => return None,
        };
        Some(Self { start, end })
    }
}

impl FrameChanges {
    /// Reads a frame.
    ///
    /// # Errors
    /// When the record in it is none, or speaks of bytes that it does not have.
    pub fn decode(frame: Frame) -> Result<Self, RecordError> {
        if frame.kind() != FrameKind::Record {
            return Ok(Self { frame, record: None });
        }
        let payload = frame.payload().bytes();
        let Record { header, trees, operations, .. } = Record::decode(payload)?;
        let mut changes: Vec<Change> = Vec::with_capacity(operations.len());
        for operation in operations {
            let txn = TxnId(header.first_txn.0 + u64::from(operation.txn));
            let in_order = changes.last().is_none_or(|last| last.txn <= txn) && txn <= header.last_txn;
            let (tree, kind) = (operation.tree, kind_of(operation, payload));
            match kind.filter(|_| in_order) {
                Some(kind) => changes.push(Change { txn, tree, kind }),
                None => return Err(RecordError { offset: 0, what: "an operation that contradicts its record" }),
            }
        }
        Ok(Self { record: Some((header, trees, changes)), frame })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The names that changes speak of.
    #[must_use]
    pub fn trees(&self) -> &[String] {
        self.record.as_ref().map_or(&[], |(_, trees, _)| trees)
    }

    /// When the batch was made, in microseconds since 1970; 0 if it is no record.
    #[must_use]
    pub fn wall_time_micros(&self) -> u64 {
        self.record.as_ref().map_or(0, |(header, ..)| header.wall_time_micros)
    }

    pub(super) fn header(&self) -> Option<&RecordHeader> {
        self.record.as_ref().map(|(header, ..)| header)
    }

    /// Its last `count` changes: as many as [`FeedPlace::take`] gave, where the frame was lent only for that.
    ///
    /// # Panics
    /// When it has fewer.
    ///
    /// [`FeedPlace::take`]: super::FeedPlace::take
    #[must_use]
    pub fn last(&self, count: usize) -> &[Change] {
        &self.all()[self.all().len() - count..]
    }

    /// All changes, whether they are void or not.
    pub(super) fn all(&self) -> &[Change] {
        self.record.as_ref().map_or(&[], |(.., changes)| changes)
    }
}

/// What an operation did, with its value; `None` if that is not where it says, or of no use.
fn kind_of(operation: OperationView, payload: &Bytes) -> Option<ChangeKind> {
    let OperationView { kind, key, value, .. } = operation;
    let key = Bytes::from(key);
    Some(match kind {
        OperationKind::Put => ChangeKind::Put { key, value: value_of(value, payload)? },
        OperationKind::Delete => ChangeKind::Delete { key },
        OperationKind::DeleteRange => {
            let bounds = value_of(value, payload)?.to_bytes();
            let bits = *bounds.first()?;
            ChangeKind::DeleteRange { range: KeyBounds::new(bits, key, bounds.slice(1..))? }
        }
        OperationKind::CreateTree => ChangeKind::CreateTree { multi: false },
        OperationKind::CreateMultiTree => ChangeKind::CreateTree { multi: true },
        OperationKind::DropTree => ChangeKind::DropTree,
        OperationKind::RenameTree => {
            let name = value_of(value, payload)?.to_bytes();
            ChangeKind::RenameTree { new_name: String::from_utf8(name.into()).ok()? }
        }
        OperationKind::AddValue => ChangeKind::AddValue { key, value: value_of(value, payload)? },
        OperationKind::RemoveValue => ChangeKind::RemoveValue { key, value: value_of(value, payload)? },
        OperationKind::RemoveValues => {
            let bounds = value_of(value, payload)?.to_bytes();
            let (bits, length) = (*bounds.first()?, bounds.get(1..3)?);
            let end = 3 + usize::from(u16::from_le_bytes(length.try_into().expect("2 bytes")));
            if end > bounds.len() {
                return None;
            }
            let range = KeyBounds::new(bits, bounds.slice(3..end), bounds.slice(end..))?;
            ChangeKind::RemoveValues { key, range }
        }
    })
}

fn value_of(value: ValueAt, payload: &Bytes) -> Option<ChangedValue> {
    let slice = |offset: u32, length: usize| {
        let end = (offset as usize).checked_add(length).filter(|end| *end <= payload.len())?;
        Some(payload.slice(offset as usize..end))
    };
    Some(ChangedValue(match value {
        ValueAt::None => return None,
        ValueAt::Inline(bytes) => Place::Whole(bytes.into()),
        ValueAt::Span(offset, length) => Place::Whole(slice(offset, length as usize)?),
        ValueAt::Run(offset, length) => {
            let length = length as usize;
            Place::Run(slice(offset, length.div_ceil(RUN_PAGE_BYTES) * PAGE_BYTES)?, length)
        }
    }))
}
