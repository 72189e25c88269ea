//! What is known to be damaged: bytes on disk that are not what was written.
//!
//! A page that is in the register is not served, through no door and at no snapshot that would take it from the data
//! file, until it is repaired; it is not the base of a change either, so no checkpoint writes what came from it. A page
//! leaves the register when its bytes are right again: repaired, or written whole by a checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::StorageError;
use crate::ids::{JournalPosition, LogId, PageNumber};
use crate::page::Page;

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum DamagedPart {
    /// A page of the data file.
    Page(PageNumber),
    /// Some page of the data file holds an older content, and it is not known which: the sum of all of them is not the
    /// digest that the finished checkpoint has. No repair: the node must be filled anew.
    State,
    /// A frame of the journal.
    Frame(LogId),
    /// The header of a segment, or the block before a group, which stands here and could not be made anew. No frame is
    /// lost as long as the node runs; the next start would find that the journal ends here.
    Block(JournalPosition),
    /// A slot of `node.meta` or `vote`: mended at once from the other one, or from memory.
    Slot,
}

impl std::fmt::Display for DamagedPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(number) => write!(f, "page {number}"),
            Self::State => f.write_str("the state as a whole"),
            Self::Frame(log_id) => write!(f, "frame {log_id}"),
            Self::Block(position) => write!(f, "the journal's block at {position}"),
            Self::Slot => f.write_str("a slot"),
        }
    }
}

/// Who found it. A checkpoint reads nothing from the file, so it finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FoundBy {
    /// Somebody wanted the bytes.
    Read,
    /// The scrub: see [`crate::scrub`].
    Scrub,
    /// The opening of the directory.
    Recovery,
}

/// Damage.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// What.
    pub part: DamagedPart,
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
    /// Who found it.
    pub found_by: FoundBy,
    /// When.
    pub found_at: SystemTime,
}

impl Damage {
    /// What a scrub, or a read, found at a place of a file.
    pub(crate) fn new(part: DamagedPart, error: &StorageError, found_by: FoundBy) -> Self {
        let (file, offset, what) = match error.damage() {
            Some((file, offset, what)) => (file.to_path_buf(), offset, what.to_owned()),
            None => (PathBuf::new(), 0, error.to_string()),
        };
        Self { part, file, offset, what, found_by, found_at: SystemTime::now() }
    }
}

/// The damage of one generation.
#[derive(Default)]
pub(crate) struct Register {
    /// How many pages are in `list`.
    pages: AtomicUsize,
    list: Mutex<BTreeMap<DamagedPart, Damage>>,
    found: AtomicU64,
    repaired: AtomicU64,
}

/// What was offered for damaged pages of which it is not known what they must hold: see [`crate::scrub`].
pub(crate) type Offers = BTreeMap<PageNumber, Box<Page>>;

/// How much damage there was, since the directory was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DamageCounts {
    /// Parts that are damaged now.
    pub open: u64,
    /// Parts that were found damaged.
    pub found: u64,
    /// Parts that were, and are right again.
    pub repaired: u64,
}

impl Register {
    /// Notes damage; whether it is new.
    pub(crate) fn note(&self, damage: Damage) -> bool {
        let mut list = self.list.lock();
        if list.contains_key(&damage.part) {
            return false;
        }
        tracing::error!(
            part = %damage.part, file = %damage.file.display(), offset = damage.offset, what = %damage.what,
            found_by = ?damage.found_by, "damage: it is not served until it is repaired"
        );
        self.found.fetch_add(1, Ordering::Relaxed);
        if matches!(damage.part, DamagedPart::Page(_)) {
            self.pages.fetch_add(1, Ordering::SeqCst);
        }
        list.insert(damage.part, damage);
        drop(list);
        // Who takes a page from the map asks the register behind its own mark: see `DataFile::read_first`.
        fence(Ordering::SeqCst);
        true
    }

    /// Counts damage that was repaired in the moment when it was found.
    pub(crate) fn note_mended(&self, damage: &Damage) {
        tracing::warn!(
            part = %damage.part, file = %damage.file.display(), offset = damage.offset, what = %damage.what,
            found_by = ?damage.found_by, "damage, mended"
        );
        self.found.fetch_add(1, Ordering::Relaxed);
        self.repaired.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a page is damaged.
    pub(crate) fn has_page(&self, number: PageNumber) -> bool {
        self.pages.load(Ordering::SeqCst) > 0 && self.list.lock().contains_key(&DamagedPart::Page(number))
    }

    /// What is known of a part.
    pub(crate) fn get(&self, part: DamagedPart) -> Option<Damage> {
        self.list.lock().get(&part).cloned()
    }

    /// The part is right again, or gone; whether it was damaged.
    pub(crate) fn clear(&self, part: DamagedPart, how: &str) -> bool {
        let mut list = self.list.lock();
        if list.remove(&part).is_none() {
            return false;
        }
        if matches!(part, DamagedPart::Page(_)) {
            self.pages.fetch_sub(1, Ordering::SeqCst);
        }
        self.repaired.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%part, how, "damage is gone");
        true
    }

    /// Forgets parts that are not there any more.
    pub(crate) fn retain(&self, keep: impl Fn(&Damage) -> bool) {
        let gone: Vec<DamagedPart> =
            self.list.lock().values().filter(|damage| !keep(damage)).map(|damage| damage.part).collect();
        for part in gone {
            self.clear(part, "nothing needs it any more");
        }
    }

    /// All of it, pages first.
    pub(crate) fn list(&self) -> Vec<Damage> {
        self.list.lock().values().cloned().collect()
    }

    pub(crate) fn counts(&self) -> DamageCounts {
        DamageCounts {
            open: self.list.lock().len() as u64,
            found: self.found.load(Ordering::Relaxed),
            repaired: self.repaired.load(Ordering::Relaxed),
        }
    }
}
