//! Histories made by hand: what must be found, and what must not.

use std::time::Duration;

use super::super::{Bounds, Undecided, Verdict};
use super::{KeyViolation, linearizable};
use crate::history::{
    ClientId, History, Key, KeyAction, KeyCall, KeyHistory, KeyResult, Moment, Operation, Outcome, Value,
};

pub(super) fn on_key(key: u64, action: KeyAction, when: (u64, u64), outcome: Outcome<KeyResult>) -> Operation<KeyCall> {
    let call = KeyCall { key: Key(key), action };
    Operation { client: ClientId(0), invoked: Moment(when.0), ended: Some(Moment(when.1)), call, outcome }
}

fn write(value: u64, when: (u64, u64)) -> Operation<KeyCall> {
    on_key(1, KeyAction::Write(Value(value)), when, Outcome::Ok(KeyResult::Done))
}

fn delete(when: (u64, u64)) -> Operation<KeyCall> {
    on_key(1, KeyAction::Delete, when, Outcome::Ok(KeyResult::Done))
}

/// A read of a value; 0 for none.
fn read(value: u64, when: (u64, u64)) -> Operation<KeyCall> {
    on_key(1, KeyAction::Read, when, Outcome::Ok(KeyResult::Value(value_of(value))))
}

fn swap(expected: u64, new: u64, swapped: bool, when: (u64, u64)) -> Operation<KeyCall> {
    let action = KeyAction::Cas { expected: value_of(expected), new: Value(new) };
    on_key(1, action, when, Outcome::Ok(KeyResult::Swapped(swapped)))
}

fn value_of(value: u64) -> Option<Value> {
    (value != 0).then_some(Value(value))
}

fn unknown(operation: Operation<KeyCall>) -> Operation<KeyCall> {
    Operation { outcome: Outcome::Unknown, ..operation }
}

fn failed(operation: Operation<KeyCall>) -> Operation<KeyCall> {
    Operation { outcome: Outcome::Failed, ..operation }
}

fn check(operations: &[Operation<KeyCall>]) -> Verdict<KeyViolation> {
    linearizable(&KeyHistory::new(operations.to_vec()), &Bounds::default())
}

#[track_caller]
fn good(operations: &[Operation<KeyCall>]) {
    let verdict = check(operations);
    assert!(verdict.is_ok(), "{verdict}");
}

/// The operation that cannot be placed must be this one.
#[track_caller]
fn bad(operations: &[Operation<KeyCall>], culprit: usize) -> KeyViolation {
    match check(operations) {
        Verdict::Violation(violation) => {
            assert_eq!(violation.culprit, operations[culprit], "another one was blamed: {violation}");
            *violation
        }
        verdict => panic!("the violation was not found: {verdict}"),
    }
}

#[test]
fn an_empty_history_and_a_key_that_is_only_read_are_good() {
    good(&[]);
    good(&[read(0, (1, 2)), read(0, (3, 4))]);
    bad(&[read(7, (1, 2))], 0);
}

#[test]
fn operations_one_after_the_other_are_seen_in_their_order() {
    good(&[write(1, (1, 2)), read(1, (3, 4)), write(2, (5, 6)), read(2, (7, 8)), delete((9, 10)), read(0, (11, 12))]);
}

#[test]
fn a_stale_read_is_found_because_of_real_time_alone() {
    bad(&[write(1, (1, 2)), write(2, (3, 4)), read(1, (5, 6))], 2);
    // The same answers are good if the read began before the second write ended.
    good(&[write(1, (1, 2)), write(2, (3, 6)), read(1, (4, 7))]);
    good(&[write(1, (1, 2)), write(2, (3, 6)), read(1, (5, 7))]);
}

#[test]
fn concurrent_reads_may_see_a_write_or_not_but_never_go_back() {
    good(&[write(1, (1, 10)), read(0, (2, 3)), read(1, (4, 5))]);
    bad(&[write(1, (1, 10)), read(1, (2, 3)), read(0, (4, 5))], 2);
    good(&[write(1, (1, 10)), read(1, (2, 4)), read(0, (3, 5))]);
}

#[test]
fn a_lost_write_is_found() {
    bad(&[write(1, (1, 2)), read(0, (3, 4))], 1);
    bad(&[write(1, (1, 2)), write(2, (3, 4)), read(2, (5, 6)), read(1, (7, 8))], 3);
}

#[test]
fn a_failed_write_that_is_read_is_found_and_one_that_is_not_read_is_good() {
    let history = [write(1, (1, 2)), failed(write(2, (3, 4))), read(2, (5, 6))];
    let violation = bad(&history, 2);
    assert_eq!(violation.writers, [history[1].clone()]);
    assert!(violation.to_string().contains("only that of operations that failed"), "{violation}");
    good(&[write(1, (1, 2)), failed(write(2, (3, 4))), read(1, (5, 6))]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    good(&[unknown(write(1, (1, 2))), read(0, (3, 4)), read(0, (5, 6))]);
    good(&[unknown(write(1, (1, 2))), read(0, (3, 4)), read(1, (5, 6)), read(1, (7, 8))]);
    good(&[unknown(write(1, (1, 2))), write(2, (3, 4)), read(2, (5, 6)), read(1, (7, 8)), read(1, (9, 10))]);
}

#[test]
fn an_unknown_write_takes_effect_once_and_not_before_it_began() {
    bad(&[unknown(write(1, (1, 2))), read(1, (3, 4)), write(2, (5, 6)), read(2, (7, 8)), read(1, (9, 10))], 4);
    bad(&[read(1, (1, 2)), unknown(write(1, (3, 4)))], 0);
    // One more of them explains it.
    let twice = [unknown(write(1, (1, 2))), unknown(write(1, (3, 4)))];
    let seen_twice = [read(1, (5, 6)), write(2, (7, 8)), read(2, (9, 10)), read(1, (11, 12))];
    good(&[&twice[..], &seen_twice[..]].concat());
}

#[test]
fn an_unknown_operation_may_be_what_another_unknown_one_needs() {
    let swap_unknown = unknown(swap(1, 2, true, (3, 4)));
    good(&[unknown(write(1, (1, 2))), swap_unknown.clone(), read(2, (5, 6))]);
    bad(&[swap_unknown, read(2, (5, 6))], 1);
    good(&[write(5, (1, 2)), unknown(delete((3, 4))), swap(0, 6, true, (5, 7)), read(6, (8, 9))]);
}

#[test]
fn an_unknown_write_may_be_why_a_swap_was_refused() {
    good(&[write(1, (1, 2)), unknown(write(2, (3, 4))), swap(1, 3, false, (5, 6)), read(2, (7, 8))]);
    good(&[write(1, (1, 2)), unknown(write(2, (3, 4))), swap(1, 3, false, (5, 6))]);
    bad(&[write(1, (1, 2)), unknown(write(2, (3, 4))), swap(1, 3, false, (5, 6)), read(1, (7, 8))], 3);
}

#[test]
fn a_swap_is_right_only_with_what_it_expects() {
    good(&[swap(0, 1, true, (1, 2)), swap(1, 2, true, (3, 4)), swap(1, 3, false, (5, 6)), read(2, (7, 8))]);
    bad(&[write(1, (1, 2)), swap(2, 3, true, (3, 4))], 1);
    bad(&[write(1, (1, 2)), swap(1, 3, false, (3, 4))], 1);
    // Two swaps from one value: one of them had to be refused.
    bad(&[write(1, (1, 2)), swap(1, 2, true, (3, 5)), swap(1, 3, true, (4, 6))], 2);
}

#[test]
fn a_write_of_the_value_that_is_there_may_still_have_to_come_later() {
    good(&[write(1, (1, 2)), write(1, (3, 10)), write(2, (4, 5)), read(2, (6, 7)), read(1, (8, 9))]);
}

#[test]
fn keys_are_checked_each_by_itself_and_the_bad_one_is_named() {
    let done = Outcome::Ok(KeyResult::Done);
    let read = |key, value, when| on_key(key, KeyAction::Read, when, Outcome::Ok(KeyResult::Value(value_of(value))));
    let mut operations = vec![
        on_key(1, KeyAction::Write(Value(1)), (1, 2), done),
        on_key(2, KeyAction::Write(Value(1)), (3, 4), done),
        read(1, 1, (5, 6)),
    ];
    good(&operations);
    operations.push(read(2, 0, (7, 8)));
    assert_eq!(bad(&operations, 3).key, Key(2));
}

#[test]
fn a_violation_says_where_the_history_breaks() {
    let history = [write(1, (1, 2)), write(2, (3, 9)), read(2, (4, 5)), read(1, (6, 7)), write(3, (8, 11))];
    let violation = bad(&history, 3);
    assert_eq!((violation.placed, violation.value), (3, value_of(2)));
    let text = violation.to_string();
    for part in [
        "no order of the operations on key 1 explains this one:\n    client 0: read key 1 -> 1 [0.000000006 s .. 0.000000007 s]",
        "3 operations can be put in order, after which the value is 2",
        "client 0: read key 1 -> 1 [0.000000006 s .. 0.000000007 s]: not with this value",
        "The value that it saw is that of:\n    client 0: write key 1 = 1 -> done",
    ] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// Many writes at once, and a read in their midst of what nobody wrote: all orders would have to be tried.
fn hard(writes: u64) -> Vec<Operation<KeyCall>> {
    let end = 10 * writes;
    let mut operations: Vec<_> = (1..=writes).map(|value| write(value, (value, end + value))).collect();
    operations.push(read(writes + 1, (2 * end, 2 * end + 1)));
    operations
}

#[test]
fn a_search_that_reaches_a_bound_is_undecided_and_not_good() {
    let history = History::new(hard(40));
    let memory_bytes = 1 << 20;
    let key = Key(1);
    let verdict = linearizable(&history, &Bounds { memory_bytes, ..Bounds::default() });
    assert_eq!(verdict, Verdict::Undecided(Undecided::Memory { key, allowed_bytes: memory_bytes }));
    assert!(!verdict.is_ok());
    let verdict = linearizable(&history, &Bounds { time: Duration::ZERO, ..Bounds::default() });
    assert_eq!(verdict, Verdict::Undecided(Undecided::Time { key, allowed: Duration::ZERO }));
    // Fewer of them are searched to the end.
    let few = hard(10);
    bad(&few, few.len() - 1);
}
