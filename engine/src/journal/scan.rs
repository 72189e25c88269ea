//! Opening a journal: walk everything, decide where it ends, make the end durable.
//!
//! Unless there is damage, opening writes the last group again, in case that no sync has written it or ever will, and
//! syncs it; then it writes a cut block at the end and syncs that. With the first, every frame found is durable; with
//! the second, nothing behind the end can ever be taken for a continuation. With damage nothing is written: the frames
//! before it can be read, nothing can be appended until someone cuts.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogIndex};
use crate::journal::JournalOptions;
use crate::journal::format::{LogStart, segment_path};
use crate::journal::index::{Entry, Index};
use crate::journal::state::{CutTarget, Segment};
use crate::journal::walk::{Damage, Walker};
use crate::journal::writer::Writer;

/// What opening a journal found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// The frame before the first one.
    pub first: LogStart,
    /// The last frame, or `first` if there is none.
    pub last: LogStart,
    /// How many frames there are.
    pub frames: u64,
    /// The highest commit index in any frame's header: that much was committed for certain.
    pub highest_commit: Option<LogIndex>,
    /// Bytes that were durable once and are not what was written. The journal ends before them until a cut.
    pub damage: Option<Damage>,
    /// Bytes of an unfinished group that were cut, as far as its block could be read.
    pub cut_bytes: u64,
    /// Where the last frame ends.
    pub end: JournalPosition,
}

/// What becomes a journal.
pub(super) struct Opened {
    pub scan: Scan,
    /// How many syncs it took.
    pub syncs: u64,
    pub index: Index,
    pub segments: std::collections::VecDeque<Segment>,
    pub writer: Writer,
    /// Segment files that belong to no kept frame, ascending.
    pub strays: Vec<u64>,
}

/// Walks the journal in `directory` and makes its end durable.
pub(super) fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Opened, StorageError> {
    let mut walker = Walker::new(disk.clone(), directory)?;
    let first = walker.last;
    let mut index = Index::new(first);
    let mut highest_commit = None;
    let mut frames = 0;
    while let Some((frame, position)) = walker.next_frame()? {
        let bytes = u32::try_from(frame.frame_bytes()).expect("frames are bounded");
        index.push(frame.log_id(), Entry { position, chain: frame.chain(), bytes });
        highest_commit = highest_commit.max(frame.commit());
        frames += 1;
    }
    let ending = walker.ending().clone();
    let (segment, offset) = walker.tail;
    let geometry = walker.geometry;
    let scan = Scan {
        first,
        last: walker.last,
        frames,
        highest_commit,
        damage: ending.damage,
        cut_bytes: ending.unfinished_bytes,
        end: geometry.position(segment, offset),
    };
    // A segment whose first group never became whole holds nothing: the end is in the one before.
    walker.segments.retain(|kept| kept.number <= segment);
    let strays: Vec<u64> = walker.numbers.iter().copied().filter(|number| *number > segment).collect();
    let mut writer = Writer {
        geometry,
        segment,
        file: disk.open(&segment_path(directory, segment), OpenMode::WriteBlocks)?,
        offset,
        number: ending.number,
        epoch: ending.epoch,
        attested: scan.end,
        last: scan.last,
        must_cut: true,
        tail: None,
    };
    let mut syncs = 0;
    if scan.damage.is_none() {
        if scan.end > walker.attested {
            // A group that attests the end of another segment is its own segment's first: the header goes with it.
            let (attested_segment, attested) = geometry.place(walker.attested);
            write_again(&*writer.file, if attested_segment == segment { attested } else { 0 }, offset)?;
            syncs += 1;
        }
        let target = CutTarget { segment, offset, last: scan.last };
        writer.cut(&**disk, directory, &target, &JournalOptions::default())?;
        syncs += 1;
    }
    Ok(Opened { scan, syncs, index, segments: walker.segments, writer, strays })
}

/// Writes bytes of a file over themselves and syncs them: durable, whatever became of earlier syncs.
fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> Result<(), StorageError> {
    const PIECE_BYTES: u64 = 1 << 20;
    for start in (from..to).step_by(PIECE_BYTES as usize) {
        let mut bytes = vec![0; usize::try_from(PIECE_BYTES.min(to - start)).expect("a piece fits memory")];
        file.read_exact_at(&mut bytes, start)?;
        file.write_at(&[IoSlice::new(&bytes)], start)?;
    }
    file.sync_data()
}
