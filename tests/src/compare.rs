//! Directories of nodes that do not run, against each other.
//!
//! Two ways: after an orderly end at one applied index the data files must be equal byte for byte; directories as a kill
//! left them are brought to a common entry of the log by replay, in memory, and compared by the digest of all pages,
//! computed anew from their bytes. In both cases a frame that two nodes hold must be the same frame.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};
use calamus_engine::ids::{Digest, LogId, LogIndex, PageNumber};
use calamus_engine::journal::{FrameInfo, inspect};
use calamus_engine::offline::{DirectoryReport, OfflineState, check_directory};
use calamus_engine::page::PAGE_BYTES;

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

/// What a whole check of a directory found.
///
/// # Panics
/// When it cannot be checked at all.
#[must_use]
pub fn report(directory: &Path) -> DirectoryReport {
    check_directory(&disk(), directory, &mut |_| {})
        .unwrap_or_else(|error| panic!("{} cannot be checked: {error}", directory.display()))
}

/// Where the generation in use has its files.
#[must_use]
pub fn home(directory: &Path, report: &DirectoryReport) -> PathBuf {
    directory.join(format!("g{}", report.generation.expect("a node has one").0))
}

/// The frames that a journal holds, by index.
///
/// # Panics
/// When it is damaged.
#[must_use]
pub fn frames(journal: &Path) -> BTreeMap<LogIndex, FrameInfo> {
    let frames = inspect(disk(), journal).unwrap_or_else(|error| panic!("{}: {error}", journal.display()));
    frames
        .map(|frame| frame.unwrap_or_else(|error| panic!("{}: {error}", journal.display())))
        .map(|frame| (frame.log_id.index, frame))
        .collect()
}

/// After an orderly end at one applied index: each directory is clean, all data files are equal, and so are all frames
/// that two of them hold. Returns how many frames were compared.
///
/// # Panics
/// With the first difference.
pub fn assert_equal_after_stop(directories: &[PathBuf]) -> usize {
    let reports: Vec<DirectoryReport> = directories.iter().map(|directory| report(directory)).collect();
    for (directory, report) in directories.iter().zip(&reports) {
        assert!(report.is_clean(), "{} is not clean: {report:#?}", directory.display());
        let meta = report.meta.as_ref().expect("it is clean");
        let (checkpoint, target) = (&meta.checkpoint, &meta.target);
        assert_eq!(checkpoint.log_id, target.log_id, "{} ended in a checkpoint", directory.display());
    }
    let homes: Vec<PathBuf> = directories.iter().zip(&reports).map(|(at, report)| home(at, report)).collect();
    let files: Vec<PathBuf> = homes.iter().map(|home| home.join("data")).collect();
    for file in &files[1..] {
        assert_same_bytes(&files[0], file);
    }
    let journals: Vec<_> = homes.iter().map(|home| frames(&home.join("journal"))).collect();
    let compared = assert_same_frames(directories, &journals, None);
    assert!(directories.len() < 2 || compared > 0, "no two nodes hold a common frame: nothing was compared");
    compared
}

/// Every frame up to `upto` that two journals hold is the same. Returns how many pairs were compared.
fn assert_same_frames(
    directories: &[PathBuf],
    journals: &[BTreeMap<LogIndex, FrameInfo>],
    upto: Option<LogIndex>,
) -> usize {
    let mut compared = 0;
    for (place, first) in journals.iter().enumerate() {
        for (other, second) in journals.iter().enumerate().skip(place + 1) {
            for (index, frame) in first.iter().filter(|(index, _)| upto.is_none_or(|upto| **index <= upto)) {
                let Some(found) = second.get(index) else { continue };
                assert!(
                    found.hash == frame.hash && found.log_id == frame.log_id && found.bytes == frame.bytes,
                    "frame {index} differs: {frame:?} in {}, {found:?} in {}",
                    directories[place].display(),
                    directories[other].display()
                );
                compared += 1;
            }
        }
    }
    compared
}

/// # Panics
/// With the first page that differs.
fn assert_same_bytes(one: &Path, other: &Path) {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (first, second) = (open(one), open(other));
    let length = |file: &File| file.metadata().expect("an open file has metadata").len();
    let (mut left, mut right) = (BufReader::with_capacity(1 << 20, &first), BufReader::with_capacity(1 << 20, &second));
    let pages = length(&first).min(length(&second)) / PAGE_BYTES as u64;
    let (mut a, mut b) = (vec![0; PAGE_BYTES], vec![0; PAGE_BYTES]);
    for number in 0..pages {
        left.read_exact(&mut a).and_then(|()| right.read_exact(&mut b)).expect("as long as it was");
        if let Some(offset) = (0..PAGE_BYTES).find(|offset| a[*offset] != b[*offset]) {
            panic!("{} and {} differ in page {number} from byte {offset} on", one.display(), other.display());
        }
    }
    assert_eq!(length(&first), length(&second), "{} and {} differ in length", one.display(), other.display());
}

/// What a killed node left, before anybody started on it again.
struct Left {
    target: Option<LogIndex>,
    frames: BTreeMap<LogIndex, FrameInfo>,
}

impl Left {
    fn last(&self) -> Option<LogIndex> {
        self.frames.keys().next_back().copied().max(self.target)
    }
}

/// Directories as a kill left them: pairwise, the frames that both hold up to the last one on which both agree are the
/// same, and replayed up to there their states have the same digest, computed from all pages. Returns how many pairs
/// were replayed: a node that lags behind another one's checkpoint has no common entry with it.
///
/// # Panics
/// With the first difference.
pub fn assert_equal_as_left(directories: &[PathBuf]) -> usize {
    let left: Vec<Left> = directories
        .iter()
        .map(|directory| {
            let report = report(directory);
            let target = report.meta.as_ref().expect("node.meta is sound").target.log_id.map(|log_id| log_id.index);
            Left { target, frames: frames(&home(directory, &report).join("journal")) }
        })
        .collect();
    let mut replayed = 0;
    for first in 0..left.len() {
        for second in first + 1..left.len() {
            let Some(common) = common_index(&left[first], &left[second]) else { continue };
            let pair = [directories[first].clone(), directories[second].clone()];
            let journals = [left[first].frames.clone(), left[second].frames.clone()];
            assert_same_frames(&pair, &journals, Some(common));
            let (one, other) = (digest_at(&pair[0], common), digest_at(&pair[1], common));
            assert_eq!(one, other, "{} and {} differ at entry {common}", pair[0].display(), pair[1].display());
            replayed += 1;
        }
    }
    replayed
}

/// The last entry on which both agree and which both can be replayed to. Beyond it either may hold what never became
/// committed.
fn common_index(first: &Left, second: &Left) -> Option<LogIndex> {
    let end = first.last()?.min(second.last()?);
    let agree = |index: &LogIndex| match (first.frames.get(index), second.frames.get(index)) {
        (Some(one), Some(other)) => one.hash == other.hash,
        _ => false,
    };
    let held = first.frames.keys().filter(|index| **index <= end).rev();
    let common = held.copied().find(|index| agree(index))?;
    let reachable = |left: &Left| left.target.is_none_or(|target| target <= common);
    (reachable(first) && reachable(second)).then_some(common)
}

fn digest_at(directory: &Path, index: LogIndex) -> Digest {
    let state = OfflineState::open(&disk(), directory, Some(index))
        .unwrap_or_else(|error| panic!("{} cannot be replayed to {index}: {error}", directory.display()));
    assert_eq!(state.applied().log_id.map(|log_id| log_id.index), Some(index), "{}", directory.display());
    let digest = state.compute_digest().unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    assert_eq!(digest, state.applied().digest, "{}: the pages are not what the record says", directory.display());
    digest
}

/// Flips a bit in a byte of the data file, in the middle of a page that is in use. Returns the page.
///
/// # Panics
/// When the file cannot be read or written.
pub fn damage_a_page(directory: &Path) -> PageNumber {
    use std::os::unix::fs::FileExt;
    let path = home(directory, &report(directory)).join("data");
    let file = File::options().read(true).write(true).open(&path).expect("the data file is there");
    let pages = file.metadata().expect("an open file has metadata").len() / PAGE_BYTES as u64;
    let mut page = [0; PAGE_BYTES];
    for number in (2..pages).rev() {
        let offset = number * PAGE_BYTES as u64;
        file.read_exact_at(&mut page, offset).expect("as long as it was");
        if page.iter().any(|byte| *byte != 0) {
            let middle = PAGE_BYTES / 2;
            file.write_all_at(&[page[middle] ^ 1], offset + middle as u64).expect("writable");
            return PageNumber(u32::try_from(number).expect("pages are counted in 32 bits"));
        }
    }
    panic!("{} has no page but the first two", path.display());
}

/// Flips a bit in the payload of a frame in the middle of a node's journal; the node may run, if nobody writes. Returns
/// which frame.
///
/// # Panics
/// When the journal cannot be read or written, or holds no frame with a payload.
pub fn damage_a_frame(directory: &Path) -> LogId {
    use std::os::unix::fs::FileExt;
    let journal = directory.join("g1/journal");
    let frames: Vec<FrameInfo> = frames(&journal).into_values().filter(|frame| frame.bytes > 200).collect();
    let frame = frames.get(frames.len() / 2).expect("a frame with a payload");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&journal)
        .expect("a journal")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    names.sort();
    let length = std::fs::metadata(&names[0]).expect("a segment").len();
    let path = journal.join(format!("{:020}.seg", frame.position.0 / length));
    let file = File::options().read(true).write(true).open(&path).expect("the segment is there");
    let (offset, mut byte) = (frame.position.0 % length + 100, [0]);
    file.read_exact_at(&mut byte, offset).expect("as long as it was");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("writable");
    frame.log_id
}
