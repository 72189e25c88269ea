//! Bytes that rot on the disk of a node that runs, or between two of its lives: found, never served, repaired from the
//! other nodes.

use calamus_tests::acknowledged::{Ledger, Load, cities};
use calamus_tests::cluster::{Cluster, Setup};
use calamus_tests::compare;
use calamus_tests::wait::{LIMIT, until};
use rustix::process::Signal;

use super::{CLIENTS, LOAD_LIMIT};

/// Three nodes on real disks, which read all that they have every second.
fn setup() -> Setup {
    let setup = Setup::new(env!("CARGO_BIN_EXE_calamus-fault")).flag("--checkpoint-mib", 1);
    setup.flag("--scrub-pass-s", 1).flag("--scrub-mib-s", 1000)
}

/// Waits until a node has repaired so much since its start, and nothing is damaged any more. Until then, all that it
/// serves is right.
async fn repaired(cluster: &mut Cluster, node: usize, count: u64, ledger: &Ledger) {
    let what = format!("{} has repaired what is damaged", cluster.name(node));
    until(&what, LIMIT, async || {
        cluster.assert_running();
        for tree in ledger.trees() {
            if let Ok(found) = cluster.scan_from(node, tree).await {
                ledger.compare(cluster.name(node), tree, &found);
            }
        }
        let status = cluster.status(node).await?;
        (status.damage_repaired >= count && status.damaged == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_frames_that_rot_are_repaired_from_the_other_nodes() {
    let mut cluster = Cluster::start(setup()).await;
    let load = Load::begin(&cluster.addresses(), CLIENTS, cities(500)).await;
    let ledger = load.finish(LOAD_LIMIT).await;
    cluster.equal_states().await;

    // Pages rot while the node does not run: nothing in its memory knows them.
    let node = cluster.follower().await;
    cluster.terminate(node, Signal::TERM).await;
    let page = compare::damage_a_page(cluster.directory(node));
    assert!(!compare::report(cluster.directory(node)).is_clean(), "page {page} is as it was");
    cluster.restart(node);
    cluster.ready(node).await;
    repaired(&mut cluster, node, 1, &ledger).await;

    // Frames rot while the nodes run, on a follower and on the leader.
    let leader = cluster.leader().await;
    for (node, count) in [(node, 2), (leader, 1)] {
        let frame = compare::damage_a_frame(cluster.directory(node));
        eprintln!("frame {frame} of {} is damaged", cluster.name(node));
        repaired(&mut cluster, node, count, &ledger).await;
    }
    cluster.close(&ledger).await;
}
