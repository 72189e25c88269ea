//! A door that counts what goes through another, by kind of file.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::{Disk, DiskFile, DiskInFront, FileInFront, OpenMode};
use crate::error::StorageError;

/// What a file is, by its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileClass {
    /// A segment of the journal.
    Journal,
    /// A spare segment being prepared: no part of any commit.
    Spare,
    /// The data file.
    Data,
    /// `node.meta`.
    Meta,
    /// `vote`.
    Vote,
    /// Anything else.
    Other,
}

const CLASSES: usize = 6;

impl FileClass {
    /// The class of a path.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "node.meta" => Self::Meta,
            "vote" => Self::Vote,
            "data" => Self::Data,
            _ if name.ends_with(".seg") => Self::Journal,
            _ if name.starts_with("spare-") => Self::Spare,
            _ => Self::Other,
        }
    }
}

/// What happened to the files of one class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Positioned writes.
    pub writes: u64,
    /// `sync_data` calls.
    pub syncs: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl std::ops::Sub for Count {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self { writes: self.writes - before.writes, syncs: self.syncs - before.syncs, bytes: self.bytes - before.bytes }
    }
}

/// All counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DiskCounts {
    /// Segments of the journal.
    pub journal: Count,
    /// Spare segments being prepared.
    pub spare: Count,
    /// The data file.
    pub data: Count,
    /// `node.meta`.
    pub meta: Count,
    /// `vote`.
    pub vote: Count,
    /// Anything else.
    pub other: Count,
}

impl std::ops::Sub for DiskCounts {
    type Output = Self;
    /// What happened since `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            journal: self.journal - before.journal,
            spare: self.spare - before.spare,
            data: self.data - before.data,
            meta: self.meta - before.meta,
            vote: self.vote - before.vote,
            other: self.other - before.other,
        }
    }
}

#[derive(Default)]
struct Counters {
    writes: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
}

/// Counts and passes on.
#[derive(Clone)]
pub struct CountingDisk {
    inner: Arc<dyn Disk>,
    counters: Arc<[Counters; CLASSES]>,
}

impl CountingDisk {
    /// Wraps a door.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// What was counted so far. An operation counts when it has succeeded.
    #[must_use]
    pub fn snapshot(&self) -> DiskCounts {
        let of = |class: FileClass| {
            let counters = &self.counters[class as usize];
            let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
            Count { writes: read(&counters.writes), syncs: read(&counters.syncs), bytes: read(&counters.bytes) }
        };
        DiskCounts {
            journal: of(FileClass::Journal),
            spare: of(FileClass::Spare),
            data: of(FileClass::Data),
            meta: of(FileClass::Meta),
            vote: of(FileClass::Vote),
            other: of(FileClass::Other),
        }
    }
}

impl DiskInFront for CountingDisk {
    fn behind(&self) -> &dyn Disk {
        &*self.inner
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, StorageError> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(CountingFile { inner, class: FileClass::of(path), counters: self.counters.clone() }))
    }
}

struct CountingFile {
    inner: Arc<dyn DiskFile>,
    class: FileClass,
    counters: Arc<[Counters; CLASSES]>,
}

impl CountingFile {
    fn counters(&self) -> &Counters {
        &self.counters[self.class as usize]
    }
}

impl FileInFront for CountingFile {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        self.inner.write_at(parts, offset)?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.counters().writes.fetch_add(1, Ordering::SeqCst);
        self.counters().bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        Ok(())
    }
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.inner.write_past_cache(bytes, offset)?;
        self.counters().writes.fetch_add(1, Ordering::SeqCst);
        self.counters().bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), StorageError> {
        self.inner.sync_data()?;
        self.counters().syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.inner.write_zeros(offset, length)?;
        self.counters().writes.fetch_add(1, Ordering::SeqCst);
        self.counters().bytes.fetch_add(length, Ordering::SeqCst);
        Ok(())
    }
    fn allocate(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.inner.allocate(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;

    use super::{Count, CountingDisk, DiskCounts};
    use crate::env::{Disk, OpenMode, RealDisk, join};

    #[test]
    fn counts_by_class_what_succeeded() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = CountingDisk::new(Arc::new(RealDisk::new()));
        let path = |parts: &[&str]| join(folder.path(), parts);
        disk.create_dir_all(&path(&["g1", "journal"])).expect("made");
        let files = [
            vec!["vote"],
            vec!["node.meta"],
            vec!["g1", "data"],
            vec!["g1", "journal", "00000000000000000001.seg"],
            vec!["g1", "journal", "spare-1"],
            vec!["lock"],
        ];
        for (count, parts) in files.iter().enumerate() {
            let file = disk.open(&path(parts), OpenMode::CreateNew).expect("open");
            for _ in 0..=count {
                file.write_at(&[IoSlice::new(b"abc"), IoSlice::new(b"de")], 0).expect("write");
            }
            file.sync_data().expect("sync");
        }
        let counted = |count: u64| Count { writes: count, syncs: 1, bytes: 5 * count };
        let expected = DiskCounts {
            vote: counted(1),
            meta: counted(2),
            data: counted(3),
            journal: counted(4),
            spare: counted(5),
            other: counted(6),
        };
        assert_eq!(disk.snapshot(), expected);
        let read_only = disk.open(&path(&["vote"]), OpenMode::Read).expect("open");
        assert!(read_only.write_at(&[IoSlice::new(b"x")], 0).is_err(), "opened to be read");
        assert_eq!(disk.snapshot() - expected, DiskCounts::default());
    }
}
