use super::super::simulation::{Lists, Shape, simulate};
use super::transactions_test::{Transaction, append, bad, committed, good, read};
use super::{Anomaly, Dependency, transactions};
use crate::history::{History, Key, Outcome, TxnId};

fn with_id(id: u64, transaction: Transaction) -> Transaction {
    let Outcome::Ok(mut returned) = transaction.outcome else { panic!("only what committed has an id") };
    returned.txn_id = Some(TxnId(id));
    Transaction { outcome: Outcome::Ok(returned), ..transaction }
}

/// Two appends at the same time, and a read of both.
fn with_ids(first: u64, second: u64, reader: u64) -> [Transaction; 3] {
    [
        with_id(first, committed((1, 9), &[append(1, 1)])),
        with_id(second, committed((2, 10), &[append(1, 2)])),
        with_id(reader, committed((3, 11), &[read(1, &[1, 2])])),
    ]
}

#[track_caller]
fn against(history: &[Transaction]) -> Dependency {
    let anomaly = bad(history);
    let Anomaly::TxnIdsAgainstOrder { dependency, .. } = anomaly else { panic!("another anomaly: {anomaly}") };
    dependency
}

#[test]
fn ids_ascend_with_the_versions_and_one_that_only_read_has_that_of_what_it_saw() {
    good(&with_ids(5, 6, 6));
    good(&with_ids(5, 6, 9));
    assert_eq!(against(&with_ids(6, 5, 6)), Dependency::WriteWrite(Key(1)));
    assert_eq!(against(&with_ids(5, 6, 5)), Dependency::WriteRead(Key(1)));
}

#[test]
fn one_that_read_without_an_append_has_an_id_below_it() {
    let reader = |id| with_id(id, committed((3, 11), &[read(1, &[1])]));
    let [first, second, last] = with_ids(5, 7, 7);
    good(&[first.clone(), second.clone(), last.clone(), reader(6)]);
    assert_eq!(against(&[first.clone(), second.clone(), last, reader(7)]), Dependency::ReadWrite(Key(1)));
    // Also if no list shows the append.
    good(&[first.clone(), second.clone(), reader(6)]);
    assert_eq!(against(&[first, second, reader(8)]), Dependency::ReadWrite(Key(1)));
}

#[test]
fn two_that_appended_have_different_ids() {
    let history = [with_id(5, committed((1, 9), &[append(1, 1)])), with_id(5, committed((2, 10), &[append(2, 1)]))];
    assert!(matches!(bad(&history), Anomaly::SameTxnId { .. }));
}

#[test]
fn ids_ascend_with_real_time_also_around_those_without_one() {
    let history = |first, second| {
        [
            with_id(first, committed((1, 2), &[append(1, 1)])),
            committed((3, 4), &[append(3, 1)]),
            with_id(second, committed((5, 6), &[append(2, 1)])),
        ]
    };
    good(&history(5, 6));
    assert_eq!(against(&history(6, 5)), Dependency::RealTime);
    // At the same time, either may be the first.
    good(&[with_id(6, committed((1, 4), &[append(1, 1)])), with_id(5, committed((2, 3), &[append(2, 1)]))]);
    // A read that is served from an old state shows in its id alone.
    let stale = [with_id(6, committed((1, 2), &[append(1, 1)])), with_id(5, committed((3, 4), &[read(2, &[])]))];
    assert_eq!(against(&stale), Dependency::RealTime);
}

#[test]
fn the_ids_of_a_correct_database_are_good_and_two_that_change_places_are_found() {
    let shape = Shape { clients: 4, operations: 60, unknown: 0.1, failed: 0.05, late: 0.1 };
    for seed in 0..300 {
        let mut operations = simulate(seed, Lists::new(3, 20), shape);
        let verdict = transactions(&History::new(operations.clone()));
        assert!(verdict.is_ok(), "seed {seed}: {verdict}");
        let appended: Vec<usize> = (0..operations.len())
            .filter(|place| operations[*place].call.appends().next().is_some())
            .filter(|place| matches!(operations[*place].outcome, Outcome::Ok(_)))
            .collect();
        // The simulation lists them by their ends: the first had ended when the last began.
        let (first, last) = (appended[0], appended[appended.len() - 1]);
        assert!(operations[first].ended.expect("it committed") < operations[last].invoked, "seed {seed}");
        let ids = [first, last].map(|place| match &operations[place].outcome {
            Outcome::Ok(returned) => returned.txn_id,
            _ => panic!("both committed"),
        });
        for (place, id) in [first, last].into_iter().zip([ids[1], ids[0]]) {
            let Outcome::Ok(returned) = &mut operations[place].outcome else { panic!("both committed") };
            returned.txn_id = id;
        }
        assert!(!transactions(&History::new(operations)).is_ok(), "seed {seed}");
    }
}
