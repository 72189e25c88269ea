//! Giving the file's end back while batches go on: what stands there is moved into free pages below, a little with each
//! batch.
//!
//! Free pages at the end of the file are cut off with every batch; a single page in use behind a thousand free ones keeps
//! them. No pass over the file ever tidies that up while others wait. Instead, as long as the file has more free pages
//! than a thirty-second of those in use (and [`FREE_PAGES`]), each batch also walks on over a few leaves of the trees, and
//! moves what it finds beyond the place where the file could end:
//!
//! - *Only a record changes pages.* The moves are changes of the batch like any other, in its record, by the leader alone:
//!   the new place is a full image, the branch above gets a diff, the old place is freed. Followers, readers, crashes and
//!   backups meet nothing new. Where the walk stands is in the leader's memory, and nowhere else: after a restart, or a
//!   change of leader, it begins anew, which costs time and nothing else.
//! - *Bounded.* A batch walks over as many leaves (those of trees of values among them) as it changed pages, and [`LEAVES`]; it may move a quarter of as many,
//!   and one. What it does not use is kept for a long run, up to [`MAX_CREDIT`] pages. It never takes room in the record
//!   that the batch's own changes may need.
//! - *It ends.* Allocation takes the lowest place, so what was moved is not moved again before the file shrinks or grows.
//!   One walk over all trees moves everything there is to move; with the last page beyond it goes the end of the file.
//! - *It harms nobody.* If a page that the walk reads is damaged, what it did is rolled back, and it is given up until
//!   the database is opened again; the batch is sealed as if it had not been.
//!
//! What limits it: a place for a long run must exist below, so runs of hundreds of pages in a file full of small holes
//! stay; and a database that nobody writes to keeps its length.

use super::Batch;
use super::error::BatchError;
use crate::btree::{self, Cursor, SettleLimits, SettlePlace};
use crate::ids::PageNumber;
use crate::page::PAGE_BYTES;

/// So many free pages are never too many.
const FREE_PAGES: u32 = 4;
/// So many leaves a batch walks over, whatever it changed.
const LEAVES: usize = 4;
/// The most pages that may be saved up to be moved by one batch.
const MAX_CREDIT: u32 = 1200;
/// What moving a page may take in the record, in bytes: its new place, and diffs of what points to it and of two bitmaps.
const RECORD_BYTES_PER_MOVE: usize = 4 * (PAGE_BYTES + 512);

/// Where the walk stands.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// The tree; the empty name is that of the tree of trees.
    tree: String,
    /// The leaf that is next.
    place: SettlePlace,
    /// How many pages may be moved.
    credit: u32,
    /// It met damage.
    given_up: bool,
}

impl Compaction {
    fn start_over(&mut self) {
        self.tree.clear();
        self.place = SettlePlace::default();
    }
}

impl Batch {
    /// Moves some pages from the end of the file, if it has too many free ones.
    pub(super) fn compact(&mut self) {
        let store = self.store.clone();
        let mut walk = store.compaction.lock();
        let in_use = self.pages.page_count - self.pages.allocator.free_pages();
        let end = in_use + in_use / 32 + FREE_PAGES;
        let room = self.record_limit.saturating_sub(self.record_bytes_bound()) / RECORD_BYTES_PER_MOVE;
        if walk.given_up || self.pages.page_count <= end || room == 0 {
            return;
        }
        let changed = self.pages.copies.dirty.len();
        walk.credit = (walk.credit + 1 + changed as u32 / 4).min(MAX_CREDIT);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let mark = self.pages.mark();
        let trees = self.trees.clone();
        match self.walk_on(&mut walk, PageNumber(end), LEAVES + changed, room) {
            Ok(()) => {}
            Err(error) => {
                self.pages.roll_back_to(&mark);
                self.trees = trees;
                // The batch frees as much as one may: the next one has room again.
                if !matches!(error, BatchError::TooManyPages(_)) {
                    tracing::warn!(%error, "pages are not moved from the end of the file any more");
                    walk.given_up = true;
                }
            }
        }
        self.pages.forget_marks();
    }

    /// Walks over `leaves` leaves, or to the end of the last tree.
    fn walk_on(&mut self, walk: &mut Compaction, end: PageNumber, leaves: usize, room: u32) -> Result<(), BatchError> {
        let mut room = room;
        for _ in 0..leaves {
            let limits = SettleLimits { end, pages: walk.credit.min(room), longest_run: MAX_CREDIT.min(room) };
            let settled = if walk.tree.is_empty() {
                btree::settle_leaf(&mut self.pages, &mut self.trees.root, &walk.place, &limits)?
            } else if let Some(state) = self.trees.open(&self.pages, &walk.tree)? {
                btree::settle_leaf(&mut self.pages, state, &walk.place, &limits)?
            } else {
                btree::Settled { moved: 0, done: true, next: None }
            };
            walk.credit -= settled.moved;
            room -= settled.moved;
            if !settled.done {
                return Ok(());
            }
            match settled.next {
                Some(place) => walk.place = place,
                None => {
                    let Some(next) = self.tree_behind(&walk.tree)? else {
                        walk.start_over();
                        return Ok(());
                    };
                    walk.tree = next;
                    walk.place = SettlePlace::default();
                }
            }
        }
        Ok(())
    }

    /// The name of the next tree of those that the tree of trees knows.
    fn tree_behind(&self, name: &str) -> Result<Option<String>, BatchError> {
        let mut cursor = Cursor::new(&self.pages, self.trees.root);
        let behind = [name.as_bytes(), &[0]].concat();
        let there = if name.is_empty() { cursor.first()? } else { cursor.seek(&behind)? };
        Ok(there.then(|| String::from_utf8_lossy(cursor.key()).into_owned()))
    }
}
