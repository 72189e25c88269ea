use bytes::Bytes;

use super::meta::{NodeIdentity, NodeMeta};
use crate::ids::{ClusterId, Digest, Generation, LogId, RaftId, TxnId};
use crate::store::AppliedState;

fn example() -> NodeMeta {
    let checkpoint = AppliedState {
        log_id: Some(LogId::new(2, 7)),
        txn_id: TxnId(5),
        digest: Digest(0x0102),
        chain: 0xaa,
        membership: Some((LogId::new(1, 3), Bytes::from_static(b"m"))),
        wall_time_micros: 9,
    };
    let target = AppliedState { log_id: Some(LogId::new(2, 8)), txn_id: TxnId(6), ..AppliedState::default() };
    NodeMeta {
        generation: Generation(3),
        identity: NodeIdentity {
            cluster_id: ClusterId(0x11),
            raft_id: RaftId(0x22),
            name: "n1".into(),
            listen: "a:1".into(),
            advertise: "b:2".into(),
        },
        checkpoint,
        target,
        purged: Some(LogId::new(1, 4)),
        segment_bytes: 1 << 20,
    }
}

#[test]
fn golden_bytes() {
    let hex: String = example().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "0100000000000000",
        "0300000000000000",
        "11000000000000000000000000000000",
        "2200000000000000",
        "02006e31",
        "0300613a31",
        "0300623a32",
        "0102000000000000000700000000000000",
        "0500000000000000",
        "02010000000000000000000000000000",
        "aa00000000000000",
        "0900000000000000",
        "0101000000000000000300000000000000",
        "010000006d",
        "0102000000000000000800000000000000",
        "0600000000000000",
        "00000000000000000000000000000000",
        "0000000000000000",
        "0000000000000000",
        "00",
        "0101000000000000000400000000000000",
        "0000100000000000",
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn reads_what_it_wrote_and_refuses_the_rest() {
    let meta = example();
    let bytes = meta.encode();
    assert_eq!(NodeMeta::decode(&bytes), Ok(meta.clone()));
    assert!(meta.checkpoint_running());
    for length in 0..bytes.len() {
        assert!(NodeMeta::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(NodeMeta::decode(&longer).is_err());
}

#[test]
fn numbers_out_of_reach_are_refused() {
    let refused = |change: fn(&mut NodeMeta)| {
        let mut meta = example();
        change(&mut meta);
        assert_eq!(NodeMeta::decode(&meta.encode()), Err("a term, an index or a txn id out of reach"));
    };
    refused(|meta| meta.checkpoint.log_id = Some(LogId::new(1, u64::MAX)));
    refused(|meta| meta.target.log_id = Some(LogId::new(u64::MAX, 1)));
    refused(|meta| meta.purged = Some(LogId::new(1, 1 << 62)));
    refused(|meta| meta.target.txn_id = TxnId(u64::MAX));
}
