//! Waiting for frames that stay: committed, as whoever applies says, and durable here.
//!
//! ```text
//! followed  <=  min(committed, durable)
//! ```
//!
//! No frame up to there is ever cut, and no power cut takes it. Whoever waits is woken when either moves, when the journal
//! ends, and when another journal takes its place; all of it happens under the state's lock, so no wake-up is missed.

use std::time::Instant;

use super::Journal;
use crate::error::StorageError;
use crate::ids::LogIndex;
use crate::journal::state::State;

/// What somebody waited for.
pub(crate) enum Waited {
    /// Frames up to this one stay, of those asked for at least the first.
    UpTo(LogIndex),
    /// Time is up.
    TimedOut,
    /// The waiting was called off.
    CalledOff,
    /// Another journal is in use now.
    Replaced,
    /// No more frames come: it was closed, or has failed.
    Ended(Option<StorageError>),
}

impl Journal {
    /// Notes that frames up to `index` are committed.
    pub(crate) fn note_committed(&self, index: LogIndex) {
        let shared = self.shared();
        let mut state = shared.state.lock();
        state.committed = state.committed.max(Some(index));
        if state.followers > 0 {
            shared.progress.notify_all();
        }
    }

    /// Notes that another journal has taken this one's place.
    pub(crate) fn note_replaced(&self) {
        self.shared().state.lock().replaced = true;
        self.wake_followers();
    }

    /// Makes whoever waits look again.
    pub(crate) fn wake_followers(&self) {
        // Whoever has looked and does not wait yet has the lock.
        let _state = self.shared().state.lock();
        self.shared().progress.notify_all();
    }

    /// Waits until the frame at `next` stays.
    pub(crate) fn wait_for(&self, next: LogIndex, deadline: Option<Instant>, called_off: impl Fn() -> bool) -> Waited {
        let shared = self.shared();
        let mut state = shared.state.lock();
        loop {
            if called_off() {
                return Waited::CalledOff;
            }
            if state.replaced {
                return Waited::Replaced;
            }
            if let Some(end) = stays(&state).filter(|end| *end >= next) {
                return Waited::UpTo(end);
            }
            if let Some(error) = &state.poisoned {
                return Waited::Ended(Some(error.clone()));
            }
            if state.closing && !state.is_busy() {
                return Waited::Ended(None);
            }
            state.followers += 1;
            let timed_out = match deadline {
                Some(deadline) => shared.progress.wait_until(&mut state, deadline).timed_out(),
                None => {
                    shared.progress.wait(&mut state);
                    false
                }
            };
            state.followers -= 1;
            if timed_out && stays(&state).is_none_or(|end| end < next) {
                return Waited::TimedOut;
            }
        }
    }
}

/// The last frame that stays.
fn stays(state: &State) -> Option<LogIndex> {
    state.committed.min(state.durable.map(|durable| durable.index))
}
