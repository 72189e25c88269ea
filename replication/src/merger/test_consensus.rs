//! A consensus in this process for the merger's tests: it does what a script says, over two real engines.
//!
//! Entries stand in a log until [`TestConsensus::apply`] commits them, in order, on the node under test and on a
//! follower, which decodes every frame; so each test also compares a leader's pages with a follower's.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use calamus_engine::engine::{Engine, EngineOptions};
use calamus_engine::env::RealDisk;
use calamus_engine::ids::{ClusterId, DatabaseId, LogId, RaftId, Term};
use calamus_engine::journal::JournalMode;
use calamus_engine::journal::frame::{Frame, FrameKind, Payload};
use calamus_engine::{Applied, Batch, NodeIdentity};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::seam::{Consensus, LeaderInfo, Leadership, Proposed, ReadIndexError};
use crate::space::QuorumSpace;
use crate::test_requests::within;

/// What becomes of a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It stands in the log, and its outcome comes when it is applied.
    Accept,
    /// It never gets there.
    Refuse,
    /// It never gets there, and its proposer hears of it only at [`TestConsensus::tell_refusals`].
    RefuseLate,
    /// It stands in the log, but the proposer is told at once that nobody knows.
    UnknownInLog,
    /// It does not, and the proposer is told the same.
    UnknownLost,
}

struct Entry {
    payload: Payload,
    outcome: Option<oneshot::Sender<Proposed>>,
}

struct State {
    term: Term,
    log: VecDeque<Entry>,
    script: VecDeque<Fate>,
    untold: Vec<oneshot::Sender<Proposed>>,
    proposals: usize,
    voids: usize,
    next_index: u64,
}

pub(crate) struct TestConsensus {
    pub(crate) engine: Engine,
    pub(crate) follower: Engine,
    state: Mutex<State>,
    leadership: watch::Sender<Leadership>,
    applied: watch::Sender<Option<LogId>>,
    /// Quorum rounds that may succeed; one is taken by each. Plenty unless a test holds them.
    rounds: Arc<Semaphore>,
    rounds_begun: watch::Sender<usize>,
    proposed: watch::Sender<usize>,
    /// What the others' disks take.
    pub(crate) space: Mutex<QuorumSpace>,
    _directory: tempfile::TempDir,
}

const PLENTY: usize = 1 << 40;

fn open(directory: &Path, raft_id: u64, segment_bytes: u64) -> Engine {
    let identity = NodeIdentity {
        cluster_id: ClusterId(1),
        raft_id: RaftId(raft_id),
        name: format!("n{raft_id}"),
        listen: "127.0.0.1:0".to_owned(),
        advertise: "127.0.0.1:0".to_owned(),
    };
    let mut options = EngineOptions::default();
    options.journal.segment_bytes = segment_bytes;
    options.journal.mode = JournalMode::Inline;
    options.background = false;
    Engine::create(Arc::new(RealDisk::new()), &directory.join(format!("n{raft_id}")), &identity, DatabaseId(5), options)
        .unwrap()
}

impl TestConsensus {
    /// Leads term 1, on an empty database.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_segments(1 << 20)
    }

    /// As [`Self::new`], with journal segments of so many bytes.
    pub(crate) fn with_segments(segment_bytes: u64) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 1, segment_bytes);
        let follower = open(directory.path(), 2, segment_bytes);
        Arc::new(Self {
            engine,
            follower,
            state: Mutex::new(State {
                term: Term(1),
                log: VecDeque::new(),
                script: VecDeque::new(),
                untold: Vec::new(),
                proposals: 0,
                voids: 0,
                next_index: 0,
            }),
            leadership: watch::Sender::new(Leadership::Leading { term: Term(1) }),
            applied: watch::Sender::new(None),
            rounds: Arc::new(Semaphore::new(PLENTY)),
            rounds_begun: watch::Sender::new(0),
            proposed: watch::Sender::new(0),
            space: Mutex::default(),
            _directory: directory,
        })
    }

    /// The fates of the next proposals; beyond them all are accepted.
    pub(crate) fn script(&self, fates: &[Fate]) {
        self.state.lock().script.extend(fates);
    }

    /// Commits and applies up to `count` entries of the log. Returns how many there were.
    pub(crate) fn apply(&self, count: usize) -> usize {
        let mut state = self.state.lock();
        let mut done = 0;
        while done < count
            && let Some(entry) = state.log.pop_front()
        {
            self.commit(&mut state, entry);
            done += 1;
        }
        done
    }

    fn commit(&self, state: &mut State, entry: Entry) {
        let log_id = LogId { term: state.term, index: calamus_engine::ids::LogIndex(state.next_index) };
        state.next_index += 1;
        let frame = Frame::encode(FrameKind::Record, log_id, None, self.engine.last_chain(), entry.payload);
        let mut what = Vec::new();
        for engine in [&self.engine, &self.follower] {
            engine.append(vec![frame.clone()], Box::new(|synced| synced.unwrap())).unwrap();
            what.push(matches!(engine.apply(&frame).unwrap(), Applied::Void));
        }
        assert_eq!(what[0], what[1], "void on one node and not on the other");
        assert_eq!(self.engine.applied().digest, self.follower.applied().digest);
        state.voids += usize::from(what[0]);
        self.applied.send_replace(Some(log_id));
        if let Some(outcome) = entry.outcome {
            let _ = outcome.send(Proposed::Applied { log_id, void: what[0] });
        }
    }

    /// Applies all that is in the log, again and again, until the future ends.
    pub(crate) async fn pump<F: Future>(&self, future: F) -> F::Output {
        let mut proposed = self.proposed.subscribe();
        tokio::pin!(future);
        loop {
            self.apply(usize::MAX);
            let wait = async {
                tokio::select! {
                    output = &mut future => Some(output),
                    _ = proposed.changed() => None,
                }
            };
            if let Some(output) = within(wait).await {
                return output;
            }
        }
    }

    /// Tells the late refusals.
    pub(crate) fn tell_refusals(&self) {
        for sender in self.state.lock().untold.drain(..) {
            let _ = sender.send(Proposed::Refused { why: "scripted, late".to_owned() });
        }
    }

    /// Another node leads from here on. The first `kept` entries of the log survive, and then it writes `writes`.
    /// Whoever waits for an entry learns its outcome only if `told`.
    pub(crate) fn depose(&self, kept: usize, told: bool, writes: impl FnOnce(&mut Batch)) {
        let mut state = self.state.lock();
        let leader = LeaderInfo {
            raft_id: RaftId(2),
            name: "n2".to_owned(),
            address: "127.0.0.1:2".to_owned(),
            term: state.term.next(),
        };
        self.leadership.send_replace(Leadership::Following { term: leader.term, leader: Some(leader.clone()) });
        let mut log = std::mem::take(&mut state.log);
        for mut entry in log.drain(..kept.min(log.len())) {
            if !told {
                entry.outcome = None;
            }
            self.commit(&mut state, entry);
        }
        drop(log);
        state.term = leader.term;
        let mut batch = self.follower.begin_batch().unwrap();
        batch.begin_txn();
        writes(&mut batch);
        batch.commit_txn();
        if let Some(staged) = batch.seal(0).unwrap() {
            self.commit(&mut state, Entry { payload: staged.payload, outcome: None });
        }
    }

    /// This node leads again, in a new term.
    pub(crate) fn lead(&self) -> Term {
        let mut state = self.state.lock();
        state.term = state.term.next();
        self.leadership.send_replace(Leadership::Leading { term: state.term });
        state.term
    }

    /// From here on quorum rounds succeed only one by one, by [`Self::let_rounds`].
    pub(crate) fn hold_rounds(&self) {
        self.rounds.forget_permits(self.rounds.available_permits());
    }

    /// Lets so many rounds succeed, begun or not.
    pub(crate) fn let_rounds(&self, count: usize) {
        self.rounds.add_permits(count);
    }

    /// Waits until so many proposals were made, whatever their fates.
    pub(crate) async fn proposals(&self, count: usize) {
        within(self.proposed.subscribe().wait_for(|proposals| *proposals >= count)).await.unwrap();
    }

    pub(crate) fn proposals_so_far(&self) -> usize {
        *self.proposed.borrow()
    }

    /// Waits until so many quorum rounds were begun.
    pub(crate) async fn rounds(&self, count: usize) {
        within(self.rounds_begun.subscribe().wait_for(|rounds| *rounds >= count)).await.unwrap();
    }

    pub(crate) fn rounds_so_far(&self) -> usize {
        *self.rounds_begun.borrow()
    }

    /// How many entries stand in the log.
    pub(crate) fn in_log(&self) -> usize {
        self.state.lock().log.len()
    }

    pub(crate) fn voids(&self) -> usize {
        self.state.lock().voids
    }
}

impl Consensus for TestConsensus {
    fn propose(&self, term: Term, payload: Payload) -> oneshot::Receiver<Proposed> {
        let mut state = self.state.lock();
        let (sender, receiver) = oneshot::channel();
        state.proposals += 1;
        let leads = *self.leadership.borrow() == Leadership::Leading { term };
        let fate = if leads { state.script.pop_front().unwrap_or(Fate::Accept) } else { Fate::Refuse };
        match fate {
            Fate::Accept => state.log.push_back(Entry { payload, outcome: Some(sender) }),
            Fate::UnknownInLog => state.log.push_back(Entry { payload, outcome: None }),
            Fate::RefuseLate => state.untold.push(sender),
            Fate::Refuse => sender.send(Proposed::Refused { why: "scripted".to_owned() }).unwrap(),
            Fate::UnknownLost => sender.send(Proposed::Unknown { why: "scripted".to_owned() }).unwrap(),
        }
        self.proposed.send_replace(state.proposals);
        receiver
    }

    fn read_index(&self, term: Option<Term>) -> BoxFuture<'static, Result<Option<LogId>, ReadIndexError>> {
        self.rounds_begun.send_modify(|rounds| *rounds += 1);
        let (rounds, leadership, applied) = (self.rounds.clone(), self.leadership.clone(), self.applied.clone());
        Box::pin(async move {
            rounds.acquire().await.unwrap().forget();
            let now = leadership.borrow().clone();
            if term.is_some() && now.leading() != term {
                return Err(ReadIndexError::NotLeading { leader: now.leader().cloned() });
            }
            Ok(*applied.borrow())
        })
    }

    fn wait_applied(&self, log_id: Option<LogId>) -> BoxFuture<'static, Result<(), ReadIndexError>> {
        let mut applied = self.applied.subscribe();
        Box::pin(async move {
            applied.wait_for(|applied| *applied >= log_id).await.unwrap();
            Ok(())
        })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn quorum_space(&self) -> QuorumSpace {
        self.space.lock().clone()
    }
}
