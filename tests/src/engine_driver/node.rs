//! One engine on a simulated disk, and what it should hold.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use calamus_engine::env::{CrashChoice, Disk, OpenMode, SimDisk};
use calamus_engine::ids::{DatabaseId, LogId, LogIndex, TxnId};
use calamus_engine::journal::CHAIN_START;
use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use calamus_engine::{Applied, Batch, BatchError, Engine, EngineOptions, Published, ReadTxn, Vote};
use parking_lot::Mutex;

use super::promise::{Promise, check_state, open_checked};
use super::{Stop, changes, disk, feed, identity, wrong};
use crate::oracle::{Entry, State, common, state_at};

/// The database of every test here.
pub const DATABASE: DatabaseId = DatabaseId(9);

/// A batch that was executed and is in no frame yet.
pub struct Unsent {
    payload: Payload,
    builds_on: TxnId,
    after: Arc<State>,
}

/// An engine, and what it should hold.
pub struct Node {
    /// Its directory.
    pub place: PathBuf,
    /// Its disk.
    pub sim: SimDisk,
    /// The door that the engine goes through: the disk, or something around it.
    pub door: Arc<dyn Disk>,
    /// For every opening.
    pub options: EngineOptions,
    /// `None` while the power is off.
    engine: Option<Engine>,
    /// The log that the engine was asked to hold.
    pub log: Vec<Arc<Entry>>,
    /// So many entries of it are applied.
    pub applied: usize,
    /// Long readers, and what each must go on showing.
    pub readers: Vec<(ReadTxn, Arc<State>)>,
    /// What a power cut now may leave.
    pub promise: Arc<Mutex<Promise>>,
    staged: VecDeque<(Payload, Arc<State>)>,
    unsent: Vec<Unsent>,
    power_ends_at: Option<u64>,
    executed: bool,
}

impl Node {
    /// Makes a database. `door` leads to `sim`, and `promise` is what a hook of it may look at.
    pub fn create(
        sim: SimDisk,
        door: Arc<dyn Disk>,
        raft_id: u64,
        options: EngineOptions,
        promise: Arc<Mutex<Promise>>,
    ) -> Result<Self, Stop> {
        let mut node = Self::closed(sim, door, options, promise);
        let made = Engine::create(node.door.clone(), &node.place, &identity(raft_id), DATABASE, options);
        node.engine = Some(made.map_err(disk("create"))?);
        node.promise.lock().created = true;
        Ok(node)
    }

    /// A node of which nothing is open yet.
    #[must_use]
    pub fn closed(sim: SimDisk, door: Arc<dyn Disk>, options: EngineOptions, promise: Arc<Mutex<Promise>>) -> Self {
        Self {
            place: PathBuf::from("/db"),
            sim,
            door,
            options,
            engine: None,
            log: Vec::new(),
            applied: 0,
            readers: Vec::new(),
            promise,
            staged: VecDeque::new(),
            unsent: Vec::new(),
            power_ends_at: None,
            executed: false,
        }
    }

    /// The engine.
    ///
    /// # Panics
    /// When the power is off.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the power is on")
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.engine.is_some()
    }

    /// The state that the next batch builds on.
    #[must_use]
    pub fn newest(&self) -> Arc<State> {
        self.staged.back().map_or_else(|| state_at(&self.log, self.applied), |(_, state)| state.clone())
    }

    /// Notes what the node is asked to do.
    pub fn does(&self, what: &'static str) {
        self.promise.lock().doing = what;
    }

    /// How many batches are staged and in no frame.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whether what is staged follows the end of the log: a record in it that was not staged here, or is no longer, will
    /// change what the staged batches should build on.
    #[must_use]
    pub fn chain_is_whole(&self) -> bool {
        let waiting = self.log[self.applied..].iter().filter(|entry| entry.frame.kind() == FrameKind::Record);
        let sent = self.staged.iter().take(self.staged.len() - self.unsent.len());
        waiting.map(|entry| entry.frame.payload()).eq(sent.map(|(payload, _)| payload))
    }

    /// Executes a batch; `work` does the same to the engine and to the model. False if it changed nothing, or did not
    /// fit a frame.
    pub fn stage(&mut self, work: &mut dyn FnMut(&mut Batch, &mut State) -> Result<(), Stop>) -> Result<bool, Stop> {
        self.executed = true;
        let before = self.newest();
        let mut batch = match self.engine().begin_batch() {
            Err(BatchError::ForgottenReader { .. } | BatchError::NoMemory { .. }) => {
                self.readers.clear();
                if !self.staged.is_empty() {
                    return Ok(false);
                }
                self.checkpoint()?;
                self.engine().begin_batch().map_err(disk("begin a batch after a checkpoint"))?
            }
            other => other.map_err(disk("begin a batch"))?,
        };
        if batch.builds_on() != before.txn_id {
            return Err(wrong(format!("the batch builds on {}, not {}", batch.builds_on(), before.txn_id)));
        }
        let mut after = (*before).clone();
        work(&mut batch, &mut after)?;
        let wall_time = 1_000 + after.txn_id.0;
        let staged = match batch.seal(wall_time) {
            Ok(Some(staged)) => staged,
            Ok(None) if after.txn_id == before.txn_id => return Ok(false),
            Ok(None) => return Err(wrong("a batch that changed something has no record")),
            Err(BatchError::TooLarge { .. }) => return Ok(false),
            Err(error) => return Err(disk("seal")(error)),
        };
        if (staged.builds_on, staged.last_txn) != (before.txn_id, after.txn_id) {
            return Err(wrong(format!("the record goes from {} to {}", staged.builds_on, staged.last_txn)));
        }
        let after = Arc::new(after);
        self.staged.push_back((staged.payload.clone(), after.clone()));
        self.unsent.push(Unsent { payload: staged.payload, builds_on: staged.builds_on, after });
        Ok(true)
    }

    /// Drops what is staged, as after a refusal.
    pub fn drop_staged(&mut self) {
        self.engine().drop_staged();
        self.staged.clear();
        self.unsent.clear();
    }

    /// Encodes the staged batches that are in no frame yet, as the next entries of the log.
    pub fn frames(&mut self, term: u64, committed: usize) -> Vec<Arc<Entry>> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for Unsent { payload, builds_on, after } in std::mem::take(&mut self.unsent) {
            let frame = self.next_frame(&entries, FrameKind::Record, term, committed, payload);
            let before = entries.last().map_or_else(|| state_at(&self.log, self.log.len()), |last| last.state.clone());
            entries.push(Arc::new(Entry::record(frame, &before, builds_on, &after)));
        }
        entries
    }

    /// Encodes a blank entry or a membership as the next entry of the log.
    #[must_use]
    pub fn other_frame(&self, kind: FrameKind, term: u64, committed: usize, bytes: Vec<u8>) -> Arc<Entry> {
        let frame = self.next_frame(&[], kind, term, committed, Payload::new(bytes.into()));
        Arc::new(Entry::other(frame, &state_at(&self.log, self.log.len())))
    }

    fn next_frame(
        &self,
        behind: &[Arc<Entry>],
        kind: FrameKind,
        term: u64,
        committed: usize,
        payload: Payload,
    ) -> Frame {
        let index = self.log.len() + behind.len();
        let last = behind.last().or(self.log.last());
        let chain = last.map_or(CHAIN_START, |last| last.frame.chain());
        let commit = committed.checked_sub(1).map(|index| LogIndex(index as u64));
        Frame::encode(kind, LogId::new(term, index as u64), commit, chain, payload)
    }

    /// Appends entries; they are acknowledged when this returns.
    pub fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), Stop> {
        self.does("append");
        let frames = entries.iter().map(|entry| entry.frame.clone()).collect();
        self.log.extend_from_slice(entries);
        self.promise.lock().log_becomes(&self.log);
        let (done, heard) = mpsc::channel();
        let (promise, log) = (self.promise.clone(), self.log.clone());
        let acknowledged = move |result: Result<(), _>| {
            if result.is_ok() {
                promise.lock().log_is(log);
            }
            // Nobody listens only if `append` has failed already.
            let _ = done.send(result);
        };
        self.engine().append(frames, Box::new(acknowledged)).map_err(disk("append"))?;
        heard.recv().map_err(disk("append"))?.map_err(disk("append"))
    }

    /// Removes all but the first `keep` entries of the log.
    pub fn cut(&mut self, keep: usize) -> Result<(), Stop> {
        self.does("cut");
        self.log.truncate(keep);
        self.promise.lock().log_becomes(&self.log);
        let last = self.log.last().map(|entry| entry.frame.log_id());
        let (done, heard) = mpsc::channel();
        let (promise, log) = (self.promise.clone(), self.log.clone());
        let acknowledged = move |result: Result<(), _>| {
            if result.is_ok() {
                promise.lock().log_is(log);
            }
            let _ = done.send(result);
        };
        self.engine().cut_after(last, Box::new(acknowledged)).map_err(disk("cut"))?;
        heard.recv().map_err(disk("cut"))?.map_err(disk("cut"))
    }

    /// Saves a vote.
    pub fn vote(&mut self, vote: Vote) -> Result<(), Stop> {
        self.does("vote");
        self.promise.lock().votes.push(Some(vote));
        let (done, heard) = mpsc::channel();
        let promise = self.promise.clone();
        let acknowledged = move |result: Result<(), _>| {
            if result.is_ok() {
                promise.lock().votes = vec![Some(vote)];
            }
            let _ = done.send(result);
        };
        self.engine().save_vote(vote, Box::new(acknowledged)).map_err(disk("vote"))?;
        heard.recv().map_err(disk("vote"))?.map_err(disk("vote"))
    }

    /// Applies committed entries until `upto` of them are.
    pub fn apply(&mut self, upto: usize) -> Result<(), Stop> {
        while self.applied < upto.min(self.log.len()) {
            let entry = self.log[self.applied].clone();
            let found = self.engine().apply(&entry.frame).map_err(disk("apply"))?;
            let is_head = self.staged.front().is_some_and(|(payload, _)| payload == entry.frame.payload());
            let fits = match (entry.frame.kind(), found) {
                (FrameKind::Blank, Applied::Blank) | (FrameKind::Membership, Applied::Membership) => true,
                (FrameKind::Record, Applied::Void) => entry.void,
                (FrameKind::Record, Applied::Record { last_txn, how, .. }) => {
                    let staged = matches!(how, Published::Staged(_));
                    !entry.void && last_txn == entry.state.txn_id && staged == is_head
                }
                _ => false,
            };
            if !fits {
                return Err(wrong(format!("applying {} gave {found:?}", entry.frame.log_id())));
            }
            if entry.frame.kind() == FrameKind::Record && !entry.void {
                feed::check(entry.frame.payload().bytes(), &state_at(&self.log, self.applied), &entry.state)?;
            }
            if entry.frame.kind() == FrameKind::Record {
                if is_head {
                    self.staged.pop_front();
                } else {
                    // Not the head of what is staged: the engine drops it all, and so would the merger.
                    self.staged.clear();
                    self.unsent.clear();
                }
            }
            self.applied += 1;
        }
        let newest = self.newest().txn_id;
        match self.engine().staged() {
            staged if staged.newest_txn == newest && staged.batches == self.staged.len() => Ok(()),
            staged => Err(wrong(format!("{staged:?}, not {} batches up to {newest}", self.staged.len()))),
        }
    }

    /// Runs a checkpoint.
    pub fn checkpoint(&mut self) -> Result<(), Stop> {
        self.does("checkpoint");
        let report = self.engine().checkpoint().map_err(disk("checkpoint"))?;
        let at = report.at.map_or(0, |at| at.index.0 as usize + 1);
        let oldest = self.readers.iter().map(|(read, _)| read.txn_id()).min();
        if oldest.is_none() && at != self.applied {
            return Err(wrong(format!("a checkpoint without readers went to {at} of {}", self.applied)));
        }
        let mut promise = self.promise.lock();
        promise.remains.iter_mut().for_each(|remains| {
            remains.checkpointed = at;
            remains.applied = remains.applied.max(at);
        });
        Ok(())
    }

    /// Lets the journal go up to `upto` entries, at the next checkpoint.
    pub fn purge(&mut self, upto: usize) -> Result<(), Stop> {
        let Some(last) = upto.checked_sub(1) else { return Ok(()) };
        self.does("purge");
        let mut promise = self.promise.lock();
        promise.purged = promise.purged.max(upto);
        drop(promise);
        self.engine().purge(self.log[last].frame.log_id()).map_err(disk("purge"))
    }

    /// Opens a long reader.
    pub fn open_reader(&mut self) {
        let read = self.engine().read();
        self.readers.push((read, state_at(&self.log, self.applied)));
    }

    /// Every long reader shows what it showed at first, or says that it is expired: but only one that is in the way of
    /// checkpoints.
    pub fn check_readers(&mut self) -> Result<(), Stop> {
        let (checkpointed, applied) = (self.engine().checkpointed().txn_id, self.engine().applied().txn_id);
        for (read, state) in &self.readers {
            let in_the_way = read.txn_id() <= checkpointed && read.txn_id() < applied;
            match state.compare(read) {
                Ok(()) => {}
                Err(what) if what.contains("expired") && in_the_way => {}
                Err(what) => return Err(wrong(format!("a reader of txn {}: {what}", read.txn_id()))),
            }
        }
        Ok(())
    }

    /// The scrub takes nothing of what is on the disk for damage.
    fn scrub(&self) -> Result<(), Stop> {
        let report = self.engine().scrub_now().map_err(disk("scrub"))?;
        if report.found > 0 {
            return Err(wrong(format!(
                "the scrub says that of {report:?} this is damaged: {:?}",
                self.engine().damaged()
            )));
        }
        Ok(())
    }

    /// Contents, checks and digest against the model.
    pub fn check(&mut self) -> Result<(), Stop> {
        check_state(self.engine(), &self.log, self.applied)?;
        // A pass ends behind a checkpoint that runs, and one that hangs never ends.
        if !self.engine().is_checkpointing() {
            self.scrub()?;
        }
        let mutations = self.engine().status().tree_mutations;
        if !self.executed && mutations > 0 {
            return Err(wrong(format!("a node that only followed mutated trees {mutations} times")));
        }
        Ok(())
    }

    /// The data file as it is.
    pub fn data_file(&self) -> Result<Vec<u8>, Stop> {
        let path = self.place.join(format!("g{}", self.engine().status().generation)).join("data");
        read_file(&*self.door, &path)
    }

    /// What seeding or recovery brought.
    pub fn becomes(&mut self, log: Vec<Arc<Entry>>, applied: usize) {
        (self.log, self.applied) = (log, applied);
        self.staged.clear();
        self.unsent.clear();
    }

    /// Lets the power go after so many operations.
    pub fn power_ends_after(&mut self, operations: u64) {
        self.sim.crash_after(operations);
        self.power_ends_at = Some(self.sim.operation_count() + operations);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn power_is_gone(&self) -> bool {
        self.power_ends_at.is_some_and(|end| self.sim.operation_count() >= end)
    }

    /// Whether it will go.
    #[must_use]
    pub fn power_will_go(&self) -> bool {
        self.power_ends_at.is_some()
    }

    /// The power is back: what is left is in the place of the disk. Nothing is open.
    pub fn power_cut(&mut self, choice: CrashChoice) {
        self.readers.clear();
        self.engine = None;
        self.sim = self.sim.crash(choice);
        self.door = Arc::new(self.sim.clone());
        self.power_ends_at = None;
    }

    /// Closes and opens again.
    pub fn reopen(&mut self) -> Result<(), Stop> {
        self.close();
        self.open()
    }

    /// Opens what is left, and holds it against what was promised.
    pub fn open(&mut self) -> Result<(), Stop> {
        self.does("open");
        let promise = self.promise.lock().clone();
        let reopened = open_checked(&self.door, &self.place, self.options, &promise)?;
        self.engine = Some(reopened.engine);
        self.executed = false;
        self.becomes(reopened.log, reopened.applied);
        let mut promise = self.promise.lock();
        promise.log_is(self.log.clone());
        promise.remains[0].checkpointed = self.engine().checkpointed().log_id.map_or(0, |id| id.index.0 as usize + 1);
        promise.remains[0].applied = promise.remains[0].checkpointed;
        promise.votes = vec![self.engine().vote()];
        Ok(())
    }

    /// Goes on working, as the only node: applies what is committed, keeps or cuts the rest, writes, takes a
    /// checkpoint, is closed and opened again.
    pub fn go_on(&mut self, keep_tail: bool) -> Result<(), Stop> {
        let committed = common(&self.promise.lock().truth, &self.log);
        self.apply(committed)?;
        if self.log.len() > committed && !keep_tail {
            self.cut(committed)?;
        }
        let term = 1_000 + self.log.last().map_or(0, |entry| entry.frame.log_id().term.0);
        let blank = self.other_frame(FrameKind::Blank, term, committed, Vec::new());
        self.append(&[blank])?;
        self.promise.lock().truth.clone_from(&self.log);
        self.apply(self.log.len())?;
        self.stage(&mut |batch, state| {
            let version = batch.begin_txn();
            batch.create_tree("goes on").map_err(disk("create tree"))?;
            state.trees.entry("goes on".into()).or_default();
            for (number, length) in [(1, 40), (2, 3_000), (3, 20_000)] {
                changes::put(batch, state, "goes on", number, vec![7; length], version)?;
            }
            batch.commit_txn();
            state.txn_id = version;
            Ok(())
        })?;
        let entries = self.frames(term, committed);
        self.append(&entries)?;
        self.promise.lock().truth.clone_from(&self.log);
        self.apply(self.log.len())?;
        self.checkpoint()?;
        self.check()?;
        self.reopen()
    }

    /// Closes.
    pub fn close(&mut self) {
        self.does("close");
        self.readers.clear();
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
    }
}

/// A whole file.
pub fn read_file(door: &dyn Disk, path: &Path) -> Result<Vec<u8>, Stop> {
    let file = door.open(path, OpenMode::Read).map_err(disk("open"))?;
    let length = usize::try_from(file.len().map_err(disk("length"))?).map_err(disk("length"))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(disk("read"))?;
    Ok(bytes)
}
