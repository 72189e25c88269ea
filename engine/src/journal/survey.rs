//! All of a journal's directory, read without a change, damage or not: for the tools that look at a stopped node.
//!
//! Up to the first damage it is the walk that opening makes ([`super::walk`]). Behind it there is no way to prove that
//! a frame follows another, but blocks and frames still say what they are: the survey looks at every place where a block
//! can stand, and goes on from the next that may be a later one. Each stretch that is found so is proven within itself,
//! by its sums and chain values; what is between two stretches is lost. What the disk refuses to read is damage, too:
//! from there on it is read in small pieces, so that as little as possible is missed beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{BLOCK_BYTES, Disk, OpenMode};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, LogIndex};
use crate::journal::format::{
    Geometry, LogStart, SEGMENT_HEADER_BYTES, UNIT_BYTES, segment_number, segment_path, span, spare_number,
};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use crate::journal::segment::SegmentHeader;
use crate::journal::walk::{Damage, NoHeader, Walker, open_segment};
use crate::journal::window::{WINDOW_BYTES, Window};

/// A segment's file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The number in its name.
    pub number: u64,
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its header, or what is wrong with it.
    pub header: Result<SegmentHeader, String>,
    /// The frames that were read in it.
    pub frames: u64,
    /// The first of them, and the last.
    pub range: Option<(LogId, LogId)>,
}

/// A file that was made ahead, or is to be used again. It holds nothing of value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SpareInfo {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// What a journal's directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The segments, by number.
    pub segments: Vec<SegmentInfo>,
    /// The spares.
    pub spares: Vec<SpareInfo>,
    /// The frame before the first one; `None` if no header says it.
    pub first: Option<LogStart>,
    /// The last frame before any damage, and how many there are up to it.
    pub last: Option<LogId>,
    /// How many frames there are before any damage.
    pub frames: u64,
    /// How many frames can be read behind damage.
    pub frames_behind_damage: u64,
    /// The highest commit index that a frame before any damage names.
    pub commit: Option<LogIndex>,
    /// Where the last frame before any damage ends.
    pub end: JournalPosition,
    /// Up to where blocks say that everything was durable, as far as they were read before any damage.
    pub attested: JournalPosition,
    /// Bytes of an unfinished group at the end: what a crash left, and no damage.
    pub unfinished_bytes: u64,
    /// What was durable once and is not what was written, in order.
    pub damage: Vec<Damage>,
}

/// Reads all of the journal in `directory`. `each` sees every frame that can be read, in order, and whether all frames
/// before it could be read too.
///
/// # Errors
/// Those of the disk: of a directory that cannot be listed, or a file that cannot be opened. What cannot be read is
/// damage.
pub fn survey(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    each: &mut dyn FnMut(&Frame, JournalPosition, bool),
) -> Result<Survey, StorageError> {
    let mut found = Survey::default();
    list(&**disk, directory, &mut found)?;
    let Some(lowest) = found.segments.first() else { return Ok(found) };
    let from = match Walker::new(disk.clone(), directory) {
        Ok(walker) => walk(walker, &mut found, each)?,
        Err(StorageError::Corrupted { file, offset, what }) => {
            let from = ((lowest.number, SEGMENT_HEADER_BYTES), (0, 0));
            let (position, index) = (JournalPosition(0), LogIndex(0));
            found.damage.push(Damage { position, file, offset, index, what });
            Some(from)
        }
        Err(error) => {
            let (position, index, file) = (JournalPosition(0), LogIndex(0), lowest.file.clone());
            let what = unreadable(error)?;
            found.damage.push(Damage { position, file, offset: 0, index, what });
            Some(((lowest.number, SEGMENT_HEADER_BYTES), (0, 0)))
        }
    };
    let whole = found.segments.iter().find_map(|segment| segment.header.as_ref().ok());
    let geometry = whole.map(|header| Geometry { segment_bytes: header.segment_bytes });
    if let (Some((from, current)), Some(geometry)) = (from, geometry) {
        Behind { disk: &**disk, directory, geometry, found: &mut found, each, current, last: None }.go_on(from)?;
    }
    Ok(found)
}

/// Lists the files, and opens each.
fn list(disk: &dyn Disk, directory: &Path, found: &mut Survey) -> Result<(), StorageError> {
    let names = disk.list_dir(directory)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    for number in numbers {
        let file = segment_path(directory, number);
        let header = match open_segment(disk, &file, None) {
            Ok((_, header)) => header.map_err(|NoHeader { what, .. }| what),
            Err(error) => Err(unreadable(error)?),
        };
        let bytes = disk.open(&file, OpenMode::Read)?.len()?;
        found.segments.push(SegmentInfo { number, bytes, file, header, frames: 0, range: None });
    }
    for name in names.iter().filter(|name| spare_number(name).is_some()) {
        let file = directory.join(name);
        let bytes = disk.open(&file, OpenMode::Read)?.len()?;
        found.spares.push(SpareInfo { file, bytes });
    }
    Ok(())
}

/// Where to go on: segment and offset; epoch and number of what was walked over.
type From = ((u64, u64), (u64, u64));

/// Walks to the end, or to the first damage: then it returns where to look further.
fn walk(
    mut walker: Walker,
    found: &mut Survey,
    each: &mut dyn FnMut(&Frame, JournalPosition, bool),
) -> Result<Option<From>, StorageError> {
    let geometry = walker.geometry;
    found.first = Some(walker.last);
    loop {
        let (frame, position) = match walker.next_frame() {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(error) => {
                found.damage.push(walker.damage_here(unreadable(error)?));
                (found.end, found.attested) = (geometry.position(walker.tail.0, walker.tail.1), walker.attested);
                // The block of a group may have been read, and what is behind it not.
                let (place, (epoch, number)) = walker.behind_damage();
                return Ok(Some((place, (epoch, number.saturating_sub(1)))));
            }
        };
        found.frames += 1;
        found.last = Some(frame.log_id());
        found.commit = found.commit.max(frame.commit());
        found.note(geometry, &frame, position);
        each(&frame, position, true);
    }
    found.end = geometry.position(walker.tail.0, walker.tail.1);
    let ending = walker.ending().clone();
    let Some(damage) = ending.damage else {
        found.unfinished_bytes = ending.unfinished_bytes;
        found.attested = walker.attested_at_end()?;
        return Ok(None);
    };
    found.attested = walker.attested;
    found.damage.push(damage);
    Ok(Some(walker.behind_damage()))
}

/// What the disk says of bytes that it does not read; other errors are errors.
fn unreadable(error: StorageError) -> Result<String, StorageError> {
    match error {
        StorageError::Io { operation: "read", message, .. } => Ok(format!("it cannot be read: {message}")),
        error => Err(error),
    }
}

impl Survey {
    /// Counts a frame for its segment.
    fn note(&mut self, geometry: Geometry, frame: &Frame, position: JournalPosition) {
        let (number, _) = geometry.place(position);
        let segment = self.segments.iter_mut().find(|segment| segment.number == number);
        let segment = segment.expect("a frame stands in a segment that was listed");
        segment.frames += 1;
        let first = segment.range.map_or(frame.log_id(), |(first, _)| first);
        segment.range = Some((first, frame.log_id()));
    }
}

/// The search behind damage.
struct Behind<'s> {
    disk: &'s dyn Disk,
    directory: &'s Path,
    geometry: Geometry,
    found: &'s mut Survey,
    each: &'s mut dyn FnMut(&Frame, JournalPosition, bool),
    /// Epoch and number of the last block.
    current: (u64, u64),
    /// The last frame whose header was read, if nothing is missing between it and the place looked at.
    last: Option<LogStart>,
}

impl Behind<'_> {
    /// Goes through the rest of a segment, and all later ones.
    fn go_on(&mut self, from: (u64, u64)) -> Result<(), StorageError> {
        let numbers: Vec<u64> = self.found.segments.iter().map(|segment| segment.number).collect();
        for segment in numbers.into_iter().filter(|number| *number >= from.0) {
            let path = segment_path(self.directory, segment);
            if segment > from.0 {
                match open_segment(self.disk, &path, Some(self.geometry.segment_bytes)) {
                    Ok((_, Ok(header))) if header.epoch >= self.current.0 => self.last = Some(header.start),
                    Ok((_, Err(NoHeader { what, is_fresh: false }))) => self.damaged(segment, 0, what),
                    Ok(_) => self.last = None,
                    Err(error) => self.damaged(segment, 0, unreadable(error)?),
                }
            }
            let file = self.disk.open(&path, OpenMode::Read)?;
            let mut window = Window::new(file.clone(), self.geometry, WINDOW_BYTES);
            let mut offset = if segment == from.0 { from.1 } else { SEGMENT_HEADER_BYTES };
            while offset <= self.geometry.limit() {
                offset = match self.step(&mut window, segment, offset) {
                    Ok(next) => next,
                    Err(error) => {
                        self.damaged(segment, offset, unreadable(error)?);
                        window = Window::new(file.clone(), self.geometry, BLOCK_BYTES);
                        (offset + 1).next_multiple_of(BLOCK_BYTES)
                    }
                };
            }
        }
        Ok(())
    }

    /// Looks at one place; returns the next.
    fn step(&mut self, window: &mut Window, segment: u64, offset: u64) -> Result<u64, StorageError> {
        let bytes = window.bytes(offset, GROUP_BLOCK_BYTES as u64)?;
        let block = GroupBlock::decode(&bytes, self.geometry.position(segment, offset));
        let Some(block) = block.filter(|block| self.may_follow(block)) else { return Ok(offset + UNIT_BYTES) };
        match block.kind {
            GroupKind::Attest => {}
            GroupKind::Cut => {
                (self.current, self.last) = ((block.epoch, block.number), None);
            }
            GroupKind::Append => {
                self.current = (block.epoch, block.number);
                return self.group(window, segment, offset, &block);
            }
        }
        Ok(offset + UNIT_BYTES)
    }

    fn may_follow(&self, block: &GroupBlock) -> bool {
        let anything_goes = self.current == (0, 0);
        block.epoch >= self.current.0
            && block.number > self.current.1
            && (anything_goes || block.is_near(self.current.0, self.current.1))
            && block.end <= self.geometry.position(block.position.0 / self.geometry.segment_bytes + 1, 0)
    }

    /// Goes through the frames of a group, and returns where it ends.
    fn group(&mut self, window: &mut Window, segment: u64, at: u64, block: &GroupBlock) -> Result<u64, StorageError> {
        let end = at + (block.end.0 - block.position.0).max(UNIT_BYTES);
        let mut offset = at + UNIT_BYTES;
        let mut index = block.first_index;
        for left in (0..block.frames).rev() {
            let header = FrameHeader::parse(&window.bytes(offset, FRAME_HEADER_BYTES as u64)?);
            let fits = |header: &FrameHeader| {
                let last = self.last.filter(|last| last.next_index() == index);
                header.log_id.index == index
                    && offset + span(header.frame_bytes()) <= end
                    && last.is_none_or(|last| header.follows(last.chain))
                    && (left > 0 || chain_low(header.chain) == block.chain_low)
            };
            let header = match header {
                Ok(header) if fits(&header) => header,
                bad => {
                    let what =
                        bad.err().map_or_else(|| "it is not the frame of its group".into(), |bad| bad.to_string());
                    self.lost(segment, offset, index, format!("{what}; of its group, {} frames are lost", left + 1));
                    self.last = None;
                    return Ok(end);
                }
            };
            let payload = window.bytes(offset + FRAME_HEADER_BYTES as u64, header.payload_bytes() as u64)?;
            let (start, bytes) =
                (LogStart { previous: Some(header.log_id), chain: header.chain }, header.frame_bytes());
            match header.with_payload(payload) {
                Ok(frame) => self.frame(&frame, self.geometry.position(segment, offset)),
                Err(error) => self.lost(segment, offset, index, error.to_string()),
            }
            self.last = Some(start);
            offset += span(bytes);
            index = index.next();
        }
        Ok(end)
    }

    /// A frame that can be read. Those before the damage were seen already.
    fn frame(&mut self, frame: &Frame, position: JournalPosition) {
        if Some(frame.log_id().index) > self.found.last.map(|last| last.index) {
            self.found.frames_behind_damage += 1;
            self.found.note(self.geometry, frame, position);
            (self.each)(frame, position, false);
        }
    }

    fn lost(&mut self, segment: u64, offset: u64, index: LogIndex, what: String) {
        let (position, file) = (self.geometry.position(segment, offset), segment_path(self.directory, segment));
        // The walk has told of the first.
        let told = self.found.damage.iter().any(|damage| (&damage.file, damage.offset) == (&file, offset));
        if !told {
            self.found.damage.push(Damage { position, file, offset, index, what });
        }
    }

    fn damaged(&mut self, segment: u64, offset: u64, what: String) {
        let next = self.last.map_or(LogIndex(0), |last| last.next_index());
        self.last = None;
        self.lost(segment, offset, next, what);
    }
}
