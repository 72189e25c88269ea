//! `calamus cluster` when nodes hang or are not there: other endpoints are asked, and the answer comes in time.

mod common;

use common::{Node, Process, run, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Runs `calamus cluster ... --json`, which must end by itself; its exit code and its answer.
fn cluster(log: &std::path::Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut process = Process::start(&[&["cluster"], arguments, &["--json"]].concat(), log);
    let code = process.wait().code();
    let answer = process.line("its answer", |line| serde_json::from_str(line).ok());
    (code, answer)
}

#[test]
fn an_endpoint_that_hangs_is_passed_over_and_a_change_without_a_quorum_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let n1 = Node::bootstrap(&temp.path().join("n1"), "n1");
    let join = ["--name", "n2", "--listen", "127.0.0.1:0", "--join", &n1.address];
    let n2 = Node::start(&temp.path().join("n2"), &join);
    wait_for("both are voters", || {
        let output = run(&["cluster", "status", "--json", "--endpoints", &n1.address]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["nodes"].as_array()?.iter().all(|node| node["voter"] == true).then_some(())
    });
    n2.process.signal(Signal::STOP);
    let endpoints = format!("{},{}", n2.address, n1.address);
    let log = temp.path().join("cluster.log");

    let (code, answer) = cluster(&log, &["remove", "nobody", "--endpoints", &endpoints]);
    assert_eq!((code, &answer["outcome"]), (Some(1), &Value::from("not_committed")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("no member is called"), "{answer}");
    // Without its quorum n1 takes no entry, or has taken one whose outcome it does not know.
    let (code, answer) = cluster(&log, &["remove", "n2", "--endpoints", &endpoints]);
    let expected = if answer["outcome"] == "unknown" { 3 } else { 1 };
    assert_eq!(code, Some(expected), "{answer}");
    assert!(answer["message"].is_string(), "{answer}");
}

#[test]
fn nobody_there_is_an_answer_in_json_too() {
    let temp = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, answer) = cluster(&temp.path().join("log"), &["status", "--endpoints", &nobody]);
    assert_eq!((code, &answer["error"]), (Some(1), &Value::from("unreachable")), "{answer}");
}
