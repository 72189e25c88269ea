//! Exactly once: answers are lost, then anything happens, and other clients, which know of the first ones only what these
//! left on disk, ask again.
//!
//! Each transaction adds 1 to its worker's counter and leaves a mark of its own; some have a guard that holds in some rounds.
//! A round:
//!
//! 1. each worker takes sequences, saves its session's state, and sends; its answers are lost, at any moment;
//! 2. all nodes are killed, or the leader is, or leadership moves, or a follower is wiped and seeded, or nothing happens;
//! 3. new clients resume from the states and ask until they are told; some resolve without asking. Meanwhile copies of the
//!    same requests arrive as forwarded by another node, in the term of before, and in the present one;
//! 4. when all were told, copies arrive late: forwarded ones, and the clients' own, at any node.
//!
//! In the end the counters are what was told to be committed, no more and no less, and the marks are there of exactly
//! these. `CALAMUS_RETRIES` says how many are asked for again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use calamus_client::{Client, Committed, Options, Outcome, Pending, Session, SessionState, Txn};
use calamus_proto::raft::v1::raft_client::RaftClient;
use calamus_proto::raft::v1::{Envelope, ForwardRequest};
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::{TxnRequest, TxnSession};
use calamus_tests::acknowledged::{Ledger, Load, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::process::Process;
use calamus_tests::wait::{LIMIT, until};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{LOAD_LIMIT, setup};

const WORKERS: usize = 4;
/// Transactions of a worker in a round; a session has up to 256 without an answer.
const EACH: usize = 96;
const COUNTERS: &str = "counted";
const MARKS: &str = "marks";

/// What happens between a lost answer and its retry.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    AllKilled,
    LeaderKilled,
    Moved,
    Seeded,
    Nothing,
}

const DISTURBANCES: [Disturbance; 6] = [
    Disturbance::AllKilled,
    Disturbance::Nothing,
    Disturbance::LeaderKilled,
    Disturbance::AllKilled,
    Disturbance::Seeded,
    Disturbance::Moved,
];

/// One worker over all rounds: what it was told.
struct Worker {
    number: usize,
    /// Where its session's state is.
    state: PathBuf,
    begun: usize,
    /// Marks of what was told to be committed.
    committed: BTreeSet<String>,
    /// The counter's values that it was told; each is another one.
    counted: BTreeSet<i64>,
    /// So many were told to be not committed.
    not_committed: usize,
}

/// A copy that somebody delivers later.
#[derive(Clone)]
struct Late {
    request: TxnRequest,
}

impl Worker {
    fn new(number: usize, home: &std::path::Path) -> Self {
        let state = home.join(format!("worker-{number}"));
        let (committed, counted) = (BTreeSet::new(), BTreeSet::new());
        Self { number, state, begun: 0, committed, counted, not_committed: 0 }
    }

    fn counter(&self) -> String {
        format!("worker-{}", self.number)
    }

    async fn client(addresses: &[String]) -> Client {
        let options = Options { deadline: LIMIT, ..Options::default() };
        loop {
            // All nodes may be on their way up.
            if let Ok(client) = Client::connect(addresses.to_vec(), options.clone()).await {
                return client;
            }
        }
    }

    fn save(&self, session: &Session) {
        let text = serde_json::to_vec(&session.state()).expect("a state is JSON");
        std::fs::write(&self.state, text).expect("a file of ours can be written");
    }

    async fn session(&self, addresses: &[String]) -> Session {
        let client = Self::client(addresses).await;
        match std::fs::read(&self.state) {
            Ok(text) => {
                let state: SessionState = serde_json::from_slice(&text).expect("it was saved");
                client.resume(&state).expect("it is of this cluster")
            }
            Err(_) => client.session().await.expect("a session can be opened"),
        }
    }

    /// Takes sequences, saves, sends, and loses the answers. Returns copies for later.
    async fn send(&mut self, addresses: &[String], rng: &mut StdRng) -> Vec<Late> {
        let session = self.session(addresses).await;
        assert!(session.unanswered().is_empty(), "all of the last round were told");
        let mut pending = Vec::new();
        for _ in 0..EACH {
            let mark = format!("{}-{:07}", self.number, self.begun);
            self.begun += 1;
            let txn = Txn::new().add(COUNTERS, self.counter(), 1).put(MARKS, mark, "");
            let txn = if rng.random_bool(0.2) { txn.guard_exists(COUNTERS, "gate") } else { txn };
            pending.push(session.begin(txn).await.expect("the window has room"));
        }
        self.save(&session);
        let late = pending.iter().map(|pending| Late { request: copy_of(&session, pending) }).collect();
        let mut sent = JoinSet::new();
        for pending in pending {
            let lost_after = Duration::from_micros(rng.random_range(0..40_000));
            sent.spawn(async move {
                // The answer may have come: nobody was told, and nothing of it is saved.
                let _ = tokio::time::timeout(lost_after, pending.run()).await;
            });
        }
        while sent.join_next().await.is_some() {}
        late
    }

    /// Another client asks until it is told.
    async fn ask(&mut self, addresses: &[String], rng: &mut StdRng) {
        let session = self.session(addresses).await;
        let mut pending = session.unanswered();
        assert_eq!(pending.len(), EACH, "none of them was told");
        pending.shuffle(rng);
        let mut told = JoinSet::new();
        for pending in pending {
            let resolves = rng.random_bool(0.1);
            told.spawn(async move {
                let mark = mark_of(&pending);
                let result = if resolves { pending.resolve().await } else { pending.run().await.map(Some) };
                (pending.sequence(), mark, result)
            });
        }
        while let Some(ended) = told.join_next().await {
            let (sequence, mark, result) = ended.expect("a client panicked");
            assert_ne!(Outcome::of(&result), Outcome::Unknown, "sequence {sequence} of {}: {result:?}", self.number);
            match result {
                Ok(Some(done)) if done.txn_id != 0 => self.is_committed(mark, &done),
                _ => self.not_committed += 1,
            }
            session.answered(sequence);
        }
        self.save(&session);
    }

    fn is_committed(&mut self, mark: String, done: &Committed) {
        let value = done.added(0).expect("small answers are kept whole");
        assert!(self.counted.insert(value), "worker {}: {value} was told twice", self.number);
        assert!(self.committed.insert(mark), "worker {}: a transaction was told twice", self.number);
    }
}

fn copy_of(session: &Session, pending: &Pending) -> TxnRequest {
    let named = TxnSession { id: session.id(), sequence: pending.sequence(), lowest_unanswered: 1 };
    // Its client had said no less when it was sent.
    let lowest = session.unanswered().first().map_or(1, Pending::sequence);
    let session = Some(TxnSession { lowest_unanswered: lowest, ..named });
    TxnRequest { session, ..pending.request().expect("it is unanswered") }
}

fn mark_of(pending: &Pending) -> String {
    use calamus_proto::v1::operation::Kind;
    let request = pending.request().expect("it is unanswered");
    match &request.operations[1].kind {
        Some(Kind::Put(put)) => String::from_utf8(put.key.to_vec()).expect("it was text"),
        other => panic!("not the mark: {other:?}"),
    }
}

/// Where a forwarded copy goes, and in which term.
#[derive(Clone)]
struct Way {
    address: String,
    cluster_id: Bytes,
    from: u64,
    to: u64,
    term: u64,
}

impl Way {
    /// To the present leader, in its term.
    async fn to_leader(cluster: &Cluster) -> Self {
        let leader = cluster.leader().await;
        let (status, from) = (cluster.status_now(leader).await, cluster.status_now(cluster.others(leader)[0]).await);
        let id = u128::from_str_radix(&status.cluster_id, 16).expect("a cluster id is hex digits");
        Self {
            address: cluster.address(leader).to_owned(),
            cluster_id: id.to_be_bytes().to_vec().into(),
            from: from.raft_id,
            to: status.raft_id,
            term: status.term,
        }
    }

    /// Delivers copies as if a node had forwarded them. Whatever the answers: nobody hears them.
    async fn deliver(self, copies: Vec<Late>) -> usize {
        let Ok(client) = RaftClient::connect(format!("http://{}", self.address)).await else { return 0 };
        let mut refused = 0;
        for late in copies {
            let envelope = Envelope { cluster_id: self.cluster_id.clone(), from: self.from, to: self.to };
            let txn = Some(TxnRequest { timeout_ms: 5_000, ..late.request });
            let request = ForwardRequest { envelope: Some(envelope), term: self.term, txn, system: false };
            let answer = tokio::time::timeout(LIMIT, client.clone().forward(request)).await;
            refused += usize::from(answer.is_ok_and(|answer| answer.is_err()));
        }
        refused
    }
}

/// Delivers the clients' own copies, to any node.
async fn deliver_own(addresses: Vec<String>, copies: Vec<Late>) {
    for (number, late) in copies.into_iter().enumerate() {
        let address = &addresses[number % addresses.len()];
        let Ok(mut client) = KvClient::connect(format!("http://{address}")).await else { continue };
        let request = TxnRequest { timeout_ms: 5_000, ..late.request };
        let _ = tokio::time::timeout(LIMIT, client.txn(request)).await;
    }
}

async fn disturb(cluster: &mut Cluster, disturbance: Disturbance) {
    match disturbance {
        Disturbance::AllKilled => {
            cluster.kill_all().await;
            for node in 0..cluster.len() {
                cluster.restart(node);
            }
        }
        Disturbance::LeaderKilled => {
            let leader = cluster.leader().await;
            cluster.kill(leader);
            cluster.restart(leader);
        }
        Disturbance::Moved => {
            let follower = cluster.follower().await;
            cluster.lead(follower).await;
        }
        Disturbance::Seeded => {
            let follower = cluster.follower().await;
            cluster.wipe(follower);
            let host = cluster.leader_other_than(follower).await;
            until("the journal's beginning is purged", LIMIT, async || cluster.status(host).await?.purged).await;
            cluster.rejoin(follower, host);
            cluster.voters().await;
            assert!(cluster.status_now(follower).await.generation > 1, "it was not seeded");
        }
        Disturbance::Nothing => {}
    }
}

/// How many are asked for again, at least.
fn retries() -> usize {
    let count = std::env::var("CALAMUS_RETRIES").ok();
    count.map_or(DISTURBANCES.len() * WORKERS * EACH, |count| count.parse().expect("CALAMUS_RETRIES is a number"))
}

fn seed() -> u64 {
    let seed = std::env::var("CALAMUS_SEED").ok();
    seed.map_or_else(rand::random, |seed| seed.parse().expect("CALAMUS_SEED is a number"))
}

async fn round(cluster: &mut Cluster, workers: &mut [Worker], disturbance: Disturbance, rng: &mut StdRng) -> usize {
    let addresses = cluster.addresses();
    // Some guards hold in every other round.
    let gate = Txn::new().create_tree(COUNTERS);
    let gate = if rng.random() { gate.put(COUNTERS, "gate", "") } else { gate.delete(COUNTERS, "gate") };
    cluster.client().await.txn(gate.idempotent()).await.expect("it is idempotent");
    let before = Way::to_leader(cluster).await;
    let seeds: Vec<u64> = workers.iter().map(|_| rng.random()).collect();
    let sends = workers.iter_mut().zip(&seeds).map(|(worker, seed)| {
        let (addresses, mut rng) = (&addresses, StdRng::seed_from_u64(*seed));
        async move { worker.send(addresses, &mut rng).await }
    });
    let late: Vec<Late> = join_all(sends).await.into_iter().flatten().collect();

    disturb(cluster, disturbance).await;

    let some = |rng: &mut StdRng| late.iter().filter(|_| rng.random_bool(0.3)).cloned().collect::<Vec<Late>>();
    let now = Way::to_leader(cluster).await;
    let mut delivered = JoinSet::new();
    for (way, copies) in [(before.clone(), some(rng)), (now.clone(), some(rng)), (now.clone(), some(rng))] {
        delivered.spawn(way.deliver(copies));
    }
    let asks = workers.iter_mut().zip(&seeds).map(|(worker, seed)| {
        let (addresses, mut rng) = (&addresses, StdRng::seed_from_u64(seed ^ 1));
        async move { worker.ask(addresses, &mut rng).await }
    });
    join_all(asks).await;
    let mut refused = 0;
    while let Some(ended) = delivered.join_next().await {
        refused += ended.expect("a delivery panicked");
    }
    // Everybody was told. What comes now comes late.
    refused += before.deliver(some(rng)).await + now.deliver(some(rng)).await;
    deliver_own(addresses, some(rng)).await;
    refused
}

/// Holds the counters and the marks of every node against what was told.
async fn judge(cluster: &Cluster, workers: &[Worker], seed: u64) {
    for node in 0..cluster.len() {
        let marks = cluster.scan_from(node, MARKS).await.expect("a scan");
        let found: BTreeSet<String> =
            marks.into_iter().map(|mark| String::from_utf8(mark.key.to_vec()).expect("it was text")).collect();
        let told: BTreeSet<String> = workers.iter().flat_map(|worker| worker.committed.iter().cloned()).collect();
        let applied: Vec<&String> = found.difference(&told).collect();
        assert!(applied.is_empty(), "seed {seed}: applied, and told to be not committed: {applied:?}");
        let lost: Vec<&String> = told.difference(&found).collect();
        assert!(lost.is_empty(), "seed {seed}: told to be committed, and not there: {lost:?}");
        for worker in workers {
            let counter = cluster.get_from(node, COUNTERS, worker.counter().as_bytes()).await.expect("a read");
            let value =
                counter.entry.map_or(0, |entry| i64::from_le_bytes(entry.value[..].try_into().expect("8 bytes")));
            assert_eq!(value, worker.committed.len() as i64, "seed {seed}: worker {}: runs", worker.number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_asked_for_after_anything() {
    let (seed, retries) = (seed(), retries());
    eprintln!("CALAMUS_SEED={seed} CALAMUS_RETRIES={retries}");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(setup().flag("--retention-mib", 0)).await;
    // Enough that a node which was wiped is seeded.
    let mut load = Load::begin(&cluster.addresses(), 2, values("filler", 256 << 10)).await;
    load.reach(48, LOAD_LIMIT).await;
    let ledger: Ledger = load.stop(LOAD_LIMIT).await;
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, home.path())).collect();
    let (mut asked, mut refused, mut rounds) = (0, 0, [0; DISTURBANCES.len()]);
    for number in (0..DISTURBANCES.len()).cycle() {
        if asked >= retries {
            break;
        }
        refused += round(&mut cluster, &mut workers, DISTURBANCES[number], &mut rng).await;
        rounds[number] += 1;
        asked += WORKERS * EACH;
        if number == 0 {
            judge(&cluster, &workers, seed).await;
        }
    }
    cluster.voters().await;
    judge(&cluster, &workers, seed).await;
    let committed: usize = workers.iter().map(|worker| worker.committed.len()).sum();
    let not: usize = workers.iter().map(|worker| worker.not_committed).sum();
    assert_eq!(committed + not, asked);
    assert!(committed > 0 && not > 0 && refused > 0, "too tame: {committed} {not} {refused}");
    eprintln!(
        "{asked} retries: {committed} committed, {not} not; 0 applied twice, 0 applied after their client was told that they \
         are not; {refused} copies of forwarded ones refused; rounds {:?}",
        DISTURBANCES.iter().zip(rounds).collect::<Vec<_>>()
    );
    cluster.close(&ledger).await;
}

/// The command line: between its two runs all nodes are killed, and the command is another process anyway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_run_again_runs_once() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| home.path().join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    std::fs::write(path("txn"), r#"{"operations": [{"add": {"tree": "counted", "key": "n", "amount": 1}}]}"#)
        .expect("a file of ours can be written");
    let mut cluster = Cluster::start(setup()).await;
    let command = |timeout: &str| {
        let (txn, session, endpoints) = (path("txn"), path("session"), cluster.addresses().join(","));
        ["txn", &txn, "--session", &session, "--endpoints", &endpoints, "--timeout", timeout, "--json"]
            .map(str::to_owned)
    };
    let (brief, patient) = (command("4"), command("60"));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_calamus-fault"));
    let run = async |arguments: &[String], log: &str| {
        let log = home.path().join(log);
        let mut child = Process::start(binary, arguments, &[], &log).expect("it starts");
        let code = child.end(LIMIT).await.expect("it ends").code();
        (code, std::fs::read_to_string(log).expect("its output"))
    };
    let (code, first) = run(&patient, "first").await;
    assert_eq!(code, Some(0), "{first}");
    // Without a quorum there is no answer. The leader has taken it, and may have it on its disk.
    let leader = cluster.leader().await;
    for follower in cluster.others(leader) {
        cluster.process(follower).freeze().await.expect("it stops");
    }
    let (code, lost) = run(&brief, "lost").await;
    assert_eq!(code, Some(3), "{lost}");
    cluster.kill_all().await;
    for node in 0..cluster.len() {
        cluster.restart(node);
    }
    let (code, again) = run(&patient, "again").await;
    assert_eq!(code, Some(0), "{again}");
    assert!(again.contains(r#"[{"add":{"value":2}}]"#), "{again}");
    let counter = cluster.client().await.get("counted", "n").await.expect("a read").expect("it was counted");
    assert_eq!(counter.value[..], 2_i64.to_le_bytes(), "{lost}{again}");
    cluster.close(&Ledger::default()).await;
}
