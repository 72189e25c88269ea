//! Watches of a real node, by the command line and by gRPC.

mod common;

use std::path::Path;
use std::time::Duration;

use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::watch_client::WatchClient;
use calamus_proto::v1::watch_request::Start;
use calamus_proto::v1::watch_response::Event;
use calamus_proto::v1::{
    WatchNow, WatchOldest, WatchPosition, WatchRequest, WatchResponse, watch_change::Kind, watch_end,
};
use common::{Node, Process, run, stderr, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tonic::{Code, Streaming};

fn put(node: &Node, tree: &str, key: &str, value: &str) {
    let output = run(&["put", tree, key, value, "--endpoints", &node.address]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// What `calamus watch` prints as JSON.
fn watched(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let output = run(&[&["watch"], arguments, &["--json", "--endpoints", &node.address]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect()
}

fn values(lines: &[Value]) -> Vec<&str> {
    let changes = lines.iter().flat_map(|line| line["changes"].as_array().expect("a list"));
    changes.filter_map(|change| change["value"].as_str()).collect()
}

async fn open(node: &Node, request: WatchRequest) -> Result<Streaming<WatchResponse>, tonic::Status> {
    let client = WatchClient::connect(format!("http://{}", node.address)).await.expect("the node takes connections");
    Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).watch(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Event {
    let message = tokio::time::timeout(common::LIMIT, stream.message()).await.expect("it comes in time");
    message.expect("no error").expect("no end").event.expect("something")
}

#[test]
fn a_new_process_goes_on_where_one_ended_also_when_the_node_was_killed_between() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, position) = (temp.path().join("n1"), temp.path().join("position"));
    let position = position.to_str().unwrap();
    let node = Node::bootstrap(&dir, "n1");
    for number in 1..=5 {
        put(&node, "t", &format!("k{number}"), &format!("v{number}"));
        put(&node, "other", "k", "not watched");
    }
    let first = watched(&node, &["t", "--from-oldest", "--position", position, "--count", "3"]);
    assert_eq!(values(&first), ["v1", "v2", "v3"]);
    assert_eq!(first[0]["changes"][0]["op"], "create_tree", "with the first value comes the tree: {first:?}");
    // Dropped is killed.
    drop(node);
    let node = Node::start(&dir, &[]);
    assert_eq!(values(&watched(&node, &["t", "--position", position, "--count", "2"])), ["v4", "v5"]);
    let after = first[2]["txn_id"].to_string();
    assert_eq!(values(&watched(&node, &["t", "--from-txn", &after, "--prefix", "k5", "--count", "1"])), ["v5"]);
    let output = run(&["watch", "--all", "--from-oldest", "--count", "2", "--endpoints", &node.address]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\tt\tcreate tree\n") && text.contains("\tt\tput\tk1\tv1\n"), "{text}");
    assert!(text.contains("\tother\tput\tk\tnot watched\n"), "{text}");
    std::fs::write(position, "no position").unwrap();
    let output = run(&["watch", "t", "--position", position, "--endpoints", &node.address]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("DATABASE/TIMELINE/TXN"), "{output:?}");
}

/// What is committed while nobody watches is not passed over, though the first run never printed a line.
#[test]
fn a_run_that_ends_before_the_first_line_has_kept_where_it_began_and_what_it_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    put(&node, "t", "k0", "before");
    let position = temp.path().join("position");
    let arguments = ["watch", "t", "--position", position.to_str().unwrap(), "--endpoints", &node.address];
    let saved = || std::fs::read_to_string(&position).ok()?.trim().parse::<calamus_client::Position>().ok();
    let mut first = Process::start(&arguments, &temp.path().join("log"));
    let begun = wait_for("the position where it begins", saved).txn_id;
    // Nothing of what it watches: a heartbeat says that there was nothing.
    put(&node, "other", "k", "not watched");
    wait_for("the position behind what was passed over", || saved().filter(|position| position.txn_id > begun));
    first.end(Signal::KILL);
    put(&node, "t", "k1", "while nobody watched");
    let more = [&arguments[1..], &["--json", "--count", "1"]].concat();
    let output = run(&[&["watch"], &more[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line");
    assert_eq!(values(&[line]), ["while nobody watched"]);
}

#[tokio::test]
async fn an_idle_stream_says_how_far_it_is_and_what_comes_is_told_once_and_whole() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    put(&node, "t", "before", "1");
    let now =
        WatchRequest { tree: "t".into(), start: Some(Start::Now(WatchNow {})), heartbeat_ms: 50, ..Default::default() };
    let mut stream = open(&node, now).await.unwrap();
    let Event::Begin(begin) = next(&mut stream).await else { panic!("the first word is the position") };
    let begun = begin.position.unwrap();
    assert_eq!((begin.node.as_str(), begun.txn_id, begun.timeline), ("n1", begin.applied_txn, 1));
    for _ in 0..3 {
        let Event::Progress(progress) = next(&mut stream).await else { panic!("nothing was written") };
        let point = progress.read_point.unwrap();
        assert_eq!((progress.txn_id, point.txn_id, point.node.as_str()), (begun.txn_id, begun.txn_id, "n1"));
        assert!(point.age_micros < 60_000_000, "a leader alone knows that it is up to date: {point:?}");
    }
    put(&node, "other", "k", "2");
    put(&node, "t", "large", &"x".repeat(100_000));
    let mut stands_at = begun.txn_id;
    let txn = loop {
        match next(&mut stream).await {
            Event::Progress(progress) => stands_at = progress.txn_id,
            Event::Transaction(txn) => break txn,
            other => panic!("{other:?}"),
        }
    };
    assert!(txn.follows == stands_at && txn.txn_id > begun.txn_id + 1 && !txn.more, "{stands_at}: {txn:?}");
    assert!(matches!(&txn.changes[0].kind, Some(Kind::Put(put)) if put.key == "large" && put.value.len() == 100_000));
    let Event::Progress(progress) = next(&mut stream).await else { panic!("nothing more was written") };
    assert_eq!(progress.txn_id, txn.txn_id);
}

#[tokio::test]
async fn positions_of_another_timeline_and_requests_without_sense_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let after = |database_id: &str, timeline| WatchRequest {
        start: Some(Start::After(WatchPosition { database_id: database_id.to_owned(), timeline, txn_id: 0 })),
        ..WatchRequest::default()
    };
    for (database, timeline) in [("", 77), ("00000000000000000000000000000001", 1)] {
        let mut stream = open(&node, after(database, timeline)).await.unwrap();
        let Event::End(end) = next(&mut stream).await else { panic!("it is of another timeline") };
        let Some(watch_end::Why::OtherTimeline(other)) = end.why else { panic!("{end:?}") };
        assert_eq!((other.timeline, other.forked_at_txn), (1, None));
        assert!(stream.message().await.unwrap().is_none(), "nothing comes behind the end");
    }
    let system = WatchRequest { tree: "$sessions".to_owned(), ..after("", 0) };
    assert_eq!(open(&node, system.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(open(&node, WatchRequest { include_system: true, ..system }).await.is_ok());
    let nowhere = open(&node, WatchRequest::default()).await.unwrap_err();
    assert!(nowhere.code() == Code::InvalidArgument && nowhere.message().contains("oldest"), "{nowhere:?}");
}

/// A watcher that takes nothing holds neither the journal nor a writer; when it reads on, it is told what is gone.
#[tokio::test]
async fn a_watcher_that_takes_nothing_holds_nothing_and_is_told_so() {
    let temp = tempfile::tempdir().unwrap();
    let flags =
        ["--name", "n1", "--listen", "127.0.0.1:0", "--bootstrap", "--checkpoint-mib", "1", "--retention-mib", "1"];
    let node = Node::start(&temp.path().join("n1"), &flags);
    put(&node, "t", "first", "1");
    let oldest = WatchRequest { start: Some(Start::Oldest(WatchOldest {})), ..WatchRequest::default() };
    let mut stream = open(&node, oldest.clone()).await.unwrap();
    let Event::Begin(_) = next(&mut stream).await else { panic!("the first word is the position") };
    let file = write_large_values(temp.path());
    let limit = std::time::Instant::now() + common::LIMIT;
    loop {
        let output = run(&["load", file.to_str().unwrap(), "--tree", "t", "--key", "id", "--endpoints", &node.address]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let first = WatchPosition { txn_id: 1, ..WatchPosition::default() };
        let request = WatchRequest { start: Some(Start::After(first)), ..WatchRequest::default() };
        if let Event::End(_) = next(&mut open(&node, request).await.unwrap()).await {
            break;
        }
        assert!(std::time::Instant::now() < limit, "the journal's first segment is never recycled");
    }
    let (mut told, mut stands_at) = (0, 0);
    let oldest = loop {
        match next(&mut stream).await {
            Event::Transaction(txn) => {
                assert!(txn.follows == stands_at || stands_at == 0, "txn {} behind {stands_at}", txn.follows);
                (told, stands_at) = (told + 1, txn.txn_id);
            }
            Event::Progress(progress) => stands_at = progress.txn_id,
            Event::End(end) => {
                let Some(watch_end::Why::NotHeld(not_held)) = end.why else { panic!("{end:?}") };
                assert!(not_held.members.is_empty(), "this node is alone");
                break not_held.oldest.unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(told > 0 && stands_at < oldest.txn_id, "{told} were told, up to txn {stands_at}; {oldest:?}");
    // From there on it is held.
    let request = WatchRequest { start: Some(Start::After(oldest.clone())), ..WatchRequest::default() };
    let mut stream = open(&node, request).await.unwrap();
    let Event::Begin(begin) = next(&mut stream).await else { panic!("it is held") };
    assert_eq!(begin.position, Some(oldest));
    assert!(matches!(next(&mut stream).await, Event::Transaction(_) | Event::Progress(_)));
}

/// Documents of 200 KB, 16 MB in all: a segment of the journal, which is recycled whole, takes four times as much.
fn write_large_values(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("large.jsonl");
    let line = |id: u32| format!("{{\"id\":\"{id}\",\"text\":\"{}\"}}\n", "x".repeat(200_000));
    std::fs::write(&file, (0..80).map(line).collect::<String>()).unwrap();
    file
}

/// What a node is asked for while it ends is told as such, and the stream ends.
#[tokio::test]
async fn a_node_that_ends_in_good_order_ends_its_watches() {
    let temp = tempfile::tempdir().unwrap();
    let mut node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let request =
        WatchRequest { start: Some(Start::Now(WatchNow {})), heartbeat_ms: 60_000, ..WatchRequest::default() };
    let mut stream = open(&node, request).await.unwrap();
    let Event::Begin(_) = next(&mut stream).await else { panic!("the first word is the position") };
    let status = node.process.end(rustix::process::Signal::TERM);
    assert_eq!(status.code(), Some(0));
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.message()).await.expect("it ends");
    assert_eq!(ended.expect_err("an error, not an end").code(), Code::Unavailable);
}
