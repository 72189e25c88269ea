//! The sending side.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{SeedChunk, SeedError, SeedManifest};
use crate::engine::{Core, Engine, Pin};
use crate::ids::{LogIndex, PageNumber};
use crate::page::PAGE_BYTES;
use crate::store::{AppliedState, Store};

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
}

enum Phase {
    Manifest,
    Pages { next: u32 },
    Frames { next: u64, target: AppliedState },
    Finished,
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
        Ok(SeedSource {
            core: self.core.clone(),
            store,
            pin,
            hold_bytes,
            checkpoint,
            page_count,
            phase: Phase::Manifest,
            ready: VecDeque::new(),
            pages_sent: 0,
        })
    }
}

impl SeedSource {
    /// How many pages the stream looks at: for progress.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
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
                Phase::Pages { next } => self.read_pages(*next, max_bytes)?,
                Phase::Frames { next, target } => {
                    let (next, target) = (*next, target.clone());
                    self.read_frames(next, target, max_bytes)?;
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
        let wanted = u32::try_from((max_bytes / PAGE_BYTES).max(1)).unwrap_or(u32::MAX);
        let count = wanted.min(self.page_count - next);
        let mut buffer = vec![0; count as usize * PAGE_BYTES];
        self.store.data.copy_raw(PageNumber(next), &mut buffer)?;
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
                    self.ready.push_back(SeedChunk::Pages { first, bytes });
                    run_start = None;
                }
                _ => {}
            }
        }
        self.phase = Phase::Pages { next: next + count };
        Ok(())
    }

    fn end_pages(&mut self) -> Result<(), SeedError> {
        // Everything that was copied is of a version up to this target: it was durable before its pages were written.
        let target = {
            let meta = self.core.meta.lock();
            if meta.value.generation != self.store.generation {
                // What `node.meta` says now is of other files than those that were copied.
                return Err(SeedError::Switched);
            }
            meta.value.target.clone()
        };
        self.ready.push_back(SeedChunk::PagesDone {
            target: target.log_id,
            target_txn: target.txn_id,
            pages_sent: self.pages_sent,
        });
        let next = self.checkpoint.log_id.map_or(0, |log_id| log_id.index.0 + 1);
        self.phase = Phase::Frames { next, target };
        Ok(())
    }

    fn read_frames(&mut self, next: u64, target: AppliedState, max_bytes: usize) -> Result<(), SeedError> {
        let until = target.log_id.map_or(0, |log_id| log_id.index.0 + 1);
        if next >= until {
            self.ready.push_back(SeedChunk::Done { last: target.log_id, chain: target.chain });
            self.phase = Phase::Finished;
            return Ok(());
        }
        let read = self.store.journal.read(LogIndex(next), LogIndex(until), max_bytes);
        // A purge may have come between the look at the pin and the journal.
        let frames = read.or_else(|error| self.check_pin().and(Err(error.into())))?;
        assert!(!frames.is_empty(), "the journal is pinned from frame {next} on");
        self.phase = Phase::Frames { next: next + frames.len() as u64, target };
        self.ready.push_back(SeedChunk::Frames(frames));
        Ok(())
    }
}
