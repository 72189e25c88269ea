//! Segments that are not what was written: bytes changed, moved and missing, and blocks, headers and groups of frames that
//! were forged, with sums and chain values that fit.
//!
//! Whatever stands there: walking it ends, the walk that only looks and the opening one agree, and a journal that opens
//! takes a frame and has it after the next opening. If nothing was forged, each frame that is read is one that was
//! written, and a database that opens is in a state that it was in.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use calamus_engine::Database;
use calamus_engine::env::{CrashChoice, Disk, SimDisk};
use calamus_engine::error::StorageError;
use calamus_engine::ids::{JournalPosition, LogId, LogIndex, Term};
use calamus_engine::journal::frame::{Frame, FrameHeader, FrameKind, Payload};
use calamus_engine::journal::group::{GROUP_BLOCK_BYTES, GroupBlock, GroupKind, chain_low};
use calamus_engine::journal::segment::SegmentHeader;
use calamus_engine::journal::{CHAIN_START, Journal, LogStart, frames};
use calamus_engine::offline::check_directory;

use crate::sound::{DIRECTORY, SEGMENT_BYTES, Sound, door, journal_path, options, read_file, write_file};

const UNIT_BYTES: usize = GROUP_BLOCK_BYTES;
/// The longest payload of a forged frame, in bytes.
const MAX_FORGED_BYTES: usize = 20_000;

/// An input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    edits: Vec<Edit>,
}

/// A change to a segment; numbers are taken modulo what there is.
#[derive(Arbitrary, Debug)]
enum Edit {
    Bytes {
        segment: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    /// Bits of what stands at a block or a frame.
    Near {
        place: u8,
        at: u8,
        flip: u8,
    },
    Move {
        from: (u8, u16),
        to: (u8, u16),
        units: u8,
    },
    Zero {
        at: (u8, u16),
        units: u8,
    },
    Length {
        segment: u8,
        bytes: u32,
    },
    Remove {
        segment: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    Header(ForgedHeader),
    Block(ForgedBlock),
    Group {
        block: ForgedBlock,
        frames: Vec<ForgedFrame>,
    },
}

impl Edit {
    fn is_forged(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Block(_) | Self::Group { .. })
    }
}

/// A segment's header, with each number moved by this much.
#[derive(Arbitrary, Debug)]
struct ForgedHeader {
    segment: u8,
    number: i8,
    segment_bytes: i64,
    first_group: i8,
    epoch: i8,
    start: Option<(i8, i64, u8)>,
}

/// A block as one that was written, or stood elsewhere, with each number moved by this much.
#[derive(Arbitrary, Debug)]
struct ForgedBlock {
    like: u8,
    at: Option<(u8, u16)>,
    kind: Option<u8>,
    number: i64,
    epoch: i64,
    attested: i32,
    units: i16,
    first_index: i8,
    frames: i8,
    chain: Option<u32>,
}

/// A frame with a chain value that fits.
#[derive(Arbitrary, Debug)]
struct ForgedFrame {
    kind: u8,
    term: i8,
    index: i8,
    commit: Option<u64>,
    /// The payload of a frame that was written, with this byte changed; or one of these many bytes.
    like: Option<(u8, u16, u8)>,
    bytes: u16,
}

/// The sound journal.
struct Segments {
    names: Vec<PathBuf>,
    bytes: Vec<Vec<u8>>,
    frames: Vec<Frame>,
    /// Where blocks and frames stand: segment and offset.
    blocks: Vec<(usize, usize)>,
    frame_places: Vec<(usize, usize)>,
}

impl Segments {
    fn sound() -> &'static Self {
        static SEGMENTS: OnceLock<Segments> = OnceLock::new();
        SEGMENTS.get_or_init(|| {
            let disk = Sound::get().disk();
            let names = disk.list_dir(&journal_path()).expect("the power is on");
            let names: Vec<PathBuf> =
                names.iter().filter(|name| name.ends_with(".seg")).map(|name| journal_path().join(name)).collect();
            let bytes: Vec<Vec<u8>> = names.iter().map(|name| read_file(&disk, name)).collect();
            let (mut blocks, mut frame_places) = (Vec::new(), Vec::new());
            for (segment, content) in bytes.iter().enumerate() {
                for (unit, part) in content.chunks(UNIT_BYTES).enumerate() {
                    let offset = unit * UNIT_BYTES;
                    if GroupBlock::decode(part, position(segment, offset)).is_some() {
                        blocks.push((segment, offset));
                    }
                    if FrameHeader::parse(&content[offset..]).is_ok() {
                        frame_places.push((segment, offset));
                    }
                }
            }
            let frames =
                frames(door(&disk), &journal_path()).expect("it is sound").map(|found| found.expect("sound").0);
            Self { frames: frames.collect(), names, bytes, blocks, frame_places }
        })
    }
}

/// Segments count from 1.
fn position(segment: usize, offset: usize) -> JournalPosition {
    JournalPosition((segment as u64 + 1) * SEGMENT_BYTES + offset as u64)
}

/// Segments that are being changed; one that is removed is `None`.
struct Changed {
    sound: &'static Segments,
    bytes: Vec<Option<Vec<u8>>>,
}

impl Changed {
    fn put(&mut self, segment: usize, at: usize, bytes: &[u8]) {
        let Some(content) = &mut self.bytes[segment] else { return };
        let room = content.len().saturating_sub(at).min(bytes.len());
        if room > 0 {
            content[at..at + room].copy_from_slice(&bytes[..room]);
        }
    }

    fn place(&self, (segment, unit): (u8, u16)) -> (usize, usize) {
        (
            usize::from(segment) % self.bytes.len(),
            usize::from(unit) % (SEGMENT_BYTES as usize / UNIT_BYTES) * UNIT_BYTES,
        )
    }

    fn apply(&mut self, edit: &Edit) {
        let segments = self.bytes.len();
        match edit {
            Edit::Bytes { segment, at, bytes } => {
                self.put(usize::from(*segment) % segments, *at as usize % SEGMENT_BYTES as usize, bytes)
            }
            Edit::Near { place, at, flip } => {
                let places = self.sound.blocks.iter().chain(&self.sound.frame_places);
                let all = self.sound.blocks.len() + self.sound.frame_places.len();
                let (segment, offset) = *places.cycle().nth(usize::from(*place) % all).expect("there are some");
                let at = offset + usize::from(*at);
                if let Some(byte) = self.bytes[segment].as_mut().and_then(|content| content.get_mut(at)) {
                    *byte ^= flip;
                }
            }
            Edit::Move { from, to, units } => {
                let ((from, offset), to) = (self.place(*from), self.place(*to));
                let length = usize::from(*units) * UNIT_BYTES;
                let content = self.bytes[from].as_deref().and_then(|content| content.get(offset..)).unwrap_or_default();
                let moved = content[..length.min(content.len())].to_vec();
                self.put(to.0, to.1, &moved);
            }
            Edit::Zero { at, units } => {
                let (segment, offset) = self.place(*at);
                self.put(segment, offset, &vec![0; usize::from(*units) * UNIT_BYTES]);
            }
            Edit::Length { segment, bytes } => {
                if let Some(content) = &mut self.bytes[usize::from(*segment) % segments] {
                    content.resize(*bytes as usize % (2 * SEGMENT_BYTES as usize), 0);
                }
            }
            Edit::Remove { segment } => self.bytes[usize::from(*segment) % segments] = None,
            Edit::Swap { one, other } => self.bytes.swap(usize::from(*one) % segments, usize::from(*other) % segments),
            Edit::Header(forged) => self.forge_header(forged),
            Edit::Block(forged) => {
                let (segment, offset, block) = self.forged_block(forged);
                self.put(segment, offset, &block.encode());
            }
            Edit::Group { block, frames } => self.forge_group(block, frames),
        }
    }

    fn forge_header(&mut self, forged: &ForgedHeader) {
        let segment = usize::from(forged.segment) % self.bytes.len();
        let Ok(mut header) = SegmentHeader::decode(&self.sound.bytes[segment]) else { return };
        header.number = header.number.wrapping_add_signed(forged.number.into());
        header.segment_bytes = header.segment_bytes.wrapping_add_signed(forged.segment_bytes);
        header.first_group = header.first_group.wrapping_add_signed(forged.first_group.into());
        header.epoch = header.epoch.wrapping_add_signed(forged.epoch.into());
        if let Some((term, index, frame)) = forged.start {
            let frame = &self.sound.frames[usize::from(frame) % self.sound.frames.len()];
            header.start = LogStart { previous: Some(moved(frame.log_id(), term, index)), chain: frame.chain() };
        }
        self.put(segment, 0, &header.encode()[..]);
    }

    fn forged_block(&self, forged: &ForgedBlock) -> (usize, usize, GroupBlock) {
        let like = self.sound.blocks[usize::from(forged.like) % self.sound.blocks.len()];
        let (segment, offset) = forged.at.map_or(like, |at| self.place(at));
        let old = GroupBlock::decode(&self.sound.bytes[like.0][like.1..], position(like.0, like.1)).expect("it is one");
        let units = (old.end.0 - old.position.0) / UNIT_BYTES as u64;
        let units = units.saturating_add_signed(forged.units.into());
        let here = position(segment, offset);
        let block = GroupBlock {
            kind: match forged.kind.map(|kind| kind % 3) {
                Some(0) => GroupKind::Append,
                Some(1) => GroupKind::Cut,
                Some(_) => GroupKind::Attest,
                None => old.kind,
            },
            number: old.number.wrapping_add_signed(forged.number),
            epoch: old.epoch.wrapping_add_signed(forged.epoch),
            attested: JournalPosition(old.attested.0.wrapping_add_signed(forged.attested.into())),
            position: here,
            end: JournalPosition(here.0 + units * UNIT_BYTES as u64),
            first_index: LogIndex(old.first_index.0.wrapping_add_signed(forged.first_index.into())),
            frames: old.frames.wrapping_add_signed(forged.frames.into()),
            chain_low: forged.chain.unwrap_or(old.chain_low),
        };
        (segment, offset, block)
    }

    /// A group that fits in every way but for what was asked for.
    fn forge_group(&mut self, forged: &ForgedBlock, frames: &[ForgedFrame]) {
        let (segment, offset, mut block) = self.forged_block(forged);
        let known = &self.sound.frames;
        let before = block.first_index.0.checked_sub(1).and_then(|index| known.get(usize::try_from(index).ok()?));
        let mut chain = before.map_or(CHAIN_START, Frame::chain);
        let mut last = before.map(Frame::log_id);
        let mut bytes = Vec::new();
        for forged in frames {
            let payload = match forged.like {
                Some((frame, at, flip)) => {
                    let mut payload = known[usize::from(frame) % known.len()].payload().bytes().to_vec();
                    let at = usize::from(at) % payload.len().max(1);
                    payload.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip);
                    payload
                }
                None => vec![7; usize::from(forged.bytes) % MAX_FORGED_BYTES],
            };
            let kind = [FrameKind::Record, FrameKind::Membership, FrameKind::Blank][usize::from(forged.kind) % 3];
            let next = LogId { term: last.map_or(Term(1), |last| last.term), index: last.map_or(LogIndex(0), after) };
            let log_id = moved(next, forged.term, forged.index.into());
            let commit = forged.commit.map(|commit| LogIndex(commit >> 1));
            let frame = Frame::encode(kind, log_id, commit, chain, Payload::new(Bytes::from(payload)));
            (chain, last) = (frame.chain(), Some(log_id));
            bytes.extend_from_slice(frame.header());
            bytes.extend_from_slice(frame.payload().bytes());
            bytes.resize(bytes.len().next_multiple_of(UNIT_BYTES), 0);
        }
        block.kind = GroupKind::Append;
        block.frames = (frames.len() as u32).wrapping_add_signed(forged.frames.into());
        let units = (1 + (bytes.len() / UNIT_BYTES) as u64).saturating_add_signed(forged.units.into());
        block.end = JournalPosition(block.position.0 + units * UNIT_BYTES as u64);
        block.chain_low = forged.chain.unwrap_or(chain_low(chain));
        self.put(segment, offset, &block.encode());
        self.put(segment, offset + UNIT_BYTES, &bytes);
    }
}

fn after(log_id: LogId) -> LogIndex {
    LogIndex(log_id.index.0.wrapping_add(1))
}

fn moved(log_id: LogId, term: i8, index: i64) -> LogId {
    LogId {
        term: Term(log_id.term.0.wrapping_add_signed(term.into())),
        index: LogIndex(log_id.index.0.wrapping_add_signed(index)),
    }
}

/// Runs an input.
pub fn run(input: &Input) {
    let sound = Segments::sound();
    let mut changed = Changed { sound, bytes: sound.bytes.iter().cloned().map(Some).collect() };
    input.edits.iter().for_each(|edit| changed.apply(edit));
    let disk = Sound::get().disk();
    for (name, (before, after)) in sound.names.iter().zip(sound.bytes.iter().zip(&changed.bytes)) {
        match after {
            Some(after) if after == before => {}
            Some(after) => write_file(&disk, name, after),
            None => disk.remove_file(name).expect("it is there"),
        }
    }
    let forged = input.edits.iter().any(Edit::is_forged);
    open_journal(&disk.crash(CrashChoice::KeepAll), forged);
    open_database(&disk, forged);
}

/// All frames, and whether they end in damage; `None` if the first segment says nothing.
fn look(disk: &SimDisk) -> Option<(Vec<Frame>, bool)> {
    let mut found = Vec::new();
    for frame in frames(door(disk), &journal_path()).ok()? {
        match frame {
            Ok((frame, _)) => found.push(frame),
            Err(StorageError::Corrupted { .. }) => return Some((found, true)),
            Err(error) => panic!("not reported as damage: {error}"),
        }
    }
    Some((found, false))
}

fn read_all(journal: &Journal) -> Vec<Frame> {
    let mut next = journal.first_kept().next_index();
    let mut found: Vec<Frame> = Vec::new();
    loop {
        let more = journal.read(next, LogIndex(u64::MAX), 100_000).expect("it was verified");
        let Some(last) = more.last() else { return found };
        next = last.log_id().index.next();
        found.extend(more);
    }
}

fn open_journal(disk: &SimDisk, forged: bool) {
    let looked = look(disk);
    let opened = Journal::open(door(disk), &journal_path(), options().journal);
    let Some((found, damaged)) = looked else {
        assert!(opened.is_err(), "what could not be looked at was opened");
        return;
    };
    let Ok((journal, scan)) = opened else { return };
    assert_eq!((scan.frames, scan.damage.is_some()), (found.len() as u64, damaged), "two walks differ");
    assert!(read_all(&journal) == found, "two walks differ");
    if !forged {
        for frame in &found {
            let written = &Segments::sound().frames;
            assert!(written.contains(frame), "frame {} was never written", frame.log_id());
        }
    }
    if damaged {
        return;
    }
    let term = scan.last.previous.map_or(1, |last| last.term.0);
    let log_id = LogId::new(term, scan.last.next_index().0);
    let payload = Payload::new(Bytes::from_static(b"one more"));
    let frame = Frame::encode(FrameKind::Blank, log_id, None, scan.last.chain, payload);
    let appended = journal.append(vec![frame.clone()], Box::new(|done| assert!(done.is_ok(), "the disk is sound")));
    appended.expect("it was opened for this");
    drop(journal);
    let (journal, scan) = Journal::open(door(disk), &journal_path(), options().journal).expect("it opened before");
    assert_eq!((scan.damage, scan.last.previous), (None, Some(log_id)), "what was appended is there");
    assert!(read_all(&journal).last() == Some(&frame));
}

fn open_database(disk: &SimDisk, forged: bool) {
    let Ok(database) = Database::open_with(door(disk), Path::new(DIRECTORY), options()) else { return };
    let applied = database.engine().applied();
    if !forged {
        let index = applied.log_id.expect("the checkpoint is behind an entry").index;
        let known = Sound::get().digests.get(usize::try_from(index.0).expect("few"));
        assert_eq!(known, Some(&applied.digest), "a state that never was");
    }
    let written = database.write(|batch| batch.put("small", b"key", b"value").map(drop));
    let checkpoint = database.engine().checkpoint();
    drop(database);
    if forged && (written.is_err() || checkpoint.is_err()) {
        return;
    }
    assert!(written.is_ok() && checkpoint.is_ok(), "{written:?}, {checkpoint:?}");
    let report = check_directory(&door(disk), Path::new(DIRECTORY), &mut |_| ()).expect("it was open a moment ago");
    assert!(report.is_clean(), "{report:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_journal_is_sound() {
        let sound = Segments::sound();
        assert!(sound.names.len() >= 3 && sound.blocks.len() > sound.names.len(), "several segments, with groups");
        assert_eq!(sound.frames.len(), Sound::get().digests.len());
        run(&Input { edits: Vec::new() });
    }

    /// Forged groups get as far as they should: through the walk.
    #[test]
    fn a_forged_group_is_read() {
        let sound = Segments::sound();
        let mut changed = Changed { sound, bytes: sound.bytes.iter().cloned().map(Some).collect() };
        let last_append = sound.blocks.iter().rposition(|(segment, offset)| {
            let block = GroupBlock::decode(&sound.bytes[*segment][*offset..], position(*segment, *offset)).unwrap();
            block.kind == GroupKind::Append
        });
        let block = ForgedBlock {
            like: last_append.unwrap() as u8,
            at: None,
            kind: None,
            number: 0,
            epoch: 0,
            attested: 0,
            units: 0,
            first_index: 0,
            frames: 0,
            chain: None,
        };
        let frame = ForgedFrame { kind: 1, term: 0, index: 0, commit: Some(8), like: None, bytes: 300 };
        let (segment, offset) = sound.blocks[last_append.unwrap()];
        changed.bytes[segment].as_mut().unwrap()[offset..].fill(0);
        changed.forge_group(&block, &[frame]);
        let disk = Sound::get().disk();
        for (name, bytes) in sound.names.iter().zip(&changed.bytes) {
            write_file(&disk, name, bytes.as_ref().unwrap());
        }
        let (found, damaged) = look(&disk).unwrap();
        assert!(!damaged && found.last().unwrap().kind() == FrameKind::Membership);
        open_journal(&disk.crash(CrashChoice::KeepAll), true);
        open_database(&disk, true);
    }
}
