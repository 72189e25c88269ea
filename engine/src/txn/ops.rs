//! The operations in a record: what each transaction did, for change feeds. No replica executes them.
//!
//! ```text
//! txn u32 (counted from the batch's first), kind u8, where u8, tree u16 (index of a name, u16::MAX for none),
//! key length u16, key, then by `where`:
//!   0 none
//!   1 inline: length u32, bytes     (the value was overwritten within the batch, so no page holds it)
//!   2 span:   offset u32, length u32 of the value in the record
//!   3 run:    offset u32 of the first full image, length u32 of the value: bytes 16.. of each image, image by image
//! kinds: 1 put, 2 delete, 3 delete range (key = start; inline = bounds and end), 4 create tree, 5 drop tree,
//!        6 rename tree (inline = the new name), 7 add value, 8 remove value (of a multi-value tree; inline = the value),
//!        9 create multi-value tree, 10 remove values (inline = one byte of bounds as a deleted range has it, the length
//!        of the start as u16, start, end)
//! ```

use super::record::{RecordError, RecordReader, RecordWriter};

/// What an operation did. Exhaustive: a change feed that passed over a kind it does not know would lead to another state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OperationKind {
    /// Wrote a key.
    Put = 1,
    /// Deleted a key that was there, in a multi-value tree with all its values.
    Delete = 2,
    /// Deleted the keys of a range.
    DeleteRange = 3,
    /// Made a tree.
    CreateTree = 4,
    /// Dropped a tree.
    DropTree = 5,
    /// Renamed a tree.
    RenameTree = 6,
    /// Added a value under a key that was not there.
    AddValue = 7,
    /// Removed a value that was there; with the last one goes its key.
    RemoveValue = 8,
    /// Made a multi-value tree.
    CreateMultiTree = 9,
    /// Removed the values of a key between two bounds; with the last one goes the key.
    RemoveValues = 10,
}

impl OperationKind {
    /// Whether it only takes away.
    pub(super) fn only_frees(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteRange | Self::DropTree | Self::RemoveValue | Self::RemoveValues)
    }
}

/// Where an operation's value stands. Exhaustive, as [`OperationKind`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueAt {
    /// It has none.
    None,
    /// In the operation itself.
    Inline(Vec<u8>),
    /// Whole in the record, at this offset and of this length.
    Span(u32, u32),
    /// Spread over full images that follow each other from this offset; this many bytes in all.
    Run(u32, u32),
}

/// An operation as it stands in a record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OperationView {
    /// The transaction, counted from the batch's first.
    pub txn: u32,
    /// What it did.
    pub kind: OperationKind,
    /// The tree, as an index into the record's names.
    pub tree: u16,
    /// The key; the start of a range.
    pub key: Vec<u8>,
    /// The value.
    pub value: ValueAt,
}

/// As [`ValueAt`], for writing: nothing is copied.
pub(super) enum ValueRef<'v> {
    None,
    Inline(&'v [u8]),
    Span(u32, u32),
    Run(u32, u32),
}

/// Writes an operation.
pub(super) fn write(
    out: &mut RecordWriter,
    txn: u32,
    kind: OperationKind,
    tree: u16,
    key: &[u8],
    value: &ValueRef<'_>,
) {
    out.put_u32(txn as usize);
    let place = match value {
        ValueRef::None => 0,
        ValueRef::Inline(_) => 1,
        ValueRef::Span(..) => 2,
        ValueRef::Run(..) => 3,
    };
    out.put(&[kind as u8, place]);
    out.put_u16(usize::from(tree));
    out.put_u16(key.len());
    out.put(key);
    match value {
        ValueRef::None => {}
        ValueRef::Inline(bytes) => {
            out.put_u32(bytes.len());
            out.put(bytes);
        }
        ValueRef::Span(offset, length) | ValueRef::Run(offset, length) => {
            out.put_u32(*offset as usize);
            out.put_u32(*length as usize);
        }
    }
}

impl OperationView {
    pub(super) fn read(reader: &mut RecordReader<'_>, trees: usize) -> Result<Self, RecordError> {
        let txn = reader.u32()?;
        let kind = match reader.u8()? {
            1 => OperationKind::Put,
            2 => OperationKind::Delete,
            3 => OperationKind::DeleteRange,
            4 => OperationKind::CreateTree,
            5 => OperationKind::DropTree,
            6 => OperationKind::RenameTree,
            7 => OperationKind::AddValue,
            8 => OperationKind::RemoveValue,
            9 => OperationKind::CreateMultiTree,
            10 => OperationKind::RemoveValues,
            _ => return reader.fail("an unknown operation"),
        };
        let place = reader.u8()?;
        let tree = reader.u16()?;
        if usize::from(tree) >= trees {
            return reader.fail("an operation on a tree without a name");
        }
        let length = usize::from(reader.u16()?);
        let key = reader.take(length)?.to_vec();
        let value = match place {
            0 => ValueAt::None,
            1 => {
                let length = reader.u32()? as usize;
                ValueAt::Inline(reader.take(length)?.to_vec())
            }
            2 => ValueAt::Span(reader.u32()?, reader.u32()?),
            3 => ValueAt::Run(reader.u32()?, reader.u32()?),
            _ => return reader.fail("an unknown place of a value"),
        };
        Ok(Self { txn, kind, tree, key, value })
    }
}
