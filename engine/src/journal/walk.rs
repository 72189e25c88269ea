//! Walks a journal's segments from the first kept frame to the end, verifying everything. Used by the opening scan and
//! by the read-only inspection; it writes nothing. The rules it follows are argued in [`super`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogIndex};
use crate::journal::format::{
    Geometry, LogStart, SEGMENT_HEADER_BYTES, UNIT_BYTES, is_segment_size, segment_number, segment_path, span,
};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind};
use crate::journal::look::look_further;
use crate::journal::segment::SegmentHeader;
use crate::journal::state::Segment;

/// Damage: bytes that were durable once and are not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where the first bad bytes stand.
    pub position: JournalPosition,
    /// The segment's file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The index of the first frame that is lost.
    pub index: LogIndex,
    /// What is wrong, and how it is known that it was right once.
    pub what: String,
}

impl Damage {
    /// As an error.
    #[must_use]
    pub fn error(&self) -> StorageError {
        StorageError::corrupted(&self.file, self.offset, format!("{} (from frame {} on)", self.what, self.index))
    }
}

/// Where and why a walk ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// Set if what ends here was durable once.
    pub damage: Option<Damage>,
    /// Bytes of the unfinished group, as far as its block can still be read.
    pub unfinished_bytes: u64,
    /// The highest cut epoch and group number seen anywhere.
    pub epoch: u64,
    pub number: u64,
}

/// The group being walked.
#[derive(Clone, Copy)]
struct OpenGroup {
    frames_left: u32,
    end_offset: u64,
}

/// How much is read at once, in bytes, unless a frame is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// A stretch of a segment in memory.
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    /// The size of the file, in bytes; no more is read at once.
    file_bytes: u64,
    start: u64,
    bytes: Bytes,
}

impl Window {
    pub fn new(file: Arc<dyn DiskFile>, geometry: Geometry) -> Self {
        Self { file, file_bytes: geometry.segment_bytes, start: 0, bytes: Bytes::new() }
    }

    /// `length` bytes from `offset`; fewer if the file ends.
    pub fn bytes(&mut self, offset: u64, length: u64) -> Result<Bytes, StorageError> {
        let covered = offset >= self.start && offset + length <= self.start + self.bytes.len() as u64;
        if !covered {
            let wanted = length.max(WINDOW_BYTES).min(self.file_bytes.saturating_sub(offset));
            let mut buffer = vec![0; usize::try_from(wanted).expect("a frame fits memory")];
            let got = self.file.read_at(&mut buffer, offset)?;
            buffer.truncate(got);
            (self.start, self.bytes) = (offset, buffer.into());
        }
        let from = usize::try_from(offset - self.start).expect("within the window");
        let to = self.bytes.len().min(from + usize::try_from(length).expect("a frame fits memory"));
        Ok(self.bytes.slice(from..to))
    }
}

pub(super) struct Walker {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The numbers of all segment files, ascending.
    pub numbers: Vec<u64>,
    pub geometry: Geometry,
    /// The segments entered so far.
    pub segments: VecDeque<Segment>,
    /// The last frame walked over.
    pub last: LogStart,
    /// Where it ends: segment and offset in it.
    pub tail: (u64, u64),
    /// What the last block walked over attests; the first segment's begin without one.
    pub attested: JournalPosition,
    window: Window,
    segment: u64,
    offset: u64,
    number: u64,
    epoch: u64,
    group: Option<OpenGroup>,
    ending: Option<Ending>,
}

/// An open segment and its header, or what is wrong with it.
type WithHeader = (Arc<dyn DiskFile>, Result<SegmentHeader, String>);

fn open_segment(disk: &dyn Disk, path: &Path) -> Result<WithHeader, StorageError> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    let got = file.read_at(&mut bytes, 0)?;
    let length = file.len()?;
    let header = SegmentHeader::decode(&bytes[..got]).map_err(String::from).and_then(|header| {
        if !is_segment_size(header.segment_bytes) {
            return Err(format!("segments of {} bytes", header.segment_bytes));
        }
        if length != header.segment_bytes {
            return Err(format!("the segment has {length} of {} bytes", header.segment_bytes));
        }
        Ok(header)
    });
    Ok((file, header))
}

impl Walker {
    /// Stands before the first frame of the lowest segment.
    ///
    /// # Errors
    /// Without a segment, or with a bad header on the first: then nothing can be said of what follows.
    pub fn new(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, StorageError> {
        let mut numbers: Vec<u64> = disk.list_dir(directory)?.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let Some(first) = numbers.first().copied() else {
            let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no journal segment is there");
            return Err(StorageError::io(directory, 0, "open", &missing));
        };
        let path = segment_path(directory, first);
        let (file, header) = open_segment(&*disk, &path)?;
        let header = header.map_err(|what| StorageError::corrupted(&path, 0, what))?;
        let geometry = Geometry { segment_bytes: header.segment_bytes };
        if header.number != first {
            return Err(StorageError::corrupted(&path, 0, format!("it is segment {}", header.number)));
        }
        Ok(Self {
            disk,
            directory: directory.to_path_buf(),
            numbers,
            geometry,
            segments: VecDeque::from([Segment { number: first, start: header.start, file: file.clone() }]),
            last: header.start,
            tail: (first, SEGMENT_HEADER_BYTES),
            attested: geometry.position(first, SEGMENT_HEADER_BYTES),
            window: Window::new(file, geometry),
            segment: first,
            offset: SEGMENT_HEADER_BYTES,
            number: header.first_group.saturating_sub(1),
            epoch: header.epoch,
            group: None,
            ending: None,
        })
    }

    /// The next frame and its position; `None` at the end, whatever ends there.
    pub fn next_frame(&mut self) -> Result<Option<(Frame, JournalPosition)>, StorageError> {
        while self.ending.is_none() {
            let Some(group) = self.group else {
                self.between_groups()?;
                continue;
            };
            if group.frames_left == 0 {
                // `enter_group` and `frame_here` keep every frame below the group's end.
                self.offset = group.end_offset;
                self.group = None;
                continue;
            }
            match self.frame_here(group)? {
                Ok(frame) => return Ok(Some(self.step_over(frame, group))),
                Err(what) => {
                    let cut = self.block_here()?.filter(|block| self.is_next_cut(block));
                    match cut {
                        Some(block) => self.step_over_cut(&block),
                        None => self.end(&what, group.end_offset, group.end_offset - self.offset)?,
                    }
                }
            }
        }
        Ok(None)
    }

    /// What ended the walk.
    ///
    /// # Panics
    /// Before `next_frame` has returned `None`.
    pub fn ending(&self) -> &Ending {
        self.ending.as_ref().expect("the walk is over")
    }

    fn position(&self) -> JournalPosition {
        self.geometry.position(self.segment, self.offset)
    }

    fn between_groups(&mut self) -> Result<(), StorageError> {
        let block = self.block_here()?;
        if let Some(block) = &block {
            if self.is_next_cut(block) {
                self.step_over_cut(block);
                return Ok(());
            }
            if self.is_next_group(block) {
                let end_offset = self.offset + (block.end.0 - block.position.0);
                self.group = Some(OpenGroup { frames_left: block.frames, end_offset });
                self.offset += UNIT_BYTES;
                self.number = block.number;
                self.attested = block.attested;
                return Ok(());
            }
        }
        if self.enter_next_segment()? {
            return Ok(());
        }
        self.end("no group stands where one should", self.offset, 0)
    }

    /// The group block at the place walked to, if there is one.
    fn block_here(&mut self) -> Result<Option<GroupBlock>, StorageError> {
        let bytes = self.window.bytes(self.offset, GROUP_BLOCK_BYTES as u64)?;
        Ok(GroupBlock::decode(&bytes, self.position()))
    }

    fn is_next_cut(&self, block: &GroupBlock) -> bool {
        block.kind == GroupKind::Cut
            && block.epoch > self.epoch
            && block.number > self.number
            && block.first_index == self.last.next_index()
    }

    fn is_next_group(&self, block: &GroupBlock) -> bool {
        let limit = self.geometry.position(self.segment, self.geometry.limit());
        block.kind == GroupKind::Append
            && block.epoch == self.epoch
            && block.number == self.number + 1
            && block.first_index == self.last.next_index()
            && block.end > block.position
            && block.end <= limit
    }

    /// A cut never removes what was walked over: it stands at the end of the last frame that stays.
    fn step_over_cut(&mut self, block: &GroupBlock) {
        self.group = None;
        self.epoch = block.epoch;
        self.number = block.number;
        self.attested = block.attested;
        self.offset += UNIT_BYTES;
    }

    fn step_over(&mut self, frame: Frame, group: OpenGroup) -> (Frame, JournalPosition) {
        let position = self.position();
        self.offset += span(frame.frame_bytes());
        self.group = Some(OpenGroup { frames_left: group.frames_left - 1, ..group });
        self.last = LogStart { previous: Some(frame.log_id()), chain: frame.chain() };
        self.tail = (self.segment, self.offset);
        (frame, position)
    }

    /// The frame at the place walked to, or why there is none that follows the last.
    fn frame_here(&mut self, group: OpenGroup) -> Result<Result<Frame, String>, StorageError> {
        let header = match FrameHeader::parse(&self.window.bytes(self.offset, FRAME_HEADER_BYTES as u64)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let end = self.offset + span(header.frame_bytes());
        let fits = if group.frames_left == 1 { end == group.end_offset } else { end < group.end_offset };
        if !fits {
            return Ok(Err(format!("the lengths of frame {} and of its group disagree", header.log_id)));
        }
        let payload_at = self.offset + FRAME_HEADER_BYTES as u64;
        let payload = self.window.bytes(payload_at, header.payload_bytes() as u64)?;
        let frame = match header.with_payload(payload) {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let id = frame.log_id();
        let last = self.last.previous;
        if id.index != self.last.next_index() || last.is_some_and(|last| last.term > id.term) {
            return Ok(Err(format!("frame {id} does not follow {last:?}")));
        }
        if !frame.follows(self.last.chain) {
            return Ok(Err(format!("the chain value of frame {id} does not continue that of the frame before")));
        }
        Ok(Ok(frame))
    }

    /// Goes on in the next segment if it continues exactly what was walked over.
    fn enter_next_segment(&mut self) -> Result<bool, StorageError> {
        let number = self.segment + 1;
        if self.numbers.binary_search(&number).is_err() {
            return Ok(false);
        }
        let (file, header) = open_segment(&*self.disk, &segment_path(&self.directory, number))?;
        let expected = SegmentHeader {
            number,
            segment_bytes: self.geometry.segment_bytes,
            first_group: self.number + 1,
            epoch: self.epoch,
            start: self.last,
        };
        if header != Ok(expected) {
            return Ok(false);
        }
        self.segments.push_back(Segment { number, start: self.last, file: file.clone() });
        self.window = Window::new(file, self.geometry);
        self.segment = number;
        self.offset = SEGMENT_HEADER_BYTES;
        Ok(true)
    }

    /// Ends the walk here: an unfinished group, or damage if a later block attests what stands here.
    fn end(&mut self, what: &str, search_from: u64, unfinished_bytes: u64) -> Result<(), StorageError> {
        let position = self.position();
        let found = look_further(
            &*self.disk,
            &self.directory,
            self.geometry,
            &self.numbers,
            (self.segment, search_from),
            (self.epoch, self.number),
            position,
        )?;
        let damage = found.witness.map(|witness| Damage {
            position,
            file: segment_path(&self.directory, self.segment),
            offset: self.offset,
            index: self.last.next_index(),
            what: format!(
                "{what}, though group {} at {} attests {}",
                witness.number, witness.position, witness.attested
            ),
        });
        self.ending = Some(Ending { damage, unfinished_bytes, epoch: found.epoch, number: found.number });
        Ok(())
    }
}
