//! What the leader knows of sessions in its term: the staged ones, as far as it has looked, and what it has told.
//!
//! Two lives. What is *staged* goes when staged batches are dropped, and is read again from the tree. What is
//! *remembered* stays as long as the term: what was told cannot be taken back.

use std::collections::{BTreeMap, HashMap};

use calamus_engine::btree::ReadError;
use calamus_engine::ids::{Term, Timeline};
use calamus_engine::txn::{Batch, BatchError};
use calamus_proto::v1::{TxnResponse, TxnSession};

use super::layout::{FIRST_SESSION_KEY, SessionId, SessionRecord, StoredOutcome, TREE};
use super::limits::SessionLimits;
use crate::error::TxnError;

/// A transaction of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct CopyOf {
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
}

impl From<TxnSession> for CopyOf {
    fn from(session: TxnSession) -> Self {
        Self { session: SessionId(session.id), sequence: session.sequence }
    }
}

/// An answer without an entry, as it was told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) fingerprint: u64,
    pub(super) answer: Result<TxnResponse, TxnError>,
}

/// What a session has stored.
#[derive(Default, Debug)]
pub(super) struct Stored {
    /// The highest of what the outcomes say to be the lowest that is unanswered.
    pub(super) floor: u64,
    /// Sequences with an outcome, and its bytes.
    pub(super) outcomes: BTreeMap<u64, usize>,
}

impl Stored {
    /// The outcomes below `floor`: how many, and their bytes.
    pub(super) fn below(&self, floor: u64) -> (usize, usize) {
        self.outcomes.range(..floor).fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes))
    }

    /// The bytes of the others.
    pub(super) fn held_bytes(&self, floor: u64) -> usize {
        self.outcomes.range(floor..).map(|(_, bytes)| bytes).sum()
    }
}

/// A session that is there, in the newest staged state.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) ttl_millis: u64,
    /// Read when it is first used.
    pub(super) stored: Option<Stored>,
}

/// What the term has seen of a session.
#[derive(Default, Debug)]
pub(super) struct Memory {
    pub(super) floor: u64,
    pub(super) last_used_micros: u64,
    pub(super) told: BTreeMap<u64, Told>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) limits: SessionLimits,
    term: Option<Term>,
    /// When the term had begun: the first time that was told in it.
    began_micros: Option<u64>,
    /// All sessions that are there are in `known`.
    listed: bool,
    /// The timeline on which they were listed. Sessions of others are over.
    timeline: Option<Timeline>,
    pub(super) known: HashMap<SessionId, Known>,
    pub(super) memory: HashMap<SessionId, Memory>,
    /// How many answers are remembered.
    remembered: usize,
}

/// Why the tree could not be read.
#[derive(Debug)]
pub(crate) enum TableError {
    Batch(BatchError),
    /// It holds what this program does not understand.
    Bad(String),
}

impl From<BatchError> for TableError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<ReadError> for TableError {
    fn from(error: ReadError) -> Self {
        Self::Batch(error.into())
    }
}

impl From<String> for TableError {
    fn from(error: String) -> Self {
        Self::Bad(error)
    }
}

impl Table {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            term: None,
            began_micros: None,
            listed: false,
            timeline: None,
            known: HashMap::new(),
            memory: HashMap::new(),
            remembered: 0,
        }
    }

    /// This node leads. If it led the same term before, what it told then still counts.
    pub(super) fn begin_term(&mut self, term: Term) {
        self.forget_staged();
        if self.term != Some(term) {
            self.term = Some(term);
            self.began_micros = None;
            self.memory.clear();
            self.remembered = 0;
        }
    }

    pub(super) fn forget_staged(&mut self) {
        self.known.clear();
        self.listed = false;
    }

    /// A session was taken out of `known` that may well be there.
    pub(super) fn unlist(&mut self) {
        self.listed = false;
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Makes sure that all sessions are known.
    pub(super) fn list(&mut self, batch: &Batch) -> Result<(), TableError> {
        if self.listed {
            return Ok(());
        }
        if let Some(mut cursor) = batch.cursor(TREE)? {
            let mut there = cursor.seek(&FIRST_SESSION_KEY)?;
            while there && let Some(id) = SessionId::from_key(cursor.key()) {
                let record = SessionRecord::decode(&cursor.value().to_vec()?)?;
                self.known.entry(id).or_insert(Known { ttl_millis: record.ttl_millis, stored: None });
                there = cursor.next()?;
            }
        }
        self.timeline = Some(batch.timeline());
        self.listed = true;
        Ok(())
    }

    /// Whether there is such a session; what it has stored is read then.
    pub(super) fn find(&mut self, batch: &Batch, id: SessionId) -> Result<bool, TableError> {
        if !id.is_of(batch.timeline()) {
            return Ok(false);
        }
        if !self.known.contains_key(&id) {
            if self.listed {
                return Ok(false);
            }
            let Some(entry) = batch.get(TREE, &id.key())? else { return Ok(false) };
            let record = SessionRecord::decode(&entry.value.to_vec()?)?;
            self.known.insert(id, Known { ttl_millis: record.ttl_millis, stored: None });
        }
        let known = self.known.get_mut(&id).expect("it is known");
        if known.stored.is_none() {
            known.stored = Some(load(batch, id)?);
        }
        Ok(true)
    }

    pub(super) fn stored(&mut self, id: SessionId) -> &mut Stored {
        self.known.get_mut(&id).and_then(|known| known.stored.as_mut()).expect("it was found")
    }

    /// A session is used, by a client that has its answers to all below `lowest`. Returns the floor.
    pub(super) fn used(&mut self, id: SessionId, lowest: u64, now_micros: u64) -> u64 {
        self.began_micros.get_or_insert(now_micros);
        let stored = self.stored(id).floor;
        let memory = self.memory.entry(id).or_default();
        memory.last_used_micros = memory.last_used_micros.max(now_micros);
        memory.floor = memory.floor.max(stored).max(lowest);
        let kept = memory.told.split_off(&memory.floor);
        self.remembered -= std::mem::replace(&mut memory.told, kept).len();
        memory.floor
    }

    /// Whether another answer can be remembered.
    pub(super) fn has_room(&self) -> bool {
        self.remembered < self.limits.remembered
    }

    /// An answer is told, or will be once it is confirmed.
    pub(super) fn remember(&mut self, copy: CopyOf, told: Told) {
        let memory = self.memory.entry(copy.session).or_default();
        self.remembered += usize::from(memory.told.insert(copy.sequence, told).is_none());
    }

    /// An answer is not told after all.
    pub(super) fn forget(&mut self, copy: CopyOf) {
        if let Some(memory) = self.memory.get_mut(&copy.session) {
            self.remembered -= usize::from(memory.told.remove(&copy.sequence).is_some());
        }
    }

    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// A session that is neither staged nor applied needs no memory: its number never comes again. Nothing is done before
    /// all that are staged are known.
    pub(super) fn sweep(&mut self, mut is_applied: impl FnMut(SessionId) -> bool) {
        if !self.listed {
            return;
        }
        let (known, remembered) = (&self.known, &mut self.remembered);
        self.memory.retain(|id, memory| {
            let stays = known.contains_key(id) || is_applied(*id);
            *remembered -= if stays { 0 } else { memory.told.len() };
            stays
        });
    }

    /// The sessions that nobody used for as long as they live.
    pub(super) fn expired(&mut self, now_micros: u64) -> impl Iterator<Item = SessionId> + '_ {
        let began = *self.began_micros.get_or_insert(now_micros);
        let (known, memory, timeline) = (&self.known, &self.memory, self.timeline);
        known.iter().filter_map(move |(id, known)| {
            let used = memory.get(id).map_or(0, |memory| memory.last_used_micros);
            let end = used.max(began).saturating_add(known.ttl_millis.saturating_mul(1_000));
            // One of before a restore is not there for anybody, and must not take the room of others.
            let elsewhere = timeline.is_some_and(|timeline| !id.is_of(timeline));
            (elsewhere || now_micros > end).then_some(*id)
        })
    }
}

fn load(batch: &Batch, id: SessionId) -> Result<Stored, TableError> {
    let mut stored = Stored::default();
    let Some(mut cursor) = batch.cursor(TREE)? else { return Ok(stored) };
    let mut there = cursor.seek(&id.outcome_key(0))?;
    while there && let Some(sequence) = id.sequence_of(cursor.key()) {
        let value = cursor.value().to_vec()?;
        stored.floor = stored.floor.max(StoredOutcome::lowest_unanswered(&value)?);
        stored.outcomes.insert(sequence, value.len());
        there = cursor.next()?;
    }
    Ok(stored)
}
