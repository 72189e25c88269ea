//! A history as large as a drill's is checked in the time that a test has.

use std::time::{Duration, Instant};

use super::super::Verdict;
use super::super::simulation::{Lists, Shape, simulate};
use super::{Anomaly, transactions};
use crate::history::{History, Operation, Outcome, TransactionCall};

const SHAPE: Shape = Shape { clients: 16, operations: 100_000, unknown: 0.0006, failed: 0.001, late: 0.001 };

#[test]
fn a_hundred_thousand_transactions_with_unknown_ones_are_checked_in_seconds() {
    let mut operations = simulate(1, Lists::new(64, 200), SHAPE);
    let check = |operations: &[Operation<TransactionCall>]| {
        let history = History::new(operations.to_vec());
        let began = Instant::now();
        let verdict = transactions(&history);
        println!("{} transactions in {:?}", operations.len(), began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
        verdict
    };
    let verdict = check(&operations);
    assert!(verdict.is_ok(), "{verdict}");

    // A list in the last tenth lacks the element that it should end with: somebody else's, or the list would not be one state.
    let stale = |operation: &mut Operation<TransactionCall>| {
        let only_read = operation.call.appends().next().is_none() && operation.call.steps.len() == 1;
        match &mut operation.outcome {
            Outcome::Ok(returned) if only_read => returned.lists[0].pop().is_some(),
            _ => false,
        }
    };
    let changed = operations[95_000..].iter_mut().any(stale);
    assert!(changed, "there are many that only read");
    let verdict = check(&operations);
    let Verdict::Violation(violation) = verdict else { panic!("{verdict}") };
    assert!(matches!(violation.anomaly, Anomaly::Cycle { .. } | Anomaly::TornAppends { .. }), "{violation}");
}
