//! Backups by schedule, by real processes: one node makes them, a follower where there is one, and another when it is gone.

mod common;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{LIMIT, Node, run, stderr, wait_for};
use rustix::process::Signal;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn json(arguments: &[&str]) -> Option<Value> {
    let output = run(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).ok()
}

fn status(node: &Node) -> Option<Value> {
    json(&["cluster", "status", "--endpoints", &node.address])
}

fn put(node: &Node, key: &str) {
    let output = run(&["put", "t", key, "v", "--endpoints", &node.address]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A cluster whose nodes all have the same configuration.
struct Bed {
    temp: tempfile::TempDir,
    config: PathBuf,
    place: String,
}

impl Bed {
    fn new(schedule: &str) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let place = format!("file://{}", text(&temp.path().join("backups")));
        let config = temp.path().join("node.toml");
        std::fs::write(&config, format!("[backup.targets.near]\nurl = \"{place}\"\n{schedule}")).unwrap();
        Bed { temp, config, place }
    }

    fn node(&self, name: &str, more: &[&str]) -> Node {
        let flags = ["--name", name, "--listen", "127.0.0.1:0", "--config", text(&self.config)];
        Node::start(&self.temp.path().join(name), &[&flags, more].concat())
    }

    /// The txn id up to which everything is in the newest chain, once that is sound and has at least this one.
    fn archived(&self, txn: u64) {
        wait_for("it is archived", || {
            let listed = json(&["backup", "list", "--at", &self.place])?;
            let newest = listed["chains"].as_array()?.last()?.as_array()?.last()?["end_txn"].as_u64()?;
            (newest >= txn).then_some(())
        });
    }
}

fn applied(node: &Node) -> u64 {
    let status = status(node).expect("it answers");
    status["nodes"].as_array().unwrap().iter().map(|node| node["applied_txn"].as_u64().unwrap_or(0)).max().unwrap()
}

#[test]
fn a_lone_node_makes_its_own_and_says_so() {
    let bed = Bed::new("incremental_every = \"1s\"\n");
    let node = bed.node("n1", &["--bootstrap"]);
    put(&node, "a");
    bed.archived(applied(&node));
    put(&node, "b");
    bed.archived(applied(&node));
    let told = wait_for("it is noted", || status(&node).filter(|told| told["backups"][0]["made_by"] == "n1"));
    assert!(told["backups"][0]["age_seconds"].as_u64().is_some_and(|age| age < 60), "{told}");
    assert!(told["backups"][0]["last_full_at"].is_u64() && told["backups"][0]["error"].is_null(), "{told}");
    let words = run(&["cluster", "status", "--endpoints", &node.address]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("backups to near: the newest"), "{words:?}");
    let refused = run(&["put", "$backup", "near", "x", "--endpoints", &node.address]);
    assert!(stderr(&refused).contains("system"), "what is agreed is not the clients': {}", stderr(&refused));
    let verified = run(&["backup", "verify", "--at", &bed.place]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[test]
fn a_follower_makes_them_and_another_node_when_that_is_gone() {
    let bed = Bed::new("full_every = \"1h\"\nincremental_every = \"1s\"\n");
    let first = bed.node("n1", &["--bootstrap"]);
    let others = ["n2", "n3"].map(|name| bed.node(name, &["--join", &first.address]));
    let mut nodes = Vec::from([first]);
    nodes.extend(others);
    wait_for("all vote", || {
        let told = status(&nodes[0])?;
        (told["nodes"].as_array()?.iter().filter(|node| node["voter"] == true).count() == 3).then_some(())
    });
    // Who led alone may have made the first ones; from now on it leaves them to the others.
    let made_by = |nodes: &[Node], not: &[&str]| -> String {
        // A node that is killed while it makes one is waited for: a minute.
        let until = Instant::now() + 3 * LIMIT;
        for number in 0.. {
            put(&nodes[0], &format!("k{number}"));
            let told = status(&nodes[0]).unwrap_or_default();
            let made_by = told["backups"][0]["made_by"].as_str().unwrap_or_default().to_owned();
            if made_by != told["leader"].as_str().unwrap_or(&made_by) && !not.contains(&made_by.as_str()) {
                return made_by;
            }
            assert!(Instant::now() < until, "no other node makes them: {told}");
        }
        unreachable!("it ends by the limit")
    };
    let maker = made_by(&nodes, &[]);
    let place = ["n1", "n2", "n3"].iter().position(|name| *name == maker).expect("a member");
    let mut gone = nodes.remove(place);
    gone.process.end(Signal::KILL);
    // The other follower, whoever leads now.
    let next = made_by(&nodes, &[&maker]);
    assert_ne!(next, maker);
    put(&nodes[0], "last");
    bed.archived(applied(&nodes[0]));
    let verified = run(&["backup", "verify", "--at", &bed.place, "--deep"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn what_fails_is_said_in_the_status() {
    let bed = Bed::new("full_every = \"1h\"\n");
    std::fs::write(bed.temp.path().join("backups"), "a file where a directory should be").unwrap();
    let node = bed.node("n1", &["--bootstrap"]);
    let told = wait_for("it failed", || status(&node).filter(|told| told["backups"][0]["error"].is_string()));
    assert!(told["backups"][0]["last_success_at"].is_null(), "{told}");
    let words = run(&["cluster", "status", "--endpoints", &node.address]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("the last attempt failed"), "{words:?}");
}
