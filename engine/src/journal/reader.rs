//! Reads frames by index: the newest from memory, older ones from disk, verified against the index.
//!
//! The lock is not held while the disk is read. Meanwhile the segment may be purged or cut and its file recycled; the
//! bytes then do not match, and the look-up is made again. Bytes that do not match although the frame still stands
//! there are damage.

use std::sync::Arc;

use bytes::Bytes;

use crate::env::{BLOCK_BYTES, DiskFile};
use crate::error::StorageError;
use crate::ids::{LogId, LogIndex};
use crate::journal::format::span;
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::index::Entry;
use crate::journal::run::Shared;
use crate::journal::state::State;

/// At most this much is read from disk at once, in bytes, unless one frame is larger.
const RUN_BYTES: u64 = 4 << 20;
/// A run from this length on is read past the page cache, in calls of so many bytes. Segments are written past it, so they are
/// not there; and whoever reads megabytes of them goes on to the next ones, once: a backup, a follower far behind. Through
/// the cache the kernel would read up to 8 MiB ahead at once, and the sync of a commit would wait until the disk has done
/// that.
const CALL_BYTES: usize = 256 << 10;

/// Frames that stand one behind the other in one segment.
struct Run {
    file: Arc<dyn DiskFile>,
    segment: u64,
    offset: u64,
    frames: Vec<(LogId, Entry)>,
}

enum Next {
    Frames(Vec<Frame>),
    Run(Run),
    End,
}

/// Frames from `from` on, below `until`, up to `max_bytes` (but at least one).
pub(super) fn read(
    shared: &Shared,
    from: LogIndex,
    until: LogIndex,
    max_bytes: usize,
) -> Result<Vec<Frame>, StorageError> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut left = max_bytes;
    let mut next = from;
    while next < until && (frames.is_empty() || left > 0) {
        let looked_up = look_up(&shared.state.lock(), shared, next, until, left, frames.is_empty())?;
        let found = match looked_up {
            Next::End => break,
            Next::Frames(found) => found,
            Next::Run(run) => match read_run(&run)? {
                Ok(found) => found,
                Err((id, offset, what)) => {
                    let wanted = run.frames.iter().find(|(candidate, _)| *candidate == id).map(|(_, entry)| *entry);
                    let state = shared.state.lock();
                    if state.index.log_id(id.index) == Some(id) && state.index.get(id.index) == wanted {
                        let file = run.file.path().to_path_buf();
                        return Err(StorageError::DamagedFrame { file, offset, log_id: id, what });
                    }
                    if !frames.is_empty() {
                        break;
                    }
                    continue;
                }
            },
        };
        let Some(last) = found.last() else { break };
        next = last.log_id().index.next();
        left = left.saturating_sub(found.iter().map(Frame::frame_bytes).sum());
        // A cut may have come in between: what follows must still continue what was read before it.
        let continues = match (frames.last(), found.first()) {
            (Some(before), Some(after)) => after.follows(before.chain()),
            _ => true,
        };
        if !continues {
            break;
        }
        frames.extend(found);
    }
    Ok(frames)
}

fn look_up(
    state: &State,
    shared: &Shared,
    from: LogIndex,
    until: LogIndex,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<Next, StorageError> {
    let until = until.min(state.index.next_index());
    if from >= until {
        return Ok(Next::End);
    }
    if from < state.index.first_index() {
        let what = format!("frame {from} is purged, the first kept one is {}", state.index.first_index());
        let error = std::io::Error::new(std::io::ErrorKind::NotFound, what);
        return Err(StorageError::io(&shared.directory, 0, "read", &error));
    }
    let mut taken = 0;
    let mut fits = |bytes: usize| {
        let first = at_least_one && taken == 0;
        taken += bytes;
        first || taken <= max_bytes
    };
    if state.cache.first_index().is_some_and(|first| first <= from) {
        let cached = (from.0..until.0).map_while(|index| state.cache.get(LogIndex(index)));
        let frames: Vec<Frame> = cached.take_while(|frame| fits(frame.frame_bytes())).cloned().collect();
        return Ok(if frames.is_empty() { Next::End } else { Next::Frames(frames) });
    }
    let until = state.cache.first_index().map_or(until, |first| until.min(first));
    let mut run: Option<Run> = None;
    let mut end = 0;
    for index in (from.0..until.0).map(LogIndex) {
        let entry = state.index.get(index).expect("below the end of the index");
        let id = state.index.log_id(index).expect("below the end of the index");
        let (segment, offset) = state.geometry.place(entry.position);
        let run = match &mut run {
            Some(run) => {
                if segment != run.segment || offset + span(entry.bytes as usize) - run.offset > RUN_BYTES {
                    break;
                }
                run
            }
            none => {
                let kept = state.segments.iter().find(|kept| kept.number == segment);
                let file = kept.expect("a written frame stands in a kept segment").file.clone();
                none.insert(Run { file, segment, offset, frames: Vec::new() })
            }
        };
        if !fits(entry.bytes as usize) {
            break;
        }
        assert!(offset >= end, "frames stand in log order");
        end = offset + u64::from(entry.bytes);
        run.frames.push((id, entry));
    }
    Ok(run.filter(|run| !run.frames.is_empty()).map_or(Next::End, Next::Run))
}

type Mismatch = (LogId, u64, String);

/// Reads a run and verifies it. The inner error names the first frame that is not what the index says.
fn read_run(run: &Run) -> Result<Result<Vec<Frame>, Mismatch>, StorageError> {
    let first = run.frames.first().expect("a run has frames").1.position.0;
    let (_, last) = run.frames.last().expect("a run has frames");
    let length = last.position.0 - first + u64::from(last.bytes);
    let buffer = read_bytes(&*run.file, run.offset, usize::try_from(length).expect("a run fits memory"))?;
    let mut frames = Vec::with_capacity(run.frames.len());
    for (id, entry) in &run.frames {
        let at = entry.position.0 - first;
        let from = usize::try_from(at).expect("within the run").min(buffer.len());
        let bytes = buffer.slice(from..buffer.len().min(from + entry.bytes as usize));
        match decode(&bytes, *id, entry) {
            Ok(frame) => frames.push(frame),
            Err(what) => return Ok(Err((*id, run.offset + at, what))),
        }
    }
    Ok(Ok(frames))
}

/// `length` bytes from `offset`; fewer if the file ends.
fn read_bytes(file: &dyn DiskFile, offset: u64, length: usize) -> Result<Bytes, StorageError> {
    if length < CALL_BYTES {
        let mut buffer = vec![0; length];
        let got = file.read_at(&mut buffer, offset)?;
        buffer.truncate(got);
        return Ok(buffer.into());
    }
    let start = offset - offset % BLOCK_BYTES;
    let before = usize::try_from(offset - start).expect("less than a block");
    let mut buffer = vec![0; before + length];
    let mut read = 0;
    for call in buffer.chunks_mut(CALL_BYTES) {
        let got = file.read_past_cache(call, start + read as u64)?;
        read += got;
        if got < call.len() {
            break;
        }
    }
    buffer.truncate(read);
    Ok(Bytes::from(buffer).slice(before.min(read)..))
}

fn decode(bytes: &Bytes, id: LogId, entry: &Entry) -> Result<Frame, String> {
    let header = FrameHeader::parse(bytes).map_err(|error| error.to_string())?;
    if header.log_id != id || header.chain != entry.chain || header.frame_bytes() != bytes.len() {
        return Err(format!("frame {} stands where frame {id} should", header.log_id));
    }
    let payload = bytes.slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes());
    header.with_payload(payload).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use super::*;
    use crate::env::{Disk, OpenMode, RealDisk, SimDisk};

    #[test]
    fn long_runs_are_read_as_short_ones_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let real: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let simulated: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let expected: Vec<u8> = (0..3 * CALL_BYTES + 1_234).map(|at| (at % 251) as u8).collect();
        for (disk, path) in [(real, folder.path().join("file")), (simulated, Path::new("/file").to_path_buf())] {
            let file = disk.open(&path, OpenMode::CreateNew).expect("made");
            file.write_at(&[IoSlice::new(&expected)], 0).expect("written");
            for offset in [0, 8, 4_095, 4_096, 4_104, CALL_BYTES - 8, CALL_BYTES, 2 * CALL_BYTES + 16] {
                for length in [8, CALL_BYTES - 1, CALL_BYTES, CALL_BYTES + 8, 2 * CALL_BYTES, 4 * CALL_BYTES] {
                    let found = read_bytes(&*file, offset as u64, length).expect("readable");
                    let end = expected.len().min(offset + length);
                    assert!(found == expected[offset..end], "{length} bytes from {offset}");
                }
            }
            let behind = read_bytes(&*file, 1 << 30, CALL_BYTES).expect("readable");
            assert!(behind.is_empty(), "behind the end");
        }
    }
}
