//! Callbacks, none of which is ever dropped unheard.

use std::collections::VecDeque;

use crate::error::StorageError;

/// Called with the outcome, by whoever works the queue off, in queue order. Must be quick, and must not wait for the journal.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Callbacks that will all be called: with the outcome, or, if whoever has them panics, with an error. To drop one
/// unheard would tell its owner nothing, for ever.
#[derive(Default)]
pub(super) struct Dones(VecDeque<Done>);

impl Dones {
    pub fn push(&mut self, done: Option<Done>) {
        self.0.extend(done);
    }

    /// Calls all of them, in order.
    pub fn hear(mut self, outcome: Result<(), &StorageError>) {
        self.call(outcome);
    }

    fn call(&mut self, outcome: Result<(), &StorageError>) {
        while let Some(done) = self.0.pop_front() {
            done(outcome.map_err(StorageError::clone));
        }
    }
}

impl FromIterator<Done> for Dones {
    fn from_iter<I: IntoIterator<Item = Done>>(dones: I) -> Self {
        Self(dones.into_iter().collect())
    }
}

impl Drop for Dones {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            self.call(Err(&panicked()));
        }
    }
}

/// What those hear whose work a panic has ended.
pub(super) fn panicked() -> StorageError {
    StorageError::Poisoned("a thread of the journal panicked".into())
}
