//! Faults planted in the consensus, found on clusters whose nodes do not all reach each other. Each search runs once more with
//! nothing planted, and must find nothing then.

use std::time::Duration;

use calamus_client::{Options, Txn};
use calamus_drill::scenario::{self, Settings};
use calamus_drill::scratch::{Plan, Scratch};
use calamus_drill::verdict::Verdict;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::{Consistency, GetRequest};

/// So often a fault is looked for. Once is nearly always enough.
const TRIES: u64 = 5;
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes with these faults.
fn plan(mutants: &str) -> Plan {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_calamus-fault"), &["drill-node"]);
    plan.environment.push(("CALAMUS_MUTANTS".to_owned(), mutants.to_owned()));
    plan
}

/// One round of a scenario on nodes with these faults.
async fn drill(name: &str, mutants: &str, seed: u64) -> Verdict {
    let scenario = scenario::find(name).expect("there is such a scenario");
    let settings = Settings { plan: plan(mutants), rounds: 1, seed, rate: 600, keep: false };
    scenario::run(&scenario, settings, &|_| ()).await.expect("it can be carried out").verdict
}

async fn is_found(name: &str, mutants: &str, finds: impl Fn(&Verdict) -> Option<String>) {
    for seed in 1..=TRIES {
        let verdict = drill(name, mutants, seed).await;
        if let Some(what) = finds(&verdict) {
            eprintln!("{mutants} is found with seed {seed}: {what:.600}");
            return;
        }
        eprintln!("seed {seed} shows nothing: {:?}", verdict.complaints());
    }
    panic!("{name} does not find {mutants} in {TRIES} rounds: it proves nothing");
}

async fn is_good(name: &str) {
    let verdict = drill(name, "", 1).await;
    assert!(verdict.is_good(), "{name} with seed {} and nothing planted: {:#?}", verdict.seed, verdict.complaints());
}

/// A leader is cut off from the other nodes, and not from its clients; the others commit another value. Returns what the
/// cut-off one says then to a linearizable read, if it says anything.
async fn read_of_a_leader_that_was_cut_off(mutants: &str) -> Option<Vec<u8>> {
    let (tree, key) = ("planted", "key");
    let mut cluster = Scratch::start(Plan { proxied: true, ..plan(mutants) }).await.expect("it starts");
    let client = cluster.client(Options::default()).await.expect("it answers");
    let put = |value: &'static str| client.txn(Txn::new().put(tree, key, value).idempotent().deadline(PATIENCE));
    put("old").await.expect("all are there");
    let leader = cluster.leader().await.expect("somebody leads");
    cluster.links().isolate(cluster.name(leader)).await.expect("the proxies listen");
    // Only another leader can commit it.
    put("new").await.expect("two of three reach each other");
    let address = format!("http://{}", cluster.nodes()[leader].address());
    let mut cut_off = KvClient::connect(address).await.expect("clients reach it");
    let request = GetRequest {
        tree: tree.to_owned(),
        key: key.into(),
        consistency: Consistency::Linearizable.into(),
        at_least: None,
    };
    let answer = tokio::time::timeout(PATIENCE, cut_off.get(request)).await.expect("a read is answered or refused");
    Some(answer.ok()?.into_inner().entry.expect("it was written").value.into())
}

/// Somebody was elected, and nobody had to be.
fn election_for_nothing(verdict: &Verdict) -> Option<String> {
    verdict.findings.iter().find(|finding| finding.contains("an election for nothing")).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_reads_without_a_quorum_is_found() {
    for _ in 0..TRIES {
        // Leadership may have moved just before the cut.
        if let Some(read) = read_of_a_leader_that_was_cut_off("read_index_without_quorum").await {
            assert_eq!(read, b"old");
            return;
        }
    }
    panic!("nothing stale is read in {TRIES} rounds: the test beside this proves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_asks_a_quorum_answers_nothing_stale() {
    assert_eq!(read_of_a_leader_that_was_cut_off("").await, None, "it cannot know what the others have committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_without_a_pre_vote_are_found() {
    is_found("cut-follower", "no_pre_vote", election_for_nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_asks_before_it_stands_deposes_nobody() {
    is_good("cut-follower").await;
}
