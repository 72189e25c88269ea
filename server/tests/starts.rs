//! Starts of a directory that has a past: cut off half-way, moved to another address, copied, meant for a cluster that is
//! gone.

mod common;

use std::fs;
use std::path::Path;

use common::{Node, run, stderr};
use rustix::process::Signal;
use serde_json::{Value, json};

const DONE: Option<i32> = Some(0);

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
