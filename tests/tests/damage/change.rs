//! Damages: what may happen to the bytes of one file.

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

use calamus_engine::env::{Disk, FileClass, OpenMode, SimDisk};
use rand::prelude::*;

use super::base::Base;

/// Kinds of damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// One bit is another one.
    Flip,
    /// One byte is another one.
    Byte,
    /// A block of 512 bytes to 8 KiB is zeros.
    Zeros,
    /// A block is anything.
    Noise,
    /// The file ends early.
    Cut,
    /// Two blocks of the file stand in each other's place.
    Swapped,
    /// A block of the file stands in another place of it, too.
    Misdirected,
    /// A block is what it was at an earlier moment.
    Stale,
}

pub const KINDS: [Kind; 8] =
    [Kind::Flip, Kind::Byte, Kind::Zeros, Kind::Noise, Kind::Cut, Kind::Swapped, Kind::Misdirected, Kind::Stale];

impl Kind {
    /// Whether what is left may be right in itself, an older or another state of the same file: then a read may be wrong,
    /// and a scrub or a check is what finds it.
    pub fn may_be_stale(self) -> bool {
        self == Self::Stale
    }
}

/// One damage.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: Kind,
    pub file: PathBuf,
    /// Bytes that change, by offset.
    writes: Vec<(usize, Vec<u8>)>,
    length: Option<usize>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.kind, self.file.display())?;
        for (offset, bytes) in &self.writes {
            write!(f, ", {} bytes at {offset}", bytes.len())?;
        }
        self.length.map_or(Ok(()), |length| write!(f, ", to {length} bytes"))
    }
}

impl Change {
    /// Draws one that changes something.
    pub fn draw(random: &mut StdRng, base: &Base) -> Self {
        loop {
            let kind = *KINDS.choose(random).expect("there are some");
            let class = *[
                FileClass::Data,
                FileClass::Data,
                FileClass::Data,
                FileClass::Journal,
                FileClass::Journal,
                FileClass::Journal,
                FileClass::Meta,
                FileClass::Vote,
                FileClass::Spare,
            ]
            .choose(random)
            .expect("there are some");
            let files: Vec<&PathBuf> = base.files.keys().filter(|path| FileClass::of(path) == class).collect();
            let Some(file) = files.choose(random) else { continue };
            if let Some(change) = Self::of(kind, file, random, base) {
                return change;
            }
        }
    }

    fn of(kind: Kind, file: &Path, random: &mut StdRng, base: &Base) -> Option<Self> {
        let bytes = &base.files[file];
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        // Mostly where something stands.
        let reach = if random.random_ratio(1, 8) { bytes.len() } else { used };
        let at = random.random_range(0..reach);
        let block = *[512, 512, 4096, 4096, 8192].choose(random).expect("there are some");
        let start = at / block * block;
        let end = (start + block).min(bytes.len());
        let other = random.random_range(0..bytes.len().div_ceil(block)) * block;
        let whole = |from: usize, source: &[u8]| source.get(from..from + (end - start)).map(<[u8]>::to_vec);
        let mut length = None;
        let writes = match kind {
            Kind::Flip => vec![(at, vec![bytes[at] ^ (1 << random.random_range(0..8))])],
            Kind::Byte => vec![(at, vec![random.random()])],
            Kind::Zeros => vec![(start, vec![0; end - start])],
            Kind::Noise => {
                let mut noise = vec![0; end - start];
                random.fill(&mut noise[..]);
                vec![(start, noise)]
            }
            Kind::Cut => {
                length = Some(if random.random() { at } else { start });
                Vec::new()
            }
            Kind::Swapped => vec![(start, whole(other, bytes)?), (other, bytes[start..end].to_vec())],
            Kind::Misdirected => vec![(start, whole(other, bytes)?)],
            Kind::Stale => vec![(start, whole(start, base.earlier.get(file)?)?)],
        };
        let changes = writes.iter().any(|(offset, new)| bytes[*offset..offset + new.len()] != new[..]);
        (changes || length.is_some()).then(|| Self { kind, file: file.to_path_buf(), writes, length })
    }

    /// Makes it, durably.
    pub fn make(&self, disk: &SimDisk) {
        let file = disk.open(&self.file, OpenMode::Write).expect("the file is there");
        for (offset, bytes) in &self.writes {
            file.write_at(&[IoSlice::new(bytes)], *offset as u64).expect("works");
        }
        if let Some(length) = self.length {
            file.set_len(length as u64).expect("works");
        }
        file.sync_data().expect("works");
    }
}
