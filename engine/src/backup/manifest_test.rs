use super::manifest::*;
use crate::ids::NEVER_REACHED;

pub(in crate::backup) fn example() -> Manifest {
    let at = |index: u64| Position {
        term: Some(2),
        index: Some(index),
        txn_id: 100 + index,
        digest: 0xabc,
        chain: 0xdef,
        wall_time_micros: 5,
    };
    Manifest {
        format: 1,
        id: "20261126t222254.123456z-1a2b3c4d".into(),
        kind: BackupKind::Incremental,
        sealed: true,
        parent: Some(Parent { id: "20261126t212254.123456z-00000001".into(), manifest: 7 }),
        database_id: 9,
        cluster_id: 8,
        timeline: 1,
        start: at(10),
        end: at(12),
        membership: Some(Membership { term: 1, index: 0, bytes: vec![0x0f, 0xa0] }),
        as_of_micros: 6,
        page_count: 0,
        pages: 0,
        frames: 2,
        raw_bytes: 144,
        stored_bytes: 200,
        parts: vec![PartInfo { bytes: 200, hash: 3 }],
    }
}

const GOLDEN: &str = r#"{
  "format": 1,
  "id": "20261126t222254.123456z-1a2b3c4d",
  "kind": "incremental",
  "sealed": true,
  "parent": {
    "id": "20261126t212254.123456z-00000001",
    "manifest": "00000000000000000000000000000007"
  },
  "database_id": "00000000000000000000000000000009",
  "cluster_id": "00000000000000000000000000000008",
  "timeline": 1,
  "start": {
    "term": 2,
    "index": 10,
    "txn_id": 110,
    "digest": "00000000000000000000000000000abc",
    "chain": "0000000000000def",
    "wall_time_micros": 5
  },
  "end": {
    "term": 2,
    "index": 12,
    "txn_id": 112,
    "digest": "00000000000000000000000000000abc",
    "chain": "0000000000000def",
    "wall_time_micros": 5
  },
  "membership": {
    "term": 1,
    "index": 0,
    "bytes": "0fa0"
  },
  "as_of_micros": 6,
  "page_count": 0,
  "pages": 0,
  "frames": 2,
  "raw_bytes": 144,
  "stored_bytes": 200,
  "parts": [
    {
      "bytes": 200,
      "hash": "00000000000000000000000000000003"
    }
  ]
}
"#;

#[test]
fn golden_bytes() {
    let bytes = example().encode();
    let hash = xxhash_rust::xxh3::xxh3_128(GOLDEN.as_bytes());
    assert_eq!(String::from_utf8(bytes.clone()).expect("text"), format!("{GOLDEN}xxh3-128 {hash:032x}\n"));
    assert_eq!(Manifest::decode(&bytes), Ok(example()));
}

#[test]
fn every_changed_byte_is_found_and_every_missing_one() {
    let bytes = example().encode();
    for place in 0..bytes.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut bad = bytes.clone();
            bad[place] ^= bit;
            assert!(Manifest::decode(&bad).is_err(), "byte {place}");
        }
        assert!(Manifest::decode(&bytes[..place]).is_err(), "{place} bytes");
    }
    assert!(Manifest::decode(&[&bytes[..], b"\n"].concat()).is_err());
}

#[test]
fn what_contradicts_itself_is_refused() {
    let changes: [fn(&mut Manifest); 8] = [
        |manifest| manifest.format = 2,
        |manifest| manifest.id = "x".into(),
        |manifest| manifest.parent = None,
        |manifest| manifest.kind = BackupKind::Full,
        |manifest| manifest.frames = 3,
        |manifest| manifest.end.term = None,
        |manifest| manifest.pages = 1,
        |manifest| manifest.end.txn_id = NEVER_REACHED,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut bad = example();
        change(&mut bad);
        assert!(Manifest::decode(&bad.encode()).is_err(), "change {number}");
    }
}
