//! A simulated database that is correct, and clients that ask it: histories from a seed, for tests.

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::history::{
    Call, ClientId, Element, Key, KeyAction, KeyCall, KeyResult, Moment, Operation, Outcome, Step, TransactionCall,
    TransactionResult, TxnId, Value,
};

/// What is simulated.
pub(super) trait Database {
    type Call: Call;

    /// A call that makes sense now.
    fn draw(&mut self, random: &mut StdRng) -> Self::Call;
    /// The call takes effect.
    fn take_effect(&mut self, call: &Self::Call) -> <Self::Call as Call>::Returned;
}

/// How clients and network behave. Odds are for each operation, but `late` for each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) clients: usize,
    pub(super) operations: usize,
    /// The outcome is unknown; the operation takes effect later, or never.
    pub(super) unknown: f64,
    /// It fails, and does not take effect.
    pub(super) failed: f64,
    /// One of the unknown operations takes effect.
    pub(super) late: f64,
}

struct UnderWay<C: Call> {
    operation: Operation<C>,
    returned: Option<C::Returned>,
}

/// The history of a life with this seed. Its moments count steps.
pub(super) fn simulate<D: Database>(seed: u64, mut database: D, shape: Shape) -> Vec<Operation<D::Call>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut under_way: Vec<Option<UnderWay<D::Call>>> = (0..shape.clients).map(|_| None).collect();
    let mut adrift: Vec<D::Call> = Vec::new();
    let mut done = Vec::new();
    let mut begun = 0;
    for moment in 1.. {
        if let Some(place) = (0..adrift.len()).choose(&mut random).filter(|_| random.random_bool(shape.late)) {
            let call = adrift.swap_remove(place);
            database.take_effect(&call);
        }
        let client = random.random_range(0..shape.clients);
        match under_way[client].take() {
            None if begun < shape.operations => {
                begun += 1;
                let (client_id, call) = (ClientId(client as u32), database.draw(&mut random));
                let (invoked, ended, outcome) = (Moment(moment), None, Outcome::Unknown);
                let operation = Operation { client: client_id, invoked, ended, call, outcome };
                under_way[client] = Some(UnderWay { operation, returned: None });
            }
            None if under_way.iter().all(Option::is_none) => break,
            None => {}
            Some(UnderWay { mut operation, returned: None }) => {
                if random.random_bool(shape.unknown) {
                    adrift.push(operation.call.clone());
                    done.push(operation);
                } else if random.random_bool(shape.failed) {
                    (operation.ended, operation.outcome) = (Some(Moment(moment)), Outcome::Failed);
                    done.push(operation);
                } else {
                    let returned = Some(database.take_effect(&operation.call));
                    under_way[client] = Some(UnderWay { operation, returned });
                }
            }
            Some(UnderWay { mut operation, returned: Some(returned) }) => {
                (operation.ended, operation.outcome) = (Some(Moment(moment)), Outcome::Ok(returned));
                done.push(operation);
            }
        }
    }
    done
}

/// Keys with values.
pub(super) struct Keys {
    values: Vec<Option<Value>>,
    /// Values are below this number, or each one is new.
    few: Option<u64>,
    next: u64,
}

impl Keys {
    pub(super) fn new(keys: usize, few: Option<u64>) -> Keys {
        Keys { values: vec![None; keys], few, next: 0 }
    }

    fn draw_value(&mut self, random: &mut StdRng) -> Value {
        self.next += 1;
        Value(self.few.map_or(self.next, |few| random.random_range(0..few)))
    }
}

impl Database for Keys {
    type Call = KeyCall;

    fn draw(&mut self, random: &mut StdRng) -> KeyCall {
        let key = random.random_range(0..self.values.len());
        let new = self.draw_value(random);
        let action = match random.random_range(0..10) {
            0..4 => KeyAction::Read,
            4..7 => KeyAction::Write(new),
            7..9 => KeyAction::Cas { expected: self.values[key], new },
            _ => KeyAction::Delete,
        };
        KeyCall { key: Key(key as u64), action }
    }

    fn take_effect(&mut self, call: &KeyCall) -> KeyResult {
        let value = &mut self.values[call.key.0 as usize];
        match call.action {
            KeyAction::Read => return KeyResult::Value(*value),
            KeyAction::Write(new) => *value = Some(new),
            KeyAction::Delete => *value = None,
            KeyAction::Cas { expected, new } => {
                let swapped = *value == expected;
                if swapped {
                    *value = Some(new);
                }
                return KeyResult::Swapped(swapped);
            }
        }
        KeyResult::Done
    }
}

/// Keys with lists.
pub(super) struct Lists {
    lists: Vec<Vec<Element>>,
    /// A full list makes place for an empty one, under a new key.
    longest: usize,
    keys: Vec<Key>,
    next_element: u64,
    txn_id: u64,
}

impl Lists {
    pub(super) fn new(keys: usize, longest: usize) -> Lists {
        Lists {
            lists: vec![Vec::new(); keys],
            longest,
            keys: (0..keys as u64).map(Key).collect(),
            next_element: 0,
            txn_id: 0,
        }
    }
}

impl Database for Lists {
    type Call = TransactionCall;

    fn draw(&mut self, random: &mut StdRng) -> TransactionCall {
        let steps = (0..random.random_range(1..=3)).map(|_| {
            let place = random.random_range(0..self.keys.len());
            let key = &mut self.keys[place];
            if self.lists[key.0 as usize].len() >= self.longest {
                *key = Key(self.lists.len() as u64);
                self.lists.push(Vec::new());
            }
            if random.random_bool(0.5) {
                self.next_element += 1;
                Step::Append(*key, Element(self.next_element))
            } else {
                Step::Read(*key)
            }
        });
        TransactionCall { steps: steps.collect() }
    }

    fn take_effect(&mut self, call: &TransactionCall) -> TransactionResult {
        let mut lists = Vec::new();
        for step in &call.steps {
            match step {
                Step::Append(key, element) => self.lists[key.0 as usize].push(*element),
                Step::Read(key) => lists.push(self.lists[key.0 as usize].clone()),
            }
        }
        self.txn_id += u64::from(call.appends().next().is_some());
        TransactionResult { txn_id: Some(TxnId(self.txn_id)), lists }
    }
}
