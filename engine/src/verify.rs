//! The whole-file check: proves that a state is sound, page by page. Finds all problems, not just the first.
//!
//! A sound state:
//! - page 0 is a superblock; every bitmap is at its place and says nothing of pages beyond the end;
//! - every page is either allocated, and then reached exactly once (from a tree, or as superblock or bitmap), with a
//!   checksum that fits it; or free, and then all zeros;
//! - every tree named in the tree of trees satisfies what [`crate::btree`] says, with the counts that its state gives;
//! - no entry is newer than the superblock.
//!
//! The digest is computed anew; with what to compare it is the caller's business. Memory: two bits a page.
//!
//! What is not at the crate's root is for tools and tests, and not covered by [what is promised](crate#what-is-stable).

use std::collections::VecDeque;

use crate::alloc::{PAGES_PER_GROUP, bitmap_page_of, check_bitmap, is_bitmap_page, is_set};
use crate::btree::{PageRef, PageSource, ReadError, TreeState, TreeVisitor, check_tree};
use crate::error::StorageError;
use crate::ids::{Digest, PageNumber, TxnId};
use crate::page::checksum;
use crate::page::superblock::Superblock;

/// Problems beyond this many are only counted.
pub const MAX_LISTED_PROBLEMS: usize = 1000;
/// How often progress is reported, in pages.
const PROGRESS_PAGES: u32 = 1024;

/// How far a check is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// So many frames of the journal were read.
    Frames(u64),
    /// A tree is about to be walked; so many were walked before.
    Trees(u64),
    /// So many of the file's pages were looked at by themselves.
    Pages {
        /// How many were.
        done: u32,
        /// How many there are.
        total: u32,
    },
}

/// What a problem is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProblemKind {
    /// What stands in a page: nothing of it can be relied on, or not all.
    Content,
    /// A free page that is not zeros.
    NotZero,
    /// An allocated page that is reached from nowhere.
    Unreached,
}

/// Something wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// What it is about.
    pub kind: ProblemKind,
    /// The page.
    pub page: PageNumber,
    /// What is wrong with it.
    pub what: String,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// The superblock, if it can be read. Without it, the trees were not walked.
    #[doc(hidden)]
    pub superblock: Option<Superblock>,
    /// How many trees are named in the tree of trees.
    pub trees: u64,
    /// How many entries those have, as found.
    pub entries: u64,
    /// How many pages are allocated, as the bitmaps say.
    pub allocated_pages: u32,
    /// How many pages are free.
    pub free_pages: u32,
    /// The digest of the state, from the checksums that the pages carry.
    pub digest: Digest,
    /// What is wrong, at most [`MAX_LISTED_PROBLEMS`] of it.
    pub problems: Vec<Problem>,
    /// How many more problems there were.
    pub unlisted_problems: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.unlisted_problems == 0
    }

    fn problem(&mut self, page: PageNumber, what: impl Into<String>) {
        self.problem_of(ProblemKind::Content, page, what);
    }

    fn problem_of(&mut self, kind: ProblemKind, page: PageNumber, what: impl Into<String>) {
        if self.problems.len() < MAX_LISTED_PROBLEMS {
            self.problems.push(Problem { kind, page, what: what.into() });
        } else {
            self.unlisted_problems += 1;
        }
    }
}

/// Two bits for each page of the file.
struct PageSet {
    allocated: Vec<u64>,
    reached: Vec<u64>,
    /// For each group, whether its bitmap could be read: else nobody knows which of its pages are allocated.
    known: Vec<bool>,
}

impl PageSet {
    fn new(page_count: u32) -> Self {
        let words = vec![0; page_count.div_ceil(64) as usize];
        let known = vec![false; page_count.div_ceil(PAGES_PER_GROUP) as usize];
        Self { allocated: words.clone(), reached: words, known }
    }

    fn knows(&self, page: u32) -> bool {
        self.known[(page / PAGES_PER_GROUP) as usize]
    }

    fn has(set: &[u64], page: u32) -> bool {
        set[page as usize / 64] & (1 << (page % 64)) != 0
    }

    /// Returns whether it was in before.
    fn add(set: &mut [u64], page: u32) -> bool {
        let before = Self::has(set, page);
        set[page as usize / 64] |= 1 << (page % 64);
        before
    }
}

struct Visitor<'v> {
    report: &'v mut CheckReport,
    pages: &'v mut PageSet,
    page_count: u32,
    newest: TxnId,
    /// The trees named so far and not walked yet; `None` while such a tree is walked.
    named: Option<VecDeque<(String, TreeState)>>,
}

impl TreeVisitor for Visitor<'_> {
    fn reach(&mut self, first: PageNumber, count: u32) -> bool {
        if u64::from(first.0) + u64::from(count) > u64::from(self.page_count) {
            self.report.problem(first, format!("{count} pages that are not all in the file belong to a tree"));
            return false;
        }
        let mut sound = true;
        for page in first.0..first.0 + count {
            if PageSet::add(&mut self.pages.reached, page) {
                self.report.problem(PageNumber(page), "reached from more than one place");
                sound = false;
            }
            if self.pages.knows(page) && !PageSet::has(&self.pages.allocated, page) {
                self.report.problem(PageNumber(page), "belongs to a tree, but is not allocated");
            }
        }
        sound
    }

    fn entry(&mut self, page: PageNumber, key: &[u8], version: TxnId, value: Option<&[u8]>) {
        if version > self.newest {
            self.report.problem(page, format!("an entry of txn {version}, newer than the state's {}", self.newest));
        }
        let Some(named) = &mut self.named else {
            self.report.entries += 1;
            return;
        };
        let name = String::from_utf8_lossy(key).into_owned();
        match value.and_then(TreeState::decode) {
            Some(state) => named.push_back((name, state)),
            None => self.report.problem(page, format!("the state of tree {name:?} cannot be read")),
        }
    }

    fn value(&mut self, page: PageNumber, version: TxnId) {
        if version > self.newest {
            self.report.problem(page, format!("a value of txn {version}, newer than the state's {}", self.newest));
        }
    }

    fn problem(&mut self, page: PageNumber, what: String) {
        self.report.problem(page, what);
    }
}

/// Checks the whole state that `source` shows. Damage is reported; an error means that the check could not go on.
pub fn check_pages<S: PageSource + ?Sized>(
    source: &S,
    progress: &mut dyn FnMut(Progress),
) -> Result<CheckReport, ReadError> {
    let mut report = CheckReport::default();
    let Some(first) = read(source, PageNumber(0), &mut report)? else { return Ok(report) };
    let superblock = match Superblock::decode(&first) {
        Ok(superblock) => superblock,
        Err(what) => {
            report.problem(PageNumber(0), what);
            return Ok(report);
        }
    };
    report.superblock = Some(superblock);
    let mut pages = PageSet::new(superblock.page_count);
    check_bitmaps(source, superblock.page_count, &mut pages, &mut report)?;
    check_trees(source, &superblock, &mut pages, &mut report, progress)?;
    check_each(source, superblock.page_count, &pages, true, &mut report, progress)?;
    Ok(report)
}

/// Checks pages each by itself, and the bitmaps, where there is no superblock that says how many there are and where the
/// trees begin. That it is missing is not reported.
pub fn check_pages_alone<S: PageSource + ?Sized>(
    source: &S,
    page_count: u32,
    progress: &mut dyn FnMut(Progress),
) -> Result<CheckReport, ReadError> {
    let mut report = CheckReport::default();
    if page_count == 0 {
        return Ok(report);
    }
    let mut pages = PageSet::new(page_count);
    check_bitmaps(source, page_count, &mut pages, &mut report)?;
    check_each(source, page_count, &pages, false, &mut report, progress)?;
    Ok(report)
}

/// Reads a page; one that is damaged is reported, and gives `None`.
fn read<'s, S: PageSource + ?Sized>(
    source: &'s S,
    number: PageNumber,
    report: &mut CheckReport,
) -> Result<Option<PageRef<'s>>, ReadError> {
    match source.page(number) {
        Ok(page) => Ok(Some(page)),
        Err(ReadError::Storage(StorageError::Corrupted { what, .. } | StorageError::DamagedPage { what, .. })) => {
            report.problem(number, what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// As [`read`], for a page that others may have read before: damage that they told of is not told again.
fn read_once<'s, S: PageSource + ?Sized>(
    source: &'s S,
    number: PageNumber,
    pages: &PageSet,
    report: &mut CheckReport,
) -> Result<Option<PageRef<'s>>, ReadError> {
    match source.page(number) {
        Ok(page) => Ok(Some(page)),
        Err(ReadError::Storage(StorageError::Corrupted { what, .. } | StorageError::DamagedPage { what, .. })) => {
            let told =
                PageSet::has(&pages.reached, number.0) && report.problems.iter().any(|problem| problem.page == number);
            if !told {
                report.problem(number, what);
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn check_bitmaps<S: PageSource + ?Sized>(
    source: &S,
    page_count: u32,
    pages: &mut PageSet,
    report: &mut CheckReport,
) -> Result<(), ReadError> {
    PageSet::add(&mut pages.reached, 0);
    for group_start in (0..page_count).step_by(PAGES_PER_GROUP as usize) {
        let number = bitmap_page_of(PageNumber(group_start));
        PageSet::add(&mut pages.reached, number.0);
        let Some(bitmap) = read(source, number, report)? else { continue };
        pages.known[(group_start / PAGES_PER_GROUP) as usize] = true;
        if let Some(what) = check_bitmap(&bitmap, number, page_count) {
            report.problem(number, what);
        }
        let group_end = group_start.saturating_add(PAGES_PER_GROUP).min(page_count);
        for page in (group_start..group_end).filter(|page| is_set(&bitmap, PageNumber(*page))) {
            PageSet::add(&mut pages.allocated, page);
            report.allocated_pages += 1;
        }
    }
    report.free_pages = page_count - report.allocated_pages;
    Ok(())
}

fn check_trees<S: PageSource + ?Sized>(
    source: &S,
    superblock: &Superblock,
    pages: &mut PageSet,
    report: &mut CheckReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ReadError> {
    let (page_count, newest) = (superblock.page_count, superblock.txn_id);
    let mut visitor = Visitor { report, pages, page_count, newest, named: Some(VecDeque::new()) };
    check_tree(source, &superblock.trees, &mut visitor)?;
    let named = visitor.named.take().unwrap_or_default();
    for (name, state) in named {
        progress(Progress::Trees(visitor.report.trees));
        visitor.report.trees += 1;
        let before = visitor.report.problems.len();
        check_tree(source, &state, &mut visitor)?;
        for problem in &mut visitor.report.problems[before..] {
            problem.what = format!("tree {name:?}: {}", problem.what);
        }
    }
    Ok(())
}

/// Looks at every page by itself; with `trees`, also whether it was reached from one. What could not be read at all was
/// reported where it was met first, if that was in a tree or as a bitmap.
fn check_each<S: PageSource + ?Sized>(
    source: &S,
    page_count: u32,
    pages: &PageSet,
    trees: bool,
    report: &mut CheckReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ReadError> {
    for number in 0..page_count {
        if number.is_multiple_of(PROGRESS_PAGES) {
            progress(Progress::Pages { done: number, total: page_count });
        }
        let (allocated, known) = (PageSet::has(&pages.allocated, number), pages.knows(number));
        let number = PageNumber(number);
        let Some(page) = read_once(source, number, pages, report)? else { continue };
        if !known {
            report.digest = report.digest.replace(number, 0, page.checksum());
            continue;
        }
        if !allocated {
            if !page.is_zero() {
                report.problem_of(ProblemKind::NotZero, number, "free, but not zero");
            }
            continue;
        }
        if page.checksum() == 0 || !checksum::verify(number, &page) {
            report.problem(number, "the checksum does not fit the content");
        }
        if trees && !PageSet::has(&pages.reached, number.0) && !is_bitmap_page(number) {
            report.problem_of(ProblemKind::Unreached, number, "allocated, but reached from nowhere");
        }
        report.digest = report.digest.replace(number, 0, page.checksum());
    }
    progress(Progress::Pages { done: page_count, total: page_count });
    Ok(())
}
