//! What a node does with messages that are not for it, or not right: it names them and changes nothing.

use calamus_engine::ids::{ClusterId, LogId, RaftId};
use calamus_engine::journal::frame::{CHAIN_START, Frame, FrameKind, Payload};
use calamus_proto::raft::v1 as wire;
use calamus_proto::raft::v1::raft_client::RaftClient;
use tonic::Code;
use tonic::transport::Channel;

use super::cluster::TestNode;
use super::support::CLUSTER;
use crate::network::convert;
use crate::options::NodeConfig;

const SENDER: RaftId = RaftId(77);

struct Lone {
    _root: tempfile::TempDir,
    node: TestNode,
}

/// A node with an empty log that knows nobody.
fn lone() -> Lone {
    let root = tempfile::tempdir().expect("a temporary directory");
    let node = TestNode::create(root.path(), "n1", 101, &NodeConfig::default());
    Lone { _root: root, node }
}

impl Lone {
    async fn client(&self) -> RaftClient<Channel> {
        RaftClient::connect(format!("http://{}", self.node.identity.listen)).await.expect("it listens")
    }

    fn envelope(&self) -> wire::Envelope {
        convert::envelope(CLUSTER, SENDER, self.node.identity.raft_id)
    }

    fn append(&self, frames: Vec<Frame>) -> wire::AppendRequest {
        wire::AppendRequest {
            envelope: Some(self.envelope()),
            vote: Some(wire::Vote { term: 1, node_id: SENDER.0, committed: true }),
            previous: None,
            previous_chain: None,
            frames: frames.iter().map(convert::frame_to_wire).collect(),
            committed: None,
        }
    }

    fn vote(&self, vote: wire::Vote, leader_transfer: bool) -> wire::VoteRequest {
        wire::VoteRequest { envelope: Some(self.envelope()), vote: Some(vote), last_log: None, leader_transfer }
    }

    /// What a stream with only this request is answered.
    async fn send(&self, request: wire::AppendRequest) -> Result<wire::AppendResponse, tonic::Status> {
        let mut answers = self.client().await.append(tokio_stream::iter([request])).await?.into_inner();
        Ok(answers.message().await?.expect("an answer"))
    }

    fn assert_untouched(&self) {
        assert_eq!(self.node.engine().log_state().last, None, "something was appended");
        assert_eq!(self.node.engine().vote(), None, "a vote was saved");
    }
}

fn frames() -> Vec<Frame> {
    let first = Frame::encode(FrameKind::Blank, LogId::new(1, 0), None, CHAIN_START, Payload::new(bytes::Bytes::new()));
    let payload = Payload::new(bytes::Bytes::from_static(b"no record, but nobody applies it"));
    let second = Frame::encode(FrameKind::Record, LogId::new(1, 1), None, first.chain(), payload);
    vec![first, second]
}

#[test]
fn messages_of_another_cluster_or_for_another_node_are_refused() {
    let lone = lone();
    let wrong = [
        convert::envelope(ClusterId(1), SENDER, lone.node.identity.raft_id),
        convert::envelope(CLUSTER, SENDER, RaftId(102)),
        convert::envelope(CLUSTER, lone.node.identity.raft_id, lone.node.identity.raft_id),
    ];
    lone.node.on(async {
        for envelope in wrong {
            let append = wire::AppendRequest { envelope: Some(envelope.clone()), ..lone.append(frames()) };
            let status = lone.send(append.clone()).await.expect_err("refused");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            let heartbeat = wire::AppendRequest { frames: Vec::new(), ..append };
            let status = lone.client().await.heartbeat(heartbeat).await.expect_err("refused");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            let vote = wire::VoteRequest {
                envelope: Some(envelope.clone()),
                vote: Some(wire::Vote { term: 9, node_id: envelope.from, committed: false }),
                last_log: None,
                leader_transfer: false,
            };
            let status = lone.client().await.vote(vote).await.expect_err("refused");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            let seed = wire::SeedRequest { envelope: Some(envelope), ..wire::SeedRequest::default() };
            assert!(lone.client().await.seed(seed).await.is_err());
        }
    });
    lone.assert_untouched();
}

#[test]
fn a_vote_that_is_not_the_senders_is_refused() {
    let lone = lone();
    lone.node.on(async {
        for vote in [
            wire::Vote { term: 1, node_id: 78, committed: true },
            wire::Vote { term: 1, node_id: SENDER.0, committed: false },
        ] {
            let append = wire::AppendRequest { vote: Some(vote), ..lone.append(frames()) };
            assert_eq!(lone.send(append).await.expect_err("refused").code(), Code::FailedPrecondition);
        }
        let append = wire::AppendRequest { vote: None, ..lone.append(frames()) };
        assert_eq!(lone.send(append).await.expect_err("refused").code(), Code::InvalidArgument);
    });
    lone.assert_untouched();
}

#[test]
fn numbers_out_of_all_measure_are_refused() {
    let lone = lone();
    lone.node.on(async {
        let last = wire::LogId { term: 1, index: u64::MAX };
        let heartbeat = wire::AppendRequest { previous: Some(last), ..lone.append(Vec::new()) };
        let status = lone.client().await.heartbeat(heartbeat.clone()).await.expect_err("refused");
        assert_eq!(status.code(), Code::DataLoss, "{status}");
        let status = lone.send(heartbeat).await.expect_err("refused");
        assert_eq!(status.code(), Code::DataLoss, "{status}");
        let payload = Payload::new(bytes::Bytes::new());
        let frame = Frame::encode(FrameKind::Blank, LogId::new(1, u64::MAX), None, 7, payload);
        let previous = Some(wire::LogId { term: 1, index: u64::MAX - 1 });
        let append = wire::AppendRequest { previous, previous_chain: Some(7), ..lone.append(vec![frame]) };
        let status = lone.send(append).await.expect_err("refused");
        assert_eq!(status.code(), Code::DataLoss, "{status}");
        for term in [u64::MAX, (1 << 32) + 1] {
            let vote = wire::Vote { term, node_id: SENDER.0, committed: true };
            let append = wire::AppendRequest { vote: Some(vote), ..lone.append(Vec::new()) };
            let status = lone.client().await.heartbeat(append).await.expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            let request = lone.vote(wire::Vote { committed: false, ..vote }, false);
            let status = lone.client().await.vote(request.clone()).await.expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(lone.client().await.pre_vote(request).await.is_err());
        }
    });
    lone.assert_untouched();
}

#[test]
fn leadership_is_not_handed_to_a_stranger() {
    let lone = lone();
    lone.node.on(async {
        let vote = wire::Vote { term: 5, node_id: SENDER.0, committed: false };
        let status = lone.client().await.vote(lone.vote(vote, true)).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    });
    lone.assert_untouched();
    // The same without the claim is an ordinary request.
    lone.node.on(async {
        let vote = wire::Vote { term: 5, node_id: SENDER.0, committed: false };
        lone.client().await.vote(lone.vote(vote, false)).await.expect("answered");
    });
    assert_eq!(lone.node.engine().vote().map(|vote| vote.term.0), Some(5));
}

#[test]
fn no_flipped_bit_of_a_frame_is_taken() {
    let lone = lone();
    lone.node.on(async {
        let right = lone.append(frames());
        let record = &right.frames[1];
        let (header, payload) = (record.header.len() * 8, record.payload.len() * 8);
        for bit in (0..header + payload).step_by(11) {
            let mut request = right.clone();
            let raw = &mut request.frames[1];
            let (part, bit) = if bit < header { (&mut raw.header, bit) } else { (&mut raw.payload, bit - header) };
            let mut bytes = part.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            *part = bytes.into();
            let status = lone.send(request).await.expect_err("refused");
            assert_eq!(status.code(), Code::DataLoss, "bit {bit}: {status}");
        }
    });
    lone.assert_untouched();
}

#[test]
fn frames_that_do_not_follow_are_refused() {
    let lone = lone();
    let [first, second] = <[Frame; 2]>::try_from(frames()).expect("two");
    let other = Frame::encode(FrameKind::Blank, LogId::new(1, 1), None, 12345, Payload::new(bytes::Bytes::new()));
    let later =
        Frame::encode(FrameKind::Blank, LogId::new(2, 1), None, first.chain(), Payload::new(bytes::Bytes::new()));
    let broken = Frame::encode(
        FrameKind::Membership,
        LogId::new(1, 1),
        None,
        first.chain(),
        Payload::new(bytes::Bytes::from_static(b"no membership")),
    );
    lone.node.on(async {
        for frames in [
            vec![second.clone()],
            vec![second, first.clone()],
            vec![first.clone(), other],
            vec![first.clone(), first.clone()],
            vec![first.clone(), later],
            vec![first, broken],
        ] {
            let status = lone.send(lone.append(frames)).await.expect_err("refused");
            assert_eq!(status.code(), Code::DataLoss, "{status}");
        }
        let record = Payload::new(bytes::Bytes::from_static(b"x"));
        let record = Frame::encode(FrameKind::Record, LogId::new(1, 0), None, CHAIN_START, record);
        for frames in [frames(), vec![record]] {
            let status = lone.client().await.heartbeat(lone.append(frames)).await.expect_err("refused");
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "a heartbeat carries a leader's first entry alone: {status}"
            );
        }
    });
    lone.assert_untouched();
}

#[test]
fn a_heartbeat_brings_the_first_entry_of_its_leader() {
    let lone = lone();
    let first = frames().remove(0);
    let answer = lone.node.on(async { lone.client().await.heartbeat(lone.append(vec![first])).await }).expect("right");
    let Some(wire::append_response::Result::Matching(matching)) = &answer.get_ref().result else {
        panic!("{answer:?}")
    };
    assert_eq!(matching.log_id, Some(wire::LogId { term: 1, index: 0 }));
    assert_eq!(lone.node.engine().log_state().durable, Some(LogId::new(1, 0)));
}

#[test]
fn what_is_right_is_taken_and_a_differing_history_is_not() {
    let lone = lone();
    lone.node.on(async {
        let taken = lone.send(lone.append(frames())).await.expect("right");
        let Some(wire::append_response::Result::Matching(matching)) = taken.result else { panic!("{taken:?}") };
        assert_eq!(matching.log_id, Some(wire::LogId { term: 1, index: 1 }));
        // The same log ids with other bytes.
        let payload = Payload::new(bytes::Bytes::from_static(b"x"));
        let other = Frame::encode(FrameKind::Record, LogId::new(1, 0), None, CHAIN_START, payload);
        let status = lone.send(lone.append(vec![other])).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    });
    assert_eq!(lone.node.engine().log_state().last, Some(LogId::new(1, 1)));
}
