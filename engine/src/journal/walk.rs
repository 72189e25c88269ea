//! Walks a journal's segments from the first kept frame to the end, verifying everything. Used by the opening scan and
//! by the read-only inspection; it writes nothing. The rules it follows are argued in [`super`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::StorageError;
use crate::ids::{JournalPosition, LogIndex};
use crate::journal::format::{
    Geometry, LogStart, SEGMENT_HEADER_BYTES, UNIT_BYTES, is_segment_size, segment_number, segment_path, span,
};
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use crate::journal::look::{Found, look_further};
use crate::journal::segment::SegmentHeader;
use crate::journal::state::Segment;
use crate::journal::window::{HEADER_WINDOW_BYTES, WINDOW_BYTES, Window};

/// Damage: bytes that were durable once and are not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
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
    /// Of the last frame.
    chain_low: u32,
    attested: JournalPosition,
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
    /// What the block of the last frame, or a later cut, attests; the first segment's begin without one.
    pub attested: JournalPosition,
    window: Window,
    headers: Window,
    segment: u64,
    offset: u64,
    number: u64,
    epoch: u64,
    group: Option<OpenGroup>,
    /// Where the block of the group that was entered last stands, in the segment walked to.
    group_start: u64,
    ending: Option<Ending>,
}

/// Why a segment has no header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoHeader {
    /// What is wrong.
    pub what: String,
    /// Whether it was never written: the file has its length and its header is zeros. A file has both before it gets a
    /// segment's name, and a header is written within one sector: anything else is damage.
    pub is_fresh: bool,
}

/// An open segment and its header, or what is wrong with it.
type WithHeader = (Arc<dyn DiskFile>, Result<SegmentHeader, NoHeader>);

/// Opens a segment, of `expected` bytes if that is known.
pub(super) fn open_segment(disk: &dyn Disk, path: &Path, expected: Option<u64>) -> Result<WithHeader, StorageError> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    let got = file.read_at(&mut bytes, 0)?;
    let length = file.len()?;
    let header = SegmentHeader::decode(&bytes[..got]);
    let wanted = expected.or(header.as_ref().ok().map(|header| header.segment_bytes));
    let damaged = |what| Err(NoHeader { what, is_fresh: false });
    let header = match (header, wanted) {
        (Ok(header), _) if !is_segment_size(header.segment_bytes) => {
            damaged(format!("segments of {} bytes", header.segment_bytes))
        }
        (_, Some(wanted)) if length != wanted => damaged(format!("the segment has {length} of {wanted} bytes")),
        (Ok(header), _) => Ok(header),
        (Err(what), _) => Err(NoHeader { what: what.into(), is_fresh: bytes[..got].iter().all(|byte| *byte == 0) }),
    };
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
        let (file, header) = open_segment(&*disk, &path, None)?;
        let header = header.map_err(|bad| StorageError::corrupted(&path, 0, bad.what))?;
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
            window: Window::new(file.clone(), geometry, WINDOW_BYTES),
            headers: Window::new(file, geometry, HEADER_WINDOW_BYTES),
            segment: first,
            offset: SEGMENT_HEADER_BYTES,
            number: header.first_group.saturating_sub(1),
            epoch: header.epoch,
            group: None,
            group_start: SEGMENT_HEADER_BYTES,
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
                    let cut = self.block_here()?.filter(|block| self.is_next_cut(block, self.last));
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

    /// The place that the walk has come to as one that is damaged, for this reason.
    pub fn damage_here(&self, what: String) -> Damage {
        let file = segment_path(&self.directory, self.segment);
        Damage { position: self.position(), file, offset: self.offset, index: self.last.next_index(), what }
    }

    /// Where to look for frames behind the damage at which the walk has ended: segment and offset, the epoch, and the
    /// number of the group before.
    pub fn behind_damage(&self) -> ((u64, u64), (u64, u64)) {
        let whole = self.group.is_none();
        let (offset, number) = if whole { (self.offset, self.number) } else { (self.group_start, self.number - 1) };
        ((self.segment, offset), (self.epoch, number))
    }

    /// Up to where everything was durable, as far as a block says it: the last one walked over, or an attest at the end.
    pub fn attested_at_end(&mut self) -> Result<JournalPosition, StorageError> {
        let block = self.block_here()?.filter(|block| block.kind == GroupKind::Attest && block.epoch == self.epoch);
        Ok(block.map_or(self.attested, |block| self.attested.max(block.attested)))
    }

    fn between_groups(&mut self) -> Result<(), StorageError> {
        let block = self.block_here()?;
        if let Some(block) = &block {
            if self.is_next_cut(block, self.last) {
                self.step_over_cut(block);
                return Ok(());
            }
            if self.is_next_group(block) {
                return self.enter_group(block);
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

    fn is_next_cut(&self, block: &GroupBlock, last: LogStart) -> bool {
        block.kind == GroupKind::Cut
            && block.epoch > self.epoch
            && block.number > self.number
            && block.is_near(self.epoch, self.number)
            && block.first_index == last.next_index()
            && block.chain_low == chain_low(last.chain)
    }

    fn is_next_group(&self, block: &GroupBlock) -> bool {
        let limit = self.geometry.position(self.segment, self.geometry.limit());
        block.kind == GroupKind::Append
            && block.epoch == self.epoch
            && block.number == self.number + 1
            && block.first_index == self.last.next_index()
            && block.frames > 0
            && block.end > block.position
            && block.end <= limit
    }

    /// Goes on behind a group's block, unless the headers there are not those of its frames and nothing attests them: then
    /// it was torn, and what of it is its own is not known.
    fn enter_group(&mut self, block: &GroupBlock) -> Result<(), StorageError> {
        let end_offset = self.offset + (block.end.0 - block.position.0);
        let (frames_left, chain_low, attested) = (block.frames, block.chain_low, block.attested);
        let group = OpenGroup { frames_left, end_offset, chain_low, attested };
        self.number = block.number;
        if let Some((bad_offset, what)) = self.bad_header(group)? {
            let bad = self.geometry.position(self.segment, bad_offset);
            if self.look_further(end_offset, bad)?.witness.is_none() {
                return self.end(&what, end_offset, end_offset - self.offset);
            }
        }
        self.group = Some(group);
        self.group_start = self.offset;
        self.offset += UNIT_BYTES;
        Ok(())
    }

    /// Walks over the headers of the group whose block stands here, up to its last frame or to a cut block. Returns the
    /// offset of the first that is not there, and why not.
    fn bad_header(&mut self, mut group: OpenGroup) -> Result<Option<(u64, String)>, StorageError> {
        // A single header is looked at with its frame.
        if group.frames_left == 1 {
            return Ok(None);
        }
        let (mut offset, mut last) = (self.offset + UNIT_BYTES, self.last);
        while group.frames_left > 0 {
            match next_header(&mut self.headers, offset, last, group)? {
                Ok(header) => {
                    offset += span(header.frame_bytes());
                    last = LogStart { previous: Some(header.log_id), chain: header.chain };
                    group.frames_left -= 1;
                }
                Err(what) => {
                    let bytes = self.headers.bytes(offset, GROUP_BLOCK_BYTES as u64)?;
                    let block = GroupBlock::decode(&bytes, self.geometry.position(self.segment, offset));
                    let cut = block.is_some_and(|block| self.is_next_cut(&block, last));
                    return Ok((!cut).then_some((offset, what)));
                }
            }
        }
        Ok(None)
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
        self.attested = group.attested;
        (frame, position)
    }

    /// The frame at the place walked to, or why there is none that follows the last.
    fn frame_here(&mut self, group: OpenGroup) -> Result<Result<Frame, String>, StorageError> {
        let header = match next_header(&mut self.window, self.offset, self.last, group)? {
            Ok(header) => header,
            Err(what) => return Ok(Err(what)),
        };
        let payload_at = self.offset + FRAME_HEADER_BYTES as u64;
        let payload = self.window.bytes(payload_at, header.payload_bytes() as u64)?;
        Ok(header.with_payload(payload).map_err(|error| error.to_string()))
    }

    /// Goes on in the next segment if it continues exactly what was walked over; ends the walk if that one is damaged.
    /// `false` if neither.
    fn enter_next_segment(&mut self) -> Result<bool, StorageError> {
        let number = self.segment + 1;
        if self.numbers.binary_search(&number).is_err() {
            return Ok(false);
        }
        let path = segment_path(&self.directory, number);
        let (file, header) = open_segment(&*self.disk, &path, Some(self.geometry.segment_bytes))?;
        if let Err(NoHeader { what, is_fresh: false }) = header {
            self.end_before_damaged_segment(path, what)?;
            return Ok(true);
        }
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
        self.window = Window::new(file.clone(), self.geometry, WINDOW_BYTES);
        self.headers = Window::new(file, self.geometry, HEADER_WINDOW_BYTES);
        self.segment = number;
        self.offset = SEGMENT_HEADER_BYTES;
        Ok(true)
    }

    /// Ends the walk here: an unfinished group, or damage if a later block attests what stands here.
    fn end(&mut self, what: &str, search_from: u64, unfinished_bytes: u64) -> Result<(), StorageError> {
        let position = self.position();
        let found = self.look_further(search_from, position)?;
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

    /// Ends the walk at the end of a segment, since the next one is damaged: it had its length and its header once.
    fn end_before_damaged_segment(&mut self, file: PathBuf, what: String) -> Result<(), StorageError> {
        let position = self.position();
        let found = self.look_further(self.offset, position)?;
        let damage = Some(Damage { position, file, offset: 0, index: self.last.next_index(), what });
        self.ending = Some(Ending { damage, unfinished_bytes: 0, epoch: found.epoch, number: found.number });
        Ok(())
    }

    fn look_further(&self, search_from: u64, position: JournalPosition) -> Result<Found, StorageError> {
        let (from, current) = ((self.segment, search_from), (self.epoch, self.number));
        look_further(&*self.disk, &self.directory, self.geometry, &self.numbers, from, current, position)
    }
}

/// The header at `offset`, or why it is not that of the frame of `group` that follows `last`.
fn next_header(
    window: &mut Window,
    offset: u64,
    last: LogStart,
    group: OpenGroup,
) -> Result<Result<FrameHeader, String>, StorageError> {
    let header = match FrameHeader::parse(&window.bytes(offset, FRAME_HEADER_BYTES as u64)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let (id, end, is_last) = (header.log_id, offset + span(header.frame_bytes()), group.frames_left == 1);
    if !(if is_last { end == group.end_offset } else { end < group.end_offset }) {
        return Ok(Err(format!("the lengths of frame {id} and of its group disagree")));
    }
    if id.index != last.next_index() || last.previous.is_some_and(|last| last.term > id.term) {
        return Ok(Err(format!("frame {id} does not follow {:?}", last.previous)));
    }
    if !header.follows(last.chain) {
        return Ok(Err(format!("the chain value of frame {id} does not continue that of the frame before")));
    }
    if is_last && chain_low(header.chain) != group.chain_low {
        return Ok(Err(format!("frame {id} is not the one that its group was written with")));
    }
    Ok(Ok(header))
}
