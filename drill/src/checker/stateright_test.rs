//! Our checkers against the one of stateright: the same verdict for every small random history.
//!
//! Stateright's `LinearizabilityTester` tries all orders. It says of an operation that was invoked and has not returned that
//! it may take effect or not, so that is what an unknown one is there. Each operation has a thread of its own, as a client
//! goes on after an unknown outcome. A transaction is one operation on all lists: linearizability of these is strict
//! serializability.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::simulation::{Database, Keys, Lists, Shape, simulate};
use super::{Bounds, Verdict, linearizable, transactions};
use crate::history::{
    Call, Element, History, Key, KeyAction, KeyCall, KeyResult, Moment, Operation, Outcome, Step, TransactionCall,
    TransactionResult, Value,
};

/// How many histories of each kind; the seeds are counted from 0.
const HISTORIES: u64 = 6_000;

#[derive(Clone, Default)]
struct KeysSpec(BTreeMap<Key, Value>);

impl SequentialSpec for KeysSpec {
    type Op = KeyCall;
    type Ret = KeyResult;

    fn invoke(&mut self, call: &KeyCall) -> KeyResult {
        let value = self.0.get(&call.key).copied();
        let (new, returned) = match call.action {
            KeyAction::Read => (value, KeyResult::Value(value)),
            KeyAction::Write(new) => (Some(new), KeyResult::Done),
            KeyAction::Delete => (None, KeyResult::Done),
            KeyAction::Cas { expected, new } if value == expected => (Some(new), KeyResult::Swapped(true)),
            KeyAction::Cas { .. } => (value, KeyResult::Swapped(false)),
        };
        match new {
            Some(new) => self.0.insert(call.key, new),
            None => self.0.remove(&call.key),
        };
        returned
    }
}

#[derive(Clone, Default)]
struct ListsSpec(BTreeMap<Key, Vec<Element>>);

impl SequentialSpec for ListsSpec {
    type Op = TransactionCall;
    type Ret = Vec<Vec<Element>>;

    fn invoke(&mut self, call: &TransactionCall) -> Vec<Vec<Element>> {
        let mut lists = Vec::new();
        for step in &call.steps {
            match step {
                Step::Append(key, element) => self.0.entry(*key).or_default().push(*element),
                Step::Read(key) => lists.push(self.0.get(key).cloned().unwrap_or_default()),
            }
        }
        lists
    }
}

/// What stateright says.
fn explained<C: Call, S>(operations: &[Operation<C>], spec: S, returned: impl Fn(&C::Returned) -> S::Ret) -> bool
where
    S: SequentialSpec<Op = C> + Clone,
    S::Ret: Clone + std::fmt::Debug,
{
    let mut moments = Vec::new();
    for (thread, operation) in
        operations.iter().enumerate().filter(|(_, operation)| operation.outcome != Outcome::Failed)
    {
        moments.push((operation.invoked, thread, None));
        if let Outcome::Ok(result) = &operation.outcome {
            moments.push((operation.ended.expect("a result has an end"), thread, Some(returned(result))));
        }
    }
    moments.sort_by_key(|(moment, ..)| *moment);
    let mut tester = LinearizabilityTester::new(spec);
    for (_, thread, returned) in moments {
        let noted = match returned {
            None => tester.on_invoke(thread, operations[thread].call.clone()),
            Some(returned) => tester.on_return(thread, returned),
        };
        noted.expect("a thread begins once and ends at most once");
    }
    tester.is_consistent()
}

/// Makes something of a history that perhaps no correct database would have answered.
fn mutate<C: Call>(
    operations: &mut [Operation<C>],
    random: &mut StdRng,
    change: impl Fn(&mut C::Returned, &mut StdRng),
) {
    for _ in 0..random.random_range(2..=6) {
        let place = random.random_range(0..operations.len());
        let operation = &mut operations[place];
        match (random.random_range(0..4), &mut operation.outcome) {
            // It failed, and perhaps was seen.
            (0, outcome) => *outcome = Outcome::Failed,
            // It began later, just before its end, or ended earlier, just after its beginning. The moments of the simulation
            // are multiples of four here, so none of these is taken.
            (1, Outcome::Ok(_)) => operation.invoked = Moment(operation.ended.expect("a result has an end").0 - 1),
            (2, Outcome::Ok(_)) => operation.ended = Some(Moment(operation.invoked.0 + 1)),
            (_, Outcome::Ok(returned)) => change(returned, random),
            _ => {}
        }
    }
}

/// A small history: that of a correct database, or one that was changed.
fn draw<D: Database>(
    seed: u64,
    database: D,
    operations: usize,
    change: impl Fn(&mut <D::Call as Call>::Returned, &mut StdRng),
) -> History<D::Call> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    let clients = random.random_range(2..=4);
    let shape = Shape { clients, operations, unknown: 0.15, failed: 0.05, late: 0.15 };
    let mut operations = simulate(seed, database, shape);
    for operation in &mut operations {
        operation.invoked.0 *= 4;
        operation.ended = operation.ended.map(|ended| Moment(ended.0 * 4));
    }
    if !seed.is_multiple_of(3) {
        mutate(&mut operations, &mut random, change);
    }
    History::new(operations)
}

/// How often each verdict came.
#[derive(Debug, Default)]
struct Tally {
    good: u64,
    bad: u64,
}

impl Tally {
    /// Both say the same, and a history that was not changed is good.
    fn compare<C: Call, V: std::fmt::Display>(
        &mut self,
        seed: u64,
        history: &History<C>,
        ours: &Verdict<V>,
        theirs: bool,
    ) {
        let told = || history.operations().iter().map(|operation| format!("\n    {operation}")).collect::<String>();
        assert!(!matches!(ours, Verdict::Undecided(_)), "seed {seed}: {ours}{}", told());
        assert_eq!(ours.is_ok(), theirs, "seed {seed}: ours and stateright's differ; ours: {ours}\nof:{}", told());
        assert!(theirs || !seed.is_multiple_of(3), "seed {seed}: a correct database was found wrong:{}", told());
        if theirs { self.good += 1 } else { self.bad += 1 }
    }

    /// Neither verdict is rare, or little would be compared.
    fn check(&self, name: &str) {
        println!("{name}: {self:?}");
        assert!(self.good >= HISTORIES / 5 && self.bad >= HISTORIES / 5, "{self:?}");
    }
}

#[test]
fn stateright_agrees_on_keys() {
    let change = |returned: &mut KeyResult, random: &mut StdRng| match returned {
        KeyResult::Value(value) => *value = [None, Some(Value(0)), Some(Value(1))].choose(random).copied().flatten(),
        KeyResult::Swapped(swapped) => *swapped = !*swapped,
        KeyResult::Done => {}
    };
    let mut tally = Tally::default();
    for seed in 0..HISTORIES {
        let keys = if seed.is_multiple_of(4) { 2 } else { 1 };
        let few = if seed.is_multiple_of(5) { None } else { Some(2) };
        let history = draw(seed, Keys::new(keys, few), 9, change);
        let ours = linearizable(&history, &Bounds::default());
        let theirs = explained(history.operations(), KeysSpec::default(), |returned| *returned);
        tally.compare(seed, &history, &ours, theirs);
    }
    tally.check("keys");
}

#[test]
fn stateright_agrees_on_transactions() {
    let change = |returned: &mut TransactionResult, random: &mut StdRng| {
        let Some(list) = (0..returned.lists.len()).collect::<Vec<_>>().choose(random).copied() else { return };
        let list = &mut returned.lists[list];
        match random.random_range(0..4) {
            0 => list.push(Element(random.random_range(1..6))),
            1 if list.len() > 1 => list.swap(0, 1),
            _ => drop(list.pop()),
        }
    };
    let mut tally = Tally::default();
    for seed in 0..HISTORIES {
        let mut operations = draw(seed, Lists::new(2, 100), 7, change).operations().to_vec();
        for operation in &mut operations {
            // Of txn ids stateright knows nothing.
            if let Outcome::Ok(returned) = &mut operation.outcome {
                returned.txn_id = None;
            }
        }
        let history = History::new(operations);
        let ours = transactions(&history);
        let theirs = explained(history.operations(), ListsSpec::default(), |returned| returned.lists.clone());
        tally.compare(seed, &history, &ours, theirs);
    }
    tally.check("transactions");
}
