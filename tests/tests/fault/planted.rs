//! A test that cannot fail proves nothing: with a fault planted in the nodes, the comparison that the other tests end with
//! finds it.

use std::panic::AssertUnwindSafe;

use calamus_tests::acknowledged::{Ledger, Load, values};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};

use super::{CLIENTS, LOAD_LIMIT, setup};

/// So often is tried to find it. Once is nearly always enough.
const ROUNDS: usize = 15;

/// What a node says that does not start on a directory that it finds damaged.
const DAMAGED: &str = "`calamus check DIR` says what is damaged";

/// Whether something that was acknowledged is missing after all nodes were killed in the middle of a load: a node that
/// finds its own directory damaged counts too.
async fn loses_something(slow_syncs: &[(&str, &str)]) -> bool {
    let setup = slow_syncs.iter().fold(setup(), |setup, (name, value)| setup.environment(name, value));
    let mut cluster = Cluster::start(setup).await;
    let mut load = Load::begin(&cluster.addresses(), CLIENTS, values("value", 2_000)).await;
    load.reach(300, LOAD_LIMIT).await;
    cluster.kill_all().await;
    for node in 0..cluster.len() {
        cluster.restart(node);
    }
    let damaged = until("the nodes lead again, or do not start", LIMIT, async || {
        if let Some(node) = (0..cluster.len()).find(|node| cluster.has_ended(*node)) {
            let log = cluster.process(node).log_tail();
            assert!(log.contains(DAMAGED), "{} ended, and not for damage:\n{log}", cluster.name(node));
            return Some(true);
        }
        cluster.scan_from(0, "documents").await.is_ok().then_some(false)
    })
    .await;
    let lost = damaged || {
        let ledger = load.stop(LOAD_LIMIT).await;
        differs(&cluster, &ledger).await
    };
    cluster.abandon();
    lost
}

pub async fn differs(cluster: &Cluster, ledger: &Ledger) -> bool {
    for tree in ledger.trees() {
        let found = until("a scan", LIMIT, async || cluster.scan_from(0, tree).await.ok()).await;
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| ledger.compare("n1", tree, &found)));
        if compared.is_err() {
            return true;
        }
    }
    false
}

/// Slow enough that the kills of all nodes, one behind the other, fall within one sync of each.
const SLOW: (&str, &str) = ("CALAMUS_DISK_SYNC_DELAY_MS", "150");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledging_before_the_sync_is_found() {
    for round in 1..=ROUNDS {
        if loses_something(&[SLOW, ("CALAMUS_MUTANTS", "acknowledge_before_sync")]).await {
            eprintln!("found in round {round} of {ROUNDS}");
            return;
        }
    }
    panic!("nodes that acknowledge before they sync lost nothing in {ROUNDS} rounds: the kill tests prove nothing");
}

/// The same, and nothing planted: the search does not find what is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_nothing_is_found() {
    assert!(!loses_something(&[SLOW]).await, "something was lost");
}
