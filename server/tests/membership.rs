//! Growing and shrinking a cluster from the command line, with real processes.

mod common;

use common::{Node, Process, content, run, stderr, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Runs `calamus cluster ... --json` against this node; its exit code and its answer.
fn cluster(node: &Node, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(&[&["cluster"], arguments, &["--json", "--endpoints", &node.address]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"));
    (output.status.code(), answer)
}

#[track_caller]
fn done(node: &Node, arguments: &[&str]) -> Value {
    let (code, answer) = cluster(node, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {answer}");
    answer
}

/// What the status says of the members of a name.
fn called(node: &Node, name: &str) -> Vec<Value> {
    let status = done(node, &["status"]);
    status["nodes"].as_array().unwrap().iter().filter(|node| node["name"] == name).cloned().collect()
}

fn spawn_joiner(temp: &tempfile::TempDir, name: &str, host: &str, role: &[&str]) -> Node {
    let join = ["--name", name, "--listen", "127.0.0.1:0", "--join", host];
    Node::spawn(&temp.path().join(name), &[&join, role].concat())
}

fn joiner(temp: &tempfile::TempDir, name: &str, host: &str, role: &[&str]) -> Node {
    let mut node = spawn_joiner(temp, name, host, role);
    node.ready();
    node
}

#[test]
fn nodes_join_at_once_are_promoted_observe_and_are_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let n1 = Node::bootstrap(&temp.path().join("n1"), "n1");
    // All three at once: each is there before the one before it is a member.
    let mut joined = [("n2", "learner"), ("n3", "learner"), ("n4", "observer")]
        .map(|(name, role)| spawn_joiner(&temp, name, &n1.address, &["--as", role]));
    joined.iter_mut().for_each(Node::ready);
    let [n2, n3, n4] = joined;
    done(&n1, &["wait", "--leader", "--ready", "--caught-up", "n2", "--caught-up", "n3", "--caught-up", "n4"]);
    let expected = [("n2", "learner"), ("n3", "learner"), ("n4", "observer")];
    for (name, aim) in expected {
        let nodes = called(&n1, name);
        assert!(nodes.len() == 1 && nodes[0]["voter"] == false && nodes[0]["aim"] == aim, "{nodes:?}");
    }
    let (code, answer) = cluster(&n1, &["wait", "--voter", "n2", "--for", "0"]);
    assert_eq!((code, &answer["met"]), (Some(4), &Value::from(false)), "{answer}");

    // Asked of a node that does not lead: it is sent on.
    done(&n4, &["promote", "n2"]);
    done(&n1, &["promote", "n3"]);
    done(&n1, &["wait", "--voters", "3", "--voter", "n2", "--voter", "n3"]);
    assert_eq!(done(&n1, &["status"])["quorum"]["tolerates"], 1);

    done(&n2, &["observe", "n3"]);
    let observers = called(&n1, "n3");
    assert!(observers[0]["voter"] == false && observers[0]["aim"] == "observer", "{observers:?}");

    let (code, answer) = cluster(&n1, &["replace", "n2", &n4.address]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("--old-may-be-alive"), "{answer}");
    done(&n1, &["replace", "n2", &n4.address, "--old-may-be-alive"]);
    done(&n1, &["wait", "--gone", "n2", "--voter", "n4", "--voters", "2"]);
    wait_for("n2 is told", || n2.process.read_log().contains("was removed or replaced").then_some(()));
    let (code, answer) = cluster(&n1, &["promote", "n2"]);
    assert!(code == Some(1) && answer["message"].as_str().unwrap().contains("no member is called"), "{answer}");
    drop(n3);
}

/// A node that was removed is told what to do, also when it is started again; it does so, and is a member again under
/// another raft id.
#[test]
fn a_node_that_was_removed_is_wiped_and_joins_again() {
    let temp = tempfile::tempdir().unwrap();
    let n1 = Node::bootstrap(&temp.path().join("n1"), "n1");
    let mut n2 = joiner(&temp, "n2", &n1.address, &[]);
    done(&n1, &["wait", "--voter", "n2"]);
    let old = called(&n1, "n2")[0]["raft_id"].clone();
    n2.process.signal(Signal::STOP);
    // A quorum of two is both of them.
    let (code, answer) = cluster(&n1, &["remove", "n2"]);
    assert_eq!(code, Some(1), "{answer}");
    n2.process.signal(Signal::CONT);
    wait_for("it is removed", || (cluster(&n1, &["remove", "n2"]).0 == Some(0)).then_some(()));
    let told = |process: &Process| {
        wait_for("n2 is told what to do", || {
            let log = process.read_log();
            (log.contains("was removed or replaced") && log.contains("--join")).then_some(())
        });
    };
    told(&n2.process);
    assert!(n2.process.end(Signal::TERM).success());

    let directory = temp.path().join("n2");
    let log = temp.path().join("again.log");
    let mut again = Process::start(&["serve", "--dir", directory.to_str().unwrap()], &log);
    told(&again);
    let status = run(&["cluster", "status", "--json", "--endpoints", &n2.address]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let own = status["nodes"].as_array().unwrap().iter().find(|node| node["raft_id"] == old);
    assert!(own.is_none_or(|own| own["role"] == "outside" && own["voter"] == false), "{status}");
    assert!(again.end(Signal::TERM).success());

    std::fs::remove_dir_all(&directory).unwrap();
    let _n2 = joiner(&temp, "n2", &n1.address, &[]);
    done(&n1, &["wait", "--voter", "n2", "--voters", "2"]);
    let nodes = called(&n1, "n2");
    assert!(nodes.len() == 1 && nodes[0]["raft_id"] != old, "{nodes:?}");
}

/// What `cluster recover` cannot take is named, and nothing is changed.
#[test]
fn a_recovery_of_what_is_no_stopped_node_of_one_cluster_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, nowhere] = ["one", "two", "nowhere"].map(|name| temp.path().join(name));
    let refused = |arguments: &[&str]| {
        let output = run(&[&["cluster", "recover"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        stderr(&output)
    };
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let mut n1 = Node::bootstrap(&one, "n1");
    let said = refused(&["--dir", &text(&one)]);
    assert!(said.contains("in use by another process") && said.contains("stop the node"), "{said}");
    assert!(n1.process.end(Signal::TERM).success());
    let mut other = Node::bootstrap(&two, "n2");
    assert!(other.process.end(Signal::TERM).success());

    let before = (content(&one), content(&two));
    let said = refused(&["--dir", &text(&one), "--dir", &text(&two)]);
    assert!(said.contains("two clusters"), "{said}");
    assert!(refused(&["--dir", &text(&nowhere)]).contains("nowhere") && !nowhere.exists());
    let wrong = "0".repeat(32);
    let said = refused(&["--dir", &text(&one), "--i-accept-loss", &wrong]);
    assert!(said.contains("nothing was done") && said.contains(&wrong), "{said}");
    let guided = run(&["cluster", "recover", "--dir", &text(&one)]);
    let told = String::from_utf8_lossy(&guided.stdout).into_owned();
    assert_eq!(guided.status.code(), Some(4), "{told}");
    for part in ["What may be missing", "--i-accept-loss", "Nothing was changed", "n1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(before == (content(&one), content(&two)), "looking has changed something");
    assert_eq!(run(&["cluster", "recover"]).status.code(), Some(2), "without a directory");
}
