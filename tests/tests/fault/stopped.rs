//! A node whose consensus stops before it was ever ready: its disk fails once it is started.

use std::time::Duration;

use calamus_tests::cluster::Cluster;
use calamus_tests::wait::{LIMIT, until};
use rustix::process::Signal;

use super::setup;

/// An end takes a last checkpoint and no more.
const END: Duration = Duration::from_secs(15);
/// What a node that stopped has to say, in lines.
const MOST_LINES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_before_it_is_ready_says_so_once_and_takes_the_signal_to_end() {
    let mut cluster = Cluster::start(setup()).await;
    for node in 0..cluster.len() {
        cluster.terminate(node, Signal::USR1).await;
    }
    let before = std::fs::read(cluster.log(0)).expect("a log").len();

    let control = cluster.directory(0).with_extension("control");
    std::fs::write(&control, "").expect("a file can be written");
    cluster.set_environment(0, &[("CALAMUS_DISK_CONTROL", control.to_str().expect("UTF-8"))]);
    cluster.restart(0);
    let log = cluster.log(0).to_owned();
    let said = || String::from_utf8_lossy(&std::fs::read(&log).expect("a log")[before..]).into_owned();
    // Not earlier: a node that cannot even write its `pid` ends at once, and rightly.
    until("the node listens", LIMIT, async || said().contains(" listens on ").then_some(())).await;
    std::fs::write(&control, "fail_syncs\n").expect("a file can be written");
    until("the disk fails", LIMIT, async || said().contains("the fault door changes").then_some(())).await;
    // Alone it is never ready and writes nothing; with another one there is a vote to write.
    cluster.restart(1);
    until("the consensus has stopped", LIMIT, async || said().contains("has stopped").then_some(())).await;
    assert!(!said().contains(" is ready"), "{}", said());
    let process = cluster.process(0);
    process.signal(Signal::TERM).expect("it runs");
    until("the end of the node", END, async || cluster.has_ended(0).then_some(())).await;
    let lines = said().lines().count();
    assert!(lines < MOST_LINES, "{lines} lines:\n{}", calamus_tests::process::tail(&log));
    cluster.abandon();
}
