//! Where clients note what they do, from any thread.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Call, ClientId, Clock, History, Operation, Outcome};

/// Notes operations. Copies note into the same history.
#[derive(Clone, Debug)]
pub struct Recorder<C: Call> {
    clock: Clock,
    operations: Arc<Mutex<Vec<Operation<C>>>>,
}

impl<C: Call> Recorder<C> {
    /// An empty history whose moments are of this clock.
    pub fn new(clock: Clock) -> Recorder<C> {
        Recorder { clock, operations: Arc::default() }
    }

    /// Notes that an operation begins. To be called before the request leaves.
    ///
    /// It stays unknown for as long as [`Pending::complete`] is not called.
    pub fn invoke(&self, client: ClientId, call: C) -> Pending<C> {
        let invoked = self.clock.now();
        let mut operations = self.operations.lock();
        let place = operations.len();
        operations.push(Operation { client, invoked, ended: None, call, outcome: Outcome::Unknown });
        Pending { recorder: self.clone(), place }
    }

    /// The history up to here. What is under way is unknown in it.
    pub fn history(&self) -> History<C> {
        History::new(self.operations.lock().clone())
    }
}

/// An operation that is under way. Dropped, it stays unknown.
#[must_use = "an operation that is not completed stays unknown"]
#[derive(Debug)]
pub struct Pending<C: Call> {
    recorder: Recorder<C>,
    place: usize,
}

impl<C: Call> Pending<C> {
    /// Notes what became of it. To be called after the answer came.
    ///
    /// # Panics
    /// If the result cannot be one of this call: the load is wrong.
    pub fn complete(self, outcome: Outcome<C::Returned>) {
        // Outside of the lock: who waits for it must not seem to have waited for the database.
        let ended = self.recorder.clock.now();
        let mut operations = self.recorder.operations.lock();
        let operation = &mut operations[self.place];
        operation.ended = Some(ended);
        operation.outcome = outcome;
        if let Err(why) = operation.validate() {
            panic!("the load noted a malformed operation: {why}");
        }
    }
}
