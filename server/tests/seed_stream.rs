//! `Backup.Stream` of a real node: its pages are the data file's, its frames the journal's.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use calamus_engine::page::PAGE_BYTES;
use calamus_engine::{CHAIN_START, Frame, FrameHeader, FrameKind};
use calamus_proto::MAX_MESSAGE_BYTES;
use calamus_proto::v1::backup_client::BackupClient;
use calamus_proto::v1::backup_stream_chunk::Chunk;
use calamus_proto::v1::{BackupStreamEnd, BackupStreamRequest};
use common::{Node, run, stderr};
use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

async fn client(node: &Node) -> BackupClient<Channel> {
    let client = BackupClient::connect(format!("http://{}", node.address)).await.expect("the node takes connections");
    client.max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn put(node: &Node, key: &str, value: &str) {
    let output = run(&["put", "t", key, value, "--endpoints", &node.address]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A frame as it came, checked.
fn frame(bytes: &Bytes) -> Frame {
    let header = FrameHeader::parse(bytes).expect("a frame's header");
    let rest = bytes.slice(bytes.len() - header.payload_bytes()..);
    header.with_payload(rest).expect("a frame's payload")
}

/// What a stream brought.
#[derive(Default)]
struct Got {
    pages: BTreeMap<u64, Bytes>,
    frames: Vec<Frame>,
    first_index: u64,
    end: Option<BackupStreamEnd>,
}

async fn all<S>(mut stream: Streaming<S>, chunk_of: impl Fn(S) -> Option<Chunk>) -> Got {
    let mut got = Got::default();
    while let Some(message) = stream.message().await.expect("the stream goes on") {
        match chunk_of(message).expect("a chunk has a kind") {
            Chunk::Begin(begin) => got.first_index = begin.first_index,
            Chunk::Pages(pages) => {
                assert!(got.frames.is_empty(), "pages come first");
                for (number, page) in (pages.first..).zip(pages.bytes.chunks(PAGE_BYTES)) {
                    assert_eq!(got.pages.insert(number, Bytes::copy_from_slice(page)), None, "page {number} twice");
                }
            }
            Chunk::PagesDone(done) => assert_eq!(done.pages, got.pages.len() as u64),
            Chunk::Frames(frames) => {
                assert_eq!(frames.first_index, got.first_index + got.frames.len() as u64, "no frame is missing");
                got.frames.extend(frames.frames.iter().map(frame));
            }
            Chunk::End(end) => got.end = Some(end),
        }
    }
    got
}

fn is_a_chain(frames: &[Frame]) -> bool {
    frames.windows(2).all(|two| two[1].follows(two[0].chain()))
}

#[tokio::test]
async fn pages_are_those_of_the_data_file_and_frames_those_of_the_journal() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("n1");
    let mut node = Node::bootstrap(&dir, "n1");
    for number in 0..30 {
        put(&node, &format!("k{number}"), &"v".repeat(5_000));
    }
    let request = BackupStreamRequest { from_index: Some(0), ..BackupStreamRequest::default() };
    let stream = client(&node).await.stream(request).await.unwrap().into_inner();
    let whole = all(stream, |message| message.chunk).await;
    assert!(whole.frames.len() > 30 && whole.frames[0].follows(CHAIN_START) && is_a_chain(&whole.frames));
    let (last, end) = (whole.frames.last().unwrap(), whole.end.unwrap());
    assert_eq!(end.last.map(|at| at.index), Some(last.log_id().index.0));
    assert_eq!(end.chain, format!("{:016x}", last.chain()));
    // An end in order makes a checkpoint: the data file has all of it then, and what follows changes no page.
    assert_eq!(node.process.end(Signal::TERM).code(), Some(0));
    let mut node = Node::start(&dir, &[]);
    let stream = client(&node).await.stream(BackupStreamRequest::default()).await.unwrap().into_inner();
    let got = all(stream, |message| message.chunk).await;
    assert_eq!(node.process.end(Signal::KILL).code(), None);
    let data = std::fs::read(dir.join("g1").join("data")).unwrap();
    let in_file: BTreeMap<u64, Bytes> = (0..)
        .zip(data.chunks(PAGE_BYTES))
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(number, page)| (number, Bytes::copy_from_slice(page)))
        .collect();
    assert!(got.pages == in_file, "{} pages came, {} are there", got.pages.len(), in_file.len());
    assert!(is_a_chain(&got.frames) && got.frames.iter().all(|frame| frame.kind() != FrameKind::Record));
    assert!(got.first_index > last.log_id().index.0, "the frames of the checkpoint are not needed");
}

#[tokio::test]
async fn frames_to_come_are_followed_and_what_makes_no_sense_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::bootstrap(&temp.path().join("n1"), "n1");
    let mut client = client(&node).await;
    let follow = BackupStreamRequest { from_index: Some(0), follow: true, bytes_per_second: 0 };
    let mut stream = client.stream(follow).await.unwrap().into_inner();
    put(&node, "a", "a value that can be found");
    let limit = tokio::time::Instant::now() + common::LIMIT;
    let mut found = false;
    while !found {
        let message = tokio::time::timeout_at(limit, stream.message()).await.expect("it comes in time");
        if let Some(Chunk::Frames(frames)) = message.unwrap().expect("without an end").chunk {
            let has = |bytes: &Bytes| bytes.windows(11).any(|window| window == b"a value tha");
            found = frames.frames.iter().any(has);
        }
    }
    drop(stream);
    let refused = client.stream(BackupStreamRequest { follow: true, ..BackupStreamRequest::default() }).await;
    let refused = refused.expect_err("pages cannot be followed");
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("from_index"), "{refused:?}");
}
