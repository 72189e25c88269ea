//! A gate in the way of a disk's operations: who comes to it waits while it is closed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::boundary_disk::Hook;

/// Nobody takes longer to come to a gate, on a slow machine under load either.
const LIMIT: Duration = Duration::from_secs(60);

/// Open at first.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// How many wait at it.
    waiting: usize,
}

/// The gate is closed until this is dropped: also when a test fails or returns early, else whoever waits at it would
/// wait for ever, and who closes the engine with him.
pub struct Closed<'a>(&'a Gate);

impl Gate {
    /// Closes it.
    #[must_use]
    pub fn close(&self) -> Closed<'_> {
        self.state.lock().closed = true;
        Closed(self)
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }

    /// Waits until somebody waits at it.
    ///
    /// # Panics
    /// When nobody comes within a minute.
    pub fn wait_for_somebody(&self) {
        let end = Instant::now() + LIMIT;
        let mut state = self.state.lock();
        while state.waiting == 0 {
            let waited = self.changed.wait_until(&mut state, end);
            assert!(!waited.timed_out(), "nobody came to the gate");
        }
    }

    /// A hook that leads every sync of a journal's segment through it.
    #[must_use]
    pub fn at_journal_syncs(self: &Arc<Self>) -> Hook {
        let gate = self.clone();
        Arc::new(move |operation: &'static str, path: &Path| {
            if operation == "sync" && path.extension().is_some_and(|extension| extension == "seg") {
                gate.pass();
            }
        })
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().closed = false;
        self.0.changed.notify_all();
    }
}
