use std::sync::{OnceLock, Weak};

use super::*;
use crate::env::{FileInFront, RealDisk};

const PAGES: u32 = 100;

/// Looks, before each change of the file, that no page that it takes away can be read through the map.
struct Watched {
    inner: Arc<dyn DiskFile>,
    data: Arc<OnceLock<Weak<DataFile>>>,
}

impl Watched {
    fn goes(&self, from: u64, to: u64) {
        let Some(data) = self.data.get().and_then(Weak::upgrade) else { return };
        for number in from / PAGE_BYTES as u64..to.div_ceil(PAGE_BYTES as u64) {
            let number = PageNumber(u32::try_from(number).expect("small"));
            assert!(!data.verified.contains(number), "page {number} goes, and may be read through the map");
        }
    }
}

impl FileInFront for Watched {
    fn behind(&self) -> &dyn DiskFile {
        &*self.inner
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<(), StorageError> {
        self.goes(offset, offset + parts.iter().map(|part| part.len() as u64).sum::<u64>());
        self.inner.write_at(parts, offset)
    }
    fn set_len(&self, length: u64) -> Result<(), StorageError> {
        self.goes(length, self.inner.len()?);
        self.inner.set_len(length)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.goes(offset, offset + length);
        self.inner.punch(offset, length)
    }
}

/// A file of `PAGES` pages with content, all of them read once.
fn file(path: &Path) -> Arc<DataFile> {
    let pages: Vec<Box<Page>> = (0..PAGES)
        .map(|number| {
            let mut page = Page::zeroed();
            page.bytes_mut()[100] = 1;
            checksum::seal(PageNumber(number), &mut page);
            page
        })
        .collect();
    let disk = RealDisk::new();
    DataFile::create(&disk, path, &pages).expect("made");
    let mut data = DataFile::open(&disk, path, OpenMode::Write, 1 << 30).expect("opens");
    let place = Arc::new(OnceLock::new());
    data.file = Arc::new(Watched { inner: data.file, data: place.clone() });
    let data = Arc::new(data);
    place.set(Arc::downgrade(&data)).expect("once");
    for number in (0..PAGES).map(PageNumber) {
        data.read(number).expect("readable");
        assert!(data.verified.contains(number));
    }
    data
}

#[test]
fn pages_leave_the_map_before_they_are_zeroed_or_cut_and_free_ones_never_enter_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = file(&home.path().join("data"));
    // A run that is written, one that is punched, and the end of the file.
    data.zero_run(PageNumber(5), 3).expect("written");
    data.zero_run(PageNumber(20), PUNCH_FROM_PAGES).expect("punched");
    data.set_page_count(90).expect("cut");
    let freed = (5..8).chain(20..20 + PUNCH_FROM_PAGES).chain(90..PAGES);
    data.written(&freed.map(|number| (PageNumber(number), 0)).collect::<Vec<_>>());
    let free = (5..8).chain(20..20 + PUNCH_FROM_PAGES).chain(90..PAGES + 10);
    for number in free.clone().map(PageNumber) {
        for _ in 0..2 {
            let page = data.read(number).expect("readable");
            assert!(std::ptr::eq(&*page, zero_page()), "page {number} is read in the map");
            assert!(!data.verified.contains(number));
        }
    }
    assert!(data.verified.contains(PageNumber(8)) && data.verified.contains(PageNumber(89)));
    // A file that grows again has the pages back as free ones.
    data.set_page_count(PAGES).expect("grown");
    data.read(PageNumber(95)).expect("readable");
    assert!(!data.verified.contains(PageNumber(95)));
}
