//! Many clients with sessions, over a consensus that refuses, forgets and deposes by a seed. Copies of what they send come
//! again: as forwarded, in the term of before, at any time; and the clients' own, of which they lost the answers, even after
//! they were told. Each client keeps to the rules of `sessions` about what it believes.
//!
//! Each transaction adds 1 to its client's counter and leaves a mark of its own; some have guards that hold only at times.
//! The judge is what was told: the counter is the number of those that were told to be committed, each was told another
//! value of it, and the marks are there of exactly these.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use calamus_engine::ids::Term;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::operation_result::Kind as ResultKind;
use calamus_proto::v1::session_operation::Kind as SessionKind;
use calamus_proto::v1::session_result::Kind as SessionResultKind;
use calamus_proto::v1::{OpenSessionRequest, ResolveRequest, SessionOperation, TxnRequest, TxnResponse, TxnSession};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::test_consensus::{Fate, TestConsensus};
use super::{Merger, MergerOptions};
use crate::error::Outcome;
use crate::seam::Consensus;
use crate::sessions::SessionLimits;
use crate::test_requests::{add, exists, op, put, txn};

const CLIENTS: usize = 5;
const TXNS_EACH: u64 = 40;
/// A copy comes so many turns of the runtime late, at most.
const LATE: usize = 300;

/// What one client was told.
#[derive(Default)]
struct Told {
    counted: BTreeSet<i64>,
    marks: BTreeSet<String>,
    not_committed: usize,
    resolved: usize,
}

struct SessionClient {
    merger: Arc<Merger>,
    consensus: Arc<TestConsensus>,
    number: usize,
    session: u64,
    rng: StdRng,
    /// Copies that come late.
    late: Arc<Mutex<Vec<JoinHandle<()>>>>,
    told: Told,
}

impl SessionClient {
    async fn system(&self, kind: SessionKind) -> Option<SessionResultKind> {
        let request = txn(vec![op(Kind::Session(SessionOperation { kind: Some(kind) }))]);
        let mut answer = self.merger.submit_system(request, None).await.ok()?;
        match answer.results.remove(0).kind {
            Some(ResultKind::Session(result)) => result.kind,
            other => panic!("not of a session: {other:?}"),
        }
    }

    async fn open(&mut self) {
        loop {
            if let Some(SessionResultKind::Open(opened)) =
                self.system(SessionKind::Open(OpenSessionRequest::default())).await
            {
                self.session = opened.session_id;
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn resolve(&mut self, named: TxnSession) -> Option<TxnResponse> {
        loop {
            let request = ResolveRequest { transaction: Some(named) };
            if let Some(SessionResultKind::Resolve(resolved)) = self.system(SessionKind::Resolve(request)).await {
                self.told.resolved += 1;
                return resolved.committed;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A copy that comes at some time; nobody hears its answer.
    fn come_late(&mut self, request: &TxnRequest, term: Option<Term>) {
        let (merger, request, turns) = (self.merger.clone(), request.clone(), self.rng.random_range(0..LATE));
        self.late.lock().push(tokio::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            let _ = merger.submit(request, term).await;
        }));
    }

    /// Sends until the outcome is certain for ever. The answer, if it is committed.
    async fn run(&mut self, request: &TxnRequest) -> Option<TxnResponse> {
        let named = request.session.expect("of a session");
        let mut lost = false;
        loop {
            let term = self.consensus.leadership().borrow().leading();
            let forwarded = term.filter(|_| self.rng.random());
            if forwarded.is_some() && self.rng.random_bool(0.3) {
                // What another node has forwarded, the network delivers again.
                self.come_late(request, forwarded);
            }
            if self.rng.random_bool(0.2) {
                // A copy of its own, whose answer is lost.
                self.come_late(request, None);
                lost = true;
                continue;
            }
            match self.merger.submit(request.clone(), forwarded).await {
                Ok(response) if response.txn_id != 0 => return Some(response),
                Ok(_) if !lost => return None,
                Ok(_) => return self.resolve(named).await,
                Err(error) if error.outcome == Outcome::Unknown => lost = true,
                Err(error) if error.retryable => {}
                Err(_) if !lost => return None,
                Err(_) => return self.resolve(named).await,
            }
            tokio::task::yield_now().await;
        }
    }

    async fn live(mut self) -> Told {
        self.open().await;
        for sequence in 1..=TXNS_EACH {
            let mark = format!("{}-{sequence}", self.number);
            let operations = vec![add("t", &format!("n{}", self.number), 1), put("marks", &mark, "")];
            let session = Some(TxnSession { id: self.session, sequence, lowest_unanswered: sequence });
            let guards = if self.rng.random_bool(0.4) { vec![exists("t", "gate", true)] } else { Vec::new() };
            let request = TxnRequest { guards, session, ..txn(operations) };
            match self.run(&request).await {
                Some(response) => {
                    let Some(ResultKind::Add(added)) = response.results[0].kind else { panic!("an add comes first") };
                    assert!(self.told.counted.insert(added.value), "{} was told twice", added.value);
                    self.told.marks.insert(mark);
                }
                None => self.told.not_committed += 1,
            }
            if self.rng.random_bool(0.1) {
                // Long after the answer.
                self.come_late(&request, self.consensus.leadership().borrow().leading());
            }
        }
        self.told
    }
}

/// Counts a client that has ended, also one that found something and panicked.
struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn disturb(consensus: &TestConsensus, rng: &mut StdRng, done: &AtomicUsize) {
    while done.load(Ordering::SeqCst) < CLIENTS {
        match rng.random_range(0..100) {
            0..=3 => consensus.script(&[Fate::Refuse]),
            4..=6 => consensus.script(&[Fate::Accept, Fate::RefuseLate]),
            7..=8 => consensus.script(&[Fate::UnknownInLog, Fate::Accept]),
            9..=10 => consensus.script(&[Fate::UnknownLost]),
            11..=12 => {
                let gate = rng.random();
                consensus.depose(rng.random_range(0..4), rng.random(), |batch| {
                    batch.create_tree("t").unwrap();
                    if gate {
                        batch.put("t", b"gate", b"").unwrap();
                    } else {
                        batch.delete("t", b"gate").unwrap();
                    }
                });
                tokio::task::yield_now().await;
                consensus.lead();
            }
            13..=30 => consensus.tell_refusals(),
            31..=70 => drop(consensus.apply(rng.random_range(1..5))),
            _ => {}
        }
        tokio::task::yield_now().await;
    }
}

/// Lives a life; returns how many were told to be committed, not committed, and resolved, and what differs.
async fn life(seed: u64, options: MergerOptions) -> Result<(usize, usize, usize), String> {
    let consensus = TestConsensus::new();
    let merger = Arc::new(Merger::start(consensus.engine.clone(), consensus.clone(), options));
    let (done, late) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = SessionClient {
                merger: merger.clone(),
                consensus: consensus.clone(),
                number,
                session: 0,
                rng: StdRng::seed_from_u64(seed * 1000 + number as u64),
                late: Arc::clone(&late),
                told: Told::default(),
            };
            let done = done.clone();
            tokio::spawn(async move {
                let _done = Done(done);
                client.live().await
            })
        })
        .collect();
    disturb(&consensus, &mut StdRng::seed_from_u64(seed), &done).await;
    let mut told = Vec::new();
    for client in clients {
        told.push(client.await.map_err(|panic| format!("seed {seed}: {panic}"))?);
    }
    // What is still under way arrives, at a leader that takes all of it.
    consensus.lead();
    let late = std::mem::take(&mut *late.lock());
    consensus.pump(futures::future::join_all(late)).await;
    merger.stop().await;
    consensus.apply(usize::MAX);
    judge(&consensus, &told).map_err(|what| format!("seed {seed}: {what}"))?;
    let sum = |of: fn(&Told) -> usize| told.iter().map(of).sum();
    Ok((sum(|told| told.marks.len()), sum(|told| told.not_committed), sum(|told| told.resolved)))
}

fn judge(consensus: &TestConsensus, told: &[Told]) -> Result<(), String> {
    let read = consensus.engine.read();
    for (number, told) in told.iter().enumerate() {
        let prefix = format!("{number}-");
        let mut found = BTreeSet::new();
        let mut cursor = read.cursor("marks").unwrap().expect("something was committed");
        let mut there = cursor.seek(prefix.as_bytes()).unwrap();
        while there && cursor.key().starts_with(prefix.as_bytes()) {
            found.insert(String::from_utf8(cursor.key().to_vec()).unwrap());
            there = cursor.next().unwrap();
        }
        let applied: Vec<_> = found.difference(&told.marks).collect();
        let lost: Vec<_> = told.marks.difference(&found).collect();
        let counter = read.get("t", format!("n{number}").as_bytes()).unwrap();
        let counted =
            counter.map_or(0, |entry| i64::from_le_bytes(entry.value.to_vec().unwrap().try_into().expect("8 bytes")));
        if !applied.is_empty() || !lost.is_empty() || counted != told.marks.len() as i64 {
            return Err(format!(
                "client {number}: applied and told not to be: {applied:?}; lost: {lost:?}; {counted} runs of {} told",
                told.marks.len()
            ));
        }
    }
    Ok(())
}

fn options() -> MergerOptions {
    // Small, so that outcomes are dropped all the time.
    let sessions = SessionLimits { drop_every: 3, ..SessionLimits::default() };
    MergerOptions {
        default_timeout: Duration::from_secs(120),
        settle_pause: Duration::from_millis(1),
        sessions,
        ..MergerOptions::default()
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("CALAMUS_MERGER_FIRST_SEED", 0), number("CALAMUS_MERGER_SEEDS", 12));
    first..first + count
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// `CALAMUS_MERGER_SEEDS` and `CALAMUS_MERGER_FIRST_SEED` choose how many, and from where.
#[test]
fn nothing_runs_twice_or_after_it_was_told_that_it_never_will() {
    let mut sums = (0, 0, 0);
    for seed in seeds() {
        let (committed, not, resolved) = block_on(life(seed, options())).unwrap();
        sums = (sums.0 + committed, sums.1 + not, sums.2 + resolved);
    }
    assert!(sums.0 > 0 && sums.1 > 0 && sums.2 > 0, "{sums:?}: too tame");
}

/// A life that finds the planted faults, among a few.
#[cfg(feature = "mutants")]
fn is_found(mutants: super::Mutants) {
    let found = (0..40).find_map(|seed| block_on(life(seed, MergerOptions { mutants, ..options() })).err());
    eprintln!("{}", found.expect("a planted fault was not found in 40 lives"));
}

#[cfg(feature = "mutants")]
#[test]
fn a_result_that_is_not_in_the_batch_is_found() {
    is_found(super::Mutants { session_result_not_in_batch: true, ..Default::default() });
}

#[cfg(feature = "mutants")]
#[test]
fn a_forwarded_copy_in_a_later_term_is_found() {
    is_found(super::Mutants { forwarded_copy_in_later_term: true, ..Default::default() });
}
