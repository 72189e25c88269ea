//! One node as a real process: put, get, scan, limits, health, reflection, and starting again after an end in order and
//! after kill -9.

mod common;

use std::path::Path;

use bytes::Bytes;
use calamus_proto::v1::error_detail::OutcomeClass;
use calamus_proto::v1::kv_client::KvClient;
use calamus_proto::v1::operation::Kind;
use calamus_proto::v1::{
    ErrorDetail, GetRequest, ListTreesRequest, Operation, Put, Range, ScanRequest, ScanResponse, TxnRequest,
    TxnResponse,
};
use calamus_proto::{ERROR_DETAIL_METADATA, MAX_MESSAGE_BYTES};
use common::{Node, calamus, run, stderr, wait_for};
use prost::Message;
use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Kv = KvClient<Channel>;

async fn kv(node: &Node) -> Kv {
    let client = KvClient::connect(format!("http://{}", node.address)).await.expect("the node takes connections");
    client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn put(tree: &str, key: &[u8], value: impl Into<Bytes>) -> Operation {
    let key = Bytes::copy_from_slice(key);
    Operation { kind: Some(Kind::Put(Put { tree: tree.to_owned(), key, value: value.into(), tree_must_exist: false })) }
}

async fn txn(kv: &mut Kv, operations: Vec<Operation>) -> Result<TxnResponse, Status> {
    kv.txn(TxnRequest { operations, ..TxnRequest::default() }).await.map(tonic::Response::into_inner)
}

async fn get(kv: &mut Kv, tree: &str, key: &[u8]) -> Result<Option<Bytes>, Status> {
    let key = Bytes::copy_from_slice(key);
    let answer = kv.get(GetRequest { tree: tree.to_owned(), key, ..GetRequest::default() }).await?.into_inner();
    assert!(answer.read_point.is_some());
    Ok(answer.entry.map(|entry| entry.value))
}

async fn scan(kv: &mut Kv, request: ScanRequest) -> Result<Vec<ScanResponse>, Status> {
    let mut stream = kv.scan(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = stream.message().await? {
        all.push(chunk);
    }
    Ok(all)
}

fn keys(chunks: &[ScanResponse]) -> Vec<String> {
    let entries = chunks.iter().flat_map(|chunk| &chunk.entries);
    entries.map(|entry| String::from_utf8(entry.key.to_vec()).expect("the keys of these tests are text")).collect()
}

/// The detail that goes with an error.
fn detail(status: &Status) -> ErrorDetail {
    let value = status.metadata().get_bin(ERROR_DETAIL_METADATA).expect("every error has its detail");
    ErrorDetail::decode(value.to_bytes().expect("base64")).expect("a detail")
}

fn check_clean(dir: &Path) {
    let output = run(&["check", dir.to_str().expect("temporary paths are UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
}

#[tokio::test]
async fn what_was_put_is_there_after_an_end_in_order_and_after_a_kill() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    let mut client = kv(&node).await;
    let first = txn(&mut client, vec![put("t", b"a", "1"), put("t", b"b", "2")]).await.unwrap();
    assert_eq!(first.txn_id, 1);
    assert_eq!(get(&mut client, "t", b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&mut client, "t", b"c").await.unwrap(), None);
    assert_eq!(node.process.end(Signal::TERM).code(), Some(0), "{}", node.process.read_log());
    assert!(!dir.join("pid").exists(), "an end in order removes the process id");
    check_clean(&dir);

    let mut node = Node::start(&dir, &[]);
    let mut client = kv(&node).await;
    assert_eq!(get(&mut client, "t", b"b").await.unwrap().as_deref(), Some(&b"2"[..]));
    for number in 0..50u32 {
        txn(&mut client, vec![put("t", format!("k{number:03}").as_bytes(), vec![7; 3000])]).await.unwrap();
    }
    assert_eq!(node.process.end(Signal::KILL).code(), None);

    let mut node = Node::start(&dir, &[]);
    let mut client = kv(&node).await;
    let found = scan(&mut client, ScanRequest { tree: "t".to_owned(), ..ScanRequest::default() }).await.unwrap();
    assert_eq!(keys(&found).len(), 52, "every acknowledged put is there");
    assert_eq!(node.process.end(Signal::USR1).code(), Some(0));
    check_clean(&dir);
}

#[test]
fn a_write_whose_answer_cannot_be_printed_is_said_to_be_committed() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [vec!["put", "t", "k", "v"], vec!["del", "t", "k"]] {
        let output =
            calamus(&[&arguments[..], &["--endpoints", &node.address]].concat()).stdout(full()).output().unwrap();
        let said = stderr(&output);
        assert!(output.status.code() == Some(3) && said.contains("committed as txn"), "{arguments:?}: {said}");
    }
    let text = r#"{"guards": [{"tree": "t", "key": "k", "exists": true}]}"#;
    let file = temp.path().join("txn.json");
    std::fs::write(&file, text).unwrap();
    // Nobody reads what it prints; what it found is in the exit code all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let line = ["txn", file.to_str().unwrap(), "--endpoints", &node.address];
    assert_eq!(calamus(&line).stdout(writer).output().unwrap().status.code(), Some(4));
}

#[tokio::test]
async fn scans_come_in_chunks_in_both_directions_and_end_at_their_limit() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let mut client = kv(&node).await;
    let names: Vec<String> = (0..300).map(|number| format!("{}{number:03}", ["a", "b", "c"][number / 100])).collect();
    for part in names.chunks(50) {
        let puts = part.iter().map(|name| put("t", name.as_bytes(), vec![1; 20_000])).collect();
        txn(&mut client, puts).await.unwrap();
    }
    let all = ScanRequest { tree: "t".to_owned(), ..ScanRequest::default() };
    let found = scan(&mut client, all.clone()).await.unwrap();
    assert_eq!(keys(&found), names);
    assert!(found.len() >= 5, "6 MB come in chunks of 1 MiB, not in {}", found.len());
    assert!(found.iter().all(|chunk| chunk.encoded_len() < 1_200_000));
    assert!(found[0].read_point.is_some() && found[1].read_point.is_none());

    let reversed: Vec<String> = names.iter().rev().cloned().collect();
    let back = ScanRequest { reverse: true, ..all.clone() };
    assert_eq!(keys(&scan(&mut client, back.clone()).await.unwrap()), reversed);
    for (limit, keys_only) in [(1, false), (32, true), (33, false), (150, true), (1000, true)] {
        let request = ScanRequest { limit, keys_only, ..back.clone() };
        let found = scan(&mut client, request).await.unwrap();
        assert_eq!(keys(&found), reversed[..(limit as usize).min(300)], "limit {limit}");
        assert!(found.iter().flat_map(|chunk| &chunk.entries).all(|entry| entry.value.is_empty() == keys_only));
    }

    let range = |start: &'static str, end: &'static str, prefix: &'static str| Range {
        start: start.into(),
        end: end.into(),
        prefix: prefix.into(),
    };
    for (range, from, to) in [
        (range("", "", "b"), 100, 200),
        (range("a099", "b101", ""), 99, 101),
        (range("a0995", "b", ""), 100, 100),
        (range("c299", "", ""), 299, 300),
        (range("d", "", ""), 300, 300),
    ] {
        let forward = ScanRequest { range: Some(range), ..all.clone() };
        let backward = ScanRequest { reverse: true, ..forward.clone() };
        let found = scan(&mut client, forward).await.unwrap();
        assert!(found[0].read_point.is_some(), "an empty range has a read point too");
        assert_eq!(keys(&found), names[from..to]);
        assert_eq!(keys(&scan(&mut client, backward).await.unwrap()), reversed[300 - to..300 - from]);
    }
}

#[tokio::test]
async fn the_largest_value_goes_in_and_one_over_any_limit_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let mut client = kv(&node).await;
    let largest: Bytes = (0..8usize << 20).map(|at| (at % 251) as u8).collect();
    txn(&mut client, vec![put("big", b"k", largest.clone())]).await.unwrap();
    assert_eq!(get(&mut client, "big", b"k").await.unwrap(), Some(largest.clone()));
    let found = scan(&mut client, ScanRequest { tree: "big".to_owned(), ..ScanRequest::default() }).await.unwrap();
    assert_eq!(found[0].entries[0].value, largest);

    let over = vec![0u8; (8 << 20) + 1];
    let refused: [(Vec<Operation>, &str); 5] = [
        (vec![put("big", b"k", over)], "value_too_large"),
        (vec![put("big", &[1; 2049], "v")], "key_too_long"),
        (vec![put("big", b"", "v")], "key_empty"),
        (vec![put("", b"k", "v")], "bad_tree_name"),
        (vec![put("$sessions", b"k", "v")], "system_tree"),
    ];
    for (operations, reason) in refused {
        let status = txn(&mut client, operations).await.unwrap_err();
        let detail = detail(&status);
        assert_eq!((detail.reason.as_str(), detail.outcome()), (reason, OutcomeClass::NotCommitted), "{status:?}");
        assert!(!detail.retryable && !detail.message.is_empty());
    }
    let unknown = get(&mut client, "nowhere", b"k").await.unwrap_err();
    assert_eq!((unknown.code(), detail(&unknown).reason.as_str()), (Code::NotFound, "no_such_tree"));
    let range = Range { start: "b".into(), end: "a".into(), ..Range::default() };
    let request = ScanRequest { tree: "big".to_owned(), range: Some(range), ..ScanRequest::default() };
    let wrong = scan(&mut client, request).await.unwrap_err();
    assert_eq!((wrong.code(), detail(&wrong).reason.as_str()), (Code::InvalidArgument, "bad_range"));
    let request = GetRequest { tree: "big".to_owned(), key: "k".into(), consistency: 9, ..GetRequest::default() };
    assert_eq!(client.get(request).await.unwrap_err().code(), Code::InvalidArgument);

    let trees = client.list_trees(ListTreesRequest::default()).await.unwrap().into_inner().trees;
    assert_eq!(trees.iter().map(|tree| tree.name.as_str()).collect::<Vec<_>>(), ["big"], "nothing refused left a tree");
}

#[tokio::test]
async fn a_scan_that_its_client_forgot_is_broken_off_and_holds_up_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let new = ["--name", "n1", "--listen", "127.0.0.1:0", "--bootstrap", "--versions-mib", "8"];
    let node = Node::start(&temp.path().join("n1"), &new);
    let mut client = kv(&node).await;
    let write =
        |round: u8| (0..16u8).map(move |part| (0..12u8).map(move |key| put("t", &[part, key], vec![round; 64 << 10])));
    for batch in write(0) {
        txn(&mut client, batch.collect()).await.unwrap();
    }
    // 12 MiB, far more than the windows of a connection hold; the first chunk is taken, then nothing.
    let all = ScanRequest { tree: "t".to_owned(), ..ScanRequest::default() };
    let mut forgotten = kv(&node).await.scan(all.clone()).await.unwrap().into_inner();
    assert!(!forgotten.message().await.unwrap().unwrap().entries.is_empty());
    for round in 1..6 {
        for batch in write(round) {
            txn(&mut client, batch.collect()).await.unwrap();
        }
    }
    let broken = loop {
        match forgotten.message().await {
            Ok(Some(chunk)) => assert!(chunk.entries.iter().all(|entry| entry.value.iter().all(|byte| *byte == 0))),
            Ok(None) => panic!("the scan ended as if it were complete"),
            Err(status) => break status,
        }
    };
    assert_eq!((broken.code(), detail(&broken).reason.as_str()), (Code::Aborted, "reader_expired"), "{broken:?}");
    let found = scan(&mut client, all).await.unwrap();
    assert_eq!(found.iter().map(|chunk| chunk.entries.len()).sum::<usize>(), 16 * 12);
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_lists_the_services() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let endpoint = Channel::from_shared(format!("http://{}", node.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "calamus.v1.Kv", "calamus.v1.Cluster"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["calamus.v1.Kv", "calamus.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_node_moves_to_another_address_and_the_cluster_knows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    assert_eq!(node.process.end(Signal::TERM).code(), Some(0));
    let moved = Node::start(&dir, &["--listen", "127.0.0.1:0"]);
    let status = wait_for("the new address in the membership", || {
        let output = run(&["cluster", "status", "--json", "--endpoints", &moved.address]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (status["nodes"][0]["address"] == moved.address.as_str()).then_some(status)
    });
    assert_eq!(status["leader"], "n1");
    assert_eq!(status["nodes"][0]["role"], "leader");
}

#[tokio::test]
async fn a_page_of_a_stopped_node_is_shown_and_one_that_rotted_gives_exit_code_4() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    let page = |number: &str| run(&["page", dir.to_str().expect("temporary paths are UTF-8"), number, "--json"]);
    assert_eq!(page("0").status.code(), Some(1), "a running node has the directory");
    assert_eq!(node.process.end(Signal::TERM).code(), Some(0));

    let output = page("0");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown["kind"], &shown["checksum_fits"]), (&"superblock".into(), &true.into()), "{shown}");
    assert_eq!(page("4000000000").status.code(), Some(1), "the file ends before it");

    let data = dir.join("g1/data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[8192 + 100] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let output = page("1");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown["offset"], &shown["checksum_fits"]), (&8192.into(), &false.into()), "{shown}");
}
