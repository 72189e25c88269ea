//! Values up to the limit, and one over it.

use calamus_client::{Outcome, Txn, TxnError};
use calamus_tests::acknowledged::{DOCUMENTS, Ledger, Load, documents, value};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::share;

use super::setup;
use crate::LOAD_LIMIT;

const MAX_VALUE_BYTES: usize = 8 << 20;

/// 8 MiB go in and come back from each node; a byte more is refused and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_comes_back_from_each_node_and_one_over_is_refused() {
    let mut cluster = Cluster::start(setup()).await;
    let mut ledger = Ledger::default();
    // From each node once: those that do not lead forward it.
    for node in 0..cluster.len() {
        let (key, large) = (format!("large-{node}"), value(node as u64, MAX_VALUE_BYTES));
        let txn_id = cluster.put_to(node, DOCUMENTS, &key, large.clone()).await.expect("the largest value is taken");
        ledger.note(key, &large, txn_id);
    }
    for node in 0..cluster.len() {
        for written in 0..cluster.len() {
            let key = format!("large-{written}");
            let read = cluster.get_from(node, DOCUMENTS, key.as_bytes()).await.expect("each node answers");
            assert!(read.entry.is_some_and(|entry| entry.value == value(written as u64, MAX_VALUE_BYTES)));
        }
    }
    let before = cluster.equal_states().await;
    let client = cluster.client().await;
    let refused = client.put(DOCUMENTS, "larger", value(9, MAX_VALUE_BYTES + 1)).await;
    let Err(TxnError::NotCommitted(why)) = &refused else { panic!("a value over the limit: {refused:?}") };
    assert_eq!(why.reason, "value_too_large", "{why}");
    let long_key = vec![b'k'; 2049];
    let refused = client.txn(Txn::new().put(DOCUMENTS, "small", "1").put(DOCUMENTS, long_key, "1")).await;
    assert_eq!(Outcome::of(&refused), Outcome::NotCommitted);
    assert_eq!(cluster.equal_states().await, before, "what was refused changed something");
    cluster.close(&ledger).await;
}

/// Documents of 1 KiB to 4 MiB, as they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_all_sizes() {
    let cluster = Cluster::start(setup().flag("--checkpoint-mib", 8)).await;
    let load = Load::begin(&cluster.addresses(), 8, documents(20_261_122).take(share(300, 5_000))).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    assert_eq!(ledger.acknowledged(), share(300, 5_000));
    cluster.close(&ledger).await;
}
