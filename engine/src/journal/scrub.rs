//! Reads what is durable from the disk, past every cache, and compares it with what was written; and writes a frame again
//! that is not.
//!
//! What is compared: the header of each segment, the frames that the index knows, with their checksums, log ids and chain
//! values, and the blocks between them: where a frame does not stand right behind the one before it, blocks fill the gap.
//!
//! The lock is not held while the disk is read. Meanwhile frames may be purged or cut, and their places written anew; so
//! what does not fit is damage only if the index still says that the very same frame stands there. A durable frame is
//! written once. The writer does write the last block of 4 KiB again, with what follows; the bytes of frames that are
//! durable are the same in both, so it is no matter which of them is read.
//!
//! A frame is written again on the journal's own thread, between two groups: nobody else writes meanwhile, a block of the
//! segment's end neither. *Crash within:* the frame was bad before, and is bad or right behind it. The frames and blocks
//! beside it are not written, or with the bytes that they have.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::damage::DamagedPart;
use crate::env::{BLOCK_BYTES, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex};
use crate::journal::format::{LogStart, SECTOR_BYTES, SEGMENT_HEADER_BYTES, UNIT_BYTES, segment_path, span};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::group::{GroupBlock, GroupKind};
use crate::journal::index::Entry;
use crate::journal::rebuild::{self, Unit, numbered};
use crate::journal::run::Shared;
use crate::journal::segment::SegmentHeader;
use crate::journal::state::State;

/// What a look at some frames found.
pub(crate) struct Piece {
    /// The frame to go on from.
    pub(crate) next: LogIndex,
    /// Frames that were looked at.
    pub(crate) frames: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// What is not what was written.
    pub(crate) bad: Vec<BadPart>,
}

/// A part of the journal that is not what was written.
pub(crate) struct BadPart {
    pub(crate) part: DamagedPart,
    /// Where, and what is wrong.
    pub(crate) error: StorageError,
    /// What must stand there, of what is this node's own.
    pub(crate) rebuilt: Option<Rebuilt>,
}

/// Bytes that must stand before a frame.
pub(crate) struct Rebuilt {
    before: LogId,
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
}

/// Frames that stand in one segment, one behind the other, with what is between them.
struct Run {
    file: Arc<dyn DiskFile>,
    segment: u64,
    /// What the header of the segment says, if the run begins with it.
    start: Option<LogStart>,
    /// Where the run begins and ends in the segment, in bytes.
    from: u64,
    to: u64,
    /// The chain value before the first frame.
    chain: u64,
    frames: Vec<(LogId, Entry)>,
}

/// A part that does not fit, and the frame that it belongs to.
struct Bad {
    part: DamagedPart,
    of: usize,
    offset: u64,
    what: String,
    /// Of a block or a header: what kind of block it is, its number and epoch.
    numbered: Option<(GroupKind, (u64, u64))>,
}

/// Looks at durable frames from `from` on, of about `max_bytes` together; `None` behind the last of them.
pub(super) fn look(shared: &Shared, from: LogIndex, max_bytes: u64) -> Result<Option<Piece>, StorageError> {
    let Some(run) = plan(&shared.state.lock(), from, max_bytes) else { return Ok(None) };
    let aligned = run.from - run.from % BLOCK_BYTES;
    let mut buffer = vec![0; usize::try_from(run.to - aligned).expect("a run fits memory")];
    let got = match run.file.read_past_cache(&mut buffer, aligned) {
        Ok(got) => got,
        // A sector that cannot be read: whatever it is of is found below, as bytes that are not there.
        Err(StorageError::Io { operation: "read", .. }) => read_in_blocks(&*run.file, &mut buffer, aligned),
        Err(error) => return Err(error),
    };
    buffer[got..].fill(0);
    let bytes = Bytes::from(buffer);
    let bad = compare(shared, &run, &bytes, aligned);
    let (last, _) = run.frames.last().expect("a run has frames");
    let piece = Piece {
        next: last.index.next(),
        frames: run.frames.len() as u64,
        bytes: bytes.len() as u64,
        bad: still_there(shared, &run, bad),
    };
    Ok(Some(piece))
}

/// Reads what can be read; the rest is zeros, which nothing in a journal is.
fn read_in_blocks(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> usize {
    for (block, at) in buffer.chunks_mut(BLOCK_BYTES as usize).zip((offset..).step_by(BLOCK_BYTES as usize)) {
        let got = file.read_past_cache(block, at).unwrap_or(0);
        block[got..].fill(0);
    }
    buffer.len()
}

fn plan(state: &State, from: LogIndex, max_bytes: u64) -> Option<Run> {
    let from = from.max(state.index.first_index());
    let durable = state.durable?.index;
    let mut run: Option<Run> = None;
    for index in (from.0..=durable.0).map(LogIndex) {
        let (Some(entry), Some(id)) = (state.index.get(index), state.index.log_id(index)) else { break };
        let (segment, offset) = state.geometry.place(entry.position);
        let end = offset + span(entry.bytes as usize);
        match &mut run {
            Some(run) if run.segment != segment || end - run.from > max_bytes => break,
            Some(run) => {
                run.frames.push((id, entry));
                run.to = end;
            }
            None => {
                let kept = state.segments.iter().find(|kept| kept.number == segment)?;
                let before = index.0.checked_sub(1).map(LogIndex);
                let before = before.filter(|before| *before >= state.index.first_index());
                let place = before.and_then(|before| state.index.get(before)).map(|before| {
                    let (segment, offset) = state.geometry.place(before.position);
                    (segment, offset + span(before.bytes as usize))
                });
                let behind = place.filter(|(of, _)| *of == segment).map(|(_, end)| end);
                let chain = before.map_or(state.index.start().chain, |before| {
                    state.index.chain(before).expect("a kept frame has its chain value")
                });
                run = Some(Run {
                    file: kept.file.clone(),
                    segment,
                    start: behind.is_none().then_some(kept.start),
                    from: behind.unwrap_or(0),
                    to: end,
                    chain,
                    frames: vec![(id, entry)],
                });
            }
        }
    }
    run
}

fn compare(shared: &Shared, run: &Run, bytes: &Bytes, aligned: u64) -> Vec<Bad> {
    let mut bad = Vec::new();
    let slice = |from: u64, to: u64| {
        let place = |at: u64| usize::try_from(at - aligned).expect("within the run").min(bytes.len());
        bytes.slice(place(from)..place(to))
    };
    let header = run.start.map(|start| header_of(shared, run, start, &slice(0, SEGMENT_HEADER_BYTES)));
    let units = units(shared, run, &slice);
    let block = |of, offset, what: &str, numbered| {
        let part = DamagedPart::Block(shared.geometry.position(run.segment, offset));
        Bad { part, of, offset, what: what.to_owned(), numbered }
    };
    let sound = header.as_ref().and_then(|header| header.as_ref().ok());
    if let Some(Err(what)) = &header {
        let first = rebuild::of_segment(run.segment, &units);
        bad.push(block(0, 0, what, first.map(|numbered| (GroupKind::Append, numbered))));
    }
    for (at, unit) in units.iter().enumerate().filter(|(_, unit)| unit.block.is_none()) {
        let numbered = numbered(&units, at, sound).map(|numbered| (unit.kind, numbered));
        bad.push(block(unit.of, unit.offset, "no block of a group stands where one should", numbered));
    }
    let mut chain = run.chain;
    for (of, (id, entry)) in run.frames.iter().enumerate() {
        let (_, offset) = shared.geometry.place(entry.position);
        if let Err(what) = check(&slice(offset, offset + u64::from(entry.bytes)), *id, entry, chain) {
            bad.push(Bad { part: DamagedPart::Frame(*id), of, offset, what, numbered: None });
        }
        chain = entry.chain;
    }
    bad
}

fn header_of(shared: &Shared, run: &Run, start: LogStart, bytes: &[u8]) -> Result<SegmentHeader, String> {
    let header = SegmentHeader::decode(bytes)?;
    let fits =
        header.number == run.segment && header.segment_bytes == shared.geometry.segment_bytes && header.start == start;
    if fits { Ok(header) } else { Err("it is another segment's header".to_owned()) }
}

/// Where blocks must stand in a run: wherever a frame does not follow the one before it at once.
fn units(shared: &Shared, run: &Run, slice: &dyn Fn(u64, u64) -> Bytes) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut at = if run.start.is_some() { SEGMENT_HEADER_BYTES } else { run.from };
    for (of, (_, entry)) in run.frames.iter().enumerate() {
        let (_, frame) = shared.geometry.place(entry.position);
        for offset in (at..frame).step_by(UNIT_BYTES as usize) {
            let position = shared.geometry.position(run.segment, offset);
            let block = GroupBlock::decode(&slice(offset, offset + UNIT_BYTES), position);
            let kind = if offset + UNIT_BYTES == frame { GroupKind::Append } else { GroupKind::Cut };
            let block = block.filter(|block| block.kind == kind);
            units.push(Unit { offset, of, kind, block });
        }
        at = frame + span(entry.bytes as usize);
    }
    units
}

fn check(bytes: &Bytes, id: LogId, entry: &Entry, chain: u64) -> Result<(), String> {
    let header = FrameHeader::parse(bytes).map_err(|error| error.to_string())?;
    if header.log_id != id || header.chain != entry.chain || header.frame_bytes() != bytes.len() {
        return Err(format!("frame {} stands where frame {id} should", header.log_id));
    }
    if !header.follows(chain) {
        return Err("its chain value does not follow".to_owned());
    }
    let payload = bytes.slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes());
    header.with_payload(payload).map(drop).map_err(|error| error.to_string())
}

/// Of what does not fit, that whose frame still stands there.
fn still_there(shared: &Shared, run: &Run, bad: Vec<Bad>) -> Vec<BadPart> {
    if bad.is_empty() {
        return Vec::new();
    }
    let state = shared.state.lock();
    let stands = |bad: &Bad| {
        let (id, entry) = &run.frames[bad.of];
        state.index.log_id(id.index) == Some(*id) && state.index.get(id.index) == Some(*entry)
    };
    let file = segment_path(&shared.directory, run.segment);
    let told = |bad: Bad| {
        let rebuilt = bad.numbered.and_then(|numbered| rebuilt(&state, run, &bad, numbered));
        let error = match bad.part {
            DamagedPart::Frame(log_id) => {
                StorageError::DamagedFrame { file: file.clone(), offset: bad.offset, log_id, what: bad.what }
            }
            _ => StorageError::corrupted(&file, bad.offset, bad.what),
        };
        BadPart { part: bad.part, error, rebuilt }
    };
    bad.into_iter().filter(stands).map(told).collect()
}

fn rebuilt(state: &State, run: &Run, bad: &Bad, (kind, numbered): (GroupKind, (u64, u64))) -> Option<Rebuilt> {
    let (before, _) = run.frames[bad.of];
    let bytes = match run.start.filter(|_| bad.offset == 0) {
        Some(start) => {
            let segment_bytes = state.geometry.segment_bytes;
            let (first_group, epoch) = numbered;
            let header = SegmentHeader { number: run.segment, segment_bytes, first_group, epoch, start };
            // Its sector: what stands behind that in the header's block is an attest, and no part of it.
            header.encode()[..SECTOR_BYTES as usize].to_vec()
        }
        None => rebuild::block(state, kind, bad.offset, before.index, numbered)?.encode().to_vec(),
    };
    Some(Rebuilt { before, segment: run.segment, offset: bad.offset, bytes })
}

/// Writes what must stand before a frame; `false` if that frame is not there any more. On the journal's thread.
pub(super) fn write_rebuilt(shared: &Shared, rebuilt: &Rebuilt) -> Result<bool, StorageError> {
    if shared.state.lock().index.log_id(rebuilt.before.index) != Some(rebuilt.before) {
        return Ok(false);
    }
    let file = shared.disk.open(&segment_path(&shared.directory, rebuilt.segment), OpenMode::Write)?;
    file.write_at(&[IoSlice::new(&rebuilt.bytes)], rebuilt.offset)?;
    file.sync_data()?;
    Ok(true)
}

/// Whether this is, byte for byte, the frame that the index has.
pub(super) fn is_ours(state: &State, frame: &Frame) -> bool {
    let id = frame.log_id();
    let before = id.index.0.checked_sub(1).and_then(|index| state.index.chain(LogIndex(index)));
    let before = before.or_else(|| (state.index.first_index() == id.index).then_some(state.index.start().chain));
    state.index.log_id(id.index) == Some(id)
        && state.index.get(id.index).is_some_and(|entry| {
            entry.chain == frame.chain() && entry.bytes as usize == frame.frame_bytes() && entry.position.0 > 0
        })
        && before.is_some_and(|chain| frame.follows(chain))
}

/// Writes a frame where the index says that it stands; `false` if it does not stand there any more. On the journal's
/// thread.
pub(super) fn write_again(shared: &Shared, frame: &Frame) -> Result<bool, StorageError> {
    let (segment, offset) = {
        let state = shared.state.lock();
        if !is_ours(&state, frame) {
            return Ok(false);
        }
        state.geometry.place(state.index.get(frame.log_id().index).expect("it is ours").position)
    };
    let file = shared.disk.open(&segment_path(&shared.directory, segment), OpenMode::Write)?;
    file.write_at(&[IoSlice::new(frame.header()), IoSlice::new(frame.payload().bytes())], offset)?;
    file.sync_data()?;
    Ok(true)
}
