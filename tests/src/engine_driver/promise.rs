//! What a node has promised, and what a power cut may therefore leave of it.

use std::path::Path;
use std::sync::Arc;

use calamus_engine::env::Disk;
use calamus_engine::ids::LogIndex;
use calamus_engine::verify::check_pages;
use calamus_engine::{Engine, EngineOptions, Vote};

use super::{Stop, disk, wrong};
use crate::oracle::{Entry, State, common, state_at};

/// One thing that may be left: a journal and what it leads to.
#[derive(Clone)]
pub struct Remains {
    /// The longest the log can be, from index 0 on.
    pub log: Vec<Arc<Entry>>,
    /// So many entries are there for certain: their callbacks ran.
    pub at_least: usize,
    /// A checkpoint of so many entries was finished.
    pub checkpointed: usize,
    /// Recovery leads at least through so many entries.
    pub applied: usize,
}

/// Everything that may be left. It is changed before an operation begins, and narrowed when that is acknowledged.
#[derive(Clone)]
pub struct Promise {
    /// Whether there is a database for certain.
    pub created: bool,
    /// Any one of these.
    pub remains: Vec<Remains>,
    /// Any one of these.
    pub votes: Vec<Option<Vote>>,
    /// What is committed: recovery must go no further by itself.
    pub truth: Vec<Arc<Entry>>,
    /// Entries below may be purged.
    pub purged: usize,
    /// What the node was asked to do last: for the names of steps, and no part of what is promised.
    pub doing: &'static str,
}

impl Promise {
    /// Of a directory in which a database is being made.
    #[must_use]
    pub fn unborn() -> Self {
        let remains = Remains { log: Vec::new(), at_least: 0, checkpointed: 0, applied: 0 };
        Self {
            created: false,
            remains: vec![remains],
            votes: vec![None],
            truth: Vec::new(),
            purged: 0,
            doing: "create",
        }
    }

    /// Equal promises have equal hashes. A log is told by its length and its last chain value.
    #[must_use]
    pub fn hash(&self) -> u128 {
        let log = |log: &[Arc<Entry>]| (log.len(), log.last().map(|entry| entry.frame.chain()));
        let remains: Vec<_> = self
            .remains
            .iter()
            .map(|remains| (log(&remains.log), remains.at_least, remains.checkpointed, remains.applied))
            .collect();
        let all = (self.created, remains, &self.votes, log(&self.truth), self.purged);
        xxhash_rust::xxh3::xxh3_128(format!("{all:?}").as_bytes())
    }

    /// The callback of an append or a cut ran: the log is `log`.
    pub fn log_is(&mut self, log: Vec<Arc<Entry>>) {
        let last = self.remains.last().expect("never empty");
        let (at_least, checkpointed, applied) = (log.len(), last.checkpointed, last.applied);
        self.remains = vec![Remains { log, at_least, checkpointed, applied }];
    }

    /// The log is being changed from what it is to `log`, of which one is the beginning of the other.
    pub fn log_becomes(&mut self, log: &[Arc<Entry>]) {
        let last = self.remains.last().expect("never empty").clone();
        let shorter = last.log.len().min(log.len());
        let log = if log.len() > last.log.len() { log.to_vec() } else { last.log };
        self.remains = vec![Remains { log, at_least: last.at_least.min(shorter), ..last }];
    }
}

/// A node as recovery brought it back.
pub struct Reopened {
    /// Open.
    pub engine: Engine,
    /// Its whole log, the purged beginning included.
    pub log: Vec<Arc<Entry>>,
    /// So many entries are applied.
    pub applied: usize,
}

fn count(index: Option<LogIndex>) -> usize {
    index.map_or(0, |index| usize::try_from(index.0).expect("small") + 1)
}

/// Opens what a power cut left and holds it against the promise.
pub fn open_checked(
    door: &Arc<dyn Disk>,
    directory: &Path,
    options: EngineOptions,
    promise: &Promise,
) -> Result<Reopened, Stop> {
    let (engine, report) = Engine::open(door.clone(), directory, options).map_err(disk("open"))?;
    let state = engine.log_state();
    let last = count(state.last.map(|last| last.index));
    let first = count(state.last_purged.map(|purged| purged.index));
    if first > promise.purged {
        return Err(wrong(format!("the journal starts with entry {first}, and {} may be purged", promise.purged)));
    }
    let mut frames = Vec::new();
    while first + frames.len() < last {
        let from = LogIndex((first + frames.len()) as u64);
        frames.extend(engine.read_frames(from, LogIndex(last as u64), 1 << 20).map_err(disk("read frames"))?);
    }
    let fits = |remains: &&Remains| {
        remains.log.len() >= last
            && last >= remains.at_least
            && frames.iter().zip(&remains.log[first..]).all(|(frame, entry)| *frame == entry.frame)
            && (first < last || first == 0 || state.last == Some(remains.log[first - 1].frame.log_id()))
    };
    let Some(remains) = promise.remains.iter().find(fits) else {
        let bounds: Vec<_> = promise.remains.iter().map(|remains| (remains.at_least, remains.log.len())).collect();
        return Err(wrong(format!(
            "the journal holds entries {first} to {last}; acknowledged and asked for: {bounds:?}"
        )));
    };
    if !promise.votes.contains(&engine.vote()) {
        return Err(wrong(format!("the vote is {:?} and not one of {:?}", engine.vote(), promise.votes)));
    }
    let log = remains.log[..last].to_vec();
    let applied = count(engine.applied().log_id.map(|log_id| log_id.index));
    let committed = common(&promise.truth, &log);
    if applied < remains.applied || applied > committed {
        let least = remains.applied;
        return Err(wrong(format!("recovery applied {applied} entries, not {least} to {committed}; {report:?}")));
    }
    let checkpointed = count(engine.checkpointed().log_id.map(|log_id| log_id.index));
    if checkpointed < remains.checkpointed || checkpointed > applied {
        let promised = remains.checkpointed;
        return Err(wrong(format!("the checkpoint is at {checkpointed}, not from {promised} to {applied}")));
    }
    check_state(&engine, &log, applied).map_err(|stop| stop.context(&format!("after recovery ({report:?})")))?;
    Ok(Reopened { engine, log, applied })
}

/// Holds an engine's applied state against the log: what it says of itself, its contents, and the whole-file check.
pub fn check_state(engine: &Engine, log: &[Arc<Entry>], applied: usize) -> Result<(), Stop> {
    let expected: Arc<State> = state_at(log, applied);
    let found = engine.applied();
    let last = applied.checked_sub(1).map(|last| &log[last].frame);
    if found.log_id != last.map(|frame| frame.log_id()) || last.is_some_and(|frame| frame.chain() != found.chain) {
        return Err(wrong(format!("applied is {:?}, not {:?}", found.log_id, last.map(|frame| frame.log_id()))));
    }
    if (found.txn_id, &found.membership) != (expected.txn_id, &expected.membership) {
        return Err(wrong(format!("the state says {found:?} at entry {applied}, not txn {}", expected.txn_id)));
    }
    let read = engine.read();
    expected.compare(&read).map_err(|what| wrong(format!("at entry {applied}: {what}")))?;
    let report = check_pages(&read, &mut |_| {}).map_err(disk("check"))?;
    if !report.is_clean() {
        return Err(wrong(format!("the whole-file check at entry {applied} found {:?}", report.problems)));
    }
    if report.digest != found.digest {
        return Err(wrong(format!("the pages' digest is {}, and the state's {}", report.digest, found.digest)));
    }
    Ok(())
}
