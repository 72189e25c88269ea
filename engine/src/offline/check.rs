//! All of a directory that no node has open, held against what it should be.
//!
//! A check goes on past what it finds: it lists every part of both slot files, every frame that cannot be read, every
//! page that is not what it should be. Where one file cannot be relied on it makes do with what is left: without a
//! `node.meta` that can be read it takes the newest generation that is there; where frames
//! are missing that would make the data file whole, it looks at the pages as they stand in the file.

use std::path::Path;
use std::sync::Arc;

use super::finding::{Finding, FindingKind};
use super::state::{OfflineState, Stop};
use crate::checkpoint::NodeMeta;
use crate::checkpoint::meta::SLOT_BYTES;
use crate::engine::{Engine, OpenError, Paths, VOTE_SLOT_BYTES, Vote, take_lock};
use crate::env::Disk;
use crate::error::StorageError;
use crate::ids::{Generation, LogId, LogIndex, PageNumber};
use crate::journal::frame::{CHAIN_START, Frame, FrameKind};
use crate::journal::{Survey, survey};
use crate::page::PAGE_BYTES;
use crate::recovery::decide::Entries;
use crate::recovery::{Damage, Decision, Observed, decide};
use crate::slots::SlotsSurvey;
use crate::store::{AppliedState, offset_of};
use crate::txn::record::Record;
use crate::verify::{CheckReport, ProblemKind, Progress, check_pages, check_pages_alone};

/// Progress is told each time that so many frames were read.
const PROGRESS_FRAMES: u64 = 256;

/// What [`check_directory`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct DirectoryReport {
    /// What `node.meta` says; `None` if it cannot be read.
    #[doc(hidden)]
    pub meta: Option<NodeMeta>,
    /// What `vote` says.
    pub vote: Option<Vote>,
    /// The generation that was checked.
    pub generation: Option<Generation>,
    /// The journal; `None` if there is none.
    #[doc(hidden)]
    pub journal: Option<Survey>,
    /// The entry as of which the pages were checked; `None` before the first.
    pub checked_at: Option<LogId>,
    /// The check of the pages; `None` if there is no data file.
    pub pages: Option<CheckReport>,
    /// Everything that is wrong, and that fits in a list.
    pub findings: Vec<Finding>,
    /// How many more problems of pages there are.
    pub unlisted: u64,
}

impl DirectoryReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.unlisted == 0
    }

    /// The last frame before any damage.
    #[must_use]
    pub fn last_frame(&self) -> Option<LogId> {
        self.journal.as_ref().and_then(|journal| journal.last)
    }
}

/// Checks a directory: both slots of both slot files, every frame of the journal, every page of the state, the digest, and
/// that they belong together. Changes nothing.
///
/// # Errors
/// [`OpenError::Locked`] while a node runs on it; [`OpenError::Missing`] if it is no node's; a directory that cannot be
/// locked or listed. All else is in the report.
pub fn check_directory(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<DirectoryReport, OpenError> {
    if !Engine::exists(&**disk, directory)? {
        return Err(OpenError::Missing(directory.to_path_buf()));
    }
    let lock = take_lock(&**disk, directory)?;
    let mut check = Check { disk, directory, findings: Vec::new(), unlisted: 0 };
    let meta = check.meta();
    let vote = check.vote();
    let generation = match &meta {
        Some(meta) => Some(meta.generation),
        None => Paths::highest_generation(&**disk, directory)?,
    };
    let (mut journal, mut pages, mut checked_at) = (None, None, None);
    if let Some(generation) = generation {
        let home = Paths::generation(directory, generation);
        journal = check.journal(&home, meta.as_ref(), vote, progress);
        if let Some((report, at)) = check.state(&home, meta.as_ref(), lock, progress)? {
            (pages, checked_at) = (Some(report), at);
        }
    }
    let Check { findings, unlisted, .. } = check;
    Ok(DirectoryReport { meta, vote, generation, journal, checked_at, pages, findings, unlisted })
}

struct Check<'c> {
    disk: &'c Arc<dyn Disk>,
    directory: &'c Path,
    findings: Vec<Finding>,
    unlisted: u64,
}

impl Check<'_> {
    fn find(&mut self, kind: FindingKind, file: &Path, offset: u64, what: impl Into<String>) {
        self.findings.push(Finding::new(kind, file, offset, what));
    }

    /// Looks at a file of two slots; returns what it holds.
    fn slots<T>(
        &mut self,
        file: &Path,
        slot_bytes: u64,
        decode: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Option<T> {
        let survey = match SlotsSurvey::read(&**self.disk, file, slot_bytes) {
            Ok(survey) => survey,
            Err(error) => {
                self.findings.push(Finding::of(FindingKind::Slots, &error));
                return None;
            }
        };
        let bad = survey.newest.as_ref().ok().and_then(|newest| newest.damage.as_ref());
        for part in &survey.unsound {
            let kind = match (&survey.newest, bad) {
                (Err(_), _) => FindingKind::Slots,
                (Ok(_), Some(slot)) if slot.offset == part.slot_offset => FindingKind::OneSlot,
                (Ok(_), _) => FindingKind::UnusedPart,
            };
            self.find(kind, file, part.offset, &part.what);
        }
        // A slot of sound parts may have lost a write.
        if let Some(slot) = bad.filter(|slot| survey.unsound.iter().all(|part| part.slot_offset != slot.offset)) {
            self.find(FindingKind::OneSlot, file, slot.offset, &slot.what);
        }
        match survey.newest {
            Ok(newest) => match decode(&newest.payload) {
                Ok(value) => Some(value),
                Err(what) => {
                    self.find(FindingKind::Slots, file, 0, what);
                    None
                }
            },
            Err(error) => {
                if survey.unsound.is_empty() {
                    self.findings.push(Finding::of(FindingKind::Slots, &error));
                }
                None
            }
        }
    }

    fn meta(&mut self) -> Option<NodeMeta> {
        self.slots(&Paths::meta(self.directory), SLOT_BYTES, NodeMeta::decode)
    }

    fn vote(&mut self) -> Option<Vote> {
        self.slots(&Paths::vote(self.directory), VOTE_SLOT_BYTES, Vote::decode).flatten()
    }

    /// Reads all of the journal, and holds it against `node.meta` and `vote`.
    fn journal(
        &mut self,
        home: &Path,
        meta: Option<&NodeMeta>,
        vote: Option<Vote>,
        progress: &mut dyn FnMut(Progress),
    ) -> Option<Survey> {
        let path = Paths::journal(home);
        let mut frames = Frames { seen: 0, at_checkpoint: None, at_target: None, bad: Vec::new() };
        let found = survey(self.disk, &path, &mut |frame, _, _| {
            frames.see(frame, meta);
            if frames.seen.is_multiple_of(PROGRESS_FRAMES) {
                progress(Progress::Frames(frames.seen));
            }
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.findings.push(Finding::of(FindingKind::Journal, &error));
                return None;
            }
        };
        for damage in &found.damage {
            let what = format!("{} (frame {})", damage.what, damage.index);
            self.find(FindingKind::Journal, &damage.file, damage.offset, what);
        }
        for (index, what) in &frames.bad {
            self.find(FindingKind::Journal, &path, 0, format!("frame {index}: {what}"));
        }
        if found.segments.is_empty() {
            self.find(FindingKind::Journal, &path, 0, "no segment is there");
        }
        if let Some(meta) = meta {
            self.agreement(meta, &found, &frames);
        }
        // A node votes, or hears of the leader of a term, before it takes frames of that term.
        if let (Some(vote), Some(last)) = (vote, found.last)
            && vote.term < last.term
        {
            let what = format!("the vote is of term {}, and the journal has frames of term {}", vote.term, last.term);
            self.find(FindingKind::Disagreement, &Paths::vote(self.directory), 0, what);
        }
        Some(found)
    }

    /// Whether `node.meta` and the journal are of one history.
    fn agreement(&mut self, meta: &NodeMeta, found: &Survey, frames: &Frames) {
        let file = Paths::meta(self.directory);
        let Some(first) = found.first else { return };
        let index = |state: &AppliedState| state.log_id.map(|log_id| log_id.index);
        let fits = |state: &AppliedState, at: Option<(LogId, u64)>| {
            let before_first = (first.previous.is_some() && first.previous == state.log_id).then_some(first.chain);
            match state.log_id {
                Some(log_id) => at.or(before_first.map(|chain| (log_id, chain))).map(|at| at == (log_id, state.chain)),
                None => Some(state.chain == CHAIN_START),
            }
        };
        let observed = Observed {
            checkpoint: Entries::through(index(&meta.checkpoint)),
            target: Entries::through(index(&meta.target)),
            journal_start: Entries::through(first.previous.map(|log_id| log_id.index)),
            journal_end: Entries::through(found.last.or(first.previous).map(|log_id| log_id.index)),
            committed: Entries::through(found.commit),
            chain_fits_checkpoint: fits(&meta.checkpoint, frames.at_checkpoint),
            chain_fits_target: fits(&meta.target, frames.at_target),
        };
        match decide(&observed) {
            // It ends where it is damaged, which is told already.
            Decision::Damaged(Damage::JournalEndsEarly) if !found.damage.is_empty() => {}
            Decision::Damaged(damage) => self.find(FindingKind::Disagreement, &file, 0, damage.to_string()),
            Decision::Clean { .. } | Decision::FinishCheckpoint { .. } => {}
        }
        let sizes = found.segments.iter().filter_map(|segment| segment.header.as_ref().ok());
        if let Some(other) = sizes.map(|header| header.segment_bytes).find(|bytes| *bytes != meta.segment_bytes) {
            let what = format!("it says that segments have {} bytes, and there is one of {other}", meta.segment_bytes);
            self.find(FindingKind::Disagreement, &file, 0, what);
        }
    }

    /// Checks the pages of the state at the target, or as near to it as can be had.
    fn state(
        &mut self,
        home: &Path,
        meta: Option<&NodeMeta>,
        lock: Arc<dyn Send + Sync>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<(CheckReport, Option<LogId>)>, StorageError> {
        let (from, target) = meta.map(|meta| (meta.checkpoint.clone(), meta.target.log_id)).unwrap_or_default();
        let until = target.map(|log_id| log_id.index);
        let built = OfflineState::build(self.disk, home, from, until, lock);
        let (state, stop) = match built {
            Ok(built) => built,
            Err(error) => {
                self.findings.push(Finding::of(FindingKind::Page, &error));
                return Ok(None);
            }
        };
        let data = Paths::data(home);
        match &stop {
            // What is wrong with the journal is told already.
            None | Some(Stop::Journal(_) | Stop::OtherHistory) => {}
            Some(Stop::Record(index, what)) => {
                self.find(FindingKind::Journal, &Paths::journal(home), 0, format!("frame {index}: {what}"));
            }
        }
        let complete = meta.is_some() && stop.is_none() && state.applied.log_id == target;
        let checked = match &state.superblock {
            Ok(_) => check_pages(&state, progress),
            Err(_) => {
                let pages = state.data.bytes()?.div_ceil(PAGE_BYTES as u64);
                check_pages_alone(&state, u32::try_from(pages).unwrap_or(u32::MAX), progress)
            }
        };
        let report = match checked {
            Ok(report) => report,
            Err(error) => {
                self.find(FindingKind::Unreadable, &data, 0, error.to_string());
                return Ok(None);
            }
        };
        if let Err(what) = &state.superblock {
            let what = format!("{what}; without it the trees cannot be walked");
            let page = Some(PageNumber(0));
            self.findings.push(Finding { page, ..Finding::new(FindingKind::Page, &data, 0, what) });
        }
        self.pages(&data, &report);
        if complete && let Ok(superblock) = &state.superblock {
            let mut sound = report.is_clean();
            if superblock.txn_id != state.applied.txn_id {
                let what =
                    format!("page 0 is of txn {}, the checkpoint of {}", superblock.txn_id, state.applied.txn_id);
                self.find(FindingKind::Disagreement, &data, 0, what);
                sound = false;
            }
            // While a checkpoint is under way the file may have any length.
            let (is, should) = (state.data.bytes()?, offset_of(PageNumber(superblock.page_count)));
            if meta.is_some_and(|meta| !meta.checkpoint_running()) && is != should {
                self.find(
                    FindingKind::Length,
                    &data,
                    is.min(should),
                    format!("it has {is} bytes, and should have {should}"),
                );
            }
            if sound && report.digest != state.applied.digest {
                let what = format!("the digest is {} and should be {}", report.digest, state.applied.digest);
                self.find(FindingKind::Digest, &data, 0, what);
            }
        }
        Ok(Some((report, state.applied.log_id)))
    }

    fn pages(&mut self, data: &Path, report: &CheckReport) {
        for problem in &report.problems {
            let kind = match problem.kind {
                ProblemKind::Content => FindingKind::Page,
                ProblemKind::NotZero => FindingKind::FreePage,
                ProblemKind::Unreached => FindingKind::LostPage,
            };
            let (file, offset, page) = (data.to_path_buf(), offset_of(problem.page), Some(problem.page));
            self.findings.push(Finding { kind, file, offset, page, what: problem.what.clone() });
        }
        self.unlisted += report.unlisted_problems;
    }
}

/// What is remembered of the frames that were read.
struct Frames {
    seen: u64,
    at_checkpoint: Option<(LogId, u64)>,
    at_target: Option<(LogId, u64)>,
    bad: Vec<(LogIndex, String)>,
}

impl Frames {
    fn see(&mut self, frame: &Frame, meta: Option<&NodeMeta>) {
        self.seen += 1;
        let here = (frame.log_id(), frame.chain());
        let is = |state: &AppliedState| state.log_id.is_some_and(|log_id| log_id.index == here.0.index);
        if let Some(meta) = meta {
            self.at_checkpoint = self.at_checkpoint.or(is(&meta.checkpoint).then_some(here));
            self.at_target = self.at_target.or(is(&meta.target).then_some(here));
        }
        if frame.kind() == FrameKind::Record
            && let Err(error) = Record::decode(frame.payload().bytes())
        {
            self.bad.push((here.0.index, error.to_string()));
        }
    }
}
