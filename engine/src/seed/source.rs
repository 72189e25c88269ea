//! The sending side.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{SeedChunk, SeedError, SeedManifest};
use crate::engine::{Core, Engine, Pin, PinError};
use crate::ids::{LogId, LogIndex, PageNumber};
use crate::page::PAGE_BYTES;
use crate::store::{AppliedState, Store, offset_of};

/// Streams this node's database. Costs the writers nothing but disk bandwidth; keeps the journal it needs pinned, up to a
/// bound.
pub struct SeedSource {
    core: Arc<Core>,
    store: Arc<Store>,
    pin: Pin,
    hold_bytes: u64,
    checkpoint: AppliedState,
    page_count: u32,
    phase: Phase,
    ready: VecDeque<SeedChunk>,
    pages_sent: u64,
    /// The next frame to send.
    next_frame: LogIndex,
    /// The frames end here at the earliest: what was copied before may be of a version up to it.
    at_least: Option<LogId>,
    until_applied: bool,
    beside: bool,
    /// So many pieces of frames may come before the next pages.
    frames_turn: u8,
}

/// At most so many pieces of frames come between two of pages: who takes over from this source must have the frames behind
/// the last one, so they are not left for later, and the pages do not wait for ever where much is written.
const FRAMES_TURN: u8 = 3;

/// Where the frames end.
#[derive(Clone, Copy)]
struct End {
    log_id: Option<LogId>,
    chain: u64,
}

enum Phase {
    Manifest,
    Pages { next: u32 },
    Frames { end: End },
    Finished,
}

/// A stream that was broken off, and goes on from another source, which may be of another node. Why both make one state:
/// [`super`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedResume {
    /// The finished checkpoint that the pages started from.
    pub checkpoint: AppliedState,
    /// The length of the data file then, in pages.
    pub page_count: u32,
    /// The first page that is still to be copied.
    pub next_page: PageNumber,
    /// How many pages were sent.
    pub pages_sent: u64,
    /// The target of the newest checkpoint, read after the last page that was copied.
    pub target: Option<LogId>,
    /// The last frame that was sent; the checkpoint's where none was.
    pub last: Option<LogId>,
    /// The chain value after it.
    pub chain: u64,
}

impl SeedResume {
    /// A stream of which everything but the manifest is still to come.
    #[must_use]
    pub fn from_manifest(manifest: &SeedManifest) -> Self {
        let SeedManifest { page_count, checkpoint, .. } = manifest.clone();
        let (last, chain) = (checkpoint.log_id, checkpoint.chain);
        Self { checkpoint, page_count, next_page: PageNumber(0), pages_sent: 0, target: None, last, chain }
    }
}

impl Engine {
    /// Begins a stream of the whole database as of now or later. The journal is kept for it up to `hold_bytes` behind
    /// the checkpoint that it begins with; a stream that is slower than that ends with [`SeedError::TooSlow`].
    #[doc(hidden)]
    pub fn seed_source(&self, hold_bytes: u64) -> Result<SeedSource, SeedError> {
        // The generation must not change between the look at the checkpoint and the look at its store.
        let _awaited = self.core.bell.await_checkpoint();
        let _still = self.core.maintenance.lock();
        let store = self.core.store();
        let (pin, checkpoint) = Pin::behind_checkpoint(&self.core, &store, "seeding", hold_bytes);
        // Read after the checkpoint: the file may have grown since, never shrunk below what frames cannot restore.
        let bytes = store.data.bytes()?;
        let page_count = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).expect("page numbers are 32 bits");
        Ok(SeedSource::new(self.core.clone(), store, pin, hold_bytes, checkpoint, page_count))
    }

    /// Goes on with a stream that was broken off, behind its manifest.
    ///
    /// # Errors
    /// [`SeedError::CannotResume`] when this node does not have what the stream needs, and why; those of the disk.
    pub fn resume_seed_source(&self, from: SeedResume, hold_bytes: u64) -> Result<SeedSource, SeedError> {
        let _awaited = self.core.bell.await_checkpoint();
        let _still = self.core.maintenance.lock();
        let store = self.core.store();
        let SeedResume { checkpoint, page_count, next_page, pages_sent, target, last, chain } = from;
        let cannot = |what: String| Err(SeedError::CannotResume(what));
        let known = store.journal.last();
        if page_count < next_page.0 || last < checkpoint.log_id {
            return cannot("what was received contradicts itself".into());
        }
        if last.map(|last| last.index) > known.map(|known| known.index) {
            return cannot(format!("it broke off with frame {}, and this node has {}", shown(last), shown(known)));
        }
        let next_frame = last.map_or(LogIndex(0), |log_id| log_id.index.next());
        let pin = match Pin::at(&self.core, &store, "seeding", next_frame, hold_bytes) {
            Ok(pin) => pin,
            Err(PinError::Purged { oldest, .. }) => {
                return cannot(format!(
                    "it goes on with frame {next_frame}, and the journal begins with frame {oldest}"
                ));
            }
            Err(error) => return cannot(error.to_string()),
        };
        if !has(&store, last, chain) {
            return cannot(format!("the journal does not have the frame {} with which it broke off", shown(last)));
        }
        let finished = self.core.meta.lock().value.checkpoint.log_id;
        if next_page.0 < page_count && finished < checkpoint.log_id {
            let (here, there) = (shown(finished), shown(checkpoint.log_id));
            return cannot(format!("this node's checkpoint is at {here}, and it began with one at {there}"));
        }
        let stays = durable_and_applied(&store).log_id;
        // Of what is purged here, the chain value of a later frame has told that it is the same.
        let other =
            target.and_then(|log_id| store.journal.log_id(log_id.index)).is_some_and(|here| Some(here) != target);
        if other || stays < target.max(last) {
            let (here, there) = (shown(stays), shown(target.max(last)));
            return cannot(format!("it has come as far as {there}, and this node has applied {here}"));
        }
        let begun = SeedSource::new(self.core.clone(), store, pin, hold_bytes, checkpoint, page_count);
        let phase = Phase::Pages { next: next_page.0 };
        Ok(SeedSource { phase, pages_sent, next_frame, at_least: target.max(last), ..begun })
    }
}

/// A position, for people.
fn shown(log_id: Option<LogId>) -> String {
    log_id.map_or_else(|| "its beginning".to_owned(), |log_id| log_id.to_string())
}

/// Whether the journal has this frame, or begins right behind it, with this chain value.
fn has(store: &Store, last: Option<LogId>, chain: u64) -> bool {
    let kept = store.journal.first_kept();
    match last {
        Some(log_id) if kept.previous != last => {
            store.journal.log_id(log_id.index) == Some(log_id) && store.journal.chain(log_id.index) == Some(chain)
        }
        _ => kept.previous == last && kept.chain == chain,
    }
}

/// The last entry that is both applied and durable here.
fn durable_and_applied(store: &Store) -> End {
    let applied = store.head.lock().view.applied.clone();
    match store.journal.durable() {
        Some(durable) if Some(durable.index) < applied.log_id.map(|log_id| log_id.index) => {
            let chain = store.journal.chain(durable.index).expect("the journal knows its last frames");
            End { log_id: Some(durable), chain }
        }
        _ => End { log_id: applied.log_id, chain: applied.chain },
    }
}

impl SeedSource {
    /// A stream from its beginning on.
    fn new(
        core: Arc<Core>,
        store: Arc<Store>,
        pin: Pin,
        hold_bytes: u64,
        checkpoint: AppliedState,
        page_count: u32,
    ) -> Self {
        let next_frame = checkpoint.log_id.map_or(LogIndex(0), |log_id| log_id.index.next());
        Self {
            core,
            store,
            pin,
            hold_bytes,
            checkpoint,
            page_count,
            phase: Phase::Manifest,
            ready: VecDeque::new(),
            pages_sent: 0,
            next_frame,
            at_least: None,
            until_applied: false,
            beside: false,
            frames_turn: 0,
        }
    }

    /// How many pages the stream looks at: for progress.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The finished checkpoint that the stream starts from.
    #[must_use]
    pub fn checkpoint(&self) -> &AppliedState {
        &self.checkpoint
    }

    /// The target of the newest checkpoint now, or that of the stream that this one goes on with if it is later: what was
    /// copied so far is of a version up to it.
    ///
    /// # Errors
    /// [`SeedError::Switched`] when this node was seeded itself meanwhile.
    pub fn target(&self) -> Result<Option<LogId>, SeedError> {
        Ok(self.newest_target()?.log_id.max(self.at_least))
    }

    /// Lets the frames go on to what is applied and durable when the last page was read, and not only to the newest
    /// checkpoint's target.
    #[must_use]
    pub fn until_applied(mut self) -> Self {
        self.until_applied = true;
        self
    }

    /// Sends frames between the pages, as they are committed, and goes on to what is applied and durable when the last page
    /// was read. The journal before them is let go.
    #[must_use]
    pub fn frames_beside(self) -> Self {
        Self { beside: true, until_applied: true, ..self }
    }

    /// The next piece, of about `max_bytes` at most; `None` after the last.
    ///
    /// # Errors
    /// [`SeedError::TooSlow`] when the journal was not kept any longer, [`SeedError::Switched`] when this node was seeded
    /// itself; those of the disk.
    pub fn next(&mut self, max_bytes: usize) -> Result<Option<SeedChunk>, SeedError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            self.check_pin()?;
            match &self.phase {
                Phase::Manifest => {
                    let manifest = SeedManifest {
                        database_id: self.core.database_id,
                        page_count: self.page_count,
                        checkpoint: self.checkpoint.clone(),
                    };
                    self.phase = Phase::Pages { next: 0 };
                    return Ok(Some(SeedChunk::Manifest(manifest.encode())));
                }
                Phase::Pages { .. } if self.frames_turn > 0 => {
                    let end = durable_and_applied(&self.store);
                    let any = self.read_frames(end, max_bytes)?;
                    self.frames_turn = if any { self.frames_turn - 1 } else { 0 };
                }
                Phase::Pages { next } => {
                    self.frames_turn = if self.beside { FRAMES_TURN } else { 0 };
                    self.read_pages(*next, max_bytes)?;
                }
                Phase::Frames { end } => {
                    let end = *end;
                    if !self.read_frames(end, max_bytes)? {
                        self.ready.push_back(SeedChunk::Done { last: end.log_id, chain: end.chain });
                        self.phase = Phase::Finished;
                    }
                }
                Phase::Finished => return Ok(None),
            }
        }
    }

    fn check_pin(&self) -> Result<(), SeedError> {
        let needs_journal = !matches!(self.phase, Phase::Finished);
        if needs_journal && self.pin.check().is_err() {
            return Err(SeedError::TooSlow { hold_bytes: self.hold_bytes });
        }
        Ok(())
    }

    fn read_pages(&mut self, next: u32, max_bytes: usize) -> Result<(), SeedError> {
        if next >= self.page_count {
            return self.end_pages();
        }
        if self.store.data.bytes()? <= offset_of(PageNumber(next)) {
            // The file was cut, or is another one's: all the rest is free.
            self.phase = Phase::Pages { next: self.page_count };
            return Ok(());
        }
        let wanted = u32::try_from((max_bytes / PAGE_BYTES).max(1)).unwrap_or(u32::MAX);
        let count = wanted.min(self.page_count - next);
        let mut buffer = vec![0; count as usize * PAGE_BYTES];
        self.store.data.copy_raw(PageNumber(next), &mut buffer)?;
        let target = self.target()?;
        let buffer = Bytes::from(buffer);
        let mut run_start = None;
        for place in 0..=count as usize {
            let page = buffer.get(place * PAGE_BYTES..(place + 1) * PAGE_BYTES);
            let filled = page.is_some_and(|page| page.iter().any(|byte| *byte != 0));
            match (filled, run_start) {
                (true, None) => run_start = Some(place),
                (false, Some(start)) => {
                    let first = PageNumber(next + u32::try_from(start).expect("a page of this chunk"));
                    self.pages_sent += (place - start) as u64;
                    let bytes = buffer.slice(start * PAGE_BYTES..place * PAGE_BYTES);
                    self.ready.push_back(SeedChunk::Pages { first, bytes, target });
                    run_start = None;
                }
                _ => {}
            }
        }
        if self.ready.is_empty() {
            // Free pages as far as one sees: whoever waits hears that there is somebody, and may say that he has gone.
            self.ready.push_back(SeedChunk::Frames(Vec::new()));
        }
        self.phase = Phase::Pages { next: next + count };
        Ok(())
    }

    fn newest_target(&self) -> Result<AppliedState, SeedError> {
        let meta = self.core.meta.lock();
        if meta.value.generation != self.store.generation {
            // What `node.meta` says now is of other files than those that were copied.
            return Err(SeedError::Switched);
        }
        Ok(meta.value.target.clone())
    }

    fn end_pages(&mut self) -> Result<(), SeedError> {
        // Everything that was copied is of a version up to this target: it was durable before its pages were written.
        let target = self.newest_target()?;
        let mut end = End { log_id: target.log_id, chain: target.chain };
        if self.until_applied || self.at_least > end.log_id {
            let stays = durable_and_applied(&self.store);
            assert!(stays.log_id >= end.log_id.max(self.at_least), "target <= min(applied, durable here)");
            end = stays;
        }
        self.ready.push_back(SeedChunk::PagesDone {
            target: end.log_id,
            target_txn: target.txn_id,
            pages_sent: self.pages_sent,
        });
        self.phase = Phase::Frames { end };
        Ok(())
    }

    /// Reads frames up to `end`. Returns whether there were any.
    fn read_frames(&mut self, end: End, max_bytes: usize) -> Result<bool, SeedError> {
        let (next, until) = (self.next_frame, end.log_id.map_or(LogIndex(0), |log_id| log_id.index.next()));
        if next >= until {
            return Ok(false);
        }
        let read = self.store.journal.read(next, until, max_bytes);
        // A purge may have come between the look at the pin and the journal.
        let frames = read.or_else(|error| self.check_pin().and(Err(error.into())))?;
        assert!(!frames.is_empty(), "the journal is pinned from frame {next} on");
        self.next_frame = LogIndex(next.0 + frames.len() as u64);
        // Whether it was lost is looked at before the journal is read again; these frames were read.
        let _ = self.pin.advance(self.next_frame);
        self.ready.push_back(SeedChunk::Frames(frames));
        Ok(true)
    }
}
