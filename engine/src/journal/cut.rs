//! Cuts: a block that says *everything that stood from here on is gone*, at the end of the last frame that stays.
//!
//! It is one unit within one sector, so it is there whole or not at all, and it carries a cut epoch above all before:
//! whatever stands behind it, in this segment, in later ones or in recycled files, has a lower epoch and is never
//! taken for a continuation again. Segments behind it become spares only after the block is durable.

use std::io::IoSlice;
use std::path::Path;

use crate::env::{Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::JournalPosition;
use crate::journal::JournalOptions;
use crate::journal::format::{UNIT_BYTES, segment_path};
use crate::journal::group::{GroupBlock, GroupKind, chain_low};
use crate::journal::state::CutTarget;
use crate::journal::writer::Writer;

impl Writer {
    /// Makes a cut durable. Returns the bytes written, or `None` if nothing had to be: no frame after the target's
    /// last was ever written.
    pub fn cut(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        target: &CutTarget,
        options: &JournalOptions,
    ) -> Result<Option<u64>, StorageError> {
        if !self.must_cut && self.last == target.last {
            return Ok(None);
        }
        assert!(target.offset <= self.geometry.limit(), "the last unit of a segment is kept free for cuts");
        let position = self.geometry.position(target.segment, target.offset);
        let end = JournalPosition(position.0 + UNIT_BYTES);
        let block = GroupBlock {
            kind: GroupKind::Cut,
            number: self.number + 1,
            epoch: self.epoch + 1,
            attested: position,
            position,
            end,
            first_index: target.last.next_index(),
            frames: 0,
            chain_low: chain_low(target.last.chain),
        };
        // A handle of its own if the cut goes back to an older segment; the sync covers whatever the kernel still
        // holds of that file.
        let path = segment_path(directory, target.segment);
        let file =
            if target.segment == self.segment { self.file.clone() } else { disk.open(&path, OpenMode::WriteBlocks)? };
        file.write_at(&[IoSlice::new(&block.encode())], target.offset)?;
        if !options.leaves_cuts_unsynced() {
            file.sync_data()?;
        }
        self.segment = target.segment;
        self.file = file;
        self.offset = target.offset + UNIT_BYTES;
        self.number = block.number;
        self.epoch = block.epoch;
        self.attested = end;
        self.last = target.last;
        self.must_cut = false;
        self.tail = None;
        // Up to the block, not behind it: without the block the journal ends in the same place.
        self.attest_again(position)?;
        Ok(Some(UNIT_BYTES))
    }
}
