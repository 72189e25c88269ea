//! Starts of a directory that has a past: cut off half-way, moved to another address, copied, meant for a cluster that is
//! gone.

mod common;

use std::fs;
use std::path::Path;

use common::{Node, run, stderr, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const DONE: Option<i32> = Some(0);

fn join(dir: &Path, name: &str, host: &str) -> Node {
    Node::start(dir, &["--name", name, "--listen", "127.0.0.1:0", "--join", host])
}

/// What the node at `address` says of all nodes; `None` if it does not answer.
fn members(address: &str) -> Option<Vec<Value>> {
    let output = run(&["cluster", "status", "--json", "--endpoints", address]);
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(status["nodes"].as_array()?.clone())
}

/// Waits until the node at `address` knows so many voters, all of which answer.
fn voters(address: &str, count: usize) -> Vec<Value> {
    wait_for("every node is a voter that answers", || {
        let nodes = members(address)?;
        let good = nodes.iter().filter(|node| node["voter"] == true && node["unreachable"] == false).count();
        (good == count && nodes.len() == count).then_some(nodes)
    })
}

fn put(address: &str, key: &str) {
    let output = run(&["put", "t", key, "v", "--endpoints", address]);
    assert_eq!(output.status.code(), DONE, "{}", stderr(&output));
}

/// As if the first start had been cut off before its last step.
fn put_first_start_back(dir: &Path, node: &Node, name: &str, how: &Value) {
    let first_start = json!({ "name": name, "listen": node.address, "advertise": node.address, "how": how });
    fs::write(dir.join("first-start"), first_start.to_string()).unwrap();
}

#[test]
fn a_bootstrap_cut_off_after_the_cluster_was_made_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    put(&node.address, "k");
    assert_eq!(node.process.end(Signal::TERM).code(), DONE);
    put_first_start_back(&dir, &node, "n1", &json!("bootstrap"));
    let mut again = Node::start(&dir, &[]);
    let got = run(&["get", "t", "k", "--endpoints", &again.address]);
    assert_eq!((got.status.code(), got.stdout.as_slice()), (DONE, &b"v"[..]), "it is the same cluster");
    assert!(!dir.join("first-start").exists());
    assert_eq!(again.process.end(Signal::TERM).code(), DONE);
}

#[test]
fn a_follower_moves_while_the_cluster_is_written_to() {
    let temp = tempfile::tempdir().unwrap();
    let dirs = ["n1", "n2", "n3"].map(|name| temp.path().join(name));
    let n1 = Node::bootstrap(&dirs[0], "n1");
    let mut nodes = vec![join(&dirs[1], "n2", &n1.address), join(&dirs[2], "n3", &n1.address)];
    nodes.insert(0, n1);
    let known = voters(&nodes[0].address, 3);
    let moving = known.iter().position(|node| node["role"] == "follower").expect("two nodes follow");
    let (name, staying) = (known[moving]["name"].clone(), (moving + 1) % 3);
    assert_eq!(nodes[moving].process.end(Signal::TERM).code(), DONE);
    put(&nodes[staying].address, "while it is away");
    let old = nodes[moving].address.clone();
    // Node::start waits until it is ready.
    nodes[moving] = Node::start(&dirs[moving], &["--listen", "127.0.0.1:0"]);
    assert_ne!(nodes[moving].address, old);
    let after = voters(&nodes[staying].address, 3);
    let moved = after.iter().find(|node| node["name"] == name).expect("it is still a member");
    assert_eq!(moved["address"], nodes[moving].address.as_str());

    // It moves again while nobody is there to be told, and is killed before anybody comes.
    for node in &mut nodes {
        assert_eq!(node.process.end(Signal::USR1).code(), DONE, "{}", node.process.read_log());
    }
    let mut alone = Node::spawn(&dirs[moving], &["--listen", "127.0.0.1:0"]);
    assert_ne!(alone.address, nodes[moving].address);
    assert_eq!(alone.process.end(Signal::KILL).code(), None);
    let mut again: Vec<Node> = dirs.iter().map(|dir| Node::spawn(dir, &[])).collect();
    again.iter_mut().for_each(Node::ready);
    assert_eq!(again[moving].address, alone.address);
    let after = voters(&again[staying].address, 3);
    let moved = after.iter().find(|node| node["name"] == name).expect("it is still a member");
    assert_eq!(moved["address"], alone.address.as_str());
}
