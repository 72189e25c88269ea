//! Histories made by hand: each anomaly is found and named, and what only looks like one is not.

use super::super::Verdict;
use super::{Anomaly, CycleKind, transactions};
use crate::history::{
    ClientId, Element, Key, Moment, Operation, Outcome, Step, TransactionCall, TransactionHistory, TransactionResult,
};

pub(super) type Transaction = Operation<TransactionCall>;

/// One step, and what a read returned.
#[derive(Clone)]
pub(super) enum Did {
    Append(u64, u64),
    Read(u64, Vec<u64>),
}

pub(super) fn append(key: u64, element: u64) -> Did {
    Did::Append(key, element)
}

pub(super) fn read(key: u64, list: &[u64]) -> Did {
    Did::Read(key, list.to_vec())
}

pub(super) fn committed(when: (u64, u64), did: &[Did]) -> Transaction {
    let step = |did: &Did| match did {
        Did::Append(key, element) => Step::Append(Key(*key), Element(*element)),
        Did::Read(key, _) => Step::Read(Key(*key)),
    };
    let list = |did: &Did| match did {
        Did::Append(..) => None,
        Did::Read(_, list) => Some(list.iter().map(|element| Element(*element)).collect()),
    };
    let returned = TransactionResult { txn_id: None, lists: did.iter().filter_map(list).collect() };
    Operation {
        client: ClientId(0),
        invoked: Moment(when.0),
        ended: Some(Moment(when.1)),
        call: TransactionCall { steps: did.iter().map(step).collect() },
        outcome: Outcome::Ok(returned),
    }
}

fn unknown(when: (u64, u64), did: &[Did]) -> Transaction {
    Operation { outcome: Outcome::Unknown, ..committed(when, did) }
}

fn failed(when: (u64, u64), did: &[Did]) -> Transaction {
    Operation { outcome: Outcome::Failed, ..committed(when, did) }
}

#[track_caller]
pub(super) fn good(history: &[Transaction]) {
    let verdict = transactions(&TransactionHistory::new(history.to_vec()));
    assert!(verdict.is_ok(), "{verdict}");
}

#[track_caller]
pub(super) fn bad(history: &[Transaction]) -> Anomaly {
    match transactions(&TransactionHistory::new(history.to_vec())) {
        Verdict::Violation(violation) => {
            assert!(!violation.to_string().is_empty());
            violation.anomaly
        }
        verdict => panic!("the anomaly was not found: {verdict}"),
    }
}

/// The cycle's kind, whether it needs real time, and the transactions in it by their places.
#[track_caller]
fn cycle(history: &[Transaction]) -> (CycleKind, bool, Vec<usize>) {
    let anomaly = bad(history);
    let Anomaly::Cycle { kind, real_time, edges } = anomaly else { panic!("another anomaly: {anomaly}") };
    let place = |from: &Transaction| history.iter().position(|other| other == from).expect("it is of the history");
    let mut places: Vec<usize> = edges.iter().map(|edge| place(&edge.from)).collect();
    places.sort_unstable();
    (kind, real_time, places)
}

#[test]
fn transactions_one_after_the_other_are_good() {
    good(&[]);
    good(&[
        committed((1, 2), &[append(1, 1), append(2, 1)]),
        committed((3, 4), &[read(1, &[1]), append(1, 2), read(1, &[1, 2]), read(2, &[1])]),
        committed((5, 6), &[read(1, &[1, 2]), read(3, &[]), append(1, 3), append(1, 4)]),
        committed((7, 8), &[read(1, &[1, 2, 3, 4])]),
    ]);
}

#[test]
fn transactions_at_the_same_time_may_come_in_any_order() {
    good(&[
        committed((1, 10), &[append(1, 1)]),
        committed((2, 9), &[append(1, 2)]),
        committed((3, 8), &[read(1, &[2])]),
        committed((11, 12), &[read(1, &[2, 1])]),
    ]);
}

#[test]
fn an_append_that_nobody_made_is_found() {
    let history = [committed((1, 2), &[append(2, 7)]), committed((3, 4), &[read(1, &[7])])];
    assert!(matches!(bad(&history), Anomaly::NeverAppended { key: Key(1), element: Element(7), .. }));
}

#[test]
fn a_failed_append_that_is_seen_is_found_g1a() {
    let history = [failed((1, 2), &[append(1, 1)]), committed((3, 4), &[read(1, &[1])])];
    assert!(matches!(bad(&history), Anomaly::FailedAppendSeen { element: Element(1), .. }));
    good(&[failed((1, 2), &[append(1, 1)]), committed((3, 4), &[read(1, &[])])]);
}

#[test]
fn an_append_that_happened_twice_is_found_whether_or_not_it_is_in_the_longest_list() {
    let once = committed((1, 2), &[append(1, 1)]);
    let history = [once.clone(), committed((3, 4), &[read(1, &[1, 1])])];
    assert!(matches!(bad(&history), Anomaly::DoubledAppend { element: Element(1), .. }));
    let more = [
        once,
        committed((3, 4), &[append(1, 2)]),
        committed((5, 6), &[append(1, 3)]),
        committed((7, 8), &[read(1, &[1, 1])]),
        committed((9, 10), &[read(1, &[1, 2, 3])]),
    ];
    assert!(matches!(bad(&more), Anomaly::DoubledAppend { element: Element(1), .. }));
}

#[test]
fn half_a_transaction_that_is_seen_is_found_g1b() {
    let writer = committed((1, 8), &[append(1, 1), append(1, 2)]);
    let half = committed((3, 4), &[read(1, &[1])]);
    let whole = committed((9, 10), &[read(1, &[1, 2])]);
    assert!(matches!(bad(&[writer.clone(), half.clone()]), Anomaly::TornAppends { .. }));
    assert!(matches!(bad(&[writer.clone(), half, whole.clone()]), Anomaly::TornAppends { .. }));
    good(&[writer.clone(), whole]);
    let swapped = committed((9, 10), &[read(1, &[2, 1])]);
    assert!(matches!(bad(&[writer, swapped]), Anomaly::TornAppends { .. }));
}

#[test]
fn a_transaction_that_does_not_see_one_state_is_found() {
    let not_one_state = |history: &[Transaction]| matches!(bad(history), Anomaly::NotOneState { key: Key(1), .. });
    assert!(not_one_state(&[committed((1, 2), &[append(1, 1), read(1, &[])])]), "its own append is not seen");
    assert!(not_one_state(&[committed((1, 2), &[read(1, &[1]), append(1, 1)])]), "it is seen before it is made");
    let one = committed((1, 2), &[append(1, 1)]);
    let changes = committed((3, 4), &[read(1, &[]), read(1, &[1])]);
    assert!(not_one_state(&[one.clone(), changes]), "a list changes under a reader");
    let own_first = committed((3, 4), &[append(1, 2), read(1, &[2, 1])]);
    assert!(not_one_state(&[one, own_first]), "its own append is not the last");
}

#[test]
fn lists_in_different_orders_are_found() {
    let history = [
        committed((1, 10), &[append(1, 1)]),
        committed((2, 9), &[append(1, 2)]),
        committed((11, 13), &[read(1, &[1, 2])]),
        committed((12, 14), &[read(1, &[2, 1])]),
    ];
    assert!(matches!(bad(&history), Anomaly::DifferentOrders { key: Key(1), .. }));
}

#[test]
fn a_lost_append_is_found() {
    let appended = committed((1, 3), &[append(1, 1)]);
    let lost = [appended.clone(), committed((4, 5), &[read(1, &[])])];
    assert!(matches!(bad(&lost), Anomaly::LostAppend { element: Element(1), .. }));
    good(&[appended.clone(), committed((2, 5), &[read(1, &[])])]);
    good(&[appended]);
}

#[test]
fn an_unknown_transaction_may_happen_late_or_never() {
    let unknown_one = unknown((1, 2), &[append(1, 1), append(2, 1)]);
    let nothing = |when| committed(when, &[read(1, &[]), read(2, &[])]);
    let all = |when| committed(when, &[read(1, &[1]), read(2, &[1])]);
    good(&[unknown_one.clone(), nothing((3, 4)), nothing((5, 6))]);
    good(&[unknown_one.clone(), nothing((3, 4)), all((5, 6))]);
    assert!(matches!(bad(&[all((1, 2)), unknown((3, 4), &[append(1, 1), append(2, 1)])]), Anomaly::Cycle { .. }));
}

#[test]
fn an_unknown_transaction_of_which_a_part_is_seen_happened_as_a_whole() {
    let history = [unknown((1, 2), &[append(1, 1), append(2, 1)]), committed((3, 4), &[read(1, &[1]), read(2, &[])])];
    assert_eq!(cycle(&history), (CycleKind::OneAntiDependency, false, vec![0, 1]));
    // Also if the parts are seen by two that come one after the other.
    let history = [
        unknown((1, 2), &[append(1, 1), append(2, 1)]),
        committed((3, 4), &[read(1, &[1])]),
        committed((5, 6), &[read(2, &[])]),
    ];
    assert_eq!(cycle(&history), (CycleKind::OneAntiDependency, true, vec![0, 1, 2]));
}

#[test]
fn an_unknown_transaction_that_happens_twice_is_found() {
    let history = [
        unknown((1, 2), &[append(1, 1)]),
        committed((3, 4), &[append(1, 2)]),
        committed((5, 6), &[read(1, &[1, 2, 1])]),
    ];
    assert!(matches!(bad(&history), Anomaly::DoubledAppend { element: Element(1), .. }));
}

#[test]
fn writes_in_different_orders_are_a_cycle_g0() {
    let history = [
        committed((1, 10), &[append(1, 1), append(2, 1)]),
        committed((2, 9), &[append(1, 2), append(2, 2)]),
        committed((11, 13), &[read(1, &[1, 2])]),
        committed((12, 14), &[read(2, &[2, 1])]),
    ];
    assert_eq!(cycle(&history), (CycleKind::Writes, false, vec![0, 1]));
    // One in the midst of the appends of another.
    let between = [
        committed((1, 10), &[append(1, 1), append(1, 3)]),
        committed((2, 9), &[append(1, 2)]),
        committed((11, 12), &[read(1, &[1, 2, 3])]),
    ];
    assert_eq!(cycle(&between), (CycleKind::Writes, false, vec![0, 1]));
}

#[test]
fn two_that_see_each_other_are_a_cycle_g1c() {
    let history =
        [committed((1, 10), &[append(1, 1), read(2, &[1])]), committed((2, 9), &[append(2, 1), read(1, &[1])])];
    assert_eq!(cycle(&history), (CycleKind::Information, false, vec![0, 1]));
}

#[test]
fn read_skew_is_a_cycle_with_one_anti_dependency() {
    let history = [
        committed((1, 10), &[append(1, 1), append(2, 1)]),
        committed((2, 9), &[read(1, &[]), read(2, &[1])]),
        committed((11, 12), &[read(1, &[1])]),
    ];
    assert_eq!(cycle(&history), (CycleKind::OneAntiDependency, false, vec![0, 1]));
}

#[test]
fn a_lost_update_is_a_cycle_with_one_anti_dependency() {
    let both_read_nothing =
        [committed((1, 10), &[read(1, &[]), append(1, 1)]), committed((2, 9), &[read(1, &[]), append(1, 2)])];
    let seen = committed((11, 12), &[read(1, &[1, 2])]);
    let history = [&both_read_nothing[..], &[seen]].concat();
    assert_eq!(cycle(&history), (CycleKind::OneAntiDependency, false, vec![0, 1]));
    // Nobody looked afterwards: still, each of them comes before the other.
    assert_eq!(cycle(&both_read_nothing), (CycleKind::AntiDependencies, false, vec![0, 1]));
    good(&[both_read_nothing[0].clone(), committed((2, 9), &[append(1, 2)])]);
}

#[test]
fn write_skew_is_a_cycle_with_two_anti_dependencies() {
    let skew = [committed((1, 10), &[read(1, &[]), append(2, 1)]), committed((2, 9), &[read(2, &[]), append(1, 1)])];
    assert_eq!(cycle(&skew), (CycleKind::AntiDependencies, false, vec![0, 1]));
    let seen = committed((11, 12), &[read(1, &[1]), read(2, &[1])]);
    assert_eq!(cycle(&[&skew[..], &[seen]].concat()), (CycleKind::AntiDependencies, false, vec![0, 1]));
}

#[test]
fn what_is_serializable_but_against_real_time_is_found() {
    // A stale read.
    let stale =
        [committed((1, 2), &[append(1, 1)]), committed((3, 4), &[read(1, &[1])]), committed((5, 6), &[read(1, &[])])];
    assert_eq!(cycle(&stale), (CycleKind::OneAntiDependency, true, vec![0, 1, 2]));
    good(&[stale[0].clone(), stale[1].clone(), committed((1, 6), &[read(1, &[])])]);
    // Appends in the other order than they were acknowledged.
    let writes = [
        committed((1, 2), &[append(1, 1)]),
        committed((3, 4), &[append(1, 2)]),
        committed((5, 6), &[read(1, &[2, 1])]),
    ];
    assert_eq!(cycle(&writes), (CycleKind::Writes, true, vec![0, 1]));
    // A read from the future.
    let future = [committed((1, 2), &[read(1, &[1])]), committed((3, 4), &[append(1, 1)])];
    assert_eq!(cycle(&future), (CycleKind::Information, true, vec![0, 1]));
}

#[test]
fn real_time_counts_through_transactions_that_share_no_key() {
    let history = [
        committed((1, 2), &[append(1, 1)]),
        committed((3, 4), &[append(2, 1)]),
        committed((5, 6), &[append(3, 1)]),
        committed((7, 20), &[read(2, &[1])]),
        committed((8, 19), &[read(1, &[])]),
        committed((9, 21), &[read(1, &[1])]),
    ];
    assert_eq!(cycle(&history), (CycleKind::OneAntiDependency, true, vec![0, 4]));
}

#[test]
fn an_element_of_two_transactions_is_undecided() {
    let history = [committed((1, 2), &[append(1, 1)]), committed((3, 4), &[append(1, 1)])];
    let verdict = transactions(&TransactionHistory::new(history.to_vec()));
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
}

#[test]
fn a_cycle_is_told_in_words() {
    let history = [committed((1, 10), &[read(1, &[]), append(2, 1)]), committed((2, 9), &[read(2, &[]), append(1, 1)])];
    let text = bad(&history).to_string();
    let expected = "each of these transactions must come before the next, and the last before the first (G2, write skew):\n    \
                    1. client 0: read key 1, append 1 to key 2 -> committed: key 1 = [] [0.000000001 s .. 0.000000010 s]\n       \
                    it read key 1 without what the next one appended\n    \
                    2. client 0: read key 2, append 1 to key 1 -> committed: key 2 = [] [0.000000002 s .. 0.000000009 s]\n       \
                    it read key 2 without what the next one appended\n";
    assert_eq!(text, expected);
}
