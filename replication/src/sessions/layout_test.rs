use calamus_proto::v1::Outcome;

use super::*;
use crate::test_requests::{add, exists, put, txn};

const ID: SessionId = SessionId(0x0000_0100_0000_0007);

#[test]
fn the_bytes_of_keys() {
    assert_eq!(SessionId::new(Timeline(1), 7), ID);
    assert_eq!(ID.key(), [1, 0, 0, 1, 0, 0, 0, 0, 7]);
    assert_eq!(ID.outcome_key(0x0203), [2, 0, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 2, 3]);
    assert_eq!((SessionId::from_key(&ID.key()), SessionId::from_key(&COUNTER_KEY)), (Some(ID), None));
    assert_eq!(ID.sequence_of(&ID.outcome_key(9)), Some(9));
    assert_eq!(ID.sequence_of(&SessionId(ID.0 + 1).outcome_key(9)), None);
    assert_eq!(ID.sequence_of(&ID.key()), None);
}

#[test]
fn the_bytes_of_values() {
    let record = SessionRecord { ttl_millis: 3_600_000, opened_micros: 0x0102_0304 };
    let bytes = [1, 0x80, 0xee, 0x36, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0];
    assert_eq!(record.encode(), bytes);
    assert_eq!(SessionRecord::decode(&bytes), Ok(record));

    let answer =
        TxnResponse { outcome: Outcome::Committed.into(), guards_held: true, txn_id: 5, ..TxnResponse::default() };
    let committed = StoredOutcome { lowest_unanswered: 3, fingerprint: 0x0a0b, outcome: Final::Committed(answer) };
    let bytes = [1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 8, 1, 16, 1, 24, 5];
    assert_eq!(committed.encode(), bytes);
    assert_eq!(StoredOutcome::decode(&bytes), Ok(committed));

    let never = StoredOutcome { lowest_unanswered: 4, fingerprint: 0, outcome: Final::Never };
    let bytes = [1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(never.encode(), bytes);
    assert_eq!(StoredOutcome::decode(&bytes), Ok(never));
}

#[test]
fn what_is_not_understood_is_an_error() {
    let never = StoredOutcome { lowest_unanswered: 1, fingerprint: 0, outcome: Final::Never }.encode();
    for (at, byte) in [(0, 2), (1, 3), (1, 0)] {
        let mut bytes = never.clone();
        bytes[at] = byte;
        assert!(StoredOutcome::decode(&bytes).is_err(), "byte {at} is {byte}");
    }
    assert!(StoredOutcome::decode(&never[..17]).is_err());
    assert!(StoredOutcome::decode(&[&never[..], &[0]].concat()).is_err(), "a byte too many");
    let record = SessionRecord { ttl_millis: 1, opened_micros: 1 }.encode();
    assert!(SessionRecord::decode(&record[..16]).is_err());
}

#[test]
fn a_number_is_of_one_timeline() {
    let (first, second) = (Timeline(1), Timeline(0x1234_5678_9abc_def0));
    assert!(SessionId::new(first, 1).is_of(first) && SessionId::new(second, 1).is_of(second));
    assert!(!SessionId::new(first, 1).is_of(second) && !SessionId::new(second, 1).is_of(first));
    assert_ne!(SessionId::new(first, 1), SessionId::new(second, 1));
}

#[test]
fn a_fingerprint_is_of_what_is_asked_for_and_of_nothing_else() {
    let request = TxnRequest { guards: vec![exists("t", "k", true)], ..txn(vec![put("t", "a", "1")]) };
    let of = |request: &TxnRequest| fingerprint(request);
    assert_eq!(of(&request), of(&TxnRequest { timeout_ms: 7, ..request.clone() }));
    let swapped = TxnRequest { operations: Vec::new(), otherwise: request.operations.clone(), ..request.clone() };
    let other = TxnRequest { guards: Vec::new(), ..request.clone() };
    let added = txn(vec![add("t", "a", 1)]);
    let prints: std::collections::BTreeSet<u64> = [&request, &swapped, &other, &added].map(of).into();
    assert_eq!(prints.len(), 4);
}
