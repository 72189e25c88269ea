//! A drill that is told to end leaves nothing behind: no process that stands still, none that runs, no directory.

mod common;

use std::path::Path;

use common::{Node, Process, is_alive, run, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// The state of a process as the system names it: `T` if it stands still.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_node_that_stands_still_goes_on_when_its_drill_is_told_to_end() {
    let temp = tempfile::tempdir().unwrap();
    let n1 = Node::bootstrap(&temp.path().join("n1"), "n1");
    let join = ["--name", "n2", "--listen", "127.0.0.1:0", "--join", &n1.address];
    let n2 = Node::start(&temp.path().join("n2"), &join);
    wait_for("both are voters", || {
        let output = run(&["cluster", "status", "--json", "--endpoints", &n1.address]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["nodes"].as_array()?.iter().all(|node| node["voter"] == true).then_some(())
    });
    let (endpoints, pid_file) = (format!("{},{}", n1.address, n2.address), temp.path().join("n2/pid"));
    let refused = run(&["drill", "--endpoints", &endpoints]);
    assert_eq!(refused.status.code(), Some(2), "nobody drills a cluster by accident");
    let arguments = ["drill", "--endpoints", &endpoints, "--i-mean-it", "--pid-file", pid_file.to_str().unwrap()];
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut drill = Process::start(&arguments, &temp.path().join("drill.log"));
        wait_for("the node stands still", || (state(n2.process.id()) == Some('T')).then_some(()));
        assert_eq!(drill.end(signal).code(), Some(1));
        assert_ne!(state(n2.process.id()), Some('T'), "{signal:?}");
        for tree in ["drill-lists", "drill-registers"] {
            let gone = run(&["scan", tree, "--endpoints", &endpoints]);
            let text = common::stderr(&gone);
            assert!(gone.status.code() == Some(4) && text.contains("no tree"), "{tree} is still there: {text}");
        }
    }
}

#[test]
fn a_scratch_cluster_goes_with_its_drill() {
    let temp = tempfile::tempdir().unwrap();
    let within = temp.path().join("within");
    std::fs::create_dir(&within).unwrap();
    let arguments =
        ["drill", "--within", within.to_str().unwrap(), "--scenario", "kill-follower", "--count", "1000", "--json"];
    let mut drill = Process::start(&arguments, &temp.path().join("drill.log"));
    let pids = wait_for("three nodes", || {
        let pids = pids_below(&within);
        (pids.len() == 3).then_some(pids)
    });
    assert_eq!(drill.end(Signal::TERM).code(), Some(1));
    for pid in pids {
        wait_for("its end", || (!is_alive(pid)).then_some(()));
    }
    assert_eq!(std::fs::read_dir(&within).unwrap().count(), 0, "no directory is left");
}

/// The process ids that nodes below this directory have written down.
fn pids_below(within: &Path) -> Vec<u32> {
    let Some(home) = std::fs::read_dir(within).unwrap().find_map(Result::ok) else { return Vec::new() };
    let pid = |name| std::fs::read_to_string(home.path().join(name).join("pid")).ok()?.trim().parse().ok();
    ["n1", "n2", "n3"].into_iter().filter_map(pid).collect()
}
