//! `calamus cluster` when nodes hang or are not there: other endpoints are asked, and the answer comes in time.

mod common;

use common::{Node, Process, run, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

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
    both_vote(&n1);
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

#[tokio::test]
async fn health_says_not_serving_while_there_is_no_quorum() {
    let temp = tempfile::tempdir().unwrap();
    let n1 = Node::bootstrap(&temp.path().join("n1"), "n1");
    let n2 = Node::start(&temp.path().join("n2"), &["--name", "n2", "--listen", "127.0.0.1:0", "--join", &n1.address]);
    both_vote(&n1);
    let endpoint = Channel::from_shared(format!("http://{}", n1.address)).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    n2.process.signal(Signal::STOP);
    until_health(&mut health, ServingStatus::NotServing).await;
    n2.process.signal(Signal::CONT);
    until_health(&mut health, ServingStatus::Serving).await;
}

async fn until_health(health: &mut HealthClient<Channel>, wanted: ServingStatus) {
    let until = tokio::time::Instant::now() + common::LIMIT;
    while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status() != wanted {
        assert!(tokio::time::Instant::now() < until, "waited too long: health is {wanted:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn both_vote(n1: &Node) {
    wait_for("both are voters", || {
        let output = run(&["cluster", "status", "--json", "--endpoints", &n1.address]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let nodes = status["nodes"].as_array()?;
        (nodes.len() == 2 && nodes.iter().all(|node| node["voter"] == true)).then_some(())
    });
}
