//! Starts of a directory that has a past: cut off half-way, moved to another address, copied, meant for a cluster that is
//! gone.

mod common;

use std::fs;
use std::path::Path;

use common::{Node, Process, run, stderr, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

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

/// Starts a node that must end by itself with exit code 1; what it logged.
fn refused(dir: &Path, more: &[&str]) -> String {
    let arguments = [&["serve", "--dir", text(dir)], more].concat();
    let mut process = Process::start(&arguments, &dir.with_extension("refused.log"));
    let status = process.wait();
    let log = process.read_log();
    assert_eq!(status.code(), FAILED, "{log}");
    log
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// It leads, so nobody else can be asked whether it is still where it was.
#[test]
fn the_only_node_of_a_cluster_can_be_moved_and_others_join_it_there() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = ["n1", "n2"].map(|name| temp.path().join(name));
    let mut node = Node::bootstrap(&one, "n1");
    put(&node.address, "before");
    assert_eq!(node.process.end(Signal::TERM).code(), DONE);
    // Its old port is taken by another, so that it gets a new one.
    let taken = std::net::TcpListener::bind(&node.address).expect("the port of a node that has ended is free");
    let node = Node::start(&one, &["--listen", "127.0.0.1:0"]);
    let other = join(&two, "n2", &node.address);
    let nodes = voters(&other.address, 2);
    assert!(nodes.iter().any(|found| found["address"] == node.address.as_str()), "{nodes:?}");
    put(&other.address, "after");
    drop(taken);
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

#[test]
fn a_copied_directory_does_not_run_as_its_original() {
    let temp = tempfile::tempdir().unwrap();
    let [dir, other, copy, renamed] = ["n1", "n2", "copy", "renamed"].map(|name| temp.path().join(name));
    let n1 = Node::bootstrap(&dir, "n1");
    let mut n2 = join(&other, "n2", &n1.address);
    let before = voters(&n1.address, 2);
    copy_dir(&other, &copy);
    let log = refused(&copy, &["--listen", "127.0.0.1:0"]);
    assert!(log.contains("copied or restored") && log.contains("--join"), "{log}");
    // Who says that it was moved is believed, unless its original answers.
    let log = refused(&copy, &["--listen", "127.0.0.1:0", "--directory-was-moved"]);
    assert!(log.contains(&n2.address) && log.contains("same raft id"), "{log}");
    let after = voters(&n1.address, 2);
    for node in 0..2 {
        for field in ["name", "raft_id", "address", "term"] {
            assert_eq!(before[node][field], after[node][field], "{field}");
        }
    }

    // A rename is no copy.
    assert_eq!(n2.process.end(Signal::TERM).code(), DONE);
    fs::rename(&other, &renamed).unwrap();
    let mut n2 = Node::start(&renamed, &[]);
    assert_eq!(n2.process.end(Signal::TERM).code(), DONE);
    // To another disk on purpose.
    let elsewhere = temp.path().join("elsewhere");
    copy_dir(&renamed, &elsewhere);
    fs::remove_dir_all(&renamed).unwrap();
    refused(&elsewhere, &[]);
    let mut n2 = Node::start(&elsewhere, &["--directory-was-moved"]);
    assert_eq!(n2.process.end(Signal::TERM).code(), DONE);
    // Said once.
    Node::start(&elsewhere, &[]);
}

#[test]
fn a_half_joined_directory_is_refused_by_the_cluster_that_took_its_host_over() {
    let temp = tempfile::tempdir().unwrap();
    let [dir, half, early] = ["host", "half", "early"].map(|name| temp.path().join(name));
    let mut host = Node::bootstrap(&dir, "host");
    let nodes = [(&half, "half"), (&early, "early")].map(|(dir, name)| (dir, name, join(dir, name, &host.address)));
    voters(&host.address, 3);
    for (dir, name, mut node) in nodes {
        assert_eq!(node.process.end(Signal::TERM).code(), DONE, "{}", node.process.read_log());
        put_first_start_back(dir, &node, name, &json!({ "join": host.address }));
    }
    host.process.end(Signal::KILL);
    fs::remove_dir_all(&dir).unwrap();
    // This one starts before its host is there again, and asks it to be added.
    let mut early = Node::spawn(&early, &[]);
    let host = Node::start(&dir, &["--name", "host", "--listen", &host.address, "--bootstrap"]);
    let log = refused(&half, &[]);
    assert!(log.contains("another cluster") && log.contains(&host.address), "{log}");
    assert_eq!(early.process.wait().code(), FAILED);
    assert!(early.process.read_log().contains("does not take this node"), "{}", early.process.read_log());
    assert_eq!(members(&host.address).expect("the new cluster answers").len(), 1);
}
