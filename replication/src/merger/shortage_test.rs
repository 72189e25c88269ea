//! What is taken while the disks of a quorum are short of space.

use std::sync::Arc;
use std::time::Duration;

use calamus_engine::SpaceLevel;
use calamus_proto::v1::TxnRequest;

use super::test_consensus::TestConsensus;
use super::{Answer, Merger, MergerOptions};
use crate::error::{Outcome, reason};
use crate::space::QuorumSpace;
use crate::test_requests::{delete, get, put, txn};

struct Rig {
    consensus: Arc<TestConsensus>,
    merger: Merger,
}

impl Rig {
    fn new() -> Self {
        let consensus = TestConsensus::new();
        let options = MergerOptions { default_timeout: Duration::from_secs(60), ..MergerOptions::default() };
        let merger = Merger::start(consensus.engine.clone(), consensus.clone(), options);
        Self { consensus, merger }
    }

    fn level(&self, level: SpaceLevel) {
        *self.consensus.space.lock() = QuorumSpace { level, node: "n2".to_owned() };
    }

    async fn submit(&self, request: TxnRequest) -> Answer {
        self.consensus.pump(self.merger.submit(request, None)).await
    }

    async fn refused(&self, request: TxnRequest) {
        let error = self.submit(request).await.unwrap_err();
        assert_eq!((error.outcome, error.reason, error.retryable), (Outcome::NotCommitted, reason::DISK_FULL, false));
        assert!(error.message.contains("n2") && error.message.contains("Free space"), "{error}");
    }
}

#[tokio::test]
async fn each_level_takes_what_it_says_and_reads_go_on() {
    let rig = Rig::new();
    let large = "v".repeat(20_000);
    let grows = |key: &str| txn(vec![put("t", key, &large)]);
    for key in ["a", "b", "c", "d"] {
        rig.submit(grows(key)).await.unwrap();
    }
    rig.level(SpaceLevel::NoGrowth);
    rig.refused(grows("e")).await;
    rig.submit(grows("a")).await.expect("no larger than what it replaces");
    rig.submit(txn(vec![delete("t", "b"), put("t", "e", &large)])).await.expect("in the place of another");
    rig.level(SpaceLevel::DeletesOnly);
    rig.refused(grows("a")).await;
    rig.refused(txn(vec![delete("t", "c"), put("t", "c", "short")])).await;
    rig.submit(txn(vec![delete("t", "c")])).await.unwrap();
    rig.level(SpaceLevel::Full);
    rig.refused(txn(vec![delete("t", "d")])).await;
    let read = rig.submit(txn(vec![get("t", "d")])).await.unwrap();
    assert_eq!(crate::test_requests::value_at(&read, 0), Some(large.clone()));
    let proposals = rig.consensus.proposals_so_far();
    rig.refused(grows("x")).await;
    assert_eq!(rig.consensus.proposals_so_far(), proposals, "nothing of it was proposed");
    rig.level(SpaceLevel::Normal);
    rig.submit(grows("x")).await.unwrap();
    let stats = rig.merger.stats();
    assert_eq!((stats.refused_for_space, stats.broken_chains), (5, 0));
    let held = rig.consensus.engine.read();
    let there = |key: &str| held.get("t", key.as_bytes()).unwrap().is_some();
    assert_eq!(["a", "b", "c", "d", "e", "x"].map(there), [true, false, false, true, true, true]);
}

/// The refused one is taken back alone: those before and behind it in its batch are not.
#[tokio::test]
async fn one_that_is_refused_costs_nobody_else_of_its_batch() {
    let rig = Rig::new();
    rig.submit(txn(vec![put("t", "a", "1"), put("t", "b", "2")])).await.unwrap();
    rig.level(SpaceLevel::NoGrowth);
    let large = "v".repeat(20_000);
    let requests = [txn(vec![delete("t", "a")]), txn(vec![put("t", "x", &large)]), txn(vec![put("t", "b", "3")])];
    let all = futures::future::join_all(requests.map(|request| rig.merger.submit(request, None)));
    let [first, second, third]: [Answer; 3] = rig.consensus.pump(all).await.try_into().unwrap();
    assert_eq!(second.unwrap_err().reason, reason::DISK_FULL);
    assert_eq!((first.unwrap().txn_id, third.unwrap().txn_id), (2, 3));
}
