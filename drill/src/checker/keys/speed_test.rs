//! A history as large as a drill's is checked in the time that a test has.

use std::time::{Duration, Instant};

use super::super::simulation::{Keys, Shape, simulate};
use super::super::{Bounds, Verdict};
use super::linearizable;
use crate::history::{History, Key, KeyCall, KeyHistory, KeyResult, Operation, Outcome};

const SHAPE: Shape = Shape { clients: 16, operations: 100_000, unknown: 0.0006, failed: 0.001, late: 0.001 };

#[track_caller]
fn check_in(history: &KeyHistory, most: Duration) -> Verdict<super::KeyViolation> {
    let began = Instant::now();
    let verdict = linearizable(history, &Bounds::default());
    println!("{} operations in {:?}", history.operations().len(), began.elapsed());
    assert!(began.elapsed() < most, "it took {:?}", began.elapsed());
    verdict
}

#[test]
fn a_hundred_thousand_operations_with_unknown_ones_are_checked_in_seconds() {
    for (seed, keys) in [(1, 64), (2, 64), (3, 4)] {
        let mut operations = simulate(seed, Keys::new(keys, None), SHAPE);
        let unknown = operations.iter().filter(|operation| operation.outcome == Outcome::Unknown).count();
        assert!((30..120).contains(&unknown), "seed {seed}: {unknown} unknown operations");
        let verdict = check_in(&History::new(operations.clone()), Duration::from_secs(30));
        assert!(verdict.is_ok(), "seed {seed}: {verdict}");

        // One read in the last tenth shows what another one of its key showed long before.
        let read = |operation: &Operation<KeyCall>, key: Key| {
            operation.call.key == key && matches!(operation.outcome, Outcome::Ok(KeyResult::Value(Some(_))))
        };
        let late = operations.iter().rposition(|operation| read(operation, Key(1))).expect("there are many reads");
        let early = operations.iter().position(|operation| read(operation, Key(1))).expect("there are many reads");
        operations[late].outcome = operations[early].outcome;
        let verdict = check_in(&History::new(operations.clone()), Duration::from_secs(30));
        let Verdict::Violation(violation) = verdict else { panic!("seed {seed}: {verdict}") };
        assert_eq!(violation.culprit, operations[late], "seed {seed}");
    }
}
