//! The newest frames, read and decoded once for all watchers of this node.
//!
//! There is a thread as long as somebody watches: it follows the journal, decodes each frame and puts it into a ring. A
//! hundred watchers cost one decoding, and a wake-up each. It ends when the last of them is gone; one that comes later
//! begins another.
//!
//! A journal that has failed, or cannot be read, yields nothing more: watchers are told what was read before, and then that,
//! so that they go on at another node; a heartbeat alone would look like a cluster on which nothing happens. Whoever comes
//! after that gets another thread, which tries again. When the node was seeded beyond what the thread had read, it begins anew
//! at what is applied.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use calamus_engine::feed::FrameChanges;
use calamus_engine::{Engine, JournalTail, LogId, LogIndex, TailCloser, TailError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::TIP_BYTES;

/// How far the tip is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Frames before this one are committed here.
    pub before: LogIndex,
    /// Why none will come behind it.
    pub ended: Option<TipEnded>,
}

/// Why the tip goes no farther.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TipEnded {
    /// The node ends.
    Closed,
    /// The journal has failed, or cannot be read.
    Failed(Arc<str>),
}

/// What the ring says of a frame.
pub enum Look {
    /// These come next, in order.
    Frames(Vec<Arc<FrameChanges>>),
    /// The ring begins behind it, so that it is to be read from the journal.
    Older,
    /// It is to come.
    ToCome,
}

#[derive(Default)]
struct Ring {
    frames: VecDeque<Arc<FrameChanges>>,
    bytes: usize,
}

/// The newest frames of a node, as long as somebody holds it.
pub struct Tip {
    ring: Mutex<Ring>,
    reached: watch::Sender<Reached>,
    /// Ends the thread's reader.
    closer: Mutex<TailCloser>,
}

impl Drop for Tip {
    fn drop(&mut self) {
        self.closer.lock().close();
    }
}

/// What a node has to find the tip that others use.
#[derive(Clone, Default)]
pub struct SharedTip(Arc<Mutex<Weak<Tip>>>);

impl SharedTip {
    /// The tip that there is, or a new one.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub fn hold(&self, engine: &Engine) -> std::io::Result<Arc<Tip>> {
        let mut current = self.0.lock();
        if let Some(tip) = current.upgrade()
            && !tip.has_failed()
        {
            return Ok(tip);
        }
        let next = next_of(engine);
        let tail = engine.tail(next);
        let (reached, _) = watch::channel(Reached { before: next, ended: None });
        let tip = Arc::new(Tip { ring: Mutex::default(), reached, closer: Mutex::new(tail.closer()) });
        let (engine, weak) = (engine.clone(), Arc::downgrade(&tip));
        std::thread::Builder::new().name("watch-tip".to_owned()).spawn(move || follow(&engine, tail, &weak))?;
        *current = Arc::downgrade(&tip);
        Ok(tip)
    }
}

/// The first frame that may not stay, as far as is known: what is before it can be read from the journal at once.
fn next_of(engine: &Engine) -> LogIndex {
    let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
    let stays = index(engine.applied().log_id).min(index(engine.log_state().durable));
    stays.map_or(LogIndex(0), LogIndex::next)
}

fn follow(engine: &Engine, mut tail: JournalTail, tip: &Weak<Tip>) {
    loop {
        let next = tail.next();
        let Some(tip) = tip.upgrade() else { return };
        match next {
            Ok(Some(frame)) => match FrameChanges::decode(frame) {
                Ok(changes) => tip.push(changes),
                // It was applied, so it is a record: this is a defect of ours, and nothing may be passed over.
                Err(error) => return tip.fail(format!("a frame cannot be read as changes: {error}")),
            },
            Ok(None) => return tip.end(TipEnded::Closed),
            Err(TailError::Storage(error)) => return tip.fail(format!("the journal yields nothing more: {error}")),
            Err(error) => {
                debug!(%error, "watches go on behind what was seeded here");
                tail = engine.tail(next_of(engine));
                *tip.closer.lock() = tail.closer();
                tip.begin_anew(tail.position());
            }
        }
    }
}

impl Tip {
    /// Tells of every move.
    pub fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// What comes from this frame on, no more than `max_bytes` and at least one.
    pub fn look(&self, next: LogIndex, max_bytes: usize) -> Look {
        let ring = self.ring.lock();
        let before = self.reached.borrow().before;
        let first = ring.frames.front().map(|frame| frame.frame().log_id().index);
        match first {
            Some(first) if first <= next => {
                let from = usize::try_from(next.0 - first.0).unwrap_or(usize::MAX).min(ring.frames.len());
                let mut bytes = 0;
                let fits = |frame: &&Arc<FrameChanges>| {
                    let room = bytes < max_bytes;
                    bytes += frame.frame().frame_bytes();
                    room
                };
                let found: Vec<_> = ring.frames.range(from..).take_while(fits).cloned().collect();
                if found.is_empty() { Look::ToCome } else { Look::Frames(found) }
            }
            _ if before <= next => Look::ToCome,
            _ => Look::Older,
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.reached.borrow().ended, Some(TipEnded::Failed(_)))
    }

    /// Adds the next frame.
    fn push(&self, changes: FrameChanges) {
        let next = changes.frame().log_id().index.next();
        let mut ring = self.ring.lock();
        ring.bytes += changes.frame().frame_bytes();
        ring.frames.push_back(Arc::new(changes));
        while ring.bytes > TIP_BYTES && ring.frames.len() > 1 {
            let gone = ring.frames.pop_front().expect("there are two");
            ring.bytes -= gone.frame().frame_bytes();
        }
        drop(ring);
        self.reached.send_modify(|reached| reached.before = next);
    }

    fn begin_anew(&self, next: LogIndex) {
        *self.ring.lock() = Ring::default();
        self.reached.send_modify(|reached| reached.before = next);
    }

    fn fail(&self, why: String) {
        warn!("watches of this node end: {why}");
        self.end(TipEnded::Failed(why.into()));
    }

    fn end(&self, why: TipEnded) {
        self.reached.send_modify(|reached| reached.ended = Some(why));
    }
}

#[cfg(test)]
mod tip_test;
