//! A directory that is put back to an earlier state, under the same inode: what its node has promised since is gone, so it
//! must neither vote nor acknowledge as who it was.

use std::path::Path;

use calamus_tests::acknowledged::{DOCUMENTS, Ledger};
use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};
use rustix::process::Signal;

use super::setup;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Puts back what was saved, into the directory itself: it stays the one that its node knows.
fn put_back(saved: &Path, directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("removed");
    }
    copy(saved, directory);
}

async fn put(cluster: &Cluster, node: usize, ledger: &mut Ledger, key: String) {
    let value = format!("value of {key}");
    let written = || cluster.put_to(node, DOCUMENTS, &key, value.clone().into());
    let txn_id = until("a write is taken", LIMIT, async || written().await.ok()).await;
    ledger.note(key, value.as_bytes(), txn_id);
}

/// Saved while the node stands still, or while it is stopped and starts once more; then it and the leader are the only ones
/// that have some writes, and it is put back.
async fn is_refused_after_it_was_put_back(while_it_runs: bool) {
    let mut cluster = Cluster::start(setup()).await;
    let leader = cluster.leader().await;
    let (node, behind) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let mut ledger = Ledger::default();
    for number in 0..20 {
        put(&cluster, leader, &mut ledger, format!("before {number}")).await;
    }
    let saved = tempfile::tempdir().expect("a temporary directory");
    if while_it_runs {
        cluster.process(node).freeze().await.expect("it stops");
        copy(cluster.directory(node), saved.path());
        cluster.process(node).thaw().expect("it runs");
    } else {
        cluster.terminate(node, Signal::TERM).await;
        copy(cluster.directory(node), saved.path());
        cluster.restart(node);
        cluster.ready(node).await;
    }
    assert_eq!(cluster.leader().await, leader, "leadership moved, for nothing");
    cluster.process(behind).freeze().await.expect("it stops");
    for number in 0..20 {
        put(&cluster, leader, &mut ledger, format!("acknowledged by it {number}")).await;
    }
    cluster.kill(node);
    put_back(saved.path(), cluster.directory(node));

    // With it, the one that is behind would be a quorum without those writes.
    cluster.restart(node);
    until("it does not start", LIMIT, async || cluster.has_ended(node).then_some(())).await;
    let log = cluster.process(node).log_tail();
    assert!(log.contains("put back to an earlier state") && log.contains("--join"), "{log}");
    cluster.process(behind).thaw().expect("it runs");
    put(&cluster, behind, &mut ledger, "the others go on".to_owned()).await;
    let old = cluster.status_now(leader).await.raft_id;
    cluster.wipe(node);
    cluster.rejoin(node, leader);
    cluster.voters().await;
    assert_ne!(cluster.status_now(node).await.raft_id, old);
    cluster.close(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_saved_while_its_node_ran_is_refused() {
    is_refused_after_it_was_put_back(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_saved_between_two_starts_is_refused() {
    is_refused_after_it_was_put_back(false).await;
}
