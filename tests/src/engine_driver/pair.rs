//! A leader and a follower, driven as a consensus drives them. A third voter, which is not there, may grant commits and
//! terms: so an entry may be committed without the follower, and the leader may change while entries are underway.

use std::sync::Arc;

use calamus_engine::Vote;
use calamus_engine::env::CrashChoice;
use calamus_engine::ids::{LogIndex, RaftId, Term};
use calamus_engine::journal::frame::FrameKind;
use calamus_engine::seed::{SeedChunk, VerifiedSeed};

use super::node::Node;
use super::promise::Remains;
use super::{Stop, disk, wrong};
use crate::oracle::{Entry, common};

/// Two nodes and the truth.
pub struct Pair {
    /// The nodes.
    pub nodes: [Node; 2],
    /// Which of them leads.
    pub leader: usize,
    /// Its term.
    pub term: u64,
    /// What is committed, for ever.
    pub truth: Vec<Arc<Entry>>,
}

impl Pair {
    /// Two new nodes; the first leads term 1.
    #[must_use]
    pub fn new(nodes: [Node; 2]) -> Self {
        Self { nodes, leader: 0, term: 1, truth: Vec::new() }
    }

    /// The leader.
    pub fn leader(&mut self) -> &mut Node {
        &mut self.nodes[self.leader]
    }

    /// The other.
    pub fn follower(&mut self) -> &mut Node {
        &mut self.nodes[1 - self.leader]
    }

    /// Appends the staged batches on the leader: together, or one by one.
    pub fn send(&mut self, together: bool) -> Result<(), Stop> {
        let (term, committed) = (self.term, self.truth.len());
        let entries = self.leader().frames(term, committed);
        if together && !entries.is_empty() {
            return self.leader().append(&entries);
        }
        entries.iter().try_for_each(|entry| self.leader().append(std::slice::from_ref(entry)))
    }

    /// Appends a blank entry or a membership on the leader. What is staged and not sent comes first.
    pub fn send_other(&mut self, kind: FrameKind, bytes: Vec<u8>) -> Result<(), Stop> {
        self.send(true)?;
        let (term, committed) = (self.term, self.truth.len());
        let entry = self.leader().other_frame(kind, term, committed, bytes);
        self.leader().append(&[entry])
    }

    /// Brings up to `most` of the leader's entries to the follower, which cuts what it has of another history.
    pub fn replicate(&mut self, most: usize) -> Result<(), Stop> {
        let leader = self.leader;
        let (log, follower_log) = (&self.nodes[leader].log, &self.nodes[1 - leader].log);
        let shared = common(log, follower_log);
        let wanted = log[shared..log.len().min(shared.saturating_add(most))].to_vec();
        let conflict = follower_log.len() > shared && !wanted.is_empty();
        if let Some(first) = wanted.first() {
            let index = first.frame.log_id().index;
            let purged = self.nodes[leader].engine().log_state().last_purged;
            if purged.is_some_and(|purged| purged.index >= index) {
                return self.seed(&mut |_, _| Ok(()));
            }
            self.check_sent(&wanted)?;
        }
        if conflict {
            self.follower().cut(shared)?;
        }
        if wanted.is_empty() { Ok(()) } else { self.follower().append(&wanted) }
    }

    /// The leader reads the same frames from its journal.
    fn check_sent(&mut self, wanted: &[Arc<Entry>]) -> Result<(), Stop> {
        let mut at = wanted[0].frame.log_id().index;
        let end = LogIndex(at.0 + wanted.len() as u64);
        let mut entries = wanted.iter();
        while at < end {
            for frame in self.leader().engine().read_frames(at, end, 64 << 10).map_err(disk("read frames"))? {
                if entries.next().is_none_or(|entry| entry.frame != frame) {
                    return Err(wrong(format!("frame {} reads otherwise than it was appended", frame.log_id())));
                }
                at = at.next();
            }
        }
        Ok(())
    }

    /// Commits up to `upto` of the leader's entries, which are durable there.
    pub fn commit(&mut self, upto: usize) {
        let log = &self.nodes[self.leader].log;
        let upto = upto.min(log.len());
        if upto > self.truth.len() {
            self.truth.extend_from_slice(&log[self.truth.len()..upto]);
        }
        for node in &self.nodes {
            node.promise.lock().truth.clone_from(&self.truth);
        }
    }

    /// How many of a node's entries are known committed.
    #[must_use]
    pub fn committed_on(&self, node: usize) -> usize {
        common(&self.truth, &self.nodes[node].log)
    }

    /// Applies up to `most` more committed entries on a node.
    pub fn apply(&mut self, node: usize, most: usize) -> Result<(), Stop> {
        let upto = self.committed_on(node).min(self.nodes[node].applied.saturating_add(most));
        self.nodes[node].apply(upto)
    }

    /// Whether a node may lead: it has all that is committed.
    #[must_use]
    pub fn may_lead(&self, node: usize) -> bool {
        self.committed_on(node) == self.truth.len()
    }

    /// A node begins to lead a new term, with a blank entry. What it had not applied it applies at leisure.
    pub fn elect(&mut self, node: usize) -> Result<(), Stop> {
        assert!(self.may_lead(node));
        self.nodes.iter_mut().for_each(Node::drop_staged);
        self.leader = node;
        self.term += 1;
        let vote = Vote { term: Term(self.term), node: Some(RaftId(node as u64 + 1)), committed: true };
        self.leader().vote(vote)?;
        // Nobody takes frames of a term before its vote says so.
        self.follower().vote(vote)?;
        self.send_other(FrameKind::Blank, Vec::new())
    }

    /// Seeds the follower from the leader; `between` runs between the chunks.
    pub fn seed(&mut self, between: &mut dyn FnMut(&mut Self, u32) -> Result<(), Stop>) -> Result<(), Stop> {
        self.seed_cut(u32::MAX, between)
    }

    /// As [`Self::seed`], but the stream is cut behind each `pieces`, at least two, and goes on from there; and what was verified goes on
    /// once more, with what was committed since. With [`u32::MAX`] there is one stream, and nothing more.
    pub fn seed_cut(
        &mut self,
        pieces: u32,
        between: &mut dyn FnMut(&mut Self, u32) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        // The first piece may only say again that the pages are complete.
        assert!(pieces > 1);
        let cut = pieces < u32::MAX;
        let leader = self.leader;
        // So that the stream is not behind what the follower has applied.
        self.apply(leader, usize::MAX)?;
        self.leader().readers.clear();
        self.leader().checkpoint()?;
        let mut source = self.leader().engine().seed_source(u64::MAX).map_err(disk("seed source"))?;
        let mut receiver = self.follower().engine().seed_receiver().map_err(disk("seed receiver"))?;
        let mut chunks = 0;
        let mut count = 0;
        self.follower().does("seed");
        let mut again = cut;
        loop {
            source = if cut { source.frames_beside() } else { source };
            while let Some(chunk) = source.next(32 << 10).map_err(disk("seed source"))? {
                if let SeedChunk::Done { last, .. } = &chunk {
                    count = last.map_or(0, |last| last.index.0 as usize + 1);
                }
                receiver.feed(chunk).map_err(disk("seed"))?;
                between(self, chunks)?;
                chunks += 1;
                if cut && chunks.is_multiple_of(pieces) {
                    break;
                }
            }
            if count > 0 {
                if !std::mem::take(&mut again) {
                    break;
                }
                receiver = receiver.verify().and_then(VerifiedSeed::reopen).map_err(disk("reopen"))?;
                self.send_other(FrameKind::Blank, Vec::new())?;
                self.commit(usize::MAX);
                self.apply(leader, usize::MAX)?;
                count = 0;
            }
            drop(source);
            let resume = receiver.resume().ok_or_else(|| wrong("nothing was received".to_owned()))?;
            source = self.leader().engine().resume_seed_source(resume, u64::MAX).map_err(disk("resume"))?;
        }
        drop(source);
        let old = self.follower().log.clone();
        let mut log = self.nodes[leader].log[..count].to_vec();
        if common(&log, &old) == count {
            log.extend_from_slice(&old[count..]);
        }
        let new = Remains { at_least: log.len(), log: log.clone(), checkpointed: 0, applied: count };
        {
            let mut promise = self.follower().promise.lock();
            promise.remains.push(new.clone());
            promise.purged = promise.purged.max(count);
        }
        let applied = receiver.finish().map_err(disk("finish seeding"))?;
        if applied.log_id.map_or(0, |id| id.index.0 as usize + 1) != count {
            return Err(wrong(format!("seeded up to {:?}, not {count}", applied.log_id)));
        }
        self.follower().promise.lock().remains = vec![new];
        self.follower().becomes(log, count);
        self.follower().check()
    }

    /// The power of a node goes and comes back; `again` lets it go once more within recovery, after so many operations.
    pub fn power_cut(&mut self, node: usize, choice: CrashChoice, again: Option<u64>) -> Result<(), Stop> {
        let node = &mut self.nodes[node];
        node.power_cut(choice);
        if let Some(operations) = again {
            node.power_ends_after(operations);
            match node.open() {
                Ok(()) if !node.power_is_gone() => {}
                Ok(()) => node.power_cut(choice),
                Err(_) if node.power_is_gone() => {
                    node.power_cut(choice);
                    node.open()?;
                }
                Err(stop) => return Err(stop),
            }
            node.power_cut(choice);
        }
        node.open()
    }

    /// Commits, replicates and applies everything, and proves that the nodes are equal, down to the files.
    pub fn finish(&mut self) -> Result<(), Stop> {
        self.send(true)?;
        let all = self.leader().log.len();
        self.commit(all);
        for _ in 0..3 {
            self.replicate(usize::MAX)?;
        }
        for node in 0..2 {
            self.apply(node, usize::MAX)?;
            self.nodes[node].drop_staged();
            self.nodes[node].readers.clear();
            self.nodes[node].check()?;
            self.nodes[node].checkpoint()?;
            // Once more: now the pages come from the file.
            self.nodes[node].check().map_err(|stop| stop.context("after a checkpoint"))?;
        }
        let [one, other] = &self.nodes;
        if one.applied != all || one.engine().applied() != other.engine().applied() {
            return Err(wrong(format!("{:?} and {:?}", one.engine().applied(), other.engine().applied())));
        }
        if one.data_file()? != other.data_file()? {
            return Err(wrong("the data files differ"));
        }
        for node in &mut self.nodes {
            node.close();
            let report = calamus_engine::offline::check_directory(&node.door, &node.place, &mut |_| {})
                .map_err(disk("check the directory"))?;
            if !report.is_clean() {
                return Err(wrong(format!("the directory is not clean: {report:?}")));
            }
        }
        Ok(())
    }
}
