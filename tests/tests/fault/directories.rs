//! What a cluster leaves on disk, and damage of it.

use calamus_tests::acknowledged::{Load, cities};
use calamus_tests::cluster::Cluster;
use calamus_tests::compare;
use rustix::process::Signal;

use super::{CLIENTS, LOAD_LIMIT, setup};

/// A stop writes nothing that a checkpoint would not: after it, a start and another stop leave the data file as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stop_rewrites_no_data_file() {
    let mut cluster = Cluster::start(setup()).await;
    let load = Load::begin(&cluster.addresses(), CLIENTS, cities(500)).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    cluster.equal_states().await;
    for node in 0..cluster.len() {
        cluster.terminate(node, Signal::USR1).await;
    }
    let state = |cluster: &Cluster| -> Vec<_> {
        let files = cluster.directories().into_iter().map(|directory| directory.join("g1/data"));
        files.map(|file| (std::fs::read(&file).expect("readable"), modified(&file))).collect()
    };
    let before = state(&cluster);
    for node in 0..cluster.len() {
        cluster.restart(node);
    }
    cluster.voters().await;
    cluster.equal_states().await;
    for node in 0..cluster.len() {
        cluster.terminate(node, Signal::USR1).await;
    }
    for (node, (before, after)) in before.iter().zip(state(&cluster)).enumerate() {
        assert!(before.0 == after.0, "the data file of {} has changed", cluster.name(node));
        assert_eq!(before.1, after.1, "the data file of {} was written", cluster.name(node));
    }
    for node in 0..cluster.len() {
        cluster.restart(node);
    }
    cluster.close(&ledger).await;
}

fn modified(file: &std::path::Path) -> std::time::SystemTime {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).expect("the file system keeps times")
}

/// A flipped bit in the data file of a node that is down is found by the check; with its directory lost on purpose, the
/// node is filled from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found_and_the_node_is_filled_anew() {
    let mut cluster = Cluster::start(setup()).await;
    let load = Load::begin(&cluster.addresses(), CLIENTS, cities(500)).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    let node = cluster.follower().await;
    cluster.terminate(node, Signal::TERM).await;
    assert!(compare::report(cluster.directory(node)).is_clean());
    let page = compare::damage_a_page(cluster.directory(node));
    let report = compare::report(cluster.directory(node));
    assert!(!report.is_clean(), "a flipped bit in page {page} was not found: {report:?}");
    cluster.wipe(node);
    let host = cluster.leader().await;
    cluster.rejoin(node, host);
    cluster.voters().await;
    cluster.close(&ledger).await;
}
